"""What was fitted, and the components in numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpyro import distributions as dist

from marginax.mixture.family import Family
from marginax.mixture.model import INITIAL, TRANSITIONS, WEIGHTS
from marginax.mixture.priors import FLAT
from marginax.pages import Html, escaped
from marginax.report.drawing import COLOURS, chip, listed
from marginax.report.facts import Facts
from marginax.report.quantities import (
    MEAN,
    MOST_CATEGORIES,
    SD,
    Quantity,
    outside,
    quantities,
)
from marginax.report.text import code, counted, number, paragraph, percent, wide

PROBABILITY = 0.9
SHARE = 0.01
"""How exactly shares are shown of which nobody knows how sure they are."""
FAMILIES = {
    "Normal": "normal, columns independent of each other inside of a component",
    "StudentT": "Student-t: like the normal, with room for outliers",
    "LogNormal": "log-normal: the logarithm is normal",
    "Gamma": "gamma: numbers above 0",
    "Poisson": "Poisson: counts",
    "NegativeBinomial": "negative binomial: counts that vary more than Poisson's",
    "Beta": "beta: proportions",
    "Bernoulli": "Bernoulli: 0 or 1",
    "Categorical": "categories, each with its probability",
    "Gaussian": "normal, columns may depend on each other inside of a component",
}
OPTIONS = {
    "n_init": "the number of starts",
    "max_iter": "the most iterations",
    "n_draws": "the number of draws",
    "n_warmup": "the steps of warm-up",
    "n_chains": "the number of chains",
}
"""What options are called in a sentence."""
PARAMETERS = {
    WEIGHTS: "how large the components are",
    INITIAL: "the state that a series begins in",
    TRANSITIONS: "the state that follows each state",
    "means": "where the components are",
    "locs": "where the components are, as logarithms",
    "precisions": "how narrow they are (1 / variance)",
    "precision_factors": "how narrow they are, and in which direction (inverse covariance)",
    "scales": "how wide they are",
    "df": "how heavy their tails are (few degrees of freedom: many outliers)",
    "concentrations": "how narrow they are",
    "rates": "the mean counts",
    "probs": "the probabilities",
}


def fitted(facts: Facts) -> list[str]:
    """What was fitted, to what, how."""
    estimator, design = facts.estimator, facts.design
    kind = "hidden Markov model" if facts.is_chain else "mixture"
    rows: list[tuple[Any, Any]] = [
        ("model", f"{kind} with {counted(facts.count, facts.word)} ({type(estimator).__name__})"),
        ("table", _table_in_words(facts)),
        ("method", _method(facts)),
        ("parameters", f"{counted(estimator.n_parameters_, 'free number')}"),
    ]
    if facts.membership is not None:
        mean = float(facts.membership.log_density.mean())
        rows.append(("fit", f"mean log density of a row {mean:.3f} nats; higher is better"))
    families = [
        (group.name or "all columns", _family(facts, group.family), listed(group.columns.names, 12))
        for group in design.groups
    ]
    return [
        paragraph(
            f"The rows of the table are thought to come from {counted(facts.count, facts.word)}; which row comes from "
            f"which {facts.word} is not in the table, and was summed out exactly."
        ),
        wide((), rows, of_text=True),
        paragraph(
            f"Inside of a {facts.word} each group of columns has a distribution of its own family:"
        ),
        wide(("group", "family", "columns"), families, of_text=True),
        *_priors(facts),
    ]


def _table_in_words(facts: Facts) -> str:
    rows, columns = facts.estimator.n_rows_, len(facts.names)
    said = f"{counted(rows, 'row')}, {counted(columns, 'column')} ({listed(facts.names, 12)})"
    if facts.cells is None:
        return said
    missing = int(np.isnan(facts.cells).sum())
    if missing:
        said += f"; {counted(missing, 'cell')} of {facts.cells.size:,} missing, and summed out"
    else:
        said += "; no cell is missing"
    if len(facts.cells) != rows:
        said += f". This page shows another table, of {counted(len(facts.cells), 'row')}"
    return said


def _method(facts: Facts) -> str:
    estimator = facts.estimator
    starts = f"the best of {counted(estimator.n_init, 'start')}"
    if estimator.method == "map":
        return f"the most probable parameters (MAP), {starts}; how sure they are is not known"
    if estimator.method == "vi":
        return (
            f"the posterior, approximated by a normal distribution of the unconstrained parameters around the most "
            f"probable ones ({starts}); {counted(facts.draws, 'draw')} from it"
        )
    chains = facts.estimator.fit_.chains
    return (
        f"the posterior, by NUTS: {counted(chains, 'chain')} of {counted(facts.draws // chains, 'draw')}, after "
        f"{counted(estimator.n_warmup, 'step')} of warm-up, begun at the most probable parameters ({starts})"
    )


def _family(facts: Facts, family: Family) -> str:
    name = type(family).__name__
    words = FAMILIES.get(name, name)
    if getattr(family, "tied", False):
        words += "; the same covariance in all components"
    if getattr(family, "spherical", False):
        words += "; one variance for all columns"
    return words.replace("component", facts.word)


def _priors(facts: Facts) -> list[str]:
    stated = facts.estimator.priors
    if isinstance(stated, str) and stated == FLAT:
        return [paragraph("Priors: none. The parameters are those of maximum likelihood.")]
    stated = stated or {}
    standardized = {
        group.site(n)
        for group in facts.design.groups
        if group.family.is_standardized
        for n in group.family.parameters(group.columns)
    }
    rows = []
    for site, parameter in facts.design.priors.items():
        name = site.rpartition(".")[2].partition("_")[0]
        meaning = PARAMETERS.get(site.rpartition(".")[2], PARAMETERS.get(name, ""))
        words = prior_in_words(parameter.prior)
        if site in standardized and name != "df":
            words += ", of columns brought to mean 0 and standard deviation 1"
        if parameter.is_shared:
            words += "; all components have the same"
        rows.append(
            (
                site,
                meaning.replace("component", facts.word),
                words,
                "yours" if site in stated else "default",
            )
        )
    header = ("parameter", "what it says", f"prior (of one {facts.word})", "whose")
    return [
        paragraph(
            "Before a single row was seen, parameters were thought to lie where these priors say. Default priors are "
            "weak: a few rows outweigh them."
        ),
        wide(header, rows, of_text=True),
    ]


def prior_in_words(prior: Any) -> str:
    """A distribution with its numbers; of several the smallest and the largest."""
    while isinstance(prior, dist.Independent | dist.ExpandedDistribution):
        prior = prior.base_dist
    name = type(prior).__name__
    if name == "ImproperUniform":
        return "none"
    if name.startswith("Wishart"):
        return f"Wishart with {float(prior.concentration):g} degrees of freedom"
    if name == "Beta":
        return f"Beta({_in_words(prior.concentration1)}, {_in_words(prior.concentration0)})"
    if name == "Dirichlet":
        return f"Dirichlet, {_in_words(prior.concentration)} for each"
    given = [
        f"{argument} {_in_words(getattr(prior, argument))}"
        for argument in prior.arg_constraints
        if getattr(prior, argument, None) is not None
    ]
    return f"{name}, {', '.join(given)}"


def _in_words(values: Any) -> str:
    array = np.asarray(values, float)
    low, high = float(array.min()), float(array.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def components(facts: Facts) -> list[str]:
    """The table of the components."""
    inside = quantities(facts)
    rows = [*_rows(outside(facts)), *_members(facts), *_rows(inside)]
    said = [f"One column for each {facts.word}; the colours are the same on the whole page."]
    by = "share in the long run" if facts.is_chain else "weight"
    if facts.estimator.fit_.relabelled:  # over all draws
        by = "number of rows"
    elif facts.has_posterior:  # whose means may be in another order
        by += " at the most probable parameters"
    said.append(f"They are numbered by falling {by}.")
    if any(q.what == MEAN for q in inside):
        said.append(
            f"Behind ± stands the standard deviation of the column inside of the {facts.word}."
        )
    if facts.has_posterior:
        said.append(
            "Numbers are posterior means; in grey below them the 90% interval: the shortest that holds nine tenths of "
            "the posterior. Intervals that do not overlap show a difference that the table supports."
        )
    else:
        said.append(
            "Numbers are the most probable ones; there is no posterior, and so nothing says how sure they are. Fit "
            "with the method 'vi' (seconds) or 'nuts' to know."
        )
    if facts.count > len(COLOURS):
        said.append(f"After {len(COLOURS)} the colours begin again, and lines are dashed.")
    most = max((len(facts.categories(j)) for j in facts.columns("category")), default=0)
    if most > MOST_CATEGORIES:
        said.append(
            f"Of columns with many categories the {MOST_CATEGORIES} most frequent are shown."
        )
    header = ("", *(chip(k, facts.word) for k in range(facts.count)))
    return [paragraph(*said), wide(header, rows)]


def _members(facts: Facts) -> Iterator[tuple[Any, ...]]:
    if facts.states is not None:
        found = np.bincount(facts.states, minlength=facts.count)
        yield "rows that most probably belong to it", *(f"{c:,}" for c in found)


def _rows(found: Sequence[Quantity]) -> Iterator[tuple[Any, ...]]:
    place = 0
    while place < len(found):
        one = found[place]
        follows = found[place + 1] if place + 1 < len(found) else None
        if one.what == MEAN and follows is not None and (follows.what, follows.of) == (SD, one.of):
            yield f"{one.of}: mean ± sd", *_cells(one, follows)
            place += 2
        else:
            yield one.title, *_cells(one)
            place += 1


def _cells(quantity: Quantity, sd: Quantity | None = None) -> Iterator[Html]:
    for k in range(quantity.values.shape[1]):
        values = quantity.values[:, k]
        spread = SHARE if quantity.is_share else None
        spread = spread if sd is None else float(sd.values[:, k].mean())
        yield _with_intervals(values, None if sd is None else sd.values[:, k], spread)


def _with_intervals(values: np.ndarray, sds: np.ndarray | None, spread: float | None) -> Html:
    shown, low_high = estimate(values, spread)
    if sds is not None:
        sd_shown, sd_low_high = estimate(sds, spread)
        shown += f" ± {sd_shown}"
        low_high = f"{low_high}; sd {sd_low_high}" if low_high else ""
    small = f'<br><span class="interval">{low_high}</span>' if low_high else ""
    return Html(f"{escaped(shown)}{small}")


def estimate(values: np.ndarray, spread: float | None) -> tuple[str, str]:
    """A number, and its interval if it has one."""
    mean = float(values.mean())
    if len(values) == 1:
        return number(mean, spread), ""
    low, high = interval(values)
    scale = high - low if high > low else spread
    return number(mean, scale), f"{number(low, scale)} to {number(high, scale)}"


def interval(values: np.ndarray) -> tuple[float, float]:
    """The shortest that holds 90% of some draws; ArviZ's, as in ``estimator.summary()``."""
    from arviz_stats.base.array import array_stats

    stats: Any = array_stats
    low, high = stats.hdi(np.asarray(values, float), PROBABILITY)
    return float(low), float(high)


