"""How sure it is which component a row comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from marginax.pages import DARK, Html, drawn
from marginax.report.drawing import GREY, chip, colour, panels, thinned
from marginax.report.facts import Facts
from marginax.report.overview import share_of
from marginax.report.text import counted, paragraph, wide, without_table

CLEAR, CERTAIN = 0.95, 0.9995
MOST_POINTS = 500
LEAST_CERTAIN = 20
MOST_COLUMNS = 8


def section(facts: Facts) -> list[str]:
    """Clear rows, a plot of all rows, the least certain ones."""
    if facts.count == 1:
        return [paragraph(f"There is one {facts.word}, to which all rows belong.")]
    if facts.membership is None:
        return [without_table("what rows belong to")]
    probabilities, spread = facts.membership.probabilities, facts.membership.spread
    largest = probabilities.argmax(1)
    every = np.arange(len(largest))
    most, uncertainty = probabilities[every, largest], spread[every, largest]
    clear = most > CLEAR
    said = [
        f"{share_of(int(clear.sum()), len(most))} are clear: one {facts.word} has more than {CLEAR:.0%} of the "
        "probability."
    ]
    if not clear.all():
        said.append(
            f"The others lie where {facts.word}s overlap, and are better not counted as belonging to one alone."
        )
    by_component = [
        (chip(k, facts.word), f"{int(own.sum()):,}", f"{int((own & clear).sum()):,}")
        for k in range(facts.count)
        for own in [largest == k]
    ]
    order = np.argsort(most, kind="stable")
    parts: list[str] = [
        paragraph(*said),
        wide(("", "rows that most probably belong to it", "of these clear"), by_component),
        paragraph(
            "All rows, the least certain first: the higher the curve, and the sooner it is at 1, the better the "
            f"{facts.word}s are told apart.",
            "The bars say how far the probability itself is uncertain (one standard deviation over the posterior)."
            if facts.has_posterior
            else "How far these probabilities are themselves uncertain is not known, as there is no posterior.",
        ),
        _sorted(facts, most[order], uncertainty[order], largest[order]),
    ]
    if most[order[0]] > CERTAIN:
        parts.append(
            paragraph(
                f"All rows are certain: each is in its {facts.word} with a probability of more than 0.999."
            )
        )
        return parts
    parts += [
        paragraph(
            f"The {counted(min(LEAST_CERTAIN, len(most)), 'row')} that are least certain. Rows are counted from 0."
        ),
        _least_certain(facts, order[:LEAST_CERTAIN]),
    ]
    if len(facts.names) > MOST_COLUMNS:
        parts.append(
            paragraph(f"The first {MOST_COLUMNS} of {len(facts.names)} columns are shown.")
        )
    return parts


def _sorted(facts: Facts, most: np.ndarray, spread: np.ndarray, largest: np.ndarray) -> str:
    figure, (axes,) = panels(1, height=2.8)
    at = thinned(len(most), MOST_POINTS)
    if facts.has_posterior:
        low, high = np.clip([most[at] - spread[at], most[at] + spread[at]], 0, 1)
        axes.vlines(at, low, high, color=GREY, linewidth=0.8, alpha=0.7)
    axes.plot(at, most[at], color=DARK, linewidth=0.8)
    for k in range(facts.count):
        own = at[largest[at] == k]
        axes.plot(own, most[own], ".", color=colour(k), markersize=4, label=f"{facts.word} {k}")
    axes.axhline(CLEAR, color=GREY, linestyle=":", linewidth=1)
    axes.set_xlabel("rows, by rising certainty")
    axes.set_ylabel("largest probability")
    lowest = min(float(most.min()), CLEAR) - 0.02
    axes.set_ylim(lowest, 1)
    axes.set_yticks([tick for tick in axes.get_yticks() if lowest <= tick <= 1])
    axes.set_ylim(lowest, 1 + 0.05 * (1 - lowest))
    caption = f"The probability of each row's most probable {facts.word}, by its colour; dotted: {CLEAR:.0%}."
    if len(at) < len(most):
        caption += f" Of {len(most):,} rows {len(at)} are drawn."
    return drawn(figure, caption)


def _least_certain(facts: Facts, rows: np.ndarray) -> str:
    columns = range(min(len(facts.names), MOST_COLUMNS))
    header = ("row", f"most probable {facts.word}", "then", *(facts.names[j] for j in columns))

    def cells(row: int) -> Iterator[Any]:
        assert facts.membership is not None
        probabilities = facts.membership.probabilities[row]
        yield row
        for k in np.argsort(-probabilities, kind="stable")[:2]:
            spread = facts.membership.spread[row, k]
            sd = f" ± {spread:.3f}" if spread >= 0.0005 else ""
            yield Html(f"{chip(int(k), '')}: {_rounded(probabilities[k])}{sd}")
        for j in columns:
            yield facts.cell(row, j)

    return wide(header, (tuple(cells(int(row))) for row in rows))


def _rounded(probability: float) -> str:
    """With three decimals, never all or nothing."""
    if probability > CERTAIN:
        return "&gt; 0.999"
    return "&lt; 0.001" if probability < 0.0005 else f"{probability:.3f}"
