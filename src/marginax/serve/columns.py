"""Rows of a request become numbers, or a list of faults that says of each cell where it is and what it should be.

The types of JSON are kept apart: a text is no number, though it may look like one, and neither is true. What is
missing is null, or a column that an object leaves out; NaN is not in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marginax.mixture.tables import category_key, shortened
from marginax.serve.problems import Problem, fault, shown

NUMBERS = {float, int, type(None)}
NUMBER, COUNT, CATEGORY = "number", "count", "category"


@dataclass(frozen=True)
class Column:
    """A column, and what its cells may be."""

    name: str
    kind: str
    """``"number"``, ``"count"`` (whole numbers) or ``"category"``."""
    family: str
    """How it is distributed inside of a component."""
    wants: str
    """What may stand in a cell, in words."""
    categories: tuple[Any, ...] | None
    """What they are, in the order of their numbers."""
    allows: Callable[[np.ndarray], np.ndarray]
    """Which of some numbers may stand in a cell."""

    def cells(self, values: Sequence[Any]) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Numbers, NaN where a cell is missing, and of each fault its row and what it is."""
        if self.categories is not None:
            return self._codes(values, self.categories)
        if set(map(type, values)) <= NUMBERS:
            try:
                found = np.array(values, np.float64)
            except OverflowError:  # a whole number of more than 300 digits
                pass
            else:
                there = ~np.isnan(found)
                wrong = there & ~self.allows(found)
                if not wrong.any() and len(values) - there.sum() == values.count(None):
                    return found, []
        return self._one_by_one(values)

    def _one_by_one(self, values: Sequence[Any]) -> tuple[np.ndarray, list[tuple[int, str]]]:
        found, faults = np.full(len(values), np.nan), []
        for row, value in enumerate(values):
            message = "" if value is None else self._amiss(value)
            if message:
                faults.append((row, message))
            elif value is not None:
                found[row] = value
        return found, faults

    def _amiss(self, value: Any) -> str:
        if type(value) not in NUMBERS:
            return f"it must be a number, or null where it is missing, not {shown(value)}."
        try:
            number = float(value)
        except OverflowError:
            number = np.inf
        if np.isnan(number):
            return "NaN is not a number; write null where a cell is missing."
        if np.isinf(number):
            return f"{shown(value)} is too large for a number."
        if not self.allows(np.array([number]))[0]:
            return f"the column takes {self.wants}, and this is {shown(value)}."
        return ""

    def _codes(
        self, values: Sequence[Any], categories: tuple[Any, ...]
    ) -> tuple[np.ndarray, list[tuple[int, str]]]:
        code = {category_key(c): float(number) for number, c in enumerate(categories)}
        found, faults = np.full(len(values), np.nan), []
        for row, value in enumerate(values):
            if value is None:
                continue
            known = None
            if isinstance(value, str | int | float):
                known = code.get(category_key(value))
            if known is None:
                faults.append(
                    (
                        row,
                        f"{shown(value)} is no category that the fit has seen; it knows {shortened(categories)}. "
                        "Write null where it is missing.",
                    )
                )
            else:
                found[row] = known
        return found, faults


def columns_of(estimator: Any) -> tuple[Column, ...]:
    """The columns of a fitted estimator, in order."""
    family = {j: g.family for g in estimator.learned_.design.groups for j in g.where}
    found = []
    for j, name in enumerate(estimator.column_names_):
        own, categories = family[j], estimator.categories_.get(j)
        is_count = not np.any(own.allows(np.array([0.5, 1.5])))
        kind = CATEGORY if categories is not None else COUNT if is_count else NUMBER
        kinds = (kind, type(own).__name__, own.wants, categories, own.allows)
        found.append(Column(name, *kinds))
    return tuple(found)


class Table:
    """Reads the rows of requests.

    Parameters
    ----------
    columns : sequence of Column
        In order.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._number = {column.name: j for j, column in enumerate(self.columns)}

    def cells(self, rows: Sequence[Any]) -> np.ndarray:
        """Numbers, shape (rows, columns), NaN where a cell is missing.

        Parameters
        ----------
        rows : sequence
            Each a list of cells in the order of the columns, or a dict by column name.

        Raises
        ------
        Problem
            With all faults.
        """
        faults: list[Any] = []
        in_order = [self._in_order(number, row, faults) for number, row in enumerate(rows)]
        if not faults:
            found = np.empty((len(rows), len(self.columns)))
            for j, (column, values) in enumerate(
                zip(self.columns, zip(*in_order, strict=True), strict=True)
            ):
                found[:, j], wrong = column.cells(values)
                faults += [
                    fault(f"rows[{number}].{column.name}", message, number, column.name)
                    for number, message in wrong
                ]
            if not faults:
                return found
        raise Problem(422, *sorted(faults, key=lambda one: one["row"]))

    def _in_order(self, number: int, row: Any, faults: list[Any]) -> Sequence[Any]:
        where = f"rows[{number}]"
        if type(row) is list:
            if len(row) != len(self.columns):
                faults.append(
                    fault(
                        where,
                        f"it has {_counted(len(row), 'cell')}, and there {self._are()}.",
                        number,
                    )
                )
            return row
        if type(row) is dict:
            if row.keys() <= self._number.keys():
                return [row.get(column.name) for column in self.columns]
            for name in row:
                if name not in self._number:
                    message = f"there is no such column; there {self._are()}."
                    faults.append(fault(f"{where}.{name}", message, number, name))
            return ()
        message = (
            "it must be a list of cells in the order of the columns, or an object by column name, "
        )
        faults.append(fault(where, f"{message}not {shown(row)}.", number))
        return ()

    def _are(self) -> str:
        names = shortened([column.name for column in self.columns])
        is_one = len(self.columns) == 1
        return f"is 1 column: {names}" if is_one else f"are {len(self.columns)} columns: {names}"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
