"""Contract: run a plan on factors in a semiring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from marginax.elimination.axes import Axis
from marginax.elimination.batches import Slots, execute_batch, in_batches
from marginax.elimination.chain import advance
from marginax.elimination.execute import ScaleError as ScaleError, Setting, check_scales, execute
from marginax.elimination.factor import Factor, Scale
from marginax.elimination.plan import Advance, Eliminate, Plan
from marginax.elimination.semiring import Semiring


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
    plate_sizes: Mapping[Axis, int],
    plate_scales: Mapping[Axis, float] | None = None,
    variable_scales: Mapping[Axis, tuple[Scale, ...]] | None = None,
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
    plate_sizes: Mapping[Axis, int],
    plate_scales: Mapping[Axis, float] | None = None,
    variable_scales: Mapping[Axis, tuple[Scale, ...]] | None = None,
) -> Slots:
    """Run a plan and return every slot: the factors, and what each step makes of those before it.

    Its arguments, and what it raises, are those of `contract`.
    """
    setting = Setting(plate_sizes, plate_scales or {}, variable_scales or {})
    check_scales(plan, factors, setting.variable_scales)
    slots = Slots(factors)
    for number, *others in in_batches(plan, slots):
        step = plan.steps[number]
        if others:
            alike = [s for n in (number, *others) if isinstance(s := plan.steps[n], Eliminate)]
            execute_batch(alike, slots, semiring, number)
        elif isinstance(step, Advance):
            for slot, factor in advance(step, slots, semiring, number, setting).items():
                slots.put(slot, factor)
        else:
            slots.put(step.output, execute(step, slots, semiring, number, setting))
    return slots
