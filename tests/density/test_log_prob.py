"""Log densities at impossible values and at the edges of parameters: exact, and without NaN behind them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import Distribution
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.density.log_prob import log_prob
from marginax.language.stack import statement


@pytest.fixture(autouse=True)
def double() -> Any:
    with jax.enable_x64(True):
        yield


def density(fn: Distribution, value: Any, observed: bool = True) -> Any:
    return log_prob(statement("sample", "x", fn, value=value, is_observed=observed))


GRID = np.array([0.0, 1e-300, 0.3, 1.0])


@pytest.mark.parametrize("value", [0, 1])
def test_bernoulli_at_every_probability(value: int) -> None:
    found = density(dist.Bernoulli(GRID), value)
    np.testing.assert_allclose(found, stats.bernoulli.logpmf(value, GRID), rtol=1e-12)


@pytest.mark.parametrize("value", [-1, 0, 1, 3, 4])
def test_binomial_at_every_probability(value: int) -> None:
    found = density(dist.Binomial(3, GRID), value)
    np.testing.assert_allclose(found, stats.binom.logpmf(value, 3, GRID), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [-1, 0, 1, 7])
def test_poisson_at_every_rate(value: int) -> None:
    rates = np.array([0.0, 1e-10, 2.5, 40.0])
    found = density(dist.Poisson(rates), value)
    np.testing.assert_allclose(found, stats.poisson.logpmf(value, rates), rtol=1e-10, atol=1e-12)


def test_wrapped_distributions_have_the_same_edges() -> None:
    vector = dist.Bernoulli(np.array([0.0, 0.4])).to_event(1)
    np.testing.assert_allclose(density(vector, np.array([0, 1])), np.log(0.4))
    assert density(vector, np.array([1, 1])) == -np.inf
    masked = dist.Poisson(np.zeros(2)).mask(np.array([True, False]))
    np.testing.assert_array_equal(density(masked, np.array([1, 1])), [-np.inf, 0.0])
    expanded = dist.Binomial(2, 1.0).expand([3])
    np.testing.assert_array_equal(density(expanded, np.array([0, 1, 2])), [-np.inf, -np.inf, 0.0])


EDGES = {
    "bernoulli": lambda p: dist.Bernoulli(p),
    "binomial": lambda p: dist.Binomial(1, p),
    "beta-binomial": lambda p: dist.BetaBinomial(p + 1.0, 2.0, 1),
    "poisson": lambda p: dist.Poisson(p),
    "uniform": lambda p: dist.Uniform(0.0, p + 0.5),
    "exponential": lambda p: dist.Exponential(p + 1.0),
}


@pytest.mark.parametrize("value", [-3, 0, 1, 5])
@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("name", EDGES)
def test_no_derivative_at_an_edge_or_of_the_impossible_is_nan(
    name: str, p: float, value: int
) -> None:
    for given in (value, jnp.asarray(value)):
        slope = jax.grad(lambda p, v=given: density(EDGES[name](p), v))(p)
        assert np.isfinite(slope)
        if density(EDGES[name](p), given) == -np.inf:
            assert slope == 0


def test_the_derivative_of_a_count_of_zero_at_rate_zero() -> None:
    assert jax.grad(lambda r: density(dist.Poisson(r), 0))(0.0) == -1.0


def test_what_a_mask_switches_off_may_be_anything() -> None:
    x, keep = np.array([0.5, np.nan, np.inf]), np.array([True, False, False])

    def total(loc: Any) -> Any:
        return density(dist.Normal(loc, 1.0).expand([3]).mask(keep), x).sum()

    value, slope = jax.value_and_grad(total)(0.2)
    np.testing.assert_allclose(value, stats.norm.logpdf(0.5, 0.2))
    np.testing.assert_allclose(slope, 0.3)


def test_numbers_and_arrays_of_every_kind_may_be_observed() -> None:
    """Beside a bound that is summed out, NumPy's numbers must not be compared by NumPy."""

    def model(x: Any) -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Uniform(0.0, 1.0 + z), obs=x)

    for x in (1.5, np.float64(1.5), np.array(1.5), jnp.array(1.5)):
        np.testing.assert_allclose(mx.marginalize(model).log_density({}, x), np.log(0.25))


@pytest.mark.parametrize("count", [0, 3])
def test_zero_inflation_by_a_variable_has_a_gradient(count: int) -> None:
    def model(rate: Any) -> None:
        z = mx.sample("z", dist.Bernoulli(0.4))
        mx.sample("x", dist.Poisson(rate * z), obs=count)

    value, slope = jax.value_and_grad(lambda r: mx.marginalize(model).log_density({}, r))(2.0)
    inflated = 0.6 * (count == 0) + 0.4 * stats.poisson.pmf(count, 2.0)
    np.testing.assert_allclose(value, np.log(inflated))
    by_rate = 0.4 * stats.poisson.pmf(count, 2.0) * (count / 2.0 - 1) / inflated
    np.testing.assert_allclose(slope, by_rate)


