"""Outside messages: what all the rest says about a factor's variables.

For one factor f of a product, the sum over all variables can be split as ::

    Z = sum over f's variables of  f * outside(f)

where outside(f) is the sum over all other variables of the product of all other factors. (In a
tree-shaped grammar this is the outside probability; on a plan it is what a backward pass over its
steps computes.) Two things follow at once:

- f * outside(f), normalised, is the joint posterior of f's variables;
- without f the sum is ``sum outside(f)``, so the two together say how probable f is *given all other
  factors*: with f the density of one observation, that observation's leave-one-out likelihood.

The second is why this is done on logarithms and not as a derivative: where a posterior probability
underflows to zero, the quotient that takes f out of it again is lost.

Every message matters up to a constant only, so each is brought to a maximum of zero as it is made.
Nothing large then has to cancel, whatever the number of plate elements or of steps.

Along time the same is done step by step, from the last to the first: what the steps after say is handed back
through the plan of one step, whose messages from the past are computed beforehand. (Of a hidden Markov model
these are the backward and the forward probabilities.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from marginax.elimination.axes import Axis, sorted_axes
from marginax.elimination.chain import messages_along
from marginax.elimination.contract import fill_slots
from marginax.elimination.execute import Setting
from marginax.elimination.factor import Factor, time_first
from marginax.elimination.loops import scan_in_time
from marginax.elimination.plan import Advance, Eliminate, Multiply, Plan, inputs_of, outputs_of
from marginax.elimination.semiring import SUM


def outside_messages(
    plan: Plan,
    factors: Sequence[Factor],
    plate_sizes: Mapping[Axis, int],
    wanted: Iterable[int] | None = None,
) -> dict[int, Factor]:
    """The outside messages of factors.

    Parameters
    ----------
    plan : Plan
        Of the elimination of all variables, made for these factors in this order.
    factors : sequence of Factor
        The logarithms; their scales are ignored.
    plate_sizes : mapping from plate to int
        Elements present in each plate.
    wanted : iterable of int, optional
        The positions of those whose messages are wanted; all when nothing is said.

    Returns
    -------
    dict from position to Factor
        For each factor one with its plates and variables. The largest entry along the variables is
        zero for every plate element; all are -inf where the other factors alone are impossible.
    """
    wanted = range(len(factors)) if wanted is None else tuple(wanted)
    factors = [
        Factor(factor.name, factor.plates, factor.variables, factor.array) for factor in factors
    ]
    slots = fill_slots(plan, factors, SUM, plate_sizes)
    messages: dict[int, Array] = {}
    others = _sums_of_others([slots[slot].array for slot in plan.results])
    for slot, message in zip(plan.results, others, strict=True):
        messages[slot] = _normalised(message, 0)
    _back(plan, slots, messages, plate_sizes, wanted)
    return {
        slot: Factor(
            f"outside {factors[slot].name}",
            factors[slot].plates,
            factors[slot].variables,
            messages[slot],
        )
        for slot in wanted
    }


def _back(
    plan: Plan,
    slots: Mapping[int, Factor],
    messages: dict[int, Array],
    plate_sizes: Mapping[Axis, int],
    wanted: Collection[int],
) -> None:
    """From the messages of a plan's results to those of its wanted factors, which are put beside them."""
    needed = set(wanted)
    for step in plan.steps:
        if needed.intersection(inputs_of(step)):
            needed.update(outputs_of(step))
    for step in reversed(plan.steps):
        inputs = needed.intersection(inputs_of(step))
        if not inputs:
            continue
        if isinstance(step, Eliminate):
            _back_through_sum(step, slots, messages, inputs)
        elif isinstance(step, Multiply):
            _back_through_product(step, slots, messages, plate_sizes)
        else:
            _back_through_chain(step, slots, messages, plate_sizes, inputs)


def _back_through_sum(
    step: Eliminate,
    slots: Mapping[int, Factor],
    messages: dict[int, Array],
    needed: Collection[int],
) -> None:
    rest = tuple(v for v in step.variables if v != step.variable)
    from_above = Factor("", step.plates, rest, messages[step.output])
    above = from_above.aligned(step.plates, step.variables)
    arrays = [slots[slot].aligned(step.plates, step.variables) for slot in step.inputs]
    for slot, other in zip(step.inputs, _sums_of_others(arrays), strict=True):
        if slot in needed:
            factor = Factor("", step.plates, step.variables, above + other)
            messages[slot] = _of_variables(factor, slots[slot])


def _of_variables(message: Factor, factor: Factor) -> Array:
    """A message, summed over all variables that a factor does not have, laid out as the factor is."""
    n_plates, array = len(message.plates), message.array
    for axis in reversed(range(n_plates, array.ndim)):
        if message.variables[axis - n_plates] not in factor.variables:
            array = SUM.reduce(array, axis, 0)
    own = tuple(v for v in message.variables if v in factor.variables)
    laid_out = Factor("", message.plates, own, array).aligned(factor.plates, factor.variables)
    return _normalised(laid_out, n_plates)


