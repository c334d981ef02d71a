"""Reductions of one variable: values, first and second derivatives, and impossible values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy import special, stats

from marginax.elimination.semiring import MAX, SUM, Semiring, sample_semiring

INF = np.inf
KEY = jax.random.key(0)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Both precisions; the wider one is on only while the test runs."""
    with jax.enable_x64(request.param is np.float64):
        yield request.param


def tolerance(dtype: Any, steps: int = 16) -> float:
    """Of a sum of a few terms of size one, each of them some operations long."""
    return steps * float(np.finfo(dtype).eps)


def tables(dtype: Any) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0).normal(size=(4, 3)) * 3
    some = draw.copy()
    some[0, 1] = some[2, 0] = -INF
    return {
        name: np.asarray(table, dtype)
        for name, table in {
            "finite": draw,
            "some impossible": some,
            "one value": draw[:, :1],
            "large": draw + 1e4,
            "very small": draw - 1e4,
            "far apart": np.array([[0.0, -1e3, -1e4]]),
            "one possible": np.array([[-INF, 2.0, -INF]]),
        }.items()
    }


def log_sum_exp(x: Any, axis: int) -> np.ndarray:
    return np.asarray(special.logsumexp(np.asarray(x, np.float64), axis=axis))


NAMES = list(tables(np.float64))


def reduce(semiring: Semiring, x: Any, axis: int = 1) -> Array:
    return semiring.reduce(jnp.asarray(x), axis, 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_sum_is_the_logarithm_of_a_sum(name: str, dtype: Any) -> None:
    x = tables(dtype)[name]
    expected = log_sum_exp(x.astype(np.float64), axis=1)
    out = reduce(SUM, x)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, expected, rtol=tolerance(dtype), atol=tolerance(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_the_derivative_of_the_sum_is_the_probability_of_each_value(name: str, dtype: Any) -> None:
    x = tables(dtype)[name]
    gradient = jax.grad(lambda x: reduce(SUM, x).sum())(jnp.asarray(x))
    # The logarithms are rounded to their own size before they are exponentiated.
    size = np.abs(x[np.isfinite(x)]).max() + 1
    np.testing.assert_allclose(
        gradient, special.softmax(x.astype(np.float64), axis=1), atol=tolerance(dtype, 4) * size
    )
    assert np.all(np.asarray(gradient)[x == -INF] == 0)


@pytest.mark.parametrize("name", ["finite", "some impossible", "one value", "one possible"])
def test_the_second_derivative_of_the_sum_is_the_covariance_of_the_choice(
    name: str, dtype: Any
) -> None:
    for row in tables(dtype)[name]:
        p = special.softmax(row.astype(np.float64))
        hessian = jax.hessian(lambda x: reduce(SUM, x, 0))(jnp.asarray(row))
        expected = np.diag(p) - np.outer(p, p)
        np.testing.assert_allclose(hessian, expected, atol=tolerance(dtype))


def test_the_derivatives_agree_with_finite_differences() -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(tables(np.float64)["finite"])
        direction = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))

        def total(t: Any) -> Array:
            return jnp.sum(reduce(SUM, x + t * direction) ** 2)

        h = 1e-4  # central differences: an error of order h**2 and of eps / h**2
        values = [float(total(t)) for t in (-h, 0.0, h)]
        first, second = jax.grad(total)(0.0), jax.grad(jax.grad(total))(0.0)
        np.testing.assert_allclose(first, (values[2] - values[0]) / (2 * h), rtol=1e-6)
        bound = 16 * np.finfo(np.float64).eps * max(values) / h**2 + h * abs(float(second))
        assert abs(second - (values[2] - 2 * values[1] + values[0]) / h**2) < bound


@pytest.mark.parametrize("semiring", [SUM, MAX, sample_semiring(KEY)], ids=lambda s: s.name)
@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_equals_reverse_mode(name: str, semiring: Semiring, dtype: Any) -> None:
    x = jnp.asarray(tables(dtype)[name])
    tangent = jnp.asarray(np.random.default_rng(2).normal(size=x.shape), dtype)
    _, forward = jax.jvp(lambda x: reduce(semiring, x).sum(), (x,), (tangent,))
    gradient = jax.grad(lambda x: reduce(semiring, x).sum())(x)
    np.testing.assert_allclose(forward, jnp.sum(gradient * tangent), atol=tolerance(dtype, 64))


@pytest.mark.parametrize("semiring", [SUM, MAX, sample_semiring(KEY)], ids=lambda s: s.name)
def test_what_is_impossible_altogether_is_minus_infinity_with_no_derivative(
    semiring: Semiring, dtype: Any
) -> None:
    x = jnp.full((2, 3), -jnp.inf, dtype)
    assert np.all(np.asarray(reduce(semiring, x)) == -INF)
    gradient = jax.grad(lambda x: reduce(semiring, x).sum())(x)
    np.testing.assert_array_equal(gradient, np.zeros((2, 3)))
    if semiring is SUM:
        second = jax.hessian(lambda x: reduce(semiring, x, 0))(x[0])
        np.testing.assert_array_equal(second, np.zeros((3, 3)))


