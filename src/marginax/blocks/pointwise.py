"""Steps done for some rows of a large axis only, among them loops and branches that have the axis inside.

Of most steps the axis-flow table tells which axis of which input is needed. A `scan` (over time, say, of many
series) or a `cond` has a body; the axis runs through it if, inside, everything that is wanted along the axis is
pointwise along it, and what a loop carries has the axis before and after. Then the same loop is run
for some rows, its body evaluated for these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from marginax.blocks.on_disk import READ
from marginax.blocks.program import Program, Step, Value, called_program, flat_program
from marginax.jaxpr.axis_flow import axis_flow
from marginax.jaxpr.dependence import scan_parts
from marginax.jaxpr.evaluate import as_function

Axes = tuple[int | None, ...]
"""The axis of each array that has rows; None where an array is whole."""


@dataclass(frozen=True)
class Along:
    """A step done for some rows."""

    step: Step
    out_axes: Axes
    axes: Axes
    inside: tuple[Inside, ...] = ()
    """Of a loop its body, of a branching step its branches."""


@dataclass(frozen=True)
class Inside:
    """A program of which some inputs and outputs have rows only."""

    program: Program
    steps: tuple[Along, ...]
    """In order; those on whole arrays have None as their axes throughout."""
    axes: Axes
    used: tuple[bool, ...]
    """Which inputs make a difference."""
    out_axes: Axes


Wanted = Mapping[Value, set[int]]
"""By output of a step, along which axes it is wanted."""


def ways_along(
    step: Step, wanted: Wanted
) -> Iterator[tuple[list[tuple[Value, int]], Along | None]]:
    """How a step gives the rows that are wanted of its outputs.

    Parameters
    ----------
    step : Step
        Any.
    wanted : mapping from Value to set of int
        Outputs, and the axes along which rows of them are wanted.

    Yields
    ------
    list of (Value, int), Along or None
        Rows, and how they come out together; None if they do not, because the step mixes them.
    """
    if not wanted:
        return
    name = step.eqn.primitive.name
    if name in ("scan", "cond"):
        rows = [(value, axis) for value, axes in wanted.items() for axis in sorted(axes)]
        way = None
        if len(rows) == len(wanted):
            places = dict(rows)
            out_axes = tuple(places.get(value) for value in step.outputs)
            way = (_through_scan if name == "scan" else _through_cond)(step, out_axes)
        yield rows, way
        return
    for axis in sorted(set().union(*wanted.values())):
        rows = [(value, axis) for value, axes in wanted.items() if axis in axes]
        axes = _axes_along(step, axis)
        yield rows, None if axes is None else Along(step, (axis,) * len(step.outputs), axes)


def _axes_along(step: Step, axis: int) -> Axes | None:
    if step.eqn.primitive.name == "iota":
        return ()
    if step.eqn.primitive.name == READ:
        return () if axis == 0 else None
    flow = axis_flow(step.eqn)
    if flow is None or axis in flow.varying:
        return None
    size = step.outputs[0].shape[axis]
    axes = tuple(
        # An axis of size one is repeated: there is but one row, which is needed by all.
        next((a for a, o in enumerate(places) if o == axis and source.shape[a] == size), None)
        for source, places in zip(step.inputs, flow.maps, strict=True)
    )
    if axis not in flow.new_axes and all(place is None for place in axes):
        return None
    return axes


def _inside(
    program: Program, out_axes: Sequence[int | None], needed: Sequence[bool]
) -> Inside | None:
    """Which inputs a program needs along which axes; None if it mixes rows, or needs all of them."""
    along: dict[Value, set[int]] = defaultdict(set)
    whole: set[Value] = set()
    for value, axis, is_needed in zip(program.outputs, out_axes, needed, strict=True):
        if axis is not None:
            along[value].add(axis)
        elif is_needed:
            whole.add(value)
    steps: list[Along] = []
    for step in reversed(program.steps):
        wanted = {v: along[v] for v in step.outputs if along[v]}
        if step.eqn.effects or any(v in whole for v in step.outputs):
            if wanted:
                return None
            nowhere = (None,) * len(step.outputs), (None,) * len(step.inputs)
            steps.append(Along(step, *nowhere))
            whole.update(step.inputs)
        for _, way in ways_along(step, wanted):
            if way is None:
                return None
            steps.append(way)
            for source, axis in zip(step.inputs, way.axes, strict=True):
                if axis is None:
                    whole.add(source)
                else:
                    along[source].add(axis)
    if any(along[v] for v in program.known):
        return None
    if any(len(along[v]) + (v in whole) > 1 for v in (*program.inputs, *program.outputs)):
        return None
    axes = tuple(next(iter(along[v]), None) for v in program.inputs)
    used = tuple(bool(along[v]) or v in whole for v in program.inputs)
    return Inside(program, tuple(steps[::-1]), axes, used, tuple(out_axes))


def _through_scan(step: Step, out_axes: Axes) -> Along | None:
    eqn = step.eqn
    body = called_program(eqn)
    n_consts, n_carry = scan_parts(eqn)
    if any(axis == 0 for axis in out_axes[n_carry:]):
        return None  # the axis is time itself
    carry = list(out_axes[:n_carry])
    of_steps = [None if axis is None else axis - 1 for axis in out_axes[n_carry:]]
    while True:  # what is carried can only gather axes, so this ends
        wanted = [*carry, *of_steps]
        inside = _inside(body, wanted, [True] * n_carry + [axis is not None for axis in of_steps])
        if inside is None:
            return None
        before = inside.axes[n_consts : n_consts + n_carry]
        used = inside.used[n_consts : n_consts + n_carry]
        if any(
            own is not None and is_used and axis != own
            for own, axis, is_used in zip(carry, before, used, strict=True)
        ):
            return None
        grown = [axis if own is None else own for own, axis in zip(carry, before, strict=True)]
        if grown == carry:
            break
        carry = grown
    of_inputs = [None if axis is None else axis + 1 for axis in inside.axes[n_consts + n_carry :]]
    axes = (*inside.axes[:n_consts], *carry, *of_inputs)
    outs = (*carry, *out_axes[n_carry:])
    return Along(step, outs, axes, (inside,))


def _through_cond(step: Step, out_axes: Axes) -> Along | None:
    found = [
        _inside(flat_program(branch), out_axes, [True] * len(out_axes))
        for branch in step.eqn.params["branches"]
    ]
    branches = [inside for inside in found if inside is not None]
    if len(branches) < len(found):
        return None
    axes: list[int | None] = [None]  # which branch is the same for all rows
    for i in range(len(step.inputs) - 1):
        places = {b.axes[i] for b in branches if b.used[i]}
        if len(places) > 1:
            return None
        axes.append(next(iter(places), None))
    return Along(step, out_axes, tuple(axes), tuple(branches))


def run_along(along: Along, arguments: Sequence[Any], start: Any, count: int) -> Sequence[Any]:
    """A step done for a block of rows.

    Parameters
    ----------
    along : Along
        The step.
    arguments : sequence of arrays
        Its inputs, with ``count`` rows where they have rows.
    start : int array
        The first row.
    count : int
        How many rows.
    """
    step, eqn = along.step, along.step.eqn
    if along.inside:
        run = _run_scan if eqn.primitive.name == "scan" else _run_cond
        return run(along, arguments, start, count)
    axis = along.out_axes[0]
    if axis is None:
        return as_function(eqn, step.debug_info)(*arguments)
    if eqn.primitive.name == READ:
        return [eqn.params["source"].traced_rows(start, count)]
    shape = list(step.outputs[0].shape)
    shape[axis] = count
    params = anywhere(eqn.params)
    if eqn.primitive.name == "iota":
        array = eqn.primitive.bind(**params | {"shape": tuple(shape)})
        is_counted = eqn.params["dimension"] == axis
        return [array + jnp.asarray(start, array.dtype) if is_counted else array]
    flow = axis_flow(eqn)
    if flow is not None and flow.resize is not None:
        params = params | flow.resize(tuple(shape))
    outputs = eqn.primitive.bind(*map(jnp.asarray, arguments), **params)
    return outputs if eqn.primitive.multiple_results else [outputs]


def anywhere(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a primitive without where its result is to be: on which devices the rows are is settled outside."""
    return {key: None if key in ("sharding", "out_sharding") else p for key, p in params.items()}


