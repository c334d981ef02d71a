"""Value and gradient of a Gaussian mixture's marginal density: Marginax.

python mixture_marginax.py --points 1000000 --components 10 [--devices 2]
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from measured import parameters, peak_bytes, report, rows, seconds

import marginax as mx
import marginax.distributions as dist


def model(data: Any, components: int) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(components)))
    scale = mx.sample("scale", dist.LogNormal(0.0, 2.0))
    with mx.plate("components", components):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(data)):
        assignment = mx.sample("assignment", dist.Categorical(weights))
        mx.sample("obs", dist.Normal(locs[assignment], scale), obs=data)


def ready(function: Any, *arguments: Any) -> None:
    """Call it and wait for the result."""
    jax.block_until_ready(function(*arguments))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--components", type=int, nargs="+", default=[10])
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--name", default="marginax")
    options = parser.parse_args()
    devices, marginal = mx.devices(options.devices), mx.marginalize(model)
    for points in options.points:
        for components in options.components:
            with devices:
                before = peak_bytes()
                data = jnp.asarray(rows(points))
                weights, locs, scale = parameters(components)
                params = {"weights": jnp.asarray(weights), "locs": jnp.asarray(locs)}
                params["scale"] = jnp.asarray(scale)
                if options.devices > 1:
                    data = devices.shard(data)
                    everywhere = jax.sharding.NamedSharding(
                        devices.mesh, jax.sharding.PartitionSpec()
                    )
                    params = jax.device_put(params, everywhere)
                with_data = peak_bytes()
                start = time.perf_counter()
                density = jax.jit(
                    jax.value_and_grad(
                        lambda params, data, k=components: marginal.log_density(params, data, k)
                    )
                )
                value, _ = jax.block_until_ready(density(params, data))
                first = time.perf_counter() - start
                analysis = density.lower(params, data).compile().memory_analysis()
                report(
                    options.name,
                    "mixture",
                    points=points,
                    components=components,
                    seconds=seconds(partial(ready, density, params, data)),
                    first_seconds=first,
                    value=float(value),
                    temporary_bytes=analysis.temp_size_in_bytes if analysis else 0,
                    bytes_beside_data=max(peak_bytes() - max(with_data, before), 0),
                )


if __name__ == "__main__":
    main()
