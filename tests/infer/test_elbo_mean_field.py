"""Analytic divergences: exact where there is a formula, the sampled difference where there is none."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from closeness import assert_same
from elbo_oracles import (
    DATA,
    KEY,
    LOCS,
    assert_equal_with_gradient,
    assert_unbiased,
    emptyguide,
    loss,
    many_losses,
    normal,
    table,
)
from jax.scipy.special import logsumexp
from scipy import stats
from scipy.integrate import quad

import marginax as mx
import marginax.distributions as dist
from marginax.infer.autoguide import AutoDelta
from marginax.infer.elbo import TraceEnum_ELBO, TraceMeanField_ELBO

MEAN_FIELD = TraceMeanField_ELBO


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def normal_kl(loc: Any, width: Any, prior_loc: Any = 0.0, prior_width: Any = 1.0) -> Any:
    """Of one normal distribution from another."""
    ratio, distance = width / prior_width, (loc - prior_loc) / prior_width
    return 0.5 * (ratio**2 + distance**2 - 1) - jnp.log(ratio)


def both(q: Any, p: Any) -> tuple[Any, Any]:
    """A model and a guide of one site."""
    return lambda: mx.sample("x", p()), lambda: mx.sample("x", q())


def test_two_normal_distributions_have_no_noise_at_all():
    model, guide = both(
        lambda: dist.Normal(mx.param("loc", 0.0), mx.param("width", 1.0)),
        lambda: dist.Normal(0.5, 2.0),
    )
    params = {"loc": 0.3, "width": 0.7}
    assert_equal_with_gradient(
        model, guide, lambda p: -normal_kl(p["loc"], p["width"], 0.5, 2.0), params, elbo=MEAN_FIELD
    )


def integral(q: Any, p: Any, upper: float) -> float:
    """A divergence of two of SciPy's distributions."""

    def term(x: float) -> float:
        return q.pdf(x) * (q.logpdf(x) - p.logpdf(x))

    return quad(term, 0.0, upper, epsabs=1e-11)[0]


TRIL = np.array([[0.8, 0.0], [0.3, 0.6]])
MEAN = np.array([0.4, -0.2])
Q, P = table(3), table(3, seed=2)
PAIRS = {
    "Beta": (
        lambda: dist.Beta(2.0, 3.0),
        lambda: dist.Beta(1.5, 1.2),
        lambda: integral(stats.beta(2.0, 3.0), stats.beta(1.5, 1.2), 1.0),
    ),
    "Gamma": (
        lambda: dist.Gamma(2.0, 3.0),
        lambda: dist.Gamma(1.5, 1.2),
        lambda: integral(stats.gamma(2.0, scale=1 / 3.0), stats.gamma(1.5, scale=1 / 1.2), np.inf),
    ),
    "Dirichlet": (
        lambda: dist.Dirichlet(jnp.array([2.0, 3.0])),
        lambda: dist.Dirichlet(jnp.array([1.5, 1.2])),
        lambda: integral(stats.beta(2.0, 3.0), stats.beta(1.5, 1.2), 1.0),
    ),
    "MultivariateNormal": (
        lambda: dist.MultivariateNormal(MEAN, scale_tril=TRIL),
        lambda: dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)),
        lambda: (np.trace(TRIL @ TRIL.T) + MEAN @ MEAN - 2) / 2 - np.log(0.8 * 0.6),
    ),
    "event of expanded": (
        lambda: dist.Normal(LOCS, 0.5).to_event(1),
        lambda: dist.Normal(0.0, 1.0).expand([3]).to_event(1),
        lambda: normal_kl(LOCS, 0.5).sum(),
    ),
    "drawn": (
        lambda: dist.Categorical(Q),
        lambda: dist.Categorical(P),
        lambda: Q @ np.log(Q / P),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_divergence_is_the_expectation_of_the_difference(pair: str):
    q, p, divergence = PAIRS[pair]
    infer = {"enumerate": None} if pair == "drawn" else None
    model, guide = lambda: mx.sample("x", p()), lambda: mx.sample("x", q(), infer=infer)
    assert_same(loss(model, guide, {}, elbo=MEAN_FIELD), divergence())


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (lambda: dist.Normal(0.3, 0.5), lambda: dist.Cauchy(0.0, 1.0)),
        (
            lambda: dist.MultivariateNormal(LOCS, 0.25 * jnp.eye(3)),
            lambda: dist.Normal(0.0, 1.0).expand([3]).to_event(1),
        ),
        (lambda: dist.Kumaraswamy(2.0, 3.0), lambda: dist.Beta(1.0, 2.0)),
    ],
    ids=["no formula", "other events", "the beginning of a series"],
)
def test_without_a_formula_the_difference_is_sampled(q: Any, p: Any):
    model, guide = both(q, p)
    assert_same(loss(model, guide, {}, elbo=MEAN_FIELD), loss(model, guide, {}))


