"""``marginax fit``: a mixture, or a hidden Markov model, of the columns of a file."""

from __future__ import annotations

import argparse
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
    count,
    explained,
    model_fits,
    names,
    say,
    show,
    shows_progress,
)

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
            found = [int(part) for part in text.split(",")]
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
    parser.add_argument("--columns", type=names, metavar="A,B", help="use only these columns")
    parser.add_argument(
        "--drop", type=names, default=[], metavar="A,B", help="leave these columns out"
    )
    for family, what in FAMILIES.items():
        parser.add_argument(f"--{family}", type=names, default=[], metavar="A,B", help=what)
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
    parser.add_argument(
        "--starts", type=count, default=10, metavar="N", help="starts of each fit (default: 10)"
    )
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
    frame = _chosen(tables.read(given.data, given), given)
    with explained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are in the result, and said below
        estimator = _estimator(frame, given)
        from marginax.mixture import save, select

        def progress(number: int) -> None:
            if not given.quiet:
                say(
                    f"fitting {number} component{'s' if number > 1 else ''} to {len(frame)} rows ..."
                )

        found = select(
            frame, given.components, estimator, criterion=given.criterion, progress=progress
        )
        best = found.best
        save(given.out, best, None if given.without_data else frame)
    if given.plot is not None:
        found.plot().savefig(given.plot, dpi=120)
    data = model_fits(best) | {"model": str(given.out)}
    text = _words(best, given.out)
    if len(given.components) > 1:
        data |= {"comparison": list(found.rows), "criterion": found.criterion}
        text = f"{found}\n\n{text}"
    show(given, text, data)
    for message in best.warnings_:
        say(f"warning: {message}")
    return 0


def _chosen(frame: Any, given: argparse.Namespace) -> Any:
    """The columns that are asked for."""
    known = [str(name) for name in frame.columns]
    frame.columns = known
    for name in [*(given.columns or []), *given.drop]:
        if name not in known:
            raise Failure(
                f"{given.data} has no column '{name}'; its columns are: {', '.join(known)}."
            )
    keep = [n for n in (given.columns or known) if n not in given.drop]
    if not keep:
        raise Failure("no column is left to fit.")
    return frame[keep]


def _estimator(frame: Any, given: argparse.Namespace) -> Any:
    """The estimator that the options describe."""
    from marginax.mixture import GaussianMixture, HiddenMarkov, MixtureModel
    from marginax.mixture.gaussian_mixture import COVARIANCES

    known = list(frame.columns)
    named: dict[str, list[str]] = {}
    for family in FAMILIES:
        columns = getattr(given, family.replace("-", "_"))
        for name in columns:
            if name not in known:
                raise Failure(
                    f"--{family} names column '{name}'; the columns are: {', '.join(known)}."
                )
        if columns:
            named[family] = columns
    owned = {name for columns in named.values() for name in columns}
    rest = [name for name in known if name not in owned]
    _refuse_words(frame, [n for n in known if n not in named.get("categorical", [])])
    options = {
        "method": given.method,
        "n_init": given.starts,
        "random_state": given.seed,
        "verbose": shows_progress(given),
    }
    gaussian = COVARIANCES[given.covariance]
    groups: Any = [(family, family.replace("-", "_"), columns) for family, columns in named.items()]
    if rest:
        groups.append(("numbers" if "gaussian" in named else "gaussian", gaussian, rest))
    if given.hmm:
        return HiddenMarkov(components=groups if named else gaussian, **options)
    if not named:
        return GaussianMixture(covariance_type=given.covariance, **options)
    return MixtureModel(components=groups, **options)


def _refuse_words(frame: Any, columns: list[str]) -> None:
    """Words where numbers are needed: is the column to be left out, or is it categories?"""
    from marginax.mixture.tables import is_missing

    for name in columns:
        cells = frame[name]
        if cells.dtype.kind in "fiub":
            continue
        for row, cell in enumerate(cells):
            if is_missing(cell) or isinstance(cell, int | float):
                continue
            hint = ""
            if isinstance(cell, str) and cell.replace(",", "").replace("-", "").isdecimal():
                hint = " (Is it a decimal comma? Then: --decimal ,)"
            raise Failure(
                f"column '{name}' has words in it, such as {str(cell)!r} in row {row + 1}{hint}. Leave it out with "
                f"--drop {quote(name)}, or take it for categories with --categorical {quote(name)}."
            )


def _words(model: Any, path: Path) -> str:
    """What was fitted, in words."""
    parameters = model.parameters_
    lines = [
        f"{type(model).__name__}, {model.n_components} components, {model.n_rows_} rows, columns "
        f"{', '.join(model.column_names_)}"
    ]
    for name, value in parameters.items():
        lines.append(f"  {name}:")
        lines += [f"    {line}" for line in str(value.round(4)).splitlines()]
    if model.fit_.restarts:
        lines.append(model.fit_.restarts)
    lines.append(f"model written to {path}; next: marginax report {path} -o report.html")
    return "\n".join(lines)
