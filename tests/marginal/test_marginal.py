"""`marginalize` against an oracle that knows nothing of elimination, and against closed forms.

The scenarios (`scenarios.py`) are small enough to be summed by brute force; every query of every scenario
is compared with that in double precision. Below come sums written out in NumPy, transformations,
scales, masks, precision, and everything that must be refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frequencies import assert_frequencies
from scenarios import (
    DATA,
    DISCRETE,
    LOCS,
    P2,
    P3,
    SCENARIOS,
    T23,
    T33,
    T333,
    index_at_once,
    index_in_turn,
    nested_plates,
    one_cause_of_many,
    oracle,
    real,
    vectors_as_values,
    with_deterministic,
)
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.testing import brute_force

EXACT = 1e-10  # relative, in double precision: a few thousand roundings of 1e-16, with room


NAN_BY_FORCE = {"counts_of_different_size", "edges_of_parameters"}
"""Where the formulas of the oracle have an infinite derivative; finite differences serve instead."""


@pytest.fixture
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def along_weights(value: Any, gradient: Any) -> Any:
    """A gradient; of weights only in the directions in which they still add up to one.

    In the other the density does not change, as weights are divided by their sum.
    """
    if np.ndim(value) and np.allclose(np.sum(value, -1), 1.0):
        return gradient - np.mean(gradient, -1, keepdims=True)
    return gradient


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", SCENARIOS)
def test_log_density_and_its_gradient_equal_brute_force(name: str) -> None:
    s = SCENARIOS[name]
    params = {k: jnp.asarray(v, float) for k, v in s.params.items()}
    value, gradient = jax.jit(jax.value_and_grad(mx.marginalize(s.model).log_density))(params)
    by_force = jax.value_and_grad(lambda p: brute_force(s.model, p).log_density)
    expected, slope = jax.jit(by_force)(params)
    np.testing.assert_allclose(value, expected, rtol=EXACT, atol=EXACT)
    for key in params:
        if name in NAN_BY_FORCE:
            step, force = 1e-5, jax.jit(lambda p: brute_force(s.model, p).log_density)
            ahead, behind = (force(params | {key: params[key] + e}) for e in (step, -step))
            difference = (ahead - behind) / (2 * step)
            np.testing.assert_allclose(gradient[key], difference, rtol=1e-8, atol=1e-8)
        else:
            found, expected = (along_weights(params[key], g[key]) for g in (gradient, slope))
            np.testing.assert_allclose(found, expected, rtol=EXACT, atol=EXACT)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", SCENARIOS)
def test_posterior_equals_brute_force(name: str) -> None:
    s = SCENARIOS[name]
    posterior = mx.marginalize(s.model).posterior(s.params)
    assert posterior.keys() == oracle(name).posterior.keys()
    for key, expected in oracle(name).posterior.items():
        assert posterior[key].shape == expected.shape
        np.testing.assert_allclose(posterior[key], expected, rtol=EXACT, atol=EXACT, err_msg=key)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", DISCRETE)
def test_mode_is_the_joint_maximum(name: str) -> None:
    s = SCENARIOS[name]
    mode = mx.marginalize(s.model).mode(s.params)
    (row,) = oracle(name).table_index({k: np.asarray(v)[None] for k, v in mode.items()})
    modal = np.asarray(oracle(name).log_modal)
    np.testing.assert_allclose(modal[row], modal.max(), rtol=EXACT)
    for key, expected in oracle(name).mode.items():
        assert mode[key].shape == expected.shape


DRAWS = 4000


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", DISCRETE)
def test_draws_have_the_joint_posterior_s_frequencies(name: str) -> None:
    s = SCENARIOS[name]
    keys = jax.random.split(jax.random.key(1), DRAWS)
    m = mx.marginalize(s.model)
    draws = jax.jit(jax.vmap(lambda key: m.draw(key, s.params)))(keys)
    weight = np.exp(np.asarray(oracle(name).log_joint - oracle(name).log_density))
    assert_frequencies(oracle(name).table_index(draws), weight)


@pytest.mark.parametrize("name", SCENARIOS)
def test_single_precision_is_good_to_its_last_digits(name: str) -> None:
    s = SCENARIOS[name]
    with jax.enable_x64(True):
        expected = float(mx.marginalize(s.model).log_density(s.params))
    value = mx.marginalize(s.model).log_density(s.params)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("double")
def test_indexing_in_turn_is_indexing_at_once() -> None:
    turn, once = mx.marginalize(index_in_turn), mx.marginalize(index_at_once)
    np.testing.assert_allclose(turn.log_density({}), once.log_density({}), rtol=EXACT)
    for key, value in turn.posterior({}).items():
        np.testing.assert_allclose(value, once.posterior({})[key], rtol=EXACT)


# --- closed forms ----------------------------------------------------------------------------------


def log_sum(x: Any, axis: int | None = None) -> Any:
    return np.log(np.sum(np.exp(x), axis=axis))


def normal(x: Any, loc: Any, scale: Any = 1.0) -> Any:
    return -0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def gaussian_mixture(data: Any, components: int = 3) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(components)))
    with mx.plate("components", components):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(data)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("obs", dist.Normal(locs[z], 1.0), obs=data)


def mixture_by_hand(weights: Any, locs: Any, data: Any) -> tuple[float, Any]:
    """Log density and responsibilities."""
    joint = np.log(weights) + normal(data[:, None], locs)
    each = log_sum(joint, axis=1)
    prior = np.log(2.0) + normal(locs, 0.0, 10.0).sum()  # Dirichlet(1, 1, 1) has density 2
    return prior + each.sum(), np.exp(joint - each[:, None])


@pytest.mark.usefixtures("double")
def test_a_mixture_by_hand() -> None:
    data = np.random.default_rng(1).normal(size=50) * 2
    m, params = mx.marginalize(gaussian_mixture), {"weights": P3, "locs": LOCS}
    expected, responsibility = mixture_by_hand(P3, LOCS, data)
    np.testing.assert_allclose(m.log_density(params, data), expected, rtol=EXACT)
    np.testing.assert_allclose(m.posterior(params, data)["z"], responsibility, rtol=EXACT)
    np.testing.assert_array_equal(m.mode(params, data)["z"], responsibility.argmax(1))

    gradient = jax.jit(jax.grad(m.log_density))(jax.tree.map(jnp.asarray, params), data)
    by_loc = (responsibility * (data[:, None] - LOCS)).sum(0) - LOCS / 100
    np.testing.assert_allclose(gradient["locs"], by_loc, rtol=EXACT)
    found, right = (along_weights(P3, g) for g in (gradient["weights"], responsibility.sum(0) / P3))
    np.testing.assert_allclose(found, right, rtol=EXACT, atol=EXACT)

    hessian = jax.jit(jax.hessian(lambda locs: m.log_density({"weights": P3, "locs": locs}, data)))(
        LOCS
    )
    off = (data[:, None] - LOCS) * responsibility
    by_locs = np.diag((off * (data[:, None] - LOCS) - responsibility).sum(0) - 0.01) - off.T @ off
    np.testing.assert_allclose(hessian, by_locs, rtol=EXACT, atol=EXACT)


@pytest.mark.usefixtures("double")
@pytest.mark.slow
def test_a_chain_too_long_for_brute_force_by_forward_backward_and_viterbi() -> None:
    length = 14
    x = np.random.default_rng(2).normal(size=length)

    def model() -> None:
        z = mx.sample("z_0", dist.Categorical(real(P3)))
        for t in range(length):
            z = mx.sample(f"z_{t}", dist.Categorical(real(T33)[z])) if t else z
            mx.sample(f"x_{t}", dist.Normal(real(LOCS)[z], 1.0), obs=x[t])

    m = mx.marginalize(model)
    transition = np.log(T33)
    forward, best, back = [np.log(P3) + normal(x[0], LOCS)], [np.log(P3) + normal(x[0], LOCS)], []
    for t in range(1, length):
        forward.append(log_sum(forward[-1][:, None] + transition, axis=0) + normal(x[t], LOCS))
        score = best[-1][:, None] + transition
        back.append(score.argmax(0))
        best.append(score.max(0) + normal(x[t], LOCS))
    backward = [np.zeros(3)]
    for t in reversed(range(1, length)):
        backward.insert(0, log_sum(transition + normal(x[t], LOCS) + backward[0], axis=1))
    path = [int(best[-1].argmax())]
    for pointers in reversed(back):
        path.insert(0, int(pointers[path[0]]))

    np.testing.assert_allclose(m.log_density({}), log_sum(forward[-1]), rtol=EXACT)
    posterior, mode = m.posterior({}), m.mode({})
    for t in range(length):
        marginal = np.exp(forward[t] + backward[t] - log_sum(forward[-1]))
        np.testing.assert_allclose(posterior[f"z_{t}"], marginal, rtol=EXACT)
        assert int(mode[f"z_{t}"]) == path[t]
    assert m.explain(show=False).plan.largest == 9


@pytest.mark.usefixtures("double")
def test_a_ring_by_its_transfer_matrix() -> None:
    length, coupling, field = 12, 0.4, 0.3

    def model() -> None:
        z = [mx.sample(f"z_{i}", dist.Bernoulli(0.5)) for i in range(length)]
        for i in range(length):
            here, there = 2 * z[i] - 1, 2 * z[(i + 1) % length] - 1
            mx.factor(f"f_{i}", coupling * here * there + field * here)

    spin = np.array([-1, 1])
    transfer = 0.5 * np.exp(coupling * np.outer(spin, spin) + field * spin[:, None])
    expected = np.log(np.trace(np.linalg.matrix_power(transfer, length)))
    np.testing.assert_allclose(mx.marginalize(model).log_density({}), expected, rtol=EXACT)


@pytest.mark.usefixtures("double")
def test_nested_plates_too_large_for_brute_force_by_nested_sums() -> None:
    x = np.random.default_rng(3).normal(size=(3, 4, 5))

    def model() -> None:
        a = mx.sample("a", dist.Categorical(real(P3)))
        with mx.plate("A", 3, dim=-3):
            b = mx.sample("b", dist.Categorical(real(T33)[a]))
            with mx.plate("B", 4, dim=-2):
                c = mx.sample("c", dist.Categorical(real(T333)[a, b]))
                with mx.plate("C", 5, dim=-1):
                    d = mx.sample("d", dist.Categorical(real(T33)[c]))
                    mx.sample("x", dist.Normal(real(LOCS)[d] + b, 1.0), obs=real(x))

    # Axes of the tables: plates A, B, C, then a, b, c, d as far as they go.
    of_d = np.log(T33) + normal(x[..., None, None, None], LOCS + np.arange(3)[:, None, None])
    of_c = log_sum(of_d, axis=-1).sum(2)  # A, B, b, c
    of_b = log_sum(np.log(T333) + of_c[:, :, None], axis=-1).sum(1)  # A, a, b
    of_a = log_sum(np.log(T33) + of_b, axis=-1).sum(0)  # a
    value = mx.marginalize(model).log_density({})
    np.testing.assert_allclose(value, log_sum(np.log(P3) + of_a), rtol=EXACT)


@pytest.mark.usefixtures("double")
def test_one_cause_of_many_by_hand() -> None:
    x = np.random.default_rng(4).normal(size=40)

    def model(x: Any) -> None:
        w = mx.sample("w", dist.Categorical(real(P2)))
        with mx.plate("data", len(x)):
            z = mx.sample("z", dist.Categorical(real(T23)[w]))
            mx.sample("x", dist.Normal(real(LOCS)[z], 1.0), obs=x)

    of_z = np.log(T23) + normal(x[:, None, None], LOCS)  # data, w, z
    of_w = np.log(P2) + log_sum(of_z, axis=-1).sum(0)
    m = mx.marginalize(model)
    np.testing.assert_allclose(m.log_density({}, x), log_sum(of_w), rtol=EXACT)
    posterior = m.posterior({}, x)
    weight = np.exp(of_w - log_sum(of_w))
    np.testing.assert_allclose(posterior["w"], weight, rtol=EXACT)
    given = np.exp(of_z - log_sum(of_z, axis=-1)[..., None])
    np.testing.assert_allclose(posterior["z"], (weight[:, None] * given).sum(1), rtol=EXACT)


@pytest.mark.usefixtures("double")
def test_missing_discrete_values_by_hand() -> None:
    given, answers = np.array([True, False, True]), np.array([1, 0, 2])

    def model() -> None:
        with mx.plate("data", 3):
            c = mx.sample("c", dist.Categorical(real(P3)), obs=answers, obs_mask=given)
            mx.sample("x", dist.Normal(real(LOCS)[c], 1.0), obs=real(DATA[:3]))

    m = mx.marginalize(model)
    joint = np.log(P3) + normal(DATA[:3, None], LOCS)
    expected = joint[0, 1] + joint[2, 2] + log_sum(joint[1])
    np.testing.assert_allclose(m.log_density({}), expected, rtol=EXACT)
    missing = m.posterior({})["c_unobserved"][1]
    np.testing.assert_allclose(missing, np.exp(joint[1] - log_sum(joint[1])), rtol=EXACT)


# --- masks and scales --------------------------------------------------------------------------------


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "off", [False, np.array(False), np.zeros(4, bool)], ids=["bool", "0-d", "array"]
)
def test_what_is_masked_out_adds_exactly_nothing(off: Any) -> None:
    def model(masked: bool) -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 1.0))
        with mx.plate("data", 4):
            mx.sample("kept", dist.Normal(loc, 1.0), obs=real(DATA))
            if masked:
                with mx.handlers.mask(mask=jnp.asarray(off) if off is not False else False):
                    z = mx.sample("z", dist.Categorical(real(P3)))
                    mx.sample("gone", dist.Normal(loc + real(LOCS)[z], 1.0), obs=real(DATA))

    m = mx.marginalize(model)
    one, other = (
        jax.jit(jax.value_and_grad(m.log_density), static_argnums=1)({"loc": 0.3}, masked)
        for masked in (True, False)
    )
    np.testing.assert_allclose(one[0], other[0], rtol=EXACT)
    np.testing.assert_allclose(one[1]["loc"], other[1]["loc"], rtol=EXACT)


def scaled(outer: float = 1.0, inner: float = 1.0) -> None:
    with mx.handlers.scale(scale=outer):
        w = mx.sample("w", dist.Categorical(real(P2)))
        with mx.plate("data", 4), mx.handlers.scale(scale=inner):
            z = mx.sample("z", dist.Categorical(real(T23)[w]))
            mx.sample("x", dist.Normal(real(LOCS)[z], 1.0), obs=real(DATA))


@pytest.mark.usefixtures("double")
def test_scales_multiply_after_the_sums_inside_them() -> None:
    of_w = log_sum(np.log(T23) + normal(DATA[:, None, None], LOCS), axis=-1)  # data, w
    for outer, inner in [(1.0, 1.0), (2.0, 1.0), (1.0, 3.0), (2.5, 0.5)]:
        value = mx.marginalize(scaled).log_density({}, outer, inner)
        expected = outer * log_sum(np.log(P2) + inner * of_w.sum(0))
        np.testing.assert_allclose(value, expected, rtol=EXACT)


@pytest.mark.usefixtures("double")
def test_a_child_may_stand_in_a_scale_that_its_parent_is_outside_of() -> None:
    """The parent's sum comes last, whichever of the two has fewer values."""
    for p_w, table in ((P2, T23), (P3, T23.T / T23.T.sum(1, keepdims=True))):

        def model(scale: Any, p_w: Any = p_w, table: Any = table) -> None:
            w = mx.sample("w", dist.Categorical(real(p_w)))
            with mx.handlers.scale(scale=scale):
                z = mx.sample("z", dist.Categorical(real(table)[w]))
                mx.sample("x", dist.Normal(real(LOCS)[z], 1.0), obs=0.7)

        m, given = mx.marginalize(model), np.log(table) + normal(0.7, LOCS[: table.shape[1]])
        of_w = log_sum(given, axis=-1)
        joint = np.log(p_w) + 0.5 * of_w
        weight = np.exp(joint - log_sum(joint))
        value, slope = jax.value_and_grad(lambda s, m=m: m.log_density({}, s))(0.5)
        np.testing.assert_allclose((value, slope), (log_sum(joint), weight @ of_w), rtol=EXACT)
        found = m.posterior({}, 0.5)
        np.testing.assert_allclose(found["w"], weight, rtol=EXACT)
        of_z = weight @ np.exp(given - of_w[:, None])
        np.testing.assert_allclose(found["z"], of_z, rtol=EXACT)


