"""Index arithmetic done while tracing, and indexing as the renaming of an axis.

A discrete variable enters with its whole support, which is known while tracing; so is what JAX
computes of it before it indexes an array with it (wrapping negative indices, checking bounds). That
arithmetic is done in NumPy, at once (`fold`).

What it leaves is often the plainest index of all. ``locs[z]`` with z running over 0, 1, ..., K-1 asks
for every row of ``locs`` in order: nothing needs to be gathered, the axis of rows merely gets the
name of the variable. ``table[a, b]`` renames two axes. `gather_as_renaming` recognises this. A gather
is slow, and its derivative, a scatter, slower; a specialist who writes a mixture by hand has neither.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

LARGEST_FOLDED = 4096
"""Elements; more is left to the compiled program."""


def is_known(array: Any, largest: int = LARGEST_FOLDED) -> bool:
    """Whether an operand is a small array of whole numbers or truth values that is known now."""
    kind = getattr(getattr(array, "dtype", None), "kind", None)
    return (
        isinstance(array, np.ndarray | np.generic)
        and kind is not None
        and kind in "iub"
        and array.size <= largest
    )


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "and": np.bitwise_and,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "not": np.invert,
    "or": np.bitwise_or,
    "rem": np.fmod,  # with the sign of the first, as in JAX
    "sub": np.subtract,
    "select_n": lambda which, *cases: np.choose(np.asarray(which, int), cases),
}


def fold_elementwise(
    primitive: str,
    params: Mapping[str, Any],
    operands: Sequence[Any],
    largest: int = LARGEST_FOLDED,
) -> np.ndarray | None:
    """The result of an elementwise primitive on known operands of one shape, or None."""
    if not all(is_known(operand, largest) for operand in operands):
        return None
    if primitive == "convert_element_type":
        dtype = np.dtype(params["new_dtype"])
        return operands[0].astype(dtype) if dtype.kind in "iub" else None
    if primitive not in _ELEMENTWISE or (primitive == "rem" and not np.all(operands[1])):
        return None
    return np.asarray(_ELEMENTWISE[primitive](*operands))


def gather_as_renaming(
    params: Mapping[str, Any],
    operand_shape: Sequence[int],
    index: np.ndarray,
    index_variables: Sequence[Hashable],
) -> dict[Hashable, int] | None:
    """The operand's axes that a gather merely renames, by the variable that gives the name.

    Parameters
    ----------
    params : mapping
        Of the gather.
    operand_shape : sequence of int
        The operand's own axes.
    index : array
        Known indices: own axes (of size one, but for the last, the index vector), then one axis
        for each of ``index_variables``.
    index_variables : sequence of hashables
        Their names.

    Returns
    -------
    dict or None
        None where an index is anything but a variable's values 0, 1, ... over a whole axis.
    """
    numbers = params["dimension_numbers"]
    indexed = tuple(numbers.start_index_map)
    own = index.shape[: index.ndim - len(index_variables)]
    whole = {
        axis
        for axis in range(len(operand_shape))
        if axis not in indexed and axis not in numbers.operand_batching_dims
    }
    if (
        set(numbers.collapsed_slice_dims) != set(indexed)
        or any(params["slice_sizes"][axis] != operand_shape[axis] for axis in whole)
        or any(size != 1 for size in own[:-1])
        or len(indexed) != len(index_variables)
    ):
        return None
    renamed: dict[Hashable, int] = {}
    flat = index.reshape(own[-1], *index.shape[len(own) :])
    for component, axis in enumerate(indexed):
        for v, name in enumerate(index_variables):
            values = np.arange(flat.shape[1 + v])
            along = values.reshape([-1 if u == v else 1 for u in range(len(index_variables))])
            same = len(values) == operand_shape[axis] and (flat[component] == along).all()
            # An axis of one element runs along every variable of one value: take each once.
            if same and name not in renamed:
                renamed[name] = axis
                break
        else:
            return None
    return renamed


def slice_as_renaming(
    slice_sizes: Sequence[int],
    operand_shape: Sequence[int],
    starts: Sequence[np.ndarray | np.generic | None],
    variables: Sequence[Sequence[Hashable]],
) -> dict[Hashable, int] | None:
    """The same of a dynamic slice, which is what indexing by one scalar is.

    Parameters
    ----------
    slice_sizes, operand_shape : sequence of int
        Of the slice and the operand's own axes.
    starts : sequence of arrays
        For each axis where the slice starts, over the variables that this depends on; None where it is not known.
    variables : sequence of sequences of hashables
        Their names.
    """
    renamed: dict[Hashable, int] = {}
    for axis, (size, whole) in enumerate(zip(slice_sizes, operand_shape, strict=True)):
        if size == whole and not variables[axis]:
            continue  # there is but one place to start
        start, names = starts[axis], variables[axis]
        is_whole = start is not None and len(names) == 1 and np.array_equal(start, np.arange(whole))
        if size != 1 or not is_whole or names[0] in renamed:
            return None
        renamed[names[0]] = axis
    return renamed or None
