"""What a page needs to draw a mixture: shapes of the components, their densities, some points of the table.

Everything is worked out once, at the start, for all columns; which of them someone looks at is then a matter of picking
them. Shapes are those of the most probable parameters. How sure they are is in some shapes of posterior draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from marginax.mixture.families import Normal
from marginax.mixture.family import Columnwise
from marginax.mixture.gaussian import Gaussian
from marginax.mixture.model import TRANSITIONS, WEIGHTS, in_the_long_run
from marginax.serve.answers import Answers
from marginax.serve.columns import CATEGORY, NUMBER, Column

MOST_POINTS = 1000
MOST_DRAWS = 12
GRID = 161
BEYOND = 0.06
"""How much more than the table is shown, of its width."""


class Picture:
    """Shapes, densities and points.

    Parameters
    ----------
    answers : Answers
        Of the estimator.
    columns : tuple of Column
        Its columns.
    """

    def __init__(self, answers: Answers, columns: tuple[Column, ...]) -> None:
        estimator = answers.estimator
        self.columns = columns
        self.weights = weights_of(estimator)
        self.points, self.components = some_points(answers)
        self.grids = [self._grid(estimator, j) for j in range(len(columns))]
        self.densities = [
            densities_of(estimator, j, grid, self.weights) for j, grid in enumerate(self.grids)
        ]
        self.means, self.covariances = shapes_of(estimator, estimator.fit_.point)
        self.drawn: list[tuple[np.ndarray, np.ndarray]] = []
        if answers.draws > 1:
            for number in np.unique(np.linspace(0, answers.draws - 1, MOST_DRAWS).astype(int)):
                draw = {name: value[number] for name, value in estimator.fit_.draws.items()}
                self.drawn.append(shapes_of(estimator, draw))
        self._family = {j: g.family for g in estimator.learned_.design.groups for j in g.where}

    def _grid(self, estimator: Any, column: int) -> np.ndarray:
        """Values to show a density at."""
        about, own = self.columns[column], self.points[:, column]
        if about.categories is not None:
            return np.arange(len(about.categories), dtype=float)
        mean, spread = estimator.learned_.moments[:, column]
        low, high = mean - 3 * spread, mean + 3 * spread
        if np.isfinite(own).any():
            low, high = np.nanmin(own), np.nanmax(own)
        more = BEYOND * (high - low) or abs(low) or 1.0
        grid = np.linspace(low - more, high + more, GRID)
        if about.kind != NUMBER:
            step = max(np.ceil((high - low + 2) / GRID), 1.0)
            grid = np.arange(np.floor(low) - 1, high + 2, step)
        return grid[about.allows(grid)]

    def default(self) -> tuple[int, int | None]:
        """The columns to begin with."""
        numbers = [j for j, column in enumerate(self.columns) if column.kind != CATEGORY]
        if len(numbers) > 1:
            return numbers[0], numbers[1]
        return (numbers[0] if numbers else 0), None

    def of(self, x: int, y: int | None) -> dict[str, Any]:
        """What is drawn for one column, or for two of numbers."""
        shown = [x] if y is None else [x, y]
        there = np.isfinite(self.points[:, shown]).all(1)
        found: dict[str, Any] = {
            "x": x,
            "y": y,
            "ranges": [[self.grids[j][0], self.grids[j][-1]] for j in shown],
            "points": self.points[there][:, shown].tolist(),
            "components": self.components[there].tolist(),
            "is_normal": all(isinstance(self._family[j], Gaussian | Normal) for j in shown),
        }
        if y is None:
            return found | {"grid": self.grids[x].tolist(), "densities": self.densities[x].tolist()}
        pair = np.ix_(shown, shown)
        shapes = [(self.means, self.covariances), *self.drawn]
        found["shapes"] = [
            [
                {"mean": finite(mean[shown]), "covariance": finite(covariance[pair])}
                for mean, covariance in zip(means, covariances, strict=True)
            ]
            for means, covariances in shapes
        ]
        return found


def weights_of(estimator: Any) -> np.ndarray:
    """Of the components; of a hidden Markov model the share of steps in each state in the long run."""
    point = estimator.fit_.point
    if WEIGHTS in point:
        return np.asarray(point[WEIGHTS])
    return in_the_long_run(np.asarray(point[TRANSITIONS]))


def some_points(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table that the estimator was fitted to, if it is there, and their components."""
    table = getattr(answers.estimator, "table_", None)
    if table is None:
        return np.zeros((0, len(answers.estimator.learned_.fill))), np.zeros(0, int)
    if answers.is_series:  # the first steps: each is told by those around it
        points = table[: min(MOST_POINTS, answers.sizes[-1])]
        lengths = first_of(answers.estimator.lengths_, len(points))
        found = answers.membership(points, lengths).probabilities
        return points, answers.components(points, found, lengths)
    points = table
    if len(points) > MOST_POINTS:
        which = np.random.default_rng(0).choice(len(points), MOST_POINTS, replace=False)
        points = points[np.sort(which)]
    return points, answers.membership(points).probabilities.argmax(1)


