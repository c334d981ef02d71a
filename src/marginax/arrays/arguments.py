"""A model's arguments as it sees them: columns of numbers are arrays, whatever library they come from.

A variable that is summed out has no number while the model is traced. It can index a JAX array and be added
to one, but not to a list or to a column of a table. So these become arrays, by one rule for all that takes a
model: a column (anything of one library or another that offers ``__array__``) and a list of numbers. Tuples
stay tuples, for they hold sizes and shapes, and so do plain numbers, text and data frames.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.errors import ModelError

NUMERIC = "biufc"  # NumPy's kinds: booleans, integers, floats, complex numbers
DATES = "mM"


def argument_name(path: Any, model: Callable[..., Any] | None = None) -> str:
    """An argument by its path in (args, kwargs), and by its name where the model tells it."""
    kind, which, *inside = path
    name = str(which.idx + 1) if kind.idx == 0 else repr(which.key)
    if kind.idx == 0 and model is not None:
        with contextlib.suppress(TypeError, ValueError, IndexError):  # not all functions tell
            name = repr(list(inspect.signature(model).parameters)[which.idx])
    return f"{name}{jax.tree_util.keystr(tuple(inside))}"


def is_list_of_numbers(value: Any) -> bool:
    """Whether it is a list of numbers, or of such lists that are equally long."""
    if type(value) is not list or not value:
        return False
    if all(type(row) is list for row in value):
        same_length = len({len(row) for row in value}) == 1
        return same_length and all(is_list_of_numbers(row) for row in value)
    return all(
        isinstance(number, bool | int | float | np.number | np.bool_)
        or (
            isinstance(number, jax.Array)
            and jnp.issubdtype(number.dtype, np.number)
            and not number.ndim
        )
        for number in value
    )


def is_column(value: Any) -> bool:
    """Whether it is a column of a library of tables, or an array of another library."""
    is_known = isinstance(value, np.ndarray | np.generic | jax.Array | type)
    is_table = hasattr(value, "columns")
    is_lazy = getattr(value, "is_read_lazily", False)
    return hasattr(value, "__array__") and not (is_known or is_table or is_lazy)


def as_array(value: Any, name: str) -> Any:
    """A column or a list of numbers as an array; all else as it is.

    Parameters
    ----------
    value : Any
        An argument, or a part of one.
    name : str
        What it is called, for an error.

    Raises
    ------
    ModelError
        For a column of dates, and for one of whole numbers or booleans with missing values. Missing
        values among other numbers are NaN.
    """
    if is_list_of_numbers(value):
        leaves = jax.tree.leaves(value)
        array = (jnp if any(isinstance(leaf, jax.Array) for leaf in leaves) else np).asarray(value)
        return array if array.dtype.kind in NUMERIC or isinstance(array, jax.Array) else value
    if not is_column(value):
        return value
    kind = _kind(value)
    if kind in DATES:
        raise ModelError(
            f"the model's argument {name} holds dates or durations; pass numbers instead, such as the days since "
            "the first: (t - t.min()) / np.timedelta64(1, 'D')."
        )
    if kind not in NUMERIC:
        return value
    missing = _missing(value)
    if missing and kind != "f":
        what = "booleans" if kind == "b" else "whole numbers"
        raise ModelError(
            f"the model's argument {name} has {missing} missing values among its {what}, which have no NaN. Drop "
            "those rows; or fill them in, and pass which they were, for obs_mask=; or make it a column of floats."
        )
    array = np.asarray(value)
    if array.dtype.kind in NUMERIC:
        return array
    # pandas holds numbers beside missing ones as objects.
    whole = {"b": bool, "f": float}.get(kind, int)
    return value.to_numpy(dtype=whole, **({"na_value": np.nan} if kind == "f" else {}))


def _kind(column: Any) -> str:
    """What a column holds, as NumPy calls it; of one with missing values, what it would hold without."""
    dtype: Any = getattr(column, "dtype", None)
    return dtype.kind if hasattr(dtype, "kind") else np.asarray(column[:0]).dtype.kind


def _missing(column: Any) -> int:
    if hasattr(column, "isna"):  # pandas
        return int(np.sum(column.isna()))
    count: Any = getattr(column, "null_count", 0)
    if callable(count):  # polars has a method, Arrow a number
        count = count()
    return int(count)  # pyright: ignore[reportArgumentType]
