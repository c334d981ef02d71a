"""Normal rows with any covariance, and what becomes of them when cells are missing.

The parameter is the Cholesky factor L of the precision matrix, L L' = inverse covariance: then a row's quadratic form
is the length of L' (row - mean), the determinant a product, and no matrix is factored or solved for while fitting.

The columns that are there, of a normal row with missing cells, are normal with the same means and the block of the
covariance that is theirs. So a missing cell costs nothing but another matrix, and of these there are as
many as *patterns* of missing cells, not as rows: for each component and pattern the block is inverted once (`prepare`),
with ones on the diagonal and zeros beside it in place of what is missing, which leaves its determinant and its
quadratic form as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import distributions as dist

from marginax.jaxpr.compiled import QUICK, jitted
from marginax.mixture.columns import Columns, prior_width
from marginax.mixture.family import Family, Parameter, Values, means_prior
from marginax.mixture.members import Members
from marginax.mixture.triangular import cholesky, inverse_of_lower, log_determinant

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Gaussian(Family):
    """Normal rows, with a covariance matrix for each component (``full``) or one for all (``tied``).

    Priors, on standardised columns: means Normal(0, 3); precision matrices Wishart with as many degrees of freedom as
    columns and two more, around variances of 0.2 / K^(2/columns) (Fraley and Raftery, 2007, "Bayesian
    regularization for normal mixture estimation and model-based clustering", Journal of Classification 24,
    without the fifth). It weighs about as much as one row, and keeps a component from collapsing onto a single one.
    A prior of one's own for ``precision_factors`` is a distribution of Cholesky factors, such as `WishartCholesky`.
    """

    tied: bool = False
    is_standardized: ClassVar[bool] = True

    def parameters(self, columns: Columns) -> dict[str, Parameter]:
        scale = np.diag(1 / np.sqrt(columns.spread**2 * prior_width(columns)))
        factor = _wishart(columns.count + 2.0, scale)
        return {
            "means": Parameter(means_prior(columns)),
            "precision_factors": Parameter(factor, is_shared=self.tied),
        }

    def start(self, members: Members, columns: Columns) -> dict[str, Array]:
        covariance = members.covariance(columns)
        if self.tied:
            covariance = jnp.einsum("nk,kij->ij", members.shares, covariance)
            covariance = covariance / jnp.sum(members.shares)
        return {"means": members.mean(), "precision_factors": _factor_of_inverse(covariance)}

    def prepare(self, values: Values, patterns: Any) -> dict[str, Any]:
        factors = values["precision_factors"]
        count = factors.shape[-1]
        if patterns is None:
            whitening = jnp.swapaxes(factors, -1, -2)[..., None, :, :]
            log_volume = -log_determinant(whitening)
            number = jnp.asarray(count)
        else:
            inverse = inverse_of_lower(factors)
            covariance = jnp.swapaxes(inverse, -1, -2) @ inverse
            there = patterns[:, :, None] & patterns[:, None, :]
            block = jnp.where(there, covariance[..., None, :, :], jnp.eye(count))
            factor = cholesky(block)
            # The inverse of the factor once, a product for each row: rows are many, and solving is slow.
            whitening, log_volume = inverse_of_lower(factor), log_determinant(factor)
            number = jnp.sum(jnp.asarray(patterns), -1)
        log_constant = -log_volume - 0.5 * LOG_2PI * number
        return {"means": values["means"], "whitening": whitening, "log_constant": log_constant}

    def of(self, prepared: Values, component: Any, pattern: Any) -> dict[str, Any]:
        return {
            "means": prepared["means"][component],
            "whitening": prepared["whitening"][component, pattern],
            "log_constant": prepared["log_constant"][component, pattern],
        }

    def log_prob(self, values: Values, rows: Any, observed: Any) -> Array:
        deviation = rows - values["means"]
        if observed is not None:
            deviation = jnp.where(observed, deviation, 0.0)
        white = jnp.einsum("...ij,...j->...i", values["whitening"], deviation)
        return values["log_constant"] - 0.5 * jnp.sum(white**2, -1)

    def draw(self, key: Any, values: Values, shape: tuple[int, ...]) -> Array:
        noise = jax.random.normal(key, (*shape, *values["means"].shape))
        coloured = jnp.linalg.solve(values["whitening"], noise[..., None])[..., 0]
        return values["means"] + coloured

    def in_units(self, values: Values, centre: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
        factors = values["precision_factors"] / spread[:, None]
        return {
            "means": values["means"] * spread + centre,
            "covariances": np.linalg.inv(factors @ np.swapaxes(factors, -1, -2)),
        }


@partial(jitted, options=QUICK)
def _wishart(freedom: Any, scale: Any) -> dist.WishartCholesky:
    """As one small program, not several; what is known to be right need not be checked."""
    return dist.WishartCholesky(freedom, scale_tril=scale, validate_args=False)


def _factor_of_inverse(covariance: Array) -> Array:
    """The lower Cholesky factor of the inverse: backwards, it is the inverse of a factor's transpose."""
    backwards = cholesky(jnp.flip(covariance, (-2, -1)))
    return jnp.flip(jnp.swapaxes(inverse_of_lower(backwards), -1, -2), (-2, -1))
