"""What the values of a column look like inside of one component: the families.

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

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import distributions as dist

Values = Mapping[str, Any]

CLOSENESS = 3.0
"""Components are this many standard deviations of a column around its mean, a priori."""


@dataclass(frozen=True, eq=False)
class Columns:
    """What is known of a family's columns before the fit."""

    names: tuple[str, ...]
    centre: np.ndarray
    """Shape (columns,): of each column the mean, without missing cells; zero where it was taken off."""
    spread: np.ndarray
    """Shape (columns,): of each the standard deviation; one where it was divided by."""
    categories: tuple[int, ...]
    """Of each the number of categories, where they are numbered."""
    components: int
    """How many components there are."""

    @property
    def count(self) -> int:
        """How many columns."""
        return len(self.names)


class Parameter(NamedTuple):
    """A parameter of a family."""

    prior: Any
    """Of one component; its batch and event shapes together are those of the value."""
    is_shared: bool = False
    """Whether all components have the same."""


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

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        """Values to begin at for a component that has these rows, shape (rows, columns)."""
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


@dataclass(frozen=True)
class Normal(Columnwise):
    """Independent normal columns, each with its own variance (``diag``), or one for all (``spherical``).

    Priors, on standardised columns: means Normal(0, 3); precisions Gamma, the margins of `Gaussian`'s prior.
    """

    spherical: bool = False
    is_standardized: ClassVar[bool] = True

    @property
    def has_one_scale(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.spherical

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        width = columns.spread**2 * prior_width(columns)
        if self.spherical:
            precision = dist.Gamma(1.5, float(width.mean()) / 2)
        else:
            precision = dist.Gamma(1.5, width / 2).to_event(1)
        return {"means": Parameter(means_prior(columns)), "precisions": Parameter(precision)}

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        variance = pooled_variance(rows, columns)
        if self.spherical:
            variance = variance.mean()
        return {"means": rows.mean(0), "precisions": np.asarray(1 / variance)}

    def distribution(self, values: Values) -> Any:
        precisions = values["precisions"]
        if self.spherical:
            precisions = precisions[..., None]
        return dist.Normal(values["means"], precisions**-0.5)

    def in_units(self, values: Values, centre: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
        scale = spread[0] if self.spherical else spread
        return {
            "means": values["means"] * spread + centre,
            "covariances": scale**2 / values["precisions"],
        }


@dataclass(frozen=True)
class StudentT(Columnwise):
    """Independent Student-t columns: components with outliers.

    Priors, on standardised columns: means Normal(0, 3), scales LogNormal around 1 / K^(1/columns), one number of
    degrees of freedom for each component, Gamma(2, 0.1) (Juárez and Steel, 2010).
    """

    is_standardized: ClassVar[bool] = True

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        around = np.log(columns.spread * columns.components ** (-1 / columns.count))
        return {
            "means": Parameter(means_prior(columns)),
            "scales": Parameter(dist.LogNormal(around, 1.0).to_event(1)),
            "df": Parameter(dist.Gamma(2.0, 0.1)),
        }

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        scales = np.sqrt(pooled_variance(rows, columns))
        return {"means": np.median(rows, 0), "scales": scales, "df": np.asarray(8.0)}

    def distribution(self, values: Values) -> Any:
        return dist.StudentT(values["df"][..., None], values["means"], values["scales"])

    def in_units(self, values: Values, centre: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
        return {
            "means": values["means"] * spread + centre,
            "scales": values["scales"] * spread,
            "df": values["df"],
        }


@dataclass(frozen=True)
class LogNormal(Columnwise):
    """Independent log-normal columns. Priors: means of the logarithm Normal, its scales LogNormal(0, 1)."""

    wants: ClassVar[str] = "numbers above 0"

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        around = np.log(np.maximum(columns.centre, TINY))
        return {
            "locs": Parameter(dist.Normal(around, CLOSENESS).to_event(1)),
            "scales": Parameter(dist.LogNormal(np.zeros(columns.count), 1.0).to_event(1)),
        }

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        del columns
        logs = np.log(rows)
        return {
            "locs": logs.mean(0),
            "scales": np.sqrt((len(rows) * logs.var(0) + 1) / (len(rows) + 1)),
        }

    def allows(self, cells: np.ndarray) -> np.ndarray:
        return np.isfinite(cells) & (cells > 0)

    def distribution(self, values: Values) -> Any:
        return dist.LogNormal(values["locs"], values["scales"])


@dataclass(frozen=True)
class Gamma(Columnwise):
    """Independent gamma columns. Priors: means LogNormal around the column's mean, concentrations Gamma(2, 0.1)."""

    wants: ClassVar[str] = "numbers above 0"

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        return {
            "means": Parameter(positive_means_prior(columns)),
            "concentrations": Parameter(dist.Gamma(2.0, np.full(columns.count, 0.1)).to_event(1)),
        }

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        mean = rows.mean(0)
        return {"means": mean, "concentrations": mean**2 / pooled_variance(rows, columns)}

    def allows(self, cells: np.ndarray) -> np.ndarray:
        return np.isfinite(cells) & (cells > 0)

    def distribution(self, values: Values) -> Any:
        return dist.Gamma(values["concentrations"], values["concentrations"] / values["means"])


@dataclass(frozen=True)
class Poisson(Columnwise):
    """Independent Poisson counts. Prior: rates Gamma(1, 1 / mean of the column)."""

    wants: ClassVar[str] = "whole numbers from 0"

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        mean = np.maximum(columns.centre, SMALL)
        return {"rates": Parameter(dist.Gamma(1.0, 1 / mean).to_event(1))}

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        return {"rates": smoothed_mean(rows, columns)}

    def allows(self, cells: np.ndarray) -> np.ndarray:
        return is_count(cells)

    def distribution(self, values: Values) -> Any:
        return dist.Poisson(values["rates"])


@dataclass(frozen=True)
class NegativeBinomial(Columnwise):
    """Independent counts that vary more than Poisson's. Priors: means LogNormal, concentrations Gamma(2, 0.1)."""

    wants: ClassVar[str] = "whole numbers from 0"

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        return {
            "means": Parameter(positive_means_prior(columns)),
            "concentrations": Parameter(dist.Gamma(2.0, np.full(columns.count, 0.1)).to_event(1)),
        }

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        mean = smoothed_mean(rows, columns)
        excess = np.maximum(pooled_variance(rows, columns) - mean, 0.05 * mean)
        return {"means": mean, "concentrations": mean**2 / excess}

    def allows(self, cells: np.ndarray) -> np.ndarray:
        return is_count(cells)

    def distribution(self, values: Values) -> Any:
        return dist.NegativeBinomial2(values["means"], values["concentrations"])


@dataclass(frozen=True)
class Beta(Columnwise):
    """Independent proportions. Priors: means Beta(2, 2), concentrations Gamma(2, 0.1)."""

    wants: ClassVar[str] = "numbers between 0 and 1, both excluded"

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        return {
            "means": Parameter(dist.Beta(2.0, np.full(columns.count, 2.0)).to_event(1)),
            "concentrations": Parameter(dist.Gamma(2.0, np.full(columns.count, 0.1)).to_event(1)),
        }

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        mean = rows.mean(0)
        variance = np.minimum(pooled_variance(rows, columns), 0.5 * mean * (1 - mean))
        return {"means": mean, "concentrations": mean * (1 - mean) / variance}

    def allows(self, cells: np.ndarray) -> np.ndarray:
        return np.isfinite(cells) & (cells > 0) & (cells < 1)

    def distribution(self, values: Values) -> Any:
        mean, concentration = values["means"], values["concentrations"]
        return dist.Beta(mean * concentration, (1 - mean) * concentration)


@dataclass(frozen=True)
class Bernoulli(Columnwise):
    """Independent columns of zeros and ones. Prior: probabilities Beta(2, 2), which adds one of each."""

    wants: ClassVar[str] = "0 or 1"

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        return {"probs": Parameter(dist.Beta(2.0, np.full(columns.count, 2.0)).to_event(1))}

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        del columns
        return {"probs": (rows.sum(0) + 1) / (len(rows) + 2)}

    def allows(self, cells: np.ndarray) -> np.ndarray:
        return (cells == 0) | (cells == 1)

    def distribution(self, values: Values) -> Any:
        return dist.Bernoulli(probs=values["probs"])


@dataclass(frozen=True)
class Categorical(Family):
    """Independent columns of categories: words, or any values. Prior: Dirichlet(2, ..., 2), which adds one of each."""

    wants: ClassVar[str] = "one of the categories that the fit has seen"

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        named = zip(self._names(columns.count), columns.categories, strict=True)
        return {name: Parameter(dist.Dirichlet(np.full(c, 2.0))) for name, c in named}

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        found = {}
        for j, (name, count) in enumerate(
            zip(self._names(columns.count), columns.categories, strict=True)
        ):
            seen = np.bincount(rows[:, j].astype(int), minlength=count)
            found[name] = (seen + 1) / (len(rows) + count)
        return found

    def allows(self, cells: np.ndarray) -> np.ndarray:
        return is_count(cells)

    def log_prob(self, values: Values, rows: Any, observed: Any) -> Array:
        total: Any = 0.0
        for j, name in enumerate(self._names(jnp.shape(rows)[-1])):
            one: Any = dist.Categorical(values[name])
            each = one.log_prob(jnp.asarray(rows[..., j], int))
            total += each if observed is None else jnp.where(observed[..., j], each, 0.0)
        return total

    def draw(self, key: Any, values: Values, shape: tuple[int, ...]) -> Array:
        keys = jax.random.split(key, len(values))
        names = self._names(len(values))
        each: list[Any] = [dist.Categorical(values[name]) for name in names]
        drawn = [one.sample(k, shape) for one, k in zip(each, keys, strict=True)]
        return jnp.asarray(jnp.stack(drawn, -1), jnp.result_type(float))

    @staticmethod
    def _names(count: int) -> list[str]:
        return ["probs"] if count == 1 else [f"probs_{j}" for j in range(count)]


SMALL = 1e-3
TINY = 1e-30
THINNER = 0.2
"""Components may well be thinner than their share of the space (it costs held-out likelihood to say otherwise)."""


def is_count(cells: np.ndarray) -> np.ndarray:
    """Which values are whole numbers from 0."""
    return np.isfinite(cells) & (cells >= 0) & (cells == np.floor(cells))


def prior_width(columns: Columns) -> float:
    """A priori a component's variance in those of its columns.

    K components share the space (Fraley and Raftery, 2007), and a fifth of that leaves room for thin ones.
    """
    return THINNER * columns.components ** (-2 / columns.count)


def means_prior(columns: Columns) -> Any:
    """Of the means of columns of real numbers."""
    return dist.Normal(columns.centre, CLOSENESS * columns.spread).to_event(1)


def positive_means_prior(columns: Columns) -> Any:
    """Of the means of columns of positive numbers."""
    return dist.LogNormal(np.log(np.maximum(columns.centre, TINY)), 1.5).to_event(1)


def smoothed_mean(rows: np.ndarray, columns: Columns) -> np.ndarray:
    """Of each column, with one more row, of the column's mean; never zero."""
    return (rows.sum(0) + np.maximum(columns.centre, SMALL)) / (len(rows) + 1)


def pooled_variance(rows: np.ndarray, columns: Columns) -> np.ndarray:
    """Of each column, with one more row of what the prior expects; never zero."""
    around = (columns.spread**2) * prior_width(columns)
    return (len(rows) * rows.var(0) + around) / (len(rows) + 1)


def number_of_values(parameter: Parameter) -> int:
    """How many free numbers a parameter has: what a BIC counts."""
    shape = tuple(parameter.prior.batch_shape) + tuple(parameter.prior.event_shape)
    free = dist.biject_to(parameter.prior.support).inverse_shape(shape)
    return math.prod(free)
