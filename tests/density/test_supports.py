"""Which values a discrete variable is summed over, and what is said when there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.density.supports import beyond_the_cut
from marginax.graph.sites import Site, collect_sites


def site_of(fn: Any, **infer: Any) -> Site:
    return collect_sites(lambda: mx.sample("z", fn, infer=infer or None))["z"]


RANGES: dict[str, tuple[Any, list[int]]] = {
    "bernoulli": (dist.Bernoulli(0.3), [0, 1]),
    "bernoulli by logits": (dist.Bernoulli(logits=0.3), [0, 1]),
    "categorical": (dist.Categorical(np.ones(3) / 3), [0, 1, 2]),
    "categorical by logits": (dist.Categorical(logits=np.zeros(3)), [0, 1, 2]),
    "discrete uniform": (dist.DiscreteUniform(-2, 1), [-2, -1, 0, 1]),
    "binomial": (dist.Binomial(3, 0.5), [0, 1, 2, 3]),
    "binomial by logits": (dist.Binomial(2, logits=0.0), [0, 1, 2]),
    "no trials": (dist.Binomial(0, 0.5), [0]),
    "beta-binomial": (dist.BetaBinomial(1.0, 1.0, 2), [0, 1, 2]),
    "zero-inflated": (dist.ZeroInflatedDistribution(dist.Binomial(2, 0.5), gate=0.2), [0, 1, 2]),
    "zero beside counts": (
        dist.ZeroInflatedDistribution(dist.DiscreteUniform(2, 3), gate=0.2),
        [0, 1, 2, 3],
    ),
    "mixture": (
        dist.MixtureSameFamily(dist.Categorical(np.ones(2) / 2), dist.Bernoulli(np.ones(2) / 2)),
        [0, 1],
    ),
}


@pytest.mark.parametrize("name", RANGES)
def test_values_of_a_finite_support(name: str) -> None:
    fn, values = RANGES[name]
    site = site_of(fn)
    np.testing.assert_array_equal(site.support, values)
    assert site.cut == (False, False)


@pytest.mark.parametrize(
    ("fn", "values"),
    [
        (dist.Binomial(np.array([1, 3, 0]), 0.5), [0, 1, 2, 3]),
        (dist.BetaBinomial(1.0, 1.0, np.array([2, 1, 2])), [0, 1, 2]),
        (dist.DiscreteUniform(np.array([2, -1, 0]), np.array([3, 0, 0])), [-1, 0, 1, 2, 3]),
    ],
    ids=["binomial", "beta-binomial", "discrete uniform"],
)
def test_elements_with_supports_of_their_own_share_the_envelope(fn: Any, values: list[int]) -> None:
    def model() -> None:
        with mx.plate("data", 3):
            mx.sample("z", fn)

    np.testing.assert_array_equal(collect_sites(model)["z"].support, values)


@pytest.mark.parametrize(
    ("fn", "stated", "values", "cut"),
    [
        (dist.Poisson(3.0), (0, 4), [0, 1, 2, 3, 4], (False, True)),
        (dist.Poisson(3.0), (2, 4), [2, 3, 4], (True, True)),
        (dist.Poisson(3.0), (-5, 1), [0, 1], (False, True)),
        (dist.Geometric(0.3), (0, 2), [0, 1, 2], (False, True)),
        (dist.NegativeBinomial2(2.0, 1.0), (0, 2), [0, 1, 2], (False, True)),
        (dist.ZeroInflatedPoisson(0.2, 3.0), (0, 2), [0, 1, 2], (False, True)),
        (dist.Binomial(9, 0.3), (0, 4), [0, 1, 2, 3, 4], (False, True)),
        (dist.Binomial(2, 0.3), (0, 4), [0, 1, 2], (False, False)),
        (dist.DiscreteUniform(0, 9), (3, 9), list(range(3, 10)), (True, False)),
    ],
)
def test_a_stated_range(fn: Any, stated: Any, values: list[int], cut: tuple[bool, bool]) -> None:
    site = site_of(fn, support=stated)
    np.testing.assert_array_equal(site.support, values)
    assert site.cut == cut


@pytest.mark.parametrize("stated", [5, (0, 1.5), (3, 1), (0, 1, 2), "ab", (0, None)])
def test_a_range_that_is_none(stated: Any) -> None:
    with pytest.raises(mx.ModelError, match="site 'z': infer=.*must be .low, high."):
        site_of(dist.Poisson(2.0), support=stated)


@pytest.mark.parametrize(
    ("fn", "stated", "words"),
    [
        (dist.Poisson(2.0), (-5, -1), "no value that Poisson can take"),
        (dist.Binomial(3, 0.5), (7, 9), "no value that Binomial can take"),
        (dist.OneHotCategorical(np.ones(2) / 2), (0, 1), "OneHotCategorical does not have"),
    ],
)
def test_a_range_that_does_not_fit(fn: Any, stated: Any, words: str) -> None:
    with pytest.raises(mx.ModelError, match=f"site 'z'.*{words}"):
        site_of(fn, support=stated)


def test_a_vector_has_every_combination_of_its_components() -> None:
    three: Any = dist.Categorical(np.ones(3) / 3)
    site = site_of(three.expand([2]).to_event(1))
    assert site.support is not None
    assert site.support.shape == (9, 2)
    assert len({tuple(row) for row in site.support.tolist()}) == 9


def test_a_vector_with_too_many_values_is_not_summed_out() -> None:
    site = site_of(dist.Bernoulli(0.5).expand([20]).to_event(1))
    assert site.support is None
    assert "2**20" in site.not_enumerated_because
    assert "plate" in site.not_enumerated_because


def test_a_bound_in_the_data_is_found_outside_of_jit_and_asked_for_inside() -> None:
    def model(trials: Any) -> None:
        with mx.plate("data", 2):
            mx.sample("z", dist.Binomial(trials, 0.5))

    m, trials = mx.marginalize(model), jnp.array([2, 3])
    assert m.posterior({}, trials)["z"].shape == (2, 4)
    with pytest.raises(mx.ModelError, match=r"site 'z'.*close over it.*infer=\{'support'"):
        jax.jit(m.posterior)({}, trials)
    closed_over = jax.jit(lambda: m.posterior({}, trials))()
    np.testing.assert_allclose(closed_over["z"], m.posterior({}, trials)["z"])


# --- what a cut takes away ------------------------------------------------------------------------


def counts(rate: Any, high: int, x: Any = None) -> Callable[..., None]:
    def model() -> None:
        n = mx.sample("n", dist.Poisson(rate), infer={"support": (0, high)})
        if x is not None:
            mx.sample("x", dist.Normal(1.0 * n, 1.0), obs=x)

    return model


@pytest.mark.parametrize("high", [8, 10, 12])
def test_the_estimate_is_close_to_the_truth_and_not_below_it(high: int) -> None:
    m = mx.marginalize(counts(4.0, high))
    with pytest.warns(mx.TruncationWarning):
        m.log_density({})
    truth = stats.poisson(4.0).sf(high) / stats.poisson(4.0).cdf(high)
    estimate = float(m.beyond_cuts({})["n"])
    assert truth <= estimate <= 3 * truth


def test_what_matters_is_the_posterior() -> None:
    """The prior hardly reaches 30; the observation does."""
    mx.marginalize(counts(2.0, 30)).log_density({})
    with pytest.warns(mx.TruncationWarning, match=r"site 'n': its range.*\(0, 30\).*widen it"):
        mx.marginalize(counts(2.0, 30, x=60.0)).log_density({})


def test_no_fall_towards_the_cut_is_reported_as_all() -> None:
    values, cut = np.arange(3), (True, True)
    for weights, expected in (
        ([0.2, 0.3, 0.5], 1.0),
        ([0.0, 1.0, 0.0], 0.0),
        ([0.1, 0.7, 0.2], 0.1 * (1 / 7) / (6 / 7) + 0.2 * (2 / 7) / (5 / 7)),
    ):
        np.testing.assert_allclose(
            beyond_the_cut(values, cut, jnp.array(weights)), expected, rtol=1e-5
        )


def test_a_cut_in_a_batch_warns_once_for_the_worst() -> None:
    def model() -> None:
        rate = mx.sample("rate", dist.Gamma(1.0, 1.0))
        mx.sample("n", dist.Poisson(rate), infer={"support": (0, 9)})

    m = mx.marginalize(model)
    m.log_density({"rate": np.array([0.1, 0.5])})
    with pytest.warns(mx.TruncationWarning, match="in the worst place") as caught:
        m.log_density({"rate": np.array([0.1, 8.0])})
    assert len(caught) == 1


def test_a_multinomial_is_summed_over_all_ways_to_share_its_draws() -> None:
    probs, locs = np.array([0.2, 0.3, 0.5]), np.array([0.0, 1.0, 2.0])

    def model(draws: int) -> None:
        z = mx.sample("z", dist.Multinomial(draws, probs))
        mx.sample("x", dist.Normal(z @ jnp.asarray(locs), 1.0), obs=1.3)

    m = mx.marginalize(model)
    np.testing.assert_array_equal(m.supports(1)["z"], np.eye(3))
    of_one = np.log(probs @ stats.norm.pdf(1.3, locs))
    np.testing.assert_allclose(m.log_density({}, 1), of_one, rtol=1e-6)
    values = m.supports(3)["z"]
    assert sorted(map(tuple, values)) == sorted(
        (i, j, 3 - i - j) for i in range(4) for j in range(4 - i)
    )
    of_three = stats.multinomial.pmf(values, 3, probs) @ stats.norm.pdf(1.3, values @ locs)
    np.testing.assert_allclose(m.log_density({}, 3), np.log(of_three), rtol=1e-6)


def test_a_multinomial_of_too_many_ways_is_refused() -> None:
    site = site_of(dist.Multinomial(60, np.ones(4) / 4))
    assert site.support is None
    assert "39,711 values" in site.not_enumerated_because


BOUNDS = np.array([0, 4, 9])


@pytest.mark.parametrize(
    "fn",
    [
        lambda array: dist.DiscreteUniform(array, 14),
        lambda array: dist.Binomial(array, 0.5),
        lambda array: dist.BetaBinomial(1.0, 1.0, array),
    ],
    ids=["discrete uniform", "binomial", "beta-binomial"],
)
@pytest.mark.parametrize("infer", [{}, {"support": (0, 14)}], ids=["", "range stated"])
def test_bounds_may_be_arrays_that_the_model_makes(fn: Any, infer: dict[str, Any]) -> None:
    def model(make: Any) -> None:
        with mx.plate("rows", 3):
            mx.sample("z", fn(make(BOUNDS)), infer=infer)

    expected = collect_sites(model, np.asarray)["z"]
    found = collect_sites(model, lambda bounds: jnp.array(bounds.tolist()))["z"]
    np.testing.assert_array_equal(found.support, expected.support)
    assert found.cut == expected.cut == (False, False)
    # Also where all of it is traced, as under the user's jit.
    jitted = jax.jit(lambda: mx.marginalize(model).log_density({}, jnp.asarray))
    np.testing.assert_allclose(jitted(), 0.0, atol=1e-5)


def test_a_range_may_be_computed_from_data() -> None:
    def model(y: Any) -> None:
        n = mx.sample("n", dist.Poisson(2.0), infer={"support": (0, jnp.max(y) + 30)})
        with mx.plate("rows", len(y)):
            mx.sample("y", dist.Binomial(n, 0.4), obs=y)

    site = collect_sites(model, jnp.array([1, 2]))["n"]
    np.testing.assert_array_equal(site.support, np.arange(33))
    with pytest.raises(mx.ModelError, match="must be"):
        jax.jit(mx.marginalize(model).log_density)({}, jnp.array([1, 2]))


def test_bounds_in_a_scan_may_be_data_of_each_step() -> None:
    y, trials = np.array([1.0, 2.0, 0.5]), np.array([2, 4, 1])

    def model(y: Any, trials: Any) -> None:
        def step(carry: Any, now: Any) -> Any:
            y, trials = now
            n = mx.sample("n", dist.Binomial(trials, 0.4))
            mx.sample("y", dist.Normal(n, 1.0), obs=y)
            return carry, None

        mx.scan(step, 0, (y, trials))

    each = [
        stats.binom.pmf(np.arange(5), k, 0.4) @ stats.norm.pdf(v, np.arange(5))
        for v, k in zip(y, trials, strict=True)
    ]
    found = mx.marginalize(model).log_density({}, jnp.asarray(y), jnp.asarray(trials))
    np.testing.assert_allclose(found, np.log(each).sum(), rtol=1e-5)


def test_bounds_that_depend_on_a_latent_value_stay_unknown() -> None:
    def model() -> None:
        k = mx.sample("k", dist.DiscreteUniform(jnp.array(1), 3))
        mx.sample("n", dist.Binomial(k, 0.4))

    sites = collect_sites(model)
    np.testing.assert_array_equal(sites["k"].support, [1, 2, 3])
    assert "not known while tracing" in sites["n"].not_enumerated_because
