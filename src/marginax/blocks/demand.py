"""What a program needs as a whole, what it needs only along one large axis, and where that axis ends.

Read a program backwards from its results. A sum over the rows of a table does not need the table: it needs
each row once, in any order. So the operand of a reduction over the axis is wanted *along* it, and so is
everything on the way to it whose steps are pointwise along the axis (`pointwise`), up to the inputs, of which
rows can be cut out. What is wanted along the axis need never exist as a whole.

Three things end the way back:

- a value that does not have the axis (a weight, a location) is wanted *whole*: it is computed once;
- so is one whose elements are mixed by a step that has no rule, or moves them (`cumsum`, `sort`); it is computed
  whole, before, and rows are cut out of it: that costs memory and is always right;
- results that themselves have the axis (a posterior over rows) are *stacked* from rows.

A reduction may need what another reduction found (all rows, given the sum over all rows). Then there are
several *loops*, one after the other; a later one computes again, row by row, what it needs of an earlier
one's rows, rather than keep it. `Tiling` says what is done in each. Value and gradient of a sum over rows
turn out to be one loop, because nothing in the gradient waits for the sum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from marginax.blocks.pointwise import Along, ways_along
from marginax.blocks.program import Program, Step, Value, bytes_of
from marginax.blocks.reduction import Reduction, reduction_over

Row = tuple[Value, int]
"""A value of which rows are wanted, and the axis that they are on."""


@dataclass(frozen=True)
class Loop:
    """One pass over all rows."""

    steps: tuple[Along, ...]
    """In order."""
    reductions: tuple[Reduction, ...]
    stacked: tuple[Row, ...]
    """Results that have rows."""
    cut: tuple[Row, ...]
    """What exists as a whole, and has rows cut out of it."""
    whole: tuple[Value, ...]
    """What else is needed."""


@dataclass(frozen=True)
class Tiling:
    """A program in stages: some steps on whole arrays, then a loop, and so on."""

    program: Program
    size: int
    """Of the large axis."""
    stages: tuple[tuple[Step, ...], ...]
    """Whole steps; the i-th before the i-th loop, the last ones at the end."""
    loops: tuple[Loop, ...]
    needed_whole: Mapping[Value, str]
    """Values with the axis that had to be computed whole, and the primitive that makes them."""

    @property
    def outside_of_loops(self) -> Program:
        """The steps on whole arrays."""
        program, steps = self.program, tuple(step for stage in self.stages for step in stage)
        return Program(program.inputs, steps, program.outputs, program.known)

    @property
    def width(self) -> int:
        """Elements of the largest array in a loop, for one row."""
        return max((math.prod(v.shape) // self.size for v in self._made()), default=1)

    @property
    def has_loops_inside(self) -> bool:
        """Whether a block is itself a loop, along time."""
        names = {along.step.eqn.primitive.name for loop in self.loops for along in loop.steps}
        return "scan" in names

    def bytes_of_loops(self, block_size: int) -> int:
        """The largest array of a block, or result of all blocks."""
        made = [bytes_of(v) // self.size * block_size for v in self._made()]
        results = [bytes_of(v) for loop in self.loops for v, _ in loop.stacked]
        return max([*made, *results], default=0)

    def _made(self) -> Iterable[Value]:
        for loop in self.loops:
            for along in loop.steps:
                places = zip(along.step.outputs, along.out_axes, strict=True)
                yield from (value for value, place in places if place is not None)


def tiling(program: Program, size: int, linear: int = 0) -> Tiling | None:
    """How a program can be evaluated a block of rows at a time.

    Parameters
    ----------
    program : Program
        Any program.
    size : int
        Of the axis in question.
    linear : int
        What comes of so many of the last inputs has loops of its own.

    Returns
    -------
    Tiling or None
        None if nothing is gained: no reduction and no result has rows that are computed.
    """
    first = len(program.inputs) - linear
    return _scheduled(_demanded(program, size), _reached(program, program.inputs[first:]))


@dataclass(frozen=True)
class _Demand:
    """What is wanted of each value of a program."""

    program: Program
    size: int
    whole: set[Value] = field(default_factory=set)
    along: dict[Value, set[int]] = field(default_factory=lambda: defaultdict(set))
    made_by: dict[Row, Along] = field(default_factory=dict)
    """How rows are computed, where they are not cut out."""
    reductions: dict[Step, Reduction] = field(default_factory=dict)
    stacked: dict[Value, int] = field(default_factory=dict)
    needed_whole: dict[Value, str] = field(default_factory=dict)

    @property
    def given(self) -> set[Value]:
        return {*self.program.inputs, *self.program.known}

    def want(self, sources: Iterable[Value], axes: Iterable[int | None]) -> None:
        for source, axis in zip(sources, axes, strict=True):
            if axis is None:
                self.whole.add(source)
            else:
                self.along[source].add(axis)

    def is_whole(self, step: Step) -> bool:
        """Whether a step is done on whole arrays."""
        wanted = any(v in self.whole and v not in self.stacked for v in step.outputs)
        return wanted or bool(step.eqn.effects)


def _demanded(program: Program, size: int) -> _Demand:
    """Backwards through a program."""
    demand = _Demand(program, size)
    given, maker = demand.given, {v: step for step in program.steps for v in step.outputs}
    for value in program.outputs:
        axis = None if value in given else _stackable_axis(value, maker[value], size)
        if axis is None:
            demand.whole.add(value)
        else:
            demand.stacked[value] = axis
            demand.along[value].add(axis)
    for step in reversed(program.steps):
        wanted = {
            v: demand.along[v]
            for v in step.outputs
            if demand.along[v] and (v not in demand.whole or v in demand.stacked)
        }
        for rows, way in ways_along(step, wanted):
            if way is None or any(demand.stacked.get(v, axis) != axis for v, axis in rows):
                for value, _ in rows:
                    demand.whole.add(value)
                    demand.needed_whole[value] = step.eqn.primitive.name
                    demand.stacked.pop(value, None)
                continue
            demand.made_by.update(dict.fromkeys(rows, way))
            demand.want(step.inputs, way.axes)
        if demand.is_whole(step):
            reduction = reduction_over(step, size, given)
            if reduction is None:
                demand.whole.update(step.inputs)
            else:
                demand.reductions[step] = reduction
                demand.want(step.inputs, reduction.axes)
    return demand


def _stackable_axis(value: Value, step: Step, size: int) -> int | None:
    for axis, length in enumerate(value.shape):
        if length == size:
            ((_, way),) = ways_along(step, {value: {axis}})
            if way is not None:
                return axis
    return None


def _reached(program: Program, sources: Iterable[Value]) -> set[Value]:
    """What depends on some values, they themselves included."""
    found = set(sources)
    for step in program.steps:
        if not found.isdisjoint(step.inputs):
            found.update(step.outputs)
    return found


def _scheduled(demand: _Demand, apart: set[Value]) -> Tiling | None:
    """Forwards: when each value exists, and so what is done in which stage; some values have loops of their own."""
    program = demand.program
    ready = dict.fromkeys(demand.given, 0)
    rows_ready: dict[Row, int] = {}
    whole_steps: dict[int, list[Step]] = defaultdict(list)
    reductions: dict[int, list[Reduction]] = defaultdict(list)
    results: dict[int, list[Row]] = defaultdict(list)

    def stage_of(sources: Iterable[Value], axes: Iterable[int | None]) -> int:
        stages = [
            ready[source]
            if axis is None or (source, axis) not in demand.made_by
            else rows_ready[source, axis]
            for source, axis in zip(sources, axes, strict=True)
        ]
        return max(stages, default=0)

    for step in program.steps:
        for value in step.outputs:
            for axis in demand.along[value]:
                if way := demand.made_by.get((value, axis)):
                    rows_ready[value, axis] = stage_of(step.inputs, way.axes)
        if reduction := demand.reductions.get(step):
            stage = stage_of(step.inputs, reduction.axes)
            reductions[stage].append(reduction)
            ready.update(dict.fromkeys(step.outputs, stage + 1))
        elif demand.is_whole(step):
            stage = stage_of(step.inputs, [None] * len(step.inputs))
            whole_steps[stage].append(step)
            ready.update(dict.fromkeys(step.outputs, stage))
        for value in step.outputs:
            if value in demand.stacked:
                row = (value, demand.stacked[value])
                results[rows_ready[row]].append(row)
                ready[value] = rows_ready[row] + 1

    last = max([*reductions, *results], default=-1)
    stages, loops = list[tuple[Step, ...]](), list[Loop]()
    for stage in range(last + 1):
        stages.append(tuple(whole_steps[stage]))
        both = [
            (
                [r for r in reductions[stage] if (r.step.outputs[0] in apart) == is_apart],
                [row for row in results[stage] if (row[0] in apart) == is_apart],
            )
            for is_apart in (False, True)
        ]
        parts = [part for part in both if any(part)] or both[:1]
        loops += [_loop(demand, *part) for part in parts]
        stages += [()] * (len(parts) - 1)
    if all(not loop.steps for loop in loops):
        return None
    stages += [
        tuple(whole_steps[stage]) for stage in range(last + 1, max([last, *whole_steps]) + 2)
    ]
    return Tiling(program, demand.size, tuple(stages), tuple(loops), demand.needed_whole)


def _loop(demand: _Demand, reductions: list[Reduction], results: list[Row]) -> Loop:
    """One pass over all rows: the steps that it needs, in order, and what it needs beside."""
    wanted, whole = dict.fromkeys(results), dict[Value, None]()

    def want(sources: Iterable[Value], axes: Iterable[int | None]) -> None:
        for source, axis in zip(sources, axes, strict=True):
            if axis is None:
                whole[source] = None
            else:
                wanted[source, axis] = None

    for reduction in reductions:
        want(reduction.step.inputs, reduction.axes)
    steps: list[Along] = []
    for step in reversed(demand.program.steps):
        rows = [(v, a) for v in step.outputs for a in demand.along[v] if (v, a) in wanted]
        ways = {id(way): way for row in rows if (way := demand.made_by.get(row))}
        for way in ways.values():
            steps.append(way)
            want(step.inputs, way.axes)
    cut = tuple(row for row in wanted if row not in demand.made_by)
    return Loop(tuple(steps[::-1]), tuple(reductions), tuple(results), cut, tuple(whole))