@pytest.mark.usefixtures("double")
def test_scales_may_be_traced_and_differentiated() -> None:
    m = mx.marginalize(scaled)
    of_w = log_sum(np.log(T23) + normal(DATA[:, None, None], LOCS), axis=-1)
    value, slope = jax.jit(jax.value_and_grad(lambda s: m.log_density({}, s, 1.0)))(2.0)
    expected = log_sum(np.log(P2) + of_w.sum(0))
    np.testing.assert_allclose((value, slope), (2 * expected, expected), rtol=EXACT)


@pytest.mark.usefixtures("double")
@pytest.mark.slow
def test_probabilities_are_not_scaled_away() -> None:
    """A scale around everything leaves the posterior, the mode and the draws as they are."""
    m = mx.marginalize(scaled)
    for key, value in m.posterior({}, 7.0, 1.0).items():
        np.testing.assert_allclose(value, m.posterior({}, 1.0, 1.0)[key], rtol=EXACT)
        np.testing.assert_allclose(value.sum(-1), 1.0, rtol=EXACT)
        np.testing.assert_array_equal(m.mode({}, 7.0, 1.0)[key], m.mode({}, 1.0, 1.0)[key])
        np.testing.assert_array_equal(m.draw(0, {}, 7.0, 1.0)[key], m.draw(0, {}, 1.0, 1.0)[key])


