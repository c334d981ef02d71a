"""Expectation-maximisation: from where a start begins to near its optimum.

A round takes the exact probability of every row's component at the present parameters, and then the parameters that
rows so divided suggest. It solves for each component anew, whatever its shape and the units, so that ten rounds
lead from rough clusters to near an optimum, a way on which gradients are slow; close to the optimum it is the other way
round, and L-BFGS takes over. Two things make it the same for all designs (Dempster, Laird and Rubin, 1977, "Maximum
likelihood from incomplete data via the EM algorithm", Journal of the Royal Statistical Society B 39):

The probabilities are the marginalisation engine's, of a mixture or of a chain.

How often each value of a probability vector is expected to be used, and with a Dirichlet prior what that adds, follows
from the derivative of the log density by the vector. The density is that of the vector divided by its sum, so its
derivative is the uses over the vector, less the number of draws from it. So weights, first states and transitions
need no formulas of their own but that number.

Families say what rows suggest (`Family.start`): for most of them what is most probable, for others moments. With
moments, or a prior of the user's, a round may lose; what is kept of each start is the best of its rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from marginax.mixture.members import Members
from marginax.mixture.model import INITIAL, TRANSITIONS, WEIGHTS, Design, Rows
from marginax.mixture.room import switched

ROUNDS = 100
"""At most."""
STAY = 0.8
"""How likely a state begins to be followed by itself."""
ONE_OF = 1e-3
"""Uses that every value of a probability vector has beside those expected, so that none is lost for ever."""
Gradient = Callable[..., tuple[Any, Any, Any]]
"""The loss (negative log density of parameters and rows), its gradient by the parameters, and the probability of each
component for each row, shape (starts, rows, components): the derivative by `Rows.tilts`."""


class Rounds(NamedTuple):
    """Where the rounds have led. Leading dimensions are the starts."""

    values: Any
    """The present parameters."""
    best: Any
    """Those with the least loss so far."""
    losses: Any
    """Shape (starts, ROUNDS): the least loss (negative log density of parameters and rows) up to each round."""
    number: Any
    """How many rounds there were."""
    is_over: Any
    """Whether no start gained enough in the last one."""


def begun(design: Design, rows: Rows, labels: Any) -> Rounds:
    """Before the first round, with labels in shape (starts, rows); -1 is of no component."""
    values = jax.vmap(lambda own: beginning(design, rows, own))(labels)
    losses = jnp.full((len(labels), ROUNDS), jnp.inf, rows.cells.dtype)
    return Rounds(values, values, losses, jnp.asarray(0), jnp.asarray(False))


def onwards(
    design: Design, rows: Rows, gradient: Gradient, state: Rounds, enough: Any, until: Any
) -> Rounds:
    """More rounds of all starts at once.

    Parameters
    ----------
    design : Design
        What is fitted.
    rows : Rows
        The table.
    gradient : callable
        The loss, its gradient and the rows' components, at the parameters of all starts.
    state : Rounds
        Where the last ones have led.
    enough : float
        When no start gains as much in a round, that was the last.
    until : int
        How many rounds there are to be.
    """

    def is_on(state: Rounds) -> Any:
        return (state.number < jnp.minimum(until, ROUNDS)) & ~state.is_over

    def one(state: Rounds) -> Rounds:
        now, slopes, shares = gradient(state.values)
        following = jax.vmap(partial(_following, design, rows))(state.values, slopes, shares)
        before = jnp.where(state.number > 0, state.losses[:, state.number - 1], jnp.inf)
        better = now < before  # not where it is NaN
        least = jnp.where(better, now, before)
        best = jax.tree.map(
            lambda new, old: jnp.where(better.reshape(-1, *[1] * (old.ndim - 1)), new, old),
            state.values,
            state.best,
        )
        # Infinite losses, of starts that never were anywhere, count as standing still.
        is_over = (state.number > 0) & (least >= before - enough).all()
        losses = state.losses.at[:, state.number].set(least)
        return Rounds(following, best, losses, state.number + 1, is_over)

    return jax.lax.while_loop(is_on, one, state)


def beginning(design: Design, rows: Rows, labels: Any) -> dict[str, Any]:
    """Parameters that rows suggest, shape (rows,) of labels saying which component each belongs to."""
    count = design.components
    shares = jax.nn.one_hot(labels, count)
    found: dict[str, Any] = {}
    evenly = (jnp.sum(shares, 0) + 1) / (jnp.sum(shares) + count)
    if design.is_chain:
        off = (1 - STAY) / max(count - 1, 1)
        stay = STAY if count > 1 else 1.0
        found[INITIAL] = evenly
        found[TRANSITIONS] = jnp.full((count, count), off) + (stay - off) * jnp.eye(count)
    else:
        found[WEIGHTS] = evenly
    return switched(design, _supported(design, found | _suggested(design, rows, shares)))


def _following(
    design: Design, rows: Rows, values: Mapping[str, Any], slopes: Mapping[str, Any], shares: Any
) -> dict[str, Any]:
    """The parameters after a round."""
    draws = _draws(design, rows, shares)
    found: dict[str, Any] = {}
    for site in design.outer:
        used = jnp.maximum(values[site] * (draws[site] - slopes[site]), 0.0) + ONE_OF
        found[site] = used / jnp.sum(used, -1, keepdims=True)
    return switched(design, _supported(design, found | _suggested(design, rows, shares)))


def _draws(design: Design, rows: Rows, shares: Any) -> dict[str, Any]:
    """How many components are drawn from each probability vector by rows that are real, as is expected."""
    if not design.is_chain:
        return {WEIGHTS: jnp.sum(rows.is_real)}
    begins = jnp.asarray(rows.begins, shares.dtype).at[0].set(1)
    follows = (1 - begins[1:]) @ shares[:-1]
    return {INITIAL: jnp.sum(begins * rows.is_real), TRANSITIONS: follows[:, None]}


def _suggested(design: Design, rows: Rows, shares: Any) -> dict[str, Any]:
    """What rows that belong to the components in part say of the families' parameters."""
    cells = jnp.asarray(rows.cells)
    present = (
        rows.is_real[:, None] if rows.observed is None else rows.observed & rows.is_real[:, None]
    )
    present = jnp.broadcast_to(jnp.asarray(present, cells.dtype), cells.shape)
    members, found = Members(cells, present, shares), {}
    for group in design.groups:
        own = group.family.start(members.of(np.asarray(group.where)), group.columns)
        found |= {group.site(name): value for name, value in own.items()}
    return found


def _supported(design: Design, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values inside of the supports of priors that the user has stated; a draw of the prior stands for others."""
    found = {}
    for site, value in values.items():
        parameter = design.priors[site]
        if parameter.is_stated:
            support = parameter.prior.support
            while isinstance(support, dist.constraints.independent):
                support = support.base_constraint
            draw = parameter.prior.sample(jax.random.key(0))
            inside = jnp.asarray(support(value))
            more = jnp.ndim(value) - jnp.ndim(inside)
            value = jnp.where(inside.reshape(*jnp.shape(inside), *[1] * more), value, draw)
        found[site] = value
    return found
