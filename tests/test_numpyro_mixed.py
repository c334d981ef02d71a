"""NumPyro's models without `from_numpyro`, and handlers of one library around statements of the other.

What is honoured gives the numbers of the same model in one library's words; all else is refused by name.
"""

from __future__ import annotations

import importlib
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

# Any, because NumPyro's annotations admit values that no model could compute with.
numpyro: Any = importlib.import_module("numpyro")
theirs: Any = numpyro.handlers

Y = jnp.array([0.3, 2.0, 1.0])
MU = {"mu": jnp.asarray(0.2)}


def native(y: Any) -> None:
    mu = mx.sample("mu", dist.Normal(0.0, 1.0))
    with mx.plate("n", 3):
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("y", dist.Normal(mu + z, 1.0), obs=y)


def in_numpyro(y: Any) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", 3):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(mu + z, 1.0), obs=y)


HANDLERS: dict[str, dict[str, Any]] = {
    "mask": {"mask": False},
    "scale": {"scale": 2.0},
    "do": {"data": {"mu": 1.0}},
    "condition": {"data": {"z": jnp.array([0, 1, 1])}},
    "substitute": {"data": {"z": jnp.array([0, 1, 1])}},
    "seed": {"rng_seed": 0},
    "trace": {},
    "replay": {"trace": {}},
    "infer_config": {"config_fn": lambda site: {}},
    "block": {"hide": ["nothing"]},
    "lift": {"prior": dist.Normal(0.0, 1.0)},
    "scope": {"prefix": ""},
    "uncondition": {},
    "reparam": {"config": {}},
}


@pytest.mark.parametrize("kind", HANDLERS)
def test_a_handler_of_numpyro_around_a_native_model_is_refused_with_what_to_write(kind: str):
    model = getattr(theirs, kind)(native, **HANDLERS[kind])
    instead = "Write all that" if kind == "reparam" else rf"mx\.handlers\.{kind} instead"
    with pytest.raises(mx.ModelError, match=rf"sample 'mu'.*inside numpyro's {kind}.*{instead}"):
        mx.marginalize(model).log_density(MU, Y)


@pytest.mark.parametrize("kind", ["mask", "scale", "do", "condition", "substitute", "seed", "lift"])
def test_a_model_of_numpyro_under_either_librarys_handlers(kind: str):
    options = HANDLERS[kind]
    right = mx.marginalize(getattr(mx.handlers, kind)(native, **options)).log_density(MU, Y)
    for handlers in (theirs, mx.handlers):
        model = getattr(handlers, kind)(in_numpyro, **options)
        found = mx.marginalize(model).log_density(MU, Y)
        np.testing.assert_allclose(found, right, rtol=1e-5)


def test_a_model_of_numpyro_goes_wherever_a_model_goes():
    m, ours = mx.marginalize(in_numpyro), mx.marginalize(native)
    np.testing.assert_allclose(m.log_density(MU, Y), ours.log_density(MU, Y), rtol=1e-6)
    np.testing.assert_allclose(m.posterior(MU, Y)["z"], ours.posterior(MU, Y)["z"], rtol=1e-5)
    value, trace = mx.infer.log_density(in_numpyro, (Y,), {}, MU)
    np.testing.assert_allclose(value, ours.log_density(MU, Y), rtol=1e-6)
    seeded = mx.handlers.seed(in_numpyro, rng_seed=0)
    assert list(mx.handlers.trace(seeded).get_trace(Y)) == list(trace)
    best = infer_discrete(theirs.substitute(in_numpyro, data=MU), temperature=0)
    best(Y)
    found = mx.handlers.trace(best).get_trace(Y)["z"]["value"]
    np.testing.assert_array_equal(found, m.mode(MU, Y)["z"])

    def guide(y: Any) -> None:
        numpyro.sample("mu", dist.Normal(numpyro.param("loc", 0.0), 1.0))

    losses = []
    for model in (native, in_numpyro):
        svi = SVI(model, guide, optax.adam(0.1), TraceEnum_ELBO())
        losses.append(svi.run(jax.random.key(0), 2, Y, progress_bar=False).losses)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    mcmc = MCMC(NUTS(in_numpyro), num_warmup=4, num_samples=4, progress_bar=False)
    mcmc.run(jax.random.key(0), Y)
    draws = mcmc.get_samples()
    predicted = Predictive(in_numpyro, draws, infer_discrete=True)(jax.random.key(0), Y)
    assert predicted["z"].shape == (4, 3)
    assert not numpyro.primitives._PYRO_STACK


def test_statements_of_numpyro_under_handlers_and_plates_of_this_library():
    def model(y: Any) -> None:
        with mx.handlers.mask(mask=False):
            numpyro.sample("x", dist.Normal(0.0, 1.0), obs=1.0)
        with mx.handlers.scale(scale=2.0):
            numpyro.factor("f", -1.0)
        with mx.plate("n", 3), numpyro.handlers.mask(mask=jnp.array([True, False, True])):
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)
        numpyro.deterministic("d", 1.0)
        mx.factor("g", numpyro.param("w", 1.0))

    right = -2.0 + 1.0 + dist.Normal(0.0, 1.0).log_prob(Y)[jnp.array([0, 2])].sum()
    np.testing.assert_allclose(mx.marginalize(model).log_density({}, Y), right, rtol=1e-6)


def statement_in(around: Callable[[], Any]) -> Callable[[Any], None]:
    def model(y: Any) -> None:
        with around():
            mx.sample("x", dist.Normal(0.0, 1.0), obs=1.0)

    return model


def scopes_of_both(y: Any) -> None:
    with theirs.scope(prefix="a"), mx.handlers.scope(prefix="b"):
        numpyro.sample("x", dist.Normal(0.0, 1.0), obs=1.0)


def conditions_of_both(y: Any) -> None:
    with theirs.condition(data={"x": 1.0}), mx.handlers.condition(data={"x": 2.0}):
        numpyro.sample("x", dist.Normal(0.0, 1.0))


REFUSED = {
    "mask": (
        statement_in(lambda: theirs.mask(mask=False)),
        r"'x'.*numpyro's mask.*mx\.handlers\.mask",
    ),
    "plate": (statement_in(lambda: numpyro.plate("n", 3)), r"'x'.*numpyro's plate.*mx\.plate"),
    "scopes": (scopes_of_both, "marginax's scope is entered inside numpyro's scope"),
    "conditions": (
        conditions_of_both,
        "marginax's condition is entered inside numpyro's condition",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_handler_of_numpyro_would_not_see_is_refused(name: str):
    model, message = REFUSED[name]
    with pytest.raises(mx.ModelError, match=message):
        mx.marginalize(model).log_density({}, Y)
    assert not numpyro.primitives._PYRO_STACK


def test_a_native_model_given_to_numpyro_is_refused():
    with pytest.raises(mx.ModelError, match="inside numpyro's seed, which does not see it"):
        theirs.seed(native, 0)(Y)
    with pytest.raises(mx.ModelError, match=r"NumPyro's own inference takes models.*in NumPyro"):
        numpyro.infer.util.log_density(native, (Y,), {}, MU)
    guide = numpyro.infer.autoguide.AutoNormal(in_numpyro)
    svi = SVI(in_numpyro, guide, optax.adam(0.1), TraceEnum_ELBO())
    with pytest.raises(TypeError, match=r"autoguide\.AutoNormal\(model\)"):
        svi.run(jax.random.key(0), 2, Y, progress_bar=False)