@pytest.mark.usefixtures("double")
def test_a_scale_may_vary_along_plates() -> None:
    rows = np.array([[1.0], [2.0], [0.5]])

    def model() -> None:
        with mx.handlers.scale(scale=real(rows)), mx.plate("rows", 3, dim=-2):
            z = mx.sample("z", dist.Categorical(real(P3)))
            with mx.plate("columns", 4, dim=-1):
                mx.sample("x", dist.Normal(real(LOCS)[z], 1.0), obs=real(np.tile(DATA, (3, 1))))

    each = log_sum(np.log(P3) + normal(DATA[:, None], LOCS).sum(0))
    np.testing.assert_allclose(mx.marginalize(model).log_density({}), rows.sum() * each, rtol=EXACT)


@pytest.mark.usefixtures("double")
def test_a_subsample_stands_for_the_whole_after_its_variables_were_summed_out() -> None:
    data = np.random.default_rng(5).normal(size=20)

    def model(data: Any) -> None:
        w = mx.sample("w", dist.Categorical(real(P2)))
        with mx.plate("data", 20, subsample_size=5):
            batch = mx.subsample(data, event_dim=0)
            z = mx.sample("z", dist.Categorical(real(T23)[w]))
            mx.sample("x", dist.Normal(real(LOCS)[z], 1.0), obs=batch)

    rows = np.array([3, 17, 0, 9, 4])
    chosen = mx.handlers.substitute(model, data={"data": rows})
    of_w = log_sum(np.log(T23) + normal(data[rows][:, None, None], LOCS), axis=-1).sum(0)
    value = mx.marginalize(chosen).log_density({}, data)
    np.testing.assert_allclose(value, log_sum(np.log(P2) + 4.0 * of_w), rtol=EXACT)


