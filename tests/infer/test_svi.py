"""SVI takes the steps that one would take by hand, and says so where it cannot."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from closeness import assert_same

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, SVIRunResult, TraceEnum_ELBO, init_to_uniform, init_to_value
from marginax.infer.autoguide import AutoDelta
from marginax.tutorial.mixture import (
    DATA,
    membership_guide,
    model as mixture,
    plausible_start,
)

KEY = jax.random.key(0)
COINS = np.array([1, 1, 1, 0])


def coins(x: Any) -> None:
    """Coins of two kinds; MAP of ``p`` has no closed form, its likelihood does."""
    p = mx.sample("p", dist.Beta(2.0, 3.0))
    with mx.plate("n", len(x)):
        fair = mx.sample("fair", dist.Bernoulli(0.25))
        mx.sample("x", dist.Bernoulli(jnp.where(fair == 1, 0.5, p)), obs=x)


def nothing(*args: Any, **kwargs: Any) -> None:
    pass


def svi_of(model: Any, guide: Any = None, optim: Any = None, **options: Any) -> SVI:
    # A uniform start compiles faster than draws from the prior.
    guide = AutoDelta(model, init_loc_fn=init_to_uniform) if guide is None else guide
    return SVI(model, guide, optim or optax.adam(0.1), TraceEnum_ELBO(), **options)


def fit(svi: SVI, steps: int, *args: Any, **options: Any) -> SVIRunResult:
    return svi.run(KEY, steps, *args, progress_bar=False, **options)


# -- the parts of a run


@pytest.fixture(scope="module")
def coin_svi() -> SVI:
    return svi_of(coins)


@pytest.fixture(scope="module")
def coin_result(coin_svi: SVI) -> SVIRunResult:
    return fit(coin_svi, 30, COINS)


def coin_loss(free: Any) -> Any:
    """The loss of `coins` in its unconstrained parameter, by hand, up to a constant."""
    p = jax.nn.sigmoid(free)
    likelihood = jnp.where(COINS == 1, 0.125 + 0.75 * p, 0.125 + 0.75 * (1 - p))
    prior = jnp.log(12.0) + jnp.log(p) + 2 * jnp.log1p(-p)
    return -prior - jnp.sum(jnp.log(likelihood))


def test_a_run_takes_the_steps_that_one_takes_by_hand(coin_svi: SVI, coin_result: SVIRunResult):
    optimiser = optax.adam(0.1)
    start = fit(coin_svi, 1, COINS).losses[0]
    free = jnp.log(0.6) - jnp.log(0.4)
    result = fit(coin_svi, 30, COINS, init_params={"p_auto_loc": 0.6})
    state, losses, norms = optimiser.init(free), [], []
    for _ in range(30):
        loss, gradient = jax.value_and_grad(coin_loss)(free)
        updates, state = optimiser.update(gradient, state, free)
        free = optax.apply_updates(free, updates)
        losses.append(loss)
        norms.append(abs(gradient))
    assert_same(result.losses, losses)
    assert result.gradient_norms is not None
    assert_same(result.gradient_norms["p_auto_loc"], norms)
    assert_same(result.params["p_auto_loc"], jax.nn.sigmoid(jnp.asarray(free)))
    assert start == coin_result.losses[0]


def test_update_evaluate_and_get_params_are_the_parts_of_run(coin_svi: SVI):
    state = coin_svi.init(KEY, COINS)
    assert jnp.isfinite(jax.jit(coin_svi.evaluate)(state, COINS))
    update = jax.jit(coin_svi.update)
    result = fit(coin_svi, 10, COINS, init_state=state)
    losses = []
    for _ in range(10):
        before = jax.jit(coin_svi.evaluate)(state, COINS)
        state, loss = update(state, COINS)
        assert_same(loss, before)
        losses.append(loss)
    assert_same(result.losses, losses)
    for actual, expected in zip(
        jax.tree.leaves(result.state.optim_state), jax.tree.leaves(state.optim_state), strict=True
    ):
        assert_same(jnp.asarray(actual, float), expected)
    np.testing.assert_array_equal(
        jax.random.key_data(result.state.rng_key), jax.random.key_data(state.rng_key)
    )
    assert_same(coin_svi.get_params(state)["p_auto_loc"], result.params["p_auto_loc"])


def test_a_progress_bar_changes_nothing(
    coin_svi: SVI, coin_result: SVIRunResult, capfd: pytest.CaptureFixture[str]
):
    watched = coin_svi.run(KEY, 30, COINS)
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.tree.map(jax.random.key_data, [watched.state.rng_key]),
        jax.tree.map(jax.random.key_data, [coin_result.state.rng_key]),
    )
    assert_same(watched.losses, coin_result.losses)
    assert_same(watched.params["p_auto_loc"], coin_result.params["p_auto_loc"])
    assert "30/30" in capfd.readouterr().err


def test_the_same_key_gives_the_same_result(coin_svi: SVI, coin_result: SVIRunResult):
    again = svi_of(coins).run(0, 30, COINS, progress_bar=False)
    np.testing.assert_array_equal(again.losses, coin_result.losses)
    other = coin_svi.run(1, 30, COINS, progress_bar=False)
    assert (other.losses != coin_result.losses).any()


def test_init_takes_a_number_for_a_key(coin_svi: SVI):
    by_number, by_key = coin_svi.init(3, COINS), coin_svi.init(jax.random.key(3), COINS)
    assert_same(by_number.optim_state[0]["p_auto_loc"], by_key.optim_state[0]["p_auto_loc"])


def test_a_run_that_goes_on_from_a_state_is_one_long_run(coin_svi: SVI, coin_result: SVIRunResult):
    first = fit(coin_svi, 12, COINS)
    second = fit(coin_svi, 18, COINS, init_state=first.state)
    assert_same(jnp.concatenate([first.losses, second.losses]), coin_result.losses)
    assert_same(second.params["p_auto_loc"], coin_result.params["p_auto_loc"])


def test_a_stochastic_run_that_goes_on_is_one_long_run_too():
    def model() -> None:
        mx.sample("mu", dist.Normal(3.0, 1.0))

    def guide() -> None:
        mx.sample("mu", dist.Normal(mx.param("loc", 0.0), 1.0))

    svi = svi_of(model, guide)
    whole, first = fit(svi, 20), fit(svi, 8)
    assert_same(fit(svi, 12, init_state=first.state).losses, whole.losses[8:])
    assert len(np.unique(whole.losses)) == 20  # fresh noise at every step


def test_numpy_and_jax_data_give_the_same(coin_svi: SVI, coin_result: SVIRunResult):
    np.testing.assert_array_equal(fit(coin_svi, 30, jnp.asarray(COINS)).losses, coin_result.losses)
    np.testing.assert_array_equal(fit(coin_svi, 30, [1, 1, 1, 0]).losses, coin_result.losses)


def test_double_precision_all_the_way():
    with jax.enable_x64(True):
        result = fit(svi_of(coins), 400, COINS, tolerance=0)
        free = jnp.log(result.params["p_auto_loc"] / (1 - result.params["p_auto_loc"]))
        assert result.losses.dtype == result.params["p_auto_loc"].dtype == jnp.float64
        assert_same(result.losses[-1], coin_loss(free))
        assert abs(jax.grad(coin_loss)(free)) < 1e-6


def test_static_keyword_arguments_reach_model_and_guide():
    def model(x: Any, scale: float = 1.0) -> None:
        mu = mx.sample("mu", dist.Normal(0.0, scale))
        mx.sample("x", dist.Normal(mu, 1.0), obs=x)

    svi = svi_of(model, scale=0.5)
    state = svi.init(KEY, 1.0)
    by_hand = svi_of(model)
    assert_same(
        svi.evaluate(state, 1.0),
        by_hand.evaluate(by_hand.init(KEY, 1.0, scale=0.5), 1.0, scale=0.5),
    )
    assert_same(fit(svi, 3, 1.0).losses, fit(svi_of(model), 3, 1.0, scale=0.5).losses)


def test_an_argument_named_like_an_option_is_given_when_svi_is_made():
    def model(every: float) -> None:
        mx.sample("x", dist.Normal(mx.param("loc", 0.0), 1.0), obs=every)

    with pytest.raises(ValueError, match="argument 'every'.*option of SVI.run"):
        fit(svi_of(model, lambda **_: None), 1)
    result = fit(svi_of(model, lambda **_: None, every=3.0), 1)
    assert float(result.losses[0]) == pytest.approx(4.5 + 0.5 * np.log(2 * np.pi))


def test_the_trajectory_is_numpyros_where_nothing_is_discrete():
    start = {"mu": 2.0, "width": 0.5}

    def trajectory(
        pp: Any, guide_class: Any, strategy: Any, optim: Any, elbo: Any, run: Any
    ) -> Any:
        def model(x: Any) -> None:
            mu = pp.sample("mu", dist.Normal(0.0, 1.0))
            width = pp.sample("width", dist.Gamma(2.0, 2.0))
            with pp.plate("n", len(x)):
                pp.sample("x", dist.Normal(mu, width), obs=x)

        guide = guide_class(model, init_loc_fn=strategy(values=start))
        svi = pp.infer.SVI(model, guide, optim(0.05), elbo)
        return run(svi, KEY, 40, jnp.array([0.3, -1.0, 2.0]), progress_bar=False)

    ours = trajectory(mx, AutoDelta, init_to_value, mx.optim.Adam, TraceEnum_ELBO(), SVI.run)
    theirs = trajectory(
        numpyro,
        numpyro.infer.autoguide.AutoDelta,
        numpyro.infer.init_to_value,
        numpyro.optim.Adam,
        numpyro.infer.Trace_ELBO(),
        numpyro.infer.SVI.run,
    )
    assert_same(ours.losses, theirs.losses)
    for name, value in theirs.params.items():
        assert_same(ours.params[name], value)


# -- parameters and their constraints


CONSTRAINED = {
    "free": (-3.0, dist.constraints.real),
    "positive": (2.0, dist.constraints.positive),
    "interval": (4.5, dist.constraints.interval(4.0, 5.0)),
    "simplex": (np.array([0.2, 0.3, 0.5]), dist.constraints.simplex),
    "ordered": (np.array([-1.0, 0.0, 4.0]), dist.constraints.ordered_vector),
}


def test_parameters_begin_where_they_say_and_stay_in_their_constraints():
    def model() -> None:
        for name, (start, constraint) in CONSTRAINED.items():
            value = mx.param(name, start, constraint=constraint)
            mx.factor(f"{name} wants to shrink", -10.0 * jnp.ravel(value)[0])

    svi = svi_of(model, nothing, optax.sgd(0.1))
    begin, end = svi.get_params(svi.init(KEY)), fit(svi, 20).params
    for name, (start, constraint) in CONSTRAINED.items():
        assert_same(begin[name], start)
        assert np.all(constraint(end[name]))
        assert np.ravel(end[name])[0] < np.ravel(start)[0]
    assert_same(end["free"], -3.0 - 20 * 0.1 * 10.0)
    assert end["interval"] < 4.1
    assert end["positive"] < 0.1
    assert end["simplex"][0] < 0.1


def test_a_parameter_may_begin_at_random():
    def model() -> None:
        mx.factor("f", -(mx.param("x", lambda key: jax.random.normal(key, (3,))) ** 2).sum())

    svi = svi_of(model, nothing)
    first, second = (svi.get_params(svi.init(seed))["x"] for seed in (0, 1))
    assert first.shape == (3,)
    assert (first != second).all()


def test_parameters_of_a_subsampled_plate_are_optimised_whole():
    data = np.array([1.0, 2.0, 3.0, 4.0, 5.0])

    def model() -> None:
        with mx.plate("n", 5, subsample_size=2):
            loc = mx.param("loc", jnp.zeros(5), event_dim=0)
            mx.sample("x", dist.Normal(loc, 1.0), obs=mx.subsample(data, event_dim=0))

    result = fit(svi_of(model, nothing, optax.adam(0.2)), 400)
    np.testing.assert_allclose(result.params["loc"], data, atol=0.1)


def test_parameters_of_all_branches_of_a_guide_are_trained():
    def model() -> None:
        mx.sample("wide", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(2.0, 1.0))

    def guide() -> None:
        wide = mx.sample("wide", dist.Bernoulli(0.3), infer={"enumerate": "sequential"})
        loc = mx.param("loc_if_wide", 0.0) if wide else mx.param("loc_if_not", 5.0)
        mx.sample("x", dist.Delta(loc))

    result = fit(svi_of(model, guide, optax.sgd(0.3)), 200)
    assert result.params.keys() == {"loc_if_wide", "loc_if_not"}
    np.testing.assert_allclose(list(result.params.values()), 2.0, atol=1e-3)
    assert result.losses[0] == pytest.approx(
        # log q - log p: of the two branches, weighted by their probabilities.
        0.3 * (np.log(0.6) + 2.0) + 0.7 * (np.log(1.4) + 4.5) + 0.5 * np.log(2 * np.pi)
    )


def test_init_params_replace_the_initial_values(coin_svi: SVI):
    state = coin_svi.init(KEY, COINS, init_params={"p_auto_loc": 0.6})
    assert_same(coin_svi.get_params(state)["p_auto_loc"], 0.6)


def test_every_restart_may_have_an_initial_value_of_its_own(coin_svi: SVI):
    begin = jnp.array([0.2, 0.5, 0.9])
    options: Any = {"num_restarts": 3, "keep_restarts": True, "tolerance": 0}
    with pytest.warns(UserWarning, match="1 of 3 restarts"):
        result = fit(coin_svi, 1, COINS, init_params={"p_auto_loc": begin}, **options)
    expected = np.array([coin_loss(jnp.log(p) - jnp.log1p(-p)) for p in begin])
    assert result.restarts is not None
    first = result.restarts.losses[:, 0]
    np.testing.assert_allclose(first - first[0], expected - expected[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(mx.ModelError, match=r"one for each restart, \(3,\)"):
        fit(coin_svi, 1, COINS, init_params={"p_auto_loc": begin[:2]}, num_restarts=3)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"p_auto_loc": 1.5}, "'p_auto_loc'.*between 0 and 1"),
        ({"p_auto_loc": np.nan}, "'p_auto_loc'.*NaN"),
        ({"p_auto_loc": "half"}, "'p_auto_loc'.*numbers"),
        ({"p": 0.5}, "'p', which is no parameter.*'p_auto_loc'"),
        ({"p_auto_loc": [0.5]}, "'p_auto_loc'.*shape \\(1,\\).*has shape \\(\\)"),
    ],
)
def test_init_params_that_make_no_sense_are_named(coin_svi: SVI, given: Any, reason: str):
    with pytest.raises(mx.ModelError, match=reason):
        fit(coin_svi, 1, COINS, init_params=given)
    with pytest.raises(mx.ModelError, match=reason):
        coin_svi.init(KEY, COINS, init_params=given)


def test_a_state_of_something_else_is_no_beginning(coin_svi: SVI, coin_result: SVIRunResult):
    def two() -> None:
        mx.factor("f", -jnp.sum(mx.param("x", jnp.zeros(2)) ** 2))

    def three() -> None:
        mx.factor("f", -jnp.sum(mx.param("x", jnp.zeros(3)) ** 2))

    other = svi_of(two, nothing).init(KEY)
    with pytest.raises(mx.ModelError, match=r"init_state has the parameters \['x'\].*'p_auto_loc'"):
        fit(coin_svi, 1, COINS, init_state=other)
    with pytest.raises(mx.ModelError, match=r"'x': in init_state it has shape \(2,\).*\(3,\)"):
        fit(svi_of(three, nothing), 1, init_state=other)
    with pytest.raises(TypeError, match=r"result\.state, not SVIRunResult"):
        fit(coin_svi, 1, COINS, init_state=coin_result)


def test_where_there_is_nothing_to_train_it_says_so():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=1.0)

    with pytest.raises(mx.ModelError, match="nothing to train"):
        fit(svi_of(model, nothing), 3)


def test_a_parameter_that_begins_outside_its_constraint_is_named():
    def model() -> None:
        mx.param("width", -1.0, constraint=dist.constraints.positive)

    for start in (lambda svi: fit(svi, 1), lambda svi: svi.init(KEY)):
        with pytest.raises(mx.ModelError, match="'width'.*-1.*positive"):
            start(svi_of(model, nothing))


def test_parameters_without_their_constraints_are_asked_for(coin_svi: SVI):
    state = coin_svi.init(KEY, COINS)
    with pytest.raises(RuntimeError, match="'p_auto_loc'.*init or run"):
        svi_of(coins).get_params(state)


# -- restarts


def two_valleys() -> None:
    """Two minima: loss 0 at x = 3, loss 1 at x = -3."""
    x = mx.param("x", lambda key: jax.random.uniform(key, minval=-4.0, maxval=4.0))
    mx.factor("f", -jnp.where(x > 0, (x - 3) ** 2, (x + 3) ** 2 + 1))


@pytest.mark.parametrize("select", ["final", "initial"])
def test_the_best_restart_is_really_the_best(select: str):
    svi = svi_of(two_valleys, nothing, optax.sgd(0.1))
    result = fit(svi, 15, num_restarts=8, select=select, keep_restarts=True)
    starts = [svi.init(key) for key in jax.random.split(KEY, 8)]
    alone = [fit(svi, 15, init_state=state) for state in starts]
    if select == "final":
        score = [r.losses[-1] for r in alone]
        assert result.restarts is not None
        assert_same(result.restarts.losses, np.stack([r.losses for r in alone]))
        assert result.restarts.params is not None
        assert_same(result.restarts.params["x"], np.stack([r.params["x"] for r in alone]))
        np.testing.assert_array_equal(result.restarts.order, np.argsort(score))
    else:
        score = [r.losses[0] for r in alone]
        assert result.restarts is None
        assert_same(result.initial_losses, np.stack(score))
    best = alone[int(np.argmin(score))]
    assert_same(result.losses, best.losses)
    assert_same(result.params["x"], best.params["x"])
    assert len({round(float(r.losses[-1])) for r in alone}) == 2  # both valleys were found


def test_a_restart_that_fails_late_does_not_spoil_the_others():
    """Those that begin on the left fall by one at each step, and over the edge at the last but one."""

    def model() -> None:
        x = mx.param("x", lambda key: jax.random.uniform(key, minval=-1.0, maxval=1.0))
        start = jnp.where(x > 0, 100.0, x)
        mx.factor("f", jnp.where(x > 0, -start + 0.0 * x, jnp.where(x > -98.5, -x - 100, jnp.nan)))

    result = fit(svi_of(model, nothing, optax.sgd(1.0)), 100, num_restarts=8, tolerance=0)
    assert np.isfinite(result.losses).all()
    assert result.params["x"] > 0


def test_an_initial_state_may_be_made_inside_of_a_compiled_function(coin_svi: SVI):
    inside = jax.jit(lambda x: coin_svi.init(KEY, x))(jnp.asarray(COINS))
    outside = coin_svi.init(KEY, COINS)
    assert_same(inside.optim_state[0]["p_auto_loc"], outside.optim_state[0]["p_auto_loc"])


def test_a_restart_that_fails_does_not_spoil_the_others():
    def model() -> None:
        x = mx.param("x", lambda key: jax.random.uniform(key, minval=-1.0, maxval=1.0))
        mx.factor("f", jnp.where(x > 0, -(x**2), jnp.nan))

    svi = svi_of(model, nothing, optax.sgd(0.1))
    for select in ("final", "initial"):
        result = fit(svi, 10, num_restarts=8, select=select)
        assert np.isfinite(result.losses).all()
        seen = result.initial_losses if result.restarts is None else result.restarts.losses
        assert seen is not None
        assert np.isnan(seen).any()


# -- what is not finite


def diving() -> None:
    """Steps of one lead from 0.5 over the edge: 1.5, 2.5, and 3.5."""
    x = mx.param("x", 0.5)
    mx.factor("cliff", jnp.where(x < 3.0, x, jnp.nan))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_site_and_step():
    svi = svi_of(diving, nothing, optax.sgd(1.0))
    with pytest.raises(
        mx.ModelError, match=r"'cliff': its log density in the model is nan at step 3.*x = 3.5"
    ):
        fit(svi, 50)
    with pytest.raises(
        mx.ModelError, match=r"'cliff': its log density in the model is nan at step 3"
    ):
        svi.run(KEY, 50)  # also where a bar is shown, which comes round more often


def test_a_gradient_that_is_not_finite_stops_the_run_too():
    def model() -> None:
        mx.factor("f", -jnp.sqrt(jnp.abs(mx.param("x", 0.0))))

    with pytest.raises(mx.ModelError, match="gradient is not finite at step 0"):
        fit(svi_of(model, nothing), 5)


def test_a_loss_that_ends_in_the_very_last_step_is_found():
    with pytest.raises(mx.ModelError, match="'cliff'.*step 3"):
        fit(svi_of(diving, nothing, optax.sgd(1.0)), 4)
    assert np.isfinite(fit(svi_of(diving, nothing, optax.sgd(1.0)), 3).losses).all()


def test_a_stable_update_skips_what_is_not_finite():
    def model() -> None:
        x = mx.param("x", 3.0)
        noise = jax.random.uniform(mx.prng_key())
        mx.factor("f", jnp.where(noise < 0.3, jnp.nan, -(x**2)))

    svi = svi_of(model, nothing, optax.sgd(0.1))
    result = fit(svi, 50, stable_update=True)
    finite = np.isfinite(result.losses)
    assert 25 < finite.sum() < 50
    assert_same(result.losses[finite], 9.0 * 0.8 ** (2 * np.arange(finite.sum())))
    state, update = svi.init(KEY), jax.jit(svi.stable_update)
    for _ in range(10):
        before = svi.get_params(state)["x"]
        state, loss = update(state)
        assert_same(svi.get_params(state)["x"], before * (0.8 if np.isfinite(loss) else 1.0))


def test_a_stable_run_that_never_has_a_finite_loss_is_an_error():
    def model() -> None:
        mx.factor("hole", jnp.log(mx.param("x", -1.0)))

    with pytest.raises(mx.ModelError, match="'hole'.*nan at step 0"):
        fit(svi_of(model, nothing), 5, stable_update=True)


def test_probabilities_that_no_longer_sum_to_one_are_a_warning_that_says_simplex():
    def guide(x: Any) -> None:
        with mx.plate("data", 2):
            start = jnp.ones((2, 2)) / 2
            probs = mx.param("probs", start, constraint=dist.constraints.unit_interval)
            mx.sample("z", dist.Categorical(probs))

    def model(x: Any) -> None:
        with mx.plate("data", 2):
            z = mx.sample("z", dist.Categorical(np.array([0.5, 0.5])))
            mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=x)

    with pytest.warns(mx.InvalidParameterWarning, match="(?s)'z'.*sum to one.*simplex") as found:
        fit(svi_of(model, guide), 50, np.array([0.1, 1.7]))
    assert len(found) == 1


def test_probabilities_of_the_model_are_checked_as_well():
    def model(x: Any) -> None:
        start = jnp.ones(2) / 2
        weights = mx.param("weights", start, constraint=dist.constraints.unit_interval)
        with mx.plate("data", 2):
            z = mx.sample("z", dist.Categorical(weights))
            mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=x)

    with pytest.warns(mx.InvalidParameterWarning, match="(?s)'z'.*sum to one.*simplex"):
        fit(svi_of(model, nothing), 50, np.array([0.1, 1.7]))


# -- models with needs of their own


def test_a_model_may_need_its_data_as_numbers():
    x, groups = np.array([0.0, 0.4, 5.0, 5.4, 9.0]), np.array([3, 3, 7, 7, 9])

    def model(x: Any, groups: Any) -> None:
        names, index = np.unique(groups, return_inverse=True)
        with mx.plate("groups", len(names)):
            locs = mx.sample("locs", dist.Normal(0.0, 100.0))
        with mx.plate("data", len(x)):
            mx.sample("x", dist.Normal(locs[index], 1.0), obs=x)

    for data in ((x, groups), (jnp.asarray(x), jnp.asarray(groups))):
        result = fit(svi_of(model, optim=optax.adam(0.5)), 300, *data)
        np.testing.assert_allclose(result.params["locs_auto_loc"], [0.2, 5.2, 9.0], atol=0.01)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 2.0}, "num_steps"),
        ({"num_restarts": 0}, "num_restarts"),
        ({"select": "worst"}, "select"),
        ({"tolerance": "little"}, "tolerance"),
    ],
)
def test_options_of_a_run_are_checked(coin_svi: SVI, change: Any, reason: str):
    options = {"num_steps": 1, "num_restarts": 1, "select": "final"} | change
    with pytest.raises(ValueError, match=reason):
        coin_svi.run(KEY, options.pop("num_steps"), COINS, progress_bar=False, **options)


def test_going_on_from_a_state_with_restarts_makes_no_sense(coin_svi: SVI):
    with pytest.raises(ValueError, match="init_state"):
        fit(coin_svi, 1, COINS, init_state=coin_svi.init(KEY, COINS), num_restarts=2)


def test_an_optimiser_and_a_loss_are_asked_for():
    with pytest.raises(TypeError, match="optax"):
        SVI(coins, nothing, 0.1, TraceEnum_ELBO())  # pyright: ignore
    with pytest.raises(TypeError, match="TraceEnum_ELBO"):
        SVI(coins, nothing, optax.adam(0.1), TraceEnum_ELBO)  # its class, not an object of it


# -- bad input at the door


def simple(x: Any, K: int = 2, scale: Any = 1.0) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(K)))
    with mx.plate("components", K):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("x", dist.Normal(locs[z], scale), obs=x)


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (np.array([0.0, np.nan, 1.0]), {}, "site 'x'.*NaN in 1 of 3.*index 1"),
        (np.array([0.0, np.inf]), {}, "site 'x'.*inf.*finite"),
        (np.array([]), {}, "plate 'data'.*size is 0"),
        ("hello", {}, "site 'x'.*str"),
        (np.array(["a", "b"]), {}, "site 'x'.*<U1"),
        (np.array([0.0, 1.0]), {"scale": 0.0}, "site 'x'.*'scale' of Normal is .?0.*positive"),
        (np.array([0.0, 1.0]), {"K": 0}, "site 'weights'.*empty.*components"),
    ],
)
def test_bad_input_is_an_error_that_names_site_and_cause(data: Any, options: Any, reason: str):
    with pytest.raises(mx.ModelError, match=reason):
        fit(svi_of(simple), 5, data, **options)


def test_a_scale_that_is_computed_to_be_zero_is_named():
    def model(x: Any) -> None:
        mu = mx.sample("mu", dist.Normal(0.0, 1.0))
        with mx.plate("n", len(x)):
            mx.sample("x", dist.Normal(mu, jnp.std(x)), obs=x)

    with pytest.raises(mx.ModelError, match=r"site 'x'.*nan at index \(0,\) at step 0"):
        fit(svi_of(model), 5, jnp.array([2.0, 2.0]))


def test_one_point_is_enough_but_has_no_variance_to_start_from():
    point = jnp.array([3.0])

    def start(site: Any) -> Any:
        if site["name"] == "scale":
            return jnp.sqrt(jnp.var(point, ddof=1) / 2)
        return None

    guide = AutoDelta(mixture, init_loc_fn=start)
    with pytest.raises(mx.ModelError, match="'scale_auto_loc'.*initial value has NaN"):
        fit(svi_of(mixture, guide), 5, point)
    assert np.isfinite(fit(svi_of(mixture), 20, point).losses).all()  # from anywhere else it does


# -- the tutorial's numbers


@pytest.fixture(scope="module")
def tutorial() -> tuple[AutoDelta, SVIRunResult]:
    guide = AutoDelta(mixture, init_loc_fn=plausible_start)
    svi = svi_of(mixture, guide, optax.adam(0.1, b1=0.8, b2=0.99))
    return guide, fit(svi, 200, DATA, num_restarts=100, select="initial")


def test_the_tutorial_finds_its_map_estimate(tutorial: tuple[AutoDelta, SVIRunResult]):
    guide, result = tutorial
    assert float(result.losses[0]) == pytest.approx(25.67, abs=0.01)
    assert float(result.losses[-1]) == pytest.approx(17.443, abs=0.01)
    estimates = guide.median(result.params)
    order = np.argsort(estimates["locs"])
    np.testing.assert_allclose(estimates["weights"][order], [0.375, 0.625], atol=0.01)
    np.testing.assert_allclose(estimates["locs"][order], [0.499, 10.984], atol=0.01)
    assert float(estimates["scale"]) == pytest.approx(0.651, abs=0.01)
    assert result.gradient_norms is not None
    assert result.gradient_norms.keys() == result.params.keys()


def test_the_tutorials_guide_of_memberships_approaches_the_map_loss(
    tutorial: tuple[AutoDelta, SVIRunResult],
):
    guide, result = tutorial
    svi = svi_of(mixture, membership_guide(guide, result.params), optax.adam(0.2, b1=0.8, b2=0.99))
    trained = fit(svi, 200, DATA)
    assert trained.params.keys() == {"assignment_probs"}
    assert float(trained.losses[-1]) >= float(result.losses[-1]) - 1e-3  # it is a bound
    exact = mx.marginalize(mixture).posterior(guide.median(result.params), DATA)["assignment"]
    np.testing.assert_allclose(trained.params["assignment_probs"], exact, atol=0.01)
