"""``marginax fit``: a mixture, or a hidden Markov model, of the columns of a file."""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from shlex import quote
from typing import Any

import marginax.cli.tables as tables
from marginax.cli.common import (
    Failure,
    add_common,
    add_job,
    check_writable,
    counted,
    explained,
    model_fits,
    names,
    say,
    show,
)
from marginax.cli.doubtful import doubts
from marginax.cli.fitting import add_fitting, fitting, say_warnings
from marginax.cli.parameters import columns, point_table, summary_text
from marginax.cli.wording import in_options
from marginax.storage import replacing

EXAMPLES = """
examples:
  marginax fit data.csv -k 3 -o model.mx
  marginax fit data.csv -k 1..8 -o model.mx                     choose the number of components
  marginax fit data.csv -k 2 --columns length,width --method nuts -o model.mx
  marginax fit visits.csv -k 1..4 --poisson visits --categorical city -o model.mx
  marginax fit series.csv -k 3 --hmm -o states.mx               rows are steps in time
"""

FAMILIES = {
    "gaussian": "columns of real numbers that vary together",
    "normal": "columns of real numbers, independent inside of a component",
    "student-t": "real numbers with outliers",
    "log-normal": "numbers above 0",
    "gamma": "numbers above 0",
    "poisson": "counts",
    "negative-binomial": "counts that vary more than Poisson's",
    "beta": "proportions between 0 and 1",
    "bernoulli": "zeros and ones",
    "categorical": "words, or any categories",
}
MOST_COMPONENTS = 100


def components(text: str) -> list[int]:
    """``3``, ``1..8`` or ``2,4,6``."""
    try:
        if ".." in text:
            first, last = (int(part) for part in text.split(".."))
            found = list(range(first, last + 1))
        else:
            found = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        found = []
    if not found or min(found) < 1 or max(found) > MOST_COMPONENTS:
        raise argparse.ArgumentTypeError(
            f"it must be a number of components such as 3, a range such as 1..8 or a list such as 2,4 "
            f"(from 1 to {MOST_COMPONENTS}), not {text!r}"
        )
    return found


