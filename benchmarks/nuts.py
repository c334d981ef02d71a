"""Collapsed NUTS in Marginax, NumPyro and Pyro: the first posterior, many draws, many chains, much data.

Each contestant runs in a fresh process, in turn; imports are not counted. Medians of the runs are shown.

    python benchmarks/nuts.py [--pyro PYTHON] [--runs N] [--only PART ...]

NumPyro runs in the same environment (it needs `funsor`); PYTHON is an interpreter whose environment has
`pyro-ppl torch`.

Parts:

- ``first``: the tutorial's posterior, 50 + 250 draws, from the model to the draws, compilation included.
- ``draws``: 10,000 draws of the same model at one step size, so that all do the same work. "call" is the whole call,
  the second in the process: both libraries trace the model anew, and NumPyro compiles anew. "alone" is a tenth of
  what a call of 100,000 draws takes beyond one of a single draw. "by hand" is the density written out in JAX with
  its discrete sites summed out, given to BlackJAX's NUTS in a compiled loop.
- ``chains``: 64 chains at once, 300 + 300 draws, of a mixture of two whose labels are told apart by their priors.
- ``mixture``: five Gaussians, 100,000 points, one chain, 100 + 100 draws.
- ``hmm``: three states, 5,000 steps, one chain, 50 + 50 draws.

The last three give effective draws (of the worst scalar, bulk, by ArviZ) per second, with compilation and without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from tutorial import POINTS, pyro_model, timed

PARTS = ("first", "draws", "chains", "mixture", "hmm")
STEP_SIZE = 0.4
SIZES = {"chains": (300, 300, 64), "mixture": (100, 100, 1), "hmm": (50, 50, 1)}
"""Warm-up, draws, chains."""


# -- data, the same for all


def mixture_data() -> np.ndarray:
    rng = np.random.default_rng(0)
    which = rng.choice(5, size=100_000, p=[0.3, 0.25, 0.2, 0.15, 0.1])
    return (rng.normal(size=100_000) * (1 + 0.2 * which) + 6.0 * which).astype(np.float32)


def hmm_data() -> np.ndarray:
    rng = np.random.default_rng(0)
    state, y = 0, []
    for _ in range(5_000):
        state = state if rng.random() < 0.9 else int(rng.integers(3))
        y.append(rng.normal(4.0 * state, 1.0))
    return np.array(y, np.float32)


STARTS: dict[str, dict[str, Any]] = {
    "draws": {
        "weights": np.array([0.5, 0.5], np.float32),
        "scale": np.float32(1.0),
        "locs": np.array([0.0, 10.0], np.float32),
    },
    "mixture": {
        "weights": np.array([0.3, 0.25, 0.2, 0.15, 0.1], np.float32),
        "locs": 6.0 * np.arange(5, dtype=np.float32),
        "scales": 1 + 0.2 * np.arange(5, dtype=np.float32),
    },
    "hmm": {
        "rows": np.full((3, 3), 0.05, np.float32) + 0.85 * np.eye(3, dtype=np.float32),
        "locs": 4.0 * np.arange(3, dtype=np.float32),
    },
}


# -- the models, for two libraries with the same names


def models(pp: Any, dist: Any, scan: Any, index: Any, enumerated: dict[str, Any]) -> dict[str, Any]:
    """For NumPyro, ``enumerated`` is what a discrete site is told, and ``index`` wraps what it indexes in a scan."""
    import jax.numpy as jnp

    def tutorial(data: Any) -> None:
        weights = pp.sample("weights", dist.Dirichlet(0.5 * jnp.ones(2)))
        scale = pp.sample("scale", dist.LogNormal(0.0, 2.0))
        with pp.plate("components", 2):
            locs = pp.sample("locs", dist.Normal(0.0, 10.0))
        with pp.plate("data", len(data)):
            assignment = pp.sample("assignment", dist.Categorical(weights), infer=enumerated)
            pp.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    def told_apart(data: Any) -> None:
        weight = pp.sample("weight", dist.Beta(2.0, 2.0))
        scale = pp.sample("scale", dist.LogNormal(0.0, 1.0))
        with pp.plate("components", 2):
            locs = pp.sample("locs", dist.Normal(jnp.array([0.5, 11.0]), 1.0))
        with pp.plate("data", len(data)):
            z = pp.sample("z", dist.Bernoulli(weight), infer=enumerated)
            pp.sample("obs", dist.Normal(locs[z], scale), obs=data)

    def mixture(x: Any) -> None:
        weights = pp.sample("weights", dist.Dirichlet(jnp.ones(5)))
        with pp.plate("components", 5):
            locs = pp.sample("locs", dist.Normal(10.0, 20.0))
            scales = pp.sample("scales", dist.LogNormal(0.0, 1.0))
        with pp.plate("data", len(x)):
            z = pp.sample("z", dist.Categorical(weights), infer=enumerated)
            pp.sample("x", dist.Normal(locs[z], scales[z]), obs=x)

    def hmm(y: Any) -> None:
        rows = pp.sample("rows", dist.Dirichlet(jnp.ones((3, 3))).to_event(1))
        locs = pp.sample("locs", dist.Normal(4.0, 5.0).expand([3]).to_event(1))

        def step(z: Any, y: Any) -> Any:
            z = pp.sample("z", dist.Categorical(index(rows)[z]), infer=enumerated)
            pp.sample("y", dist.Normal(index(locs)[z], 1.0), obs=y)
            return z, None

        scan(step, 0, y)

    return {
        "first": (tutorial, POINTS),
        "draws": (tutorial, POINTS),
        "chains": (told_apart, POINTS),
        "mixture": (mixture, None),
        "hmm": (hmm, None),
    }


def data_of(part: str, points: Any) -> Any:
    import jax.numpy as jnp

    data = {"mixture": mixture_data, "hmm": hmm_data}.get(part, lambda: np.array(points))
    return jnp.asarray(data(), jnp.float32)


# -- the contestants; each returns numbers that can be written as JSON


def with_numpyros_names(
    part: str, mcmc_of: Callable[[Any, int, int, int], Any], model: Any, points: Any
) -> dict[str, Any]:
    """Marginax and NumPyro are asked in the same way."""
    import jax

    data = data_of(part, points)

    def run(warmup: int, draws: int, chains: int = 1, seed: int = 1) -> Any:
        mcmc = mcmc_of(model, warmup, draws, chains)
        mcmc.run(jax.random.key(seed), data, extra_fields=("num_steps",))
        jax.block_until_ready(mcmc.get_samples())
        return mcmc

    if part == "first":
        return {"seconds": timed(lambda: run(50, 250))[0]}
    if part == "draws":
        run(0, 1), run(0, 10_000)
        short = statistics.median(timed(lambda: run(0, 1))[0] for _ in range(3))
        calls = [timed(lambda: run(0, 10_000)) for _ in range(3)]
        seconds = statistics.median(call for call, _ in calls)
        leapfrogs = int(calls[0][1].get_extra_fields()["num_steps"].sum())
        many, _ = timed(lambda: run(0, 100_000))
        return {"call": seconds, "alone": (many - short) / 10, "leapfrogs": leapfrogs}
    warmup, draws, chains = SIZES[part]
    first, _ = timed(lambda: run(warmup, draws, chains))
    again, mcmc = timed(lambda: run(warmup, draws, chains))
    samples = mcmc.get_samples(group_by_chain=True)
    leapfrogs = int(mcmc.get_extra_fields()["num_steps"].sum())
    return {"first": first, "again": again, "leapfrogs": leapfrogs} | quality(samples)


def options_of(part: str, init_to_value: Any) -> dict[str, Any]:
    """The sampler's options, which have the same names in both libraries."""
    import jax.numpy as jnp

    options = {"step_size": STEP_SIZE} if part == "draws" else {}
    start = {name: jnp.asarray(value) for name, value in STARTS.get(part, {}).items()}
    return options | ({"init_strategy": init_to_value(values=start)} if start else {})


