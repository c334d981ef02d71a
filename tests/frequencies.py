"""Do draws have the frequencies that they should have?"""

import numpy as np
from scipy import stats


def assert_frequencies(
    rows: np.ndarray, probabilities: np.ndarray, false_alarms: float = 1e-4
) -> None:
    """Chi-square: cells that expect fewer than five draws are counted as one."""
    counts = np.bincount(rows, minlength=len(probabilities))
    expected = len(rows) * probabilities / probabilities.sum()
    assert counts[expected == 0].sum() == 0
    large = expected >= 5
    counts = np.append(counts[large], counts[~large].sum())
    expected = np.append(expected[large], expected[~large].sum())
    if expected[-1] < 5:
        counts[-2] += counts[-1]
        expected[-2] += expected[-1]
        counts, expected = counts[:-1], expected[:-1]
    if len(counts) > 1:
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert statistic < stats.chi2.isf(false_alarms, len(counts) - 1)
