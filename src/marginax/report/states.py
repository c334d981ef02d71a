"""Of a hidden Markov model: the path of states beneath the series, and how states follow each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from marginax.mixture.model import TRANSITIONS
from marginax.pages import DARK, drawn
from marginax.report.drawing import (
    GREY,
    WIDTH,
    chip,
    colour,
    drawable,
    headed,
    legend,
    panels,
    tidy,
)
from marginax.report.facts import Facts
from marginax.report.overview import SHARE, estimate
from marginax.report.text import counted, paragraph, wide, without_table

MOST_STEPS = 2000
MOST_COLUMNS = 4
MOST_CELLS = 15
"""States of which the heat map has numbers."""


def path(facts: Facts) -> list[str]:
    """The series, and below it the states."""
    if facts.cells is None or facts.membership is None or facts.states is None:
        return [without_table("the path of states")]
    steps = min(len(facts.cells), MOST_STEPS)
    columns = range(min(len(facts.names), MOST_COLUMNS))
    heights = [1.6] * len(columns) + [0.45, 1.2]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.6), layout="constrained")
    plots = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    *series, strip, shares = plots
    for j, axes in zip(columns, series, strict=True):
        _series(axes, facts, j, steps)
    colours = ListedColormap([colour(k) for k in range(facts.count)])
    image = facts.states[None, :steps]
    strip.imshow(
        image,
        aspect="auto",
        cmap=colours,
        vmin=-0.5,
        vmax=facts.count - 0.5,
        interpolation="nearest",
        extent=(-0.5, steps - 0.5, 0, 1),
    )
    strip.set_yticks([])
    tidy(strip)
    strip.grid(False)
    headed(strip, "most probable path" if not facts.has_posterior else "most probable state")
    shares.stackplot(
        np.arange(steps),
        facts.membership.probabilities[:steps].T,
        colors=[colour(k) for k in range(facts.count)],
        linewidth=0,
    )
    tidy(shares)
    shares.grid(False)
    shares.set_ylim(0, 1)
    shares.set_xlim(-0.5, steps - 0.5)
    headed(shares, "probability of each state")
    shares.set_xlabel("step (row of the table, from 0)")
    for start in np.cumsum(facts.lengths)[:-1]:
        if start < steps:
            for axes in plots:
                axes.axvline(start - 0.5, color=DARK, linewidth=1.2)
    for k in range(facts.count):
        series[0].plot([], [], "o", color=colour(k), markersize=5, label=f"state {k}")
    legend(figure, series[0])
    return [
        paragraph(*_said(facts, steps)),
        drawn(figure, f"{counted(steps, 'step')}, and their states.", "png"),
        wide(("", "steps", "stays", "mean length of a stay"), _stays(facts)),
    ]


def _said(facts: Facts, steps: int) -> list[str]:
    said = [
        "Above, the series, each step in the colour of its state; below, the states. The lowest plot tells how sure "
        "each step's state is, given the whole series: where one colour fills it, there is no doubt."
    ]
    assert facts.cells is not None
    if steps < len(facts.cells):
        said.append(f"The first {steps:,} of {len(facts.cells):,} steps are shown.")
    if len(facts.names) > MOST_COLUMNS:
        said.append(f"The first {MOST_COLUMNS} of {len(facts.names)} columns are shown.")
    if len(facts.lengths) > 1:
        said.append("Vertical lines are where another series begins.")
    else:
        said.append(
            "The table is taken for one series; of several, give write_report their lengths."
        )
    return said


def _series(axes: Any, facts: Facts, column: int, steps: int) -> None:
    assert facts.cells is not None
    assert facts.states is not None
    values = facts.cells[:steps, column]
    at = np.arange(steps)
    if facts.kind(column) != "category":
        axes.plot(at, values, color=GREY, linewidth=0.6)
    size = 9 if steps < 600 else 4
    colours = np.array([colour(k) for k in range(facts.count)])[facts.states[:steps]]
    there = ~np.isnan(values)
    axes.scatter(at[there], values[there], size, colours[there], linewidths=0, zorder=2)
    categories = facts.estimator.categories_.get(column)
    if categories is not None and len(categories) <= 12:
        axes.set_yticks(range(len(categories)), [drawable(c, 14) for c in categories])
    tidy(axes)
    headed(axes, drawable(facts.names[column]))


def _stays(facts: Facts) -> list[tuple[Any, ...]]:
    """How often and how long the path stays in each state."""
    assert facts.states is not None
    begins = np.concatenate([[True], np.diff(facts.states) != 0])
    begins[np.cumsum(facts.lengths)[:-1]] = True
    rows = []
    for k in range(facts.count):
        own = facts.states == k
        steps, stays = int(own.sum()), int((own & begins).sum())
        mean = f"{steps / stays:.1f} steps" if stays else ""
        rows.append((chip(k, "state"), f"{steps:,}", f"{stays:,}", mean))
    return rows


def transitions(facts: Facts) -> list[str]:
    """Table and heat map."""
    draws = facts.values[TRANSITIONS]
    mean = draws.mean(0)
    figure, (axes,) = panels(1, height=0.55 * min(facts.count, 9) + 1.5, width=4.4)
    image = axes.imshow(mean, cmap="Blues", vmin=0, vmax=1)
    numbers = range(facts.count)
    axes.set_xticks(numbers)
    axes.set_yticks(numbers)
    axes.set_xlabel("to state")
    axes.set_ylabel("from state")
    axes.grid(False)
    if facts.count <= MOST_CELLS:
        for a in numbers:
            for b in numbers:
                shade = "white" if mean[a, b] > 0.6 else DARK
                axes.text(b, a, f"{mean[a, b]:.2f}", ha="center", va="center", color=shade, size=8)
    figure.colorbar(image, ax=axes, label="probability", shrink=0.8)
    said = [
        "From the state of a row (left) to that of the next (above): each row adds up to one. High numbers on the "
        "diagonal are states that last; a state that is left with probability p lasts 1 / p steps on average."
    ]
    if facts.has_posterior:
        said.append("Posterior means, with 90% intervals in the table.")
    rows = [(chip(a, "from state"), *(_cell(draws[:, a, b]) for b in numbers)) for a in numbers]
    return [
        paragraph(*said),
        wide(("", *(chip(b, "to") for b in numbers)), rows),
        drawn(figure, "Probabilities of the next state."),
    ]


def _cell(values: np.ndarray) -> str:
    shown, low_high = estimate(values, None if len(values) > 1 else SHARE)
    return f"{shown} ({low_high})" if low_high else shown
