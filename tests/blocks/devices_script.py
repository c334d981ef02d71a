"""Run by test_devices.py with several devices: prints the largest differences to one device."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist

PARAMS = {"locs": np.array([-1.0, 2.0]), "weights": np.array([0.3, 0.7])}


def model(x: Any) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(0.0, 5.0))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("x", dist.Normal(locs[z] + 0.01 * jnp.arange(len(x)), 1.0), obs=x)


def difference(a: Any, b: Any) -> float:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in leaves)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    several, m = mx.devices(3), mx.marginalize(model)
    found: dict[str, Any] = {"devices": jax.device_count()}
    for rows in (1, 2, 3, 9, 10, 100):
        x = np.random.default_rng(0).normal(size=rows)

        def answers(x: Any) -> Any:
            value = jax.jit(jax.value_and_grad(lambda params: m.log_density(params, x)))(PARAMS)
            rest = [m.posterior(PARAMS, x), m.mode(PARAMS, x), m.pointwise(PARAMS, x)]
            draws = {name: jnp.stack([v, v[::-1]]) for name, v in PARAMS.items()}
            return value, rest, m.entropy(PARAMS, x), m.log_density(draws, x)

        expected = answers(x)
        with several:
            traced = str(jax.make_jaxpr(lambda params, x=x: m.log_density(params, x))(PARAMS))
            found[f"{rows} rows"] = difference(answers(x), expected)
            found[f"{rows} rows are spread"] = "shard_map" in traced
            if rows % 3 == 0:
                found[f"{rows} rows, shared before"] = difference(
                    answers(several.shard(x)), expected
                )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
