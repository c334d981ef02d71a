"""Eliminations of the same shape, done as one.

A model that is a Python loop over its sites has a plan of as many small steps. Many of them do the same with other
arrays: all leaves of a tree, say. Steps whose inputs are ready and have the same layout are done together, on arrays
stacked along a new first axis; what comes out stays stacked for those that read it (`Slots`). The program then grows
with the depth of the plan, not with the number of sites.

Only small steps are done so, and only several at once: of large ones stacking would copy the arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from marginax.elimination.factor import Factor, arranged, arrangement
from marginax.elimination.plan import Advance, Eliminate, Multiply, Plan, inputs_of, outputs_of
from marginax.elimination.semiring import Semiring, total_of

FEWEST = 4
"""Steps that are done as one; fewer are not worth it."""

LARGEST = 2**12
"""Elements of a step that is done with others."""

Step = Eliminate | Multiply | Advance


@dataclass(frozen=True)
class Row:
    """One of several arrays that are stacked along a first axis."""

    stack: Any
    index: int

    @property
    def array(self) -> Array:
        """The array itself."""
        if isinstance(self.stack, np.ndarray):
            return self.stack[self.index]  # pyright: ignore[reportReturnType]
        return lax.index_in_dim(self.stack, self.index, keepdims=False)


class Slots(Mapping[int, Factor]):
    """The factors of a plan by slot; of those that are stacked, each is taken out when it is asked for."""

    def __init__(self, factors: Sequence[Factor]) -> None:
        self._factors = dict(enumerate(factors))
        self._rows: dict[int, Row] = {}

    def __getitem__(self, slot: int) -> Factor:
        factor, row = self._factors[slot], self._rows.get(slot)
        if row is None or factor.array is not row.stack:
            return factor
        whole = Factor(factor.name, factor.plates, factor.variables, row.array, factor.scales)
        self._factors[slot] = whole
        return whole

    def __iter__(self) -> Iterator[int]:
        return iter(self._factors)

    def __len__(self) -> int:
        return len(self._factors)

    def put(self, slot: int, factor: Factor, row: Row | None = None) -> None:
        """Fill a slot; of a row, ``factor`` has the whole stack as its array."""
        self._factors[slot] = factor
        if row is not None:
            self._rows[slot] = row

    def described(self, slot: int) -> tuple[Factor, tuple[int, ...], Any]:
        """A factor of which only the names count, the shape of its array and its type."""
        factor = self._factors[slot]
        stacked = slot in self._rows and factor.array is self._rows[slot].stack
        return factor, np.shape(factor.array)[1 if stacked else 0 :], factor.array.dtype

    def stacked(self, slots: Sequence[int]) -> Any:
        """The arrays of some slots along a first axis, which has size one if they are all the same one."""
        rows = [self._rows.get(s) or Row(self._factors[s].array, -1) for s in slots]
        if all(row.stack is rows[0].stack and row.index == rows[0].index for row in rows):
            alone = rows[0].array if rows[0].index >= 0 else rows[0].stack
            return arranged(alone, range(np.ndim(alone)), [0])
        if all(row.index < 0 and isinstance(row.stack, np.ndarray) for row in rows):
            return np.stack([row.stack for row in rows])
        positions: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            positions.setdefault(id(row.stack), []).append(i)
        parts = [_part([rows[i] for i in where]) for where in positions.values()]
        whole = parts[0] if len(parts) == 1 else lax.concatenate(parts, 0)
        order = [i for where in positions.values() for i in where]
        return _taken(whole, np.argsort(order).tolist())


def _part(rows: Sequence[Row]) -> Any:
    """Rows of one stack, or one array so many times."""
    stack = rows[0].stack
    if rows[0].index >= 0:
        return _taken(stack, [row.index for row in rows])
    return jnp.broadcast_to(stack, (len(rows), *np.shape(stack)))


def _taken(stack: Any, indices: Sequence[int]) -> Any:
    """Some rows of a stack, as a slice if they are at equal distances."""
    if list(indices) == list(range(stack.shape[0])):
        return stack
    first, step = indices[0], indices[1] - indices[0] if len(indices) > 1 else 1
    if step > 0 and list(indices) == list(range(first, indices[-1] + 1, step)):
        return lax.slice_in_dim(stack, first, indices[-1] + 1, step)
    return jnp.take(stack, np.asarray(indices), axis=0, mode="clip")


def in_batches(plan: Plan, slots: Slots) -> Iterator[list[int]]:
    """The steps of a plan, those together that can be done as one.

    Every step comes after those that it needs, and the slots that these fill must be filled by then.
    """
    depth = dict.fromkeys(range(len(plan.terms)), 0)
    levels: dict[int, list[int]] = {}
    for number, step in enumerate(plan.steps):
        level = 1 + max((depth[s] for s in inputs_of(step)), default=0)
        depth.update(dict.fromkeys(outputs_of(step), level))
        levels.setdefault(level, []).append(number)
    for _, numbers in sorted(levels.items()):
        groups: dict[Any, list[int]] = {}
        for number in numbers:
            key = _layout(plan.steps[number], slots) if len(numbers) >= FEWEST else None
            groups.setdefault(number if key is None else key, []).append(number)
        for group in groups.values():
            yield from [group] if len(group) >= FEWEST else [[number] for number in group]


def _layout(step: Step, slots: Slots) -> Any:
    """What steps that are done as one have in common; None of one that is done alone."""
    if not isinstance(step, Eliminate) or step.elements > LARGEST:
        return None
    found = []
    for slot in step.inputs:
        factor, shape, dtype = slots.described(slot)
        if factor.scales:
            return None
        found.append((shape, dtype, arrangement(factor, step.plates, step.variables)))
    return _axis(step), tuple(found)


def _axis(step: Eliminate) -> int:
    return len(step.plates) + step.variables.index(step.variable)


def execute_batch(
    steps: Sequence[Eliminate], slots: Slots, semiring: Semiring, number: int
) -> None:
    """Do several steps of the same layout as one, and fill the slots that they go to.

    Parameters
    ----------
    steps : sequence of Eliminate
        What to do.
    slots : Slots
        The factors by slot.
    semiring : Semiring
        How to reduce a variable.
    number : int
        Of one of the steps.
    """
    first, arrays = steps[0], []
    for position in zip(*(step.inputs for step in steps), strict=True):
        factor, _, _ = slots.described(position[0])
        order, new = arrangement(factor, first.plates, first.variables)
        stack = slots.stacked(position)
        arrays.append(arranged(stack, [0, *(a + 1 for a in order)], [a + 1 for a in new]))
    made = semiring.reduce(total_of(arrays), _axis(first) + 1, number)
    for i, step in enumerate(steps):
        rest = tuple(v for v in step.variables if v != step.variable)
        factor = Factor(f"f{step.output}", step.plates, rest, made)
        slots.put(step.output, factor, Row(made, i if made.shape[0] > 1 else 0))
