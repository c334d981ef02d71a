"""What a batch may be, and how it becomes the arguments of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from marginax.arrays.arguments import as_array
from marginax.arrays.masked import refuse_masked
from marginax.arrays.narrowing import check_narrowing

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
NO_NUMBERS = "OSUTMm"  # kinds of dtypes: objects, strings, dates, durations


def as_arguments(batch: Any) -> Arguments:
    """A batch as arguments of a model.

    Parameters
    ----------
    batch : array, tuple, list, mapping, Arrow table or data frame
        An array is one positional argument, the elements of a tuple or list are several; the values of
        a mapping and the columns of a table are keyword arguments by their names.

    Returns
    -------
    tuple, dict
        Positional and keyword arguments.

    Raises
    ------
    TypeError, ValueError
        When a column holds text or other things that are no numbers, or has missing values.

    Examples
    --------
    >>> import numpy as np
    >>> from marginax.infer.batches import as_arguments
    >>> as_arguments({"x": np.arange(3), "size": 3})
    ((), {'x': array([0, 1, 2]), 'size': 3})
    """
    if is_table(batch):
        names = batch.schema.names if is_arrow(batch) else list(batch.columns)
        return (), {_as_keyword(name): _column(batch, name) for name in names}
    if isinstance(batch, Mapping):
        named = {_as_keyword(n): _checked(f"entry {n!r}", v) for n, v in batch.items()}
        return (), named
    if isinstance(batch, tuple | list):
        return tuple(_checked(f"element {i}", v) for i, v in enumerate(batch)), {}
    if isinstance(batch, np.ndarray | jax.Array):
        return (_checked("array", batch),), {}
    raise TypeError(
        f"a batch must be an array, a tuple or dict of arrays, or a table, not {type(batch).__name__}."
    )


def rows(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many rows a batch has: the length of the first array among the arguments, 1 without any.

    Parameters
    ----------
    args, kwargs
        What `as_arguments` gives.
    """
    shapes = (np.shape(leaf) for leaf in jax.tree.leaves((tuple(args), dict(kwargs))))
    return next((shape[0] for shape in shapes if shape), 1)


def is_arrow(data: Any) -> bool:
    """Whether it is a Table or RecordBatch of pyarrow, which is not imported for that."""
    is_theirs = type(data).__module__ == "pyarrow.lib"
    return is_theirs and hasattr(data, "num_rows") and hasattr(data, "column")


def is_table(data: Any) -> bool:
    """Whether it has named columns: an Arrow table, or a data frame of pandas or polars."""
    is_frame = all(hasattr(data, name) for name in ("columns", "dtypes", "to_numpy"))
    return is_frame or is_arrow(data)


def _as_keyword(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"columns become keyword arguments, and the name {name!r} is not a string.")
    return name


def _column(table: Any, name: str) -> np.ndarray:
    if is_arrow(table):
        column = table.column(name)
        missing, values = column.null_count, column.to_numpy(zero_copy_only=False)
    else:
        column = table[name]
        missing = column.isna().sum() if hasattr(column, "isna") else column.null_count()
        values = column.to_numpy()
    if missing:
        raise ValueError(
            f"column '{name}' has {missing} missing values; drop those rows, or fill them in and pass which "
            "they were, for obs_mask."
        )
    return _checked(f"column '{name}'", values)


def _checked(what: str, value: Any) -> Any:
    """An array of numbers, or a plain value that every program made for such batches may take for granted."""
    value = as_array(value, what)
    if value is None or isinstance(value, bool | int | str | jax.Array):
        return value
    if isinstance(value, Mapping):
        return {name: _checked(f"{what}[{name!r}]", inner) for name, inner in value.items()}
    if not isinstance(value, list | tuple | float | np.ndarray | np.generic):
        raise TypeError(
            f"{what} of a batch is a {type(value).__name__}; it must be an array, a number, a string or None."
        )
    refuse_masked(f"{what} of a batch", value)
    array = np.asarray(value)
    if array.dtype.kind in NO_NUMBERS:
        raise TypeError(
            f"{what} of a batch holds no numbers but {array.dtype}; leave it out, or make it numbers first."
        )
    check_narrowing(f"{what} of a batch", array)
    return array
