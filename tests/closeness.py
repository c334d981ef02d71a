"""How close results must be: half of the digits of their type, and means within their standard error."""

from typing import Any

import numpy as np


def assert_same(actual: Any, expected: Any) -> None:
    """Equal up to the rounding of a different order of operations."""
    actual = np.asarray(actual)
    tolerance = float(np.sqrt(np.finfo(actual.dtype).eps))
    np.testing.assert_allclose(actual, np.asarray(expected), rtol=tolerance, atol=tolerance)


def assert_mean(draws: Any, expected: Any) -> None:
    """The mean of independent draws, within five standard errors (or rounding, where nothing is drawn)."""
    draws, expected = np.asarray(draws), np.asarray(expected)
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    rounding = np.sqrt(np.finfo(draws.dtype).eps) * (1 + np.abs(expected))
    assert (np.abs(draws.mean(axis=0) - expected) < 5 * error + rounding).all()
