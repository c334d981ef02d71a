"""Execute the steps of a plan, one after the other, on factors with named axes.

Scales (powers) nest like scopes. A `Scale` around a group of factors raises the *result* of the group
to a power, so it multiplies the logarithm after the variables inside were reduced. A factor
therefore carries the scales it stands in, unapplied, and each is applied when the factor leaves
that scope: when it meets a variable that lives outside it. A plate's scale (a subsample standing
for more elements) is applied where the plate is multiplied out. A plan sums out first what stands in the
most scales, so that nothing leaves a scale too early. A variable inside a scale that a factor of it
is outside of has no meaning, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from marginax.elimination.axes import Axis
from marginax.elimination.factor import Factor, Scale
from marginax.elimination.plan import Eliminate, Multiply, Plan
from marginax.elimination.semiring import Semiring


class ScaleError(ValueError):
    """A variable and a factor of it stand in different scales."""


@dataclass(frozen=True)
class Setting:
    """What the numbers of an elimination depend on beside the factors."""

    plate_sizes: Mapping[Axis, int]
    """Elements present in each plate."""
    plate_scales: Mapping[Axis, float] = field(default_factory=dict)
    """What the logarithm is multiplied by where a plate is multiplied out; 1 if absent."""
    variable_scales: Mapping[Axis, tuple[Scale, ...]] = field(default_factory=dict)
    """The scales in which each variable stands, outermost first."""


def execute(
    step: Eliminate | Multiply,
    slots: Mapping[int, Factor],
    semiring: Semiring,
    number: Any,
    setting: Setting,
) -> Factor:
    """What a step makes of the slots before it.

    Parameters
    ----------
    step : Eliminate or Multiply
        What to do.
    slots : mapping from int to Factor
        The factors by slot.
    semiring : Semiring
        How to reduce a variable.
    number : int
        Of the step; every reduction has one of its own.
    setting : Setting
        Sizes and scales.
    """
    if isinstance(step, Multiply):
        return _multiply(slots[step.input], step, setting)
    scales = setting.variable_scales.get(step.variable, ())
    inputs = [slots[i].with_scales_applied(keep=len(scales)) for i in step.inputs]
    arrays = [factor.aligned(step.plates, step.variables) for factor in inputs]
    axis = len(step.plates) + step.variables.index(step.variable)
    rest = tuple(v for v in step.variables if v != step.variable)
    array = semiring.eliminate(arrays, axis, number)
    return Factor(f"f{step.output}", step.plates, rest, array, scales)


def check_scales(
    plan: Plan, factors: Sequence[Factor], variable_scales: Mapping[Axis, tuple[Scale, ...]]
) -> None:
    """Check that every factor stands in all the scales of its variables, and that the plan knows it.

    Raises
    ------
    ScaleError
        Where one does not: its power would be taken before the sum, or of what is not summed.
    ValueError
        For a plan of factors in other scales, whose order may be another.
    """
    for term, factor in zip(plan.terms, factors, strict=True):
        if factor.scales and term.scales != tuple(scale.key for scale in factor.scales):
            raise ValueError(f"the plan was made for '{term.name}' in other scales than it has.")
        for variable in factor.variables:
            scales = variable_scales.get(variable, ())
            shared = [scale.key for scale in factor.scales[: len(scales)]]
            if shared != [scale.key for scale in scales]:
                raise ScaleError(
                    f"'{variable}' is summed out inside a scale of {_product(scales)}, but '{factor.name}', which "
                    f"depends on it, stands in {_product(factor.scales) or 'no scale'}. A scale multiplies after the "
                    f"variables inside it were summed out, so everything that depends on '{variable}' must stand in "
                    f"the same handlers.scale as '{variable}', or in one inside it."
                )


def _product(scales: Iterable[Scale]) -> str:
    return " * ".join(str(scale.key) for scale in scales)


def _multiply(factor: Factor, step: Multiply, setting: Setting) -> Factor:
    # A scale that varies along these plates must be applied while they are there, and with it all
    # the scales inside it.
    varying = [i for i, s in enumerate(factor.scales) if not set(s.plates).isdisjoint(step.over)]
    if varying:
        factor = factor.with_scales_applied(keep=varying[0])
    array = factor.array
    for plate in step.over:
        axis = factor.plates.index(plate)
        repeats = setting.plate_sizes[plate] if array.shape[axis] == 1 else 1
        array = jnp.sum(array, axis, keepdims=True) * (repeats * setting.plate_scales.get(plate, 1))
    gone = [factor.plates.index(plate) for plate in step.over]
    rest = tuple(plate for plate in factor.plates if plate not in step.over)
    return Factor(
        f"f{step.output}", rest, factor.variables, jnp.squeeze(array, gone), factor.scales
    )
