"""Tables that are written piece by piece: CSV, with quotes only where a cell needs them, or Parquet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from marginax.cli.cells import decoded, is_text
from marginax.cli.common import Failure
from marginax.storage.atomic import replacing

PARQUET = (".parquet", ".pq")
SUFFIXES = (".csv", *PARQUET)


def is_parquet(path: Path | None) -> bool:
    """Whether a file to be written is one of Parquet, by its name."""
    return path is not None and path.suffix.lower() in PARQUET


def check_suffix(path: Path | None) -> None:
    """What is written is what the name says."""
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise Failure(f"-o writes .csv and .parquet, by the name of the file, not {path.name}.")


@contextmanager
def writing(path: Path | None) -> Iterator[Callable[[Any], None]]:
    """A function that appends Arrow's tables to a file; None: standard output, as CSV."""
    with ExitStack() as stack:
        if path is None:
            if sys.stdout is None:
                raise Failure("standard output is closed; say with -o where the rows go.")
            yield _csv(sys.stdout.buffer)
            return
        file = stack.enter_context(replacing(path))
        yield _parquet(file, stack) if is_parquet(path) else _csv(file)


def _parquet(file: Any, stack: ExitStack) -> Callable[[Any], None]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    sink: Any = pa.PythonFile(file, "w")
    writer: list[Any] = []

    def write(table: Any) -> None:
        if not writer:  # it is the first piece that knows the columns
            writer.append(ParquetWriter(sink, table.schema))
            stack.callback(writer[0].close)
        writer[0].write_table(table)

    return write


def _csv(file: Any) -> Callable[[Any], None]:
    """As text, for Arrow would put quotes around every text."""
    import pyarrow as pa
    import pyarrow.compute

    compute: Any = pyarrow.compute
    heading: list[str] = []

    def write(table: Any) -> None:
        if not heading:
            heading.extend(table.column_names)
            names = [_quoted(pa.array([name])) for name in heading]
            file.write(_lines(names))
        file.write(_lines([_text(table[name], name) for name in heading]))

    def _text(column: Any, name: str) -> Any:
        try:
            text = decoded(column).cast(pa.string())
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise Failure(
                f"column '{name}' has cells of type {column.type}, for which there is no text; write Parquet "
                "(-o out.parquet), or give --only, which leaves the columns of the input out."
            ) from error
        return _quoted(text) if is_text(decoded(column).type) else compute.fill_null(text, "")

    def _quoted(text: Any) -> Any:
        text = compute.fill_null(text, "")
        doubled = compute.replace_substring(text, '"', '""')
        within = compute.binary_join_element_wise('"', doubled, '"', "")
        return compute.if_else(compute.match_substring_regex(text, '[",\r\n]'), within, text)

    def _lines(columns: list[Any]) -> bytes:
        rows = compute.binary_join_element_wise(*columns, ",")
        return "".join(f"{row}\n" for row in rows.to_pylist()).encode()

    return write
