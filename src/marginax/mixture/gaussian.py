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
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import distributions as dist

from marginax.mixture.family import Columns, Family, Parameter, Values, means_prior, prior_width

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
        # With its scale's factor it computes nothing, and what is known to be right need not be checked.
        factor = dist.WishartCholesky(
            columns.count + 2.0, scale_tril=jnp.asarray(scale), validate_args=False
        )
        return {
            "means": Parameter(means_prior(columns)),
            "precision_factors": Parameter(factor, is_shared=self.tied),
        }

    def start(self, rows: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        means = rows.mean(0)
        around = np.diag(columns.spread**2) * prior_width(columns)
        deviation = rows - means
        covariance = (deviation.T @ deviation + around) / (len(rows) + 1)
        return {"means": means, "precision_factors": np.linalg.cholesky(np.linalg.inv(covariance))}

    def prepare(self, values: Values, patterns: Any) -> dict[str, Any]:
        factors = values["precision_factors"]
        count = factors.shape[-1]
        if patterns is None:
            whitening = jnp.swapaxes(factors, -1, -2)[..., None, :, :]
            log_volume = -_log_determinant(whitening)
            number = jnp.asarray(count)
        else:
            inverse = _inverse_of_lower(factors)
            covariance = jnp.swapaxes(inverse, -1, -2) @ inverse
            there = patterns[:, :, None] & patterns[:, None, :]
            block = jnp.where(there, covariance[..., None, :, :], jnp.eye(count))
            cholesky = _cholesky(block)
            # The inverse of the factor once, a product for each row: rows are many, and solving is slow.
            whitening, log_volume = _inverse_of_lower(cholesky), _log_determinant(cholesky)
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


# LAPACK's batched calls share XLA's threads; two at once wait for each other without end, so these are loops.


def _cholesky(matrix: Array) -> Array:
    """Column by column, of matrices in shape (..., n, n)."""
    count = matrix.shape[-1]

    def column(j: Any, factor: Array) -> Array:
        row = jax.lax.dynamic_index_in_dim(factor, j, -2, keepdims=False)
        own = jax.lax.dynamic_index_in_dim(matrix, j, -1, keepdims=False)
        left = own - jnp.einsum("...ik,...k->...i", factor, row)
        pivot = jax.lax.dynamic_index_in_dim(left, j, -1)
        values = jnp.where(jnp.arange(count) >= j, left / jnp.sqrt(pivot), 0.0)
        return jnp.where(jnp.arange(count) == j, values[..., None], factor)

    return jax.lax.fori_loop(0, count, column, jnp.zeros_like(matrix))


def _inverse_of_lower(factors: Array) -> Array:
    """Row by row, of matrices in shape (..., n, n)."""
    count = factors.shape[-1]

    def row(i: Any, inverse: Array) -> Array:
        own = jax.lax.dynamic_index_in_dim(factors, i, -2, keepdims=False)
        unit = (jnp.arange(count) == i).astype(factors.dtype)
        left = unit - jnp.einsum("...k,...kj->...j", own, inverse)
        values = left / jax.lax.dynamic_index_in_dim(own, i, -1)
        return jnp.where((jnp.arange(count) == i)[:, None], values[..., None, :], inverse)

    return jax.lax.fori_loop(0, count, row, jnp.zeros_like(factors))


def _log_determinant(triangular: Array) -> Array:
    return jnp.sum(jnp.log(jnp.diagonal(triangular, axis1=-2, axis2=-1)), -1)
