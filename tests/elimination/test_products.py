"""Summing out by a matrix product: the same number as directly, also where products vanish."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from marginax.elimination.products import two_factors
from marginax.elimination.semiring import SUM

K, N = 40, 30
RNG = np.random.default_rng(0)


def factors(spread: float, zeros: float = 0.0, plate: int = 1) -> tuple[Any, Any]:
    """``a[i, k]`` and ``b[k, j]`` in a plate, aligned to (plate, i, k, j); some entries impossible."""
    a, b = RNG.normal(size=(plate, N, K, 1)) * spread, RNG.normal(size=(plate, 1, K, N)) * spread
    a, b = (np.where(RNG.random(x.shape) < zeros, -np.inf, x) for x in (a, b))
    return a.astype(np.float32), b.astype(np.float32)


def by_numpy(a: Any, b: Any) -> Any:
    """The logarithm of the sum, and its weights, in double precision."""
    joint = a.astype(np.float64) + b.astype(np.float64)
    top = joint.max(2, keepdims=True)
    weights = np.exp(joint - np.where(np.isfinite(top), top, 0))
    total = weights.sum(2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.log(total) + top)[:, :, 0], np.where(total > 0, weights / total, 0)


CASES = {
    "ordinary": (3.0, 0.0),
    "sparse": (3.0, 0.6),
    "mostly impossible": (3.0, 0.95),
    "terms that vanish beside the largest entries": (60.0, 0.0),
    "sparse and vanishing": (60.0, 0.6),
}


@pytest.mark.parametrize("plate", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_direct_sum(case: str, plate: int) -> None:
    a, b = factors(*CASES[case], plate)
    assert two_factors([a, b], 2) is not None
    seen = np.asarray(RNG.normal(size=(plate, N, N)), np.float32)

    def weighted(a: Array, b: Array) -> tuple[Array, Array]:
        out = SUM.eliminate([a, b], 2, 0)
        return jnp.sum(jnp.where(jnp.isfinite(out), out, 0) * seen), out

    (_, value), gradient = jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))(a, b)
    expected, weights = by_numpy(a, b)
    np.testing.assert_array_equal(np.isneginf(value), np.isneginf(expected))
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-4)
    pull = np.where(np.isfinite(expected), seen, 0)[:, :, None] * weights
    for found, axis in ((gradient[0], 3), (gradient[1], 1)):
        np.testing.assert_allclose(found, pull.sum(axis, keepdims=True), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_a_forward_derivative_of_minus_infinity_counts_for_nothing_where_it_is_impossible(
    case: str,
) -> None:
    a, b = factors(*CASES[case])
    direction = np.where(np.isneginf(a), -np.inf, 1.0).astype(np.float32)
    along = (jnp.asarray(direction), jnp.zeros_like(b))
    value, change = jax.jvp(lambda a, b: SUM.eliminate([a, b], 2, 0), (a, b), along)
    np.testing.assert_allclose(change, np.where(np.isfinite(value), 1.0, 0.0), rtol=1e-4)


def test_a_batch_and_a_second_derivative() -> None:
    a, b = factors(2.0)
    batch = np.stack([a, a + 1.0])
    out = jax.vmap(lambda a: SUM.eliminate([a, b], 2, 0))(batch)
    np.testing.assert_allclose(out[1], out[0] + 1.0, rtol=1e-5, atol=1e-5)

    def total(shift: Any) -> Any:
        return jnp.sum(SUM.eliminate([a * shift, b], 2, 0))

    _, weights = by_numpy(a, b)
    mean = (weights * a).sum(2, keepdims=True)
    variance = (weights * (a - mean) ** 2).sum()
    np.testing.assert_allclose(jax.hessian(total)(1.0), variance, rtol=1e-3)


def test_small_factors_join_large_ones_and_what_saves_nothing_is_done_directly() -> None:
    a, b = (jnp.asarray(x) for x in factors(1.0))
    unary = jnp.zeros((1, 1, K, 1))
    pair = two_factors([unary, a, b, unary], 2)
    assert pair is not None
    assert sorted(x.shape for x in pair) == sorted(x.shape for x in (a, b))
    assert two_factors([a[:, :3, :5], b[:, :, :5, :3]], 2) is None  # small
    assert two_factors([a, unary], 2) is None  # nothing to multiply
    third = jnp.zeros((1, N, 1, N))
    assert two_factors([a, b, third], 2) is None  # the joint array is there already