def quality(samples: dict[str, Any]) -> dict[str, Any]:
    """The worst effective number of draws, and the means and their errors."""
    from arviz_stats.base.array import array_stats as stats

    array_stats: Any = stats
    worst, means = np.inf, {}
    for name, value in sorted(samples.items()):
        draws = np.asarray(value, np.float64)
        draws = draws.reshape((*draws.shape[:2], -1))
        for i in range(draws.shape[-1]):
            axes = {"chain_axis": 0, "draw_axis": 1}
            worst = min(worst, float(array_stats.ess(draws[..., i], method="bulk", **axes)))
            error = float(array_stats.mcse(draws[..., i], method="mean", **axes))
            means[f"{name}[{i}]"] = (float(draws[..., i].mean()), error)
    return {"ess": worst, "means": means}


def marginax(part: str) -> dict[str, Any]:
    import marginax as mx
    import marginax.distributions as dist

    model, points = models(mx, dist, mx.scan, lambda array: array, {})[part]
    NUTS, MCMC = mx.infer.NUTS, mx.infer.MCMC  # loads BlackJAX, before the clock starts

    def mcmc_of(model: Any, warmup: int, draws: int, chains: int) -> Any:
        kernel = NUTS(model, **options_of(part, mx.infer.init_to_value))
        return MCMC(
            kernel,
            num_warmup=warmup,
            num_samples=draws,
            num_chains=chains,
            progress_bar=False,
        )

    return with_numpyros_names(part, mcmc_of, model, points)


