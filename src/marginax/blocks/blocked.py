"""`in_blocks`: a function whose large axes are evaluated a block at a time, derivatives included.

The function is traced, and what is run is its tiled program (`demand`, `loops`). Derivatives are taken first and tiled
afterwards, never the other way round: differentiating a loop would keep what every block computed. Of a function with
one number as its value (a log density, a loss), value and gradient are one program and so one loop; its derivative
in some direction is the gradient times that direction, which serves forward and reverse mode alike. Of any other
function the program of its `jax.linearize` is tiled; backward, JAX transposes that as it is. It can, where
every step, a loop among them, is either linear in the direction or does not know it. So what is linear has loops of
its own. Derivatives of derivatives go the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.extend import core as jex_core

from marginax.blocks.demand import Tiling, tiling
from marginax.blocks.devices import current_mesh
from marginax.blocks.loops import run_tiled
from marginax.blocks.on_disk import READ
from marginax.blocks.program import Program, bytes_of, flat_program
from marginax.errors import ModelError
from marginax.jaxpr.axis_flow import dtype_of, shape_of
from marginax.jaxpr.objects import written_out

CACHE_ELEMENTS = 2**20
"""Elements of the largest array in a block. Measured on two cores with 1 MiB of cache each, and 32 MiB shared, a
mixture of ten on 1,000,000 points: 2**18 elements 21.0 ms, 2**19 18.5, 2**20 17.4, 2**21 16.9; with 2**14, where
threads wait for one another, twice as long; all at once 94."""

LARGE_ELEMENTS = 2**26
"""The same where blocks serve memory alone: on accelerators (a guess, not measured), and where a block is a loop."""


def _anything(size: int) -> None:
    """No limit."""


def in_blocks(
    fn: Callable[..., Any],
    sizes: Mapping[int, int | None],
    visit: Callable[[int], None] = _anything,
    *,
    linear: int = 0,
) -> Callable[..., Any]:
    """A function whose axes of certain sizes are evaluated in blocks.

    Parameters
    ----------
    fn : callable
        A pure function of arrays.
    sizes : mapping from int to int or None
        Sizes of axes, and how many elements a block has; None to choose that by the cache, and to do it only
        where it saves something.
    visit : callable, optional
        Called with the bytes of the largest array, before anything is allocated.
    linear : int
        So many of the last arrays may be transposed: the function is linear in them, step by step. Sums of many
        blocks then are not corrected for rounding, which is not linear.

    Returns
    -------
    callable
        The same function, to rounding. It can be differentiated, mapped and compiled.
    """
    if not sizes:
        return fn

    def call(*args: Any) -> Any:
        blocked, arrays, structure = _traced(fn, sizes, args, visit, linear)
        return jax.tree.unflatten(structure, _run(blocked, *arrays))

    return call


def blocks_of(
    fn: Callable[..., Any], sizes: Mapping[int, int | None], *args: Any
) -> dict[int, int]:
    """Which axes `in_blocks` cuts, by size, and how large the blocks are; nothing is computed.

    Parameters
    ----------
    fn, sizes
        As for `in_blocks`.
    *args
        Arguments, or their shapes.
    """
    if not sizes:
        return {}
    blocked, arrays, _ = _traced(fn, sizes, args)
    return blocked.arranged(*arrays)[2]


def _traced(
    fn: Callable[..., Any],
    sizes: Mapping[int, int | None],
    args: Any,
    visit: Callable[[int], None] = _anything,
    linear: int = 0,
) -> tuple[Blocked, list[Any], Any]:
    """A function, the arrays that it takes (what it closes over, then its arguments), and how its results are
    put together.
    """
    leaves, structure = jax.tree.flatten(args)
    results: list[Any] = []

    def flat(*leaves: Any) -> list[Any]:
        out, tree = jax.tree.flatten(fn(*jax.tree.unflatten(structure, leaves)))
        results.append(tree)
        return out

    traced = written_out(jax.make_jaxpr(flat)(*leaves))
    ordered = tuple(sorted(sizes.items(), reverse=True))
    blocked = Blocked(traced.jaxpr, ordered, visit, linear)
    return blocked, [*map(jnp.asarray, traced.consts), *leaves], results[0]


@dataclass(frozen=True, eq=False)
class Blocked:
    """A traced function of its constants and arguments, and which axes are large."""

    jaxpr: jex_core.Jaxpr
    sizes: tuple[tuple[int, int | None], ...]
    visit: Callable[[int], None]
    linear: int

    @property
    def plain(self) -> Callable[..., list[Any]]:
        """As it was traced, custom derivatives and all."""
        count = len(self.jaxpr.constvars)
        jaxpr = self.jaxpr

        def call(*arrays: Any) -> list[Any]:
            return jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(jaxpr, arrays[:count]))(
                *arrays[count:]
            )

        return call

    @property
    def is_a_number(self) -> bool:
        """Whether it has one number as its value."""
        outputs = self.jaxpr.outvars
        return len(outputs) == 1 and not shape_of(outputs[0]) and _is_float(dtype_of(outputs[0]))

    def tiled(self, *arrays: Any) -> list[Any]:
        """Evaluate in blocks."""
        call, largest, _ = self.arranged(*arrays)
        self.visit(largest)
        return list(call(*arrays))

    def arranged(self, *arrays: Any) -> tuple[Callable[..., list[Any]], int, dict[int, int]]:
        """How to evaluate it, the bytes of the largest array, and the sizes that are cut into blocks of which size."""
        call, largest, chosen = self.plain, 0, dict[int, int]()
        program = flat_program(written_out(jax.make_jaxpr(call)(*arrays)))
        for size, asked in self.sizes:
            if chosen and asked is None:
                continue  # what is left fits
            if chosen:
                program = flat_program(written_out(jax.make_jaxpr(call)(*arrays)))
            found = tiling(program, size, self.linear)
            block_size = None if found is None else chosen_block(found, asked)
            if found is not None and block_size is None and _reads(program, size):
                block_size = size
            if found is None or block_size is None:
                continue
            largest = max(largest, found.bytes_of_loops(block_size))
            chosen[size] = block_size
            call = partial(_tiled_once, found, block_size, not self.linear)
            program = found.outside_of_loops
        _refuse_whole_rows(program)
        return call, max([largest, *map(bytes_of, program.computed)]), chosen


def _reads(program: Program, size: int) -> bool:
    """Whether rows of that number are on disk."""
    return any(
        s.eqn.primitive.name == READ and s.outputs[0].shape[0] == size for s in program.steps
    )


def _refuse_whole_rows(program: Program) -> None:
    """Refuse what reads all rows from disk at once."""
    for step in program.steps:
        if step.eqn.primitive.name == READ:
            users = [s.eqn.primitive.name for s in program.steps if step.outputs[0] in s.inputs]
            raise ModelError(
                f"rows on disk ({step.eqn.params['source'].about}) are needed all at once, by "
                f"{', '.join(f'`{u}`' for u in dict.fromkeys(users)) or 'the result itself'}. In blocks only "
                "what is pointwise along the rows of a plate can be computed, and sums over them; compute anything "
                "else before."
            )


def _tiled_once(found: Tiling, block_size: int, corrected: bool, *arrays: Any) -> list[Any]:
    return run_tiled(found, arrays, block_size, corrected, current_mesh())


def chosen_block(found: Tiling, block_size: int | None) -> int | None:
    """How many rows a block has; None if all at once is as good.

    Parameters
    ----------
    found : Tiling
        The program.
    block_size : int, optional
        What was asked for.
    """
    size = found.size
    if size > np.iinfo(jnp.arange(0).dtype).max:
        return None  # rows are counted in this type
    mesh = current_mesh()
    if mesh is not None:
        size = -(-size // mesh.size)  # the share of each
    if block_size is not None:
        return min(block_size, size)
    # A loop over time takes one step for a whole block at once, so that its blocks serve memory alone.
    elements = LARGE_ELEMENTS if found.has_loops_inside else _cache()
    count = -(-size // max(elements // found.width, 1))
    if count < 2:
        return None if mesh is None else size
    whole = next((n for n in range(count, 2 * count) if size % n == 0), count)
    return -(-size // whole)


def fits_in_cache(elements: int) -> bool:
    """Whether an array of so many elements is too small to be worth blocks."""
    return elements <= _cache()


def _cache() -> int:
    return CACHE_ELEMENTS if jax.default_backend() == "cpu" else LARGE_ELEMENTS


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(blocked: Blocked, *arrays: Any) -> list[Any]:
    return blocked.tiled(*arrays)


@partial(_run.defjvp, symbolic_zeros=True)
def _(blocked: Blocked, primals: Any, tangents: Any) -> tuple[list[Any], list[Any]]:
    moved = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]
    directions = [tangents[i] for i in moved]
    sizes = dict(blocked.sizes)

    def at(*changed: Any) -> list[Any]:
        arrays = list(primals)
        for i, array in zip(moved, changed, strict=True):
            arrays[i] = array
        return blocked.plain(*arrays)

    start = [primals[i] for i in moved]
    if blocked.is_a_number:
        both = jax.value_and_grad(lambda *changed: at(*changed)[0], tuple(range(len(moved))))
        value, gradient = in_blocks(both, sizes, blocked.visit)(*start)
        change = sum(
            (jnp.sum(g * d) for g, d in zip(gradient, directions, strict=True)),
            jnp.zeros_like(value),
        )
        return [value], [change]
    is_float = [_is_float(dtype_of(out)) for out in blocked.jaxpr.outvars]

    def forward(start: list[Any], directions: list[Any]) -> list[Any]:
        _, change = jax.linearize(at, *start)
        changes = change(*directions)
        return [c for c, smooth in zip(changes, is_float, strict=True) if smooth]

    # Apart from the derivative, because whoever transposes that knows the values before it knows the directions.
    values = _run(blocked, *primals)
    along = in_blocks(forward, sizes, blocked.visit, linear=len(directions))
    changes = along(start, directions)
    smooth = iter(changes)
    return values, [
        next(smooth) if is_smooth else np.zeros(jnp.shape(v), jax.dtypes.float0)
        for v, is_smooth in zip(values, is_float, strict=True)
    ]


def _is_float(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)
