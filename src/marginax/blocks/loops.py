"""Run a tiled program: whole steps as they are, and each loop as one `jax.lax.scan` over blocks of rows.

All blocks have one size, so that the body is compiled once. If the number of rows is no multiple of it, the
last block begins earlier and has some rows for the second time. In its sums those count as nothing (the
neutral element takes their place, also where they are infinite or NaN); among results they are written once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from marginax.blocks.demand import Loop, Row, Tiling
from marginax.blocks.pointwise import run_along
from marginax.blocks.program import Value
from marginax.blocks.reduction import Found
from marginax.graph.evaluate import as_function

Arrays = dict[Value, Any]


def run_tiled(
    tiling: Tiling, arrays: Sequence[Any], block_size: int, corrected: bool = True
) -> list[Any]:
    """The results of a program.

    Parameters
    ----------
    tiling : Tiling
        The program.
    arrays : sequence of arrays
        Its inputs.
    block_size : int
        Rows of a block, at most as many as there are.
    corrected : bool
        Whether sums are corrected for the rounding of many blocks.
    """
    program = tiling.program
    found: Arrays = {**program.known, **dict(zip(program.inputs, arrays, strict=True))}
    for stage, steps in enumerate(tiling.stages):
        for step in steps:
            call = as_function(step.eqn, step.debug_info)
            outputs = call(*(found[value] for value in step.inputs))
            found.update(zip(step.outputs, outputs, strict=True))
        if stage < len(tiling.loops):
            found |= _run_loop(tiling, tiling.loops[stage], found, block_size, corrected)
    return [found[value] for value in program.outputs]


def _run_loop(
    tiling: Tiling, loop: Loop, found: Arrays, block_size: int, corrected: bool
) -> Arrays:
    def step(sums: list[Found], number: Array) -> tuple[list[Found], list[Array]]:
        return _block(tiling, loop, found, block_size, sums, number)

    first = [
        r.nothing(found[r.step.inputs[0]] if r.adds_up_in_place else None, corrected)
        for r in loop.reductions
    ]
    count = -(-tiling.size // block_size)
    sums, parts = lax.scan(step, first, jnp.arange(count))
    results: Arrays = {
        reduction.step.outputs[0]: found.total
        for reduction, found in zip(loop.reductions, sums, strict=True)
    }
    for (value, axis), part in zip(loop.stacked, parts, strict=True):
        results[value] = _joined(part, axis, tiling.size)
    return results


def _block(
    tiling: Tiling,
    loop: Loop,
    found: Mapping[Value, Any],
    block_size: int,
    sums: list[Found],
    number: Array,
) -> tuple[list[Found], list[Array]]:
    """What is found after a block of rows, and its rows of the results."""
    begin = number * block_size
    start = jnp.minimum(begin, tiling.size - block_size)
    rows: dict[Row, Array] = {}

    def read(value: Value, axis: int | None) -> Any:
        if axis is None:
            return found[value]
        if (value, axis) not in rows:
            whole = jnp.asarray(found[value])
            rows[value, axis] = lax.dynamic_slice_in_dim(whole, start, block_size, axis)
        return rows[value, axis]

    for along in loop.steps:
        arguments = [read(v, a) for v, a in zip(along.step.inputs, along.axes, strict=True)]
        outputs = run_along(along, arguments, start, block_size)
        for value, axis, array in zip(along.step.outputs, along.out_axes, outputs, strict=True):
            if axis is not None:
                rows[value, axis] = array
    counts = None
    if tiling.size % block_size:
        counts = start + jnp.arange(block_size) >= begin
    after = []
    for reduction, before in zip(loop.reductions, sums, strict=True):
        places = zip(reduction.step.inputs, reduction.axes, strict=True)
        after.append(reduction.after(before, [read(v, a) for v, a in places], counts))
    return after, [read(value, axis) for value, axis in loop.stacked]


def _joined(parts: Array, axis: int, size: int) -> Array:
    """Rows from blocks, of which the last may begin before the one before it ends."""
    count, block_size = parts.shape[0], parts.shape[1 + axis]
    rows = jnp.moveaxis(parts, 0, axis)
    before, after = rows.shape[:axis], rows.shape[axis + 2 :]
    if count * block_size == size:
        return rows.reshape([*before, size, *after])
    done = (count - 1) * block_size
    first = lax.slice_in_dim(rows, 0, count - 1, axis=axis).reshape([*before, done, *after])
    last = lax.index_in_dim(rows, count - 1, axis, keepdims=False)
    last = lax.slice_in_dim(last, done + block_size - size, block_size, axis=axis)
    return lax.concatenate([first, last], axis)
