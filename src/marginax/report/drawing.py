"""What all pictures of the report share: colours, the size of a grid of panels, and words that are safe to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from marginax.pages import DARK, Html, calm

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#6b6b6b"),
    *("#c81e3a", "#6b8e00", "#8b5cf6", "#7c3f00", "#14b8a6", "#f472b6", "#b5a642", "#2f5fd0"),
)
"""Dark enough for lines on white; the first eight are Okabe and Ito's, which colour-blind people can tell apart."""
LINES = ("-", "--", ":", "-.")
"""Beyond the last colour they begin again, with other lines."""
GREY, PALE = "#9ca3af", "#dde1e6"
LONGEST = 26
HANDLE, LETTER = 0.7, 0.07
"""In a legend, in inches."""
WIDTH = 10.1
"""Of every picture, in inches."""


def colour(number: int) -> str:
    """Of a component."""
    return COLOURS[number % len(COLOURS)]


def line(number: int) -> Any:
    """The kind of line of a component."""
    return LINES[number // len(COLOURS) % len(LINES)]


def drawable(text: Any, longest: int = LONGEST) -> str:
    """Words as matplotlib draws them as they are: no mathematics between dollars."""
    return shortened(text, longest).replace("$", r"\$")


def shortened(text: Any, longest: int = 40) -> str:
    """Words on one line; of long ones the beginning."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return words if len(words) <= longest else words[: longest - 1] + "…"


def chip(number: int, word: str = "component") -> Html:
    """A component's name with its colour."""
    name = f"{word}&nbsp;{number}" if word else str(number)
    return Html(f'<span class="chip" style="background:{colour(number)}"></span>{name}')


def panels(
    count: int, across: int = 3, height: float = 2.3, width: float = WIDTH, **options: Any
) -> tuple[Figure, list[Any]]:
    """A figure with so many plots in rows.

    Parameters
    ----------
    count : int
        How many.
    across : int
        How many in a row.
    height : float
        Of one, in inches.
    width : float
        Of the figure.
    **options
        For `Figure.subplots`.
    """
    across = min(across, count)
    down = -(-count // across)
    figure = Figure(figsize=(width, height * down), layout="constrained")
    found = list(np.ravel(figure.subplots(down, across, squeeze=False, **options)))
    for axes in found[count:]:
        axes.set_visible(False)
    for axes in found[:count]:
        tidy(axes)
    return figure, found[:count]


def tidy(axes: Any) -> None:
    """Small letters, few lines."""
    calm(axes)
    axes.tick_params(labelsize=8, colors="#4b5563")
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)


def headed(axes: Any, title: str) -> None:
    """Give a plot its title."""
    axes.set_title(title, loc="left", fontsize=9.5, color=DARK)


def legend(figure: Any, axes: Any, most: int = 12) -> None:
    """One legend above all plots of a figure."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        widest = HANDLE + LETTER * max(map(len, labels[:most]))
        columns = int(np.clip(figure.get_figwidth() / widest, 1, min(len(labels), 6)))
        shown = handles[:most], labels[:most]
        figure.legend(*shown, loc="outside upper left", ncols=columns, frameon=False, fontsize=8.5)


def thinned(count: int, most: int) -> np.ndarray:
    """Numbers of at most so many things, evenly spread over all of them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def few(count: int, most: int, seed: int = 0) -> np.ndarray:
    """Numbers of at most so many things, drawn by chance, the same every time."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def listed(words: Sequence[Any], most: int = 8) -> str:
    """Words in a sentence; of many the first ones."""
    shown = ", ".join(shortened(w) for w in words[:most])
    return shown + (f" and {len(words) - most} more" if len(words) > most else "")
