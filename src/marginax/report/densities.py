"""Each column on its own: what was observed, and what the components say."""

from __future__ import annotations

from typing import Any

import numpy as np

from marginax.pages import DARK, drawn
from marginax.report.drawing import PALE, colour, drawable, headed, legend, line, listed, panels
from marginax.report.facts import Facts
from marginax.report.marginals import densities, is_counted, weights
from marginax.report.quantities import most_frequent, own_values
from marginax.report.text import counted, left_out, paragraph, without_table

MOST_COLUMNS = 12
POINTS = 160
MOST_BARS = 60
TAIL = 0.005
"""Of the rows on either side: what lies farther out does not decide how wide a plot is."""


def section(facts: Facts) -> list[str]:
    """Histograms with densities, bars of categories."""
    parts: list[str] = []
    if numbers := facts.columns("number"):
        parts += _numbers(facts, numbers)
    if categories := facts.columns("category"):
        parts += _categories(facts, categories)
    if unknown := facts.columns("unknown"):
        names = ", ".join(facts.names[j] for j in unknown)
        parts.append(left_out(f"{names}. The page does not know how to draw their families."))
    if facts.cells is None:
        parts.append(without_table("histograms and observed shares"))
    return parts


def _first(columns: list[int], what: str) -> tuple[list[int], str]:
    if len(columns) <= MOST_COLUMNS:
        return columns, ""
    return columns[:MOST_COLUMNS], f"The first {MOST_COLUMNS} of {len(columns)} {what} are shown."


def _numbers(facts: Facts, columns: list[int]) -> list[str]:
    shown, limit = _first(columns, "columns of numbers")
    counts = {j for j in shown if is_counted(facts, j)}
    everywhere = np.repeat(facts.estimator.learned_.fill[None], POINTS, 0)
    for j in shown:
        everywhere[:, j] = _points(facts, j, j in counts)
    share = weights(facts)[None, :, :, None]
    curves = share * densities(facts, everywhere)
    figure, plots = panels(len(shown), across=min(3, max(len(shown), 1)) if len(shown) != 4 else 2)
    if len(shown) == 1:
        figure.set_size_inches(7.0, 3.4)
    for axes, j in zip(plots, shown, strict=True):
        _draw(axes, facts, j, everywhere[:, j], curves[..., j], j in counts)
    legend(figure, plots[0])
    said = [
        "Grey bars are the rows of the table. Coloured curves are the components, each as high as its share; the black "
        "line is their sum, and should follow the bars. Where it does not, the family does not suit the column, or "
        "components are missing."
        if facts.cells is not None
        else f"Coloured curves are the {facts.word}s, each as high as its share; the black line is their sum.",
    ]
    if facts.is_chain:
        said[0] = said[0].replace("components", "states")
        if facts.cells is not None:
            said.append("The share of a state is that of the rows.")
    if facts.has_posterior:
        said.append("Curves are averages over the posterior, and around the sum is its 90% band.")
    if counts:
        said.append("For counts, the height is the probability of each number.")
    caption = f"Density of {listed([facts.names[j] for j in shown], MOST_COLUMNS)}. {limit}".strip()
    return [paragraph(*said, limit), drawn(figure, caption)]


def _points(facts: Facts, column: int, counts: bool) -> np.ndarray:
    low, high = _range(facts, column)
    if counts:
        return np.linspace(max(np.floor(low), 0), np.ceil(high), POINTS).round()
    if facts.needs_logarithms(column):
        low, high = np.quantile(facts.observed(column), [TAIL / 5, 1 - TAIL / 5])
        return np.geomspace(low, high, POINTS)
    points = np.linspace(low, high, POINTS)
    inside = facts.family(column).allows(points)
    if inside.all():
        return points
    if not inside.any():
        return np.full(POINTS, facts.estimator.learned_.fill[column])
    return np.linspace(points[inside].min(), points[inside].max(), POINTS)


def _range(facts: Facts, column: int) -> tuple[float, float]:
    """What is worth showing of a column."""
    centre, spread = facts.estimator.learned_.moments[:, column]
    seen = facts.observed(column)
    if len(seen):
        low, high = np.quantile(seen, [TAIL, 1 - TAIL])
        more = 0.3 * (high - low)
        low, high = max(seen.min(), low - more), min(seen.max(), high + more)
    else:
        low, high = centre - 3 * spread, centre + 3 * spread
    width = high - low
    if width <= 1e-9 * max(abs(low), abs(high), 1e-300):  # a constant
        middle, width = low, 6 * float(facts.estimator.learned_.spread[column])
        low, high = middle - width / 2, middle + width / 2
    return float(low - 0.08 * width), float(high + 0.08 * width)


