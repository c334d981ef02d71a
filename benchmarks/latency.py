"""What people wait for: first answers in a fresh process, second answers in the same, with peers in the same run.

Every figure is the median of fresh processes, which take turns. The persistent cache of compiled programs is empty
for each process unless the row says otherwise; imports are not counted, but for commands, which are timed whole.

    python benchmarks/latency.py [--runs 5] [ROW ...]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Seconds = dict[str, float]


def timed(call: Callable[[], Any]) -> float:
    import jax

    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin


def first_and_again(call: Callable[[], Any], times: int = 20) -> tuple[float, float]:
    first = timed(call)
    return first, statistics.median(timed(call) for _ in range(times))


def query() -> Seconds:
    """The README's first model: an eager query, its gradient, and NumPyro's density of the same mixture."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as theirs
    from numpyro.infer.util import log_density

    import marginax as mx
    import marginax.distributions as dist

    x = jnp.array([0.0, 1.0, 10.0, 11.0, 12.0])
    params = {"w": jnp.array([0.3, 0.7]), "scale": jnp.array(1.0), "loc": jnp.array([0.5, 11.0])}

    def model(x: Any) -> None:
        w = mx.sample("w", dist.Dirichlet(0.5 * jnp.ones(2)))
        scale = mx.sample("scale", dist.LogNormal(0.0, 2.0))
        with mx.plate("components", 2):
            loc = mx.sample("loc", dist.Normal(0.0, 10.0))
        with mx.plate("data", len(x)):
            z = mx.sample("z", dist.Categorical(w))
            mx.sample("x", dist.Normal(loc[z], scale), obs=x)

    def numpyros(x: Any) -> None:
        w = numpyro.sample("w", theirs.Dirichlet(0.5 * jnp.ones(2)))
        scale = numpyro.sample("scale", theirs.LogNormal(0.0, 2.0))
        with numpyro.plate("components", 2):
            loc = numpyro.sample("loc", theirs.Normal(0.0, 10.0))
        with numpyro.plate("data", len(x)):
            mixture = theirs.MixtureSameFamily(theirs.Categorical(w), theirs.Normal(loc, scale))
            numpyro.sample("x", mixture, obs=x)

    m = mx.marginalize(model)
    by = jax.grad(lambda p: m.log_density(p, x))
    compiled = jax.jit(jax.grad(lambda p: m.log_density(p, x) + 0.0))
    first, again = first_and_again(lambda: m.log_density(params, x))
    compiled_first, _ = first_and_again(lambda: compiled(params))
    by_first, by_again = first_and_again(lambda: by(params))
    _, peer = first_and_again(lambda: log_density(numpyros, (x,), {}, params)[0])
    return {
        "log_density, first": first,
        "log_density, again": again,
        "NumPyro's log_density, again": peer,
        "gradient under jit, first": compiled_first,
        "gradient without jit, first": by_first,
        "gradient without jit, again": by_again,
    }


def hidden_markov() -> Seconds:
    """The first gradient of 5,000 steps of 8 states, beside the forward algorithm by hand."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import logsumexp
    from jax.scipy.stats import norm

    import marginax as mx
    import marginax.distributions as dist

    rng = np.random.default_rng(0)
    table, y = jnp.asarray(rng.dirichlet(np.ones(8), 8)), jnp.asarray(rng.normal(size=5_000))
    loc = jnp.arange(8.0)

    def model(y: Any, loc: Any) -> None:
        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Categorical(table[z]))
            mx.sample("y", dist.Normal(loc[z], 1.0), obs=y)
            return z, None

        mx.scan(step, 0, y)

    def forward(y: Any, loc: Any) -> Any:
        def step(alpha: Any, y: Any) -> Any:
            moved = logsumexp(alpha[:, None] + jnp.log(table), axis=0)
            return moved + norm.logpdf(y, loc), None

        start = jnp.log(table[0]) + norm.logpdf(y[0], loc)
        return logsumexp(jax.lax.scan(step, start, y[1:])[0])

    m = mx.marginalize(model)
    ours = jax.jit(jax.grad(lambda loc: m.log_density({}, y, loc)))
    by_hand = jax.jit(jax.grad(lambda loc: forward(y, loc)))
    return {
        "HMM, first gradient by hand": timed(lambda: by_hand(loc)),
        "HMM, first gradient": timed(lambda: ours(loc)),
    }


def network() -> Seconds:
    """All marginals of 37 discrete sites of up to four states with up to four parents."""
    import jax
    import jax.numpy as jnp

    import marginax as mx
    import marginax.distributions as dist

    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 5, 37)
    parents = [
        sorted(rng.choice(range(max(0, i - 5), i), min(i, int(rng.integers(0, 3))), replace=False))
        for i in range(37)
    ]
    tables = [
        jnp.asarray(rng.dirichlet(np.ones(n), [sizes[p] for p in own]))
        for n, own in zip(sizes, parents, strict=True)
    ]

    def model() -> None:
        values: list[Any] = []
        for i, (table, own) in enumerate(zip(tables, parents, strict=True)):
            place = tuple(values[p] for p in own)
            values.append(mx.sample(f"v{i}x", dist.Categorical(table[place] if own else table)))

    m = mx.marginalize(model)
    compiled = jax.jit(lambda: m.posterior({}))
    first = timed(lambda: m.posterior({}))
    _, again = first_and_again(compiled)
    return {"network of 37, first": first, "network of 37, again under jit": again}


def tree() -> Seconds:
    """A tree of 100 sites that a Python loop states."""
    import jax.numpy as jnp

    import marginax as mx
    import marginax.distributions as dist

    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.dirichlet(np.ones(3), 3))

    def model() -> None:
        values: list[Any] = []
        for i in range(100):
            row = table[values[(i - 1) // 2]] if i else table[0]
            values.append(mx.sample(f"v{i}x", dist.Categorical(row)))
            mx.sample(f"y{i}x", dist.Normal(values[-1], 1.0), obs=0.5)

    return {"tree of 100, first": timed(lambda: mx.marginalize(model).log_density({}))}


def rows(n: int, columns: int, components: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    means = 3.0 * rng.normal(size=(components, columns))
    return means[rng.integers(components, size=n)] + rng.normal(size=(n, columns))


def fits() -> Seconds:
    """`GaussianMixture.fit` beside scikit-learn's: at first, and of another table of the same shape."""
    from sklearn.mixture import GaussianMixture as Theirs

    from marginax.mixture import GaussianMixture

    found: Seconds = {}
    for n, columns, k in ((272, 2, 2), (10_000, 5, 4), (200_000, 10, 5)):
        X, other = rows(n, columns, k), rows(n, columns, k)[::-1] + 0.1
        name = f"fit of {n:,} x {columns}"
        found[f"{name}, first"] = timed(lambda k=k, X=X: GaussianMixture(k, random_state=0).fit(X))
        found[f"{name}, again"] = timed(
            lambda k=k, X=other: GaussianMixture(k, random_state=0).fit(X)
        )
        found[f"{name}, scikit-learn"] = timed(
            lambda k=k, X=other: Theirs(k, n_init=10, random_state=0).fit(X)
        )
    return found