def nested(pp: Any) -> tuple[Any, Any]:
    """Plates, a subsample, scales and masks, for either library."""
    d = pp.distributions
    data = np.random.default_rng(5).normal(size=(3, 4))

    def model() -> None:
        mu = pp.sample("mu", d.Normal(0.5, 2.0))
        with pp.plate("outer", 4, dim=-1), pp.handlers.scale(scale=1.5):
            pp.sample("v", d.Normal(0.0, 1.0).mask(np.array([True, False, True, True])))
            tau = pp.sample("tau", d.Gamma(2.0, 2.0))
            with pp.plate("inner", 6, subsample_size=3, dim=-2):
                x = pp.sample("x", d.Normal(0.0, 1.0))
                pp.sample("y", d.Normal(x * tau + mu, 1.0), obs=data)

    def guide() -> None:
        loc = pp.param("loc", jnp.zeros(4))
        pp.sample("mu", d.Normal(loc[0], 0.5))
        with pp.plate("outer", 4, dim=-1), pp.handlers.scale(scale=1.5):
            pp.sample("v", d.Normal(loc, 0.8).mask(np.array([True, False, True, True])))
            pp.sample("tau", d.Gamma(jnp.exp(loc), 1.0))
            with pp.plate("inner", 6, subsample_size=3, dim=-2):
                pp.sample("x", d.Normal(loc, 0.3))

    return model, guide


def test_it_is_numpyros_in_plates_subsamples_scales_and_masks():
    """The likelihood depends on what is drawn, by other keys than NumPyro's: masked out, all is exact."""
    params = {"loc": jnp.array([0.3, -0.2, 0.5, 0.1])}
    theirs = [numpyro.handlers.block(fn, hide=["y"]) for fn in nested(numpyro)]
    ours = [mx.handlers.block(fn, hide=["y"]) for fn in nested(mx)]
    elbo: Any = numpyro.infer.TraceMeanField_ELBO()
    expected, slopes = jax.jit(jax.value_and_grad(lambda p: elbo.loss(KEY, p, *theirs)))(params)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda p: TraceMeanField_ELBO().loss(KEY, p, *ours))
    )(params)
    assert_same(value, expected)
    assert_same(gradient["loc"], slopes["loc"])


def test_where_only_one_of_the_two_is_masked_the_other_is_sampled():
    kept = np.array([True, False, True, True])

    def model() -> None:
        with mx.plate("n", 4):
            mx.sample("x", dist.Normal(0.0, 1.0))

    def guide() -> None:
        with mx.plate("n", 4), mx.handlers.mask(mask=kept):
            mx.sample("x", dist.Normal(mx.param("loc", 0.0), 0.5))

    def by_hand(p: Any) -> Any:
        return -3 * normal_kl(p["loc"], 0.5) + normal(0.0, p["loc"], 1.0) - 0.5**2 / 2

    assert_unbiased(model, guide, by_hand, {"loc": 0.4}, elbo=MEAN_FIELD)


def test_a_scale_in_the_model_alone_leaves_the_sampled_difference():
    model, guide = both(lambda: dist.Normal(0.3, 0.5), lambda: dist.Normal(0.0, 1.0))
    model = mx.handlers.scale(model, scale=2.0)
    assert_same(loss(model, guide, {}, elbo=MEAN_FIELD), loss(model, guide, {}))


