"""How one column is distributed inside of a component, all other columns aside."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from marginax.jaxpr.compiled import remembered_jit
from marginax.mixture.family import Columnwise
from marginax.mixture.gaussian import Gaussian
from marginax.mixture.model import INITIAL, TRANSITIONS, WEIGHTS, in_the_long_run
from marginax.report.drawing import thinned
from marginax.report.facts import Facts
from marginax.report.quantities import covariances, own_values

MOST_DRAWS = 60
"""Posterior draws that a curve is averaged over."""


def weights(facts: Facts) -> np.ndarray:
    """The share of each component at the draws that curves are averaged over, shape (draws, components).

    Of a chain it is that of the rows, if there are any: a series may be far from its long run.
    """
    draws = facts.estimator.fit_.draws
    which = thinned(facts.draws, MOST_DRAWS)
    if not facts.is_chain:
        return draws[WEIGHTS][which]
    if facts.membership is not None:
        share = facts.membership.probabilities.mean(0)
        return np.broadcast_to(share, (len(which), facts.count))
    return in_the_long_run(draws[TRANSITIONS][which])


def densities(facts: Facts, points: np.ndarray) -> np.ndarray:
    """The density of each column inside of each component, at its own points, in the units of the table.

    Parameters
    ----------
    facts : Facts
    points : array, shape (points, columns)
        Values that the families allow.

    Returns
    -------
    array, shape (points, draws, components, columns)
        NaN for columns that are no numbers. Of counts, probabilities.
    """
    which = thinned(facts.draws, MOST_DRAWS)
    centre, spread = facts.estimator.learned_.centre, facts.estimator.learned_.spread
    found = np.full((len(points), len(which), facts.count, len(facts.names)), np.nan)
    outer = (WEIGHTS, INITIAL, TRANSITIONS)
    draws = {n: v[which] for n, v in facts.estimator.fit_.draws.items() if n not in outer}
    for group in facts.design.groups:
        own = list(group.where)
        at = ((points[:, own] - centre[own]) / spread[own])[:, None, None, :]
        values = own_values(group, draws)
        if isinstance(group.family, Gaussian):
            shown = group.family.in_units(values, np.zeros(len(own)), np.ones(len(own)))
            variance = np.diagonal(covariances(group, shown), axis1=-2, axis2=-1)
            off = at - shown["means"]
            density = np.exp(-0.5 * off**2 / variance) / np.sqrt(2 * np.pi * variance)
        elif isinstance(group.family, Columnwise):
            with jax.enable_x64(True):
                density = np.exp(_log_density(group.family, values, at))
        else:
            continue
        found[..., own] = density / spread[own]
    return found


def _log_density(family: Columnwise, values: Any, at: Any) -> np.ndarray:
    """Compiled as a whole, which is quicker than one operation after the other."""

    def log_density(values: Any, at: Any) -> Any:
        return family.distribution(values).log_prob(at)

    return np.asarray(remembered_jit(log_density, values, at)(values, at))


def is_counted(facts: Facts, column: int) -> bool:
    """Whether a column of numbers holds counts."""
    group = next(g for g in facts.design.groups if column in g.where)
    if not isinstance(group.family, Columnwise):
        return False
    values = own_values(group, {n: v[:1] for n, v in facts.estimator.fit_.draws.items()})
    return bool(group.family.distribution(values).is_discrete)
