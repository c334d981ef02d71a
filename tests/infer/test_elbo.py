"""The ELBO is the number that one gets by writing the sums out by hand, and so is its gradient."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from closeness import assert_mean, assert_same
from elbo_oracles import (
    DATA,
    KEY,
    LOCS,
    PARTICLES,
    assert_equal_with_gradient,
    emptyguide,
    loss,
    many_losses,
    normal,
    table,
)
from jax.scipy.special import logsumexp, xlogy

import marginax as mx
import marginax.distributions as dist
from marginax.infer import TraceEnum_ELBO
from marginax.infer.autoguide import AutoDelta


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


# -- discrete sites of the model only


def test_a_site_of_the_model_alone_is_summed_out_without_jensens_inequality():
    def model() -> None:
        locs = mx.param("locs", LOCS)
        weights = mx.param("weights", table(3))
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(weights))
            mx.sample("x", dist.Normal(locs[z], 1.3), obs=DATA)

    def by_hand(p: Any) -> Any:
        return sum(logsumexp(jnp.log(p["weights"]) + normal(x, p["locs"], 1.3)) for x in DATA)

    params = {"locs": LOCS, "weights": table(3)}
    assert_equal_with_gradient(model, emptyguide, by_hand, params)


def test_with_point_estimates_the_loss_is_minus_the_log_joint():
    def model(x: Any) -> None:
        scale = mx.sample("scale", dist.LogNormal(0.3, 0.8))
        locs = mx.sample("locs", dist.Normal(0.0, 10.0).expand([3]).to_event(1))
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(table(3)))
            mx.sample("x", dist.Normal(locs[z], scale), obs=x)

    def by_hand(p: Any) -> Any:
        scale, locs = p["scale_auto_loc"], p["locs_auto_loc"]
        prior = normal(jnp.log(scale), 0.3, 0.8) - jnp.log(scale) + normal(locs, 0.0, 10.0).sum()
        return prior + sum(logsumexp(jnp.log(table(3)) + normal(x, locs, scale)) for x in DATA)

    params = {"scale_auto_loc": 0.7, "locs_auto_loc": LOCS}
    assert_equal_with_gradient(model, AutoDelta(model), by_hand, params, DATA)


def test_the_loss_is_the_marginals_log_density():
    def model(x: Any) -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 1.0))
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(loc + z, 1.0), obs=x)

    value = loss(model, AutoDelta(model), {"loc_auto_loc": 0.4}, DATA)
    assert_same(value, -mx.marginalize(model).log_density({"loc": 0.4}, DATA))


# -- discrete sites of the guide


def test_a_site_of_the_guide_is_an_expectation_under_the_guide():
    def model() -> None:
        z = mx.sample("z", dist.Categorical(table(3)))
        mx.sample("x", dist.Normal(mx.param("locs", LOCS)[z], 1.0), obs=0.4)

    def guide() -> None:
        mx.sample("z", dist.Categorical(logits=mx.param("logits", jnp.zeros(3))))

    def by_hand(p: Any) -> Any:
        log_q = jax.nn.log_softmax(p["logits"])
        cost = jnp.log(table(3)) + normal(0.4, p["locs"], 1.0) - log_q
        return jnp.sum(jnp.exp(log_q) * cost)

    params = {"logits": np.array([0.1, -0.4, 0.9]), "locs": LOCS}
    assert_equal_with_gradient(model, guide, by_hand, params)


def test_two_dependent_sites_of_the_guide_and_one_of_the_model_between_them_and_the_data():
    p_a, p_b, p_c = table(2), table(2, 3), table(2, 3, 2, seed=3)

    def model() -> None:
        a = mx.sample("a", dist.Categorical(p_a))
        b = mx.sample("b", dist.Categorical(jnp.asarray(p_b)[a]))
        c = mx.sample("c", dist.Categorical(jnp.asarray(p_c)[a, b]))
        mx.sample("x", dist.Normal(mx.param("locs", jnp.zeros((3, 2)))[b, c], 1.0), obs=0.4)

    def guide() -> None:
        b = mx.sample("b", dist.Categorical(logits=mx.param("q_b", jnp.zeros(3))))
        mx.sample("a", dist.Categorical(logits=mx.param("q_a", jnp.zeros((3, 2)))[b]))

    def by_hand(p: Any) -> Any:
        log_q_b = jax.nn.log_softmax(p["q_b"])
        log_q_a = jax.nn.log_softmax(p["q_a"])
        total = 0.0
        for a, b in itertools.product(range(2), range(3)):
            left = logsumexp(jnp.log(p_c[a, b]) + normal(0.4, p["locs"][b], 1.0))
            cost = jnp.log(p_a[a]) + jnp.log(p_b[a, b]) + left - log_q_b[b] - log_q_a[b, a]
            total += jnp.exp(log_q_b[b] + log_q_a[b, a]) * cost
        return total

    rng = np.random.default_rng(0)
    params = {"q_b": rng.normal(size=3), "q_a": rng.normal(size=(3, 2))}
    params["locs"] = rng.normal(size=(3, 2))
    assert_equal_with_gradient(model, guide, by_hand, params)


def test_a_global_site_of_the_guide_feeds_local_ones_of_the_model():
    p_g, p_z = table(2), table(2, 3)

    def model() -> None:
        g = mx.sample("g", dist.Categorical(p_g))
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(jnp.asarray(p_z)[g]))
            mx.sample("x", dist.Normal(mx.param("locs", LOCS)[z], 1.0), obs=DATA)

    def guide() -> None:
        mx.sample("g", dist.Categorical(logits=mx.param("logits", jnp.zeros(2))))

    def by_hand(p: Any) -> Any:
        log_q = jax.nn.log_softmax(p["logits"])
        total = 0.0
        for g in range(2):
            points = sum(logsumexp(jnp.log(p_z[g]) + normal(x, p["locs"], 1.0)) for x in DATA)
            total += jnp.exp(log_q[g]) * (jnp.log(p_g[g]) - log_q[g] + points)
        return total

    params = {"logits": np.array([0.1, -0.4]), "locs": LOCS}
    assert_equal_with_gradient(model, guide, by_hand, params)


def test_a_global_and_a_local_site_of_the_guide_that_depends_on_it():
    p_g, p_z = table(2), table(2, 3)

    def model() -> None:
        g = mx.sample("g", dist.Categorical(p_g))
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(jnp.asarray(p_z)[g]))
            mx.sample("x", dist.Normal(mx.param("locs", LOCS)[z], 1.0), obs=DATA)

    def guide() -> None:
        g = mx.sample("g", dist.Categorical(logits=mx.param("q_g", jnp.zeros(2))))
        rows = mx.param("q_z", jnp.zeros((4, 2, 3)))
        with mx.plate("n", 4) as n:
            mx.sample("z", dist.Categorical(logits=rows[n, g]))

    def by_hand(p: Any) -> Any:
        log_q_g, log_q_z = jax.nn.log_softmax(p["q_g"]), jax.nn.log_softmax(p["q_z"])
        total = 0.0
        for g in range(2):
            points = sum(
                jnp.sum(
                    jnp.exp(log_q_z[n, g])
                    * (jnp.log(p_z[g]) + normal(DATA[n], p["locs"], 1.0) - log_q_z[n, g])
                )
                for n in range(4)
            )
            total += jnp.exp(log_q_g[g]) * (jnp.log(p_g[g]) - log_q_g[g] + points)
        return total

    rng = np.random.default_rng(0)
    params = {"q_g": rng.normal(size=2), "q_z": rng.normal(size=(4, 2, 3)), "locs": LOCS}
    assert_equal_with_gradient(model, guide, by_hand, params)


def test_a_site_of_the_guide_in_an_outer_plate_and_one_of_the_model_in_the_inner_one():
    p_a, p_b = table(2), table(2, 3)
    data = np.random.default_rng(5).normal(size=(4, 3))

    def model() -> None:
        with mx.plate("outer", 3, dim=-1):
            a = mx.sample("a", dist.Categorical(p_a))
            with mx.plate("inner", 4, dim=-2):
                b = mx.sample("b", dist.Categorical(jnp.asarray(p_b)[a]))
                mx.sample("x", dist.Normal(mx.param("locs", LOCS)[b], 1.0), obs=data)

    def guide() -> None:
        logits = mx.param("logits", jnp.zeros((3, 2)))
        with mx.plate("outer", 3, dim=-1):
            mx.sample("a", dist.Categorical(logits=logits))

    def by_hand(p: Any) -> Any:
        log_q = jax.nn.log_softmax(p["logits"])
        total = 0.0
        for i, a in itertools.product(range(3), range(2)):
            inside = sum(
                logsumexp(jnp.log(p_b[a]) + normal(data[j, i], p["locs"], 1.0)) for j in range(4)
            )
            total += jnp.exp(log_q[i, a]) * (jnp.log(p_a[a]) - log_q[i, a] + inside)
        return total

    params = {"logits": np.random.default_rng(0).normal(size=(3, 2)), "locs": LOCS}
    assert_equal_with_gradient(model, guide, by_hand, params)


def test_sites_of_the_guide_in_nested_plates():
    p_a, p_b = table(2), table(2, 3)
    data = np.random.default_rng(5).normal(size=(4, 3))

    def model() -> None:
        with mx.plate("outer", 3, dim=-1):
            a = mx.sample("a", dist.Categorical(p_a))
            with mx.plate("inner", 4, dim=-2):
                b = mx.sample("b", dist.Categorical(jnp.asarray(p_b)[a]))
                mx.sample("x", dist.Normal(mx.param("locs", LOCS)[b], 1.0), obs=data)

    def guide() -> None:
        q_a, q_b = mx.param("q_a", jnp.zeros((3, 2))), mx.param("q_b", jnp.zeros((2, 3)))
        with mx.plate("outer", 3, dim=-1):
            a = mx.sample("a", dist.Categorical(logits=q_a))
            with mx.plate("inner", 4, dim=-2):
                mx.sample("b", dist.Categorical(logits=q_b[a]))

    def by_hand(p: Any) -> Any:
        log_q_a, log_q_b = jax.nn.log_softmax(p["q_a"]), jax.nn.log_softmax(p["q_b"])
        total = 0.0
        for i, a in itertools.product(range(3), range(2)):
            inside = sum(
                jnp.sum(
                    jnp.exp(log_q_b[a])
                    * (jnp.log(p_b[a]) + normal(data[j, i], p["locs"], 1.0) - log_q_b[a])
                )
                for j in range(4)
            )
            total += jnp.exp(log_q_a[i, a]) * (jnp.log(p_a[a]) - log_q_a[i, a] + inside)
        return total

    rng = np.random.default_rng(0)
    params = {"q_a": rng.normal(size=(3, 2)), "q_b": rng.normal(size=(2, 3)), "locs": LOCS}
    assert_equal_with_gradient(model, guide, by_hand, params)


def test_a_guide_equal_to_the_exact_posterior_attains_the_log_evidence():
    prior = table(3)

    def model(x: Any) -> None:
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(prior))
            mx.sample("x", dist.Normal(jnp.asarray(LOCS)[z], 1.0), obs=x)

    marginal = mx.marginalize(model)
    posterior = marginal.posterior({}, DATA)["z"]

    def guide(x: Any) -> None:
        with mx.plate("n", 4):
            mx.sample("z", dist.Categorical(posterior))

    assert_same(loss(model, guide, {}, DATA), -marginal.log_density({}, DATA))


# -- what is impossible


def test_values_to_which_the_guide_gives_no_probability_cost_nothing():
    q = np.array([0.25, 0.75, 0.0])
    locs = np.array([-1.0, 0.5, 2.0])

    def model() -> None:
        z = mx.sample("z", dist.Categorical(np.array([0.5, 0.5, 0.0])))
        mx.factor("forbidden", jnp.where(z == 2, -jnp.inf, 0.0))
        mx.sample("x", dist.Normal(jnp.asarray(locs)[z], 1.0), obs=0.4)

    def guide() -> None:
        mx.sample("z", dist.Categorical(mx.param("q", jnp.asarray(q))))

    expected = sum(q[k] * (np.log(0.5) + normal(0.4, locs[k], 1.0) - np.log(q[k])) for k in (0, 1))
    assert_same(loss(model, guide, {"q": jnp.asarray(q)}), -expected)
    # Probabilities can only move against each other.
    gradient = jax.grad(lambda q: loss(model, guide, {"q": q}))(jnp.asarray(q))
    by_hand = -(normal(0.4, locs[:2], 1.0) - np.log(q[:2]))
    assert_same(gradient[0] - gradient[1], by_hand[0] - by_hand[1])


def test_a_guide_that_allows_what_the_model_forbids_has_an_infinite_loss():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.factor("forbidden", jnp.where(z == 1, -jnp.inf, 0.0))

    def guide() -> None:
        mx.sample("z", dist.Bernoulli(0.1))

    assert loss(model, guide, {}) == np.inf


def test_gradients_of_the_model_are_finite_where_some_values_are_impossible():
    def model() -> None:
        locs = mx.param("locs", LOCS)
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(table(3)))
            mx.factor("forbidden", jnp.where(z == 2, -jnp.inf, 0.0))
            mx.sample("x", dist.Normal(locs[z], 1.0), obs=DATA)

    def by_hand(p: Any) -> Any:
        log_prior = jnp.log(table(3)[:2])
        return sum(logsumexp(log_prior + normal(x, p["locs"][:2], 1.0)) for x in DATA)

    assert_equal_with_gradient(model, emptyguide, by_hand, {"locs": LOCS})


# -- subsampled plates, scales and masks


def subsampled(params_of_the_guide: bool) -> tuple[Any, Any]:
    def model() -> None:
        locs = mx.param("locs", LOCS)
        with mx.plate("n", 4, subsample_size=2):
            z = mx.sample("z", dist.Categorical(table(3)))
            x = mx.subsample(DATA, event_dim=0)
            mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)

    def guide() -> None:
        with mx.plate("n", 4, subsample_size=2):
            logits = mx.param("logits", jnp.zeros((4, 3)), event_dim=1)
            if params_of_the_guide:
                mx.sample("z", dist.Categorical(logits=logits))

    return model, guide


@pytest.mark.parametrize("in_guide", [False, True])
def test_a_subsample_is_scaled_after_its_discrete_sites_are_summed_out(in_guide: bool):
    model, guide = subsampled(in_guide)
    rng = np.random.default_rng(0)
    params = {"locs": jnp.asarray(LOCS), "logits": jnp.asarray(rng.normal(size=(4, 3)))}

    def point(p: Any, n: int) -> Any:
        joint = jnp.log(table(3)) + normal(jnp.asarray(DATA)[n], p["locs"], 1.0)
        if not in_guide:
            return logsumexp(joint)
        log_q = jax.nn.log_softmax(p["logits"][n])
        return jnp.sum(jnp.exp(log_q) * (joint - log_q))

    def ours(p: Any, chosen: Any) -> Any:
        here = [mx.handlers.substitute(fn, data={"n": chosen}) for fn in (model, guide)]
        return loss(*here, p)

    def by_hand(p: Any, chosen: Any) -> Any:
        return -4 / 2 * jnp.sum(jax.vmap(lambda n: point(p, n))(chosen))

    subsets = jnp.array(list(itertools.combinations(range(4), 2)))
    ours_and_gradient = jax.jit(jax.value_and_grad(ours))
    expected_and_gradient = jax.jit(jax.value_and_grad(by_hand))
    for chosen in subsets:
        value, gradient = ours_and_gradient(params, chosen)
        expected, expected_gradient = expected_and_gradient(params, chosen)
        assert_same(value, expected)
        for name in params:
            assert_same(gradient[name], expected_gradient[name])
    # Unbiased: the average over all subsamples is the loss of all the data.
    average = jnp.mean(jax.vmap(lambda chosen: ours(params, chosen))(subsets))
    assert_same(average, 2 / 4 * by_hand(params, jnp.arange(4)))


def test_an_inner_plate_is_subsampled_below_a_site_of_the_guide_and_around_one_of_the_model():
    p_a, p_b = table(2), table(2, 3)
    data = np.random.default_rng(5).normal(size=(4, 3))

    def model() -> None:
        with mx.plate("outer", 3, dim=-1):
            a = mx.sample("a", dist.Categorical(p_a))
            with mx.plate("inner", 4, subsample_size=2, dim=-2) as rows:
                b = mx.sample("b", dist.Categorical(jnp.asarray(p_b)[a]))
                seen = jnp.asarray(data)[rows]
                mx.sample("x", dist.Normal(mx.param("locs", LOCS)[b], 1.0), obs=seen)
                mx.sample("y", dist.Normal(1.0 * a, 1.0), obs=seen)

    def guide() -> None:
        logits = mx.param("logits", jnp.zeros((3, 2)))
        with mx.plate("outer", 3, dim=-1):
            mx.sample("a", dist.Categorical(logits=logits))

    chosen = [3, 1]
    subsampled_model = mx.handlers.substitute(model, data={"inner": jnp.array(chosen)})

    def by_hand(p: Any) -> Any:
        log_q = jax.nn.log_softmax(p["logits"])
        total = 0.0
        for i, a in itertools.product(range(3), range(2)):
            inside = sum(
                logsumexp(jnp.log(p_b[a]) + normal(data[j, i], p["locs"], 1.0))
                + normal(data[j, i], a, 1.0)
                for j in chosen
            )
            total += jnp.exp(log_q[i, a]) * (jnp.log(p_a[a]) - log_q[i, a] + 4 / 2 * inside)
        return total

    params = {"logits": np.random.default_rng(0).normal(size=(3, 2)), "locs": LOCS}
    assert_equal_with_gradient(subsampled_model, guide, by_hand, params)


def test_guide_and_model_see_the_same_subsample():
    model, guide = subsampled(True)
    params = {"locs": jnp.asarray(LOCS), "logits": jnp.log(table(4, 3, seed=9))}

    def point(n: int) -> Any:
        joint = jnp.log(table(3)) + normal(DATA[n], LOCS, 1.0)
        return jnp.sum(jnp.exp(params["logits"][n]) * (joint - params["logits"][n]))

    possible = [-2 * (point(i) + point(j)) for i, j in itertools.combinations(range(4), 2)]
    compiled = jax.jit(lambda key: loss(model, guide, params, key=key))
    drawn = [compiled(jax.random.key(seed)) for seed in range(40)]
    distance = np.abs(np.asarray(drawn)[:, None] - np.asarray(possible))
    assert (distance.min(axis=1) < 1e-8).all()
    # Each of the six subsamples comes up in 40 tries (a miss has probability 6 * (5/6)**40 = 0.004).
    assert set(distance.argmin(axis=1)) == set(range(6))


def test_a_scale_multiplies_after_elimination_in_model_and_guide():
    def model() -> None:
        with mx.handlers.scale(scale=3.0), mx.plate("n", 4):
            a = mx.sample("a", dist.Categorical(table(2)))
            z = mx.sample("z", dist.Categorical(jnp.asarray(table(2, 3))[a]))
            mx.sample("x", dist.Normal(mx.param("locs", LOCS)[z], 1.0), obs=DATA)

    def guide() -> None:
        logits = mx.param("logits", jnp.zeros((4, 2)))
        with mx.handlers.scale(scale=3.0), mx.plate("n", 4):
            mx.sample("a", dist.Categorical(logits=logits))

    def by_hand(p: Any) -> Any:
        log_q = jax.nn.log_softmax(p["logits"])
        total = 0.0
        for n, a in itertools.product(range(4), range(2)):
            left = logsumexp(jnp.log(table(2, 3)[a]) + normal(DATA[n], p["locs"], 1.0))
            cost = jnp.log(table(2)[a]) + left - log_q[n, a]
            total += 3.0 * jnp.exp(log_q[n, a]) * cost
        return total

    params = {"logits": np.random.default_rng(0).normal(size=(4, 2)), "locs": LOCS}
    assert_equal_with_gradient(model, guide, by_hand, params)


def test_a_scale_that_varies_along_a_plate():
    scales = np.array([0.5, 1.0, 2.0, 3.0])

    def model() -> None:
        with mx.handlers.scale(scale=scales), mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(table(3)))
            mx.sample("x", dist.Normal(mx.param("locs", LOCS)[z], 1.0), obs=DATA)

    def by_hand(p: Any) -> Any:
        points = [logsumexp(jnp.log(table(3)) + normal(x, p["locs"], 1.0)) for x in DATA]
        return sum(s * point for s, point in zip(scales, points, strict=True))

    assert_equal_with_gradient(model, emptyguide, by_hand, {"locs": LOCS})


def test_annealing_a_part_of_the_model_as_a_traced_scale():
    def model() -> None:
        z = mx.sample("z", dist.Categorical(table(3)))
        with mx.handlers.scale(scale=mx.param("heat", 1.0)):
            mx.sample("x", dist.Normal(jnp.asarray(LOCS)[z], 1.0), obs=0.4)

    def guide() -> None:
        mx.sample("z", dist.Categorical(table(3, seed=4)))

    def by_hand(p: Any) -> Any:
        q = table(3, seed=4)
        cost = jnp.log(table(3)) + p["heat"] * normal(0.4, LOCS, 1.0) - jnp.log(q)
        return jnp.sum(q * cost)

    assert_equal_with_gradient(model, guide, by_hand, {"heat": 0.3})


@pytest.mark.parametrize("in_guide", [False, True])
def test_masked_elements_add_exactly_nothing(in_guide: bool):
    kept = np.array([True, False, True, False])

    def model() -> None:
        locs = mx.param("locs", LOCS)
        with mx.plate("n", 4), mx.handlers.mask(mask=kept):
            z = mx.sample("z", dist.Categorical(table(3)))
            mx.sample("x", dist.Normal(locs[z], 1.0), obs=DATA)

    def guide() -> None:
        logits = mx.param("logits", jnp.zeros((4, 3)))
        with mx.plate("n", 4), mx.handlers.mask(mask=kept):
            if in_guide:
                mx.sample("z", dist.Categorical(logits=logits))

    def by_hand(p: Any) -> Any:
        total = 0.0
        for n in np.flatnonzero(kept):
            joint = jnp.log(table(3)) + normal(DATA[n], p["locs"], 1.0)
            log_q = jax.nn.log_softmax(p["logits"][n])
            expected = jnp.sum(jnp.exp(log_q) * (joint - log_q))
            total += expected if in_guide else logsumexp(joint)
        return total

    params = {"locs": LOCS, "logits": np.random.default_rng(0).normal(size=(4, 3))}
    assert_equal_with_gradient(model, guide, by_hand, params)


# -- continuous sites of the guide


def gaussian(pp: Any) -> tuple[Any, Any]:
    """A conjugate pair for either library."""

    def model(x: Any) -> None:
        mu = pp.sample("mu", pp.distributions.Normal(0.5, 2.0))
        with pp.plate("n", len(x)):
            pp.sample("x", pp.distributions.Normal(mu, 1.5), obs=x)

    def guide(x: Any) -> None:
        loc, width = pp.param("loc", 0.0), pp.param("width", 1.0)
        pp.sample("mu", pp.distributions.Normal(loc, width))

    return model, guide


def test_a_gaussian_guide_has_the_closed_form_in_expectation():
    model, guide = gaussian(mx)
    params = {"loc": 0.2, "width": 0.8}

    def closed_form(p: Any) -> Any:
        loc, width = p["loc"], p["width"]
        likelihood = jnp.sum(normal(DATA, loc, 1.5)) - len(DATA) * width**2 / (2 * 1.5**2)
        kl = jnp.log(2.0 / width) + (width**2 + (loc - 0.5) ** 2) / (2 * 2.0**2) - 0.5
        return kl - likelihood

    expected, expected_gradient = jax.value_and_grad(closed_form)(params)
    losses, gradients = many_losses(model, guide, params, DATA)
    assert_mean(losses, expected)
    for name in params:
        assert_mean(gradients[name], expected_gradient[name])


def test_a_model_without_discrete_sites_has_numpyros_elbo():
    params = {"loc": 0.2, "width": 0.8}
    (ours, our_guide), (theirs, their_guide) = gaussian(mx), gaussian(numpyro)
    losses, _ = many_losses(ours, our_guide, params, DATA)
    keys = jax.random.split(jax.random.key(1), PARTICLES)
    elbo: Any = numpyro.infer.Trace_ELBO()
    numpyros = jax.vmap(lambda key: elbo.loss(key, params, theirs, their_guide, DATA))(keys)
    error = np.hypot(np.std(losses), np.std(numpyros)) / np.sqrt(PARTICLES)
    assert abs(np.mean(losses) - np.mean(numpyros)) < 5 * error


def test_a_continuous_site_of_the_guide_above_discrete_ones_of_guide_and_model():
    prior = table(2)

    def model() -> None:
        mu = mx.sample("mu", dist.Normal(0.0, 1.0))
        a = mx.sample("a", dist.Categorical(prior))
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(jnp.asarray(table(2, 3))[a]))
            mx.sample("x", dist.Normal(jnp.asarray(LOCS)[z] + mu, 1.0), obs=DATA)

    def guide() -> None:
        mu = mx.sample("mu", dist.Normal(mx.param("loc", 0.0), 0.5))
        mx.sample("a", dist.Bernoulli(logits=mu))

    def given(mu: Any, loc: Any) -> Any:
        """The bound for one value of mu."""
        total = normal(mu, 0.0, 1.0) - normal(mu, loc, 0.5)
        for a, log_q in enumerate((jax.nn.log_sigmoid(-mu), jax.nn.log_sigmoid(mu))):
            log_z = jnp.log(table(2, 3)[a])
            points = sum(logsumexp(log_z + normal(x, LOCS + mu, 1.0)) for x in DATA)
            total += jnp.exp(log_q) * (jnp.log(prior[a]) - log_q + points)
        return total

    nodes, weights = np.polynomial.hermite_e.hermegauss(40)

    def closed_form(loc: Any) -> Any:
        values = jax.vmap(lambda x: given(loc + 0.5 * x, loc))(jnp.asarray(nodes))
        return -jnp.sum(values * weights / weights.sum())

    expected, slope = jax.value_and_grad(closed_form)(0.3)
    losses, gradients = many_losses(model, guide, {"loc": 0.3})
    assert_mean(losses, expected)
    assert_mean(gradients["loc"], slope)


def test_several_particles_are_averaged():
    model, guide = gaussian(mx)
    params = {"loc": 0.2, "width": 0.8}
    average = jax.jit(lambda key: loss(model, guide, params, DATA, key=key, particles=64))
    many = [average(jax.random.key(seed)) for seed in range(16)]
    single, _ = many_losses(model, guide, params, DATA)
    spread = float(np.std(single)) / np.sqrt(64)
    assert np.mean(many) == pytest.approx(np.mean(single), abs=5 * spread / np.sqrt(16))
    # The spread of a standard deviation of 16 values is about 1/sqrt(32) of it.
    assert np.std(many, ddof=1) == pytest.approx(spread, rel=5 / np.sqrt(32))


def test_the_loss_can_be_compiled_and_differentiated_in_the_data():
    def model(x: Any) -> None:
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=x)

    def by_hand(x: Any) -> Any:
        both = jnp.stack([jnp.log(0.7) + normal(x, 0.0, 1.0), jnp.log(0.3) + normal(x, 2.0, 1.0)])
        return -jnp.sum(logsumexp(both, axis=0))

    ours = jax.jit(jax.value_and_grad(lambda x: loss(model, emptyguide, {}, x)))(DATA)
    expected = jax.value_and_grad(by_hand)(DATA)
    assert_same(ours[0], expected[0])
    assert_same(ours[1], expected[1])


def test_single_precision_is_enough():
    with jax.enable_x64(False):
        model, guide = subsampled(True)
        logits = np.log(table(4, 3, seed=9)).astype(np.float32)
        params = {"locs": jnp.asarray(LOCS, jnp.float32), "logits": jnp.asarray(logits)}
        everything = {"n": jnp.arange(4)}
        here = [mx.handlers.substitute(fn, data=everything) for fn in (model, guide)]
        value = loss(*here, params)
    assert value.dtype == jnp.float32
    q = table(4, 3, seed=9)
    joint = np.log(table(3)) + np.asarray(normal(DATA[:, None], LOCS, 1.0))
    assert_same(value, -np.sum(q * joint - xlogy(q, q)))


# -- a guide that does not fit its model


def refusal(model: Any, guide: Any, *args: Any) -> str:
    with pytest.raises(mx.ModelError) as caught:
        loss(model, guide, {}, *args)
    return str(caught.value)


def test_a_site_that_only_the_guide_has_is_refused():
    def guide() -> None:
        mx.sample("ghost", dist.Normal(0.0, 1.0))

    assert "'ghost'" in refusal(lambda: mx.factor("f", 0.0), guide)


def test_a_site_that_the_model_observes_is_refused_in_the_guide():
    def model() -> None:
        mx.sample("x", dist.Normal(0.0, 1.0), obs=0.5)

    def guide() -> None:
        mx.sample("x", dist.Normal(0.0, 1.0))

    message = refusal(model, guide)
    assert "'x'" in message
    assert "observed" in message


def test_a_continuous_site_that_the_guide_forgets_is_named():
    def model() -> None:
        mx.sample("mu", dist.Normal(0.0, 1.0))

    assert "'mu'" in refusal(model, emptyguide)


def test_a_discrete_site_without_finite_support_is_named():
    def model() -> None:
        mx.sample("count", dist.Poisson(3.0))

    assert "'count'" in refusal(model, emptyguide)


def test_a_discrete_site_of_the_guide_that_is_neither_enumerated_nor_asked_to_be_drawn_is_named():
    def model(n: Any) -> None:
        mx.sample("count", dist.Binomial(n, 0.5))

    with pytest.raises(mx.ModelError, match="'count'.*infer={'enumerate': None}"):
        jax.jit(lambda n: TraceEnum_ELBO().loss(KEY, {}, model, model, n))(3)


def test_a_site_that_opts_out_of_enumeration_is_named():
    def model() -> None:
        mx.sample("z", dist.Bernoulli(0.5), infer={"enumerate": None})

    assert "'z'" in refusal(model, emptyguide)


def test_different_shapes_in_guide_and_model_are_refused():
    def model() -> None:
        with mx.plate("n", 3):
            mx.sample("z", dist.Bernoulli(0.5))

    def guide() -> None:
        with mx.plate("n", 4):
            mx.sample("z", dist.Bernoulli(0.5))

    message = refusal(model, guide)
    assert "'z'" in message
    assert "(4,)" in message


def test_different_plates_around_the_same_discrete_site_are_refused():
    def model() -> None:
        with mx.plate("n", 3):
            mx.sample("z", dist.Bernoulli(0.5))

    def guide() -> None:
        with mx.plate("m", 3):
            mx.sample("z", dist.Bernoulli(0.5))

    message = refusal(model, guide)
    assert "'z'" in message
    assert "'m'" in message
    assert "'n'" in message


def test_a_guide_with_more_categories_than_the_model_is_refused():
    def model() -> None:
        mx.sample("z", dist.Categorical(table(2)))

    def guide() -> None:
        mx.sample("z", dist.Categorical(table(3)))

    message = refusal(model, guide)
    assert "'z'" in message
    assert "2" in message


def test_a_guide_with_fewer_categories_is_a_guide_that_rules_the_others_out():
    prior, q = table(3), table(2)

    def model() -> None:
        mx.sample("z", dist.Categorical(prior))

    def guide() -> None:
        mx.sample("z", dist.Categorical(q))

    assert_same(loss(model, guide, {}), -np.sum(q * (np.log(prior[:2]) - np.log(q))))


def test_a_continuous_distribution_for_a_discrete_site_is_refused():
    def model() -> None:
        mx.sample("z", dist.Bernoulli(0.5))

    def guide() -> None:
        mx.sample("z", dist.Normal(0.0, 1.0))

    assert "'z'" in refusal(model, guide)
    assert "'z'" in refusal(guide, model)


def test_a_guide_may_hold_a_discrete_site_at_one_value():
    def model() -> None:
        z = mx.sample("z", dist.Categorical(table(3)))
        mx.sample("x", dist.Normal(jnp.asarray(LOCS)[z], 1.0), obs=0.4)

    def guide() -> None:
        mx.sample("z", dist.Delta(jnp.array(2)))

    assert_same(loss(model, guide, {}), -(np.log(table(3)[2]) + normal(0.4, LOCS[2], 1.0)))


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_the_number_of_particles_is_a_positive_integer(count: Any):
    with pytest.raises(ValueError, match="num_particles"):
        TraceEnum_ELBO(num_particles=count)
