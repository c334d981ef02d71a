"""Summaries of draws: effective sample size, R-hat and intervals are ArviZ's (imported when asked for)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def summary_table(draws: Mapping[str, Any], prob: float = 0.9) -> dict[str, dict[str, float]]:
    """Mean, standard deviation, interval, effective sample sizes and R-hat of every scalar.

    Parameters
    ----------
    draws : mapping of array, shape (num_chains, num_draws, *site_shape)
        By site name.
    prob : float
        Probability of the highest-density interval.

    Returns
    -------
    dict of dict
        For each scalar (``"locs[0]"``) its statistics by name. R-hat is NaN for one chain, or
        where no chain moves.
    """
    from arviz_stats.base.array import array_stats as stats

    array_stats: Any = stats
    rows = {}
    for name, value in draws.items():
        array = np.asarray(value, dtype=np.float64)
        axes = {"chain_axis": 0, "draw_axis": 1}
        count = array.shape[0] * array.shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):  # draws that never move have no R-hat
            columns = {
                "mean": array.mean((0, 1)),
                "std": array.std((0, 1), ddof=1) if count > 1 else np.full(array.shape[2:], np.nan),
                f"{50 * (1 - prob):.1f}%": array_stats.hdi(array, prob, axis=(0, 1))[..., 0],
                f"{50 * (1 + prob):.1f}%": array_stats.hdi(array, prob, axis=(0, 1))[..., 1],
                "ess_bulk": array_stats.ess(array, method="bulk", **axes),
                "ess_tail": array_stats.ess(array, method="tail", prob=(0.05, 0.95), **axes),
                "r_hat": array_stats.rhat(array, **axes),
            }
        for index in np.ndindex(array.shape[2:]):
            label = f"{name}[{','.join(map(str, index))}]" if index else name
            rows[label] = {column: float(np.asarray(v)[index]) for column, v in columns.items()}
    return rows


def print_table(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of statistics, a row a scalar."""
    if not rows:
        print("no draws")
        return
    columns = list(next(iter(rows.values())))
    width = max(len(label) for label in rows)
    print(" " * width, *(f"{column:>9}" for column in columns))
    for label, row in rows.items():
        print(f"{label:<{width}}", *(f"{row[column]:>9.2f}" for column in columns))
