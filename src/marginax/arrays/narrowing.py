"""What is lost when a user's numbers of 64 bits become numbers of 32 bits.

JAX computes in 32 bits unless it is told otherwise, and converts what it is given without a word. Whole
numbers that do not fit wrap around, and become other numbers; that is an error. Floating ones are
rounded to seven digits, which matters where their differences are small beside them: seconds since
1970 are then known to two minutes. That is a warning.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np

from marginax.errors import ModelError

_OF_SPREAD = 1e-3  # of the standard deviation: rounding beyond this shifts a density visibly
_OF_GAP = 0.1  # of the typical step from one row to the next
_LOOKED_AT = 2**15  # elements; rounding goes by magnitude, so that some of them tell
_RUN = 64  # consecutive rows that are looked at together

_DOUBLE = 'jax.config.update("jax_enable_x64", True)'


class PrecisionWarning(UserWarning):
    """Numbers lose digits that matter when they are rounded to single precision."""


def check_narrowing(what: str, value: Any) -> None:
    """Check what JAX will make of an array of NumPy's, or of a number.

    Parameters
    ----------
    what : str
        What it is, to be named at the start of a message.
    value : array or number
        Anything else passes.

    Raises
    ------
    ModelError
        When whole numbers, or floating ones, are too large for their 32-bit type.

    Warns
    -----
    PrecisionWarning
        When rounding is not small beside the differences between floating numbers.
    """
    if isinstance(value, bool) or not isinstance(value, np.ndarray | np.generic | int):
        return
    array = np.asarray(value)
    if array.dtype.kind not in "iufO" or array.size == 0:
        return
    if array.dtype.kind == "O":  # a number of Python's beyond 64 bits
        if isinstance(value, int):
            _refuse(what, value, np.dtype(jax.dtypes.canonicalize_dtype(np.int64)))
        return
    narrow = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))
    if narrow == array.dtype:
        return
    if array.dtype.kind in "iu":
        limits = np.iinfo(narrow)
        for extreme in (array.min(), array.max()):
            if not limits.min <= extreme <= limits.max:
                _refuse(what, extreme, narrow)
    else:
        check_rounding(what, array, narrow)


def check_rounding(what: str, array: np.ndarray, narrow: Any) -> None:
    """Check what rounding to a floating type does to an array of other numbers."""
    sample = _some(array).astype(np.float64)
    with np.errstate(over="ignore"):
        rounded = sample.astype(narrow).astype(np.float64)
    finite = np.isfinite(sample)
    beyond = finite & np.isinf(rounded)
    if beyond.any():
        _refuse(what, sample[beyond][0], np.dtype(narrow))
    sample, rounded = np.where(finite, sample, 0), np.where(finite, rounded, 0)
    error = np.abs(sample - rounded).max(axis=(0, 1))
    count = np.maximum(finite.sum(axis=(0, 1)), 1)
    with np.errstate(over="ignore"):
        distance = np.where(finite, sample - sample.sum(axis=(0, 1)) / count, 0)
        spread = np.sqrt((distance**2).sum(axis=(0, 1)) / count)
    steps = np.abs(np.diff(sample, axis=1))[finite[:, 1:] & finite[:, :-1]]
    steps = steps[steps > 0] if sample.shape[2] == 1 else steps[:0]
    gap = float(np.median(steps)) if len(steps) else np.inf
    varies = spread > 1e-12 * np.abs(sample).max(axis=(0, 1))
    lost = varies & ((error > _OF_SPREAD * spread) | (error > _OF_GAP * gap))
    if lost.any():
        column = int(np.argmax(lost))
        where = f" (column {column})" if len(lost) > 1 else ""
        warnings.warn(
            f"{what}{where}: its numbers are rounded by up to {error[column]:.2g} when they become "
            f"{np.dtype(narrow)}, which is much beside their standard deviation of {spread[column]:.3g} or the "
            "steps between them. Subtract a constant, their mean perhaps, before they are given to the model, or "
            f"compute with more digits: {_DOUBLE}.",
            PrecisionWarning,
            stacklevel=2,
        )


def _some(array: np.ndarray) -> np.ndarray:
    """Runs of consecutive rows, shape (runs, rows, columns): all of a small array, some of a large one."""
    rows = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(-1, 1)
    rows = rows[:, :: -(-rows.shape[1] // 512)]
    runs = max(_LOOKED_AT // (_RUN * rows.shape[1]), 1)
    if len(rows) <= runs * _RUN:
        return rows[None]
    starts = np.linspace(0, len(rows) - _RUN, runs).astype(int)
    return rows[starts[:, None] + np.arange(_RUN)]


def _refuse(what: str, number: Any, narrow: np.dtype) -> None:
    limit = (np.iinfo if narrow.kind in "iu" else np.finfo)(narrow).max
    raise ModelError(
        f"{what}: it has the number {number}, which does not fit into {narrow}, the type that JAX makes of it "
        f"(the largest is {limit}).",
        advice=(
            f"Compute with 64 bits, {_DOUBLE}; or, where it is no index, give it as a floating number or subtract "
            "a constant."
        ),
    )
