"""L-BFGS of many starts at once, in a compiled loop that evaluates the loss in one place.

Limited-memory BFGS (Nocedal and Wright, 2006, algorithms 7.4 and 7.5) with steps that are halved, or less, until the
loss falls enough (Armijo). Whether a start tries a shorter step or goes on from where it came is decided after
each evaluation, so that a program has the loss and its gradient in it once: that is what compiling takes long for.
A pair of a step and a change of slope that is not curved upwards is not remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

PAIRS = 10
"""Steps that are remembered."""
ARMIJO = 1e-4
"""Part of what the slope promises that the loss must fall by."""
ROUNDING = 1e-13
"""Of the loss: differences that are less are none."""
CURVED = 1e-10
"""Least cosine of a step and the change of the slope along it."""
ANEW, MOST_TRIES = 12, 24
"""Evaluations along one line after which it is the steepest, or there is none."""
STILL = 5
"""Steps without a gain after which a start has arrived, whatever its slope promises."""


class Evaluation(NamedTuple):
    """What is said of places, of all starts at once."""

    value: Array
    """Shape (starts,): the loss."""
    slope: Array
    """Shape (starts, size)."""
    told: Array
    """Shape (starts, numbers): what is remembered of every evaluation beside the loss."""
    more: Any
    """Anything else, each with the starts first."""


class Climb(NamedTuple):
    """Where all starts are."""

    place: Array
    """Shape (starts, size)."""
    here: Evaluation
    direction: Array
    length: Array
    """Shape (starts,): of the next step, in units of the direction."""
    steps: Array
    """Shape (starts, PAIRS, size): the last ones, the newest first ..."""
    changes: Array
    """... and what they changed of the slope."""
    calm: Array
    """Shape (starts,): steps in a row that gained nothing."""
    tries: Array
    """Shape (starts,): evaluations along the present line."""
    is_over: Array
    """Shape (starts,): whether a start has arrived."""
    losses: Array
    """Shape (starts, most): the loss after each evaluation."""
    told: Array
    """Shape (starts, most, numbers): the same of what else is remembered."""
    evaluations: Array
    """Shape (starts,): how many there were of each."""
    number: Array
    """How many there were of all together."""


def at_the_bottom(place: Array, here: Evaluation, most: int) -> Climb:
    """Before the first evaluation of ``most``, at places in shape (starts, size), of which it says infinity."""
    starts = len(place)
    none, zeros = jnp.zeros(starts, int), jnp.zeros_like(place)
    pairs = jnp.zeros((starts, PAIRS, place.shape[1]))
    losses = jnp.full((starts, most), jnp.inf, place.dtype)
    told = jnp.zeros((starts, most, here.told.shape[1]))
    length = jnp.ones(starts, place.dtype)
    is_over = jnp.zeros(starts, bool)
    return Climb(
        place, here, zeros, length, pairs, pairs, none, none, is_over, losses, told, none, none[0]
    )


def climbed(
    evaluate: Callable[[Array], Evaluation], state: Climb, enough: Any, until: Any
) -> Climb:
    """On from where all starts are.

    Parameters
    ----------
    evaluate : callable
        Of places, shape (starts, size).
    state : Climb
        Where they are.
    enough : float
        What is less is no gain.
    until : int
        How many evaluations there are to be.
    """

    def is_on(state: Climb) -> Array:
        return (state.number < until) & ~state.is_over.all()

    return jax.lax.while_loop(is_on, lambda state: _one(evaluate, state, enough), state)


def _one(evaluate: Callable[[Array], Evaluation], old: Climb, enough: Any) -> Climb:
    """An evaluation, and what follows from it."""
    step = old.length[:, None] * old.direction
    place = old.place + step
    there = evaluate(place)
    promised = _dot(old.here.slope, step)
    allowed = old.here.value + ARMIJO * promised + ROUNDING * jnp.abs(there.value)
    is_finite = jnp.isfinite(there.value) & jnp.isfinite(there.slope).all(-1)
    taken = is_finite & (there.value <= allowed) & ~old.is_over
    gain = old.here.value - there.value

    change = there.slope - old.here.slope
    curvature = _dot(step, change)
    size = jnp.sqrt(_dot(step, step) * _dot(change, change))
    is_kept = taken & (curvature > CURVED * size)
    steps = _where(is_kept, _pushed(old.steps, step), old.steps)
    changes = _where(is_kept, _pushed(old.changes, change), old.changes)

    tries = jnp.where(taken, 0, old.tries + 1)
    is_anew = tries == ANEW
    steps, changes = _where(~is_anew, steps, 0.0), _where(~is_anew, changes, 0.0)
    here = Evaluation(*(_each(taken, there, old.here)))
    turned = _direction(here.slope, steps, changes)
    is_new = taken | is_anew
    direction = _where(is_new, turned, old.direction)
    # The least of the parabola through both values and the first slope.
    shorter = -0.5 * promised / jnp.where(is_finite, there.value - old.here.value - promised, 1.0)
    shorter = jnp.clip(jnp.where(is_finite, shorter, 0.1), 0.1, 0.5)
    length = jnp.where(is_new, 1.0, old.length * shorter)

    left = -0.5 * _dot(here.slope, direction)
    calm = jnp.where(taken, jnp.where(gain < enough, old.calm + 1, 0), old.calm)
    has_arrived = taken & (((left < enough) & (calm > 0)) | (calm >= STILL))
    is_nowhere = ~jnp.isfinite(here.value)
    is_over = old.is_over | has_arrived | is_nowhere | (tries > MOST_TRIES)
    return Climb(
        jnp.where(taken[:, None], place, old.place),
        here,
        direction,
        length,
        steps,
        changes,
        calm,
        tries,
        is_over,
        old.losses.at[:, old.number].set(here.value),
        old.told.at[:, old.number].set(here.told),
        old.evaluations + ~old.is_over,
        old.number + 1,
    )


def _direction(slope: Array, steps: Array, changes: Array) -> Array:
    """Downhill, by the two loops of L-BFGS; a pair of zeros changes nothing."""
    curvature = _dot(steps, changes)
    is_there = curvature > 0
    weight = jnp.where(is_there, 1 / jnp.where(is_there, curvature, 1.0), 0.0)
    pairs = tuple(jnp.moveaxis(part, 1, 0) for part in (steps, changes, weight))

    def back(rest: Array, pair: Any) -> tuple[Array, Array]:
        step, change, weight = pair
        part = weight * _dot(step, rest)
        return rest - part[:, None] * change, part

    def forth(rest: Array, pair: Any) -> tuple[Array, None]:
        step, change, weight, part = pair
        return rest + (part - weight * _dot(change, rest))[:, None] * step, None

    rest, parts = jax.lax.scan(back, slope, pairs)
    squares = _dot(changes[:, 0], changes[:, 0])
    scale = jnp.where(squares > 0, curvature[:, 0] / jnp.where(squares > 0, squares, 1.0), 1.0)
    rest, _ = jax.lax.scan(forth, scale[:, None] * rest, (*pairs, parts), reverse=True)
    is_downhill = _dot(rest, slope) > 0
    return -jnp.where(is_downhill[:, None], rest, slope)


def _dot(a: Array, b: Array) -> Array:
    return jnp.sum(a * b, -1)


def _pushed(pairs: Array, newest: Array) -> Array:
    return jnp.concatenate([newest[:, None], pairs[:, :-1]], 1)


def _where(which: Array, yes: Any, no: Any) -> Array:
    return jnp.where(which.reshape(-1, *[1] * (jnp.ndim(yes) - 1)), yes, no)


def _each(which: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda new, old: _where(which, new, old), yes, no)
