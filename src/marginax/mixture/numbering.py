"""Which component is number 0: the one that most rows belong to, as far as the priors leave it open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import jax
import numpy as np
from numpyro import distributions as dist
from scipy.optimize import linear_sum_assignment

from marginax.mixture.fitted import Fit
from marginax.mixture.model import INITIAL, TRANSITIONS, WEIGHTS, Design, in_the_long_run
from marginax.mixture.modes import without_wrappers
from marginax.mixture.priors import shape_of

FEW_DRAWS = 8
"""Of a prior, to see whether it has a preference."""


def numbered_axes(design: Design) -> dict[str, int | tuple[int, ...]]:
    """Of sites outside of the components' plate, the axes that are numbered by component."""
    if design.is_chain:
        return {INITIAL: -1, TRANSITIONS: (-2, -1)}
    return {WEIGHTS: -1}


def numbered(design: Design, found: Fit) -> Fit:
    """Components numbered by falling weight, alike at the point and in the draws; not if priors tell them apart."""
    if not is_exchangeable(design):
        return found
    order = np.argsort(-_shares(design, found.draws).mean(0), kind="stable")
    found = replace(found, draws=renumbered(design, found.draws, order, 1))
    order = _matched(design, found) if found.relabelled else order
    return replace(found, point=renumbered(design, found.point, order, 0))


def _shares(design: Design, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """How much of the rows each component has, of a chain in the long run."""
    return in_the_long_run(values[TRANSITIONS]) if design.is_chain else values[WEIGHTS]


def is_exchangeable(design: Design) -> bool:
    """Whether the components may be numbered in any way, as far as the priors know.

    Parameters of one component have one prior for all; what says which component may prefer some of them. A swap of two
    and a shift of all generate every renumbering.
    """
    if design.components == 1:
        return True
    count = np.arange(design.components)
    orders = np.concatenate([[1, 0], count[2:]]), np.roll(count, 1)
    for site in design.outer:
        prior = design.priors[site].prior
        if isinstance(inner := without_wrappers(prior), dist.ImproperUniform):
            continue
        if isinstance(inner, dist.Dirichlet):  # alike are those that are used alike
            alike = {site: np.broadcast_to(inner.concentration, shape_of(prior))}
            if any((renumbered(design, alike, o, 0)[site] != alike[site]).any() for o in orders):
                return False
            continue
        draws = {site: np.asarray(prior.sample(jax.random.key(0), (FEW_DRAWS,)))}
        before = prior.log_prob(draws[site])
        for order in orders:
            after = prior.log_prob(renumbered(design, draws, order, 1)[site])
            if not np.allclose(before, after, rtol=1e-5, atol=1e-5):
                return False
    return True


def _matched(design: Design, found: Fit) -> np.ndarray:
    """For each component of the draws, the one of the point that is nearest, each taken once."""
    count = design.components
    distances = np.zeros((count, count))
    for name, draws in found.draws.items():
        if name in design.outer or design.priors[name].is_shared:
            continue
        mean, spread = draws.mean(0), draws.std(0)
        off = (mean[:, None] - found.point[name][None]) / np.where(spread > 0, spread, 1.0)[:, None]
        distances += (off**2).reshape(count, count, -1).sum(-1)
    return linear_sum_assignment(distances)[1]


def renumbered(
    design: Design, values: Mapping[str, np.ndarray], order: np.ndarray, leading: int
) -> dict[str, np.ndarray]:
    """Parameters with component ``order[k]`` as number k; ``leading`` dimensions go before."""
    found = {}
    for name, value in values.items():
        axes = numbered_axes(design).get(name, ())
        for axis in (axes,) if isinstance(axes, int) else axes:
            value = np.take(value, order, axis)
        if name not in numbered_axes(design) and not design.priors[name].is_shared:
            value = np.take(value, order, leading)
        found[name] = value
    return found
