"""Did the chains of NUTS reach the posterior? Traces, ranks, effective draws, R-hat."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from marginax.infer.draws.summary import summary_table
from marginax.mixture.families import Categorical
from marginax.mixture.model import INITIAL, TRANSITIONS, WEIGHTS
from marginax.pages import drawn
from marginax.report.drawing import (
    GREY,
    PALE,
    colour,
    headed,
    legend,
    panels,
    shortened,
    thinned,
)
from marginax.report.facts import Facts
from marginax.report.quantities import outside, own_name, quantities
from marginax.report.text import counted, left_out, number, paragraph, wide

MOST_ROWS = 300
"""Of the summary; beyond, only what the table of components has."""
MOST_TRACES = 10
MOST_POINTS = 600
BINS = 20
ENOUGH = 400
"""Effective draws that intervals need (Vehtari and others, 2021)."""


class Scalar(NamedTuple):
    """One number of the posterior."""

    title: str
    values: np.ndarray
    """Shape (chains, draws)."""
    r_hat: float


def section(facts: Facts) -> list[str]:
    """Traces and ranks of the numbers that mixed worst, a table of all."""
    if not facts.has_posterior:
        return [left_out("a point estimate has no draws.")]
    if facts.estimator.method != "nuts":
        return [
            paragraph(
                "These draws are independent of each other, straight from the approximating distribution: there are no "
                "chains that could be stuck. Whether the approximation is good they do not tell; NUTS does (the method "
                "'nuts')."
            ),
            *_summary(facts),
        ]
    found = _scalars(facts)
    found = [s for s in found if np.ptp(s.values) > 0]
    worst = sorted(found, key=lambda s: -s.r_hat if np.isfinite(s.r_hat) else 0.0)
    shown = [s for s in found if any(s is w for w in worst[:MOST_TRACES])]
    chains = facts.estimator.fit_.chains
    said = [
        "Left, each number in the order in which it was drawn, a colour for each chain: the lines should look like the "
        "same noise, without trends and without chains that stay apart."
    ]
    if chains > 1:
        said.append(
            "Right, the ranks of each chain's draws among all draws: if the chains agree all lines stay near the "
            "dashed one, within the grey band. R-hat compares the chains, and should be below 1.01; above 1.05 the "
            "averages on this page are in doubt."
        )
    else:
        said.append(
            "There is one chain, so that nothing can be compared: four of them would tell more."
        )
    limit = ""
    if len(found) > len(shown):
        by = "with the largest R-hat" if chains > 1 else "shown"
        limit = f"Of {len(found)} numbers these are the {len(shown)} {by}."
    parts: list[str] = [paragraph(*said, limit)]
    if shown:
        caption = f"{counted(chains, 'chain')} of {counted(facts.draws // chains, 'draw')}. {limit}"
        parts.append(drawn(_traces(shown, chains), caption.strip(), "png"))
    return [*parts, *_summary(facts)]


def _scalars(facts: Facts) -> list[Scalar]:
    from arviz_stats.base.array import array_stats

    stats: Any = array_stats
    chains = facts.estimator.fit_.chains
    found = []
    for quantity in [*outside(facts), *quantities(facts)]:
        by_chain = np.asarray(quantity.values, float).reshape(chains, -1, facts.count)
        with np.errstate(invalid="ignore", divide="ignore"):
            r_hats = np.atleast_1d(stats.rhat(by_chain, chain_axis=0, draw_axis=1))
        for k in range(facts.count):
            title = f"{quantity.drawable}, {facts.word} {k}"
            found.append(Scalar(title, by_chain[..., k], float(r_hats[k])))
    return found


def _traces(shown: list[Scalar], chains: int) -> Any:
    from arviz_stats.base.array import array_stats

    stats: Any = array_stats
    across = 2 if chains > 1 else 1
    figure, plots = panels(across * len(shown), across=across, height=1.3)
    for scalar, axes in zip(shown, plots[::across], strict=True):
        at = thinned(scalar.values.shape[1], MOST_POINTS)
        for chain, values in enumerate(scalar.values):
            axes.plot(
                at,
                values[at],
                color=colour(chain),
                linewidth=0.6,
                alpha=0.8,
                label=f"chain {chain}",
            )
        headed(axes, scalar.title)
    for scalar, axes in zip(shown, plots[1::2] if chains > 1 else [], strict=False):
        ranks = stats.compute_ranks(scalar.values, axis=None)
        _ranks(axes, ranks.reshape(scalar.values.shape))
        headed(axes, f"R-hat {scalar.r_hat:.3f}")
    for axes, words in zip(plots[-across:], ("draw", "rank among all draws"), strict=False):
        axes.set_xlabel(words)
    legend(figure, plots[0])
    return figure


def _ranks(axes: Any, ranks: np.ndarray) -> None:
    """How often each chain's draws are among the lowest, ..., the highest of all."""
    chains, draws = ranks.shape
    bins = int(min(BINS, max(draws // 5, 2)))
    edges = np.linspace(0.5, chains * draws + 0.5, bins + 1)
    expected = draws / bins
    off = 1.96 * np.sqrt(expected * (1 - 1 / bins))
    axes.axhspan(expected - off, expected + off, color=PALE, alpha=0.6, linewidth=0)
    axes.axhline(expected, color=GREY, linestyle="--", linewidth=0.8)
    for chain in range(chains):
        found, _ = np.histogram(ranks[chain], edges)
        axes.stairs(found, edges, color=colour(chain), linewidth=1.1)
    axes.set_ylim(0, None)
    axes.set_ylabel("draws")


def _summary(facts: Facts) -> list[str]:
    """`summary`, with words for what its labels mean."""
    size = sum(v[0].size for v in facts.values.values())
    if size <= MOST_ROWS:
        found = facts.estimator.summary()
        words = {label: in_words(facts, label) for label in found}
        limit = ""
    else:
        chains = facts.estimator.fit_.chains
        shown = [*outside(facts), *quantities(facts)][: max(MOST_ROWS // facts.count, 1)]
        table = {q.title: q.values.reshape(chains, -1, facts.count) for q in shown}
        found = summary_table(table)
        words = dict.fromkeys(found, "")
        limit = f"Of {size:,} numbers these are the main ones; estimator.summary() has all."
    names = {
        "std": "sd",
        "ess_bulk": "effective draws",
        "ess_tail": "… in the tails",
        "r_hat": "R-hat",
    }
    columns = list(next(iter(found.values())))
    header = ("parameter", "what it is", *(names.get(c, c) for c in columns))
    rows = []
    for label, row in found.items():
        scale = row["std"]
        cells = [
            f"{v:.0f}"
            if c.startswith("ess") and np.isfinite(v)
            else f"{v:.3f}"
            if c == "r_hat" and np.isfinite(v)
            else number(v, scale)
            for c, v in row.items()
        ]
        rows.append((label, words[label], *cells))
    said = (
        "Every number of the posterior. Effective draws are as many as independent ones would be worth; "
        f"{ENOUGH} are enough for means and intervals."
    )
    return [paragraph(said, limit), wide(header, rows)]


def in_words(facts: Facts, label: str) -> str:
    """What a label such as ``"means[0,1]"`` of `summary` means."""
    match = re.fullmatch(r"(.*?)(?:\[([\d,]+)\])?", label, re.DOTALL)
    assert match is not None
    site = match[1]
    index = [int(i) for i in match[2].split(",")] if match[2] else []
    if site in (WEIGHTS, INITIAL) and len(index) == 1:
        return f"{facts.word} {index[0]}"
    if site == TRANSITIONS and len(index) == 2:
        return f"from {facts.word} {index[0]} to {index[1]}"
    for group in facts.design.groups:
        name = own_name(group, site)
        if not name:
            continue
        is_tied = name == "covariances" and getattr(group.family, "tied", False)
        said = [f"all {facts.word}s"] if is_tied else [f"{facts.word} {index.pop(0)}"]
        if isinstance(group.family, Categorical):
            place = int(name.rpartition("_")[2]) if "_" in name else 0
            said.append(shortened(facts.categories(group.where[place])[index[0]]))
            index = []
        columns = [shortened(group.columns.names[i]) for i in index]
        if len(columns) == 2:
            same = columns[0] == columns[1]
            columns = [f"variance of {columns[0]}" if same else f"{columns[0]} and {columns[1]}"]
        return ", ".join([*said, *columns])
    return ""
