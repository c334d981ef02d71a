"""Small pieces of text: numbers with the digits that mean something, paragraphs, sections, what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from marginax.pages import Html, escaped, table


def number(value: float, scale: float | None = None) -> str:
    """A number to be read.

    Parameters
    ----------
    value : float
    scale : float, optional
        How exactly it is known, or how far apart others are: two digits of that are shown. Four digits
        of the number itself when nothing is said.
    """
    if not np.isfinite(value):
        return "-"
    if scale is None or not np.isfinite(scale) or scale <= 0:
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    decimals = int(np.clip(1 - np.floor(np.log10(scale)), 0, 300))
    if decimals > 8 or abs(value) >= 1e9:
        digits = np.ceil(np.log10(max(abs(value), scale) / scale)) + 2
        return f"{value:.{int(min(digits, 12))}g}"
    return f"{value:,.{decimals}f}"


def percent(share: float) -> str:
    """A share, never rounded to all or nothing."""
    if 0 < share < 0.001:
        return "less than 0.1%"
    if 0.999 < share < 1:
        return "more than 99.9%"
    return f"{100 * share:.3g}%"


def counted(count: int, thing: str) -> str:
    """``"1 row"``, ``"2 rows"``."""
    many = thing[:-1] + "ies" if thing.endswith("y") else thing + "s"
    return f"{count:,} {thing if count == 1 else many}"


def paragraph(*sentences: Any) -> Html:
    """Sentences; escaped unless they are `Html`."""
    return Html(f"<p>{' '.join(escaped(s) for s in sentences)}</p>")


def code(text: str) -> Html:
    """Something to be typed."""
    return Html(f"<code>{escaped(text)}</code>")


def wide(header: Iterable[Any], rows: Iterable[Iterable[Any]], *, of_text: bool = False) -> Html:
    """A table that may be wider than the page; one of text has several lines in a cell."""
    kind = "wide" if of_text else "wide numbers"
    return Html(f'<div class="{kind}">{table(header, rows)}</div>')


def section(name: str, title: str, parts: Sequence[str]) -> Html:
    """A part of the page, with its heading."""
    return Html(f'<section id="{name}"><h2>{escaped(title)}</h2>{"".join(parts)}</section>')


def left_out(why: str) -> Html:
    """Said in place of what is not there."""
    return Html(f'<p class="left-out">Left out: {escaped(why)}</p>')


def without_table(what: str) -> Html:
    """Said in place of what needs the table."""
    return left_out(f"{what}; the page was written without the table (see the top).")
