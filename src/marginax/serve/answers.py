"""What a fitted estimator says of rows, from programs that were compiled before anyone asked.

A program is compiled for so many rows, and, where cells are missing, for so many patterns of missing cells. Both
are rounded up to a few numbers, so that all programs there will ever be can be compiled at the start: a long table is
cut into pieces of the largest size, and the patterns of a piece are padded. Of a series nothing can be cut off, and so
its length has a limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from marginax.mixture.model import Rows
from marginax.mixture.prediction import Membership, Predictor
from marginax.serve.problems import Problem, fault

SIZES = (1, 32, 1024)
SERIES_SIZES = (16, 256, 2048)
PATTERNS = 8
"""Numbers of patterns are rounded up to powers of it."""


class Answers:
    """Asks an estimator about rows of numbers. Threads may ask at once.

    Parameters
    ----------
    estimator : GaussianMixture, MixtureModel or HiddenMarkov
        Fitted.
    sizes : sequence of int, optional
        Numbers of rows to compile for.
    """

    def __init__(self, estimator: Any, sizes: Sequence[int] | None = None) -> None:
        self.estimator = estimator
        self.learned = estimator.learned_
        self.is_series: bool = self.learned.design.is_chain
        self.sizes = tuple(sorted(sizes or (SERIES_SIZES if self.is_series else SIZES)))
        self.draws = len(next(iter(estimator.fit_.draws.values())))
        """How many posterior draws there are; 1 of a point estimate."""
        self._predictor = Predictor(estimator.learned_.design, estimator.fit_.draws, self.sizes)
        self._has_path = self.is_series and self.draws == 1

    def warm_up(self) -> None:
        """Compile everything."""
        for size in self.sizes:
            for rows in self._all_kinds(size):
                self._predictor.membership(rows)
                if self._has_path:
                    self._predictor.path(rows)

    def _all_kinds(self, size: int) -> Iterator[Rows]:
        """Rows such that each needs another program."""
        cells = np.tile(self.estimator.learned_.fill, (size, 1))
        yield self._rows(cells)
        cells[:, 0] = np.nan
        for number in self._numbers_of_patterns(size):
            yield self._rows(cells, patterns=number)

    def membership(self, cells: np.ndarray, lengths: Any = None) -> Membership:
        """Probabilities of the components, how sure they are, and log densities in the units of the table.

        Parameters
        ----------
        cells : array, shape (rows, columns)
            Checked; NaN where a cell is missing.
        lengths : sequence of int, optional
            Of the series in them; one when nothing is said.

        Raises
        ------
        Problem
            When a row is out of all proportion.
        """
        most = len(cells) if self.is_series else self.sizes[-1]
        pieces = [
            self._predictor.membership(self._rows(cells[first : first + most], lengths))
            for first in range(0, len(cells), most)
        ]
        probabilities, spread, density = map(np.concatenate, zip(*pieces, strict=True))
        lost = ~(np.isfinite(density) & np.isfinite(probabilities).all(1))
        if lost.any():
            row = int(np.argmax(lost))
            message = (
                "it is so far from all that the model has seen that its density cannot be computed."
            )
            raise Problem(422, fault(f"rows[{row}]", message, row))
        return Membership(probabilities, spread, density - self.estimator.learned_.log_units(cells))

    def components(
        self, cells: np.ndarray, probabilities: np.ndarray, lengths: Any = None
    ) -> np.ndarray:
        """The component of each row, shape (rows,): the most probable, of a series at a point estimate the path."""
        if self._has_path:
            return self._predictor.path(self._rows(cells, lengths))
        return probabilities.argmax(1)

    def sample(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """New rows, categories by their numbers, and their components."""
        cells, components = self._predictor.sample(count, seed)
        return cells * self.estimator.learned_.spread + self.estimator.learned_.centre, components

    def _rows(self, cells: np.ndarray, lengths: Any = None, patterns: int = 1) -> Rows:
        """Cells as the models take them, with at least so many patterns of missing cells."""
        rows: Rows = self.estimator.learned_.rows(cells)
        if rows.patterns is None:
            return rows
        least = max(len(rows.patterns), patterns)
        number = next(n for n in self._numbers_of_patterns(len(cells)) if n >= least)
        more = np.ones((number - len(rows.patterns), cells.shape[1]), bool)
        return rows._replace(patterns=np.concatenate([rows.patterns, more]))

    def _numbers_of_patterns(self, count: int) -> list[int]:
        """What the number of patterns of so many rows is rounded up to, in order."""
        size = next((size for size in self.sizes if size >= count), self.sizes[-1])
        most = min(2 ** len(self.estimator.learned_.fill), size)
        found = [1]
        while found[-1] < most:
            found.append(min(PATTERNS * found[-1], most))
        return found
