"""What a program computes from small known arrays, computed while it is traced, in NumPy.

A discrete variable enters an evaluation with its whole support, and a model's tables and data are often numbers too.
What depends on nothing else is known before anything is compiled: index arithmetic, the logarithms of constant
tables, their checks. Left in the program it would be traced, compiled and run, a small step for every site; here it
costs a few microseconds each. Arrays that are large are left to the compiled program.

Operands have their own axes first, then one for each of the variables (see `evaluate`); parameters of primitives that
spell axes or sizes are completed for those by `with_variables`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

LARGEST = 4096
"""Elements; more is left to the compiled program."""

Params = Mapping[str, Any]


def is_known(array: Any) -> bool:
    """Whether it is a small array of numbers or truth values whose content is known now."""
    if isinstance(array, Tracer) or not isinstance(array, np.ndarray | np.generic | jax.Array):
        return False
    if array.size > LARGEST or str(array.dtype) not in _TYPES:
        return False
    if isinstance(array, jax.Array):
        return array.is_fully_addressable and len(array.devices()) == 1
    return True


def known(array: Any) -> Any:
    """What is known of it, as NumPy's; None if nothing is.

    A known scalar that is a literal of the program is one of NumPy's scalars; one that comes from an array is an array
    of rank zero, see `operand`.
    """
    if not is_known(array):
        return None
    return np.asarray(array) if isinstance(array, jax.Array) else array


_TYPES = frozenset("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64".split())


def operand(array: Any) -> Any:
    """A known array as an operand of a traced primitive.

    A scalar that comes from data is no literal of the program, which would be another one for other data.
    """
    if isinstance(array, np.ndarray) and not array.ndim:
        with jax.ensure_compile_time_eval():
            return jax.device_put(array)
    return array


def fold(name: str, params: Params, operands: Sequence[Any], dtype: Any) -> Any:
    """The result of a primitive on known operands, or None where there is no rule for it.

    Parameters
    ----------
    name : str
        Of the primitive, which has one output.
    params : mapping
        Its parameters, with the variables' axes.
    operands : sequence of arrays
        Known, of shapes that broadcast if it is elementwise.
    dtype : dtype
        Of the result.
    """
    rule = _RULES.get(name)
    if rule is None or str(dtype) not in _TYPES:
        return None
    with np.errstate(all="ignore"):
        result = rule(params, *operands)
    if result is None:
        return None
    if all(isinstance(x, np.generic) for x in operands) and not np.ndim(result):
        return np.dtype(dtype).type(result)
    return np.asarray(result, dtype)


def with_variables(name: str, params: Params, sizes: Sequence[int]) -> dict[str, Any] | None:
    """Parameters of a primitive whose operands have axes of these sizes after their own, and so its result.

    None where it does not take such axes along unchanged.
    """
    complete = _COMPLETED.get(name)
    return None if complete is None else {**params, **complete(params, tuple(sizes))}


def _as_it_is(params: Params, sizes: tuple[int, ...]) -> Params:
    return {}


def _broadcast(params: Params, sizes: tuple[int, ...]) -> Params:
    rank = len(params["shape"])
    dims = (*params["broadcast_dimensions"], *range(rank, rank + len(sizes)))
    return {"shape": (*params["shape"], *sizes), "broadcast_dimensions": dims}


def _sliced(params: Params, sizes: tuple[int, ...]) -> Params:
    strides = params["strides"]
    return {
        "start_indices": (*params["start_indices"], *(0 for _ in sizes)),
        "limit_indices": (*params["limit_indices"], *sizes),
        "strides": None if strides is None else (*strides, *(1 for _ in sizes)),
    }


def _transposed(params: Params, sizes: tuple[int, ...]) -> Params:
    rank = len(params["permutation"])
    return {"permutation": (*params["permutation"], *range(rank, rank + len(sizes)))}


_COMPLETED: dict[str, Callable[[Params, tuple[int, ...]], Params]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": lambda params, sizes: {"new_sizes": (*params["new_sizes"], *sizes)},
    "slice": _sliced,
    "transpose": _transposed,
    **dict.fromkeys(
        """
        squeeze rev concatenate reduce_sum reduce_prod reduce_max reduce_min reduce_and reduce_or reduce_xor
        argmax argmin cumsum cumprod cummax cummin cumlogsumexp
        """.split(),
        _as_it_is,
    ),
}


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, *operands: function(*operands)


def _of_floats(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of whole numbers the primitive does something else, or what depends on the device."""

    def rule(params: Params, *operands: Any) -> Any:
        return function(*operands) if all(x.dtype.kind == "f" for x in operands) else None

    return rule


def _rem(a: Any, b: Any) -> Any:
    return np.fmod(a, b) if np.all(b) else None  # with the sign of the first, as in JAX


def _select(params: Params, which: Any, *cases: Any) -> Any:
    return np.choose(np.asarray(which, int), cases)


def _converted(params: Params, array: Any) -> Any:
    dtype = np.dtype(params["new_dtype"])
    # What a device makes of a number that does not fit is its own affair.
    if array.dtype.kind == "f" and dtype.kind in "iu":
        return None
    return array.astype(dtype)


def _broadcast_in_dim(params: Params, array: Any, *dynamic: Any) -> Any:
    own = [1] * len(params["shape"])
    for axis, to in enumerate(params["broadcast_dimensions"]):
        own[to] = array.shape[axis]
    return np.broadcast_to(array.reshape(own), params["shape"])


def _slice(params: Params, array: Any) -> Any:
    strides = params["strides"] or (1,) * array.ndim
    cuts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return array[tuple(slice(*cut) for cut in cuts)]


