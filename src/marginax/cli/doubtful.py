"""Columns of a table that are probably not meant to be fitted: what numbers the rows, and what never changes."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Any

import numpy as np

IDENTIFIERS = {"id", "index", "row", "unnamed: 0", "rowid", "row_id", "__index_level_0__"}
FEW = 10
"""Fewer rows than this are different by chance."""


def doubts(frame: Any) -> Iterator[str]:
    """Of each such column, what it looks like and what to do.

    Parameters
    ----------
    frame : pandas.DataFrame
        Numbers, and texts where they are categories.
    """
    for name in frame.columns:
        advice = f"leave it out with --drop {quote(name)}."
        known = frame[name].dropna()
        different = known.unique()
        if len(different) == 1 and len(frame) > 1:
            value = different[0] if isinstance(different[0], str) else f"{different[0]:g}"
            yield f"column '{name}' is {value} in every row, which says nothing of components; {advice}"
        elif len(different) == len(frame) and _numbers_rows(name, different):
            yield f"column '{name}' numbers the rows, or names them, it seems; if it says nothing else, {advice}"


def _numbers_rows(name: str, different: np.ndarray) -> bool:
    """Whether values that are all different are just names of rows."""
    if name.strip().lower() in IDENTIFIERS:
        return True
    if len(different) < FEW:
        return False
    if different.dtype == object:  # as many categories as rows
        return True
    is_whole = bool(np.all(different == np.floor(different)))
    return is_whole and different.max() - different.min() == len(different) - 1
