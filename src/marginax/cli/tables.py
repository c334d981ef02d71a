"""CSV and Parquet files as tables, whole or in pieces; Arrow reads and writes them.

What a CSV file does not say of itself is found out and said aloud: what stands between columns, whether the first line
has their names. What would be guessing (words in a column of numbers, decimal commas) is an error that names the
option to give.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marginax.cli.common import Failure, say
from marginax.storage.atomic import replacing

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
EMPTY = ["", "NA", "N/A", "na", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "?", "-", "."]
"""What stands for a missing cell."""
LOOKED_AT = 2**16
PIECE = 2**22
"""Bytes of a CSV file that are read at once."""
ROWS = 2**14
"""Rows of a Parquet file that are read at once."""


@dataclass(frozen=True)
class Layout:
    """How a CSV file is written."""

    separator: str
    has_header: bool
    decimal: str
    names: tuple[str, ...]


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Options that say how a table is written."""
    parser.add_argument(
        "--sep", metavar="CHAR", help="what stands between columns; found out if not given"
    )
    parser.add_argument(
        "--no-header", action="store_true", help="the first line has values, not names of columns"
    )
    parser.add_argument(
        "--decimal",
        metavar="CHAR",
        default=".",
        choices=[".", ","],
        help="decimal point (default: .)",
    )


def is_parquet(path: Path) -> bool:
    """By its name, and by what it begins with."""
    if not path.exists():
        raise Failure(f"there is no file {path}.")
    if path.is_dir():
        raise Failure(f"{path} is a folder; give a CSV or Parquet file.")
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def read(path: Path, given: argparse.Namespace) -> Any:
    """A whole table as a pandas frame."""
    with _arrow_explained(path):
        if is_parquet(path):
            import pyarrow.parquet as parquet

            table = parquet.read_table(path)
        else:
            layout = _layout(path, given)
            table = _csv(path, layout, max(path.stat().st_size + 1, PIECE)).read_all()
        if table.num_rows == 0:
            raise Failure(f"{path} has no rows.")
        return _as_frame(table)


def pieces(
    path: Path, given: argparse.Namespace, words: Sequence[str], numbers: Sequence[str]
) -> Iterator[Any]:
    """A table in pieces, as pandas frames, in memory that does not grow with the file.

    Parameters
    ----------
    path : Path
    given : Namespace
        Options of `add_reading`.
    words, numbers : sequences of str
        Columns that are read as text and as numbers; others as they seem to be.
    """
    with _arrow_explained(path):
        if is_parquet(path):
            import pyarrow.parquet as parquet

            with parquet.ParquetFile(path) as file:
                yield from (_as_frame(batch) for batch in file.iter_batches(ROWS))
            return
        layout = _layout(path, given)
        with _csv(path, layout, PIECE, words, numbers) as reader:
            for batch in reader:
                if batch.num_rows:
                    yield _as_frame(batch)


@contextmanager
def writing(path: Path | None) -> Iterator[Any]:
    """A function that appends a pandas frame to a file, CSV or by its name Parquet; None: standard output, CSV."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    writer: list[Any] = []

    with ExitStack() as stack:
        file = _standard_output() if path is None else stack.enter_context(replacing(path))
        sink: Any = pa.PythonFile(file, "w")

        def write(frame: Any) -> None:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if not writer:
                if path is not None and path.suffix.lower() in (".parquet", ".pq"):
                    writer.append(pyarrow.parquet.ParquetWriter(sink, table.schema))
                else:
                    writer.append(pyarrow.csv.CSVWriter(sink, table.schema))
                stack.callback(writer[0].close)
            writer[0].write_table(
                table.cast(writer[0].schema if hasattr(writer[0], "schema") else table.schema)
            )

        yield write


def _standard_output() -> Any:
    import sys

    return sys.stdout.buffer


def _as_frame(table: Any) -> Any:
    """Arrow's dictionaries and null columns as plain ones."""
    frame = table.to_pandas()
    for name in frame.columns:
        if frame[name].dtype == object and all(cell is None for cell in frame[name]):
            frame[name] = np.nan
    return frame


