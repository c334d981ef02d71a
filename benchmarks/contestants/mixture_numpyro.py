"""The same in NumPyro, enumerated by its funsor backend; and what its SVI and NUTS pay first."""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from measured import parameters, peak_bytes, report, rows, seconds


def main() -> None:
    import funsor  # pyright: ignore[reportMissingImports]

    funsor.set_backend("jax")
    from numpyro.contrib.funsor import config_enumerate, enum, log_density
    from numpyro.infer.util import initialize_model

    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--components", type=int, default=10)
    options = parser.parse_args()
    components = options.components

    @config_enumerate
    def model(data: Any) -> None:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(components)))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with numpyro.plate("components", components):
            locs: Any = numpyro.sample("locs", dist.Normal(0.0, 10.0))
        with numpyro.plate("data", len(data)):
            chosen: Any = dist.Categorical(weights)
            assignment = numpyro.sample("assignment", chosen)
            numpyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    data = jnp.asarray(rows(options.points))
    weights, locs, scale = map(jnp.asarray, parameters(components))
    params = {"weights": weights, "locs": locs, "scale": scale}
    enumerated = enum(model, first_available_dim=-2)
    density = jax.jit(
        jax.value_and_grad(lambda params, data: log_density(enumerated, (data,), {}, params)[0])
    )
    before, start = peak_bytes(), time.perf_counter()
    value, _ = jax.block_until_ready(density(params, data))
    first = time.perf_counter() - start
    steady = seconds(lambda: jax.block_until_ready(density(params, data)))
    peak = peak_bytes() - before
    start = time.perf_counter()
    initialize_model(jax.random.key(0), model, model_args=(data,))
    report(
        "numpyro",
        "mixture",
        points=options.points,
        components=components,
        seconds=steady,
        first_seconds=first,
        initialize_seconds=time.perf_counter() - start,
        value=float(value),
        bytes_beside_data=peak,
    )


if __name__ == "__main__":
    main()
