"""What several starts say together, and when the user is warned."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, init_to_value
from marginax.infer.autoguide import AutoDelta
from marginax.infer.svi.components import component_use
from marginax.infer.svi.restarts import ranked

KEY = jax.random.key(0)


def ending_at(*losses: float) -> Any:
    return ranked(np.tile(np.array(losses)[:, None], 40))


def test_restarts_are_ranked_by_their_last_losses():
    restarts = ranked(np.array([[0.0, 3.0], [9.0, 1.0], [9.0, 2.0]]))
    assert restarts.order.tolist() == [1, 2, 0]
    assert restarts.best == 1
    np.testing.assert_array_equal(restarts.final, [3.0, 1.0, 2.0])


def test_losses_at_one_optimum_differ_by_half_a_nat_or_one_in_ten_thousand():
    assert ending_at(5.0, 5.4, 5.6).reached_best.tolist() == [True, True, False]
    assert ending_at(1e5, 1e5 + 9, 1e5 + 20).reached_best.tolist() == [True, True, False]


def test_noise_of_the_losses_is_allowed_for():
    rng = np.random.default_rng(0)
    losses = 100 + 5 * rng.normal(size=(2, 2000))  # the last 100 have a standard error of 0.5
    assert ranked(losses).num_reached_best == 2
    assert ranked(losses + np.array([[0.0], [10.0]])).num_reached_best == 1


def test_failed_restarts_come_last_and_never_reach_the_best():
    restarts = ending_at(np.nan, 2.0, np.nan)
    assert restarts.best == 1
    assert restarts.num_reached_best == 1
    assert "2 ended in a loss that is not finite" in str(restarts)
    assert ending_at(np.nan).num_reached_best == 0


def test_steps_that_were_skipped_do_not_count():
    losses = np.where(np.arange(400) % 2, np.nan, 3.0)[None]
    assert ranked(losses, stable=True).final.tolist() == [3.0]


def test_a_restart_that_fails_at_the_very_end_has_failed():
    falling = 100.0 - np.arange(100.0)
    falling[-2:] = np.nan
    restarts = ranked(np.stack([falling, np.full(100, 50.0)]))
    assert restarts.best == 1
    assert restarts.final[0] == np.inf


def test_the_report_says_how_many_reached_the_best_and_where_the_others_are():
    text = str(ending_at(7.0, 5.0, 5.01, 9.0))
    assert text.startswith("2 of 4 restarts reached the best optimum found, loss 5;")
    assert "between 7 and 9" in text


# -- in a run


def valleys(share: float) -> Any:
    """A deep valley that is reached from this share of the starts, and a shallow one."""

    def model() -> None:
        x = mx.param("x", lambda key: jax.random.uniform(key, minval=-1.0, maxval=1.0))
        u = (x + 1) / 2
        mx.factor("f", jnp.where(u < share, -((x + 1) ** 2), -((x - 1) ** 2) - 5.0))

    return SVI(model, lambda: None, optax.sgd(0.1), TraceEnum_ELBO())


def test_the_user_is_warned_when_most_restarts_are_stuck():
    with pytest.warns(UserWarning, match=r"[0-9] of 30 restarts reached.*Most were stuck"):
        result = valleys(0.2).run(KEY, 100, num_restarts=30, progress_bar=False)
    assert result.restarts.num_reached_best == (result.restarts.final < 1).sum() < 15


def test_the_user_is_not_warned_when_most_restarts_agree():
    result = valleys(0.9).run(KEY, 100, num_restarts=30, progress_bar=False)
    assert result.restarts.num_reached_best > 15
    assert result.restarts.params is None  # nobody asked for them


# -- components


DATA = np.array([-0.2, 0.0, 0.3, 9.8, 10.0, 10.1])


def mixture(x: Any, K: int) -> None:
    with mx.plate("components", K):
        locs = mx.sample("locs", dist.Normal(0.0, 100.0))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Categorical(jnp.ones(K) / K))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)


def test_component_use_is_the_sum_of_the_memberships():
    locs = np.array([0.0, 4.0, 10.0])
    guide = AutoDelta(lambda x: mixture(x, 3))
    params = {"locs_auto_loc": jnp.asarray(locs)}
    use = component_use(lambda x: mixture(x, 3), guide, params, KEY, (DATA,), {})
    log_density = -0.5 * (DATA[:, None] - locs) ** 2
    weights = np.exp(log_density)
    expected = (weights / weights.sum(axis=1, keepdims=True)).sum(axis=0)
    np.testing.assert_allclose(use["z"], expected, rtol=1e-4)


def test_an_empty_component_is_named():
    def model(x: Any) -> None:
        mixture(x, 3)

    start = init_to_value(values={"locs": np.array([0.0, 10.0, 300.0])})
    svi = SVI(model, AutoDelta(model, init_loc_fn=start), optax.sgd(0.01), TraceEnum_ELBO())
    message = re.escape("site 'z': 1 of its 3 components are empty") + ".*number 2"
    with pytest.warns(UserWarning, match=message):
        result = svi.run(KEY, 20, DATA, num_restarts=2, progress_bar=False)
    np.testing.assert_allclose(result.component_use["z"], [3.0, 3.0, 0.0], atol=1e-3)


def test_nothing_is_said_of_components_that_are_subsampled_or_are_no_components():
    def subsampled(x: Any) -> None:
        with mx.plate("data", len(x), subsample_size=2):
            z = mx.sample("z", dist.Categorical(jnp.ones(3) / 3))
            y = mx.subsample(x, event_dim=0)
            mx.sample("x", dist.Normal(mx.param("locs", jnp.zeros(3))[z], 1.0), obs=y)

    def switches(x: Any) -> None:
        choice = mx.sample("choice", dist.Categorical(jnp.ones(3) / 3))
        with mx.plate("data", len(x)):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(0.0 * z + choice, 1.0), obs=x)

    for model, params in ((subsampled, {"locs": jnp.zeros(3)}), (switches, {})):
        assert component_use(model, lambda x: None, params, KEY, (DATA,), {}) == {}


def test_what_the_guide_states_is_not_summed_out_to_be_counted():
    """Here it could not be: the factor sees all elements of the plate at once."""

    def model(x: Any) -> None:
        with mx.plate("data", len(x)):
            z = mx.sample("z", dist.Categorical(jnp.ones(3) / 3))
        mx.factor("sum", -0.1 * jnp.sum(z))

    def guide(x: Any) -> None:
        with mx.plate("data", len(x)):
            mx.sample("z", dist.Categorical(logits=mx.param("logits", jnp.zeros(3))))

    assert component_use(model, guide, {"logits": jnp.zeros(3)}, KEY, (DATA,), {}) == {}


def test_steps_of_a_scan_are_counted_like_elements_of_a_plate():
    def model(x: Any) -> None:
        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Categorical(jnp.array([[0.9, 0.1], [0.1, 0.9]])[z]))
            mx.sample("x", dist.Normal(10.0 * z, 1.0), obs=y)
            return z, None

        mx.scan(step, 0, x)

    use = component_use(model, lambda x: None, {}, KEY, (DATA,), {})
    np.testing.assert_allclose(use["z"], [3.0, 3.0], atol=1e-3)
