"""Everything that the sections are written from: the estimator, its table as numbers, what it says of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from marginax.mixture.families import Bernoulli, Categorical
from marginax.mixture.family import Columnwise, Family
from marginax.mixture.gaussian import Gaussian
from marginax.mixture.model import Design
from marginax.mixture.prediction import Membership, Predictor
from marginax.pages import Html
from marginax.report.drawing import shortened, thinned

MOST_WORK = 10_000_000
"""Rows times posterior draws that memberships are averaged over: seconds."""
MOST_STEPS = 1_000_000
"""The same, of a series, whose steps wait for each other."""
MAGNITUDES = 50.0
"""A column whose numbers differ by more than this factor is shown on a logarithmic axis."""


@dataclass(frozen=True)
class Facts:
    """What is known."""

    estimator: Any
    cells: np.ndarray | None
    """Shape (rows, columns): the table as numbers, NaN where a cell is missing; None: there is no table."""
    lengths: np.ndarray
    """Of the series in it, for a hidden Markov model."""
    membership: Membership | None
    """Of its rows."""
    states: np.ndarray | None
    """Shape (rows,): the component of each row; of a series the most probable path, if there is no posterior."""
    membership_draws: int
    """Over how many posterior draws memberships were averaged."""
    values: dict[str, np.ndarray]
    """Shape (draws, ...): parameters in the units of the table; one draw, the most probable ones, for a MAP."""

    @property
    def design(self) -> Design:
        """The model."""
        return self.estimator.learned_.design

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns, to be read."""
        return tuple(shortened(name) for name in self.estimator.column_names_)

    @property
    def count(self) -> int:
        """How many components."""
        return self.design.components

    @property
    def draws(self) -> int:
        """How many posterior draws."""
        return number_of_draws(self.estimator)

    @property
    def has_posterior(self) -> bool:
        """Whether there is more than the most probable parameters."""
        return self.draws > 1

    @property
    def is_chain(self) -> bool:
        """Whether rows are steps in time."""
        return self.design.is_chain

    @property
    def word(self) -> str:
        """What a component is called."""
        return "state" if self.is_chain else "component"

    def family(self, column: int) -> Family:
        """Of a column."""
        return next(g.family for g in self.design.groups if column in g.where)

    def kind(self, column: int) -> str:
        """``"category"``, ``"number"``, or ``"unknown"`` for a family that this package does not know."""
        family = self.family(column)
        if isinstance(family, Categorical | Bernoulli):
            return "category"
        return "number" if isinstance(family, Gaussian | Columnwise) else "unknown"

    def columns(self, kind: str) -> list[int]:
        """The columns of a kind."""
        return [j for j in range(len(self.names)) if self.kind(j) == kind]

    def categories(self, column: int) -> tuple[Any, ...]:
        """What the numbers of a column of categories stand for."""
        return self.estimator.categories_.get(column, (0, 1))

    def cell(self, row: int, column: int) -> str:
        """A cell of the table, to be read."""
        assert self.cells is not None
        value = self.cells[row, column]
        if np.isnan(value):
            return Html('<span class="missing">missing</span>')
        if column in self.estimator.categories_:
            return shortened(self.categories(column)[int(value)])
        return f"{value:.6g}"

    def needs_logarithms(self, column: int) -> bool:
        """Whether a column of positive numbers goes over orders of magnitude."""
        family, seen = self.family(column), self.observed(column)
        is_positive = not family.allows(np.zeros(1))[0] and family.allows(np.full(1, 2.0))[0]
        if self.kind(column) != "number" or not is_positive or not len(seen):
            return False
        low, high = np.quantile(seen, [0.01, 0.99])
        return bool(high > MAGNITUDES * low)

    def observed(self, column: int) -> np.ndarray:
        """The cells of a column that are there."""
        if self.cells is None:
            return np.zeros(0)
        values = self.cells[:, column]
        return values[~np.isnan(values)]


def number_of_draws(estimator: Any) -> int:
    """Posterior draws of a fitted estimator."""
    return len(next(iter(estimator.fit_.draws.values())))


def gather(estimator: Any, table: Any = None, lengths: Any = None) -> Facts:
    """Find out everything.

    Parameters
    ----------
    estimator : GaussianMixture, MixtureModel or HiddenMarkov
        Fitted.
    table : array or frame, shape (rows, columns), optional
        As for `write_report`.
    lengths : sequence of int, optional
        Of the series in the table.
    """
    check_is_fitted(estimator)
    kept = getattr(estimator, "table_", None)
    # What a file keeps of a table is numbers already, whatever the table was.
    cells = kept if table is None or table is kept else estimator._read(table)
    membership, states, used = None, None, 0
    has_posterior = number_of_draws(estimator) > 1
    if cells is not None:
        if lengths is None and len(cells) == estimator.n_rows_:
            lengths = estimator.lengths_
        rows = estimator.learned_.rows(cells, lengths)
        predictor = _predictor(estimator, len(cells))
        membership = predictor.membership(rows)
        membership = membership._replace(
            log_density=membership.log_density - estimator.learned_.log_units(cells)
        )
        used = len(next(iter(predictor.draws.values())))
        states = predictor.components(rows, membership.probabilities)
    if lengths is None:
        lengths = [] if cells is None else [len(cells)]
    values = estimator.posterior_
    if not has_posterior:
        values = {name: value[None] for name, value in estimator.parameters_.items()}
    return Facts(estimator, cells, np.asarray(lengths), membership, states, used, values)


def _predictor(estimator: Any, rows: int) -> Predictor:
    """At all posterior draws, or so many that a big table does not take minutes."""
    draws = estimator.fit_.draws
    count = number_of_draws(estimator)
    most = max((MOST_STEPS if estimator._is_chain else MOST_WORK) // max(rows, 1), 10)
    if count <= most:
        return estimator._predictor()
    unit = 10 ** (len(str(most)) - 1)
    which = thinned(count, most // unit * unit)  # a round number
    return Predictor(
        estimator.learned_.design, {name: value[which] for name, value in draws.items()}
    )
