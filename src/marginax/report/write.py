"""The page itself: sections in order, each with its heading."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import marginax.storage as storage
from marginax.pages import Html, escaped, page
from marginax.report import (
    certainty,
    chains,
    convergence,
    densities,
    overview,
    pairs,
    posterior,
    states,
)
from marginax.report.facts import Facts, gather
from marginax.report.text import counted, section

STYLE = """
body { max-width: 980px; overflow-wrap: break-word; } h1 { line-height: 1.2; }
h2 { border-top: 1px solid #e5e7eb; padding-top: 1.2rem; }
nav { font-size: .92rem; } nav a { margin-right: 1rem; white-space: nowrap; } a { color: #0072b2; }
.wide { overflow-x: auto; } th, td { vertical-align: top; } th { font-weight: 600; }
.numbers th, .numbers td { white-space: nowrap; } td:first-child { min-width: 4rem; }
.wide table { font-size: .92rem; }
.chip { display: inline-block; width: .75em; height: .75em; border-radius: 3px; margin-right: .4em; }
.interval { color: #6b7280; font-size: .85em; white-space: nowrap; }

.missing { color: #9ca3af; font-style: italic; } .fine, .note { margin: 1rem 0; }
.fine { background: #ecfdf5; padding: .7rem 1rem; border-radius: 6px; }
.left-out { color: #6b7280; font-style: italic; } .note ul { margin: .3rem 0; }
img { border: none; } figure { text-align: left; }
"""


def write_report(
    path: str | os.PathLike[str], estimator: Any, table: Any = None, *, lengths: Any = None
) -> Path:
    """Write a page about a fitted estimator: one HTML file that needs nothing but itself.

    Parameters
    ----------
    path : path
        The file; what was there is replaced in one step.
    estimator : GaussianMixture, MixtureModel or HiddenMarkov
        Fitted.
    table : array or frame, shape (rows, columns), optional
        The table that it was fitted to. When nothing is said, the one that was kept in the model file
        (``estimator.table_``). Without a table the page says what it leaves out.
    lengths : sequence of int, optional
        How long each series in the table is, for a `HiddenMarkov` that was fitted to several.

    Returns
    -------
    Path of the page

    Raises
    ------
    sklearn.exceptions.NotFittedError
    ValueError
        When the table does not fit the estimator.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from marginax.mixture import GaussianMixture
    >>> from marginax.report import write_report
    >>> X = np.concatenate([np.arange(20.0), np.arange(50.0, 80.0)])[:, None]
    >>> mixture = GaussianMixture(2, random_state=0).fit(X)
    >>> write_report(pathlib.Path(tempfile.mkdtemp()) / "report.html", mixture, X).name
    'report.html'
    """
    import matplotlib.style

    with matplotlib.style.context("default"):  # whatever the user's own style is
        text = _page(gather(estimator, table, lengths))
    path = Path(path)
    storage.replace_text(path, text)
    return path


def _page(facts: Facts) -> str:
    sections = [
        ("fitted", "What was fitted", overview.fitted(facts)),
        ("components", f"The {facts.word}s", overview.components(facts)),
    ]
    if facts.is_chain:
        sections += [
            ("path", "States over time", states.path(facts)),
            ("transitions", "From state to state", states.transitions(facts)),
        ]
    sections += [
        ("densities", "Column by column", densities.section(facts)),
        ("pairs", "Pairs of columns", pairs.section(facts)),
        ("certainty", f"How sure the {facts.word} of a row is", certainty.section(facts)),
        ("convergence", "Convergence", convergence.section(facts)),
        ("posterior", "The posterior", posterior.section(facts)),
        ("chains", "Draws and chains", chains.section(facts)),
        ("usage", "Using the model", overview.usage(facts)),
    ]
    kind = "hidden Markov model" if facts.is_chain else "mixture"
    title = f"A {kind} with {counted(facts.count, facts.word)}, fitted to {counted(facts.estimator.n_rows_, 'row')}"
    links = "".join(f'<a href="#{name}">{escaped(text)}</a> ' for name, text, _ in sections)
    body = [
        f"<h1>{escaped(title)}</h1>",
        *overview.remarks(facts),
        Html(f"<nav>{links}</nav>"),
        *(section(name, text, parts) for name, text, parts in sections),
    ]
    return page(f"Marginax: {title}", body, STYLE)
