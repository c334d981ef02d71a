"""Hidden Markov models: value and gradient of the marginal density, and seconds until the first gradient.

Observations are normal with a location for each state; gradients are taken with respect to the table of transitions and
the locations. By hand is the forward algorithm on logarithms, in JAX. NumPyro (its enumerated `scan`; needs the
backend `funsor`) and dynamax take part if they are installed.

    python benchmarks/hmm.py            the table; with --quick, only 5,000 steps and 8 states
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from timing import medians, show

STATES = (2, 8, 64)
LENGTHS = (100, 5_000, 100_000)
CENTRE = (5_000, 8)
RUNS = 7
FRESH = 3
MOST_FOR_NUMPYRO = 2**26
"""Steps x states x states, beyond which NumPyro needs more memory than a machine like this one has."""

Density = Callable[[Any, Any], Any]


def series(length: int, states: int) -> tuple[Any, Any]:
    """Parameters and data."""
    rng = np.random.default_rng(0)
    params = {
        "table": jnp.asarray(rng.dirichlet(np.ones(states), states), jnp.float32),
        "locs": jnp.linspace(-2.0, 2.0, states),
    }
    return params, jnp.asarray(rng.normal(size=length), jnp.float32)


def by_hand(states: int) -> Density:
    def density(params: Any, data: Any) -> Any:
        log_table = jnp.log(params["table"])
        observed = norm.logpdf(data[:, None], params["locs"], 1.0)

        def step(alpha: Any, now: Any) -> Any:
            return logsumexp(alpha[:, None] + log_table, axis=0) + now, None

        alpha, _ = jax.lax.scan(step, log_table[0] + observed[0], observed[1:])
        return logsumexp(alpha)

    return density


def marginax(states: int) -> Density:
    import marginax as mx
    import marginax.distributions as dist

    def model(params: Any, data: Any) -> None:
        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Categorical(params["table"][z]))
            mx.sample("y", dist.Normal(params["locs"][z], 1.0), obs=y)
            return z, None

        mx.scan(step, 0, data)

    marginal = mx.marginalize(model)
    return lambda params, data: marginal.log_density({}, params, data)


def numpyro(states: int) -> Density:
    import funsor  # pyright: ignore[reportMissingImports]
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.control_flow import scan
    from numpyro.contrib.funsor import config_enumerate, enum, log_density
    from numpyro.ops.indexing import Vindex

    funsor.set_backend("jax")

    @config_enumerate
    def model(params: Any, data: Any) -> None:
        def step(z: Any, y: Any) -> Any:
            z = numpyro.sample("z", cast(Any, dist.Categorical(Vindex(params["table"])[z])))
            numpyro.sample("y", dist.Normal(Vindex(params["locs"])[z], 1.0), obs=y)
            return z, None

        scan(step, 0, data)

    def density(params: Any, data: Any) -> Any:
        seeded = numpyro.handlers.seed(model, 0)
        return log_density(enum(seeded, first_available_dim=-1), (params, data), {}, {})[0]

    return density


def dynamax(states: int) -> Density:
    from dynamax.hidden_markov_model import (  # pyright: ignore[reportMissingImports]
        hmm_filter,
    )

    def density(params: Any, data: Any) -> Any:
        observed = norm.logpdf(data[:, None], params["locs"], 1.0)
        table = params["table"]
        return hmm_filter(table[0], table, observed).marginal_loglik

    return density


CONTESTANTS = {"marginax": marginax, "by hand": by_hand, "numpyro": numpyro, "dynamax": dynamax}
NEEDS = {"numpyro": "funsor", "dynamax": "dynamax"}


def present() -> list[str]:
    return [
        name
        for name in CONTESTANTS
        if name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None
    ]


def compare(length: int, states: int) -> None:
    params, data = series(length, states)
    calls: dict[str, Callable[[], Any]] = {}
    for name in present():
        if name == "numpyro" and length * states**2 > MOST_FOR_NUMPYRO:
            continue
        compiled = jax.jit(jax.value_and_grad(CONTESTANTS[name](states)))
        calls[name] = lambda compiled=compiled: compiled(params, data)
    values = {name: float(call()[0]) for name, call in calls.items()}
    scale = max(abs(values["marginax"]), 1.0)
    for name, value in values.items():
        # On logarithms that are never brought back to zero, single precision loses digits in long series.
        if abs(value - values["marginax"]) > 1e-3 * scale:
            raise SystemExit(f"{name} finds {value}, marginax {values['marginax']}")
    slowest = max(_seconds(call) for call in calls.values())
    times = medians(calls, RUNS, calls=max(1, min(20, int(0.2 / slowest))))
    show(f"value and gradient, {length:,} steps, {states} states", times, "by hand")


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def first_gradient(name: str) -> float:
    """Trace, compile and run once, in this process."""
    length, states = CENTRE
    params, data = series(length, states)
    density = CONTESTANTS[name](states)
    jax.block_until_ready(jax.jit(lambda x: 2 * x)(1.0))  # the compiler's own start
    start = time.perf_counter()
    jax.block_until_ready(jax.jit(jax.value_and_grad(density))(params, data))
    return time.perf_counter() - start


def in_fresh_processes(name: str) -> float:
    command = [sys.executable, __file__, "--one", name]
    times = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(FRESH)
    ]
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5,000 steps and 8 states only")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(first_gradient(options.one))
        return
    for states in STATES:
        for length in LENGTHS:
            if not options.quick or (length, states) == CENTRE:
                compare(length, states)
    length, states = CENTRE
    times = {name: in_fresh_processes(name) for name in present()}
    show(f"seconds to the first gradient, {length:,} steps, {states} states", times, "by hand")


if __name__ == "__main__":
    main()
