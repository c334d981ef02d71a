"""The model of the tutorial: five points, two Gaussians, and who came from which."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import marginax.distributions as dist
from marginax.language import handlers
from marginax.language.plates import plate
from marginax.language.primitives import param, sample
from marginax.language.stack import Message

DATA = jnp.array([0.0, 1.0, 10.0, 11.0, 12.0])
COMPONENTS = 2
GLOBALS = ("weights", "scale", "locs")


def model(data: Array, components: int = COMPONENTS) -> None:
    """A mixture of Gaussians with one scale; ``assignment`` is summed out."""
    weights = sample("weights", dist.Dirichlet(0.5 * jnp.ones(components)))
    scale = sample("scale", dist.LogNormal(0.0, 2.0))
    with plate("components", components):
        locs = sample("locs", dist.Normal(0.0, 10.0))
    with plate("data", len(data)):
        assignment = sample("assignment", dist.Categorical(weights))
        sample("obs", dist.Normal(locs[assignment], scale), obs=data)


def plausible_start(site: Message) -> Array:
    """Uniform weights, a scale of the data's order, and two of the data points as centres."""
    if site["name"] == "weights":
        return jnp.ones(COMPONENTS) / COMPONENTS
    if site["name"] == "scale":
        return jnp.sqrt(jnp.var(DATA, ddof=1) / 2)
    if site["name"] == "locs":
        key = site["kwargs"]["rng_key"]
        return jax.random.choice(key, DATA, (COMPONENTS,), replace=False)
    raise ValueError(site["name"])


def membership_guide(global_guide: Any, learned: dict[str, Array]) -> Any:
    """A guide that keeps what was learned of the global sites and fits each point's membership."""

    def guide(data: Array) -> None:
        with handlers.block(hide_types=["param"]), handlers.substitute(data=learned):
            global_guide(data)
        with plate("data", len(data)):
            probs = param(
                "assignment_probs",
                jnp.ones((len(data), COMPONENTS)) / COMPONENTS,
                constraint=dist.constraints.simplex,
            )
            sample("assignment", dist.Categorical(probs))

    return guide
