"""Models whose plates are evaluated one element at a time answer as brute force does.

The scenarios of `scenarios.py`, with a cache of one number, so that every plate is cut as far as it can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frequencies import assert_frequencies
from scenarios import SCENARIOS, oracle
from scipy.special import logsumexp

import marginax as mx
import marginax.blocks.blocked
import marginax.distributions as dist

EXACT = 1e-10

IN_PLATES = [
    "mixture",
    "nested_plates",
    "several_plates",
    "shared_by_observations",
    "missing_values",
    "four_plates_deep",
    "counts_of_different_size",
]


@pytest.fixture(autouse=True)
def one_element_at_a_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(marginax.blocks.blocked, "CACHE_ELEMENTS", 1)
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", IN_PLATES)
def test_every_query_equals_brute_force(name: str) -> None:
    s, force = SCENARIOS[name], oracle(name)
    params = {k: jnp.asarray(v, float) for k, v in s.params.items()}
    m = mx.marginalize(s.model)
    assert m.explain(show=False).blocks
    np.testing.assert_allclose(m.log_density(params), force.log_density, rtol=EXACT, atol=EXACT)
    for variable, probabilities in m.posterior(params).items():
        np.testing.assert_allclose(probabilities, force.posterior[variable], rtol=EXACT, atol=EXACT)
    mode = {variable: np.asarray(value)[None] for variable, value in m.mode(params).items()}
    log_joint, (row,) = np.asarray(force.log_joint), force.table_index(mode)
    np.testing.assert_allclose(log_joint[row], log_joint.max(), rtol=EXACT)


def mixture(x: Any, block_size: int) -> None:
    with mx.plate("components", 3):
        locs = mx.sample("locs", dist.Normal(0.0, 3.0))
    with mx.plate("data", len(x), block_size=block_size):
        z = mx.sample("z", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)


X = np.random.default_rng(0).normal(size=50) * 2
PARAMS = {"locs": np.array([-2.0, 0.0, 2.0])}


def joint_by_hand() -> np.ndarray:
    normal = -0.5 * (X[:, None] - PARAMS["locs"]) ** 2 - 0.5 * np.log(2 * np.pi)
    return np.log([0.2, 0.3, 0.5]) + normal


@pytest.mark.parametrize("block_size", [1, 7, 50, 1000])
def test_a_block_size_that_is_asked_for(block_size: int) -> None:
    m, each = mx.marginalize(mixture), np.asarray(logsumexp(joint_by_hand(), axis=1))
    np.testing.assert_allclose(m.pointwise(PARAMS, X, block_size)["x"], each, rtol=EXACT)
    gradient = jax.grad(lambda params: m.log_density(params, X, block_size))(PARAMS)["locs"]
    posterior = np.exp(joint_by_hand() - each[:, None])
    expected = (posterior * (X[:, None] - PARAMS["locs"])).sum(0) - PARAMS["locs"] / 9
    np.testing.assert_allclose(gradient, expected, rtol=EXACT)
    entropy = -(posterior * np.log(posterior)).sum()
    np.testing.assert_allclose(m.entropy(PARAMS, X, block_size), entropy, rtol=EXACT)
    assert m.explain(X, block_size, show=False).blocks["data"] == min(block_size, 50)


def test_draws_in_blocks_have_the_posterior_s_frequencies() -> None:
    keys = jax.random.split(jax.random.key(0), 2000)
    m = mx.marginalize(mixture)
    draws = jax.jit(jax.vmap(lambda key: m.draw(key, PARAMS, X, 7)["z"]))(keys)
    posterior = np.exp(joint_by_hand() - logsumexp(joint_by_hand(), axis=1, keepdims=True))
    for point in (0, 10, 49):
        assert_frequencies(np.asarray(draws[:, point]), posterior[point])


def test_svi_and_nuts_see_the_same_density() -> None:
    """The loss of a guide of points is minus the log density, and a fit ends at its maximum."""
    start = mx.infer.init_to_value(values=PARAMS)
    guide = mx.infer.autoguide.AutoDelta(mixture, init_loc_fn=start)
    svi = mx.infer.SVI(mixture, guide, "lbfgs", mx.infer.TraceEnum_ELBO())
    fit = svi.run(jax.random.key(0), 50, X, 7, progress_bar=False)
    m = mx.marginalize(mixture)
    best = fit.params["locs_auto_loc"]
    np.testing.assert_allclose(fit.losses[-1], -m.log_density({"locs": best}, X, 50), rtol=1e-8)
    slope = jax.grad(lambda locs: m.log_density({"locs": locs}, X, 50))(best)
    np.testing.assert_allclose(slope, 0, atol=1e-3)
    found = {}
    for block_size in (7, 50):
        kernel = mx.infer.NUTS(mixture, init_strategy=start, step_size=0.1, adapt_step_size=False)
        mcmc = mx.infer.MCMC(kernel, num_warmup=2, num_samples=5, progress_bar=False)
        mcmc.run(jax.random.key(1), X, block_size)
        found[block_size] = mcmc.get_samples()["locs"]
    np.testing.assert_allclose(found[7], found[50], rtol=1e-8)


@pytest.mark.parametrize("block_size", [0, -3, 2.5])
def test_a_block_size_that_is_none_is_refused(block_size: Any) -> None:
    with pytest.raises(mx.ModelError, match="plate 'data': its block_size"):
        mx.marginalize(mixture).log_density(PARAMS, X, block_size)
