"""``marginax predict``: the component of every row of a file, in pieces."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import marginax.cli.tables as tables
from marginax.cli.common import (
    Failure,
    add_job,
    check_writable,
    columns_of,
    explained,
    read_model,
    say,
)


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_job(
        commands,
        "predict",
        run,
        help="the component of each row of a file, with probabilities",
        description="Add to each row of a file its most probable component, the probability of each "
        "(averaged over the posterior, with its standard deviation, where the model has one), and its log density. The "
        "file is read in pieces and may be larger than memory.",
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
    counts, rows, total = np.zeros(model.n_components, int), 0, 0.0
    with tables.writing(given.out) as write:
        for frame in _frames(model, given):
            with explained():
                cells = _columns(model, frame, given.data)
                found = model.membership(cells)
                # Of a series at a point estimate that is the path.
                best = model.predict(cells) if model._is_chain else found.probabilities.argmax(1)
            frame = _with(frame, given.only, best, found, _has_posterior(model))
            write(frame)
            counts += np.bincount(best, minlength=model.n_components)
            rows, total = rows + len(frame), total + float(found.log_density.sum())
    if not rows:
        raise Failure(f"{given.data} has no rows.")
    if given.json:
        import json

        summary = {"rows": rows, "components": counts.tolist(), "mean_log_density": total / rows}
        print(json.dumps(summary | {"out": str(given.out)}))
    elif not given.quiet:
        shares = ", ".join(f"{n} in component {k}" for k, n in enumerate(counts))
        where = f"; written to {given.out}" if given.out else ""
        say(f"{rows} rows: {shares}; mean log density {total / rows:.4f}{where}")
    return 0


def _frames(model: Any, given: argparse.Namespace) -> Any:
    """The table in pieces; that of a hidden Markov model is one series, and whole."""
    words = [model.column_names_[j] for j in model.categories_ if _are_words(model.categories_[j])]
    if model._is_chain:
        return [tables.read(given.data, given)]
    numbers = [n for j, n in enumerate(model.column_names_) if j not in model.categories_]
    return tables.pieces(given.data, given, words, numbers)


def _are_words(categories: tuple[Any, ...]) -> bool:
    return all(isinstance(category, str) for category in categories)


def _has_posterior(model: Any) -> bool:
    return len(next(iter(model.fit_.draws.values()))) > 1


def _columns(model: Any, frame: Any, path: Path) -> Any:
    """The model's columns, in its order."""
    chosen = columns_of(model, frame, path)
    if hasattr(model, "feature_names_in_"):
        return chosen
    return chosen.to_numpy()


def _with(frame: Any, only: bool, best: np.ndarray, found: Any, has_posterior: bool) -> Any:
    """The frame with the answers as new columns."""
    import pandas as pd

    new = {"component": best}
    new |= {f"probability_{k}": p for k, p in enumerate(found.probabilities.T)}
    if has_posterior:
        new |= {f"std_{k}": s for k, s in enumerate(found.spread.T)}
    new["log_density"] = found.log_density
    if only:
        return pd.DataFrame(new)
    taken = [name for name in new if name in frame.columns]
    if taken:
        raise Failure(
            f"the input has the columns {', '.join(map(repr, taken))} already; give --only, which leaves those of the "
            "input out, or rename them."
        )
    return frame.assign(**new)