@pytest.mark.usefixtures("double")
def test_a_seeded_subsample_is_the_same_one_in_every_query() -> None:
    data = np.random.default_rng(6).normal(size=20)

    def model(data: Any) -> None:
        with mx.plate("data", 20, subsample_size=5) as rows:
            z = mx.sample("z", dist.Categorical(real(P3)))
            mx.deterministic("rows", rows)
            mx.sample("x", dist.Normal(real(LOCS)[z], 1.0), obs=data[rows])

    seeded = mx.handlers.seed(model, rng_seed=3)
    rows = np.asarray(mx.handlers.trace(seeded).get_trace(data)["data"]["value"])
    joint = np.log(P3) + normal(data[rows][:, None], LOCS)
    m = mx.marginalize(seeded)
    np.testing.assert_allclose(
        m.log_density({}, data), 4 * log_sum(joint, axis=1).sum(), rtol=EXACT
    )
    np.testing.assert_array_equal(m.mode({}, data)["z"], joint.argmax(1))


# --- transformations, precision, calls ----------------------------------------------------------------


def some_params(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "weights": jnp.asarray(rng.dirichlet(np.ones(3))),
        "locs": jnp.asarray(rng.normal(size=3)),
    }


@pytest.mark.usefixtures("double")
def test_a_batch_of_parameters_is_mapped() -> None:
    m, data = mx.marginalize(gaussian_mixture), jnp.asarray(DATA)
    single = [some_params(seed) for seed in range(4)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *single)
    values = jax.vmap(m.log_density, in_axes=(0, None))(batch, data)
    np.testing.assert_allclose(values, [m.log_density(p, data) for p in single], rtol=EXACT)
    posteriors = jax.vmap(m.posterior, in_axes=(0, None))(batch, data)["z"]
    expected = np.stack([m.posterior(p, data)["z"] for p in single])
    np.testing.assert_allclose(posteriors, expected, rtol=EXACT)


