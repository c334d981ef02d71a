"""The families: normal, Student-t, gamma, counts, proportions, categories. What each has to say is in `Family`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import distributions as dist

from marginax.mixture.columns import SMALL, TINY, Columns, prior_width
from marginax.mixture.family import (
    CLOSENESS,
    Columnwise,
    Family,
    Parameter,
    Values,
    is_count,
    means_prior,
    positive_means_prior,
)
from marginax.mixture.members import Members


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

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        variance = members.variance(columns)
        if self.spherical:
            variance = variance.mean(-1)
        return {"means": members.mean(), "precisions": 1 / variance}

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

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        scales = jnp.sqrt(members.variance(columns))
        return {"means": members.median(), "scales": scales, "df": jnp.full(len(scales), 8.0)}

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

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        del columns
        logs = members.changed(jnp.log)
        scales = jnp.sqrt((logs.squares() + 1) / (logs.numbers + 1))
        return {"locs": logs.mean(), "scales": scales}

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

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        mean = members.mean()
        return {"means": mean, "concentrations": mean**2 / members.variance(columns)}

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

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        return {"rates": members.positive_mean(columns)}

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

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        mean = members.positive_mean(columns)
        excess = jnp.maximum(members.variance(columns) - mean, 0.05 * mean)
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

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        mean = members.mean()
        variance = jnp.minimum(members.variance(columns), 0.5 * mean * (1 - mean))
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

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        del columns
        return {"probs": (members.total() + 1) / (members.numbers + 2)}

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

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        found = {}
        for j, (name, count) in enumerate(
            zip(self._names(columns.count), columns.categories, strict=True)
        ):
            one = members.of([j]).changed(lambda cells, count=count: cells == jnp.arange(count))
            found[name] = (one.total() + 1) / (one.numbers + count)
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