def _run_inside(inside: Inside, arrays: Sequence[Any], start: Any, count: int) -> list[Any]:
    program = inside.program
    found: dict[tuple[Value, int | None], Any] = {(v, None): a for v, a in program.known.items()}
    found.update(
        {(v, axis): a for v, axis, a in zip(program.inputs, inside.axes, arrays, strict=True)}
    )
    for along in inside.steps:
        step = along.step
        arguments = [found[place] for place in zip(step.inputs, along.axes, strict=True)]
        outputs = run_along(along, arguments, start, count)
        places = zip(step.outputs, along.out_axes, outputs, strict=True)
        found.update({(value, axis): array for value, axis, array in places})
    return [
        found.get(place, jnp.zeros(place[0].shape, place[0].dtype))  # unneeded, if it is not there
        for place in zip(program.outputs, inside.out_axes, strict=True)
    ]


def _run_scan(along: Along, arguments: Sequence[Any], start: Any, count: int) -> list[Any]:
    (inside,), eqn = along.inside, along.step.eqn
    n_consts, n_carry = scan_parts(eqn)
    consts, carry = arguments[:n_consts], list(arguments[n_consts : n_consts + n_carry])
    series = list(arguments[n_consts + n_carry :])

    def body(carry: list[Array], now: list[Array]) -> tuple[list[Array], list[Array]]:
        outputs = _run_inside(inside, [*consts, *carry, *now], start, count)
        return outputs[:n_carry], outputs[n_carry:]

    options = {key: eqn.params[key] for key in ("length", "reverse", "unroll")}
    carry, of_steps = lax.scan(body, jax.tree.map(jnp.asarray, carry), series, **options)
    return [*carry, *of_steps]


def _run_cond(along: Along, arguments: Sequence[Any], start: Any, count: int) -> list[Any]:
    choice, *operands = arguments

    def branch(inside: Inside) -> Any:
        return lambda *operands: _run_inside(inside, operands, start, count)

    return lax.switch(choice, [branch(inside) for inside in along.inside], *operands)
