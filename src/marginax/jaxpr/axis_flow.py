"""How the axes of an equation's inputs flow into the axes of its outputs.

The whole of exact marginalisation in plates rests on one question about a jaxpr: *is every step
from this array to that one pointwise along this axis?* For a single equation the answer is a small
table, an `AxisFlow`: for each input and each of its axes, the output axis that it becomes, or None
when the step mixes the elements along it (a sum, a sort, a matrix product) or moves them.

Output element ``[..., i, ...]`` may depend on input elements with index ``i`` along a mapped axis
and on nothing else along it. Two things follow from the same table:

- *dependence* (`dependence.py`) composes the tables along the jaxpr, and so proves that the
  elements of a plate do not talk to each other;
- *evaluation* (`evaluate.py`) keeps an array that is constant along an axis at size one there: if
  all inputs are constant along what becomes an output axis, so is the output, and the equation is
  bound with size one. `AxisFlow.resize` rewrites the few primitives whose parameters spell sizes;
  `AxisFlow.varying` names the exceptions: what is written into one column varies along the columns.

A primitive without a rule here has no flow: it is taken to mix everything. That is always safe: it
costs memory, or an error that names it, but never a wrong number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend import core as jex_core

Shape = tuple[int, ...]
Params = Mapping[str, Any]


@dataclass(frozen=True)
class AxisFlow:
    """The axis table of one equation; all its outputs share it."""

    maps: tuple[tuple[int | None, ...], ...]
    """For each input, for each of its axes: the output axis, or None where elements mix."""
    new_axes: frozenset[int] = frozenset()
    """Output axes along which a single-output equation repeats the same values."""
    resize: Callable[[Shape], dict[str, Any]] | None = None
    """Parameters that produce the given output shape instead, where they spell a shape."""
    varying: frozenset[int] = frozenset()
    """Output axes along which the result varies even if all that is mapped to them repeats itself."""


def shape_of(atom: Any) -> Shape:
    """The shape of a variable or literal of a jaxpr."""
    return tuple(atom.aval.shape)


def dtype_of(atom: Any) -> Any:
    """The type of its elements."""
    return atom.aval.dtype


def axis_flow(eqn: jex_core.JaxprEqn) -> AxisFlow | None:
    """The flow of an equation, or None when nothing is known of its primitive."""
    if not eqn.outvars:  # a callback, say
        return None
    shapes = [shape_of(atom) for atom in eqn.invars]
    out_shape = shape_of(eqn.outvars[0])
    name = eqn.primitive.name
    if name in ELEMENTWISE:
        return _elementwise(shapes, out_shape)
    rule = RULES.get(name)
    return None if rule is None else rule(shapes, out_shape, eqn.params)


def _elementwise(shapes: Sequence[Shape], out: Shape) -> AxisFlow | None:
    # A rank-0 operand beside arrays (a literal, a scalar predicate) has no axes to map; an axis of
    # size one beside a longer one is repeated, so nothing runs along it.
    if any(len(shape) not in (0, len(out)) for shape in shapes):
        return None
    return AxisFlow(
        tuple(
            tuple(a if size == out[a] else None for a, size in enumerate(shape)) for shape in shapes
        )
    )


ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt
    ceil clamp clz conj convert_element_type copy copy_p cos cosh digamma div eq eq_to erf
    erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow
    is_finite le le_to lgamma log log1p logistic lt lt_to max min mul mulhi name ne neg nextafter
    not or polygamma population_count pow random_gamma_grad real reduce_precision
    regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta
    """.split()
)