def numpyro(part: str) -> dict[str, Any]:
    import funsor  # pyright: ignore[reportMissingImports]
    import numpyro as npy
    import numpyro.distributions as dist
    from numpyro.contrib.control_flow import scan
    from numpyro.infer import MCMC, NUTS, init_to_value
    from numpyro.ops.indexing import Vindex

    funsor.set_backend("jax")
    model, points = models(npy, dist, scan, Vindex, {"enumerate": "parallel"})[part]

    def mcmc_of(model: Any, warmup: int, draws: int, chains: int) -> Any:
        if part == "hmm":
            return NumpyroHmm(warmup, draws)
        options = options_of(part, init_to_value)
        if part == "draws":
            options |= {"adapt_step_size": False, "adapt_mass_matrix": False}
        kernel = NUTS(model, **options)
        return MCMC(
            kernel,
            num_warmup=warmup,
            num_samples=draws,
            num_chains=chains,
            chain_method="vectorized",
            progress_bar=False,
        )

    return with_numpyros_names(part, mcmc_of, model, points)


class NumpyroHmm:
    """NumPyro's density of this model fails where the table's rows are a site; so the prior is added by hand."""

    def __init__(self, warmup: int, draws: int) -> None:
        from numpyro.distributions import biject_to, constraints

        self.sizes = (warmup, draws)
        self.supports = {
            "rows": biject_to(constraints.simplex),
            "locs": biject_to(constraints.real_vector),
        }
        self.mcmc: Any = None

    def run(self, key: Any, data: Any, extra_fields: Any) -> None:
        import jax.numpy as jnp
        import numpyro as npy
        import numpyro.distributions as dist
        from numpyro.contrib.control_flow import scan
        from numpyro.contrib.funsor import enum, log_density
        from numpyro.infer import MCMC, NUTS
        from numpyro.ops.indexing import Vindex

        def model(params: Any, data: Any) -> None:
            def step(z: Any, y: Any) -> Any:
                fn: Any = dist.Categorical(Vindex(params["rows"])[z])
                z = npy.sample("z", fn, infer={"enumerate": "parallel"})
                npy.sample("y", dist.Normal(Vindex(params["locs"])[z], 1.0), obs=y)
                return z, None

            scan(step, 0, data)

        def potential(free: Any) -> Any:
            params = {name: self.supports[name](value) for name, value in free.items()}
            total = dist.Dirichlet(jnp.ones((3, 3))).log_prob(params["rows"]).sum()
            total += dist.Normal(4.0, 5.0).log_prob(params["locs"]).sum()
            for name, value in free.items():
                total += self.supports[name].log_abs_det_jacobian(value, params[name]).sum()
            enumerated = enum(npy.handlers.seed(model, 0), first_available_dim=-1)
            return -total - log_density(enumerated, (params, data), {}, {})[0]

        warmup, draws = self.sizes
        self.mcmc = MCMC(
            NUTS(potential_fn=potential), num_warmup=warmup, num_samples=draws, progress_bar=False
        )
        start = {
            name: self.supports[name].inv(jnp.asarray(STARTS["hmm"][name]))
            for name in self.supports
        }
        self.mcmc.run(key, init_params=start, extra_fields=extra_fields)

    def get_samples(self, group_by_chain: bool = False) -> Any:
        free = self.mcmc.get_samples(group_by_chain=group_by_chain)
        return {name: self.supports[name](value) for name, value in free.items()}

    def get_extra_fields(self) -> Any:
        return self.mcmc.get_extra_fields()


def by_hand(part: str) -> dict[str, Any]:
    """10,000 draws of the tutorial's density, written out, by BlackJAX."""
    import blackjax
    import jax
    import jax.numpy as jnp
    from jax.scipy import stats
    from jax.scipy.special import logsumexp

    kernels: Any = blackjax
    data = data_of(part, POINTS)

    def log_density(p: dict[str, Any]) -> Any:
        log_weights = jnp.stack([jax.nn.log_sigmoid(-p["odds"]), jax.nn.log_sigmoid(p["odds"])])
        prior = jnp.sum(0.5 * log_weights)  # Dirichlet(0.5, 0.5), times the Jacobian of the odds
        prior += stats.norm.logpdf(p["log_scale"], 0.0, 2.0)
        prior += stats.norm.logpdf(p["locs"], 0.0, 10.0).sum()
        each = log_weights + stats.norm.logpdf(data[:, None], p["locs"], jnp.exp(p["log_scale"]))
        return prior + logsumexp(each, axis=1).sum()

    start = {"odds": jnp.zeros(()), "log_scale": jnp.zeros(()), "locs": jnp.array([0.0, 10.0])}
    kernel = kernels.nuts(log_density, STEP_SIZE, jnp.ones(4))
    state = kernel.init(start)

    @jax.jit
    def draw(key: Any, state: Any) -> Any:
        def step(state: Any, key: Any) -> Any:
            state, info = kernel.step(key, state)
            return state, (state.position, info.num_integration_steps)

        return jax.lax.scan(step, state, jax.random.split(key, 10_000))[1]

    jax.block_until_ready(draw(jax.random.key(1), state))
    calls = [timed(lambda: jax.block_until_ready(draw(jax.random.key(2), state))) for _ in range(3)]
    seconds = statistics.median(call for call, _ in calls)
    return {"call": seconds, "alone": seconds, "leapfrogs": int(calls[0][1][1].sum())}


