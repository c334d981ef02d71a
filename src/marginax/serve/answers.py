"""What a fitted estimator says of rows, from programs that were compiled before anyone asked.

`Predictor` compiles for a few numbers of rows; a longer table is cut into pieces, a shorter one padded. Of a series
nothing can be cut off, and so its length has a limit: the largest of these numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from marginax.mixture.prediction import Membership, Predictor
from marginax.serve.problems import Problem, fault

SIZES = (1, 32, 1024)
SERIES_SIZES = (16, 256, 2048)


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
        self._predictor = Predictor(self.learned.design, estimator.fit_.draws, self.sizes)

    def warm_up(self) -> None:
        """Compile everything."""
        self._predictor.compile()

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
        found = self._predictor.membership(self.learned.rows(cells, lengths))
        is_known = np.isfinite(found.log_density) & np.isfinite(found.probabilities).all(1)
        if not is_known.all():
            row = int(np.argmin(is_known))
            message = (
                "it is so far from all that the model has seen that its density cannot be computed."
            )
            raise Problem(422, fault(f"rows[{row}]", message, row))
        return found._replace(log_density=found.log_density - self.learned.log_units(cells))

    def components(
        self, cells: np.ndarray, probabilities: np.ndarray, lengths: Any = None
    ) -> np.ndarray:
        """The component of each row, shape (rows,): the most probable, of a series at a point estimate the path."""
        return self._predictor.components(self.learned.rows(cells, lengths), probabilities)

    def sample(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """New rows, categories by their numbers, and their components."""
        cells, components = self._predictor.sample(count, seed)
        return cells * self.learned.spread + self.learned.centre, components
