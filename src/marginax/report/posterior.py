"""The posterior of each parameter, component by component."""

from __future__ import annotations

from typing import Any

import numpy as np

from marginax.pages import drawn
from marginax.report.drawing import colour, headed, legend, line, panels
from marginax.report.facts import Facts
from marginax.report.quantities import Quantity, outside, quantities
from marginax.report.text import left_out, paragraph

MOST_PANELS = 24
MOST_POINTS = 120


def section(facts: Facts) -> list[str]:
    """A density for each parameter and component."""
    if not facts.has_posterior:
        return [
            left_out(
                "this is a point estimate, which has no posterior. Fit with the method 'vi' (seconds) or "
                "'nuts', or go on from the model file with marginax posterior."
            )
        ]
    everything = [*outside(facts), *quantities(facts)]
    if facts.count == 1:  # of one component the weight is one
        everything = quantities(facts)
    shown = everything[:MOST_PANELS]
    figure, plots = panels(len(shown), across=min(3, len(shown)), height=1.9)
    for axes, quantity in zip(plots, shown, strict=True):
        _draw(axes, facts, quantity)
    legend(figure, plots[0])
    limit = ""
    if len(everything) > len(shown):
        limit = (
            f"The first {len(shown)} of {len(everything)} are shown; estimator.posterior_ has all."
        )
    if facts.estimator.fit_.relabelled:
        said = (
            "Components have no numbers of their own, and a sampler may exchange them on its way. Draws were therefore "
            f"renumbered so that each {facts.word} is the same in all of them: {facts.estimator.fit_.relabelled}"
        )
    elif facts.count == 1:
        said = ""
    else:
        said = (
            f"All draws are near one optimum, and so each {facts.word} is the same in all of them."
        )
    return [
        paragraph(
            "What the table says about each parameter: the higher a curve, the more plausible the value. Narrow curves "
            f"that stand apart are {facts.word}s that differ; curves on top of each other do not tell them apart; two "
            "humps of one colour are two explanations of the table.",
            limit,
        ),
        paragraph(said),
        drawn(figure, f"Posterior densities, in the units of the table. {limit}".strip()),
    ]


def _draw(axes: Any, facts: Facts, quantity: Quantity) -> None:
    from arviz_stats.base.array import array_stats

    stats: Any = array_stats
    for k in range(facts.count):
        values = np.asarray(quantity.values[:, k], float)
        label = f"{facts.word} {k}"
        if np.ptp(values) <= 1e-12 * max(abs(values).max(), 1e-300):
            axes.axvline(values[0], color=colour(k), linestyle=line(k), label=label)
            continue
        x, density, _ = stats.kde(
            values, grid_len=MOST_POINTS, bound_correction=False, extend=True, extend_fct=0.5
        )
        inside = ((x >= 0) | (values.min() < 0)) & ((x <= 1) | (not quantity.is_share))
        x, density = x[inside], density[inside]
        axes.plot(x, density, line(k), color=colour(k), linewidth=1.4, label=label)
        axes.fill_between(x, density, color=colour(k), alpha=0.12, linewidth=0)
    axes.set_ylim(0, None)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(False)
    headed(axes, quantity.drawable)
