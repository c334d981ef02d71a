"""Inference uses models with scans with nothing said."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

import marginax as mx
import marginax.distributions as dist
from marginax.infer.known import know
from marginax.infer.target import initial_position, make_target
from marginax.testing import brute_force

YS = jnp.array([0.2, 1.8, 2.3, -0.4, 2.0])
TABLE = np.array([[0.7, 0.3], [0.2, 0.8]])


def assert_drawn_from(values: np.ndarray, probability: np.ndarray) -> None:
    counts = np.bincount(values, minlength=len(probability))
    assert stats.chisquare(counts, len(values) * probability / probability.sum()).pvalue > 1e-4


def switching(ys: Any = None, length: int | None = None) -> None:
    """A discrete state beside a continuous one, whose scale is positive."""
    loc = mx.sample("loc", dist.Normal(0.0, 2.0))

    def step(z: Any, y: Any) -> Any:
        z = mx.sample("z", dist.Categorical(jnp.asarray(TABLE)[z]))
        scale = mx.sample("scale", dist.LogNormal(0.0, 0.5))
        mx.sample("y", dist.Normal(loc * z, scale), obs=y)
        return z, None

    mx.scan(step, 0, ys, length)


PARAMS = {"loc": jnp.asarray(1.5), "scale": jnp.array([1.0, 0.5, 2.0, 0.7, 1.2])}


@pytest.fixture(scope="module")
def truth() -> Any:
    return brute_force(switching, PARAMS, YS)


def test_the_target_of_mcmc_has_the_jacobian_of_every_step(truth: Any):
    target = make_target(switching, (YS,), {})
    position = {"loc": PARAMS["loc"], "scale": jnp.log(PARAMS["scale"])}
    expected = truth.log_density + jnp.sum(position["scale"])
    np.testing.assert_allclose(target.log_density(position), expected, rtol=1e-5)
    np.testing.assert_allclose(target.constrain(position)["scale"], PARAMS["scale"], rtol=1e-6)


@pytest.mark.parametrize(
    "strategy", [mx.infer.init_to_uniform, mx.infer.init_to_median, mx.infer.init_to_sample]
)
def test_initial_positions_have_a_value_for_every_step(strategy: Any):
    position = initial_position(know(switching, (YS,), {}), strategy, jax.random.key(0))
    assert {name: value.shape for name, value in position.items()} == {"loc": (), "scale": (5,)}
    assert len(np.unique(position["scale"])) == 5


def test_initial_values_may_be_given_as_a_series():
    given = mx.infer.init_to_value(values=PARAMS)
    position = initial_position(know(switching, (YS,), {}), given, jax.random.key(0))
    np.testing.assert_allclose(position["scale"], jnp.log(PARAMS["scale"]), rtol=1e-6)


def test_the_bound_of_a_point_estimate_is_the_density(truth: Any):
    guide = mx.infer.autoguide.AutoDelta(switching)
    params = {f"{name}_auto_loc": value for name, value in PARAMS.items()}
    loss = mx.infer.TraceEnum_ELBO().loss(jax.random.key(0), params, switching, guide, YS)
    np.testing.assert_allclose(-loss, truth.log_density, rtol=1e-5)


def test_svi_finds_where_the_gradient_vanishes():
    def model(ys: Any) -> None:
        stay = mx.sample("stay", dist.Beta(3.0, 2.0))

        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Bernoulli(jnp.where(z == 1, stay, 1 - stay)))
            mx.sample("y", dist.Normal(2.0 * z, 1.0), obs=y)
            return z, None

        mx.scan(step, 0, ys)

    guide = mx.infer.autoguide.AutoDelta(model)
    svi = mx.infer.SVI(model, guide, optax.adam(0.05), mx.infer.TraceEnum_ELBO())
    result = svi.run(jax.random.key(0), 400, YS, progress_bar=False)
    found = guide.median(result.params)
    slope = jax.jit(jax.grad(mx.marginalize(model).log_density))(found, YS)
    assert abs(slope["stay"]) < 1e-2


def test_infer_discrete_gives_the_series(truth: Any):
    fixed = mx.handlers.substitute(switching, data=PARAMS)
    best = mx.infer.infer_discrete(fixed, temperature=0)
    z = mx.handlers.trace(best).get_trace(YS)["z"]["value"]
    row = int(np.argmax(np.asarray(truth.log_modal)))
    np.testing.assert_array_equal(z, truth.assignments["z"][row])


def test_draws_of_the_past_and_a_forecast(truth: Any):
    draws = 4000
    samples = {n: jnp.broadcast_to(v, (draws, *v.shape)) for n, v in PARAMS.items()}
    past = mx.infer.Predictive(switching, samples, infer_discrete=True, return_sites=["z"])(
        jax.random.key(0), YS
    )
    joint = special.softmax(np.asarray(truth.log_joint, float))
    assert_drawn_from(truth.table_index(past), joint)

    known = mx.handlers.condition(switching, data={"y": YS})
    future = mx.infer.Predictive(known, samples | past, return_sites=["z", "y", "scale"])(
        jax.random.key(1), None, 7
    )
    np.testing.assert_array_equal(future["z"][:, :5], past["z"])
    np.testing.assert_array_equal(future["y"][:, :5], jnp.broadcast_to(YS, (draws, 5)))
    last = truth.posterior["z"][-1]
    for t, expected in ((5, last @ TABLE), (6, last @ TABLE @ TABLE)):
        assert_drawn_from(np.asarray(future["z"][:, t]), expected)
    z, scale = np.asarray(future["z"][:, 5:]), np.asarray(future["scale"][:, 5:])
    noise = (np.asarray(future["y"][:, 5:]) - 1.5 * z) / scale
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4


def test_draws_of_the_parameters_may_be_many():
    batch = jax.tree.map(lambda v: jnp.stack([v, 1.1 * v]), PARAMS)
    m = mx.marginalize(switching)
    assert m.posterior(batch, YS)["z"].shape == (2, 5, 2)
    one = m.filtered(jax.tree.map(lambda v: 1.1 * v, PARAMS), YS)["z"]
    np.testing.assert_allclose(m.filtered(batch, YS)["z"][1], one, rtol=1e-5)
    likelihoods = mx.infer.log_likelihood(switching, batch, YS)
    assert likelihoods["y"].shape == (2, 5)


def test_a_chain_in_the_guide_is_refused():
    def guide(ys: Any) -> None:
        mx.sample("loc", dist.Delta(0.0))
        mx.scan(lambda z, _: (mx.sample("z", dist.Bernoulli(0.2 + 0.6 * z)), None), 0, None, 5)

    with pytest.raises(mx.ModelError, match="site 'z'.*scan of the guide"):
        mx.infer.TraceEnum_ELBO().loss(jax.random.key(0), {}, switching, guide, YS)
