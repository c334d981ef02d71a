"""What the subcommands share: how they speak, read models, and take options."""

from __future__ import annotations

import argparse
import csv
import errno
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from marginax.cli.wording import in_options


class Failure(Exception):
    """A job cannot be done; the message is for the person who asked for it."""


def say(text: str) -> None:
    """Tell the person, apart from results."""
    print(text, file=sys.stderr, flush=True)


def show(given: argparse.Namespace, text: str, data: Mapping[str, Any]) -> None:
    """Print a result: as JSON if that was asked for, otherwise as text."""
    print(json.dumps(plain(data), indent=1, allow_nan=False) if given.json else text)


def plain(value: Any) -> Any:
    """Arrays as lists, and numbers that JSON does not know as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


@contextmanager
def explained(place: Callable[[int], str] | None = None) -> Iterator[None]:
    """What the library refuses with words is a failure with these words, as someone at a terminal needs them.

    Parameters
    ----------
    place : callable, optional
        Where a row of the table, counted from 0, stands in its file.
    """
    from marginax.errors import ModelError
    from marginax.storage import StorageError

    try:
        yield
    except (StorageError, ModelError, ValueError, TypeError) as error:
        raise Failure(in_options(str(error), place)) from error


def counted(count: int, thing: str) -> str:
    """``"1 row"``, ``"2 rows"``."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def read_model(path: Path) -> Any:
    """A fitted estimator."""
    from marginax.mixture import load

    if not path.exists():
        raise Failure(
            f"there is no file {path}; make one with: marginax fit data.csv -k 1..5 -o {path}"
        )
    with explained():
        return load(path)


def check_writable(path: Path, *inputs: Path | None) -> None:
    """Fail before the work rather than after it, and never write over what is read."""
    for given in inputs:
        if given is not None and given.exists() and path.exists() and path.samefile(given):
            raise Failure(f"{path} would overwrite {given}, which is read; name another file.")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise Failure(f"cannot write to {path}: it is no ordinary file")
    if path.is_dir():
        raise Failure(f"cannot write to {path}: it is a folder")
    folder = path.parent
    if not folder.is_dir():
        raise Failure(f"cannot write to {path}: there is no folder {folder}")
    try:
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with tempfile.TemporaryFile(dir=path.resolve().parent):  # where the new one begins
            pass
    except OSError as error:
        raise Failure(f"cannot write to {path}: {error.strerror or error}") from error


def seed(text: str) -> int:
    """A whole number of 32 bits: with more, different seeds would give the same random numbers."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"it must be a whole number from 0 to {2**32 - 1}, not {text!r}"
        )
    return int(text)


def count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"it must be a whole number from 1, not {text!r}")
    return int(text)


def names(text: str) -> list[str]:
    """Names with commas between them; one that has a comma in it stands in quotes, as in a CSV file."""
    row = next(csv.reader([text], skipinitialspace=True), [])
    found = [name.strip() for name in row if name.strip()]
    double = sorted(name for name, count in Counter(found).items() if count > 1)
    if double:
        raise argparse.ArgumentTypeError(f"it names {', '.join(map(repr, double))} more than once")
    return found


def add_common(parser: argparse.ArgumentParser, random: bool = True) -> None:
    """Options that most jobs have."""
    if random:
        parser.add_argument(
            "--seed", type=seed, default=0, metavar="N", help="random seed (default: %(default)s)"
        )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def shows_progress(given: argparse.Namespace) -> bool:
    """Whether to show progress bars: to a person at a terminal."""
    return sys.stderr.isatty() and not given.quiet


def add_job(commands: Any, name: str, run: Any, **texts: str) -> argparse.ArgumentParser:
    """A subcommand, with its function."""
    parser = commands.add_parser(
        name, formatter_class=argparse.RawDescriptionHelpFormatter, **texts
    )
    parser.set_defaults(run=run)
    return parser


def stored_table(model: Any, path: Path) -> Any:
    """The table in a model file, as a pandas frame."""
    import pandas as pd

    if not hasattr(model, "table_"):
        raise Failure(
            f"{path} was written without its table (fit --without-data); give the table with --data FILE."
        )
    columns = {}
    for j, name in enumerate(model.column_names_):
        cells = model.table_[:, j]
        categories = model.categories_.get(j)
        columns[name] = cells if categories is None else _words(cells, categories)
    frame = pd.DataFrame(columns)
    return frame if hasattr(model, "feature_names_in_") else frame.to_numpy()


def _words(cells: np.ndarray, categories: Any) -> np.ndarray:
    found = np.full(len(cells), None, object)
    there = ~np.isnan(cells)
    found[there] = [categories[int(code)] for code in cells[there]]
    return found


def model_fits(model: Any) -> dict[str, Any]:
    """A fitted model in short, for JSON."""
    return {
        "estimator": type(model).__name__,
        "components": model.n_components,
        "method": model.method,
        "columns": list(model.column_names_),
        "rows": model.n_rows_,
        "parameters": model.parameters_,
        "n_parameters": model.n_parameters_,
        "starts": model.fit_.restarts,
        "warnings": [in_options(message) for message in model.warnings_],
    }