def _broadcast_in_dim(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow | None:
    if len(shapes) != 1:  # dynamic shapes
        return None
    dims = tuple(params["broadcast_dimensions"])
    kept = {o for i, o in enumerate(dims) if shapes[0][i] == out[o]}
    new = frozenset(o for o in range(len(out)) if o not in kept)
    return AxisFlow((dims,), new, lambda shape: {"shape": shape})


def _reshape(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow | None:
    if len(shapes) != 1 or params.get("dimensions") is not None:
        return None
    return AxisFlow((_reshape_map(shapes[0], out),), resize=lambda shape: {"new_sizes": shape})


def _reshape_map(old: Shape, new: Shape) -> tuple[int | None, ...]:
    """An axis survives a reshape when as many elements lie before it and it keeps its size."""
    place = {}
    for axis, size in enumerate(new):
        if size != 1:
            place[(math.prod(new[:axis]), size)] = axis
    return tuple(
        place.get((math.prod(old[:axis]), size)) if size != 1 else None
        for axis, size in enumerate(old)
    )


def _squeeze(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    return _dropped(shapes[0], {d % len(shapes[0]) for d in params["dimensions"]})


def _reduce(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow | None:
    if len(shapes) != 1:
        return None
    return _dropped(shapes[0], set(params["axes"]))


def _dropped(shape: Shape, axes: set[int]) -> AxisFlow:
    kept = [a for a in range(len(shape)) if a not in axes]
    return AxisFlow((tuple(kept.index(a) if a in kept else None for a in range(len(shape))),))


def _transpose(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    permutation = list(params["permutation"])
    return AxisFlow((tuple(permutation.index(a) for a in range(len(permutation))),))


def _along_one_axis(parameter: str) -> Callable[[Sequence[Shape], Shape, Params], AxisFlow]:
    """Scans, sorts, concatenations: free along every axis but the one in the parameter."""

    def rule(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
        mixed = set(np.atleast_1d(params[parameter]).tolist())
        return AxisFlow(
            tuple(tuple(None if a in mixed else a for a in range(len(shape))) for shape in shapes)
        )

    return rule


def _stack(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    kept = tuple(o for o in range(len(out)) if o != params["axis"])
    return AxisFlow((kept,) * len(shapes))


def _unstack(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    return _dropped(shapes[0], {params["axis"]})


def _tile(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    (shape,), reps = shapes, params["reps"]
    return AxisFlow(
        (tuple(a if reps[a] == 1 else None for a in range(len(shape))),),
        frozenset(a for a in range(len(shape)) if shape[a] == 1),
        lambda new: {"reps": tuple(1 if new[a] == 1 else r for a, r in enumerate(reps))},
    )


def _slice(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    shape = shapes[0]
    start, strides = params["start_indices"], params["strides"] or (1,) * len(shape)
    whole = [
        start[a] == 0 and params["limit_indices"][a] == shape[a] and strides[a] == 1
        for a in range(len(shape))
    ]

    def resize(new: Shape) -> dict[str, Any]:
        limits = tuple(
            new[a] if whole[a] else params["limit_indices"][a] for a in range(len(shape))
        )
        return {"limit_indices": limits}

    return AxisFlow((tuple(a if whole[a] else None for a in range(len(shape))),), resize=resize)


def _dynamic_slice(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    operand = tuple(a if out[a] == shapes[0][a] else None for a in range(len(out)))
    indices = tuple(() for _ in shapes[1:])
    return AxisFlow((operand, *indices), resize=lambda shape: {"slice_sizes": shape})


def _pad(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    untouched = [tuple(c) == (0, 0, 0) for c in params["padding_config"]]
    return AxisFlow((tuple(a if free else None for a, free in enumerate(untouched)), ()))


def _gather(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    """Output batch axes come from the indices; operand axes survive as batching dims or whole."""
    numbers, slice_sizes = params["dimension_numbers"], params["slice_sizes"]
    operand, indices = shapes[0], shapes[1]
    batch_axes = [o for o in range(len(out)) if o not in numbers.offset_dims]
    index_map: list[int | None] = [*batch_axes, None]
    operand_map: list[int | None] = [None] * len(operand)
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    offset_axes = [a for a in range(len(operand)) if a not in dropped]
    for o, a in zip(numbers.offset_dims, offset_axes, strict=True):
        if slice_sizes[a] == operand[a]:  # whole, so there is but one place to start
            operand_map[a] = o
    for a, i in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        operand_map[a] = index_map[i]

    def resize(new: Shape) -> dict[str, Any]:
        sizes = list(slice_sizes)
        for a, o in enumerate(operand_map):
            if o is not None and a in offset_axes:
                sizes[a] = new[o]
        return {"slice_sizes": tuple(sizes)}

    return AxisFlow((tuple(operand_map), tuple(index_map[: len(indices)])), resize=resize)


def _dot_general(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    maps: list[list[int | None]] = [[None] * len(shape) for shape in shapes]
    for o, (a, b) in enumerate(zip(left_batch, right_batch, strict=True)):
        maps[0][a] = maps[1][b] = o
    o = len(left_batch)
    for side, used in ((0, (*left_sum, *left_batch)), (1, (*right_sum, *right_batch))):
        for a in range(len(shapes[side])):
            if a not in used:
                maps[side][a] = o
                o += 1
    return AxisFlow(tuple(tuple(m) for m in maps))


def _scatter(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    """The operand stays where it is; updates run along the axes that their windows cover whole."""
    numbers = params["dimension_numbers"]
    operand, indices, updates = shapes
    index_map: list[int | None] = [None] * len(indices)
    update_map: list[int | None] = [None] * len(updates)
    dropped = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window_axes = [a for a in range(len(operand)) if a not in dropped]
    for u, a in zip(numbers.update_window_dims, window_axes, strict=True):
        if updates[u] == operand[a]:  # whole, so there is but one place to start
            update_map[u] = a
    batch_axes = [u for u in range(len(updates)) if u not in numbers.update_window_dims]
    for a, i in zip(
        numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True
    ):
        index_map[i] = update_map[batch_axes[i]] = a
    return _written((tuple(range(len(operand))), tuple(index_map), tuple(update_map)))


def _written(maps: tuple[tuple[int | None, ...], ...]) -> AxisFlow:
    """Of an operand, which stays, and something written into parts of it, along some of its axes."""
    reached = {o for axes in maps[1:] for o in axes}
    return AxisFlow(maps, varying=frozenset(o for o in maps[0] if o is not None) - reached)


def _dynamic_update_slice(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    operand, update, *starts = shapes
    whole = tuple(a if update[a] == operand[a] else None for a in range(len(operand)))
    return _written((tuple(range(len(operand))), whole, *(() for _ in starts)))


def _leading(count: int) -> Callable[[Sequence[Shape], Shape, Params], AxisFlow]:
    """Linear algebra: batched over all but the last axes of the first operand."""

    def rule(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
        batch = len(shapes[0]) - count
        return AxisFlow(
            tuple(tuple(a if a < batch else None for a in range(len(shape))) for shape in shapes)
        )

    return rule


def _triangular_solve(shapes: Sequence[Shape], out: Shape, params: Params) -> AxisFlow:
    """Batched, and one system for each column (or row) of the right-hand side."""
    matrix, sides = shapes
    batch = tuple(range(len(matrix) - 2))
    free = len(sides) - 1 if params["left_side"] else len(sides) - 2
    along = (None, free) if params["left_side"] else (free, None)
    return AxisFlow(((*batch, None, None), (*batch, *along)))


RULES: dict[str, Callable[[Sequence[Shape], Shape, Params], AxisFlow | None]] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "pad": _pad,
    "gather": _gather,
    "dot_general": _dot_general,
    "concatenate": _along_one_axis("dimension"),
    "stack": _stack,
    "unstack": _unstack,
    "tile": _tile,
    "split": _along_one_axis("axis"),
    "rev": _along_one_axis("dimensions"),
    "sort": _along_one_axis("dimension"),
    "cumsum": _along_one_axis("axis"),
    "cumprod": _along_one_axis("axis"),
    "cummax": _along_one_axis("axis"),
    "cummin": _along_one_axis("axis"),
    "cumlogsumexp": _along_one_axis("axis"),
    "reduce_sum": _reduce,
    "reduce_prod": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "reduce_and": _reduce,
    "reduce_or": _reduce,
    "reduce_xor": _reduce,
    "argmax": _reduce,
    "argmin": _reduce,
    "scatter": _scatter,
    "scatter-add": _scatter,
    "scatter-mul": _scatter,
    "scatter-min": _scatter,
    "scatter-max": _scatter,
    "dynamic_update_slice": _dynamic_update_slice,
    "cholesky": _leading(2),
    "lu": _leading(2),
    "eigh": _leading(2),
    "svd": _leading(2),
    "qr": _leading(2),
    "householder_product": _leading(2),
    "lu_pivots_to_permutation": _leading(1),
    "triangular_solve": _triangular_solve,
}