def _csv(
    path: Path, layout: Layout, block: int, words: Sequence[str] = (), numbers: Sequence[str] = ()
) -> Any:
    import pyarrow as pa
    import pyarrow.csv

    known = {name: pa.string() for name in words} | {name: pa.float64() for name in numbers}
    return pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(
            block_size=block, column_names=layout.names, skip_rows=1 if layout.has_header else 0
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=layout.separator, newlines_in_values=False
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            null_values=EMPTY,
            strings_can_be_null=True,
            decimal_point=layout.decimal,
            column_types=known,
        ),
    )


def _layout(path: Path, given: argparse.Namespace) -> Layout:
    """What a CSV file looks like, by its first lines and what was said."""
    with open(path, "rb") as file:
        begin = file.read(LOOKED_AT)
    if b"\0" in begin:
        raise Failure(f"{path} is no text; give a CSV or Parquet file.")
    try:
        text = begin.decode("utf-8-sig", errors="strict" if len(begin) < LOOKED_AT else "ignore")
    except UnicodeDecodeError:
        raise Failure(
            f"{path} is not UTF-8 text; save it as UTF-8 (in Excel: 'CSV UTF-8'), or: iconv -t UTF-8"
        ) from None
    lines = [line for line in text.splitlines() if line.strip()]
    if len(begin) == LOOKED_AT and len(lines) > 1:
        lines = lines[:-1]  # the last may be cut
    if not lines:
        raise Failure(f"{path} is empty.")
    separator = given.sep or _separator(lines)
    if separator in ("\\t", "tab"):
        separator = "\t"
    if len(separator) != 1:
        raise Failure(f"--sep must be one character, or 'tab', not {separator!r}.")
    rows = list(csv.reader(io.StringIO("\n".join(lines[:50])), delimiter=separator))
    first = [cell.strip() for cell in rows[0]]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        number = next(i for i, row in enumerate(rows) if len(row) != len(first))
        raise Failure(
            f"{path}: line {number + 1} has {len(rows[number])} columns and the first line {len(first)}. Between "
            f"columns {SEPARATORS.get(separator, repr(separator))} are expected; say what it is with --sep, or mend "
            "the line."
        )
    has_header = not given.no_header and not all(_is_number(cell, given.decimal) for cell in first)
    if not given.sep and separator != ",":
        say(f"{path.name}: read with {SEPARATORS[separator]} between columns.")
    if not has_header:
        if not given.no_header:
            say(
                f"{path.name}: the first line has only numbers, so the columns are called x0, x1, ..."
            )
        return Layout(separator, False, given.decimal, tuple(f"x{j}" for j in range(len(first))))
    named = [name or f"x{j}" for j, name in enumerate(first)]
    double = sorted({name for name in named if named.count(name) > 1})
    if double:
        raise Failure(
            f"{path}: several columns are called {', '.join(map(repr, double))}; rename them."
        )
    return Layout(separator, True, given.decimal, tuple(named))


def _separator(lines: Sequence[str]) -> str:
    """The character that stands in every line equally often; of several, the most frequent."""
    best, most = ",", 0
    for candidate in SEPARATORS:
        counts = {
            len(row) for row in csv.reader(io.StringIO("\n".join(lines[:50])), delimiter=candidate)
        }
        if len(counts) == 1 and (found := counts.pop()) > max(most, 1):
            best, most = candidate, found
    return best


def _is_number(cell: str, decimal: str) -> bool:
    try:
        float(cell.replace(decimal, "."))
    except ValueError:
        return cell in EMPTY
    return True


@contextmanager
def _arrow_explained(path: Path) -> Iterator[None]:
    """Arrow's errors, as failures that say which file."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        text = str(error)
        hint = ""
        if "conversion error" in text:
            hint = " Is a cell no number, or written with a decimal comma (--decimal ,)?"
        if "Expected" in text and "columns" in text:
            hint = " Say with --sep what stands between columns, or mend the line."
        raise Failure(f"{path}: {text.rstrip('.')}.{hint}") from error