PICTURES = (".png", ".svg", ".pdf")


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_job(
        commands,
        "fit",
        run,
        help="fit a mixture to a CSV or Parquet file",
        description="Fit a mixture (or with --hmm a hidden Markov model) to the columns of a file. Missing cells are "
        "summed out. Columns are Gaussian unless an option below names them.",
        epilog=EXAMPLES,
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="a CSV or Parquet file")
    parser.add_argument(
        "-k",
        "--components",
        type=components,
        required=True,
        metavar="K",
        help="how many: 3, 1..8 or 2,4",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="MODEL",
        help="where the model goes (model.mx)",
    )
    parser.add_argument(
        "--columns", action="extend", type=names, metavar="A,B", help="use only these columns"
    )
    parser.add_argument(
        "--drop",
        action="extend",
        type=names,
        default=[],
        metavar="A,B",
        help="leave these columns out",
    )
    for family, what in FAMILIES.items():
        parser.add_argument(
            f"--{family}", action="extend", type=names, default=[], metavar="A,B", help=what
        )
    parser.add_argument(
        "--covariance",
        default="full",
        choices=["full", "tied", "diag", "spherical"],
        help="of Gaussian columns (default: full)",
    )
    parser.add_argument(
        "--hmm", action="store_true", help="rows are steps in time: a hidden Markov model"
    )
    parser.add_argument(
        "--method",
        default="map",
        choices=["map", "vi", "nuts"],
        help="most probable parameters (default), or their posterior as well",
    )
    parser.add_argument(
        "--criterion",
        choices=["loo", "bic"],
        help="what chooses among several K (default: loo with a posterior, otherwise bic)",
    )
    add_fitting(parser)
    parser.add_argument(
        "--without-data",
        action="store_true",
        help="do not keep the table in the model file (reports show it; posterior needs it)",
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the comparison of several K")
    tables.add_reading(parser)
    add_common(parser)


def run(given: argparse.Namespace) -> int:
    """Run it."""
    check_writable(given.out, given.data)
    if given.plot is not None:
        check_writable(given.plot, given.data, given.out)
        if given.plot.suffix.lower() not in PICTURES:
            raise Failure(f"--plot writes {', '.join(PICTURES)}, not {given.plot.name}.")
    file = tables.opened(given.data, given)
    chosen = _chosen(file, given)
    named = _families(chosen, given)
    options = fitting(given, given.method)
    if given.hmm:
        file.refuse_gaps()
    frame = tables.for_fit(file, chosen, named.get("categorical", []), quote)
    doubtful = list(doubts(frame))
    for message in doubtful:
        say(f"warning: {message}")
    with explained(file.place), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are in the result, and said below
        estimator = _estimator(chosen, named, given, options)
        from marginax.mixture import save, select

        def progress(number: int) -> None:
            given.interrupts.stop_if_asked()
            if not given.quiet:
                say(f"fitting {counted(number, 'component')} to {counted(len(frame), 'row')} ...")

        found = select(
            frame, given.components, estimator, criterion=given.criterion, progress=progress
        )
        given.interrupts.stop_if_asked()
        best = found.best
        save(given.out, best, None if given.without_data else frame)
        summary = None if given.method == "map" else best.summary()
    if given.plot is not None:
        with replacing(given.plot) as file:
            found.plot().savefig(file, format=given.plot.suffix[1:].lower(), dpi=120)
    bic = found.rows[found.chosen]["bic"]
    likelihood = (best.n_parameters_ * math.log(best.n_rows_) - bic) / 2
    data = model_fits(best) | {"model": str(given.out), "log_likelihood": likelihood, "bic": bic}
    data["warnings"] = [*doubtful, *data["warnings"]]
    if summary is not None:
        data["summary"] = summary
    text = [_heading(best, likelihood, bic)]
    text.append(point_table(best) if summary is None else summary_text(best, summary))
    if best.fit_.restarts:
        text.append(best.fit_.restarts)
    text.append(f"model written to {given.out}; next: marginax report {given.out} -o report.html")
    if len(given.components) > 1:
        data |= {"comparison": list(found.rows), "criterion": found.criterion}
        text.insert(0, f"{_comparison(found)}\n")
    show(given, "\n".join(text), data)
    say_warnings(best)
    return 0


def _chosen(file: tables.ParquetFile | tables.CsvFile, given: argparse.Namespace) -> list[str]:
    """The columns that are asked for."""
    known = file.names
    there, dropped = set(known), set(given.drop)
    for name in [*(given.columns or []), *given.drop]:
        if name not in there:
            raise Failure(
                f"{given.data} has no column '{name}'; its columns are: {', '.join(known)}."
            )
    usual = [n for n in known if n not in file.index]
    keep = [n for n in (given.columns or usual) if n not in dropped]
    if not keep:
        raise Failure("no column is left to fit.")
    return keep


def _families(chosen: list[str], given: argparse.Namespace) -> dict[str, list[str]]:
    """The columns of each family that an option names."""
    named: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    there = set(chosen)
    for family in FAMILIES:
        for name in getattr(given, family.replace("-", "_")):
            if name not in there:
                raise Failure(
                    f"--{family} names column '{name}'; the columns are: {', '.join(chosen)}."
                )
            if name in owner:
                raise Failure(
                    f"--{owner[name]} and --{family} both name column '{name}'; give it one."
                )
            owner[name] = family
            named.setdefault(family, []).append(name)
    return named


def _estimator(
    chosen: list[str],
    named: dict[str, list[str]],
    given: argparse.Namespace,
    options: dict[str, Any],
) -> Any:
    """The estimator that the options describe."""
    from marginax.mixture import GaussianMixture, HiddenMarkov, MixtureModel
    from marginax.mixture.gaussian_mixture import COVARIANCES

    owned = {name for columns in named.values() for name in columns}
    rest = [name for name in chosen if name not in owned]
    gaussian = COVARIANCES[given.covariance]
    groups: Any = [(family, family.replace("-", "_"), columns) for family, columns in named.items()]
    if rest:
        groups.append(("numbers" if "gaussian" in named else "gaussian", gaussian, rest))
    if given.hmm:
        return HiddenMarkov(components=groups if named else gaussian, **options)
    if not named:
        return GaussianMixture(covariance_type=given.covariance, **options)
    return MixtureModel(components=groups, **options)


def _heading(model: Any, likelihood: float, bic: float) -> str:
    """What was fitted, in words."""
    return (
        f"{type(model).__name__}, {counted(model.n_components, 'component')}, {counted(model.n_rows_, 'row')}, columns "
        f"{', '.join(model.column_names_)}\n"
        f"{counted(model.n_parameters_, 'parameter')}, log likelihood {likelihood:.2f}, BIC {bic:.2f}"
    )


def _comparison(found: Any) -> str:
    """The numbers of components side by side, the chosen one marked."""
    from marginax.mixture.selection import shown

    heading = [name for name in found.rows[0] if name != "warnings"]
    rows = [["", *heading]]
    for number, row in enumerate(found.rows):
        texts = [shown(name, row[name]) for name in heading]
        rows.append(["*" if number == found.chosen else "", *texts])
    remarks = [
        f"{counted(row['components'], 'component')}: {in_options(message)}"
        for row in found.rows
        for message in row["warnings"]
    ]
    return "\n".join([columns(rows), *remarks])