def without_options(text: str) -> str:
    """A sentence that names options of Python's, with words for them."""
    return re.sub("|".join(OPTIONS), lambda match: OPTIONS[match[0]], text)


def remarks(facts: Facts) -> Sequence[str]:
    """What is amiss, in words, and what the page leaves out."""
    found = list(facts.estimator.warnings_)
    if found:
        items = "".join(f"<li>{escaped(without_options(m))}</li>" for m in found)
        parts = [Html(f'<div class="note"><strong>To be aware of:</strong><ul>{items}</ul></div>')]
    else:
        parts = [
            Html(
                '<p class="fine">Nothing is amiss: the fit has converged, and no check found a reason for doubt.</p>'
            )
        ]
    if facts.cells is None:
        parts.append(
            Html(
                '<p class="note">This page was written without the table. Left out are the histograms, the points, the '
                "memberships of rows"
                + (", the path of states" if facts.is_chain else "")
                + " and the counts of missing cells. To have them, keep the table in the model file: "
                + code('save("model.mx", estimator, table)')
                + ", or give it to the report: "
                + code('write_report("report.html", estimator, table)')
                + ".</p>"
            )
        )
    elif facts.membership_draws < facts.draws:
        parts.append(
            paragraph(
                "So that this page does not take minutes, its memberships are averaged over "
                f"{facts.membership_draws:,} of the {facts.draws:,} posterior draws, evenly spread; predictions take "
                "all of them."
            )
        )
    return parts