@pytest.mark.usefixtures("double")
def test_data_are_mapped_and_differentiated() -> None:
    m, params = mx.marginalize(gaussian_mixture), some_params()
    data = jnp.stack([jnp.asarray(DATA), 2.0 * jnp.asarray(DATA)])
    values = jax.jit(jax.vmap(m.log_density, in_axes=(None, 0)))(params, data)
    np.testing.assert_allclose(values, [m.log_density(params, x) for x in data], rtol=EXACT)
    slope = jax.jit(jax.grad(m.log_density, argnums=1))(params, data[0])
    _, weight = mixture_by_hand(np.asarray(params["weights"]), np.asarray(params["locs"]), DATA)
    expected = (weight * (np.asarray(params["locs"]) - DATA[:, None])).sum(1)
    np.testing.assert_allclose(slope, expected, rtol=EXACT)


@pytest.mark.usefixtures("double")
def test_forward_and_reverse_derivatives_agree() -> None:
    m, params = mx.marginalize(gaussian_mixture), some_params()
    forward = jax.jit(jax.jacfwd(m.log_density))(params, DATA)
    reverse = jax.jit(jax.jacrev(m.log_density))(params, DATA)
    for key in params:
        np.testing.assert_allclose(forward[key], reverse[key], rtol=EXACT)


