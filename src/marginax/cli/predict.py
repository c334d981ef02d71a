"""``marginax predict``: the component of every row of a file, in pieces."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import marginax.cli.tables as tables
from marginax.cli.common import (
    Failure,
    add_job,
    check_writable,
    counted,
    explained,
    read_model,
    say,
)
from marginax.cli.writing import check_suffix, is_parquet, writing


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_job(
        commands,
        "predict",
        run,
        help="the component of each row of a file, with probabilities",
        description="Add to each row of a file its most probable component, the probability of each "
        "(averaged over the posterior, with its standard deviation, where the model has one), and its log density. The "
        "file is read in pieces and may be larger than memory. Its own columns are passed on as they stand.",
        epilog="examples:\n  marginax predict model.mx new.csv -o out.csv\n"
        "  marginax predict model.mx new.parquet -o out.parquet\n  marginax predict model.mx new.csv | head",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="what marginax fit wrote")
    parser.add_argument("data", type=Path, metavar="DATA", help="a CSV or Parquet file")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help=".csv or .parquet; standard output if not given",
    )
    parser.add_argument("--only", action="store_true", help="leave out the columns of the input")
    tables.add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print a summary as JSON (needs -o)")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def run(given: argparse.Namespace) -> int:
    """Run it."""
    if given.json and given.out is None:
        raise Failure("--json needs -o, as the rows would go to standard output.")
    model = read_model(given.model)
    if given.out is not None:
        check_writable(given.out, given.data, given.model)
        check_suffix(given.out)
    file = tables.opened(given.data, given)
    tables.check_columns(model, file)
    if not given.only:
        _refuse_taken(model, file)
    as_numbers = is_parquet(given.out) and isinstance(file, tables.CsvFile)
    counts, rows, total = np.zeros(model.n_components, int), 0, 0.0
    with writing(given.out) as write:
        # A hidden Markov model takes a table for one series.
        for table in [file.whole()] if model._is_chain else file.pieces():
            cells = tables.columns_of(model, file, table, rows)
            with explained(partial(_place, file, rows)):
                found = model.membership(cells)
                # Of a series at a point estimate that is the path.
                best = model.predict(cells) if model._is_chain else found.probabilities.argmax(1)
            if as_numbers:
                table = _with_numbers(model, table, cells)
            write(_with(table, given.only, _answers(model, best, found)))
            counts += np.bincount(best, minlength=model.n_components)
            rows, total = rows + len(best), total + float(found.log_density.sum())
    if not rows:
        raise Failure(f"{given.data} has no rows.")
    if given.json:
        import json

        summary = {"rows": rows, "components": counts.tolist(), "mean_log_density": total / rows}
        print(json.dumps(summary | {"out": str(given.out)}))
    elif not given.quiet:
        shares = ", ".join(f"{n} in component {k}" for k, n in enumerate(counts))
        where = f"; written to {given.out}" if given.out else ""
        say(f"{counted(rows, 'row')}: {shares}; mean log density {total / rows:.4f}{where}")
    return 0


def _place(file: tables.File, first: int, row: int) -> str:
    """Where a row of a piece stands."""
    return file.place(first + row)


def _has_posterior(model: Any) -> bool:
    return len(next(iter(model.fit_.draws.values()))) > 1


def _names(model: Any) -> list[str]:
    """Of the columns that are added."""
    each = range(model.n_components)
    spread = [f"std_{k}" for k in each] if _has_posterior(model) else []
    return ["component", *(f"probability_{k}" for k in each), *spread, "log_density"]


def _answers(model: Any, best: np.ndarray, found: Any) -> dict[str, np.ndarray]:
    """The columns that are added."""
    spread = found.spread.T if _has_posterior(model) else ()
    values = [best, *found.probabilities.T, *spread, found.log_density]
    return dict(zip(_names(model), values, strict=True))


def _refuse_taken(model: Any, file: tables.File) -> None:
    taken = [name for name in _names(model) if name in file.names]
    if taken:
        raise Failure(
            f"the input has the columns {', '.join(map(repr, taken))} already; give --only, which leaves those of the "
            "input out, or rename them."
        )


def _with_numbers(model: Any, table: Any, cells: Any) -> Any:
    """What a Parquet file has as numbers, if the model has taken the texts of a CSV file for such."""
    import pyarrow as pa

    by_column = np.asarray(cells, object).T
    for j, name in enumerate(model.column_names_):
        if j not in model.categories_:
            values = pa.array(by_column[j].astype(np.float64), from_pandas=True)
            table = table.set_column(table.column_names.index(name), name, values)
    return table


def _with(table: Any, only: bool, answers: dict[str, np.ndarray]) -> Any:
    """A piece of the input, unchanged, and the answers as new columns."""
    import pyarrow as pa

    if only:
        return pa.table(answers)
    for name, values in answers.items():
        table = table.append_column(name, pa.array(values))
    return table