def usage(facts: Facts) -> list[str]:
    """How to go on."""
    what = "states" if facts.is_chain else "memberships"
    commands = (
        "marginax predict model.mx new.csv -o out.csv     # "
        + what
        + " of the rows of another table\n"
        "marginax serve model.mx                          # the same, asked over HTTP"
    )
    python = (
        "from marginax.mixture import load\n"
        'model = load("model.mx")            # what marginax.mixture.save wrote\n'
        f"model.predict(table)                # the most probable {facts.word} of each row\n"
        f"model.predict_proba(table)          # the probability of each {facts.word}\n"
        "model.score_samples(table)          # log density: low for rows that are unlike the others\n"
        "model.sample(100)                   # new rows"
    )
    columns = "columns" if len(facts.names) > 1 else "column"
    return [
        paragraph(
            f"With the model in a file, here model.mx, new tables can be asked about. They need the {columns} "
            f"{listed(facts.names, 12)}; cells may be missing. On the command line:"
        ),
        Html(f"<pre>{escaped(commands)}</pre>"),
        paragraph("In Python:"),
        Html(f"<pre>{escaped(python)}</pre>"),
    ]


def share_of(count: int, total: int) -> str:
    """``"12 of 30 rows (40%)"``."""
    return f"{count:,} of {counted(total, 'row')} ({percent(count / max(total, 1))})"
