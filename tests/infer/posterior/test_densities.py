"""`log_density` and `log_likelihood`: NumPyro's functions, with the discrete sites summed out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from closeness import assert_same
from numpyro.infer import log_likelihood as numpyros_likelihood
from numpyro.infer.util import log_density as numpyros

import marginax as mx
import marginax.distributions as dist
from marginax.infer import log_density, log_likelihood

DATA = np.array([0.3, -1.2, 2.5])


def continuous(pp: Any) -> Any:
    def model(x: Any, scale: float = 1.0) -> None:
        mu = pp.sample("mu", dist.Normal(0.0, 2.0))
        with pp.plate("n", len(x)):
            pp.sample("x", dist.Normal(mu, scale), obs=x)
        pp.deterministic("twice", 2 * mu)

    return model


def mixture(x: Any) -> None:
    mu = mx.sample("mu", dist.Normal(0.0, 2.0))
    with mx.plate("n", len(x)):
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("x", dist.Normal(mu + 2.0 * z, 1.0), obs=x)


def test_without_discrete_sites_it_is_numpyros():
    params = {"mu": jnp.array(0.4)}
    value, trace = log_density(continuous(mx), (DATA,), {"scale": 1.5}, params)
    theirs = numpyros(continuous(numpyro), (DATA,), {"scale": 1.5}, params)
    assert_same(value, theirs[0])
    assert_same(trace["twice"]["value"], theirs[1]["twice"]["value"])


def test_discrete_sites_are_summed_out_of_the_value_and_have_their_mode_in_the_trace():
    value, trace = log_density(mixture, (DATA,), {}, {"mu": 0.4})

    def density(x: Any, loc: float) -> Any:
        return np.exp(-0.5 * (x - loc) ** 2) / np.sqrt(2 * np.pi)

    points = 0.7 * density(DATA, 0.4) + 0.3 * density(DATA, 2.4)
    assert_same(value, np.log(density(0.2, 0.0) / 2) + np.log(points).sum())
    assert trace["z"]["value"].tolist() == [0, 0, 1]
    assert trace["z"]["type"] == "sample"


def test_it_can_be_compiled_and_differentiated():
    def value(mu: Any) -> Any:
        return log_density(mixture, (DATA,), {}, {"mu": mu})[0]

    eps = 1e-2
    slope = (value(0.4 + eps) - value(0.4 - eps)) / (2 * eps)
    # Central differences err by eps**2 (here times less than 1), and by rounding over eps.
    assert jax.jit(jax.grad(value))(0.4) == pytest.approx(float(slope), abs=1e-3)


def test_impossible_parameters_have_the_density_zero():
    def model() -> None:
        p = mx.sample("p", dist.Uniform(0.0, 1.0))
        with mx.plate("n", 2):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.factor("wall", jnp.where(z < 2, -jnp.inf, p))

    value, trace = log_density(model, (), {}, {"p": 0.5})
    assert value == -np.inf
    assert trace["z"]["value"].shape == (2,)


@pytest.mark.parametrize(
    ("params", "reason"),
    [({}, "'mu'"), ({"mu": np.nan}, "'mu'.*NaN"), ({"nu": 0.0}, "'nu'"), ({"mu": "a"}, "'mu'")],
)
def test_parameters_that_make_no_sense_are_named(params: Any, reason: str):
    with pytest.raises(mx.ModelError, match=reason):
        log_density(mixture, (DATA,), {}, params)


@pytest.mark.parametrize("parallel", [True, False])
def test_the_likelihood_of_each_draw_is_numpyros_where_nothing_is_discrete(parallel: bool):
    draws = {"mu": jnp.linspace(-1.0, 1.0, 6)}
    found = log_likelihood(continuous(mx), draws, DATA, parallel=parallel, scale=1.5)
    assert_same(found["x"], numpyros_likelihood(continuous(numpyro), draws, DATA, scale=1.5)["x"])


def test_the_likelihood_of_a_mixture_sums_its_assignments_out():
    draws = np.array([[0.0, 0.5], [1.0, -0.3]])
    found = log_likelihood(mixture, {"mu": draws}, DATA, batch_ndims=2)["x"]
    centres = draws[..., None, None] + np.array([0.0, 2.0])
    each = np.exp(-0.5 * (DATA[:, None] - centres) ** 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(found, np.log(each @ [0.7, 0.3]), rtol=1e-5)


def test_draws_without_the_leading_dimensions_that_are_said():
    with pytest.raises(mx.ModelError, match="1 leading dimensions.*batch_ndims is 2"):
        log_likelihood(mixture, {"mu": np.zeros(3)}, DATA, batch_ndims=2)
