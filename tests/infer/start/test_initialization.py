"""Where inference begins: inside every site's support, and where the user said."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from closeness import assert_same

import marginax as mx
import marginax.distributions as dist
from marginax.infer.start.initial_run import initial_values
from marginax.infer.start.initialization import (
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)
from marginax.language.stack import statement

KEY = jax.random.key(0)


def everything() -> None:
    mx.sample("real", dist.Normal(3.0, 2.0))
    mx.sample("positive", dist.LogNormal(1.0, 0.5))
    mx.sample("unit", dist.Beta(2.0, 6.0))
    mx.sample("simplex", dist.Dirichlet(jnp.array([1.0, 2.0, 5.0])))
    low = mx.sample("low", dist.Uniform(-4.0, -2.0))
    mx.sample("above", dist.TruncatedNormal(0.0, 1.0, low=low))
    mx.sample("copies", dist.Exponential(2.0), sample_shape=(2,))
    mx.sample("cholesky", dist.LKJCholesky(3, 1.0))
    mx.sample("improper", dist.ImproperUniform(dist.constraints.positive, (), (2,)))
    with mx.plate("n", 4):
        mx.sample("local", dist.Normal(jnp.arange(4.0), 1.0))
        mx.sample("vector", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        mx.sample("discrete", dist.Bernoulli(0.5))


SHAPES = {
    "real": (),
    "positive": (),
    "unit": (),
    "simplex": (3,),
    "low": (),
    "above": (),
    "copies": (2,),
    "cholesky": (3, 3),
    "improper": (2,),
    "local": (4,),
    "vector": (4, 3),
}
GIVEN = {"real": 1.5, "unit": np.float64(0.3), "local": [4.0, 3.0, 2.0, 1.0]}
STRATEGIES = {
    "uniform": init_to_uniform,
    "feasible": init_to_feasible,
    "sample": init_to_sample,
    "median": init_to_median,
    "mean": init_to_mean,
    "value": init_to_value(values=GIVEN),
}


def compiled(model: Any, strategy: Any) -> Any:
    """Initial values as a compiled function of a key."""
    return jax.jit(lambda key: initial_values(model, strategy, key))


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_begins_inside_every_support(name: str):
    values = compiled(everything, STRATEGIES[name])(KEY)
    assert {n: v.shape for n, v in values.items()} == SHAPES
    with mx.handlers.seed(rng_seed=0), mx.handlers.trace() as trace:
        mx.handlers.substitute(everything, data=values)()
    for site, value in values.items():
        assert trace[site]["fn"].support(value).all(), site


def test_strategies_may_be_called_first_as_in_numpyro():
    def model() -> None:
        mx.sample("x", dist.Normal(jnp.zeros(3), 1.0))

    for strategy in (
        init_to_uniform,
        init_to_feasible,
        init_to_sample,
        init_to_median,
        init_to_mean,
    ):
        assert_same(
            initial_values(model, strategy(), KEY)["x"], initial_values(model, strategy, KEY)["x"]
        )


def test_where_a_strategy_has_no_opinion_the_prior_is_drawn_from():
    def model() -> None:
        mx.sample("x", dist.Normal(5.0, 1.0))

    undecided = initial_values(model, lambda site: None, KEY)
    assert_same(undecided["x"], initial_values(model, init_to_sample, KEY)["x"])


def test_a_strategy_sees_what_earlier_initial_values_lead_to():
    values = compiled(everything, init_to_value(values={"low": -3.0}))(KEY)
    assert values["low"] == -3.0
    assert values["above"] > -3.0


def test_given_values_are_taken_as_they_are():
    values = compiled(everything, init_to_value(values=GIVEN))(KEY)
    for name, value in GIVEN.items():
        assert_same(values[name], value)


def test_uniform_is_uniform_on_the_unconstrained_scale():
    def model() -> None:
        mx.sample("scale", dist.LogNormal(5.0, 1.0), sample_shape=(4000,))

    for radius, strategy in ((2.0, init_to_uniform), (0.5, init_to_uniform(radius=0.5))):
        logs = jnp.log(compiled(model, strategy)(KEY)["scale"])
        # The distance of 4000 uniform numbers to their distribution: 1.63/sqrt(4000) once in 100.
        empirical = jnp.searchsorted(jnp.sort(logs), jnp.linspace(-radius, radius, 101)) / 4000
        assert jnp.abs(empirical - jnp.linspace(0.0, 1.0, 101)).max() < 2.0 / np.sqrt(4000)
        assert jnp.abs(logs).max() <= radius


def test_the_median_of_many_draws_is_the_median():
    def model() -> None:
        mx.sample("x", dist.LogNormal(1.0, 1.0))

    value = compiled(model, init_to_median(num_samples=4000))(KEY)["x"]
    # A median's standard error is sqrt(pi/2) sigma / sqrt(n).
    assert abs(float(jnp.log(value)) - 1.0) < 5 * np.sqrt(np.pi / 2 / 4000)


def test_the_mean_is_the_mean_and_where_there_is_none_a_median():
    def model() -> None:
        mx.sample("beta", dist.Beta(1.0, 3.0))
        mx.sample("cauchy", dist.Cauchy(0.0, 1.0))
        mx.sample("copies", dist.Gamma(3.0, 2.0), sample_shape=(2,))

    values = compiled(model, init_to_mean)(KEY)
    assert_same(values["beta"], 0.25)
    assert_same(values["copies"], [1.5, 1.5])
    assert jnp.isfinite(values["cauchy"])


def test_the_feasible_point_is_always_the_same():
    first, second = (compiled(everything, init_to_feasible)(jax.random.key(s)) for s in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert_same(first["positive"], 1.0)
    assert_same(first["simplex"], [1 / 3, 1 / 3, 1 / 3])


def test_random_strategies_depend_on_the_key_alone():
    make = compiled(everything, init_to_uniform)
    first, again, other = make(KEY), make(KEY), make(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert all((first[name] != other[name]).any() for name in SHAPES)


def test_observed_and_discrete_sites_and_sites_that_have_a_value_need_none():
    def model() -> None:
        mx.sample("discrete", dist.Categorical(jnp.ones(3) / 3))
        mx.sample("count", dist.Poisson(3.0))
        mx.sample("seen", dist.Normal(0.0, 1.0), obs=2.0)
        mx.sample("free", dist.Normal(0.0, 1.0))
        mx.sample("fixed", dist.Normal(0.0, 1.0))

    fixed = mx.handlers.substitute(model, data={"fixed": 1.0})
    assert list(initial_values(fixed, init_to_sample, KEY)) == ["free"]


def test_all_elements_of_a_subsampled_plate_begin_somewhere():
    def model() -> None:
        with mx.plate("n", 10, subsample_size=3):
            mx.sample("x", dist.Normal(0.0, 1.0))

    assert initial_values(model, init_to_sample, KEY)["x"].shape == (10,)
    hidden = mx.handlers.block(model, expose=["x"])
    with pytest.raises(mx.ModelError, match="'x'.*'n'.*hidden.*3 of its 10"):
        initial_values(hidden, init_to_sample, KEY)


def test_a_strategy_may_choose_site_by_site():
    def choose(site: Any) -> Any:
        if site["name"] == "real":
            return 0.25
        if site["name"] == "local":
            return site["fn"].mean + 1
        return init_to_feasible(site)

    values = compiled(everything, choose)(KEY)
    assert values["real"] == 0.25
    assert_same(values["local"], [1.0, 2.0, 3.0, 4.0])
    assert_same(values["unit"], 0.5)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"positive": -1.0}, "'positive'.*-1.*positive"),
        ({"unit": np.nan}, "'unit'.*NaN"),
        ({"simplex": np.array([0.5, 0.6, 0.1])}, "'simplex'.*sum to one"),
        ({"local": np.ones(3)}, r"'local'.*shape \(3,\).*\(4,\)"),
        ({"real": "one"}, "'real'.*numbers"),
    ],
)
def test_bad_initial_values_are_errors_that_name_the_site(values: Any, reason: str):
    for strategy in (init_to_value(values=values), lambda site: values.get(site["name"])):
        with pytest.raises(mx.ModelError, match=reason):
            compiled(everything, strategy)(KEY)


def test_a_random_initial_value_without_a_key_is_refused():
    site = statement("sample", "x", dist.Normal(0.0, 1.0))
    with pytest.raises(mx.ModelError, match="'x'.*no key"):
        init_to_sample(site)


def test_means_and_feasible_points_are_numpyros():
    def model(pp: Any) -> Any:
        def run() -> None:
            pp.sample("a", dist.Gamma(3.0, 2.0))
            pp.sample("b", dist.Dirichlet(jnp.array([1.0, 2.0])))
            with pp.plate("n", 3):
                pp.sample("c", dist.Normal(jnp.arange(3.0), 1.0))

        return run

    for name in ("init_to_mean", "init_to_feasible"):
        ours = initial_values(model(mx), getattr(mx.infer, name), KEY)
        strategy = getattr(numpyro.infer, name)
        with (
            numpyro.handlers.trace() as theirs,
            numpyro.handlers.substitute(substitute_fn=strategy),
            numpyro.handlers.seed(rng_seed=0),
        ):
            model(numpyro)()
        for site, value in ours.items():
            assert_same(value, theirs[site]["value"])
