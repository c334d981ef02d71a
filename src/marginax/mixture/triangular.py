"""Cholesky factors of many small matrices, in loops of products.

LAPACK's batched calls share XLA's threads on CPUs; two of them at once can wait for each other without end. The
matrices here are as large as a table is wide.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def cholesky(matrix: Array) -> Array:
    """The lower factors, column by column, of matrices in shape (..., n, n)."""
    count = matrix.shape[-1]

    def column(j: Any, factor: Array) -> Array:
        row = jax.lax.dynamic_index_in_dim(factor, j, -2, keepdims=False)
        own = jax.lax.dynamic_index_in_dim(matrix, j, -1, keepdims=False)
        left = own - jnp.einsum("...ik,...k->...i", factor, row)
        pivot = jax.lax.dynamic_index_in_dim(left, j, -1)
        values = jnp.where(jnp.arange(count) >= j, left / jnp.sqrt(pivot), 0.0)
        return jnp.where(jnp.arange(count) == j, values[..., None], factor)

    return jax.lax.fori_loop(0, count, column, jnp.zeros_like(matrix))


def inverse_of_lower(factors: Array) -> Array:
    """The inverse, row by row, of lower triangular matrices in shape (..., n, n)."""
    count = factors.shape[-1]

    def row(i: Any, inverse: Array) -> Array:
        own = jax.lax.dynamic_index_in_dim(factors, i, -2, keepdims=False)
        unit = (jnp.arange(count) == i).astype(factors.dtype)
        left = unit - jnp.einsum("...k,...kj->...j", own, inverse)
        values = left / jax.lax.dynamic_index_in_dim(own, i, -1)
        return jnp.where((jnp.arange(count) == i)[:, None], values[..., None, :], inverse)

    return jax.lax.fori_loop(0, count, row, jnp.zeros_like(factors))


def log_determinant(triangular: Array) -> Array:
    """Of triangular matrices in shape (..., n, n) with a positive diagonal."""
    return jnp.sum(jnp.log(jnp.diagonal(triangular, axis1=-2, axis2=-1)), -1)
