"""AutoGuideList: parts with sites of their own, as one guide."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_mean, assert_same
from guide_runs import abstract_run
from numpyro.distributions import constraints

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, Predictive, TraceEnum_ELBO
from marginax.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoMultivariateNormal,
    AutoNormal,
)

KEY = jax.random.key(0)
DRAWS = 4000
DATA = np.array([-2.0, 0.0, 1.0, 6.0])
block = mx.handlers.block


def model(x: Any, subsample_size: int | None = None) -> None:
    mu = mx.sample("mu", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(x), subsample_size=subsample_size):
        effect = mx.sample("effect", dist.Normal(mu, 2.0))
        noise = mx.sample("noise", dist.Normal(0.0, 1.0))
        flip = mx.sample("flip", dist.Bernoulli(0.5))
        y = mx.subsample(x, event_dim=0)
        mx.sample("x", dist.Normal(effect + noise + 0.0 * flip, 1.0), obs=y)


def listed(*parts: Any) -> AutoGuideList:
    guide = AutoGuideList(model)
    for part in parts:
        guide.append(part)
    return guide


def three_parts() -> AutoGuideList:
    return listed(
        AutoDelta(block(model, expose=["mu"])),
        AutoNormal(block(model, expose=["effect", "data"])),
        AutoNormal(block(model, expose=["noise", "data"]), prefix="other"),
    )


PARAMS = {
    "mu_auto_loc": jnp.asarray(1.0),
    "effect_auto_loc": jnp.asarray(0.8 * DATA),
    "effect_auto_scale": jnp.array([0.4, 0.5, 0.6, 0.7]),
    "noise_other_loc": jnp.array([0.1, -0.2, 0.3, 0.0]),
    "noise_other_scale": jnp.array([0.9, 0.8, 0.7, 0.6]),
}


def expected_normal(distance: Any, variance: Any, scale: float) -> Any:
    """Expected log density of a normal whose distance from its mean has that mean and variance."""
    return jnp.sum(
        -0.5 * jnp.log(2 * jnp.pi * scale**2) - (distance**2 + variance) / (2 * scale**2)
    )


def closed_form(p: Any) -> Any:
    mu, effect, s = p["mu_auto_loc"], p["effect_auto_loc"], p["effect_auto_scale"]
    noise, t = p["noise_other_loc"], p["noise_other_scale"]
    log_p = (
        expected_normal(mu, 0.0, 10.0)
        + expected_normal(effect - mu, s**2, 2.0)
        + expected_normal(noise, t**2, 1.0)
        + expected_normal(DATA - effect - noise, s**2 + t**2, 1.0)
    )
    return -(log_p + sum(jnp.sum(0.5 * jnp.log(2 * jnp.pi * jnp.e * v**2)) for v in (s, t)))


def test_the_bound_of_subsamples_is_that_of_all_parts_together():
    guide, elbo = three_parts(), TraceEnum_ELBO()

    def one(key: Any) -> Any:
        def loss(p: Any) -> Any:
            return elbo.loss(key, p, model, guide, DATA, 2)

        return jax.value_and_grad(loss)(PARAMS)

    losses, gradients = jax.jit(jax.vmap(one))(jax.random.split(KEY, DRAWS))
    expected, slopes = jax.value_and_grad(closed_form)(PARAMS)
    assert_mean(losses, expected)
    for name in PARAMS:
        assert_mean(gradients[name], slopes[name])


def test_medians_quantiles_draws_and_posteriors_are_those_of_the_parts():
    guide = three_parts()
    abstract_run(guide, DATA, 2)
    assert len(guide) == 3
    assert [type(part) for part in guide] == [AutoDelta, AutoNormal, AutoNormal]
    assert guide[0] is next(iter(guide))
    median = guide.median(PARAMS)
    assert list(median) == ["mu", "effect", "noise"]
    assert_same(median["effect"], 0.8 * DATA)
    assert guide.quantiles(PARAMS, [0.1, 0.9])["noise"].shape == (2, 4)
    draws = guide.sample_posterior(KEY, PARAMS, sample_shape=(DRAWS,))
    assert_same(draws["mu"], np.ones(DRAWS))
    # Parts with the same shape have different keys.
    product = (draws["effect"] - 0.8 * DATA) * (draws["noise"] - PARAMS["noise_other_loc"])
    assert_mean(product, np.zeros(4))
    delta, effect, noise = guide.get_posterior(PARAMS)
    assert list(delta) + list(effect) + list(noise) == list(median)
    assert_same(guide.median(PARAMS, DATA)["mu"], 1.0)


def test_parts_take_the_same_elements_of_a_plate():
    guide = three_parts()
    values = {n: 10.0 * jnp.arange(4.0) for n in PARAMS if n.endswith("_loc")} | {
        n: jnp.full(4, 1e-6) for n in PARAMS if n.endswith("_scale")
    }
    fixed = mx.handlers.substitute(guide, data=values | {"mu_auto_loc": jnp.asarray(0.0)})
    trace = mx.handlers.trace(mx.handlers.seed(fixed, rng_seed=0)).get_trace(DATA, 2)
    chosen = trace["data"]["value"]
    for name in ("effect", "noise"):
        (frame,) = trace[name]["cond_indep_stack"]
        assert (frame.size, frame.full_size) == (2, 4)
        np.testing.assert_allclose(trace[name]["value"], 10.0 * chosen, atol=1e-4)


def by_hand(x: Any, subsample_size: int | None = None) -> None:
    loc = mx.param("by_hand", 0.5)
    scale = mx.param("width", 0.3, constraint=constraints.positive)
    mx.sample("mu", dist.Normal(loc, scale))


def test_a_part_may_be_a_function_and_the_fit_has_all_parameters():
    rest = AutoMultivariateNormal(block(model, hide=["mu"]))
    guide = listed(by_hand, rest)
    svi = SVI(model, guide, optax.adam(0.05), TraceEnum_ELBO())
    result = svi.run(KEY, 3, DATA, progress_bar=False, num_restarts=2)
    assert result.params.keys() == {"by_hand", "width", "auto_loc", "auto_scale_tril"}
    assert np.isfinite(result.losses).all()
    predict = Predictive(guide, params=result.params, num_samples=3)
    assert predict(KEY, DATA)["mu"].shape == (3,)
    with pytest.raises(TypeError, match=r"part 0 \(by_hand\).*by hand"):
        guide.median(result.params)
    assert rest.median(result.params)["noise"].shape == (4,)


def test_a_site_stated_by_two_parts_is_an_error():
    guide = listed(AutoDelta(block(model, expose=["mu"])), by_hand)
    with pytest.raises(
        mx.ModelError, match=r"'mu'.*part 0 \(AutoDelta\).*part 1 \(by_hand\).*block"
    ):
        abstract_run(guide, DATA)


def test_two_joint_parts_need_two_prefixes():
    parts = [AutoDiagonalNormal(block(model, expose=[name])) for name in ("mu", "noise")]
    with pytest.raises(mx.ModelError, match="'_auto_latent'.*another prefix="):
        abstract_run(listed(*parts), DATA)
    parts[1] = AutoDiagonalNormal(block(model, expose=["noise"]), prefix="second")
    assert "_second_latent" in abstract_run(listed(*parts), DATA)


def test_a_site_that_no_part_states_is_an_error():
    guide = listed(AutoDelta(block(model, expose=["mu"])))
    svi = SVI(model, guide, optax.adam(0.05), TraceEnum_ELBO())
    with pytest.raises(mx.ModelError, match="'effect'.*guide does not state it"):
        svi.run(KEY, 1, DATA, progress_bar=False)


@pytest.mark.parametrize("part", [3.0, AutoDelta])
def test_a_part_is_a_guide_or_a_function(part: Any):
    with pytest.raises(TypeError, match="a part is an automatic guide or a function"):
        AutoGuideList(model).append(part)