def test_a_certain_value_is_not_overruled_by_a_strong_observation() -> None:
    def model(p: Any) -> None:
        z = mx.sample("z", dist.Bernoulli(p))
        mx.sample("x", dist.Normal(30.0 * z, 1.0), obs=0.0)

    m = mx.marginalize(model)
    np.testing.assert_allclose(m.log_density({}, 1.0), stats.norm.logpdf(0.0, 30.0))
    np.testing.assert_array_equal(m.posterior({}, 1.0)["z"], [0.0, 1.0])
    assert m.mode({}, 1.0)["z"] == 1


def test_a_value_outside_of_one_component_takes_nothing_from_the_others() -> None:
    x = np.array([-1.0, 0.5, 3.0])

    def total(k: Any, value: Any) -> Any:
        parts = [dist.Normal(0.0, 2.0), dist.Gamma(k, 2.0)]
        half = dist.Categorical(np.array([0.5, 0.5]))
        fn = dist.MixtureGeneral(half, parts, support=dist.constraints.real)
        return density(fn.expand([3]).to_event(1), value)

    def right(k: float) -> Any:
        both = 0.5 * stats.norm.pdf(x, 0, 2) + 0.5 * stats.gamma.pdf(x, k, scale=0.5)
        return np.log(both).sum()

    for value in (x, jnp.asarray(x)):
        found, slope = jax.jit(jax.value_and_grad(lambda k, v=value: total(k, v)))(0.9)
        np.testing.assert_allclose(found, right(0.9))
        np.testing.assert_allclose(slope, (right(0.9 + 1e-6) - right(0.9 - 1e-6)) / 2e-6, rtol=1e-6)


def test_known_values_are_not_asked_for_again_inside_of_a_mixture() -> None:
    fn = dist.MixtureSameFamily(dist.Categorical(np.ones(2) / 2), dist.Gamma(np.ones(2), 1.0))
    x = np.array([0.5, 2.0])
    known = str(jax.make_jaxpr(lambda: density(fn, x))())
    traced = str(jax.make_jaxpr(lambda x: density(fn, x))(x))
    assert known.count(" gt ") + 2 == traced.count(" gt ")  # the mixture's support and its parts'


@pytest.mark.parametrize(
    "base", [dist.Gamma(2.0, 1.0), dist.Weibull(1.0, 2.0), dist.Beta(2.0, 1.0)]
)
def test_a_zero_beside_a_continuous_distribution_may_be_observed(base: Any) -> None:
    y = np.array([0.0, 0.4, 0.0])

    def model(fn: Any, y: Any) -> None:
        with mx.plate("rows", len(y)):
            mx.sample("y", fn, obs=y)

    right = 2 * np.log(0.3) + np.log(0.7) + base.log_prob(0.4)
    for fn in (
        dist.HurdleDistribution(base, gate=0.3),
        dist.ZeroInflatedDistribution(base, gate=0.3),
    ):
        np.testing.assert_allclose(mx.marginalize(model).log_density({}, fn, y), right)
        with pytest.raises(mx.ModelError, match="or zero|between 0 and 1"):
            mx.marginalize(model).log_density({}, fn, np.array([-1.0]))


def test_a_mixture_of_intervals_holds_the_values_of_each() -> None:
    parts = [dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 4.0)]
    fn = dist.MixtureGeneral(dist.Categorical(np.array([0.5, 0.5])), parts)
    x = np.array([0.5, 1.5, 3.0])
    np.testing.assert_allclose(density(fn, x), [np.log(0.5), -np.inf, np.log(0.25)])


def test_probabilities_add_up_as_exactly_as_their_precision_allows() -> None:
    with jax.enable_x64(False):
        w = jax.nn.softmax(jnp.linspace(-3.0, 3.0, 5000))
        w = w * (1 + 1e-5)  # what rounding may do
        assert np.isfinite(jax.jit(lambda w: density(dist.Dirichlet(jnp.ones(5000)), w))(w))


W = np.array([0.0, 0.5, 0.5])


@pytest.mark.parametrize("concentration", [0.5, 1.0, 2.0])  # density infinite, finite and zero
def test_a_prior_cannot_make_a_query_fail_that_does_not_use_it(concentration: float) -> None:
    x = np.array([0.3, 1.1])

    def model(x: Any, a: float) -> None:
        w = mx.sample("w", dist.Dirichlet(a * jnp.ones(3)))
        with mx.plate("rows", len(x)):
            z = mx.sample("z", dist.Categorical(w))
            mx.sample("x", dist.Normal(jnp.arange(3.0)[z], 1.0), obs=x)

    m = mx.marginalize(model)
    joint = W * stats.norm.pdf(x[:, None], np.arange(3))
    shares = joint / joint.sum(1, keepdims=True)
    params = {"w": W}
    np.testing.assert_allclose(m.posterior(params, x, concentration)["z"], shares)
    np.testing.assert_allclose(m.pointwise(params, x, concentration)["x"], np.log(joint.sum(1)))
    np.testing.assert_array_equal(m.mode(params, x, concentration)["z"], shares.argmax(1))
    assert (m.draw(0, params, x, concentration)["z"] > 0).all()
    prior = {0.5: np.inf, 1.0: np.log(2.0), 2.0: -np.inf}[concentration]
    found = m.log_density(params, x, concentration)
    np.testing.assert_allclose(found, prior + np.log(joint.sum(1)).sum())
