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
Nothing large then has to cancel, whatever the number of plate elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import jax
import jax.numpy as jnp
from jax import Array

from marginax.elimination.contract import fill_slots
from marginax.elimination.factor import Factor
from marginax.elimination.plan import Eliminate, Multiply, Plan
from marginax.elimination.semiring import SUM


def outside_messages(
    plan: Plan, factors: Sequence[Factor], plate_sizes: Mapping[str, int]
) -> list[Factor]:
    """The outside message of every factor.

    Parameters
    ----------
    plan : Plan
        Of the elimination of all variables, made for these factors in this order; without chains.
    factors : sequence of Factor
        The logarithms; their scales are ignored.
    plate_sizes : mapping from plate to int
        Elements present in each plate.

    Returns
    -------
    list of Factor
        For each factor one with its plates and variables. The largest entry along the variables is
        zero for every plate element; all are -inf where the other factors alone are impossible.
    """
    factors = [
        Factor(factor.name, factor.plates, factor.variables, factor.array) for factor in factors
    ]
    slots = fill_slots(plan, factors, SUM, plate_sizes)
    messages: dict[int, Array] = {}
    others = _sums_of_others([slots[slot].array for slot in plan.results])
    for slot, message in zip(plan.results, others, strict=True):
        messages[slot] = _normalised(message, 0)
    for step in reversed(plan.steps):
        if isinstance(step, Eliminate):
            _back_through_sum(step, slots, messages)
        elif isinstance(step, Multiply):
            _back_through_product(step, slots, messages, plate_sizes)
        else:
            raise ValueError("there are no outside messages through a chain; see `filtering`.")
    return [
        Factor(f"outside {factor.name}", factor.plates, factor.variables, messages[slot])
        for slot, factor in enumerate(factors)
    ]


def _back_through_sum(
    step: Eliminate, slots: Mapping[int, Factor], messages: dict[int, Array]
) -> None:
    n_plates = len(step.plates)
    rest = tuple(v for v in step.variables if v != step.variable)
    from_above = Factor("", step.plates, rest, messages[step.output])
    above = from_above.aligned(step.plates, step.variables)
    arrays = [slots[slot].aligned(step.plates, step.variables) for slot in step.inputs]
    for slot, other in zip(step.inputs, _sums_of_others(arrays), strict=True):
        factor, message = slots[slot], above + other
        for axis in reversed(range(n_plates, message.ndim)):
            if step.variables[axis - n_plates] in factor.variables:
                continue
            message = SUM.reduce(message, axis, 0)
        own = tuple(v for v in step.variables if v in factor.variables)
        message = Factor("", step.plates, own, message).aligned(factor.plates, factor.variables)
        messages[slot] = _normalised(message, n_plates)


def _back_through_product(
    step: Multiply,
    slots: Mapping[int, Factor],
    messages: dict[int, Array],
    plate_sizes: Mapping[str, int],
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
