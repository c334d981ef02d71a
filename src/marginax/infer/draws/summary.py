"""Summaries of draws: effective sample size, R-hat and intervals are ArviZ's (imported when asked for)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

DISAGREE = 1.05
"""R-hat from which on chains do not agree; of many independent draws it is within 0.01 of one."""
LEAST_OF_R_HAT = 4
"""Draws of each chain that R-hat takes: two for each half."""
MANY = 100
"""Draws of each chain from which on chance is small beside the difference of chains that matters."""
FALSE_ALARMS = 1e-3
"""How often chains of a few independent draws may be said not to agree."""


def disagreement_from(chains: int, draws: int, scalars: int) -> float:
    """The R-hat from which on chains do not agree.

    Of a few draws it is large by chance: its square is a weighted average of one and the ratio of the variances between
    and within (half) chains, which of independent normal draws has an F distribution.

    Parameters
    ----------
    chains, draws : int
        How many chains, and draws of each.
    scalars : int
        How many are looked at; the largest R-hat of them counts.
    """
    if draws >= MANY:
        return DISAGREE
    from scipy.stats import f

    halves, each = 2 * chains, draws // 2
    # For each scalar there are two R-hats, of locations and of spreads.
    chance = FALSE_ALARMS / (2 * max(scalars, 1))
    ratio = float(f.isf(chance, halves - 1, halves * (each - 1)))
    return max(DISAGREE, ((each - 1 + ratio) / each) ** 0.5)


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
