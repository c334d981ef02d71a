"""Run a tiled program: whole steps as they are, and each loop as one `jax.lax.scan` over blocks of rows.

All blocks have one size, so that the body is compiled once. If the number of rows is no multiple of it, the
last block begins earlier and has some rows for the second time. In its sums those count as nothing (the
neutral element takes their place, also where they are infinite or NaN); among results they are written once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from marginax.blocks.demand import Loop, Row, Tiling
from marginax.blocks.devices import ROWS
from marginax.blocks.pointwise import run_along
from marginax.blocks.program import Value
from marginax.blocks.reduction import Found
from marginax.jaxpr.evaluate import as_function

Arrays = dict[Value, Any]


def run_tiled(
    tiling: Tiling,
    arrays: Sequence[Any],
    block_size: int,
    corrected: bool = True,
    mesh: Mesh | None = None,
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
    mesh : Mesh, optional
        Devices that share the rows.
    """
    program = tiling.program
    found: Arrays = {**program.known, **dict(zip(program.inputs, arrays, strict=True))}
    for stage, steps in enumerate(tiling.stages):
        for step in steps:
            call = as_function(step.eqn, step.debug_info)
            outputs = call(*(found[value] for value in step.inputs))
            found.update(zip(step.outputs, outputs, strict=True))
        if stage < len(tiling.loops):
            loop = tiling.loops[stage]
            rows = [jnp.asarray(found[value]) for value, _ in loop.cut]
            whole = [found[value] for value in loop.whole]
            run = _Run(loop, tiling.size, block_size, corrected)
            sums, parts = run.here(rows, whole) if mesh is None else run.over(mesh, rows, whole)
            for reduction, total in zip(loop.reductions, sums, strict=True):
                if reduction.adds_up_in_place:
                    total = total + found[reduction.step.inputs[0]]
                found[reduction.step.outputs[0]] = total
            found.update(zip((value for value, _ in loop.stacked), parts, strict=True))
    return [found[value] for value in program.outputs]


@dataclass(frozen=True)
class _Run:
    """One loop, over all rows or over the share of a device."""

    loop: Loop
    size: int
    block_size: int
    corrected: bool

    def here(self, rows: Sequence[Array], whole: Sequence[Any]) -> tuple[list[Array], list[Array]]:
        """On one device: sums, and results of all rows."""
        return self._share(rows, whole, self.size)

    def over(
        self, mesh: Mesh, rows: Sequence[Array], whole: Sequence[Any]
    ) -> tuple[list[Array], list[Array]]:
        """The same on several devices, each of which has a share of the rows."""
        share = -(-self.size // mesh.size)
        missing = share * mesh.size - self.size  # rows that do not count, on the last devices
        axes = [axis for _, axis in self.loop.cut]
        if missing:
            rows = [
                jnp.pad(r, [(0, missing if a == axis else 0) for a in range(r.ndim)], mode="edge")
                for r, axis in zip(rows, axes, strict=True)
            ]

        def on_each(rows: Sequence[Array], whole: Sequence[Any]) -> tuple[list[Array], list[Array]]:
            first = lax.axis_index(ROWS) * share
            sums, parts = self._share(rows, whole, share, first, missing > 0)
            gathered = [lax.all_gather(total, ROWS) for total in sums]
            return [
                # In the order of the devices, which gives all of them the same bits.
                functools.reduce(reduction.combine, list(totals))
                for reduction, totals in zip(self.loop.reductions, gathered, strict=True)
            ], parts

        run = jax.shard_map(
            on_each,
            mesh=mesh,
            in_specs=([_along(axis) for axis in axes], [PartitionSpec()] * len(whole)),
            out_specs=(
                [PartitionSpec()] * len(self.loop.reductions),
                [_along(axis) for _, axis in self.loop.stacked],
            ),
            check_vma=False,
        )
        sums, parts = run(rows, whole)
        places = zip(parts, self.loop.stacked, strict=True)
        return sums, [lax.slice_in_dim(p, 0, self.size, axis=axis) for p, (_, axis) in places]

    def _share(
        self,
        rows: Sequence[Array],
        whole: Sequence[Any],
        share: int,
        first: Any = 0,
        is_padded: bool = False,
    ) -> tuple[list[Array], list[Array]]:
        """Some rows, of which the first is number ``first`` of all; padded, if the last may not be among all."""
        block_size = min(self.block_size, share)
        given: dict[tuple[Value, int | None], Any] = dict(zip(self.loop.cut, rows, strict=True))
        known = dict(zip(self.loop.whole, whole, strict=True))

        def block(sums: list[Found], number: Array) -> tuple[list[Found], list[Array]]:
            begin = number * block_size
            start = jnp.minimum(begin, share - block_size)
            place = start + jnp.arange(block_size)
            counts = None
            if share % block_size:
                counts = place >= begin
            if is_padded:
                is_one = first + place < self.size
                counts = is_one if counts is None else counts & is_one
            return self._block(given, known, start, first, block_size, counts, sums)

        empty = [reduction.nothing(self.corrected) for reduction in self.loop.reductions]
        sums, parts = lax.scan(block, empty, jnp.arange(-(-share // block_size)))
        places = zip(parts, self.loop.stacked, strict=True)
        return [found.total for found in sums], [_joined(p, axis, share) for p, (_, axis) in places]

    def _block(
        self,
        given: Mapping[tuple[Value, int | None], Array],
        known: Mapping[Value, Any],
        start: Array,
        first: Any,
        block_size: int,
        counts: Array | None,
        sums: list[Found],
    ) -> tuple[list[Found], list[Array]]:
        """What is found after a block of rows, and its rows of the results."""
        rows: dict[Row, Array] = {}

        def read(value: Value, axis: int | None) -> Any:
            if axis is None:
                return known[value]
            if (value, axis) not in rows:
                whole = given[value, axis]
                rows[value, axis] = lax.dynamic_slice_in_dim(whole, start, block_size, axis)
            return rows[value, axis]

        for along in self.loop.steps:
            arguments = [read(v, a) for v, a in zip(along.step.inputs, along.axes, strict=True)]
            outputs = run_along(along, arguments, first + start, block_size)
            for value, axis, array in zip(along.step.outputs, along.out_axes, outputs, strict=True):
                if axis is not None:
                    rows[value, axis] = array
        after = []
        for reduction, before in zip(self.loop.reductions, sums, strict=True):
            places = zip(reduction.step.inputs, reduction.axes, strict=True)
            arguments = [None if reduction.is_start(i) else read(*p) for i, p in enumerate(places)]
            after.append(reduction.after(before, arguments, counts))
        return after, [read(value, axis) for value, axis in self.loop.stacked]


def _along(axis: int) -> PartitionSpec:
    return PartitionSpec(*[None] * axis, ROWS)


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
