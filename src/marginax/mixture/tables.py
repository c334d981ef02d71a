"""Tables as people have them, as numbers: arrays, pandas and polars frames, words, missing cells.

A table becomes an array of float64 with NaN where a cell is missing; words and other categories become
their number among the categories that the fit has seen. What cannot be is refused with the column's name.

Nested lists are taken cell by cell. An array of texts that numpy has made of words and NaN together is refused where it
has a cell "nan", as nobody can tell any more whether that was a word.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SHOWN = 8
MADE_OF_NOTHING = ("nan", "None", "NaT", "<NA>")
"""What numpy writes for a missing cell in an array of texts."""
OTHER_KINDS = {
    "c": "complex numbers; give their parts as two columns",
    "M": "dates; give numbers, such as days since the first, or texts",
    "m": "durations; give numbers, such as seconds, or texts",
}


def is_frame(table: Any) -> bool:
    """Whether a table has named columns."""
    return hasattr(table, "columns") and hasattr(table, "__getitem__")


def column_names(table: Any) -> list[str]:
    """The names of a frame's columns, or x0, x1, ... of an array's."""
    if is_frame(table):
        return [str(name) for name in table.columns]
    shape = cell_by_cell(table).shape
    return [f"x{j}" for j in range(shape[1] if len(shape) == 2 else 0)]


def cell_by_cell(table: Any) -> np.ndarray:
    """A table that is no frame as an array; cells of lists stay what they are, where numpy would make texts of all."""
    table = without_masks(table)
    return np.array(table, object) if isinstance(table, list | tuple) else np.asarray(table)


def without_masks(table: Any) -> Any:
    """A table, or a part of one, in which masked cells are missing ones: NaN among numbers, otherwise None."""
    if isinstance(table, list | tuple):
        return [without_masks(part) for part in table] if _has_masks(table) else table
    if table is np.ma.masked:
        return None
    if isinstance(table, np.ma.MaskedArray) and table.dtype.names is None:
        cells, mask = table.data, np.ma.getmaskarray(table)
    elif isinstance(table, np.ndarray) and table.dtype == object:
        cells, mask = table, np.array([cell is np.ma.masked for cell in table.flat], bool)
        mask = mask.reshape(table.shape)
    else:
        return table
    if not mask.any():
        return cells
    is_number = cells.dtype.kind in "fiub"
    cells = np.array(cells, np.result_type(cells, np.float64) if is_number else object)
    cells[mask] = np.nan if is_number else None
    return cells


def _has_masks(rows: Any) -> bool:
    """Whether a nested list has anything masked in it; of most tables one look at each row says so."""
    return any(
        isinstance(part, np.ma.MaskedArray) or (isinstance(part, list | tuple) and _has_masks(part))
        for part in rows
    )


def column(table: Any, index: int) -> np.ndarray:
    """One column, as an array of whatever it holds."""
    if is_frame(table):
        return np.asarray(table[table.columns[index]])
    return cell_by_cell(table)[:, index]


def is_missing(cell: Any) -> bool:
    """Whether a cell stands for no value: None, NaN, pandas' NA and NaT, numpy's masked, an empty string."""
    if cell is None or cell is np.ma.masked or (isinstance(cell, str) and not cell.strip()):
        return True
    if isinstance(cell, np.ndarray):
        return False
    unequal = cell != cell  # NaN and NaT differ from themselves; NA does not say
    return (unequal is not False and not isinstance(unequal, bool | np.bool_)) or bool(unequal)


def has_words(table: Any) -> bool:
    """Whether a table has columns that are not numbers, so that the column at fault can be named: frames, and dates."""
    if not is_frame(table):
        return isinstance(table, np.ndarray) and table.dtype.kind in "Mm" and table.ndim == 2
    return any(column(table, j).dtype.kind not in "fiub" for j in range(len(table.columns)))


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
    _refuse_other_kinds(cells, name)
    if cells.dtype.kind in "fiub":
        return cells.astype(np.float64)
    found = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if is_missing(cell):
            continue
        try:
            if isinstance(cell, np.complexfloating):
                raise TypeError  # where numpy would drop half of it
            found[row] = float(cell)
        except (TypeError, ValueError):
            raise ValueError(
                f"column '{name}': its cell in row {row} is {cell!r}, which is no number. Leave the column out, "
                f"or make it categorical: components=[(..., 'categorical', ['{name}'])]."
            ) from None
    return found


def categories_of(cells: np.ndarray, name: str) -> tuple[Any, ...]:
    """The different values of a column, in order; words, numbers or truth values."""
    _refuse_other_kinds(cells, name)
    found = {category_key(cell): plain(cell) for cell in cells if not is_missing(cell)}
    if not found:
        raise ValueError(f"column '{name}': all its cells are missing.")
    return tuple(found[key] for key in sorted(found))


def as_codes(cells: np.ndarray, categories: Sequence[Any], name: str) -> np.ndarray:
    """A column of categories as their numbers, NaN where a cell is missing.

    Raises
    ------
    ValueError
        For a category that is not among them.
    """
    _refuse_other_kinds(cells, name)
    number = {category_key(category): float(code) for code, category in enumerate(categories)}
    found = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if is_missing(cell):
            continue
        code = number.get(category_key(cell))
        if code is None:
            raise ValueError(
                f"column '{name}': its cell in row {row} is {plain(cell)!r}, a category that the fit has not seen; it "
                f"knows {shortened(categories)}. Leave the cell empty to have it summed out."
            )
        found[row] = code
    return found


def category_key(category: Any) -> tuple[str, Any]:
    """What tells a category from others: 1 and 1.0 are the same; True, for Python 1 as well, and "1" are not."""
    value = plain(category)
    kind = "text" if isinstance(value, str) else "bool" if isinstance(value, bool) else "number"
    return kind, value


def _refuse_other_kinds(cells: np.ndarray, name: str) -> None:
    """Raise a ValueError for a column that is neither numbers nor categories, or was missing cells once."""
    kind = cells.dtype.kind
    if kind in OTHER_KINDS:
        raise ValueError(
            f"column '{name}': its cells are {OTHER_KINDS[kind]}, or leave the column out."
        )
    made = np.isin(cells, MADE_OF_NOTHING) if kind == "U" else np.zeros(0, bool)
    if made.any():
        row = int(np.argmax(made))
        raise ValueError(
            f"column '{name}': its cell in row {row} is the text {str(cells[row])!r}, which numpy makes of a missing "
            "cell when numbers and words are in one array. Give a frame, or np.array(rows, dtype=object)."
        )


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