@pytest.mark.usefixtures("double")
def test_the_posterior_is_differentiable() -> None:
    """Its derivative with respect to a location, against central differences."""
    m, params = mx.marginalize(gaussian_mixture), some_params()

    def probability(shift: Any) -> Any:
        return m.posterior(params | {"locs": params["locs"] + shift}, jnp.asarray(DATA))["z"][:, 1]

    h = 1e-5
    slope = jax.jit(jax.jacfwd(probability))(0.0)
    np.testing.assert_allclose(slope, (probability(h) - probability(-h)) / (2 * h), atol=h)


def test_compiled_and_plain_calls_agree() -> None:
    m, params, data = mx.marginalize(gaussian_mixture), some_params(), jnp.asarray(DATA)
    key = jax.random.key(5)
    for plain, compiled in (
        (m.log_density(params, data), jax.jit(m.log_density)(params, data)),
        (m.posterior(params, data), jax.jit(m.posterior)(params, data)),
        (m.mode(params, data), jax.jit(m.mode)(params, data)),
        (m.draw(key, params, data), jax.jit(m.draw)(key, params, data)),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), plain, compiled)


@pytest.mark.usefixtures("double")
def test_data_of_another_size() -> None:
    m = mx.marginalize(gaussian_mixture)
    for size in (1, 2, 17):
        data = np.linspace(-2.0, 2.0, size)
        expected, weight = mixture_by_hand(P3, LOCS, data)
        params = {"weights": P3, "locs": LOCS}
        np.testing.assert_allclose(m.log_density(params, data), expected, rtol=EXACT)
        assert m.posterior(params, data)["z"].shape == weight.shape


def test_a_large_plate_in_single_precision() -> None:
    count = 100_000
    data = np.random.default_rng(7).normal(size=count) * 2
    m = mx.marginalize(gaussian_mixture)
    expected, weight = mixture_by_hand(P3, LOCS, data)
    params = {"weights": np.float32(P3), "locs": np.float32(LOCS)}
    value = m.log_density(params, np.float32(data))
    # The rounding errors of a sum of n numbers of one sign add up like a random walk.
    eps = float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(value, expected, rtol=eps * np.sqrt(count))
    posterior = m.posterior(params, np.float32(data))["z"]
    np.testing.assert_allclose(posterior, weight, atol=64 * eps)
    gradient = jax.jit(jax.grad(m.log_density))(jax.tree.map(jnp.asarray, params), np.float32(data))
    size = np.abs(weight * (data[:, None] - LOCS)).sum(0)
    by_loc = (weight * (data[:, None] - LOCS)).sum(0) - LOCS / 100
    assert np.all(np.abs(np.asarray(gradient["locs"]) - by_loc) < eps * np.sqrt(count) * size)


def test_keys_of_every_kind() -> None:
    m, params = mx.marginalize(gaussian_mixture), some_params()
    data = np.zeros(100)
    draws = [m.draw(key, params, data)["z"] for key in (3, np.int64(3), jax.random.key(3))]
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])
    assert not np.array_equal(draws[0], m.draw(4, params, data)["z"])
    assert m.draw(jax.random.PRNGKey(3), params, data)["z"].shape == (100,)
    with pytest.raises(TypeError, match="one PRNG key"):
        m.draw("seed", params, data)
    with pytest.raises(TypeError, match="one PRNG key"):
        m.draw(jax.random.split(jax.random.key(0)), params, data)


