"""What a model computes from its data alone is a number wherever it needs one; the oracle has it closed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS, SVI, Predictive, TraceEnum_ELBO, infer_discrete
from marginax.infer.autoguide import AutoNormal

Y = np.array([0, 1, 2, 1, 0, 3])
BETA = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(4), 4))

SIZES: dict[str, Callable[[Any], Any]] = {
    "int of a NumPy function": lambda y: int(np.max(y)) + 1,
    "int of a method": lambda y: int(y.max()) + 1,
    "unique": lambda y: len(jnp.unique(y)),
    "if": lambda y: 4 if y.max() > 2 else 2,
    "boolean index": lambda y: len(y[y > 0]),
    "a traced number as a size": lambda y: jnp.max(y) + 1,
}


def model_with(size: Callable[[Any], Any]) -> Callable[[Any], None]:
    def model(y: Any) -> None:
        k = size(y)
        with mx.plate("class", k):
            beta = mx.sample("beta", dist.Dirichlet(jnp.ones(4)))
        with mx.plate("items", len(y)):
            c = mx.sample("c", dist.Categorical(jnp.ones(int(k)) / k))
            mx.sample("y", dist.Categorical(beta[c]), obs=y)

    return model


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_a_size_may_be_computed_from_the_data(kind: str, array: Callable[[Any], Any]):
    closed_over = mx.marginalize(lambda: model_with(lambda _: 4)(Y))
    right = float(closed_over.log_density({"beta": BETA}))
    m = mx.marginalize(model_with(SIZES[kind]))
    np.testing.assert_allclose(m.log_density({"beta": BETA}, array(Y)), right, rtol=1e-5)
    assert m.explain(array(Y), show=False).plan.order == ("c",)


def test_svi_nuts_guides_and_predictive_know_the_data():
    model, y = model_with(SIZES["int of a method"]), jnp.asarray(Y)
    guide = AutoNormal(model)
    svi = SVI(model, guide, optax.adam(0.1), TraceEnum_ELBO())
    params = svi.run(jax.random.key(0), 2, y, progress_bar=False).params
    assert Predictive(model, guide=guide, params=params, num_samples=2)(jax.random.key(0), y)[
        "c"
    ].shape == (2, 6)
    mcmc = MCMC(NUTS(model), num_warmup=4, num_samples=4, progress_bar=False)
    mcmc.run(jax.random.key(0), y)
    draws = mcmc.get_samples()
    assert draws["beta"].shape == (4, 4, 4)
    drawn = Predictive(model, draws, infer_discrete=True)(jax.random.key(1), y)
    assert drawn["c"].shape == (4, 6)
    best = infer_discrete(mx.handlers.substitute(model, data={"beta": BETA}), temperature=0)
    mode = mx.marginalize(model).mode({"beta": BETA}, y)["c"]
    np.testing.assert_array_equal(mx.handlers.trace(best).get_trace(y)["c"]["value"], mode)


def test_a_number_computed_from_data_in_the_body_of_a_scan():
    def model(y: Any) -> None:
        def step(z: Any, now: Any) -> Any:
            z = mx.sample("z", dist.Bernoulli(0.2 + 0.1 * (int(y.max()) - 1) * z))
            mx.sample("y", dist.Normal(z, 1.0), obs=now)
            return z, None

        mx.scan(step, 0, y)

    closed_over = mx.marginalize(lambda: model(Y)).log_density({})
    np.testing.assert_allclose(mx.marginalize(model).log_density({}, Y), closed_over, rtol=1e-5)


def test_the_number_behind_a_latent_value_is_refused_as_ever():
    def model(y: Any) -> None:
        k = int(y.max()) + 1
        z = mx.sample("z", dist.Categorical(jnp.ones(k) / k))
        if z > 1:
            mx.sample("y", dist.Normal(0.0, 1.0).expand(y.shape).to_event(1), obs=y)

    with pytest.raises(mx.ModelError, match="site 'z': the model uses its value where Python"):
        mx.marginalize(model).log_density({}, Y)


def test_what_comes_through_jit_or_in_batches_is_not_known_and_the_error_says_so():
    model = model_with(SIZES["int of a method"])
    m = mx.marginalize(model)
    with pytest.raises(mx.ModelError, match="its argument 'y' where Python needs numbers.*batches"):
        jax.jit(lambda y: m.log_density({"beta": BETA}, y))(Y)
    svi = SVI(model, AutoNormal(model), optax.adam(0.1), TraceEnum_ELBO())
    with pytest.raises(mx.ModelError, match="its argument 'y' where Python needs numbers"):
        svi.run(jax.random.key(0), 2, batches=[(Y,), (Y,)], progress_bar=False)


def test_an_improper_site_is_no_number_while_data_are_known():
    def model(y: Any) -> None:
        mu = mx.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
        with mx.plate("items", int(y.max()) + 3):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("y", dist.Normal(mu + z, 1.0), obs=y)

    def branches(y: Any) -> None:
        mu = mx.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
        mx.sample(
            "y", dist.Normal(mu if mu > int(y.max()) else 0.0, 1.0).expand([6]).to_event(1), obs=y
        )

    closed_over = mx.marginalize(lambda: model(Y)).log_density({"mu": 0.3})
    np.testing.assert_allclose(
        mx.marginalize(model).log_density({"mu": 0.3}, Y), closed_over, rtol=1e-5
    )
    with pytest.raises(mx.ModelError, match="site 'mu'"):
        mx.marginalize(branches).log_density({"mu": 0.3}, Y)