def _back_through_product(
    step: Multiply,
    slots: Mapping[int, Factor],
    messages: dict[int, Array],
    plate_sizes: Mapping[Axis, int],
) -> None:
    factor = slots[step.input]
    n_plates = len(factor.plates)
    rest = tuple(plate for plate in factor.plates if plate not in step.over)
    above = Factor("", rest, factor.variables, messages[step.output])
    message = above.aligned(factor.plates, factor.variables)
    if factor.variables:  # otherwise nothing comes back but a constant
        # Of every element only the shape along the variables matters.
        array = _normalised(factor.array, n_plates)
        over = [factor.plates.index(plate) for plate in step.over]
        repeats = 1
        for plate, axis in zip(step.over, over, strict=True):
            repeats *= plate_sizes[plate] if array.shape[axis] == 1 else 1
        if repeats > 1:  # one element stands for several, which see one another
            message = message + (repeats - 1) * array
        message = message + repeats * _along(array, over, _sum_of_others_along)
    shape = jnp.broadcast_shapes(message.shape, factor.array.shape)
    messages[step.input] = _normalised(jnp.broadcast_to(message, shape), n_plates)


def _back_through_chain(
    step: Advance,
    slots: Mapping[int, Factor],
    messages: dict[int, Array],
    plate_sizes: Mapping[Axis, int],
    needed: Collection[int],
) -> None:
    time, count = step.chain.time, len(step.messages)
    past = messages_along(step, slots, Setting(plate_sizes))
    factors = [*past, *(time_first(slots[i], time) for i in step.potentials)]
    wanted = [i for i, slot in enumerate(step.potentials, count) if slot in needed]
    dtype = jnp.result_type(float, *[factor.array.dtype for factor in factors])

    def before(arrays: Any, now: Any) -> tuple[Any, Any]:
        """From what the steps after this one say to what this one says as well."""
        _, pieces = now
        own = [
            Factor(f.name, f.plates[1:], f.variables, piece)
            for f, piece in zip(factors, pieces, strict=True)
        ]
        inner = fill_slots(step.step, own, SUM, plate_sizes)
        found = {slot: jnp.zeros((), dtype) for slot in step.totals}
        for message, group, array in zip(step.messages, step.merged, arrays, strict=True):
            after = Factor("", sorted_axes(message.plates), message.variables, array)
            found |= _back_through_gathering(after, {s: inner[s] for s in group}, step.chain.later)
        _back(step.step, inner, found, plate_sizes, (*range(count), *wanted))
        return _full(step, [found[i] for i in range(count)], dtype), [found[i] for i in wanted]

    begin, along = scan_in_time(
        before,
        _full(step, [messages[slot] for slot in step.outputs[:-1:2]], dtype),
        [factor.array for factor in factors],
        step.chain.length,
        step.step.largest,
        reverse=True,
    )
    for i, array in zip(wanted, along, strict=True):
        factor, slot = factors[i], step.potentials[i - count]
        laid_out = Factor("", factor.plates, factor.variables, array)
        messages[slot] = laid_out.aligned(slots[slot].plates, slots[slot].variables)
    inside = {outer: name for name, outer in step.chain.first.items()}
    for message, group, array in zip(step.messages, step.incoming, begin, strict=True):
        first = Factor("", sorted_axes(message.plates), message.variables, array)
        messages |= _back_through_gathering(first, {s: slots[s] for s in group}, inside)


def _full(step: Advance, arrays: Sequence[Array], dtype: Any) -> list[Array]:
    """Messages of a chain in their full shapes."""
    return [
        jnp.broadcast_to(array, shape).astype(dtype)
        for array, shape in zip(arrays, step.shapes, strict=True)
    ]


def _back_through_gathering(
    above: Factor, slots: Mapping[int, Factor], names: Mapping[Axis, Axis]
) -> dict[int, Array]:
    """Of factors whose product, under other names, is a message of a chain."""
    named = [
        replace(f, variables=tuple(names.get(v, v) for v in f.variables)) for f in slots.values()
    ]
    arrays = [factor.aligned(above.plates, above.variables) for factor in named]
    return {
        slot: _of_variables(replace(above, array=above.array + other), factor)
        for slot, factor, other in zip(slots, named, _sums_of_others(arrays), strict=True)
    }


def _along(array: Array, axes: Sequence[int], fn: Callable[[Array], Array]) -> Array:
    """Apply a function of the first axis along several axes taken together."""
    first = jnp.moveaxis(array, axes, range(len(axes)))
    shape = first.shape
    flat = fn(first.reshape((-1, *shape[len(axes) :])))
    return jnp.moveaxis(flat.reshape(shape), range(len(axes)), axes)


def _sum_of_others_along(array: Array) -> Array:
    """For each element of the first axis the sum of all others; no subtraction, so -inf is safe."""
    nothing = jnp.zeros_like(array[:1])
    before = jnp.concatenate([nothing, jnp.cumsum(array[:-1], 0)])
    after = jnp.concatenate([jnp.cumsum(array[:0:-1], 0)[::-1], nothing])
    return before + after


def _sums_of_others(arrays: Sequence[Array]) -> list[Array]:
    """For each array the sum of all others."""
    if not arrays:
        return []
    zero = jnp.zeros((1,) * arrays[0].ndim, arrays[0].dtype)
    before = list(accumulate(arrays[:-1], jnp.add, initial=zero))
    after = list(accumulate(arrays[:0:-1], jnp.add, initial=zero))[::-1]
    return [b + a for b, a in zip(before, after, strict=True)]


def _normalised(message: Array, n_plates: int) -> Array:
    """With a maximum of zero over the variables; where all are impossible it stays so."""
    axes = tuple(range(n_plates, message.ndim))
    top = jnp.max(message, axis=axes, keepdims=True)
    # A constant, whatever it depends on.
    return message - jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