@pytest.mark.parametrize("semiring", [SUM, MAX, sample_semiring(KEY)], ids=lambda s: s.name)
def test_an_infinite_derivative_of_an_impossible_value_counts_for_nothing(
    semiring: Semiring,
) -> None:
    x, infinite = jnp.array([0.5, -jnp.inf, 0.2]), jnp.array([1.0, jnp.inf, 1.0])
    _, change = jax.jvp(lambda x: reduce(semiring, x, 0), (x,), (infinite,))
    np.testing.assert_allclose(change, 1.0, rtol=tolerance(np.float32))

    def first(x: Any) -> Any:
        return jax.jvp(lambda x: reduce(semiring, x, 0), (x,), (jnp.array([1.0, 0.0, 0.0]),))[1]

    assert np.isfinite(jax.jvp(first, (x,), (infinite,))[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_maximum_points_at_the_largest(name: str, dtype: Any) -> None:
    x = tables(dtype)[name]
    np.testing.assert_array_equal(reduce(MAX, x), x.max(1))
    gradient = jax.grad(lambda x: reduce(MAX, x).sum())(jnp.asarray(x))
    np.testing.assert_array_equal(gradient, np.arange(x.shape[1]) == x.argmax(1)[:, None])


def test_of_equal_maxima_one_is_chosen() -> None:
    gradient = jax.grad(lambda x: reduce(MAX, x, 0))(jnp.array([1.0, 3.0, 3.0, 3.0]))
    np.testing.assert_array_equal(gradient, [0, 1, 0, 0])


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_has_the_value_of_the_sum_and_points_at_one_possible_value(
    name: str, dtype: Any
) -> None:
    x = tables(dtype)[name]
    value, gradient = jax.value_and_grad(lambda x: reduce(sample_semiring(KEY), x).sum())(
        jnp.asarray(x)
    )
    np.testing.assert_allclose(value, reduce(SUM, x).sum(), rtol=tolerance(dtype))
    assert set(np.unique(gradient)) <= {0.0, 1.0}
    np.testing.assert_array_equal(gradient.sum(1), 1)
    assert np.all(np.asarray(gradient)[x == -INF] == 0)


def test_draws_have_their_probabilities() -> None:
    x = jnp.array([0.3, -1.0, 1.2, -jnp.inf])
    count = 20_000

    def draw(key: Any) -> Array:
        return jax.grad(lambda x: reduce(sample_semiring(key), x, 0))(x)

    draws = jax.vmap(draw)(jax.random.split(jax.random.key(1), count)).sum(0)
    assert draws[3] == 0
    expected = count * special.softmax(np.asarray(x, np.float64))[:3]
    statistic = ((np.asarray(draws)[:3] - expected) ** 2 / expected).sum()
    assert statistic < stats.chi2.isf(1e-4, df=2)


def test_rows_and_steps_draw_independently() -> None:
    """Of 1000 fair coins, two steps (and the two halves of one step) agree in about one half."""
    x = jnp.zeros((1000, 2))

    def draws(step: int) -> np.ndarray:
        semiring = sample_semiring(KEY)
        gradient = jax.grad(lambda x: semiring.reduce(x, 1, step).sum())(x)
        return np.asarray(gradient)[:, 1]

    low, high = stats.binom.ppf([5e-5, 1 - 5e-5], 1000, 0.5)
    assert low <= (draws(0) == draws(1)).sum() <= high
    low, high = stats.binom.ppf([5e-5, 1 - 5e-5], 500, 0.5)
    assert low <= (draws(0)[:500] == draws(0)[500:]).sum() <= high
    np.testing.assert_array_equal(draws(0), draws(0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_can_be_reduced(axis: int) -> None:
    x = np.random.default_rng(3).normal(size=(2, 3, 4)).astype(np.float32)
    for semiring, expected in ((SUM, log_sum_exp(x, axis)), (MAX, x.max(axis))):
        out = reduce(semiring, x, axis)
        np.testing.assert_allclose(out, expected, rtol=tolerance(np.float32))
        gradient = jax.grad(lambda x, s=semiring: reduce(s, x, axis).sum())(jnp.asarray(x))
        np.testing.assert_allclose(gradient.sum(axis), 1.0, rtol=tolerance(np.float32))


@pytest.mark.parametrize(
    "transform",
    [jax.jit, lambda f: lambda x: jax.vmap(f)(x[None])[0], jax.checkpoint],
    ids=["jit", "vmap", "checkpoint"],
)
def test_derivatives_survive_transformations(transform: Callable[..., Any]) -> None:
    x = jnp.asarray(tables(np.float32)["some impossible"])
    plain = jax.grad(lambda x: reduce(SUM, x).sum())(x)
    changed = jax.grad(lambda x: transform(lambda x: reduce(SUM, x))(x).sum())(x)
    np.testing.assert_allclose(changed, plain, rtol=tolerance(np.float32))


def test_what_is_impossible_is_never_drawn_among_many_values_in_single_precision() -> None:
    """A cumulative sum that is rounded may grow where nothing was added to it."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200_000, 61)).astype(np.float32)
    x[:, 1::2] = -INF
    drawn = jax.grad(lambda x: jnp.sum(reduce(sample_semiring(KEY), x)))(jnp.asarray(x))
    np.testing.assert_array_equal(drawn[:, 1::2], 0)
    np.testing.assert_array_equal(np.sum(drawn, 1), 1)
