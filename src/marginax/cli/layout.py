"""How a CSV file is written: what does not stand in the file is found out from its first lines, and said aloud.

What would be guessing is an error that names the option to give, or the command that mends the file.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from marginax.cli.common import Failure, counted, say

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
EMPTY = ["", "NA", "N/A", "na", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "?", "-", "."]
"""What stands for a missing cell."""
LOOKED_AT = 2**16
LONGEST_LINE = 2**24
LINES = 50
"""So many of the first lines are looked at."""

Line = tuple[int, str]
"""Its number in the file, from 1, and what stands in it."""


@dataclass(frozen=True)
class Layout:
    """How a CSV file is written."""

    separator: str
    decimal: str
    names: tuple[str, ...]
    skipped: int
    """Lines before the first row."""
    longest: int
    """Bytes of the longest line that was looked at."""

    @property
    def has_empty_rows(self) -> bool:
        """Whether an empty line is a row. Of one column it is one whose cell is missing; of several it is none."""
        return len(self.names) == 1


def layout_of(path: Path, given: argparse.Namespace) -> Layout:
    """What a CSV file looks like, by its first lines and what was said.

    Raises
    ------
    Failure
        When it is no CSV file, or does not say what it means.
    """
    csv.field_size_limit(LONGEST_LINE)
    lines = _first_lines(path)
    longest = max(len(line.encode()) for _, line in lines)
    separator = _said(given.sep) if given.sep else ""
    lines = _without_comments(path, lines, separator)
    separator = separator or _separator(lines)
    rows = [_row(path, line, separator) for line in lines]
    first = [cell.strip() for cell in rows[0]]
    if not given.sep and len(first) == 1:
        _refuse_spaces(path, lines)
    _refuse_ragged(path, lines, rows, separator)
    if not given.sep and separator != ",":
        say(f"{path.name}: read with {SEPARATORS[separator]} between columns.")
    if given.no_header or all(_is_number(cell, given.decimal) for cell in first):
        if not given.no_header:
            say(
                f"{path.name}: the first line has only numbers, so the columns are called x0, x1, ..."
            )
        names = [f"x{j}" for j in range(len(first))]
        skipped = lines[0][0] - 1 if len(names) > 1 else 0  # of one column an empty line is a cell
        return Layout(separator, given.decimal, tuple(names), skipped, longest)
    names = [name or f"x{j}" for j, name in enumerate(first)]
    refuse_double(path, names)
    return Layout(separator, given.decimal, tuple(names), lines[0][0], longest)


def refuse_double(path: Path, names: Sequence[str]) -> None:
    """Columns are told apart by their names."""
    double = sorted(name for name, count in Counter(names).items() if count > 1)
    if double:
        raise Failure(
            f"{path}: several columns are called {', '.join(map(repr, double))}; rename them."
        )


def unclosed(lines: Sequence[Line], separator: str) -> int | None:
    """The number of the first line on which a quoted cell begins and does not end."""
    for number, line in lines:
        try:
            next(csv.reader([line], delimiter=separator, strict=True), None)
        except csv.Error as error:
            if "unexpected end" in str(error):
                return number
    return None


def refuse_unclosed(path: Path, number: int) -> None:
    """A cell of two lines, or a quote too many."""
    raise Failure(
        f"{path}: a quoted cell begins in line {number} and does not end there. Take the line break out of it, or, if "
        "the quote is a mistake, the quote."
    )


def _first_lines(path: Path) -> list[Line]:
    """Those that are not blank."""
    with open(path, "rb") as file:
        begin = file.read(LOOKED_AT)
        for _ in range(2):  # the line that was cut, and after a long heading a row
            begin += file.readline(LONGEST_LINE)
    if b"\0" in begin:
        raise Failure(f"{path} is no text; give a CSV or Parquet file.")
    try:
        text = begin.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Failure(not_unicode(path)) from None
    # Not splitlines, which ends lines at characters that for Arrow are none.
    every = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [(number, line) for number, line in enumerate(every, 1) if line.strip()]
    if not lines:
        raise Failure(f"{path} is empty.")
    if len(lines[0][1]) >= LONGEST_LINE:
        raise Failure(f"{path}: its first line does not end; give a CSV or Parquet file.")
    return lines[:LINES]


def not_unicode(path: Path) -> str:
    """What to do about a file in another encoding."""
    return (
        f"{path} is not UTF-8 text; save it as UTF-8 (in Excel: 'CSV UTF-8'), or: "
        f"iconv -f WINDOWS-1252 -t UTF-8 {quote(str(path))} > utf8.csv"
    )


def _said(separator: str) -> str:
    """What was said to stand between columns."""
    if separator in ("\\t", "tab"):
        return "\t"
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
        raise Failure(f"--sep must be one ASCII character, or 'tab', not {separator!r}.")
    return separator


def _separator(lines: Sequence[Line]) -> str:
    """The character that stands in every line equally often; of several, the most frequent."""
    best, most = ",", 0
    for candidate in SEPARATORS:
        counts = {len(row) for row in csv.reader((line for _, line in lines), delimiter=candidate)}
        if len(counts) == 1 and (found := counts.pop()) > max(most, 1):
            best, most = candidate, found
    return best


def _without_comments(path: Path, lines: list[Line], separator: str) -> list[Line]:
    """Names of columns may begin with #; a line of words before the names is a comment."""
    rest = [(number, line) for number, line in lines if not line.startswith("#")]
    if not rest or not lines[0][1].startswith("#"):
        return lines
    separator = separator or _separator(rest)
    is_heading = len(_row(path, lines[0], separator)) == len(_row(path, rest[0], separator))
    if is_heading and not lines[1][1].startswith("#"):
        return lines
    raise Failure(
        f"{path}: line {lines[0][0]} is a comment. Take comments out: grep -v '^#' {quote(str(path))} > table.csv"
    )


