"""Value and gradient of a Gaussian hidden Markov model's likelihood: dynamax's filter."""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
from dynamax.hidden_markov_model import hmm_filter  # pyright: ignore[reportMissingImports]
from measured import report, rows, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--states", type=int, default=8)
    options = parser.parse_args()
    y, k = jnp.asarray(rows(options.steps)), options.states
    start_at = jnp.full(k, 1 / k)

    def likelihood(params: dict[str, Any]) -> Any:
        emission = jax.scipy.stats.norm.logpdf(y[:, None], params["locs"], 1.0)
        return hmm_filter(start_at, params["transitions"], emission).marginal_loglik

    params = {
        "locs": jnp.linspace(-4.0, 4.0, k),
        "transitions": 0.9 * jnp.eye(k) + 0.1 / k,
    }
    density = jax.jit(jax.value_and_grad(likelihood))
    start = time.perf_counter()
    value, _ = jax.block_until_ready(density(params))
    first = time.perf_counter() - start
    report(
        "dynamax",
        "hidden Markov model",
        points=options.steps,
        components=k,
        seconds=seconds(lambda: jax.block_until_ready(density(params))),
        first_seconds=first,
        value=float(value),
    )


if __name__ == "__main__":
    main()