def pyro(part: str) -> dict[str, Any]:
    import pyro as pyr  # pyright: ignore[reportMissingImports]
    from pyro.infer import MCMC, NUTS  # pyright: ignore[reportMissingImports]

    model, data = pyro_model()

    def explore() -> None:
        mcmc = MCMC(NUTS(model), num_samples=250, warmup_steps=50, disable_progbar=True)
        mcmc.run(data)
        mcmc.get_samples()

    pyr.set_rng_seed(2)
    return {"seconds": timed(explore)[0]}


CONTESTANTS = {"marginax": marginax, "by hand": by_hand, "numpyro": numpyro, "pyro": pyro}
RUNNERS = {
    "first": ("marginax", "numpyro", "pyro"),
    "draws": ("marginax", "by hand", "numpyro"),
    "chains": ("marginax", "numpyro"),
    "mixture": ("marginax", "numpyro"),
    "hmm": ("marginax", "numpyro"),
}


# -- tables


def show(part: str, found: dict[str, dict[str, Any]]) -> None:
    print(f"\n{part}")
    if part == "first":
        for name, result in found.items():
            ratio = result["seconds"] / found["marginax"]["seconds"]
            print(f"  {name:9} {result['seconds']:8.2f} s   {ratio:6.2f} x marginax")
        return
    if part == "draws":
        ours = found["marginax"]
        for name, result in found.items():
            rates = [result["leapfrogs"] / result[k] for k in ("call", "alone")]
            slower = [
                ours["leapfrogs"] / ours[k] / r
                for k, r in zip(("call", "alone"), rates, strict=True)
            ]
            print(
                f"  {name:9} call {result['call']:5.2f} s, {rates[0]:9,.0f} leapfrogs/s, {slower[0]:5.2f} x slower; "
                f"alone {1e6 / rates[1]:5.2f} µs a leapfrog, {slower[1]:5.2f} x slower "
                f"({result['leapfrogs'] / 1e4:.1f} a draw)"
            )
        return
    warmup, draws, chains = SIZES[part]
    print(f"  {chains} chain(s), {warmup} + {draws} draws")
    ours = found["marginax"]
    for name, result in found.items():
        cold, warm = result["ess"] / result["first"], result["ess"] / result["again"]
        less = [ours["ess"] / ours[k] / rate for k, rate in (("first", cold), ("again", warm))]
        print(
            f"  {name:9} first {result['first']:7.2f} s, again {result['again']:7.2f} s, {result['leapfrogs']:,} "
            f"leapfrogs, worst ESS {result['ess']:7.0f}; ESS/s {cold:8.1f} with and {warm:8.1f} without "
            f"compilation ({less[0]:.1f} and {less[1]:.1f} x less)"
        )
    compare_means(ours["means"], found["numpyro"]["means"])


def compare_means(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """The libraries sample the same posterior, or say that they do not."""
    for name in sorted(ours.keys() & theirs.keys()):
        (a, error_a), (b, error_b) = ours[name], theirs[name]
        if abs(a - b) > 5 * np.hypot(error_a, error_b) + 1e-3 * abs(a):
            print(f"  WARNING: the mean of {name} is {a:.4g} here, {b:.4g} in NumPyro")


def middle(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number; of what is no number, that of the first run."""
    return {
        key: statistics.median(r[key] for r in results) if isinstance(value, int | float) else value
        for key, value in results[0].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pyro", metavar="PYTHON", help="an interpreter that has Pyro")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, part = options.one
        print(json.dumps(CONTESTANTS[name](part)))
        return
    for part in options.only:
        names = [n for n in RUNNERS[part] if n != "pyro" or options.pyro]
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(options.runs):
            for name in names:
                python = options.pyro if name == "pyro" else sys.executable
                command = [python, __file__, "--one", name, part]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results[name].append(json.loads(done.stdout.splitlines()[-1]))
        show(part, {name: middle(of) for name, of in results.items()})


if __name__ == "__main__":
    main()
