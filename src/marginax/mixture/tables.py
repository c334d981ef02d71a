"""Tables as people have them, as numbers: arrays, pandas and polars frames, words, missing cells.

A table becomes an array of float64 with NaN where a cell is missing; words and other categories become
their number among the categories that the fit has seen. What cannot be is refused with the column's name.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SHOWN = 8


def is_frame(table: Any) -> bool:
    """Whether a table has named columns."""
    return hasattr(table, "columns") and hasattr(table, "__getitem__")


def column_names(table: Any) -> list[str]:
    """The names of a frame's columns, or x0, x1, ... of an array's."""
    if is_frame(table):
        return [str(name) for name in table.columns]
    shape = np.asarray(table).shape
    return [f"x{j}" for j in range(shape[1] if len(shape) == 2 else 0)]


def column(table: Any, index: int) -> np.ndarray:
    """One column, as an array of whatever it holds."""
    if is_frame(table):
        return np.asarray(table[table.columns[index]])
    return np.asarray(table)[:, index]


def is_missing(cell: Any) -> bool:
    """Whether a cell stands for no value: None, NaN, pandas' NA and NaT, an empty string."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return True
    if isinstance(cell, np.ndarray):
        return False
    unequal = cell != cell  # NaN and NaT differ from themselves; NA does not say
    return (unequal is not False and not isinstance(unequal, bool | np.bool_)) or bool(unequal)


def has_words(table: Any) -> bool:
    """Whether a table is a frame with columns that are not numbers, so that the column at fault can be named."""
    return is_frame(table) and any(
        column(table, j).dtype.kind not in "fiub" for j in range(len(table.columns))
    )


def cells(table: Any, names: Sequence[str], categories: Mapping[int, Sequence[Any]]) -> np.ndarray:
    """A table as numbers, shape (rows, columns), NaN where a cell is missing.

    Parameters
    ----------
    table : array or frame
    names : sequence of str
        Of its columns.
    categories : mapping
        Of columns of categories, by number, what they are; cells become their numbers.

    Raises
    ------
    ValueError
        For a word that is no number, or a category that is not among them.
    """
    found = []
    for j, name in enumerate(names):
        values = column(table, j)
        is_numbers = j not in categories
        found.append(
            as_numbers(values, name) if is_numbers else as_codes(values, categories[j], name)
        )
    return np.stack(found, axis=1)


def as_numbers(cells: np.ndarray, name: str) -> np.ndarray:
    """A column of numbers, shape (rows,), NaN where a cell is missing.

    Raises
    ------
    ValueError
        When there is something else in it; the message has the first such cell.
    """
    if cells.dtype.kind in "fiub":
        return cells.astype(np.float64)
    found = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if is_missing(cell):
            continue
        try:
            found[row] = float(cell)
        except (TypeError, ValueError):
            raise ValueError(
                f"column '{name}': its cell in row {row} is {cell!r}, which is no number. Leave the column out, "
                f"or make it categorical: components=[(..., 'categorical', ['{name}'])]."
            ) from None
    return found


def categories_of(cells: np.ndarray, name: str) -> tuple[Any, ...]:
    """The different values of a column, in order; words, numbers or truth values."""
    found = {plain(cell) for cell in cells if not is_missing(cell)}
    if not found:
        raise ValueError(f"column '{name}': all its cells are missing.")
    return tuple(sorted(found, key=lambda value: (isinstance(value, str), value)))


def as_codes(cells: np.ndarray, categories: Sequence[Any], name: str) -> np.ndarray:
    """A column of categories as their numbers, NaN where a cell is missing.

    Raises
    ------
    ValueError
        For a category that is not among them.
    """
    number = {category: float(code) for code, category in enumerate(categories)}
    found = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if is_missing(cell):
            continue
        code = number.get(plain(cell))
        if code is None:
            raise ValueError(
                f"column '{name}': its cell in row {row} is {plain(cell)!r}, a category that the fit has not seen; it "
                f"knows {shortened(categories)}. Leave the cell empty to have it summed out."
            )
        found[row] = code
    return found


def plain(cell: Any) -> Any:
    """A category as JSON has it."""
    if isinstance(cell, str):
        return str(cell)
    if isinstance(cell, bool | np.bool_):
        return bool(cell)
    if isinstance(cell, numbers.Integral):
        return int(cell)
    if isinstance(cell, numbers.Real):
        number = float(cell)
        return int(number) if number.is_integer() else number
    return str(cell)


def shortened(values: Sequence[Any]) -> str:
    """Some values in a message."""
    shown = ", ".join(repr(value) for value in values[:SHOWN])
    return shown + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")


def frame_like(table: Any, columns: Mapping[str, np.ndarray]) -> Any:
    """New columns as a frame of the same library, with the same index where it has one."""
    kind = type(table).__module__.split(".")[0]
    if kind == "pandas":
        import pandas as pd

        return pd.DataFrame(dict(columns), index=table.index)
    if kind == "polars":
        import polars as pl

        return pl.DataFrame(dict(columns))
    raise TypeError(
        f"a frame is asked for, but the table is {type(table).__name__}, not a pandas or polars frame."
    )
