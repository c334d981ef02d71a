"""CSV and Parquet files as tables, whole or in pieces; Arrow reads them.

Cells of a CSV file stay the texts that they are until a column is asked for as numbers or categories (`cells`). So
what no model uses can be passed on unchanged, and a cell that cannot be used is found where it stands.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marginax.cli import cells
from marginax.cli.common import Failure, counted
from marginax.cli.layout import (
    EMPTY,
    Layout,
    layout_of,
    not_unicode,
    refuse_double,
    refuse_unclosed,
    unclosed,
)

PIECE = 2**22
"""Bytes of a CSV file that are read at once."""
ROWS = 2**14
"""Rows of a Parquet file that are read at once."""
MISSING = (
    f"Cells that are empty, or hold one of {' '.join(EMPTY[1:])} and nothing else, are missing."
)
"""For help."""


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Options that say how a table is written."""
    group = parser.add_argument_group("how the file is written", MISSING)
    group.add_argument(
        "--sep", metavar="CHAR", help="what stands between columns; found out if not given"
    )
    group.add_argument(
        "--no-header", action="store_true", help="the first line has values, not names of columns"
    )
    group.add_argument(
        "--decimal",
        metavar="CHAR",
        default=".",
        choices=[".", ","],
        help="decimal point (default: .)",
    )


@dataclass(frozen=True)
class File:
    """A file with a table."""

    path: Path
    names: tuple[str, ...]
    """Of its columns."""
    index: tuple[str, ...] = field(default=(), kw_only=True)
    """Names of columns that are the index of a pandas frame, and no data."""

    def pieces(self) -> Iterator[Any]:
        """The table in pieces, as Arrow's tables, in memory that does not grow with the file."""
        raise NotImplementedError

    def whole(self) -> Any:
        """The whole table."""
        import pyarrow as pa

        found = list(self.pieces())
        if not found:
            raise Failure(f"{self.path} has no rows.")
        return pa.concat_tables(found)

    def place(self, row: int) -> str:
        """Where a row, counted from 0, stands in the file."""
        return f"row {row + 1}"

    def refuse_gaps(self) -> None:
        """Raise a Failure for an empty line between rows of several columns, where rows are steps in time.

        Elsewhere such a line is none of the rows, as for pandas.
        """

    def numbers(self, table: Any, name: str, advice: str, first: int = 0) -> Any:
        """A column of a piece as numbers; ``first``: the number of the piece's first row."""
        return cells.numbers(
            table[name],
            name,
            self.path,
            lambda row: self.place(first + row),
            advice,
            self._decimal(),
        )

    def _decimal(self) -> str:
        return "."