@pytest.mark.usefixtures("double")
def test_elements_of_a_plate_that_look_alike_are_drawn_one_by_one() -> None:
    """Nothing tells the elements apart, so all they need is computed once; not so the draws."""

    def model() -> None:
        with mx.plate("coins", 1000):
            mx.sample("z", dist.Bernoulli(0.5))

    heads = int(mx.marginalize(model).draw(0, {})["z"].sum())
    low, high = stats.binom.ppf([5e-5, 1 - 5e-5], 1000, 0.5)
    assert low <= heads <= high


def test_values_have_the_shape_and_type_of_their_site() -> None:
    m = mx.marginalize(nested_plates)
    for values in (m.mode({"shift": 0.0}), m.draw(0, {"shift": 0.0})):
        assert {k: v.shape for k, v in values.items()} == {
            "a": (),
            "b": (2, 1, 1),
            "c": (2, 2, 1),
            "d": (2, 2, 2),
        }
        assert all(v.dtype == jnp.int32 for v in values.values())
    assert m.posterior({"shift": 0.0})["c"].shape == (2, 2, 1, 2)
    one_hot = mx.marginalize(vectors_as_values).mode({})
    assert one_hot["w"].shape == (3, 3)
    np.testing.assert_array_equal(one_hot["w"].sum(-1), 1)


def test_of_equal_modes_one_consistent_assignment_is_returned() -> None:
    """Both (0, 1) and (1, 0) are best; neither variable alone can tell."""

    def model() -> None:
        a = mx.sample("a", dist.Bernoulli(0.5))
        b = mx.sample("b", dist.Bernoulli(0.5))
        mx.factor("different", jnp.where(a == b, -5.0, 0.0))

    mode = mx.marginalize(model).mode({})
    assert int(mode["a"]) != int(mode["b"])


@pytest.mark.usefixtures("double")
def test_a_discrete_value_in_params_is_given_not_summed_out() -> None:
    m = mx.marginalize(one_cause_of_many)
    given = [m.log_density({"shift": 0.4, "w": w}) for w in (0, 1)]
    np.testing.assert_allclose(
        np.logaddexp(given[0], given[1]), m.log_density({"shift": 0.4}), rtol=EXACT
    )
    conditioned = mx.handlers.condition(one_cause_of_many, data={"w": 1})
    np.testing.assert_allclose(mx.marginalize(conditioned).log_density({"shift": 0.4}), given[1])
    assert m.posterior({"shift": 0.4, "w": 1}).keys() == {"z"}
    everything = m.log_density({"shift": 0.4, "w": 1, "z": np.array([0, 2, 1, 1])})
    assert np.isfinite(everything)


def test_parameters_have_their_initial_value_or_the_one_given() -> None:
    def model() -> None:
        loc = mx.param("loc", 2.0)
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(loc * z, 1.0), obs=0.0)

    m = mx.marginalize(model)
    np.testing.assert_allclose(m.log_density({}), m.log_density({"loc": 2.0}))
    assert m.log_density({"loc": 0.0}) > m.log_density({})
    assert jax.grad(lambda v: m.log_density({"loc": v}))(2.0) < 0


def test_deterministic_entries_of_params_are_ignored() -> None:
    m = mx.marginalize(with_deterministic)
    plain = m.log_density({})
    assert m.log_density({"b": np.zeros(3), "mean": "anything"}) == plain


def test_a_deterministic_function_of_many_variables_costs_nothing() -> None:
    def model() -> None:
        z = [mx.sample(f"z_{i}", dist.Categorical(jnp.ones(50) / 50)) for i in range(20)]
        mx.deterministic("total", sum(z))

    with jax.disable_jit():
        np.testing.assert_allclose(mx.marginalize(model).log_density({}), 0.0, atol=1e-4)


# --- what a model may be called with -------------------------------------------------------------------


def test_python_values_steer_the_model() -> None:
    def model(data: Any, kind: str, options: dict[str, Any], scale: float | None = None) -> None:
        spread = 1.0 if scale is None else scale
        with mx.plate("data", len(data["x"])):
            z = mx.sample("z", dist.Bernoulli(options["p"]))
            likelihood = dist.Normal if kind == "normal" else dist.Laplace
            mx.sample("x", likelihood(1.0 * z, spread), obs=data["x"])

    m, data = mx.marginalize(model), {"x": jnp.asarray(DATA)}
    values = {
        float(m.log_density({}, data, kind, {"p": p}, scale=scale))
        for kind in ("normal", "laplace")
        for p in (0.3, 0.6)
        for scale in (None, 2.0)
    }
    assert len(values) == 8