def _row(path: Path, line: Line, separator: str) -> list[str]:
    number = unclosed([line], separator)
    if number is not None:
        refuse_unclosed(path, number)
    return next(csv.reader([line[1]], delimiter=separator))


def _refuse_spaces(path: Path, lines: Sequence[Line]) -> None:
    """Of one column of words nobody can say; but several numbers in each line are several columns."""
    rows = [line.split() for _, line in lines]
    widths = {len(row) for row in rows}
    if len(widths) == 1 and widths != {1} and all(_is_number(cell, ".") for cell in rows[-1]):
        raise Failure(
            f"{path}: there are spaces between its columns. Write commas instead: "
            f"sed -E 's/^ +//; s/ +$//; s/[[:space:]]+/,/g' {quote(str(path))} > table.csv"
        )


def _refuse_ragged(
    path: Path, lines: Sequence[Line], rows: Sequence[list[str]], separator: str
) -> None:
    for (number, _), row in zip(lines, rows, strict=True):
        if len(row) != len(rows[0]):
            raise Failure(
                f"{path}: line {number} has {counted(len(row), 'column')} and the first line {len(rows[0])}. Between "
                f"columns {SEPARATORS.get(separator, repr(separator))} are expected; say what it is with --sep, or "
                "mend the line."
            )


def _is_number(cell: str, decimal: str) -> bool:
    try:
        float(cell.replace(decimal, "."))
    except ValueError:
        return cell in EMPTY
    return True


THOUSANDS = re.compile(r"[+-]?\d{1,3}([,.' ]\d{3})+([.,]\d+)?")


def hint_about(cell: str) -> str:
    """What a text that should be a number may be, and what to do then."""
    if THOUSANDS.fullmatch(cell) and not re.fullmatch(r"[+-]?\d+,\d+", cell):
        return (
            " If these are thousands, write the number without what stands between them (1234.5)."
        )
    if re.fullmatch(r"[+-]?\d+,\d+", cell):
        return " Is it a decimal comma? Then: --decimal , (If these are thousands, write the number without the comma.)"
    return ""
