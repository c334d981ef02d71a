"""The tutorial's MAP in Marginax, NumPyro and Pyro: the same model, data and steps.

Each library runs in a fresh process (and its own environment, if the interpreters differ), in turn;
compilation is counted, imports are not. The median of the runs is shown. Of Marginax two more times, after
compilation: the whole call of `SVI.run` once more (the model is traced again, so that it is seen as it is now),
and what 100 restarts x 200 steps take in it: a twentieth of a call of 4,000 steps less one of a single step.

    python benchmarks/tutorial.py [--numpyro PYTHON] [--pyro PYTHON] [--runs N]

PYTHON is an interpreter whose environment has that library: `numpyro funsor optax`, or `pyro-ppl torch`.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

POINTS = [0.0, 1.0, 10.0, 11.0, 12.0]
RESTARTS, STEPS = 100, 200


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = job()
    return time.perf_counter() - start, result


def marginax() -> dict[str, float]:
    import jax

    from marginax.infer import SVI, TraceEnum_ELBO
    from marginax.infer.autoguide import AutoDelta
    from marginax.optim import Adam
    from marginax.tutorial.mixture import DATA, model, plausible_start

    guide = AutoDelta(model, init_loc_fn=plausible_start)
    svi = SVI(model, guide, Adam(0.1, 0.8, 0.99), TraceEnum_ELBO())

    def fit(steps: int = STEPS, select: str = "initial") -> float:
        options: Any = {"num_restarts": RESTARTS, "select": select, "tolerance": 0}
        result = svi.run(jax.random.key(0), steps, DATA, progress_bar=False, **options)
        return float(result.losses[-1])

    svi_seconds, loss = timed(fit)
    again = statistics.median(timed(fit)[0] for _ in range(5))
    fit(1, "final")
    all_steps, one_step = (
        statistics.median(timed(functools.partial(fit, steps, "final"))[0] for _ in range(5))
        for steps in (20 * STEPS, 1)
    )
    found = {"svi": svi_seconds, "loss": loss}
    return found | {"again": again, "steps": (all_steps - one_step) / 20}


def numpyro() -> dict[str, float]:
    import jax
    import jax.numpy as jnp
    import numpyro as npy
    import numpyro.distributions as dist
    from numpyro.contrib.funsor import config_enumerate
    from numpyro.infer import SVI, TraceEnum_ELBO
    from numpyro.infer.autoguide import AutoDelta

    data = jnp.array(POINTS)

    @config_enumerate
    def model(data: Any) -> None:
        weights = npy.sample("weights", dist.Dirichlet(0.5 * jnp.ones(2)))
        scale = npy.sample("scale", dist.LogNormal(0.0, 2.0))
        with npy.plate("components", 2, dim=-1):
            locs: Any = npy.sample("locs", dist.Normal(0.0, 10.0))
        with npy.plate("data", len(data), dim=-1):
            chosen: Any = dist.Categorical(weights)
            assignment = npy.sample("assignment", chosen)
            npy.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    def start(site: Any = None) -> Any:
        if site is None:
            return functools.partial(start)
        if site["name"] == "weights":
            return jnp.ones(2) / 2
        if site["name"] == "scale":
            return jnp.sqrt(jnp.var(data, ddof=1) / 2)
        if site["name"] == "locs":
            return jax.random.choice(site["kwargs"]["rng_key"], data, (2,), replace=False)
        return None

    def fit() -> float:
        exposed = npy.handlers.block(model, hide=["assignment"])
        guide = AutoDelta(exposed, init_loc_fn=start)
        elbo = TraceEnum_ELBO(max_plate_nesting=1)
        svi = SVI(model, guide, npy.optim.Adam(0.1, 0.8, 0.99), elbo)

        def first_loss(seed: int) -> tuple[float, int]:
            state = svi.init(jax.random.key(seed), data)
            return float(svi.evaluate(state, data)), seed

        _, best = min(first_loss(seed) for seed in range(RESTARTS))
        result = svi.run(jax.random.key(best), STEPS, data, progress_bar=False)
        return float(result.losses[-1])

    svi_seconds, loss = timed(fit)
    return {"svi": svi_seconds, "loss": loss}


def pyro_model() -> tuple[Any, Any]:
    """The tutorial's model in Pyro, and its data."""
    import pyro as pyr  # pyright: ignore[reportMissingImports]
    import pyro.distributions as dist  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]
    from pyro.infer import config_enumerate  # pyright: ignore[reportMissingImports]

    data = torch.tensor(POINTS)

    @config_enumerate
    def model(data: Any) -> None:
        weights = pyr.sample("weights", dist.Dirichlet(0.5 * torch.ones(2)))
        scale = pyr.sample("scale", dist.LogNormal(0.0, 2.0))
        with pyr.plate("components", 2):
            locs = pyr.sample("locs", dist.Normal(0.0, 10.0))
        with pyr.plate("data", len(data)):
            assignment = pyr.sample("assignment", dist.Categorical(weights))
            pyr.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    return model, data


def pyro() -> dict[str, float]:
    import pyro as pyr  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]
    from pyro import poutine  # pyright: ignore[reportMissingImports]
    from pyro.infer import SVI, TraceEnum_ELBO  # pyright: ignore[reportMissingImports]
    from pyro.infer.autoguide import AutoDelta  # pyright: ignore[reportMissingImports]

    model, data = pyro_model()

    def start(site: Any) -> Any:
        if site["name"] == "weights":
            return torch.ones(2) / 2
        if site["name"] == "scale":
            return (data.var() / 2).sqrt()
        return data[torch.multinomial(torch.ones(len(data)) / len(data), 2)]

    def begin(seed: int) -> tuple[float, SVI]:
        pyr.set_rng_seed(seed)
        pyr.clear_param_store()
        guide = AutoDelta(
            poutine.block(model, expose=["weights", "locs", "scale"]), init_loc_fn=start
        )
        optim = pyr.optim.Adam({"lr": 0.1, "betas": [0.8, 0.99]})
        svi = SVI(model, guide, optim, loss=TraceEnum_ELBO(max_plate_nesting=1))
        return svi.loss(model, guide, data), svi

    def fit() -> float:
        _, best = min((begin(seed)[0], seed) for seed in range(RESTARTS))
        _, svi = begin(best)
        return [svi.step(data) for _ in range(STEPS)][-1]

    svi_seconds, loss = timed(fit)
    return {"svi": svi_seconds, "loss": loss}


LIBRARIES = {"marginax": marginax, "numpyro": numpyro, "pyro": pyro}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--numpyro", metavar="PYTHON", help="an interpreter that has NumPyro")
    parser.add_argument("--pyro", metavar="PYTHON", help="an interpreter that has Pyro")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(LIBRARIES[options.one]()))
        return
    pythons = {"marginax": sys.executable, "numpyro": options.numpyro, "pyro": options.pyro}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name, p in pythons.items() if p}
    for _ in range(options.runs):
        for name in runs:
            command = [pythons[name], __file__, "--one", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"median of {options.runs} fresh processes, compilation included")
    print(f"  {'':10} {'MAP, 100 starts':>16} {'final loss':>11}")
    for name, results in runs.items():
        svi, loss = (statistics.median(r[key] for r in results) for key in ("svi", "loss"))
        print(f"  {name:10} {svi:>14.2f} s {loss:>11.3f}")
    for key, what in (
        ("again", "the same call again"),
        ("steps", "100 restarts x 200 steps in it"),
    ):
        seconds = statistics.median(r[key] for r in runs["marginax"])
        print(f"  marginax, {what}: {seconds * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