def test_equal_values_of_different_types_are_different_arguments() -> None:
    def model(flag: Any) -> None:
        mx.factor("f", {bool: 1.0, int: 2.0, float: 3.0, np.int64: 4.0}[type(flag)])

    m = mx.marginalize(model)
    assert [float(m.log_density({}, x)) for x in (1, True, 1.0, np.int64(1))] == [
        2.0,
        1.0,
        3.0,
        4.0,
    ]


def test_arguments_that_cannot_be_hashed_serve_too() -> None:
    class Settings:
        __hash__ = None  # type: ignore[assignment]
        p = 0.3

    def model(settings: Any) -> None:
        mx.sample("z", dist.Bernoulli(settings.p))

    np.testing.assert_allclose(mx.marginalize(model).posterior({}, Settings())["z"][1], 0.3)


@pytest.mark.parametrize(
    "groups", [np.array([2, 0, 2, 5]), jnp.array([2, 0, 2, 5])], ids=["np", "jnp"]
)
def test_data_whose_numbers_steer_the_model(groups: Any) -> None:
    def model(groups: Any) -> None:
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        with mx.plate("groups", len(names)):
            locs = mx.sample("locs", dist.Normal(0.0, 1.0))
        with mx.plate("data", len(groups)):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(locs[index] + z, 1.0), obs=jnp.zeros(len(groups)))

    m = mx.marginalize(model)
    assert m.posterior({"locs": np.zeros(3)}, groups)["z"].shape == (4, 2)


@pytest.mark.parametrize(
    "count", [3, np.int64(3), np.array(3), jnp.array(3)], ids=lambda c: type(c).__name__
)
def test_a_support_that_data_determine(count: Any) -> None:
    m = mx.marginalize(lambda count: mx.sample("z", dist.Binomial(count, 0.5)))
    np.testing.assert_allclose(m.posterior({}, count)["z"], np.array([1, 3, 3, 1]) / 8, rtol=1e-6)


def test_params_may_be_lists_and_numbers_of_any_type() -> None:
    m = mx.marginalize(gaussian_mixture)
    data = jnp.asarray(DATA)
    exact = m.log_density({"weights": [0.25, 0.25, 0.5], "locs": [0, 1, 2]}, data)
    typed = {"weights": np.array([0.25, 0.25, 0.5]), "locs": np.array([0, 1, 2], np.int16)}
    np.testing.assert_allclose(exact, m.log_density(typed, data), rtol=1e-6)


def test_a_model_that_prints_is_no_obstacle(capfd: pytest.CaptureFixture[str]) -> None:
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        jax.debug.print("z is {z}", z=z)
        mx.sample("x", dist.Normal(1.0 * z, 1.0), obs=0.5)

    np.testing.assert_allclose(mx.marginalize(model).posterior({})["z"], 0.5)
    jax.effects_barrier()
    assert "z is 1" in capfd.readouterr().out


# --- impossible data -----------------------------------------------------------------------------------


def never(x: Any) -> None:
    """Categories 0 and 1 never show a 2."""
    table = jnp.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]])
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("x", dist.Categorical(table[z]), obs=x)


def test_impossible_data_have_density_zero() -> None:
    m = mx.marginalize(never)
    assert m.log_density({}, np.array([0, 2])) == -np.inf
    assert np.isfinite(m.log_density({}, np.array([0, 1])))


@pytest.mark.parametrize("query", ["posterior", "mode", "draw"])
def test_impossible_data_have_no_posterior(query: str) -> None:
    m = mx.marginalize(never)
    ask = {"draw": lambda x: m.draw(0, {}, x)}.get(query, lambda x: getattr(m, query)({}, x))
    ask(np.array([0, 1]))
    with pytest.raises(mx.ModelError, match=r"site 'x'.*-inf.* 1 of 2 .*index 1.*depends on 'z'"):
        ask(np.array([0, 2]))


def test_impossible_together_though_not_alone() -> None:
    def model() -> None:
        a = mx.sample("a", dist.Bernoulli(0.5))
        mx.sample("x", dist.Categorical(jnp.eye(2)[a]), obs=0)
        mx.sample("y", dist.Categorical(jnp.eye(2)[a]), obs=1)

    with pytest.raises(mx.ModelError, match="no joint assignment of the discrete variables"):
        mx.marginalize(model).posterior({})
    assert np.isnan(jax.jit(mx.marginalize(model).posterior)({})["a"]).all()
