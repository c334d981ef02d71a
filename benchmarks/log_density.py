"""Value and gradient of a Gaussian mixture's marginal log density.

Marginax beside the same density written by hand in JAX (as a specialist would: points in rows,
components in columns, `logsumexp` over the columns), and beside NumPyro's enumeration (if its
backend `funsor` is installed), in one process.

    python benchmarks/log_density.py [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy import stats
from jax.scipy.special import logsumexp
from timing import medians, show

import marginax as mx
import marginax.distributions as dist


def model(data: Array, components: int) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(components)))
    scale = mx.sample("scale", dist.LogNormal(0.0, 2.0))
    with mx.plate("components", components):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(data)):
        assignment = mx.sample("assignment", dist.Categorical(weights))
        mx.sample("obs", dist.Normal(locs[assignment], scale), obs=data)


def by_hand(params: dict[str, Array], data: Array) -> Array:
    weights, scale, locs = params["weights"], params["scale"], params["locs"]
    prior = (
        stats.dirichlet.logpdf(weights, jnp.ones(len(weights)))
        + stats.norm.logpdf(jnp.log(scale), 0.0, 2.0)
        - jnp.log(scale)
        + stats.norm.logpdf(locs, 0.0, 10.0).sum()
    )
    joint = jnp.log(weights) + stats.norm.logpdf(data[:, None], locs, scale)
    return prior + logsumexp(joint, axis=1).sum()


def numpyro_density(components: int) -> Callable[..., Array] | None:
    """NumPyro's density with the assignment enumerated, or None without its backend."""
    try:
        import funsor  # pyright: ignore[reportMissingImports]
        import numpyro
        from numpyro.contrib.funsor import config_enumerate, enum, log_density
    except ImportError:
        return None
    funsor.set_backend("jax")

    @config_enumerate
    def its_model(data: Array) -> None:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(components)))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with numpyro.plate("components", components):
            locs: Any = numpyro.sample("locs", dist.Normal(0.0, 10.0))
        with numpyro.plate("data", len(data)):
            chosen: Any = dist.Categorical(weights)
            assignment = numpyro.sample("assignment", chosen)
            numpyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    enumerated = enum(its_model, first_available_dim=-2)

    def density(params: dict[str, Array], data: Array) -> Any:
        return log_density(enumerated, (data,), {}, params)[0]

    return density


def compare(points: int, components: int, runs: int, calls: int) -> None:
    generator = np.random.default_rng(0)
    data = jnp.asarray(generator.normal(size=points) * 3, jnp.float32)
    params = {
        "weights": jnp.ones(components) / components,
        "scale": jnp.asarray(1.3),
        "locs": jnp.linspace(-4.0, 4.0, components),
    }
    marginal = mx.marginalize(model)
    densities: dict[str, Callable[..., Array] | None] = {
        "by hand": by_hand,
        "marginax": lambda p, x: marginal.log_density(p, x, components),
        "numpyro": numpyro_density(components),
    }
    compiled = {
        name: jax.jit(jax.value_and_grad(density))
        for name, density in densities.items()
        if density is not None
    }
    values = {name: float(fn(params, data)[0]) for name, fn in compiled.items()}
    for name, value in values.items():
        if not np.isclose(value, values["by hand"], rtol=1e-4):
            raise SystemExit(f"{name} gives {value}, by hand it is {values['by hand']}")
    times = medians(
        {name: (lambda f=fn: f(params, data)) for name, fn in compiled.items()}, runs, calls
    )
    title = f"{points:,} points, {components} components: value and gradient, median of {runs} runs"
    show(title, times, "by hand")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer runs, and no large case")
    quick = parser.parse_args().quick
    compare(1_000, 2, runs=21, calls=20 if quick else 200)
    if not quick:
        compare(100_000, 10, runs=11, calls=3)
        compare(1_000_000, 10, runs=11, calls=1)


if __name__ == "__main__":
    main()
