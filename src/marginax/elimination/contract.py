"""Contract: run a plan on factors in a semiring.

Scales (powers) nest like scopes. A `Scale` around a group of factors raises the *result* of the group
to a power, so it multiplies the logarithm after the variables inside were reduced. A factor
therefore carries the scales it stands in, unapplied, and each is applied when the factor leaves
that scope: when it meets a variable that lives outside it. A plate's scale (a subsample standing
for more elements) is applied where the plate is multiplied out. A variable inside a scale that a
factor of it is outside of has no meaning, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from marginax.elimination.factor import Factor, Scale
from marginax.elimination.plan import Eliminate, Multiply, Plan
from marginax.elimination.semiring import Semiring


class ScaleError(ValueError):
    """A variable and a factor of it stand in different scales."""


@dataclass(frozen=True)
class Contracted:
    """What is left of an elimination."""

    log_total: Array
    """The sum of all logarithms that depend on nothing any more, shape ()."""
    kept: tuple[Factor, ...]
    """Factors of kept variables, in their plates, with their scales unapplied."""


def contract(
    plan: Plan,
    factors: Sequence[Factor],
    semiring: Semiring,
    plate_sizes: Mapping[str, int],
    plate_scales: Mapping[str, float] | None = None,
    variable_scales: Mapping[str, tuple[Scale, ...]] | None = None,
) -> Contracted:
    """Run a plan.

    Parameters
    ----------
    plan : Plan
        What to do; made for these factors, in this order.
    factors : sequence of Factor
        The logarithms.
    semiring : Semiring
        How to reduce a variable.
    plate_sizes : mapping from plate to int
        Elements present in each plate.
    plate_scales : mapping from plate to float, optional
        What the logarithm is multiplied by where a plate is multiplied out; 1 if absent.
    variable_scales : mapping from variable to scales, optional
        The scales in which each variable stands, outermost first.

    Returns
    -------
    Contracted

    Raises
    ------
    ScaleError
        When a variable stands in a scale that one of its factors stands outside of.
    """
    slots = fill_slots(plan, factors, semiring, plate_sizes, plate_scales, variable_scales)
    total = jnp.zeros(())
    kept = []
    for slot in plan.results:
        factor = slots[slot]
        if factor.variables:
            kept.append(factor)
        else:
            total = total + factor.with_scales_applied().array
    return Contracted(total, tuple(kept))


def fill_slots(
    plan: Plan,
    factors: Sequence[Factor],
    semiring: Semiring,
    plate_sizes: Mapping[str, int],
    plate_scales: Mapping[str, float] | None = None,
    variable_scales: Mapping[str, tuple[Scale, ...]] | None = None,
) -> dict[int, Factor]:
    """Run a plan and return every slot: the factors, and what each step makes of those before it.

    Its arguments, and what it raises, are those of `contract`.
    """
    plate_scales = plate_scales or {}
    variable_scales = variable_scales or {}
    slots: dict[int, Factor] = dict(enumerate(factors))
    for number, step in enumerate(plan.steps):
        if isinstance(step, Eliminate):
            scales = variable_scales.get(step.variable, ())
            inputs = [_leave(slots[i], scales, step.variable) for i in step.inputs]
            arrays = [factor.aligned(step.plates, step.variables) for factor in inputs]
            axis = len(step.plates) + step.variables.index(step.variable)
            rest = tuple(v for v in step.variables if v != step.variable)
            array = semiring.eliminate(arrays, axis, number)
            slots[step.output] = Factor(f"f{step.output}", step.plates, rest, array, scales)
        else:
            slots[step.output] = _multiply(slots[step.input], step, plate_sizes, plate_scales)
    return slots


def _leave(factor: Factor, scales: tuple[Scale, ...], variable: str) -> Factor:
    """Apply the scales that the factor stands in but the variable does not."""
    shared = tuple(scale.key for scale in factor.scales[: len(scales)])
    if shared != tuple(scale.key for scale in scales):
        raise ScaleError(
            f"'{variable}' is summed out inside a scale of "
            f"{' * '.join(str(s.key) for s in scales)}, but '{factor.name}', which depends on it, "
            f"stands in {' * '.join(str(s.key) for s in factor.scales) or 'no scale'}. A scale multiplies "
            "after the variables inside it were summed out, so everything that depends on "
            f"'{variable}' must stand in the same handlers.scale as '{variable}', or in one inside it."
        )
    return factor.with_scales_applied(keep=len(scales))


def _multiply(
    factor: Factor, step: Multiply, sizes: Mapping[str, int], scales: Mapping[str, float]
) -> Factor:
    # A scale that varies along these plates must be applied while they are there, and with it all
    # the scales inside it.
    varying = [i for i, s in enumerate(factor.scales) if not set(s.plates).isdisjoint(step.over)]
    if varying:
        factor = factor.with_scales_applied(keep=varying[0])
    array = factor.array
    for plate in step.over:
        axis = factor.plates.index(plate)
        repeats = sizes[plate] if array.shape[axis] == 1 else 1
        array = jnp.sum(array, axis, keepdims=True) * (repeats * scales.get(plate, 1))
    gone = [factor.plates.index(plate) for plate in step.over]
    rest = tuple(plate for plate in factor.plates if plate not in step.over)
    return Factor(
        f"f{step.output}", rest, factor.variables, jnp.squeeze(array, gone), factor.scales
    )
