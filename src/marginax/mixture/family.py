"""What a family of distributions is: the values of some columns inside of one component.

A family has three things to say of its columns: the priors of its parameters (of *one* component), the
density of a row given their values, and where to begin. Everything else (the mixture, the chain of a hidden
Markov model, missing cells, fitting, serving) is the same for all of them. Most families take the columns
of a row as independent given the component, and are a distribution, priors and moments, a few lines each
(`Columnwise`).

A cell that is missing is summed out: of independent columns its factor is simply left out. The place of
such a cell holds some value that the family allows, so that what is left out is finite, and its gradient too.

Default priors are weak. Columns of real numbers are brought to mean 0 and standard deviation 1 first (as
rstanarm does, "autoscale"), so that one prior suits all units; those of rates and positive means are scaled by
the column's mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import distributions as dist

from marginax.mixture.columns import TINY, Columns
from marginax.mixture.members import Members

Values = Mapping[str, Any]

CLOSENESS = 3.0
"""Components are this many standard deviations of a column around its mean, a priori."""


class Parameter(NamedTuple):
    """A parameter of a family."""

    prior: Any
    """Of one component; its batch and event shapes together are those of the value."""
    is_shared: bool = False
    """Whether all components have the same."""
    is_stated: bool = False
    """Whether the prior is the user's."""


@dataclass(frozen=True)
class Family:
    """How the columns of a group are distributed inside of a component. See the module's top."""

    is_standardized: ClassVar[bool] = False
    """Whether its columns are brought to mean 0 and standard deviation 1."""
    has_one_scale: ClassVar[bool] = False
    """Whether columns must stay in proportion to each other."""
    wants: ClassVar[str] = "numbers"
    """What may stand in a cell, in words."""

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        """Its parameters, with their default priors."""
        raise NotImplementedError

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        """Values of the parameters, of all components, that the rows of each suggest: the most probable, or moments."""
        raise NotImplementedError

    def allows(self, cells: np.ndarray) -> np.ndarray:
        """Which of some values may stand in a cell."""
        return np.isfinite(cells)

    def prepare(self, values: Values, patterns: Any) -> dict[str, Any]:
        """What rows need, computed once for each component.

        Parameters
        ----------
        values : mapping of array, shape (components, ...)
            The parameters.
        patterns : bool array, shape (patterns, columns), optional
            Every combination of cells that are there; None where no cell is missing.
        """
        del patterns
        return dict(values)

    def of(self, prepared: Values, component: Any, pattern: Any) -> dict[str, Any]:
        """What `prepare` gave, for rows of these components, shape (*rows,), with these patterns of cells."""
        del pattern
        return {name: value[component] for name, value in prepared.items()}

    def log_prob(self, values: Values, rows: Any, observed: Any) -> Array:
        """Log density of rows, shape (*rows,), given what `of` gave.

        ``observed`` says which cells are there, None: all.
        """
        raise NotImplementedError

    def draw(self, key: Any, values: Values, shape: tuple[int, ...]) -> Array:
        """Rows without missing cells, shape (*shape, *rows, columns), given what `of` gave."""
        raise NotImplementedError

    def in_units(self, values: Values, centre: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
        """The parameters as they are shown, in the units of the table; leading dimensions are kept."""
        del centre, spread
        return dict(values)

    def options(self) -> dict[str, Any]:
        """What it was made with."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Columnwise(Family):
    """Columns that are independent inside of a component."""

    def distribution(self, values: Values) -> Any:
        """Of every column, batch shape (..., columns)."""
        raise NotImplementedError

    def log_prob(self, values: Values, rows: Any, observed: Any) -> Array:
        each = self.distribution(values).log_prob(rows)
        return jnp.sum(each if observed is None else jnp.where(observed, each, 0.0), -1)

    def draw(self, key: Any, values: Values, shape: tuple[int, ...]) -> Array:
        drawn = self.distribution(values).sample(key, shape)
        return jnp.asarray(drawn, jnp.result_type(float))


def is_count(cells: np.ndarray) -> np.ndarray:
    """Which values are whole numbers from 0."""
    return np.isfinite(cells) & (cells >= 0) & (cells == np.floor(cells))


def means_prior(columns: Columns) -> Any:
    """Of the means of columns of real numbers."""
    return dist.Normal(columns.centre, CLOSENESS * columns.spread).to_event(1)


def positive_means_prior(columns: Columns) -> Any:
    """Of the means of columns of positive numbers."""
    return dist.LogNormal(np.log(np.maximum(columns.centre, TINY)), 1.5).to_event(1)


def number_of_values(parameter: Parameter) -> int:
    """How many free numbers a parameter has: what a BIC counts."""
    shape = tuple(parameter.prior.batch_shape) + tuple(parameter.prior.event_shape)
    free = dist.biject_to(parameter.prior.support).inverse_shape(shape)
    return math.prod(free)