def first_of(lengths: Sequence[int] | None, count: int) -> list[int]:
    """The lengths of series, as far as the first steps go."""
    ends = np.minimum(np.cumsum(lengths or [count]), count)
    return [int(n) for n in np.diff(ends, prepend=0) if n]


def densities_of(estimator: Any, column: int, grid: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of each component its weight times the density of one column along a grid, shape (components, grid)."""
    cells = np.full((len(grid), len(estimator.learned_.fill)), np.nan)
    cells[:, column] = grid
    found = weights * np.exp(component_log_densities(estimator, cells))
    return np.where(np.isfinite(found), found, 0.0).T


def component_log_densities(estimator: Any, cells: np.ndarray) -> np.ndarray:
    """The log density of rows inside of each component, at the most probable parameters, missing cells summed out.

    Parameters
    ----------
    estimator : GaussianMixture, MixtureModel or HiddenMarkov
        Fitted.
    cells : array, shape (rows, columns)
        Checked, NaN where a cell is missing.

    Returns
    -------
    array, shape (rows, components)
        In nats, in the units of the table.
    """
    design, rows = estimator.learned_.design, estimator.learned_.rows(cells)
    shape = len(cells), design.components
    component = np.broadcast_to(np.arange(design.components), shape)
    pattern: Any = 0 if rows.pattern is None else np.broadcast_to(rows.pattern[:, None], shape)
    total = -np.broadcast_to(estimator.learned_.log_units(cells)[:, None], shape)
    with jax.enable_x64(True):
        for group in design.groups:
            where = np.asarray(group.where)
            patterns = None if rows.patterns is None else rows.patterns[:, where]
            prepared = group.family.prepare(
                values_of(design, group, estimator.fit_.point), patterns
            )
            values = np.repeat(rows.cells[:, None, where], design.components, 1)
            observed = None if rows.observed is None else rows.observed[:, None, where]
            of_rows = group.family.of(prepared, component, pattern)
            total = total + np.asarray(group.family.log_prob(of_rows, values, observed))
    return total


def values_of(design: Any, group: Any, parameters: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A family's parameters, of every component, those that all share repeated."""
    found = {}
    for name in group.parameters:
        value = np.asarray(parameters[group.site(name)])
        if design.priors[group.site(name)].is_shared:
            value = np.broadcast_to(value, (design.components, *value.shape))
        found[name] = value
    return found


def shapes_of(
    estimator: Any, parameters: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Means and covariances of the columns inside of each component, in the units of the table.

    Returns
    -------
    array, shape (components, columns), and array, shape (components, columns, columns)
        NaN for columns of categories.
    """
    design = estimator.learned_.design
    count, centre, spread = (
        len(estimator.learned_.fill),
        estimator.learned_.centre,
        estimator.learned_.spread,
    )
    means = np.full((design.components, count), np.nan)
    covariances = np.zeros((design.components, count, count))
    covariances[:, range(count), range(count)] = np.nan
    with jax.enable_x64(True):
        for group in design.groups:
            family, where = group.family, list(group.where)
            values = values_of(design, group, parameters)
            if isinstance(family, Gaussian):
                units = family.in_units(values, centre[where], spread[where])
                means[:, where] = units["means"]
                covariances[np.ix_(range(design.components), where, where)] = units["covariances"]
            elif isinstance(family, Columnwise):
                own = family.distribution(values)
                means[:, where] = own.mean * spread[where] + centre[where]
                covariances[:, where, where] = own.variance * spread[where] ** 2
    return means, covariances


def finite(values: np.ndarray) -> Any:
    """As JSON has it: null where there is no number."""
    found = values.astype(object)
    found[~np.isfinite(values)] = None
    return found.tolist()
