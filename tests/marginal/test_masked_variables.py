"""Variables that a mask switches off: they add nothing to any answer, and are drawn as in a forward run."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.infer import Predictive
from marginax.marginal.cuts import TruncationWarning

Y = np.array([[1, 0], [2, 1], [0, 1]])


def visits(y: Any, visited: Any) -> None:
    """Counts, of a range that does not hold all of them, at sites that were visited or not."""
    rate = mx.sample("rate", dist.Gamma(2.0, 1.0))
    with mx.plate("sites", len(y), dim=-2), mx.handlers.mask(mask=visited[:, None]):
        n = mx.sample("n", dist.Poisson(rate), infer={"support": (0, 9)})
        with mx.plate("visits", y.shape[1], dim=-1):
            mx.sample("y", dist.Binomial(n, 0.5), obs=y)


@pytest.mark.parametrize("x64", [False, True])
def test_no_answer_knows_of_masked_elements(x64: bool):
    """All are those of the model without them; their range, which cuts off a third of them, is of no account."""
    visited = jnp.array([True, False, True])
    with jax.enable_x64(x64):
        params, less = {"rate": 0.7}, Y[[0, 2]]
        m = mx.marginalize(visits)

        @jax.jit
        def answers(rate: Any, y: Any, visited: Any) -> Any:
            params = {"rate": rate}
            value_and_grad = jax.value_and_grad(lambda r: m.log_density({"rate": r}, y, visited))
            beyond = m.beyond_cuts(params, y, visited)["n"]
            found = m.pointwise(params, y, visited)["y"]
            return *value_and_grad(rate), m.entropy(params, y, visited), beyond, found

        both = answers(0.7, Y, visited), answers(0.7, less, visited[jnp.array([0, 2])])
        with_it, without = jax.device_get(both)
        tolerance = 1e-12 if x64 else 2e-6
        for one, other in zip(with_it[:3], without[:3], strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(with_it[3][[0, 2]], without[3], rtol=1e-3)
        np.testing.assert_allclose(with_it[4][[0, 2]], without[4], rtol=tolerance, atol=tolerance)
        assert with_it[3][1] == 0
        np.testing.assert_allclose(
            with_it[4][1], 0, atol=tolerance
        )  # a difference of two equal sums
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            alone = m.posterior({"rate": 9.0}, 0 * Y[:1], jnp.array([False]))["n"][0, 0]
        expected = stats.poisson.pmf(np.arange(10), 9.0)
        np.testing.assert_allclose(alone, expected / expected.sum(), rtol=1e-5)
        with pytest.warns(TruncationWarning):
            m.posterior({"rate": 30.0}, 0 * Y[:1], jnp.array([True]))
        assert m.mode(params, Y, visited)["n"][1, 0] == 0


def switched(keep: Any, scale: float = 1.0) -> None:
    """Of the two, w decides how many values z has: ten or one."""
    w = mx.sample("w", dist.Categorical(jnp.array([0.6, 0.4])))
    sharp = jnp.log(jnp.stack([jnp.full(10, 0.1), jnp.eye(10)[3]]))
    with mx.handlers.mask(mask=keep), mx.plate("n", 3):
        z = mx.sample("z", dist.Categorical(logits=sharp[w]))
        mx.sample("later", dist.Categorical(logits=jnp.log(jnp.eye(10) * 0.5 + 0.05)[z]))
    mx.sample("x", dist.Normal(1.0 * w, scale), obs=0.5)


@pytest.mark.parametrize("keep", [False, np.array(False), np.zeros(3, bool)])
def test_a_masked_variable_does_not_choose_the_mode_of_another(keep: Any):
    """A joint mode with the three z would prefer the w that leaves them one value."""
    m = mx.marginalize(switched)
    assert m.mode({}, True)["w"] == 1
    found = m.mode({}, keep)
    assert found["w"] == 0
    np.testing.assert_array_equal(found["later"], found["z"])
    np.testing.assert_allclose(m.posterior({}, keep)["w"], [0.6, 0.4], rtol=1e-5)
    np.testing.assert_allclose(m.entropy({}, keep), stats.bernoulli(0.4).entropy(), rtol=1e-5)
    drawn = jax.jit(jax.vmap(lambda key: m.draw(key, {}, keep)))(
        jax.random.split(jax.random.key(0), 4000)
    )
    forward = Predictive(switched, num_samples=4000, return_sites=["w", "z", "later"])(
        jax.random.key(1), keep
    )
    for name in ("w", "z", "later"):
        one, other = (np.bincount(np.ravel(d[name]), minlength=10) for d in (drawn, forward))
        spread = np.sqrt((one + other) * 3 + 1)  # the elements of one draw share w
        assert (abs(one - other) < 4.5 * spread).all(), name


def test_garbage_under_a_mask_stays_there():
    """Parameters that are no numbers where the mask is off, in value and gradient."""

    def model(logits: Any, keep: Any) -> None:
        with mx.plate("n", 2), mx.handlers.mask(mask=keep):
            z = mx.sample("z", dist.Categorical(logits=logits))
            mx.sample("x", dist.Normal(1.0 * z, 1.0), obs=jnp.array([0.3, jnp.nan]))

    m = mx.marginalize(model)
    logits, keep = jnp.array([[0.2, 0.8], [jnp.nan, 0.0]]), jnp.array([True, False])
    value, slope = jax.jit(jax.value_and_grad(m.log_density, argnums=1))({}, logits, keep)
    weights = np.exp([0.2, 0.8]) / np.exp([0.2, 0.8]).sum()
    density = stats.norm.pdf(0.3, [0.0, 1.0])
    np.testing.assert_allclose(value, np.log(weights @ density), rtol=1e-5)
    np.testing.assert_allclose(
        slope[0], weights * density / (weights @ density) - weights, rtol=1e-4
    )
