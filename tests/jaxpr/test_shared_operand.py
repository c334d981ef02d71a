"""One matrix for all elements of a plate: the numbers of `jax.vmap`, and nothing copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from marginax.jaxpr.enumerated import Enumerated, materialise, support_input
from marginax.jaxpr.evaluate import evaluate

N, K, D = 50, 3, 4
RNG = np.random.default_rng(0)
MATRICES = np.tril(RNG.normal(size=(K, D, D))) + 3 * np.eye(D)
FULL = RNG.normal(size=(K, D, D))
POINTS = RNG.normal(size=(N, D))
SIDES = RNG.normal(size=(N, D, 2))
OWN = RNG.normal(size=(N, D, D)) + 5 * np.eye(D)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def solve(matrix: Any, sides: Any, **options: Any) -> Any:
    return lax.linalg.triangular_solve(matrix, sides, **options)


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "matrix times vectors": lambda z: jnp.einsum("nij,nj->ni", jnp.asarray(FULL)[z], POINTS),
    "vectors times matrix": lambda z: jnp.einsum("nj,nji->ni", POINTS, jnp.asarray(FULL)[z]),
    "products with free axes on both sides": lambda z: jnp.einsum(
        "nij,njk->nik", jnp.asarray(FULL)[z], SIDES
    ),
    "contraction of two axes": lambda z: jnp.einsum("nij,nij->n", jnp.asarray(FULL)[z], OWN),
    "the same vector on the other side": lambda z: jnp.einsum(
        "nij,nj->ni", OWN, jnp.asarray(FULL)[z][:, 0]
    ),
    "both the same": lambda z: jnp.einsum(
        "nij,nj->ni", jnp.asarray(FULL)[z], jnp.asarray(FULL)[z][:, 1]
    ),
    "lower triangular system": lambda z: solve(
        jnp.asarray(MATRICES)[z], SIDES, left_side=True, lower=True
    ),
    "transposed": lambda z: solve(
        jnp.asarray(MATRICES)[z], SIDES, left_side=True, lower=True, transpose_a=True
    ),
    "with a diagonal of ones": lambda z: solve(
        jnp.asarray(MATRICES)[z], SIDES, left_side=True, lower=True, unit_diagonal=True
    ),
    "upper triangular, from the right": lambda z: solve(
        jnp.swapaxes(jnp.asarray(MATRICES)[z], 1, 2), jnp.swapaxes(SIDES, 1, 2)
    ),
    "a system for each element": lambda z: solve(
        jnp.tril(OWN), jnp.asarray(FULL)[z], left_side=True, lower=True
    ),
}


def enumerated(fn: Callable[[Any], Any]) -> Enumerated:
    closed = jax.make_jaxpr(fn)(np.zeros(N, np.int32))
    z = support_input(np.arange(K, dtype=np.int32), 1, "z", (N,))
    (out,) = evaluate(closed.jaxpr, closed.consts, [z], {"z": 0})
    return out


def over_values(fn: Callable[[Any], Any]) -> Any:
    """For each value of z, the last axis, as it stands."""
    return jnp.stack([fn(jnp.full(N, k)) for k in range(K)], axis=-1)


@pytest.mark.parametrize("fn", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_shared_operand_gives_the_numbers_of_one_for_each_element(fn: Callable[[Any], Any]):
    out = enumerated(fn)
    assert out.variables == ("z",)
    whole = materialise(out, jnp.shape(fn(np.zeros(N, int))), out.constant).array
    np.testing.assert_allclose(whole, over_values(fn), rtol=1e-10, atol=1e-12)


def test_its_gradient_is_that_of_one_for_each_element():
    def total(matrices: Any, points: Any, of: Callable[[Callable[[Any], Any]], Any]) -> Any:
        def whitened(z: Any) -> Any:
            return solve(matrices[z], points[..., None], left_side=True, lower=True)

        return jnp.sum(jnp.sin(of(whitened)))

    arguments = (jnp.asarray(MATRICES), jnp.asarray(POINTS))
    ours = jax.grad(lambda m, p: total(m, p, lambda f: enumerated(f).array), (0, 1))(*arguments)
    expected = jax.grad(lambda m, p: total(m, p, over_values), (0, 1))(*arguments)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["matrix times vectors", "lower triangular system"])
def test_the_matrix_is_not_copied_for_every_element(name: str):
    jaxpr = jax.make_jaxpr(lambda: enumerated(PROGRAMS[name]).array)()
    result = jaxpr.out_avals[0].size
    assert all(v.aval.size <= result for eqn in jaxpr.jaxpr.eqns for v in eqn.outvars)
    assert result < N * K * D * D  # which a copy would have


def test_single_precision_stays_single():
    points = POINTS.astype(np.float32)
    matrices = MATRICES.astype(np.float32)
    out = enumerated(
        lambda z: solve(jnp.asarray(matrices)[z], points[..., None], left_side=True, lower=True)
    )
    assert out.array.dtype == jnp.float32
