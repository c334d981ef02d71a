"""Two columns at a time: points in the colours of their components, and ellipses of the components."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.patches import Ellipse

from marginax.mixture.families import Normal
from marginax.mixture.gaussian import Gaussian
from marginax.pages import DARK, drawn
from marginax.report.drawing import (
    WIDTH,
    colour,
    drawable,
    few,
    legend,
    line,
    panels,
    tidy,
)
from marginax.report.facts import Facts
from marginax.report.quantities import covariances, own_values
from marginax.report.text import counted, left_out, paragraph, without_table

MOST_COLUMNS = 5
MOST_POINTS = 3000


def section(facts: Facts) -> list[str]:
    """A scatter matrix, or the one pair that there is."""
    numbers = facts.columns("number")
    means, covariance, has_ellipse = _normal(facts)
    # Columns with ellipses first, in their order.
    columns = sorted(sorted(numbers, key=lambda j: not has_ellipse[j])[:MOST_COLUMNS])
    if len(columns) < 2:
        return [left_out("the table has fewer than two columns of numbers.")]
    if facts.cells is None and not has_ellipse[columns].sum() > 1:
        return [without_table("points")]
    rows = np.zeros(0, int) if facts.cells is None else few(len(facts.cells), MOST_POINTS)
    pairs = [(a, b) for n, b in enumerate(columns) for a in columns[:n]]
    if len(pairs) == 1:
        figure, grid = panels(1, height=4.6, width=6.4)
        plots = dict(zip(pairs, grid, strict=True))
    else:
        side = len(columns) - 1
        figure, grid = panels(side * side, side, WIDTH / side * 0.92)
        place = {(a, b): (columns.index(b) - 1) * side + columns.index(a) for a, b in pairs}
        for number, axes in enumerate(grid):
            axes.set_visible(number in place.values())
        plots = {pair: grid[n] for pair, n in place.items()}
    for (a, b), axes in plots.items():
        if facts.cells is not None:
            _points(axes, facts, rows, a, b)
        if has_ellipse[a] and has_ellipse[b]:
            for k in range(facts.count):
                own = np.ix_([a, b], [a, b])
                _ellipses(axes, k, means[k, [a, b]], covariance[k][own])
        is_lowest, is_first = b == columns[-1], a == columns[0]
        axes.set_xlabel(drawable(facts.names[a]) if is_lowest else "")
        axes.set_ylabel(drawable(facts.names[b]) if is_first else "")
        axes.set_xscale("log" if facts.needs_logarithms(a) else "linear")
        axes.set_yscale("log" if facts.needs_logarithms(b) else "linear")
        _limits(axes, facts, means, covariance, a, b)
        tidy(axes)
    first = next(iter(plots.values()))
    for k in range(facts.count):
        first.plot([], [], "o", color=colour(k), markersize=5, label=f"{facts.word} {k}")
    legend(figure, first)
    limit = ""
    if len(numbers) > MOST_COLUMNS:
        limit = f"{MOST_COLUMNS} of the {len(numbers)} columns of numbers are shown."
    said = _said(facts, has_ellipse[columns], len(rows))
    names = [facts.names[j] for j in columns]
    caption = f"{', '.join(names[:-1])} and {names[-1]}, two at a time. {limit}".strip()
    parts: list[str] = [paragraph(*said, limit), drawn(figure, caption, "png")]
    if facts.cells is None:
        parts.append(without_table("points"))
    return parts


def _said(facts: Facts, has_ellipse: np.ndarray, points: int) -> list[str]:
    said = []
    if facts.cells is not None:
        said.append(f"Each point is a row, in the colour of its most probable {facts.word}.")
        if points < len(facts.cells):
            said.append(f"Of {counted(len(facts.cells), 'row')} {points:,} are drawn, by chance.")
        if np.isnan(facts.cells).any():
            said.append("Rows with a missing cell are not in the plots of that column.")
    if has_ellipse.sum() > 1:
        said.append(
            f"Ellipses are where a {facts.word} is within one and within two standard deviations of its mean; of its "
            "rows some 39% and 86% lie inside. Where ellipses overlap, the two columns alone do not tell the "
            f"{facts.word}s apart."
        )
    else:
        said.append("Ellipses are drawn for pairs of normal columns, of which there is none here.")
    return said


def _normal(facts: Facts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means and covariances of all columns, and for which they are those of a normal distribution."""
    columns = len(facts.names)
    means = np.full((facts.count, columns), np.nan)
    covariance = np.zeros((facts.count, columns, columns))
    is_normal = np.zeros(columns, bool)
    for group in facts.design.groups:
        if isinstance(group.family, Gaussian | Normal):
            own = list(group.where)
            values = own_values(group, facts.values)
            means[:, own] = values["means"].mean(0)
            covariance[np.ix_(range(facts.count), own, own)] = covariances(group, values).mean(0)
            is_normal[own] = True
    return means, covariance, is_normal


def _points(axes: Any, facts: Facts, rows: np.ndarray, a: int, b: int) -> None:
    assert facts.cells is not None
    assert facts.states is not None
    x, y, of = facts.cells[rows, a], facts.cells[rows, b], facts.states[rows]
    size = 14 if len(rows) < 500 else 7
    colours = np.array([colour(k) for k in range(facts.count)])[of]
    there = ~np.isnan(x + y)
    axes.scatter(x[there], y[there], size, colours[there], alpha=0.55, linewidths=0)


def _ellipses(axes: Any, k: int, mean: np.ndarray, covariance: np.ndarray) -> None:
    lengths, directions = np.linalg.eigh(covariance)
    angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
    for deviations in (1, 2):
        height, width = 2 * deviations * np.sqrt(np.maximum(lengths, 0))
        axes.add_patch(
            Ellipse(
                (mean[0], mean[1]),
                width,
                height,
                angle=angle,
                fill=False,
                edgecolor=colour(k),
                linestyle=line(k),
                linewidth=1.8 if deviations == 1 else 1.1,
            )
        )
    axes.plot(*mean, "+", color=DARK, markersize=6)


def _limits(
    axes: Any, facts: Facts, means: np.ndarray, covariance: np.ndarray, a: int, b: int
) -> None:
    """The points decide what is shown; without them, the ellipses."""
    for column, setter in ((a, axes.set_xlim), (b, axes.set_ylim)):
        seen = facts.observed(column)
        if len(seen):
            low, high = float(seen.min()), float(seen.max())
        else:
            sd = np.sqrt(covariance[:, column, column])
            low = float((means[:, column] - 2 * sd).min())
            high = float((means[:, column] + 2 * sd).max())
        if facts.needs_logarithms(column):
            setter(low / 1.2, high * 1.2)
            continue
        width = (high - low) or 6 * float(facts.estimator.learned_.spread[column])
        setter(low - 0.07 * width, high + 0.07 * width)
