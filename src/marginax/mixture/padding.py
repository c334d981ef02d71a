"""Tables filled up to a few sizes, so that tables of about the same size need no program of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from marginax.mixture.model import Rows

PER_DOUBLING = 8
"""Sizes from one power of two to the next: at most an eighth of a table is filled up."""
PATTERNS = 8
"""Numbers of patterns of missing cells are rounded up to powers of it, or to as many as there can be."""


def size_of(count: int) -> int:
    """What a number of rows is rounded up to."""
    step = max((1 << (count - 1).bit_length()) // (2 * PER_DOUBLING), 1)
    return -(-count // step) * step


def numbers_of_patterns(size: int, columns: int) -> list[int]:
    """What the number of patterns among so many rows is rounded up to, in order."""
    most, found = min(2**columns, size), [1]
    while found[-1] < most:
        found.append(min(PATTERNS * found[-1], most))
    return found


def padded(rows: Rows, size: int) -> Rows:
    """With more rows, like the first; of a chain each of them is a series of its own."""
    count = len(rows.cells)
    more = size - count

    def longer(part: Any, value: Any = None) -> Any:
        if part is None or not more:
            return part
        fill = np.repeat(part[:1], more, 0) if value is None else np.full(more, value)
        return np.concatenate([part, fill])

    patterns = rows.patterns
    if patterns is not None:
        columns = patterns.shape[1]
        number = next(n for n in numbers_of_patterns(size, columns) if n >= len(patterns))
        patterns = np.concatenate([patterns, np.ones((number - len(patterns), columns), bool)])
    return Rows(
        longer(rows.cells),
        longer(rows.observed),
        patterns,
        longer(rows.pattern),
        longer(rows.begins, True),
        longer(rows.is_real, False),
    )


def filled_up(rows: Rows) -> Rows:
    """With rows that are not real, up to one of the sizes."""
    count = len(rows.cells)
    return padded(rows._replace(is_real=np.ones(count, bool)), size_of(count))
