"""Columns of a file as what a model takes: numbers, or categories.

The same for a fit and for predictions, so that a cell means the same to both: 007 is a category, or the number 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marginax.cli.common import Failure
from marginax.cli.layout import EMPTY, hint_about

Place = Callable[[int], str]
"""Where a row, counted from 0, stands in its file: ``"line 12"``."""


def numbers(
    column: Any, name: str, path: Path, place: Place, advice: str, decimal: str = "."
) -> np.ndarray:
    """A column of numbers, shape (rows,), NaN where a cell is missing; truth values are 0 and 1.

    Parameters
    ----------
    column : ChunkedArray
    name : str
    path : Path
        Of its file.
    place : callable
    advice : str
        What to do about a cell that is no number.
    decimal : str
        What stands before decimals in a text.

    Raises
    ------
    Failure
        For the first cell that is no number, or a column of some other kind.
    """
    import pyarrow as pa

    column = decoded(column)
    if is_text(column.type):
        column = _numbers_of_text(column, name, path, place, advice, decimal)
    elif not _has_numbers(column.type):
        raise Failure(f"{path}: column '{name}' has cells of type {column.type}. {advice}")
    return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)


def categories(column: Any, name: str, path: Path, known: Sequence[Any] = ()) -> np.ndarray:
    """A column of categories, shape (rows,), None where a cell is missing.

    Parameters
    ----------
    column : ChunkedArray
    name : str
    path : Path
        Of its file.
    known : sequence
        What a model knows, if there is one. A text is taken for the number or truth value that it writes, if the
        model knows these; and for a category, not a missing cell, if the model knows it.

    Raises
    ------
    Failure
        For a column of lists or structures, or if texts cannot tell the categories apart.
    """
    column = decoded(column)
    if not (is_text(column.type) or _has_numbers(column.type) or _is_time(column.type)):
        raise Failure(
            f"{path}: column '{name}' has cells of type {column.type}, which are no categories."
        )
    by_text: dict[str, Any] = {}
    for category in known:
        other = by_text.setdefault(str(category), category)
        if other is not category:
            raise Failure(
                f"column '{name}': the model knows {other!r} and {category!r}, which a file cannot tell apart."
            )
    return np.array([_category(cell, by_text) for cell in column.to_pylist()], object)


def decoded(column: Any) -> Any:
    """Arrow's dictionaries as the values that they stand for."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def is_text(kind: Any) -> bool:
    """Whether a type of Arrow is a text."""
    import pyarrow as pa

    types = pa.types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _has_numbers(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    return any(test(kind) for test in tests)


def _is_time(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_temporal(kind)


def _numbers_of_text(
    column: Any, name: str, path: Path, place: Place, advice: str, decimal: str
) -> Any:
    import pyarrow as pa
    import pyarrow.compute

    compute: Any = pyarrow.compute
    text = compute.utf8_trim_whitespace(column.cast(pa.string()))
    text = compute.if_else(compute.is_in(text, pa.array(EMPTY)), None, text)
    written = text
    if decimal != ".":
        # A point would be something else then; it must not become one.
        refused = compute.replace_substring(text, ".", "no number")
        written = compute.replace_substring(refused, decimal, ".")
    found = _cast(written, pa.float64())
    if found is None:
        found = _cast(written, pa.bool_())
    if found is not None:
        return found
    row = _first_that_is_none(written)
    cell = text[row].as_py()
    raise Failure(
        f"{path}: column '{name}' has words in it, such as {cell!r} in {place(row)}.{hint_about(cell)} {advice}"
    )


def _cast(text: Any, kind: Any) -> Any:
    """None: some cell is not of that kind."""
    import pyarrow as pa

    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        return None


def _first_that_is_none(text: Any) -> int:
    """The row of the first text that is no number, by halves."""
    import pyarrow as pa

    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        if _cast(text[low:middle], pa.float64()) is None:
            high = middle
        else:
            low = middle
    return low


def _category(cell: Any, by_text: dict[str, Any]) -> Any:
    """A cell as a category: a text, or what the model has in its place; None where it is missing."""
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if cell is None or (isinstance(cell, str) and cell.strip() in EMPTY and cell not in by_text):
        return None
    text = _written(cell)
    if text in by_text:
        return by_text[text]
    meant = by_text.get(_meant(text), text)
    return text if isinstance(meant, str) else meant  # 007 is no 7 where 7 is a word


def _written(cell: Any) -> str:
    from marginax.mixture.tables import plain

    return cell if isinstance(cell, str) else str(plain(cell))


def _meant(text: str) -> str:
    """How Python writes what a text means, if that is a number or a truth value: 1 for 1.0, True for true."""
    if text.lower() in ("true", "false"):
        return text.capitalize()
    try:
        return _written(float(text))
    except ValueError:
        return text
