"""Value and gradient of a Gaussian hidden Markov model's likelihood: Marginax."""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
from measured import report, rows, seconds

import marginax as mx
import marginax.distributions as dist


def model(y: Any, locs: Any, transitions: Any) -> None:
    k = len(locs)
    first = mx.sample("first", dist.Categorical(jnp.full(k, 1 / k)))
    mx.sample("y_first", dist.Normal(locs[first], 1.0), obs=y[0])

    def step(z: Any, y: Any) -> tuple[Any, None]:
        z = mx.sample("z", dist.Categorical(transitions[z]))
        mx.sample("y", dist.Normal(locs[z], 1.0), obs=y)
        return z, None

    mx.scan(step, first, y[1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--states", type=int, default=8)
    options = parser.parse_args()
    y, k = jnp.asarray(rows(options.steps)), options.states
    marginal = mx.marginalize(model)
    params = {
        "locs": jnp.linspace(-4.0, 4.0, k),
        "transitions": 0.9 * jnp.eye(k) + 0.1 / k,
    }
    density = jax.jit(jax.value_and_grad(lambda params: marginal.log_density({}, y, **params)))
    start = time.perf_counter()
    value, _ = jax.block_until_ready(density(params))
    first = time.perf_counter() - start
    report(
        "marginax",
        "hidden Markov model",
        points=options.steps,
        components=k,
        seconds=seconds(lambda: jax.block_until_ready(density(params))),
        first_seconds=first,
        value=float(value),
    )


if __name__ == "__main__":
    main()
