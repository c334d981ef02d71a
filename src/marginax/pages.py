"""Pages of HTML that need nothing but themselves: their style, their tables, and pictures inside of them."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1f2937; max-width: 860px;
       margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.8rem; margin-bottom: .2rem; } h2 { margin-top: 2.4rem; font-size: 1.25rem; }
figure { margin: 1.2rem 0; } img { max-width: 100%; border: 1px solid #e5e7eb; border-radius: 6px; }
figcaption { color: #4b5563; font-size: .92rem; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #e5e7eb; }
pre { background: #f3f4f6; padding: .9rem; border-radius: 6px; overflow-x: auto; font-size: .85rem; }
.note { background: #fef3c7; padding: .7rem 1rem; border-radius: 6px; }
"""
DARK = "#1f2937"
PIXELS, DPI = 96, 140
"""In an inch: of a page, and of what is drawn as points."""
KINDS = {"png": "image/png", "svg": "image/svg+xml"}


class Html(str):
    """Text that is HTML already."""


def escaped(text: Any) -> Html:
    """Anything as HTML; what is `Html` stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def table(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> Html:
    """A table; cells are escaped unless they are `Html`."""
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in header)
    lines = ["<tr>" + "".join(f"<td>{escaped(c)}</td>" for c in row) + "</tr>" for row in rows]
    return Html(f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join(lines)}</table>")


def picture(data: bytes, caption: str, kind: str = "png", width: int | None = None) -> Html:
    """An image file, with its caption.

    Parameters
    ----------
    data : bytes
        What is in the file.
    caption : str
        Below it.
    kind : {"png", "svg"}
    width : int, optional
        On the page, in pixels; as wide as the image when nothing is said.
    """
    text = html.escape(caption)
    encoded = base64.b64encode(data).decode("ascii")
    wide = "" if width is None else f' width="{width}"'
    return Html(
        f'<figure><img alt="{text}"{wide} src="data:{KINDS[kind]};base64,{encoded}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def drawn(figure: Any, caption: str, kind: str = "svg") -> Html:
    """A matplotlib figure, with its caption. Of the same figure, the same text.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    caption : str
        Below it.
    kind : {"svg", "png"}
        SVG for lines, PNG for many points.
    """
    import matplotlib

    written = io.BytesIO()
    # Letters stay letters, so that the reader's machine has a font for those that matplotlib's lacks.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "marginax"}
    metadata = {"Date": None} if kind == "svg" else None
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(written, format=kind, dpi=DPI, facecolor="white", metadata=metadata)
    width = round(figure.get_size_inches()[0] * PIXELS)
    return picture(written.getvalue(), caption, kind, width)


def calm(axes: Any) -> None:
    """Take from a matplotlib plot what is not needed."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)


def page(title: str, body: Sequence[str], more_style: str = "") -> str:
    """A whole page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}{more_style}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )
