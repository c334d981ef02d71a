"""Runs of guides without arithmetic."""

from typing import Any

import jax

import marginax as mx


def abstract_run(guide: Any, *args: Any) -> Any:
    """The sites of one run, with their shapes; afterwards the guide knows its model."""
    sites: dict[str, Any] = {}

    def run(key: Any) -> None:
        seeded = mx.handlers.seed(guide, rng_seed=key)
        sites.update(mx.handlers.trace(seeded).get_trace(*args))

    jax.eval_shape(run, jax.random.key(0))
    return sites
