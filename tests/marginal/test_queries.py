"""Pointwise log-likelihoods, joint marginals of pairs, entropy, batches of draws: against brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenarios import DATA, DISCRETE, LOCS, P3, SCENARIOS, oracle
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.graph.sites import collect_sites
from marginax.testing import brute_force

EXACT = 1e-9
"""Relative, in double precision; a difference of two log totals loses a digit."""


@pytest.fixture(autouse=True)
def double() -> Any:
    with jax.enable_x64(True):
        yield


# --- entropy and pairs -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISCRETE)
def test_entropy_is_that_of_the_joint_posterior(name: str) -> None:
    s = SCENARIOS[name]
    expected = oracle(name).entropy
    entropy = jax.jit(mx.marginalize(s.model).entropy)(s.params)
    np.testing.assert_allclose(entropy, expected, rtol=EXACT, atol=EXACT)


def test_entropy_has_a_gradient() -> None:
    def model(p: Any) -> None:
        mx.sample("z", dist.Bernoulli(p))

    slope = jax.grad(lambda p: mx.marginalize(model).entropy({}, p))(0.3)
    np.testing.assert_allclose(slope, np.log(0.7 / 0.3), rtol=EXACT)


def test_entropy_in_single_precision_needs_no_large_numbers_to_cancel() -> None:
    """A hundred thousand points: log Z is -10^6, the entropy of a global variable below one."""
    data = np.random.default_rng(0).normal(size=100_000) * 4

    def model(x: Any) -> None:
        mx.sample("coin", dist.Bernoulli(0.3))
        with mx.plate("data", len(x)):
            mx.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with jax.enable_x64(False):
        entropy = mx.marginalize(model).entropy({}, data.astype(np.float32))
    np.testing.assert_allclose(entropy, stats.bernoulli(0.3).entropy(), rtol=1e-6)


PAIRS = {
    "chain": ("z_1", "z_4"),
    "loop": ("z_0", "z_2"),
    "tree": ("ll", "rr"),
    "one_cause_of_many": ("w", "z"),
    "nested_plates": ("b", "d"),
    "several_plates": ("w", "y"),
    "kinds_of_supports": ("k", "u"),
    "vectors_as_values": ("z", "w"),
    "impossible_values": ("a", "b"),
    "counts_of_different_size": ("n", "u"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_joint_marginal_of_two_variables(name: str) -> None:
    s, (first, second) = SCENARIOS[name], PAIRS[name]
    pairs = np.asarray(mx.marginalize(s.model).pairwise(first, second, s.params))
    force = oracle(name)
    weight = np.exp(np.asarray(force.log_joint - force.log_density))
    plates = np.broadcast_shapes(*(force._indices[n].shape[1:] for n in (first, second)))
    one, two = (
        force._indices[n].reshape((len(weight), *(1,) * missing, *force._indices[n].shape[1:]))
        for n in (first, second)
        for missing in [len(plates) - force._indices[n].ndim + 1]
    )
    for i, j in np.ndindex(*pairs.shape[-2:]):
        expected = np.tensordot(weight, (one == i) & (two == j), axes=1)
        np.testing.assert_allclose(
            pairs[..., i, j].reshape(plates), expected, rtol=EXACT, atol=EXACT
        )


def test_pairs_that_make_no_sense_are_refused() -> None:
    s = SCENARIOS["several_plates"]
    m = mx.marginalize(s.model)
    with pytest.raises(mx.ModelError, match="pairwise: 'ox' is no variable that is summed out"):
        m.pairwise("w", "ox", s.params)
    with pytest.raises(mx.ModelError, match="both names are 'w'"):
        m.pairwise("w", "w", s.params)
    with pytest.raises(mx.IntractableError, match="'x' lives in .*'A'"):
        m.pairwise("x", "y", s.params)


# --- pointwise -------------------------------------------------------------------------------------


class Without(mx.handlers.Messenger):
    """Masks one site by an array: True keeps an element."""

    def __init__(self, fn: Callable[..., Any], site: str, keep: Any) -> None:
        super().__init__(fn)
        self.site = site
        self.keep = keep

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and msg["name"] == self.site:
            msg["fn"] = msg["fn"].mask(self.keep)


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_observation_given_all_others(name: str) -> None:
    """Brute force with and without each element of each observed site."""
    s = SCENARIOS[name]
    found = jax.jit(mx.marginalize(s.model).pointwise)(s.params)
    observed = {
        name: site.batch_shape
        for name, site in collect_sites(s.model).items()
        if site.is_observed and not site.is_auxiliary
    }
    assert found.keys() == observed.keys()
    whole = oracle(name).log_density
    for site, shape in observed.items():
        assert found[site].shape == shape
        rest = jax.jit(
            lambda keep, site=site: brute_force(Without(s.model, site, keep), s.params).log_density
        )
        for index in itertools.product(*map(range, shape)):
            expected = whole - rest(jnp.ones(shape, bool).at[index].set(False))
            np.testing.assert_allclose(
                found[site][index], expected, rtol=1e-8, atol=1e-8, err_msg=f"{site}{index}"
            )


def mixture(data: Any) -> None:
    with mx.plate("components", 3):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(data)):
        # A copy: JAX gives an array that a kept program closed over in single precision back in
        # single precision, also where double precision is asked for later.
        z = mx.sample("z", dist.Categorical(P3.copy()))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=data)


def test_far_clusters_and_many_points_lose_nothing_in_single_precision() -> None:
    """Posterior probabilities underflow there, and log Z is large; neither may matter."""
    data = np.concatenate([np.full(50_000, -50.0), np.full(50_000, 60.0)])
    locs = np.array([-50.0, 0.0, 60.0])
    expected = np.log((P3 * stats.norm.pdf(data[:, None], locs, 1.0)).sum(1))
    with jax.enable_x64(False):
        found = mx.marginalize(mixture).pointwise({"locs": locs}, data.astype(np.float32))
    np.testing.assert_allclose(found["x"], expected, rtol=1e-5)


def test_pointwise_sums_to_the_log_density_where_points_share_nothing() -> None:
    m, params = mx.marginalize(mixture), {"locs": LOCS}
    prior = stats.norm.logpdf(LOCS, 0.0, 10.0).sum()
    np.testing.assert_allclose(
        m.pointwise(params, DATA)["x"].sum() + prior, m.log_density(params, DATA), rtol=EXACT
    )


def test_pointwise_has_a_gradient() -> None:
    def total(locs: Any) -> Any:
        return mx.marginalize(mixture).pointwise({"locs": locs}, DATA)["x"].sum()

    step = 1e-6
    slope = jax.jit(jax.grad(total))(jnp.asarray(LOCS))
    for k in range(3):
        ahead, behind = (total(jnp.asarray(LOCS).at[k].add(e)) for e in (step, -step))
        np.testing.assert_allclose(slope[k], (ahead - behind) / (2 * step), rtol=1e-6)


def test_elements_outside_of_plates_are_their_own_observations_if_nothing_discrete_meets_them() -> (
    None
):
    def model(x: Any) -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 1.0))
        mx.sample("x", dist.Normal(loc, 1.0), obs=x)

    found = mx.marginalize(model).pointwise({"loc": 0.2}, DATA)
    np.testing.assert_allclose(found["x"], stats.norm.logpdf(DATA, 0.2, 1.0), rtol=EXACT)


# --- batches of draws ------------------------------------------------------------------------------

BATCH = np.random.default_rng(3).normal(size=(2, 3, 3))


@pytest.mark.parametrize("batch_size", [None, 1, 4, 6, 100])
def test_a_batch_is_one_answer_for_each_draw(batch_size: int | None) -> None:
    m = mx.marginalize(mixture)
    params = {"locs": BATCH}
    answers = {
        "log_density": m.log_density(params, DATA, batch_size=batch_size),
        "posterior": m.posterior(params, DATA, batch_size=batch_size)["z"],
        "mode": m.mode(params, DATA, batch_size=batch_size)["z"],
        "pointwise": m.pointwise(params, DATA, batch_size=batch_size)["x"],
        "entropy": m.entropy(params, DATA, batch_size=batch_size),
    }
    for i, j in np.ndindex(2, 3):
        one = {"locs": BATCH[i, j]}
        expected = {
            "log_density": m.log_density(one, DATA),
            "posterior": m.posterior(one, DATA)["z"],
            "mode": m.mode(one, DATA)["z"],
            "pointwise": m.pointwise(one, DATA)["x"],
            "entropy": m.entropy(one, DATA),
        }
        for query, value in expected.items():
            np.testing.assert_allclose(answers[query][i, j], value, rtol=EXACT, err_msg=query)


def test_each_draw_of_a_batch_has_a_key_of_its_own() -> None:
    def model() -> None:
        p = mx.sample("p", dist.Beta(1.0, 1.0))
        mx.sample("z", dist.Bernoulli(p))

    z = np.asarray(mx.marginalize(model).draw(0, {"p": np.full(4000, 0.5)})["z"])
    assert abs(z.mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)
    assert abs(np.mean(z[1:] == z[:-1]) - 0.5) < 5 * 0.5 / np.sqrt(4000)


def test_a_batch_in_jit_and_its_gradient() -> None:
    m = mx.marginalize(mixture)

    def total(locs: Any) -> Any:
        return m.log_density({"locs": locs}, DATA, batch_size=2).sum()

    slope = jax.jit(jax.grad(total))(BATCH)
    one = jax.grad(lambda locs: m.log_density({"locs": locs}, DATA))
    np.testing.assert_allclose(slope[1, 2], one(jnp.asarray(BATCH[1, 2])), rtol=EXACT)


def test_sites_of_different_batches_are_refused() -> None:
    def model() -> None:
        mx.sample("a", dist.Normal(0.0, 1.0))
        mx.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))

    with pytest.raises(mx.ModelError, match=r"site 'b'.*leading batch dimensions \(4,\).*\(3,\)"):
        mx.marginalize(model).log_density({"a": np.zeros(3), "b": np.zeros((4, 2))})


def test_the_draw_that_is_impossible_is_named() -> None:
    def model() -> None:
        p = mx.sample("p", dist.Beta(1.0, 1.0))
        z = mx.sample("z", dist.Bernoulli(p))
        mx.factor("is one", jnp.where(z == 1, 0.0, -jnp.inf))

    with pytest.raises(mx.ModelError, match=r"in 1 of 3 draws, the first at \[1\]"):
        mx.marginalize(model).posterior({"p": np.array([0.5, 0.0, 0.3])})


# --- what may change between two calls ------------------------------------------------------------


def test_what_a_model_reads_may_change_between_calls() -> None:
    """A global array in place, a global number, an attribute: each answer is for what is there now."""
    world: dict[str, Any] = {"data": np.zeros(2), "shift": 4.0}

    def model() -> None:
        with mx.plate("data", 2):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(world["shift"] * z, 1.0), obs=world["data"])

    m = mx.marginalize(model)

    def expected() -> Any:
        likelihood = stats.norm.pdf(world["data"][:, None], world["shift"] * np.arange(2))
        return likelihood / likelihood.sum(1, keepdims=True)

    np.testing.assert_allclose(m.posterior({})["z"], expected(), rtol=EXACT)
    world["data"][:] = 3.0
    np.testing.assert_allclose(m.posterior({})["z"], expected(), rtol=EXACT)
    world["shift"] = -1.0
    np.testing.assert_allclose(m.posterior({})["z"], expected(), rtol=EXACT)


def test_a_global_variable_with_a_hundred_thousand_children_in_single_precision() -> None:
    """The log weights of its values are large and differ by little."""
    data = np.random.default_rng(0).normal(size=100_000)
    shifts = np.array([0.0, 0.004, 0.008])

    def model(x: Any) -> None:
        z = mx.sample("z", dist.Categorical(jnp.ones(3) / 3))
        with mx.plate("data", len(x)):
            mx.sample("x", dist.Normal(jnp.asarray(shifts)[z], 1.0), obs=x)

    log_weight = np.array([stats.norm.logpdf(data, shift, 1.0).sum() for shift in shifts])
    expected = np.exp(log_weight - log_weight.max())
    with jax.enable_x64(False):
        found = mx.marginalize(model).posterior({}, data.astype(np.float32))["z"]
    # The total of 100,000 terms of order one has a rounding error of about 0.03 in single precision.
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.05)


def test_the_values_behind_the_last_axis_of_a_posterior() -> None:
    def model() -> None:
        with mx.plate("data", 2):
            mx.sample("n", dist.DiscreteUniform(np.array([3, 4]), np.array([4, 6])))
        mx.sample("pair", dist.Bernoulli(0.5).expand([2]).to_event(1))  # pyright: ignore

    supports = mx.marginalize(model).supports()
    np.testing.assert_array_equal(supports["n"], [3, 4, 5, 6])
    np.testing.assert_array_equal(supports["pair"], [[0, 0], [0, 1], [1, 0], [1, 1]])


def test_draws_and_modes_carry_the_deterministic_sites_that_follow_from_them() -> None:
    """Of what is partly observed, too: what was seen, and a draw of the rest."""
    seen, known = jnp.array([1, 0, 1]), jnp.array([True, False, True])

    def model() -> None:
        mx.deterministic("constant", 3.0)
        with mx.plate("data", 3):
            z = mx.sample("z", dist.Bernoulli(0.4))
            mx.deterministic("twice", 2 * z + 1)
            mx.sample("d", dist.Bernoulli(0.9), obs=seen, obs_mask=known)

    m = mx.marginalize(model)
    drawn = jax.vmap(lambda key: m.draw(key, {}))(jax.random.split(jax.random.key(0), 200))
    assert set(drawn) == {"z", "twice", "d", "d_unobserved"}
    np.testing.assert_array_equal(drawn["twice"], 2 * drawn["z"] + 1)
    np.testing.assert_array_equal(drawn["d"][:, [0, 2]], np.ones((200, 2)))
    np.testing.assert_array_equal(drawn["d"][:, 1], drawn["d_unobserved"][:, 1])
    assert 150 < drawn["d"][:, 1].sum() < 200  # 180, standard deviation 4.2
    assert m.mode({})["d"].tolist() == [1, 1, 1]
    assert m.mode({})["twice"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("size", [1, 2])
def test_pairs_have_the_axes_of_plates_of_one_element_too(size: int) -> None:
    def model() -> None:
        a = mx.sample("a", dist.Bernoulli(0.4))
        with mx.plate("data", size):
            mx.sample("b", dist.Bernoulli(0.3 + 0.2 * a))

    found = mx.marginalize(model).pairwise("a", "b", {})
    right = [[0.6 * 0.7, 0.6 * 0.3], [0.4 * 0.5, 0.4 * 0.5]]
    np.testing.assert_allclose(found, np.stack([right] * size), rtol=1e-6)