def _draw(
    axes: Any, facts: Facts, column: int, points: np.ndarray, curves: np.ndarray, counts: bool
) -> None:
    """One column; ``curves`` has shape (points, draws, components)."""
    title = ""
    seen = facts.observed(column)
    is_logarithmic = facts.needs_logarithms(column)
    if is_logarithmic:
        axes.set_xscale("log")
        curves = curves * points[:, None, None]  # of the logarithm
    if len(seen):
        bars, edges = _histogram(seen, points, counts, is_logarithmic)
        axes.bar(edges[:-1], bars, np.diff(edges), align="edge", color=PALE, edgecolor="white")
        beyond = int(((seen < edges[0]) | (seen > edges[-1])).sum())
        if beyond:
            title = f"{counted(beyond, 'row')} beyond"
    x, first = np.unique(points, return_index=True)
    curves = curves[first]
    marker = "." if counts and len(x) <= MOST_BARS else ""
    for k in range(facts.count):
        height = curves[..., k].mean(1)
        label = f"{facts.word} {k}"
        axes.plot(x, height, line(k), color=colour(k), linewidth=1.6, marker=marker, label=label)
    total = curves.sum(-1)
    if facts.has_posterior:
        low, high = np.quantile(total, [0.05, 0.95], axis=1)
        axes.fill_between(x, low, high, color=DARK, alpha=0.15, linewidth=0)
    if facts.count > 1:
        # Behind the components: where one of them is all of the sum, both are seen.
        axes.plot(x, total.mean(1), color=DARK, linewidth=2.8, zorder=1.9, label="sum")
    # Densities may go to infinity at the edge of a family's range.
    highest = np.quantile(total.mean(1), 0.98) if len(x) > MOST_BARS else total.mean(1).max()
    highest = max(highest * 1.25, bars.max() * 1.1 if len(seen) else 0.0)
    axes.set_ylim(0, highest if np.isfinite(highest) and highest > 0 else None)
    axes.set_xlabel(drawable(facts.names[column]))
    unit = "density of the logarithm" if is_logarithmic else "density"
    axes.set_ylabel("probability" if counts else unit)
    headed(axes, title)


def _histogram(
    seen: np.ndarray, points: np.ndarray, counts: bool, is_logarithmic: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Heights and edges of bars, as a density."""
    if is_logarithmic:
        heights, edges = _histogram(np.log(seen), np.log(points), counts, False)
        return heights, np.exp(edges)
    low, high = points.min(), points.max()
    if counts:
        step = max(int(np.ceil((high - low + 1) / MOST_BARS)), 1)
        edges = np.arange(low - 0.5, high + step + 0.5, step)
    else:
        inside = seen[(seen >= low) & (seen <= high)]
        wanted = len(np.histogram_bin_edges(inside[:10_000], "auto", (low, high))) - 1
        wanted = np.clip(max(wanted, np.sqrt(len(seen))), 12, 50)
        edges = np.linspace(low, high, 2 * int(wanted / 2) + 2) if high > low else None
    if edges is None or len(edges) < 2:
        edges = np.array([low - 0.5, low + 0.5])
    found, _ = np.histogram(seen, edges)
    return found / (len(seen) * np.diff(edges)), edges


def _categories(facts: Facts, columns: list[int]) -> list[str]:
    shown, limit = _first(columns, "columns of categories")
    most = max(len(_codes(facts, j)) for j in shown)
    across = min(len(shown), 3 if most <= 8 else 2)
    figure, plots = panels(len(shown), across, height=max(1.2 + 0.28 * most, 1.9))
    if len(shown) == 1:
        figure.set_size_inches(6.0, max(1.4 + 0.3 * most, 2.2))
    for axes, j in zip(plots, shown, strict=True):
        _draw_categories(axes, facts, j)
    legend(figure, plots[0])
    said = [
        f"Coloured dots are the probabilities of each category inside of a {facts.word}; far apart, they show what the "
        f"column has to do with the {facts.word}s."
    ]
    if facts.cells is not None:
        said.append(
            "Grey bars are the observed shares; the black tick is what the model expects, all together."
        )
    if facts.has_posterior:
        said.append("Lines through dots are 90% intervals.")
    return [
        paragraph(*said, limit),
        drawn(
            figure,
            f"Shares of the categories of {listed([facts.names[j] for j in shown], MOST_COLUMNS)}. {limit}".strip(),
        ),
    ]


def _probabilities(facts: Facts, column: int) -> np.ndarray:
    """Of every category, shape (draws, components, categories)."""
    group = next(g for g in facts.design.groups if column in g.where)
    values = own_values(group, facts.values)
    place = group.where.index(column)
    if column not in facts.estimator.categories_:
        ones = values["probs"][..., place]
        return np.stack([1 - ones, ones], -1)
    return values["probs" if len(group.where) == 1 else f"probs_{place}"]


def _codes(facts: Facts, column: int) -> list[int]:
    return most_frequent(_probabilities(facts, column))


def _draw_categories(axes: Any, facts: Facts, column: int) -> None:
    everything = _probabilities(facts, column)
    codes = _codes(facts, column)
    probabilities = everything[..., codes]
    y = np.arange(len(codes))
    seen = facts.observed(column)
    if len(seen):
        share = np.bincount(seen.astype(int), minlength=everything.shape[-1])[codes] / len(seen)
        axes.barh(y, share, 0.8, color=PALE, label="observed")
    mean = probabilities.mean(0)
    for k in range(facts.count):
        at = y + 0.5 * (k - (facts.count - 1) / 2) / max(facts.count, 2)
        if facts.has_posterior:
            low, high = np.quantile(probabilities[:, k], [0.05, 0.95], axis=0)
            axes.hlines(at, low, high, color=colour(k), linewidth=1.2)
        axes.plot(mean[k], at, "o", color=colour(k), markersize=4.5, label=f"{facts.word} {k}")
    share = weights(facts).mean(0)
    axes.plot(share @ mean, y, "|", color=DARK, markersize=13, label="model, all together")
    words = [drawable(facts.categories(column)[code], 16) for code in codes]
    axes.set_yticks(y, words)
    axes.invert_yaxis()
    axes.set_xlim(0, None)
    axes.set_xlabel("share")
    axes.grid(False, axis="y")
    more = everything.shape[-1] - len(codes)
    title = drawable(facts.names[column])
    headed(axes, title + (f" ({more} more categories)" if more else ""))
