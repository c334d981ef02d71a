"""`Trace_ELBO` sums nothing out; what it shares with the others: guides with more than the model's sites."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from elbo_oracles import (
    DATA,
    KEY,
    assert_equal_with_gradient,
    assert_unbiased,
    emptyguide,
    loss,
    normal,
)

import marginax as mx
import marginax.distributions as dist
from marginax.infer.elbo import (
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)

ELBOS = [Trace_ELBO, TraceGraph_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO]


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def fixed(pp: Any) -> tuple[Any, Any]:
    """Point estimates, a factor in each, plates, scales and masks, for either library."""
    d = pp.distributions

    def model() -> None:
        mu = pp.sample("mu", d.Normal(0.0, 2.0))
        with pp.plate("n", 4), pp.handlers.scale(scale=2.5):
            v = pp.sample("v", d.Gamma(2.0, 1.0))
            with pp.handlers.mask(mask=np.array([True, False, True, True])):
                pp.sample("x", d.Normal(mu, v), obs=DATA)
        pp.factor("penalty", -(mu**2))

    def guide() -> None:
        mu = pp.sample("mu", d.Delta(pp.param("mu_loc", 0.3), log_density=pp.param("weight", 0.7)))
        with pp.plate("n", 4), pp.handlers.scale(scale=2.5):
            pp.sample("v", d.Delta(pp.param("v_loc", jnp.ones(4))))
        pp.factor("correction", 0.3 * mu)

    return model, guide


@pytest.mark.parametrize("elbo", ELBOS)
def test_without_noise_it_is_numpyros(elbo: Any):
    params = {"mu_loc": jnp.array(0.3), "weight": jnp.array(0.7), "v_loc": 0.5 + jnp.arange(4.0)}
    theirs: Any = numpyro.infer.Trace_ELBO()

    def numpyros(p: Any) -> Any:
        return -theirs.loss(KEY, p, *fixed(numpyro))

    assert_equal_with_gradient(*fixed(mx), numpyros, params, elbo=elbo)


@pytest.mark.parametrize("elbo", ELBOS)
def test_an_auxiliary_site_of_the_guide_adds_its_own_density(elbo: Any):
    """As in joint guides: one vector is drawn, the sites are functions of it with a Jacobian each."""
    tril = np.array([[0.8, 0.0], [0.3, 0.6]])

    def model() -> None:
        mx.sample("a", dist.LogNormal(0.2, 1.0))
        mx.sample("b", dist.Normal(0.0, 1.0))

    def guide() -> None:
        joint = dist.MultivariateNormal(mx.param("loc", jnp.zeros(2)), scale_tril=tril)
        u = mx.sample("_auto_latent", joint, infer={"is_auxiliary": True})
        mx.sample("a", dist.Delta(jnp.exp(u[0]), log_density=-u[0]))
        mx.sample("b", dist.Delta(u[1]))

    def by_hand(p: Any) -> Any:
        covariance, distance = tril @ tril.T, p["loc"] - jnp.array([0.2, 0.0])
        kl = (jnp.trace(covariance) + distance @ distance - 2) / 2 - jnp.log(0.8 * 0.6)
        return -kl

    assert_unbiased(model, guide, by_hand, {"loc": np.array([0.4, -0.3])}, elbo=elbo)


def test_an_auxiliary_discrete_site_is_summed_over():
    """A mixture as a guide: the bound is that of the guide's joint with the component."""
    weights, locs = np.array([0.3, 0.7]), np.array([-1.0, 1.5])

    def model() -> None:
        mx.sample("x", dist.Normal(0.0, 1.0))

    def guide() -> None:
        k = mx.sample("k", dist.Categorical(weights), infer={"is_auxiliary": True})
        mx.sample("x", dist.Normal(mx.param("locs", locs)[k], 0.5))

    def by_hand(p: Any) -> Any:
        kl = jnp.log(1 / 0.5) + (0.5**2 + p["locs"] ** 2) / 2 - 0.5
        return weights @ (-np.log(weights) - kl)

    assert_unbiased(model, guide, by_hand, {"locs": locs})


def test_a_site_that_only_the_guide_has_must_say_that_it_is_auxiliary():
    def guide() -> None:
        mx.sample("ghost", dist.Normal(0.0, 1.0))

    for elbo in ELBOS:
        with pytest.raises(mx.ModelError, match="'ghost'.*is_auxiliary"):
            loss(emptyguide, guide, {}, elbo=elbo)


def test_nothing_is_summed_out_also_where_it_could_be():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("x", dist.Normal(2.0 * z, 1.0), obs=0.8)

    def guide() -> None:
        mx.sample("z", dist.Bernoulli(logits=mx.param("logits", 0.0)))

    def by_hand(p: Any) -> Any:
        total = 0.0
        for z, log_q in enumerate(
            (jax.nn.log_sigmoid(-p["logits"]), jax.nn.log_sigmoid(p["logits"]))
        ):
            log_p = jnp.log(0.3 if z else 0.7) + normal(0.8, 2.0 * z, 1.0)
            total += jnp.exp(log_q) * (log_p - log_q)
        return total

    losses, _ = assert_unbiased(model, guide, by_hand, {"logits": 0.3}, elbo=Trace_ELBO)
    assert np.std(losses) > 0


def test_a_latent_site_that_the_guide_does_not_state_is_named():
    def discrete() -> None:
        mx.sample("z", dist.Bernoulli(0.3))

    def continuous() -> None:
        mx.sample("mu", dist.Normal(0.0, 1.0))

    with pytest.raises(mx.ModelError, match="'z'.*TraceEnum_ELBO"):
        loss(discrete, emptyguide, {}, elbo=Trace_ELBO)
    with pytest.raises(mx.ModelError, match="'mu'.*observe it"):
        loss(continuous, emptyguide, {}, elbo=Trace_ELBO)


@pytest.mark.parametrize("elbo", ELBOS)
def test_options_are_checked(elbo: Any):
    for count in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="num_particles"):
            elbo(num_particles=count)
    with pytest.raises(TypeError, match="vectorize_particles"):
        elbo(vectorize_particles="yes")