def _concatenate(params: Params, *arrays: Any) -> Any:
    return np.concatenate(arrays, axis=params["dimension"])


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(params: Params, array: Any) -> Any:
        return function(array, axis=tuple(params["axes"]))

    return rule


def _sum(params: Params, array: Any) -> Any:
    return np.sum(array, axis=tuple(params["axes"]), dtype=array.dtype)


def _cumulated(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(params: Params, array: Any) -> Any:
        turned = np.flip(array, params["axis"]) if params["reverse"] else array
        made = function(turned, axis=params["axis"], dtype=array.dtype)
        return np.flip(made, params["axis"]) if params["reverse"] else made

    return rule


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


_RULES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "clamp": _elementwise(lambda low, x, high: np.minimum(np.maximum(x, low), high)),
    "concatenate": _concatenate,
    "convert_element_type": _converted,
    "cumsum": _cumulated(np.cumsum),
    "reduce_and": _reduced(np.bitwise_and.reduce),
    "reduce_max": _reduced(np.max),
    "reduce_min": _reduced(np.min),
    "reduce_or": _reduced(np.bitwise_or.reduce),
    "reduce_sum": _sum,
    "reshape": lambda params, array: array.reshape(params["new_sizes"]),
    "rev": lambda params, array: np.flip(array, params["dimensions"]),
    "select_n": _select,
    "slice": _slice,
    "squeeze": lambda params, array: array.squeeze(tuple(params["dimensions"])),
    "transpose": lambda params, array: array.transpose(params["permutation"]),
    **{
        name: _elementwise(function)
        for name, function in {
            "abs": np.abs,
            "add": np.add,
            "and": np.bitwise_and,
            "copy": np.asarray,
            "copy_p": np.asarray,
            "eq": np.equal,
            "ge": np.greater_equal,
            "gt": np.greater,
            "is_finite": np.isfinite,
            "le": np.less_equal,
            "lt": np.less,
            "max": np.maximum,
            "min": np.minimum,
            "mul": np.multiply,
            "ne": np.not_equal,
            "neg": np.negative,
            "not": np.invert,
            "or": np.bitwise_or,
            "rem": _rem,
            "sign": lambda x: np.where(x == 0, x, np.sign(x)),  # zero keeps its own
            "square": np.square,
            "stop_gradient": np.asarray,
            "sub": np.subtract,
            "xor": np.bitwise_xor,
        }.items()
    },
    **{
        name: _of_floats(function)
        for name, function in {
            "ceil": np.ceil,
            "div": np.divide,
            "exp": np.exp,
            "expm1": np.expm1,
            "floor": np.floor,
            "log": np.log,
            "log1p": np.log1p,
            "logistic": _logistic,
            "sqrt": np.sqrt,
            "tanh": np.tanh,
        }.items()
    },
    "integer_pow": lambda params, x: np.power(x, params["y"]) if x.dtype.kind == "f" else None,
}


def fold_gather(
    params: Params, array: Any, index: Any, out_shape: Sequence[int], variables: int
) -> np.ndarray | None:
    """A gather from a known array by known indices; both have axes for all the variables.

    Parameters
    ----------
    params : mapping
        Of the gather, for the own axes.
    array, index : array
        Own axes, then those of the variables, of size one where an array does not depend on them.
    out_shape : sequence of int
        Own axes of the result.
    variables : int
        How many axes of variables there are.
    """
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    offset = tuple(numbers.offset_dims)
    batch = [o for o in range(len(out_shape)) if o not in offset]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    windows = dict(zip([a for a in range(len(sizes)) if a not in gone], offset, strict=True))
    rank = len(out_shape) + variables
    ends = np.broadcast_shapes(array.shape[len(sizes) :], index.shape[index.ndim - variables :])
    if math.prod((*out_shape, *ends)) > LARGEST:
        return None

    def along(values: Any, axes: Sequence[int]) -> np.ndarray:
        """Values on some axes of the result, of those of the variables all that they have."""
        shape = [1] * rank
        for axis, size in zip(axes, values.shape, strict=True):
            shape[axis] = size
        return values.reshape(shape)

    own = index.ndim - variables - 1
    last = range(len(out_shape), rank)
    starts = {
        axis: along(np.take(index, c, own), (*batch, *last))
        for c, axis in enumerate(numbers.start_index_map)
    }
    batching = dict(
        zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    )
    places: list[Any] = []
    outside: Any = False
    for axis, size in enumerate(sizes):
        at: Any = np.zeros((1,) * rank, int)
        if axis in starts:
            start, most = starts[axis].astype(int), array.shape[axis] - size
            outside = outside | (start < 0) | (start > most)
            at = np.clip(start, 0, most)
        if axis in batching:
            at = along(np.arange(array.shape[axis]), [batch[batching[axis]]])
        if axis in windows:
            at = at + along(np.arange(size), [windows[axis]])
        places.append(at)
    for k, size in enumerate(array.shape[len(sizes) :]):
        places.append(along(np.arange(size), [len(out_shape) + k]))
    found = np.broadcast_to(array[tuple(places)], (*out_shape, *ends))
    if "FILL" not in str(params["mode"]):
        return found
    return np.where(outside, _fill(array.dtype, params.get("fill_value")), found)


def _fill(dtype: np.dtype, value: Any) -> Any:
    """What a gather gives where its indices are outside of the array."""
    if value is not None:
        return np.asarray(value, dtype)
    if dtype.kind == "f":
        return np.asarray(np.nan, dtype)
    if dtype.kind == "b":
        return np.asarray(True)
    info = np.iinfo(dtype)
    return np.asarray(info.min if dtype.kind == "i" else info.max, dtype)