@dataclass(frozen=True)
class ParquetFile(File):
    """Cells are of the types that the file says."""

    def pieces(self) -> Iterator[Any]:
        """The table in pieces."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        with _explained(self.path), parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(ROWS):
                yield pa.Table.from_batches([batch])


@dataclass(frozen=True)
class CsvFile(File):
    """Cells are texts, as they stand in the file."""

    layout: Layout

    def pieces(self) -> Iterator[Any]:
        """The table in pieces."""
        import pyarrow as pa
        import pyarrow.csv

        with _explained(self.path, self.layout):
            reader = pyarrow.csv.open_csv(
                self.path,
                read_options=pyarrow.csv.ReadOptions(
                    block_size=max(PIECE, 4 * self.layout.longest),
                    column_names=self.names,
                    skip_rows=self.layout.skipped,
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=self.layout.separator,
                    ignore_empty_lines=not self.layout.has_empty_rows,
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(self.names, pa.string()), strings_can_be_null=False
                ),
            )
            with reader:
                for batch in reader:
                    if any(_has_line_breaks(column) for column in batch.columns):
                        _refuse_line(self.path, self.layout)
                    if batch.num_rows:
                        yield pa.Table.from_batches([batch])

    def place(self, row: int) -> str:
        """The line of a row; empty ones are none where there are several columns."""
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if number > self.layout.skipped and (self.layout.has_empty_rows or line != "\n"):
                    if row == 0:
                        return f"line {number}"
                    row -= 1
        raise IndexError(row)

    def refuse_gaps(self) -> None:
        """See `File`."""
        if self.layout.has_empty_rows:
            return
        empty = 0
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if number <= self.layout.skipped:
                    continue
                if line == "\n":
                    empty = empty or number
                elif empty:
                    raise Failure(
                        f"{self.path}: line {empty} is empty, and rows are steps in time here. If a step is missing, "
                        f"write its cells as empty ones ({self.layout.separator * (len(self.names) - 1)}); if not, "
                        "take the line out."
                    )

    def _decimal(self) -> str:
        return self.layout.decimal


def opened(path: Path, given: argparse.Namespace) -> ParquetFile | CsvFile:
    """A file, by what it begins with: how it is written, and the names of its columns.

    Raises
    ------
    Failure
        When there is none, or it is no table.
    """
    if not path.exists():
        raise Failure(f"there is no file {path}.")
    if path.is_dir():
        raise Failure(f"{path} is a folder; give a CSV or Parquet file.")
    if not path.is_file():
        raise Failure(
            f"{path} is no ordinary file, and can be read only once, but is looked at before it is read; save what "
            "comes from there in a file."
        )
    with open(path, "rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    if not is_parquet:
        layout = layout_of(path, given)
        return CsvFile(path, layout.names, layout)
    import pyarrow.parquet as parquet

    with _explained(path):
        schema: Any = parquet.read_schema(path)
    refuse_double(path, schema.names)
    index = (schema.pandas_metadata or {}).get("index_columns", ())
    return ParquetFile(
        path, tuple(schema.names), index=tuple(n for n in index if isinstance(n, str))
    )


def for_fit(
    file: ParquetFile | CsvFile, columns: Sequence[str], categorical: Sequence[str], quoted: Any
) -> Any:
    """Columns of a file as a pandas frame to fit to: numbers, and texts where they are categories.

    Parameters
    ----------
    file : File
    columns, categorical : sequences of str
        Which columns; which of them are categories.
    quoted : callable
        A name as it is written in a terminal.
    """
    import pandas as pd

    table = file.whole()
    found = {}
    for name in columns:
        if name in categorical:
            found[name] = pd.Series(cells.categories(table[name], name, file.path), dtype=object)
        else:
            advice = (
                f"Leave the column out with --drop {quoted(name)}, or take it for categories with --categorical "
                f"{quoted(name)}."
            )
            found[name] = file.numbers(table, name, advice)
    return pd.DataFrame(found)


def columns_of(model: Any, file: File, table: Any, first: int = 0) -> Any:
    """The model's columns of a piece of a file, in its order, as the model takes them.

    Parameters
    ----------
    model : Estimator
        Fitted.
    file : File
    table : Arrow's table
        A piece of it.
    first : int
        The number of its first row.
    """
    import pandas as pd

    check_columns(model, file)
    if model._is_chain:
        file.refuse_gaps()
    found = {}
    for j, name in enumerate(model.column_names_):
        if j in model.categories_:
            known = model.categories_[j]
            found[name] = pd.Series(
                cells.categories(table[name], name, file.path, known), dtype=object
            )
        else:
            advice = "The model has numbers there; where a cell is not known, leave it empty."
            found[name] = file.numbers(table, name, advice, first)
    frame = pd.DataFrame(found)
    return frame if hasattr(model, "feature_names_in_") else frame.to_numpy()


def table_of(model: Any, path: Path, given: argparse.Namespace) -> tuple[Any, File]:
    """A whole file as the model takes it, and the file."""
    file = opened(path, given)
    return columns_of(model, file, file.whole()), file


def check_columns(model: Any, file: File) -> None:
    """A file has the columns of a model."""
    there = set(file.names)
    lacking = [name for name in model.column_names_ if name not in there]
    if lacking:
        raise Failure(
            f"{file.path} lacks the column{'s' if len(lacking) > 1 else ''} {', '.join(map(repr, lacking))} of the "
            f"model; it has {', '.join(map(repr, file.names))}. Where nothing is known, an empty column does."
        )


@contextmanager
def _explained(path: Path, layout: Layout | None = None) -> Iterator[None]:
    """Arrow's errors, as failures that say where and what to do."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        text = str(error)
        if "UTF8" in text or "UTF-8" in text:
            raise Failure(not_unicode(path)) from error
        if layout is not None:
            _refuse_line(path, layout)
        raise Failure(f"{path}: {text.rstrip('.')}.") from error
    except pa.ArrowNotImplementedError as error:
        raise Failure(f"{path}: Arrow cannot read it: {error}") from error


def _has_line_breaks(column: Any) -> bool:
    """Where a quote is missing, a cell goes on for lines, of which Arrow says nothing."""
    import pyarrow.compute

    compute: Any = pyarrow.compute
    return compute.any(compute.match_substring(column, "\n")).as_py() is True


def _refuse_line(path: Path, layout: Layout) -> None:
    """Name the first line of a CSV file that is not like the others."""
    width = len(layout.names)
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if number <= layout.skipped or line == "\n":
                continue
            if unclosed([(number, line.rstrip("\n"))], layout.separator):
                refuse_unclosed(path, number)
            row = next(csv.reader([line], delimiter=layout.separator))
            if len(row) != width:
                raise Failure(
                    f"{path}: line {number} has {counted(len(row), 'column')}, and there should be {width}. Say with "
                    "--sep what stands between columns, or mend the line."
                )
