"""Loops of our own: two batched calls of LAPACK in one program can wait for each other without end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.mixture.triangular import cholesky, inverse_of_lower, log_determinant


def test_factors_and_their_inverses_and_gradients_are_lapacks():
    with jax.enable_x64(True):
        root = np.random.default_rng(0).normal(size=(3, 2, 5, 5))
        matrices = jnp.asarray(root @ np.swapaxes(root, -1, -2) + np.eye(5))
        lower = np.linalg.cholesky(np.asarray(matrices))
        np.testing.assert_allclose(cholesky(matrices), lower, atol=1e-12)
        np.testing.assert_allclose(
            inverse_of_lower(jnp.asarray(lower)), np.linalg.inv(lower), atol=1e-12
        )
        np.testing.assert_allclose(
            log_determinant(jnp.asarray(lower)), np.linalg.slogdet(lower)[1], atol=1e-12
        )

        def ours(a: Any) -> Any:
            return jnp.sum(jnp.sin(inverse_of_lower(cholesky((a + a.mT) / 2))))

        def theirs(a: Any) -> Any:
            return jnp.sum(jnp.sin(jnp.linalg.inv(jnp.linalg.cholesky((a + a.mT) / 2))))

        np.testing.assert_allclose(jax.grad(ours)(matrices), jax.grad(theirs)(matrices), atol=1e-11)