def posterior() -> Seconds:
    """The tutorial's first posterior, 50 + 250 draws, compilation included."""
    import jax

    from marginax.infer import MCMC, NUTS
    from marginax.tutorial.mixture import DATA, model

    def run() -> Any:
        mcmc = MCMC(NUTS(model), num_warmup=50, num_samples=250, num_chains=1, progress_bar=False)
        mcmc.run(jax.random.key(2), DATA)
        return mcmc.get_samples()

    return {"first posterior (50 + 250)": timed(run)}


def whole(*command: str) -> float:
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "marginax.cli", *command], check=True, capture_output=True
    )
    return time.perf_counter() - begin


def answers(*command: str) -> float:
    """Until a service answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    begin = time.perf_counter()
    service = subprocess.Popen(
        [sys.executable, "-m", "marginax.cli", *command, "--port", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while service.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1):
                    return time.perf_counter() - begin
            except OSError:  # not there yet, or too busy still to answer
                time.sleep(0.02)
        raise RuntimeError("the service has ended")
    finally:
        service.terminate()
        service.wait()


def commands() -> Seconds:
    """The commands on a table of 272 x 2, with an empty cache of programs and with a filled one."""
    found: Seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        table, model = Path(folder) / "rows.csv", str(Path(folder) / "model.mx")
        np.savetxt(table, rows(272, 2, 2), delimiter=",", header="a,b", comments="")
        for cache in ("empty", "filled"):
            out = str(Path(folder) / cache)
            calls: dict[str, tuple[str, ...]] = {
                "fit -k 2": ("fit", str(table), "-k", "2", "--out", f"{out}.mx"),
                "fit -k 1..5": ("fit", str(table), "-k", "1..5", "--out", model + cache),
            }
            for name, command in calls.items():
                found[f"marginax {name}, cache {cache}"] = whole(*command)
            fitted = model + cache
            found[f"marginax predict, cache {cache}"] = whole(
                "predict", fitted, str(table), "--out", f"{out}.csv"
            )
            found[f"marginax report, cache {cache}"] = whole(
                "report", fitted, "--out", f"{out}.html"
            )
            found[f"marginax serve until it answers, cache {cache}"] = answers("serve", fitted)
            found[f"marginax tutorial, cache {cache}"] = whole("tutorial", "--out", f"{out}-tour")
    return found


ROWS: dict[str, Callable[[], Seconds]] = {
    f.__name__: f for f in (query, hidden_markov, network, tree, fits, posterior, commands)
}


def in_fresh_process(row: str) -> Seconds:
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, __file__, "--one", row],
            check=True,
            capture_output=True,
            text=True,
            # Ours keeps all programs, JAX's alone those that take a second to compile.
            env={**os.environ, "MARGINAX_CACHE_DIR": cache},
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], help="all when nothing is said")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", choices=list(ROWS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(ROWS[options.one]()))
        return
    times: dict[str, list[float]] = {}
    for _ in range(options.runs):
        for row in options.rows or ROWS:
            for name, seconds in in_fresh_process(row).items():
                times.setdefault(name, []).append(seconds)
    print(f"medians of {options.runs} fresh processes")
    for name, values in times.items():
        print(f"  {name:<48} {statistics.median(values):9.3f} s")


if __name__ == "__main__":
    main()
