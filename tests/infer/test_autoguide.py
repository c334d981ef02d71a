"""AutoDelta: a point estimate for every continuous site, with or without a block around the model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_same

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, init_to_uniform, init_to_value
from marginax.infer.autoguide import AutoDelta

KEY = jax.random.key(0)
DATA = np.array([-2.0, 0.0, 1.0, 6.0, 7.0, 9.0])


def mixture(x: Any) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)


def effects(x: Any, subsample_size: int | None = None) -> None:
    """A normal mean for each point, shrunk towards a common one."""
    mu = mx.sample("mu", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(x), subsample_size=subsample_size):
        effect = mx.sample("effect", dist.Normal(mu, 2.0))
        flip = mx.sample("flip", dist.Bernoulli(0.5))
        y = mx.subsample(x, event_dim=0)
        mx.sample("x", dist.Normal(effect + 0.0 * flip, 1.0), obs=y)


def fit(model: Any, guide: Any, steps: int, *args: Any, optim: Any = None) -> Any:
    svi = SVI(model, guide, optim or optax.adam(0.1), TraceEnum_ELBO())
    return svi.run(KEY, steps, *args, progress_bar=False)


def traced(guide: Any, *args: Any, params: Any = None) -> Any:
    run = mx.handlers.substitute(mx.handlers.seed(guide, rng_seed=0), data=params or {})
    return mx.handlers.trace(run).get_trace(*args)


def test_there_is_a_parameter_and_a_point_mass_for_every_continuous_site():
    trace = traced(AutoDelta(mixture), DATA)
    assert [n for n, s in trace.items() if s["type"] == "param"] == [
        "weights_auto_loc",
        "locs_auto_loc",
    ]
    assert [n for n, s in trace.items() if s["type"] == "sample"] == ["weights", "locs"]
    for name in ("weights", "locs"):
        np.testing.assert_array_equal(trace[name]["value"], trace[f"{name}_auto_loc"]["value"])
        assert np.all(trace[name]["fn"].log_prob(trace[name]["value"]) == 0)


def test_the_guide_returns_its_values_by_site():
    guide = AutoDelta(mixture, init_loc_fn=init_to_value(values={"locs": [1.0, 2.0]}))
    values = mx.handlers.seed(guide, rng_seed=0)(DATA)
    assert list(values) == ["weights", "locs"]
    assert_same(values["locs"], [1.0, 2.0])


def test_a_block_around_the_model_changes_nothing():
    plain = AutoDelta(mixture, init_loc_fn=init_to_uniform)
    for block in (
        mx.handlers.block(mixture, expose=["weights", "locs"]),
        mx.handlers.block(mixture, hide=["z"]),
        mx.handlers.block(mixture, hide=["z", "x"]),
    ):
        blocked = AutoDelta(block, init_loc_fn=init_to_uniform)
        expected, actual = traced(plain, DATA), traced(blocked, DATA)
        assert list(actual) == list(expected)
        for name, site in expected.items():
            assert np.shape(actual[name]["value"]) == np.shape(site["value"])
            assert actual[name]["cond_indep_stack"] == site["cond_indep_stack"]
        assert np.isfinite(fit(mixture, blocked, 3, DATA).losses).all()


def test_what_is_blocked_is_left_to_others():
    guide = AutoDelta(mx.handlers.block(mixture, hide=["weights"]))
    assert "weights" not in traced(guide, DATA)
    with pytest.raises(mx.ModelError, match="'weights'.*guide does not state it"):
        fit(mixture, guide, 1, DATA)


def shrunk() -> tuple[float, np.ndarray]:
    """The joint mode of `effects`: a linear system."""
    n = len(DATA)
    precision = np.zeros((n + 1, n + 1))
    precision[0, 0] = 1 / 10.0**2 + n / 2.0**2
    precision[0, 1:] = precision[1:, 0] = -1 / 2.0**2
    precision[1:, 1:] = np.eye(n) * (1 / 2.0**2 + 1.0)
    mode = np.linalg.solve(precision, np.concatenate([[0.0], DATA]))
    return mode[0], mode[1:]


def test_local_sites_in_a_plate_have_a_parameter_for_each_element():
    guide = AutoDelta(effects, init_loc_fn=init_to_uniform)
    estimates = guide.median(fit(effects, guide, 600, DATA).params)
    mu, effect = shrunk()
    np.testing.assert_allclose(estimates["mu"], mu, atol=0.01)
    np.testing.assert_allclose(estimates["effect"], effect, atol=0.01)


def test_local_sites_in_a_subsampled_plate_have_a_parameter_for_each_element_too():
    guide = AutoDelta(effects, init_loc_fn=init_to_uniform)
    schedule = optax.exponential_decay(0.3, 1, 0.997)
    result = fit(effects, guide, 3000, DATA, 3, optim=optax.adam(schedule))
    mu, effect = shrunk()
    assert result.params["effect_auto_loc"].shape == (6,)
    # The step size at the end, 0.3 * 0.997**3000 = 4e-5, leaves next to no noise.
    np.testing.assert_allclose(result.params["mu_auto_loc"], mu, atol=0.05)
    np.testing.assert_allclose(result.params["effect_auto_loc"], effect, atol=0.05)


def test_a_subsampled_guide_gives_the_model_the_elements_that_it_chose():
    guide = AutoDelta(effects, init_loc_fn=init_to_value(values={"effect": 10.0 * np.arange(6)}))
    trace = traced(guide, DATA, 3)
    chosen = trace["data"]["value"]
    assert_same(trace["effect"]["value"], 10.0 * chosen)
    model = mx.handlers.replay(mx.handlers.seed(effects, rng_seed=1), trace=trace)
    replayed = mx.handlers.trace(model).get_trace(DATA, 3)
    np.testing.assert_array_equal(replayed["data"]["value"], chosen)
    assert_same(replayed["effect"]["value"], 10.0 * chosen)


def test_a_hidden_subsampled_plate_is_an_error_that_says_what_to_do():
    guide = AutoDelta(mx.handlers.block(effects, expose=["mu", "effect"]))
    with pytest.raises(mx.ModelError, match="'effect'.*plate 'data'.*hidden"):
        fit(effects, guide, 1, DATA, 3)


def test_parameters_live_in_their_sites_supports():
    def model() -> None:
        mx.sample("unit", dist.Beta(1.0, 9.0))
        mx.sample("between", dist.Uniform(2.0, 3.0))
        mx.sample("ordered", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with mx.plate("n", 2):
            mx.sample("rows", dist.Dirichlet(jnp.array([4.0, 2.0, 2.0])))

    guide = AutoDelta(model, init_loc_fn=init_to_uniform)
    result = fit(model, guide, 500)
    estimates = guide.median(result.params)
    # The modes: Beta(1, 9) ends at zero, the uniform has none.
    assert 0 <= estimates["unit"] < 0.01
    assert 2 < estimates["between"] < 3
    np.testing.assert_allclose(estimates["ordered"], 0.0, atol=0.01)
    np.testing.assert_allclose(estimates["rows"], [[0.6, 0.2, 0.2]] * 2, atol=0.01)


def test_median_quantiles_and_draws_are_the_point_estimates():
    guide = AutoDelta(mixture, prefix="point")
    weights, locs = jnp.array([0.5, 0.5]), jnp.array([1.0, 2.0])
    params = {"locs_point_loc": locs, "weights_point_loc": weights, "other": jnp.zeros(())}
    assert list(guide.median(params, DATA)) == ["weights", "locs"]
    draws = guide.sample_posterior(KEY, params, DATA, sample_shape=(5,))
    np.testing.assert_array_equal(draws["locs"], np.tile([1.0, 2.0], (5, 1)))
    ends = guide.quantiles(params, [0.1, 0.9], DATA)
    np.testing.assert_array_equal(ends["locs"], np.tile([1.0, 2.0], (2, 1)))
    np.testing.assert_array_equal(guide.quantiles(params, 0.3, DATA)["locs"], [1.0, 2.0])
    posterior = guide.get_posterior(params, DATA)
    np.testing.assert_array_equal(posterior["weights"].mean, weights)
    assert posterior["weights"].event_shape == (2,)


def test_a_guide_that_has_run_needs_no_arguments():
    guide = AutoDelta(effects)
    params = {"mu_auto_loc": jnp.zeros(()), "effect_auto_loc": jnp.arange(6.0)}
    traced(guide, DATA, 3)
    assert_same(guide.median(params)["effect"], np.arange(6.0))  # all, though three were present


def test_arguments_win_over_what_is_remembered():
    guide = AutoDelta(effects)
    params = {"mu_auto_loc": jnp.zeros(()), "effect_auto_loc": jnp.arange(6.0)}
    traced(guide, DATA[:4])
    with pytest.raises(mx.ModelError, match=r"'effect_auto_loc'.*\(6,\).*\(4,\).*arguments"):
        guide.median(params)
    assert_same(guide.median(params, DATA)["effect"], np.arange(6.0))
    assert_same(guide.median(params, x=DATA)["effect"], np.arange(6.0))


def test_what_is_remembered_outlives_a_trace():
    guide = AutoDelta(mixture)
    params = {"weights_auto_loc": jnp.array([0.5, 0.5]), "locs_auto_loc": jnp.zeros(2)}
    jax.eval_shape(mx.handlers.seed(guide, rng_seed=0), jnp.asarray(DATA))
    assert guide.median(params)["locs"].shape == (2,)


def test_a_guide_that_neither_ran_nor_got_arguments_says_so():
    with pytest.raises(mx.ModelError, match="AutoDelta.*has not run.*arguments after the param"):
        AutoDelta(mixture).median({})


def test_a_missing_parameter_is_named():
    with pytest.raises(mx.ModelError, match="AutoDelta.*no 'weights_auto_loc'.*'locs_auto_loc'"):
        AutoDelta(mixture).median({"locs_auto_loc": jnp.zeros(2)}, DATA)


def test_two_guides_of_two_halves_make_one():
    def halves(x: Any) -> None:
        first(x)
        second(x)

    first = AutoDelta(mx.handlers.block(mixture, expose=["weights"]), prefix="a")
    second = AutoDelta(mx.handlers.block(mixture, expose=["locs"]), prefix="b")
    params = fit(mixture, halves, 2, DATA).params
    assert params.keys() == {"weights_a_loc", "locs_b_loc"}


def test_an_initial_value_outside_the_support_names_the_parameter():
    # A traced value cannot be checked when it is chosen; it is checked before the first step.
    guide = AutoDelta(mixture, init_loc_fn=lambda site: -jnp.ones(site["fn"].shape()))
    with pytest.raises(mx.ModelError, match="'weights_auto_loc'.*sum to one"):
        fit(mixture, guide, 1, DATA)


def test_a_discrete_site_that_cannot_be_summed_out_is_refused():
    def model() -> None:
        mx.sample("count", dist.Poisson(2.0))

    with pytest.raises(mx.ModelError, match="'count'.*cannot be summed out.*AutoDelta"):
        traced(AutoDelta(model))


def test_a_support_that_moves_is_refused():
    def model() -> None:
        high = mx.sample("high", dist.Exponential(1.0))
        mx.sample("x", dist.Uniform(0.0, high))

    with pytest.raises(mx.ModelError, match="'x'.*support.*depends on other values"):
        traced(AutoDelta(model))


def test_a_model_is_a_function():
    with pytest.raises(TypeError, match="AutoDelta"):
        AutoDelta(3.0)  # pyright: ignore