def test_sites_of_a_mixture_have_their_divergence_and_its_assignments_are_summed_out():
    def model() -> None:
        with mx.plate("k", 3):
            locs = mx.sample("locs", dist.Normal(0.0, 3.0))
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(table(3)))
            mx.sample("x", dist.Normal(locs[z], 1.0), obs=DATA)

    def guide() -> None:
        with mx.plate("k", 3):
            mx.sample("locs", dist.Normal(mx.param("loc", jnp.zeros(3)), 0.1))

    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    grid = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    mass = np.einsum("i,j,k->ijk", weights, weights, weights).ravel() / weights.sum() ** 3

    def by_hand(p: Any) -> Any:
        def likelihood(noise: Any) -> Any:
            locs = p["loc"] + 0.1 * noise
            joint = jnp.log(table(3)) + normal(DATA[:, None], locs, 1.0)
            return jnp.sum(logsumexp(joint, 1))

        kl = jnp.sum(normal_kl(p["loc"], 0.1, 0.0, 3.0))
        return mass @ jax.vmap(likelihood)(jnp.asarray(grid)) - kl

    params = {"loc": LOCS}
    losses, _ = assert_unbiased(model, guide, by_hand, params, elbo=MEAN_FIELD)
    noisier, _ = many_losses(model, guide, params)
    assert np.std(losses) < np.std(noisier)


def test_a_prior_that_depends_on_a_summed_out_variable_is_sampled():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("x", dist.Normal(2.0 * z, 1.0))

    def guide() -> None:
        mx.sample("x", dist.Normal(0.3, 0.5))

    assert_same(loss(model, guide, {}, elbo=MEAN_FIELD), loss(model, guide, {}))


def test_a_point_estimate_has_the_log_joint():
    def model(x: Any) -> None:
        mu = mx.sample("mu", dist.Normal(0.0, 2.0))
        with mx.plate("n", 4):
            mx.sample("x", dist.Normal(mu, 1.5), obs=x)

    def by_hand(p: Any) -> Any:
        mu = p["mu_auto_loc"]
        return normal(mu, 0.0, 2.0) + jnp.sum(normal(DATA, mu, 1.5))

    guide = AutoDelta(model)
    assert_equal_with_gradient(model, guide, by_hand, {"mu_auto_loc": 0.4}, DATA, elbo=MEAN_FIELD)


def test_a_parent_in_the_model_that_the_guide_draws_given_its_child_is_refused():
    def model() -> None:
        a = mx.sample("a", dist.Normal(0.0, 1.0))
        mx.sample("b", dist.Normal(a, 1.0))

    def guide() -> None:
        b = mx.sample("b", dist.Normal(0.3, 0.5))
        c = 2.0 * b
        mx.sample("a", dist.Normal(c, 1.0))

    with pytest.raises(mx.ModelError, match="'b'.*depends on 'a'.*Draw 'a' first"):
        loss(model, guide, {}, elbo=MEAN_FIELD)
    loss(model, guide, {})  # with a sampled difference it is right


def test_an_order_of_independent_sites_does_not_matter():
    def model() -> None:
        a = mx.sample("a", dist.Normal(0.0, 1.0))
        mx.sample("b", dist.Normal(a, 1.0))

    def guide() -> None:
        mx.sample("b", dist.Normal(mx.param("b_loc", 0.0), 0.5))
        mx.sample("a", dist.Normal(mx.param("a_loc", 0.0), 0.8))

    def by_hand(p: Any) -> Any:
        kl = normal_kl(p["a_loc"], 0.8) + normal_kl(p["b_loc"], 0.5, p["a_loc"]) + 0.8**2 / 2
        return -kl

    assert_unbiased(model, guide, by_hand, {"a_loc": 0.2, "b_loc": -0.4}, elbo=MEAN_FIELD)


def test_without_continuous_sites_it_is_the_other_one():
    def model() -> None:
        z = mx.sample("z", dist.Categorical(table(3)))
        mx.sample("x", dist.Normal(jnp.asarray(LOCS)[z], 1.0), obs=0.4)

    for guide in (emptyguide, lambda: mx.sample("z", dist.Categorical(table(3, seed=2)))):
        assert_same(
            loss(model, guide, {}, elbo=MEAN_FIELD), loss(model, guide, {}, elbo=TraceEnum_ELBO)
        )
