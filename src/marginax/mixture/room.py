"""Mixtures of a few components in programs that have room for more, so that numbers of components share programs.

Components that are not there are switched off: no row belongs to them (their tilts are minus infinity), they have no
weight, and their parameters have no prior, which leaves what is said of the others exactly as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from marginax.mixture.model import WEIGHTS, Design, Rows
from marginax.mixture.modes import without_wrappers

NO_WEIGHT = 1e-290
"""Its logarithm is finite; of a component that is not there."""
SOME_WEIGHT = 1e-3
"""Of such a component where weights are unconstrained numbers, in which none is zero."""


def can_have_room(design: Design) -> bool:
    """Whether its prior of the weights says something of each weight by itself."""
    if design.is_chain:
        return False
    return isinstance(_weights_prior(design), dist.ImproperUniform | dist.Dirichlet)


def _weights_prior(design: Design) -> Any:
    return without_wrappers(design.priors[WEIGHTS].prior)


def with_room(design: Design, prior: Any) -> Any:
    """The prior of the weights of as many components as there is room for."""
    own = without_wrappers(prior)
    if isinstance(own, dist.ImproperUniform):
        return dist.ImproperUniform(own.support, (), (design.room,))
    concentration = np.broadcast_to(own.concentration, (design.components,))
    more = np.ones(design.room - design.components)
    return dist.Dirichlet(np.concatenate([concentration, more]))


def tilts(design: Design, rows: Rows) -> Any:
    """Zeros, shape (rows, components), but for components that are not there.

    By them the derivative of the log density is the probability of each component for each row.
    """
    zeros = jnp.zeros((len(rows.cells), design.components))
    return zeros if design.is_there is None else jnp.where(design.is_there, zeros, -jnp.inf)


def switched(design: Design, values: Mapping[str, Any], least: float = NO_WEIGHT) -> dict[str, Any]:
    """Parameters of which components that are not there have no weight, or the least."""
    if design.is_there is None:
        return dict(values)
    weights = jnp.where(design.is_there, values[WEIGHTS], 0.0)
    weights = jnp.where(design.is_there, weights / jnp.sum(weights, -1, keepdims=True), least)
    return {**values, WEIGHTS: weights / jnp.sum(weights, -1, keepdims=True)}


def filled(design: Design, draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Draws of parameters, shape (draws, ...), for a program with room; what is not there is like the first."""
    more = design.room - design.components if design.room else 0
    found = {}
    for site, value in draws.items():
        if more and site == WEIGHTS:
            value = np.concatenate([value, np.zeros((len(value), more))], 1)
        elif more and not design.priors[site].is_shared:
            value = np.concatenate([value, np.repeat(value[:, :1], more, 1)], 1)
        found[site] = value
    return found


def emptied(design: Design, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters of the components that are there, of a program with room."""
    if not design.room:
        return dict(values)
    shared = {site for site, p in design.priors.items() if p.is_shared}
    return {s: v if s in shared else v[: design.components] for s, v in values.items()}
