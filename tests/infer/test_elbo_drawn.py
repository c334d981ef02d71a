"""Drawn discrete sites: the loss and its gradient are right on average, and as quiet as they should be."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_mean, assert_same
from elbo_oracles import (
    DATA,
    KEY,
    LOCS,
    assert_unbiased,
    loss,
    many_losses,
    normal,
    table,
)
from jax.scipy.special import gammaln, logsumexp

import marginax as mx
import marginax.distributions as dist
from marginax.infer import config_enumerate
from marginax.infer.elbo import Trace_ELBO, TraceEnum_ELBO

DRAWN = {"enumerate": None}
BITS = jnp.array(list(itertools.product((0, 1), repeat=4)))
"""Every value of four binary variables."""


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def log_bernoulli(logits: Any, value: Any) -> Any:
    return jax.nn.log_sigmoid(logits * (2 * value - 1))


def assert_two_particles(gradients: Any, costs: Any) -> None:
    """Gradients with respect to logits are those of two draws of one binary variable, and no more.

    With values z, w the estimate is the average of two score terms, each with the other's cost as its
    baseline.
    """
    possible = []
    for z, w in itertools.product((0, 1), repeat=2):
        possible.append(-(z - w) * (costs[z] - costs[w]) / 2)  # (z - p) - (w - p) = z - w
    distance = np.abs(np.asarray(gradients)[:, None] - np.array(possible)).min(1)
    assert distance.max() < 1e-8


def test_a_count_without_an_upper_bound():
    def model() -> None:
        z = mx.sample("z", dist.Poisson(2.0))
        mx.sample("x", dist.Normal(z, 1.5), obs=2.7)

    def guide() -> None:
        mx.sample("z", dist.Poisson(jnp.exp(mx.param("log_rate", 0.0))))

    def by_hand(p: Any) -> Any:
        z = jnp.arange(60.0)  # beyond, less than 1e-50 of the probability
        log_q = z * p["log_rate"] - jnp.exp(p["log_rate"]) - gammaln(z + 1)
        log_p = z * jnp.log(2.0) - 2.0 - gammaln(z + 1) + normal(2.7, z, 1.5)
        return jnp.sum(jnp.exp(log_q) * (log_p - log_q))

    assert_unbiased(model, guide, by_hand, {"log_rate": 0.4})


@pytest.mark.parametrize("how", ["site", "config_enumerate", "Trace_ELBO"])
def test_an_element_of_a_plate_has_its_own_costs_alone_and_the_other_particle_as_its_baseline(
    how: str,
):
    """Nothing of the other elements, or of what no drawn site touches, is in any gradient."""
    loud = 1000.0

    def model() -> None:
        mu = mx.sample("mu", dist.Normal(0.0, 1.0))
        mx.sample("y", dist.Normal(mu, 1 / loud), obs=5.0)
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=DATA)

    def guide() -> None:
        mx.sample("mu", dist.Normal(0.0, 1.0))
        logits = mx.param("logits", jnp.zeros(4))
        with mx.plate("n", 4):
            mx.sample("z", dist.Bernoulli(logits=logits), infer=DRAWN if how == "site" else None)

    configured = config_enumerate(guide, default=None) if how == "config_enumerate" else guide
    elbo = Trace_ELBO if how == "Trace_ELBO" else TraceEnum_ELBO
    logits = np.array([0.3, -0.2, 1.0, -0.7])
    _, gradients = many_losses(model, configured, {"logits": logits}, elbo=elbo)
    for n in range(4):
        costs = [
            np.log(0.3 if z else 0.7) + normal(DATA[n], 2.0 * z, 1.0) - log_bernoulli(logits[n], z)
            for z in (0, 1)
        ]
        assert_two_particles(gradients["logits"][:, n], costs)
        p = 1 / (1 + np.exp(-logits[n]))
        exact = p * (1 - p) * (costs[1] - costs[0])
        assert_mean(gradients["logits"][:, n], -exact)


def test_a_cost_beyond_a_variable_of_the_model_is_downstream_of_its_own_element_alone():
    p_w = table(2, 3)

    def model() -> None:
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Bernoulli(0.3))
            w = mx.sample("w", dist.Categorical(jnp.asarray(p_w)[z]))
            mx.sample("x", dist.Normal(jnp.asarray(LOCS)[w], 1.0), obs=DATA)

    def guide() -> None:
        logits = mx.param("logits", jnp.zeros(4))
        with mx.plate("n", 4):
            mx.sample("z", dist.Bernoulli(logits=logits), infer=DRAWN)

    logits = np.array([0.3, -0.2, 1.0, -0.7])
    _, gradients = many_losses(model, guide, {"logits": logits})
    for n in range(4):
        costs = [
            np.log(0.3 if z else 0.7)
            + logsumexp(np.log(p_w[z]) + normal(DATA[n], LOCS, 1.0))
            - log_bernoulli(logits[n], z)
            for z in (0, 1)
        ]
        assert_two_particles(gradients["logits"][:, n], costs)


def test_the_baseline_and_the_plate_make_it_quieter_than_the_plain_estimate():
    """The plain one multiplies every score by the whole bound; its variance is computed exactly."""

    def model() -> None:
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=DATA)

    def guide() -> None:
        logits = mx.param("logits", jnp.zeros(4))
        with mx.plate("n", 4):
            mx.sample("z", dist.Bernoulli(logits=logits), infer=DRAWN)

    logits = jnp.array([0.3, -0.2, 1.0, -0.7])

    def log_q(z: Any, logits: Any) -> Any:
        return jnp.sum(log_bernoulli(logits, z))

    def plain(z: Any) -> Any:
        prior = jnp.where(z == 1, jnp.log(0.3), jnp.log(0.7))
        bound = jnp.sum(prior + normal(jnp.asarray(DATA), 2.0 * z, 1.0)) - log_q(z, logits)
        return jax.grad(log_q, 1)(z, logits) * (bound - 1)  # -1 is the derivative of -log q

    chances = jnp.exp(jax.vmap(lambda z: log_q(z, logits))(BITS))
    each = jax.vmap(plain)(BITS)
    variance = chances @ each**2 - (chances @ each) ** 2
    _, gradients = many_losses(model, guide, {"logits": logits})
    # Two particles alone halve it.
    assert (np.var(gradients["logits"], axis=0) < variance / 2 / 2).all()


def test_where_the_guide_is_the_exact_posterior_there_is_no_noise():
    def model() -> None:
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=DATA)

    log_odds = np.log(0.3 / 0.7) + normal(DATA, 2.0, 1.0) - normal(DATA, 0.0, 1.0)
    losses, gradients = many_losses(model, four, {"logits": log_odds})
    evidence = jnp.logaddexp(np.log(0.7) + normal(DATA, 0, 1.0), np.log(0.3) + normal(DATA, 2, 1.0))
    assert_same(losses, np.full(len(losses), -np.sum(evidence)))
    assert_same(gradients["logits"], np.zeros((len(losses), 4)))


def test_sites_drawn_one_given_the_other_global_and_local():
    p_z = np.array([0.2, 0.7])

    def model() -> None:
        k = mx.sample("k", dist.Bernoulli(0.4))
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Bernoulli(jnp.asarray(p_z)[k]))
            mx.sample("x", dist.Normal(mx.param("height", 2.0) * z, 1.0), obs=DATA)

    def guide() -> None:
        k = mx.sample("k", dist.Bernoulli(logits=mx.param("q_k", 0.0)), infer=DRAWN)
        rows = mx.param("q_z", jnp.zeros((2, 4)))
        with mx.plate("n", 4):
            mx.sample("z", dist.Bernoulli(logits=rows[k]), infer=DRAWN)

    def by_hand(p: Any) -> Any:
        total = 0.0
        for k in (0, 1):
            local = 0.0
            for z in (0, 1):
                log_q = log_bernoulli(p["q_z"][k], z)
                log_p = jnp.log(p_z[k] if z else 1 - p_z[k]) + normal(DATA, p["height"] * z, 1.0)
                local += jnp.sum(jnp.exp(log_q) * (log_p - log_q))
            log_q_k = log_bernoulli(p["q_k"], k)
            total += jnp.exp(log_q_k) * (jnp.log(0.4 if k else 0.6) - log_q_k + local)
        return total

    # The likelihood depends on k through z alone, and strongly.
    q_z = np.outer([1.0, -1.0], np.sign(1.0 - DATA))
    params = {"q_k": 0.3, "q_z": q_z, "height": 1.7}
    assert_unbiased(model, guide, by_hand, params)


def joint_bound(log_p: Any) -> Any:
    """The bound of four independent binary variables, over all their values together."""

    def by_hand(p: Any) -> Any:
        def term(z: Any) -> Any:
            log_q = jnp.sum(log_bernoulli(p["logits"], z))
            return jnp.exp(log_q) * (log_p(z) - log_q)

        return jnp.sum(jax.vmap(term)(BITS))

    return by_hand


def four(scale: float = 1.0) -> None:
    logits = mx.param("logits", jnp.zeros(4))
    with mx.handlers.scale(scale=scale), mx.plate("n", 4):
        mx.sample("z", dist.Bernoulli(logits=logits), infer=DRAWN)


LOGITS = {"logits": np.array([0.3, -0.2, 1.0, -0.7])}


def test_a_cost_that_meets_all_elements_of_a_plate_is_downstream_of_each():
    def model() -> None:
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("x", dist.Normal(jnp.sum(z), 1.0), obs=2.5)

    def log_p(z: Any) -> Any:
        return jnp.sum(jnp.where(z == 1, jnp.log(0.3), jnp.log(0.7))) + normal(2.5, z.sum(), 1.0)

    assert_unbiased(model, four, joint_bound(log_p), LOGITS)


def test_a_global_variable_of_the_model_above_drawn_ones_is_summed_out_given_their_values():
    """As variables they would be coupled by it, and no order would be exact; as numbers they are not."""
    p_z = np.array([0.2, 0.7])

    def model() -> None:
        g = mx.sample("g", dist.Bernoulli(0.4))
        with mx.plate("n", 4):
            mx.sample("z", dist.Bernoulli(jnp.asarray(p_z)[g]))

    def log_p(z: Any) -> Any:
        given = [jnp.sum(jnp.where(z == 1, jnp.log(p), jnp.log(1 - p))) for p in p_z]
        return jnp.logaddexp(jnp.log(0.6) + given[0], jnp.log(0.4) + given[1])

    assert_unbiased(model, four, joint_bound(log_p), LOGITS)


def test_a_summed_global_site_of_the_guide_beside_local_drawn_ones():
    def model() -> None:
        g = mx.sample("g", dist.Bernoulli(0.4))
        with mx.plate("n", 4):
            mx.sample("z", dist.Bernoulli(0.2 + 0.5 * g))

    def guide() -> None:
        mx.sample("g", dist.Bernoulli(logits=mx.param("q_g", 0.0)))
        four()

    def by_hand(p: Any) -> Any:
        total = 0.0
        for g in (0, 1):
            chance, log_q_g = 0.2 + 0.5 * g, log_bernoulli(p["q_g"], g)
            local = 0.0
            for z in (0, 1):
                log_q = log_bernoulli(p["logits"], z)
                log_p = jnp.log(chance if z else 1 - chance)
                local += jnp.sum(jnp.exp(log_q) * (log_p - log_q))
            total += jnp.exp(log_q_g) * (jnp.log(0.4 if g else 0.6) - log_q_g + local)
        return total

    assert_unbiased(model, guide, by_hand, {"q_g": 0.3, **LOGITS})


def test_a_drawn_site_above_a_series_of_the_model():
    def model() -> None:
        k = mx.sample("k", dist.Bernoulli(0.4))
        stays = jnp.where(k == 1, 0.9, 0.6)

        def step(z: Any, x: Any) -> Any:
            z = mx.sample("z", dist.Bernoulli(jnp.where(z == 1, stays, 1 - stays)))
            mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=x)
            return z, None

        mx.scan(step, 0, jnp.asarray(DATA))

    def guide() -> None:
        mx.sample("k", dist.Bernoulli(logits=mx.param("logits", 0.0)), infer=DRAWN)

    costs = []
    for k, stays in enumerate((0.6, 0.9)):
        joint = []
        for states in np.asarray(BITS):
            moves = states == np.array([0, *states[:-1]])
            path = np.sum(np.log(np.where(moves, stays, 1 - stays)))
            joint.append(path + np.sum(normal(DATA, 2.0 * states, 1.0)))
        costs.append(np.log(0.4 if k else 0.6) + logsumexp(np.array(joint)) - log_bernoulli(0.3, k))
    _, gradients = many_losses(model, guide, {"logits": 0.3})
    assert_two_particles(gradients["logits"], costs)
    assert_mean(
        gradients["logits"], -(costs[1] - costs[0]) * np.exp(-0.3) / (1 + np.exp(-0.3)) ** 2
    )


def test_scaled_costs_are_weighed_and_probabilities_are_not():
    def model() -> None:
        with mx.handlers.scale(scale=3.0), mx.plate("n", 4):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=DATA)

    def by_hand(p: Any) -> Any:
        total = 0.0
        for z in (0, 1):
            log_q = log_bernoulli(p["logits"], z)
            cost = jnp.log(0.3 if z else 0.7) + normal(DATA, 2.0 * z, 1.0) - log_q
            total += 3.0 * jnp.sum(jnp.exp(log_q) * cost)
        return total

    assert_unbiased(model, lambda: four(3.0), by_hand, LOGITS)


def test_a_subsample_stands_for_all_of_its_plate():
    def model() -> None:
        with mx.plate("n", 4, subsample_size=2):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=mx.subsample(DATA, event_dim=0))

    def guide() -> None:
        with mx.plate("n", 4, subsample_size=2):
            logits = mx.param("logits", jnp.zeros(4), event_dim=0)
            mx.sample("z", dist.Bernoulli(logits=logits), infer=DRAWN)

    def by_hand(p: Any) -> Any:
        total = 0.0
        for z in (0, 1):
            log_q = log_bernoulli(p["logits"], z)
            cost = jnp.log(0.3 if z else 0.7) + normal(DATA, 2.0 * z, 1.0) - log_q
            total += jnp.sum(jnp.exp(log_q) * cost)
        return total

    assert_unbiased(model, guide, by_hand, LOGITS)


def test_masked_elements_have_no_score():
    kept = np.array([True, False, True, False])

    def model() -> None:
        with mx.plate("n", 4), mx.handlers.mask(mask=kept):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=DATA)

    _, gradients = many_losses(model, mx.handlers.mask(four, mask=kept), LOGITS)
    assert (gradients["logits"][:, ~kept] == 0).all()
    assert (np.std(gradients["logits"], axis=0)[kept] > 0).all()


def test_nested_plates_with_a_drawn_site_in_the_outer_one():
    data = np.random.default_rng(5).normal(size=(3, 4))

    def model() -> None:
        with mx.plate("n", 4, dim=-1):
            z = mx.sample("z", dist.Bernoulli(0.3))
            with mx.plate("inner", 3, dim=-2):
                w = mx.sample("w", dist.Bernoulli(0.2 + 0.5 * z))
                mx.sample("x", dist.Normal(w, 1.0), obs=data)

    _, gradients = many_losses(model, four, LOGITS)
    for n in range(4):
        costs = []
        for z in (0, 1):
            p_w = 0.2 + 0.5 * z
            each = np.logaddexp(
                np.log(1 - p_w) + normal(data[:, n], 0.0, 1.0),
                np.log(p_w) + normal(data[:, n], 1.0, 1.0),
            )
            prior = np.log(0.3 if z else 0.7) - log_bernoulli(LOGITS["logits"][n], z)
            costs.append(prior + each.sum())
        assert_two_particles(gradients["logits"][:, n], costs)


def test_a_site_that_is_summed_over_given_a_drawn_one():
    """Costs of the summed one are downstream of the drawn one through its probabilities alone."""
    p_z = table(3)

    def model() -> None:
        mx.sample("k", dist.Bernoulli(0.4))
        z = mx.sample("z", dist.Categorical(p_z))
        mx.sample("x", dist.Normal(jnp.asarray(LOCS)[z], 1.0), obs=0.4)

    def guide() -> None:
        k = mx.sample("k", dist.Bernoulli(logits=mx.param("q_k", 0.0)), infer=DRAWN)
        mx.sample("z", dist.Categorical(logits=mx.param("q_z", jnp.zeros((2, 3)))[k]))

    def by_hand(p: Any) -> Any:
        total = 0.0
        for k in (0, 1):
            log_q, log_q_k = jax.nn.log_softmax(p["q_z"][k]), log_bernoulli(p["q_k"], k)
            inner = jnp.exp(log_q) @ (jnp.log(p_z) + normal(0.4, LOCS, 1.0) - log_q)
            total += jnp.exp(log_q_k) * (jnp.log(0.4 if k else 0.6) - log_q_k + inner)
        return total

    params = {"q_k": 0.3, "q_z": np.random.default_rng(0).normal(size=(2, 3))}
    assert_unbiased(model, guide, by_hand, params)


@pytest.mark.parametrize("first", ["continuous", "discrete"])
def test_continuous_sites_above_and_below_a_drawn_one(first: str):
    def model() -> None:
        mu = mx.sample("mu", dist.Normal(0.0, 1.0))
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("x", dist.Normal(mu + z, 1.0), obs=0.8)

    def guide() -> None:
        loc, slope = mx.param("loc", 0.0), mx.param("slope", 0.0)
        if first == "continuous":
            mu = mx.sample("mu", dist.Normal(loc, 0.5))
            mx.sample("z", dist.Bernoulli(logits=slope * mu), infer=DRAWN)
        else:
            z = mx.sample("z", dist.Bernoulli(logits=slope), infer=DRAWN)
            mx.sample("mu", dist.Normal(loc * z, 0.5))

    nodes, weights = np.polynomial.hermite_e.hermegauss(40)

    def by_hand(p: Any) -> Any:
        total = 0.0
        for z in (0, 1):
            loc = p["loc"] * (1 if first == "continuous" else z)
            mu = loc + 0.5 * nodes
            log_q_z = log_bernoulli(p["slope"] * (mu if first == "continuous" else 1.0), z)
            cost = normal(mu, 0.0, 1.0) + jnp.log(0.3 if z else 0.7) + normal(0.8, mu + z, 1.0)
            cost = jnp.exp(log_q_z) * (cost - log_q_z - normal(mu, loc, 0.5))
            total += jnp.sum(cost * weights / weights.sum())
        return total

    assert_unbiased(model, guide, by_hand, {"loc": 0.6, "slope": 0.8})


def test_particles_one_by_one_are_the_same_and_one_particle_means_two():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("x", dist.Normal(z, 1.5), obs=2.7)

    def guide() -> None:
        mx.sample("z", dist.Bernoulli(logits=mx.param("logits", 0.0)), infer=DRAWN)

    def gradient(*args: Any) -> Any:
        elbo = TraceEnum_ELBO(*args)
        slope = jax.value_and_grad(lambda q: elbo.loss(KEY, {"logits": q}, model, guide))
        return jax.jit(slope)(0.2)

    expected = gradient(2)
    for args in [(1,), (2, None, False)]:
        for found, wanted in zip(gradient(*args), expected, strict=True):
            assert_same(found, wanted)


def test_an_impossible_draw_makes_the_loss_infinite_and_no_gradient_nan():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.factor("forbidden", jnp.where(z == 1, -jnp.inf, 0.0))

    def guide() -> None:
        mx.sample("z", dist.Bernoulli(logits=mx.param("logits", 0.0)), infer=DRAWN)

    losses, gradients = many_losses(model, guide, {"logits": 0.1})
    finite = np.isfinite(losses)
    assert 0 < finite.mean() < 1
    assert (np.asarray(losses)[~finite] == np.inf).all()
    assert np.isfinite(gradients["logits"]).all()


def test_a_site_that_is_drawn_given_one_that_is_summed_is_refused():
    def both(infer: Any = None) -> None:
        a = mx.sample("a", dist.Bernoulli(0.5))
        mu = mx.sample("mu", dist.Normal(a, 1.0))
        mx.sample("z", dist.Bernoulli(logits=mu), infer=infer)

    with pytest.raises(mx.ModelError, match="'z'.*given 'a'.*sequential"):
        loss(both, lambda: both(DRAWN), {})


def test_a_scale_that_depends_on_a_drawn_site_is_refused():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        with mx.handlers.scale(scale=1.0 + z):
            mx.sample("x", dist.Normal(0.0, 1.0), obs=0.4)

    with pytest.raises(mx.ModelError, match="'x'.*scale depends on.*'z'.*draws"):
        loss(model, lambda: mx.sample("z", dist.Bernoulli(0.5), infer=DRAWN), {})


def test_a_site_that_is_drawn_in_a_scan_of_the_guide_is_refused():
    def both(infer: Any = None) -> None:
        def step(z: Any, _: Any) -> Any:
            z = mx.sample("z", dist.Bernoulli(0.2 + 0.6 * z), infer=infer)
            return z, None

        mx.scan(step, 0, None, length=3)

    for elbo in (TraceEnum_ELBO, Trace_ELBO):
        with pytest.raises(mx.ModelError, match="'z'.*scan of the guide"):
            loss(both, lambda: both(DRAWN), {}, elbo=elbo)
