"""How close two results of the same formula must be: half of the digits of their type."""

from typing import Any

import numpy as np


def assert_same(actual: Any, expected: Any) -> None:
    """Equal up to the rounding of a different order of operations."""
    actual = np.asarray(actual)
    tolerance = float(np.sqrt(np.finfo(actual.dtype).eps))
    np.testing.assert_allclose(actual, np.asarray(expected), rtol=tolerance, atol=tolerance)
