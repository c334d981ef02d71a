"""The compiled programs of a run of SVI: the first losses, the loop, one restart out of many.

Batches of another shape (a smaller last one, say) need a loop of their own; it is made when the first of
them comes. What is no array in a batch is a constant of its program.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax import Array

from marginax.density.parameters import invalid
from marginax.errors import ModelError
from marginax.infer.svi.objective import (
    Objective,
    check_line_search,
    make_objective,
    searches_along_lines,
)
from marginax.infer.svi.training import CAPACITY, Stretch, SVIState, make_stretch
from marginax.jaxpr.compiled import QUICK, Hoisted, remembered, remembered_jit

FEW = 10**5
"""Numbers of data times restarts up to which a search along lines, which takes few steps, is compiled quickly."""
MOST_SHAPES = 16
"""Programs that are kept, each for batches of one shape."""

Loss = Callable[[dict[str, Array], Any, Any], tuple[Array, Any]]
"""From unconstrained parameters, a random key and a batch to the loss, and which parameters are valid."""


def with_shapes(look: Callable[[Any], None], batch: Any) -> None:
    """Have a look at a batch of which the numbers are not known; at nothing where there are no batches."""
    if batch == ():
        return look(batch)
    arrays, rebuild, _ = _split(batch)
    jax.eval_shape(lambda arrays: look(rebuild(arrays)), arrays)


def traced(loss: Loss, states: SVIState, batch: Any) -> Objective:
    """The objective of one restart, for batches like this one (an empty tuple where there are none)."""
    arrays, rebuild, _ = _split(batch)
    one = jax.eval_shape(lambda states: jax.tree.map(lambda leaf: leaf[0], states), states)
    objective = make_objective(
        lambda free, key, arrays: loss(free, key, rebuild(arrays)),
        one.optim_state[0],
        one.rng_key,
        arrays,
    )
    check_line_search(one.optim_state[1], objective, in_batches=batch != ())
    return objective


def first_losses(objective: Objective, states: SVIState, batch: Any) -> np.ndarray:
    """The losses of all restarts before the first step, shape (num_restarts,)."""
    arrays, _, _ = _split(batch)

    def each(states: SVIState) -> Array:
        def one(state: SVIState) -> Array:
            return objective.loss(state.optim_state[0], jax.random.split(state.rng_key)[1], arrays)

        return jax.vmap(one)(states)

    return np.asarray(remembered_jit(each, states, options=QUICK)(states))


def look_at_parameters(
    objective: Objective, states: SVIState, batch: Any
) -> Callable[[SVIState], ModelError | None]:
    """What looks, at the states of all restarts, for parameters of distributions that are invalid."""
    arrays, _, _ = _split(batch)

    def one(free: Any, rng_key: Any) -> Any:
        return objective.validity(free, jax.random.split(rng_key)[1], arrays)

    def parts(states: SVIState) -> tuple[Any, Any]:
        return states.optim_state[0], states.rng_key

    compiled = remembered_jit(jax.vmap(one), *parts(states), options=QUICK)

    def look(states: SVIState) -> ModelError | None:
        return next(filter(None, map(invalid, compiled(*parts(states)))), None)

    return look


def training_program(
    trace: Callable[[Any], Objective],
    objective: Objective,
    optim: optax.GradientTransformationExtraArgs,
    constraints: Mapping[str, Any],
    stable: bool,
    states: SVIState,
    batch: Any,
) -> tuple[Callable[[SVIState, Any, int], Stretch], Hoisted]:
    """The training loop: from states, a batch and a number of steps; and its program for batches like this one.

    Parameters
    ----------
    trace : callable
        From a batch to what is minimised, for batches like it.
    objective : Objective
        The one for ``batch``.
    optim, constraints, stable
        See `make_stretch`.
    states, batch
        Such as it will be called with.
    """
    compiled: OrderedDict[Hashable, Any] = OrderedDict()
    capacity = CAPACITY if batch == () else 1
    searches = searches_along_lines(states.optim_state[1])

    def make(objective: Objective, batch: Any) -> Hoisted:
        arrays, _, shapes = _split(batch)
        restarts = states.rng_key.shape[0]
        stretch = make_stretch(objective, optim, constraints, stable, restarts, capacity)
        is_quick = searches and objective.numbers * restarts <= FEW
        program = remembered(stretch, states, arrays, 0, options=QUICK if is_quick else {})
        compiled[shapes] = program.call
        if len(compiled) > MOST_SHAPES:
            compiled.popitem(last=False)
        return program

    first = make(objective, batch)

    def program(states: SVIState, batch: Any, count: int) -> Stretch:
        arrays, _, shapes = _split(batch)
        if shapes not in compiled:
            make(trace(batch), batch)
        return compiled[shapes](states, arrays, count)

    return program, first


def pick(all_restarts: Any, which: int, as_batch: bool = False) -> Any:
    """What is of one restart, of arrays with an axis for all of them; or these of a batch that holds it alone."""

    def one(all_restarts: Any, i: Any) -> Any:
        chosen = jax.tree.map(lambda leaf: leaf[i], all_restarts)
        return jax.tree.map(lambda leaf: leaf[None], chosen) if as_batch else chosen

    return remembered_jit(one, all_restarts, 0, options=QUICK)(all_restarts, which)


def _split(batch: Any) -> tuple[list[Array], Callable[[list[Array]], Any], Hashable]:
    """A batch's arrays, the way back from them, and what a program made for it depends on."""
    leaves, structure = jax.tree.flatten(batch)
    is_array = [isinstance(leaf, jax.Array) for leaf in leaves]
    fixed = [None if a else leaf for leaf, a in zip(leaves, is_array, strict=True)]

    def rebuild(arrays: list[Array]) -> Any:
        left = iter(arrays)
        return jax.tree.unflatten(
            structure, [next(left) if a else f for f, a in zip(fixed, is_array, strict=True)]
        )

    arrays = [leaf for leaf, a in zip(leaves, is_array, strict=True) if a]
    shapes = tuple((array.shape, str(array.dtype)) for array in arrays)
    return arrays, rebuild, (structure, shapes, repr(fixed))
