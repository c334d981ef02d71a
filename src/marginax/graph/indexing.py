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

from collections.abc import Callable, Mapping, Sequence
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


def fold_reshaping(
    primitive: str, params: Mapping[str, Any], operand: Any, variables: int
) -> np.ndarray | None:
    """The result of a primitive that only rearranges a known operand, or None.

    Parameters
    ----------
    primitive : str
        Its name.
    params : mapping
        Its parameters, for the operand's own axes.
    operand : array
        Its own axes, then ``variables`` axes of variables.
    variables : int
        How many.
    """
    if not is_known(operand):
        return None
    sizes = operand.shape[operand.ndim - variables :]
    if primitive == "broadcast_in_dim":
        shape = params["shape"]
        own = [1] * len(shape)
        for axis, to in enumerate(params["broadcast_dimensions"]):
            own[to] = operand.shape[axis]
        return np.broadcast_to(operand.reshape((*own, *sizes)), (*shape, *sizes))
    if primitive == "reshape":
        return operand.reshape((*params["new_sizes"], *sizes))
    if primitive == "squeeze":
        return operand.squeeze(tuple(params["dimensions"]))
    return None


def gather_as_renaming(
    params: Mapping[str, Any],
    operand_shape: Sequence[int],
    index: np.ndarray,
    index_variables: Sequence[str],
) -> dict[str, int] | None:
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
    index_variables : sequence of str
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
    renamed: dict[str, int] = {}
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
