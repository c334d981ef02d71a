"""`Predictive`: one run of the model for every draw of its parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare, kstest, norm

import marginax as mx
import marginax.distributions as dist
from marginax.infer import Predictive

KEY = jax.random.key(0)
N = 4000
DATA = np.array([0.2, 1.4, 2.6])


def mixture(x: Any = None, size: int = 3) -> None:
    mu = mx.sample("mu", dist.Normal(1.0, 2.0))
    with mx.plate("n", size):
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.deterministic("centre", mu + 2.0 * z)
        mx.sample("x", dist.Normal(mu + 2.0 * z, 1.0), obs=x)


def assert_normal(draws: Any, loc: float, scale: float) -> None:
    """Kolmogorov and Smirnov: a right sampler fails for one key in 1000; the key is fixed."""
    assert kstest(np.ravel(draws), norm(loc, scale).cdf).pvalue > 1e-3


def assert_probability(draws: Any, probability: float) -> None:
    draws = np.ravel(draws)
    counts = np.array([(draws == 0).sum(), (draws == 1).sum()])
    expected = len(draws) * np.array([1 - probability, probability])
    assert chisquare(counts, expected).pvalue > 1e-3


# -- what is drawn


def test_draws_from_the_prior():
    draws = Predictive(mixture, num_samples=N)(KEY)
    assert {n: v.shape for n, v in draws.items()} == {
        "mu": (N,),
        "z": (N, 3),
        "centre": (N, 3),
        "x": (N, 3),
    }
    assert_normal(draws["mu"], 1.0, 2.0)
    assert_probability(draws["z"], 0.3)
    assert_normal(draws["x"] - draws["centre"], 0.0, 1.0)
    centre = draws["mu"][:, None] + 2.0 * draws["z"]
    # A program may round once or twice: half a unit in the last place of the largest number each time.
    rounding = np.spacing(2.0 + np.abs(draws["mu"]).max())
    np.testing.assert_allclose(draws["centre"], centre, rtol=0.0, atol=rounding)


def test_draws_of_new_data_given_draws_of_the_parameters():
    samples = {"mu": jnp.linspace(-50.0, 50.0, N)}
    draws = Predictive(mixture, samples)(KEY, size=2)
    assert draws.keys() == {"z", "centre", "x"}
    assert_normal(draws["x"] - samples["mu"][:, None] - 2.0 * draws["z"], 0.0, 1.0)


def test_draws_of_discrete_sites_from_their_exact_posterior():
    samples = {"mu": jnp.tile(jnp.array([0.0, 1.0]), N)}
    draws = Predictive(mixture, samples, infer_discrete=True)(KEY, DATA)
    assert draws.keys() == {"z", "centre"}
    for i, mu in enumerate((0.0, 1.0)):
        low, high = 0.7 * norm.pdf(DATA, mu, 1.0), 0.3 * norm.pdf(DATA, mu + 2.0, 1.0)
        for n in range(3):
            assert_probability(draws["z"][i::2, n], float((high / (low + high))[n]))


def test_without_it_discrete_sites_are_drawn_from_the_prior():
    draws = Predictive(mixture, {"mu": jnp.zeros(N)})(KEY, DATA)
    assert_probability(draws["z"], 0.3)


def test_joint_draws_keep_the_dependence_between_discrete_sites():
    def model() -> None:
        a = mx.sample("a", dist.Bernoulli(0.5))
        b = mx.sample("b", dist.Bernoulli(0.5))
        mx.factor("equal", jnp.where(a == b, 0.0, -jnp.inf))

    draws = Predictive(model, num_samples=N, infer_discrete=True)(KEY)
    np.testing.assert_array_equal(draws["a"], draws["b"])
    assert_probability(draws["a"], 0.5)


def test_draws_from_a_guide_with_its_parameters():
    def guide(x: Any = None, size: int = 3) -> None:
        mx.sample("mu", dist.Normal(mx.param("loc", 0.0), 0.1))

    draws = Predictive(mixture, guide=guide, params={"loc": 7.0}, num_samples=N)(KEY)
    assert_normal(draws["mu"], 7.0, 0.1)
    assert_normal(draws["x"] - draws["centre"], 0.0, 1.0)
    inferred = Predictive(
        mixture, guide=guide, params={"loc": 0.0}, num_samples=N, infer_discrete=True
    )(KEY, np.array([-5.0, 7.0]), size=2)
    assert (inferred["z"] == np.array([0, 1])).mean() > 0.99


def test_parameters_of_the_model():
    def model() -> None:
        mx.sample("x", dist.Normal(mx.param("loc", 0.0), 1.0))

    draws = Predictive(model, params={"loc": jnp.array(9.0)}, num_samples=N)(KEY)
    assert_normal(draws["x"], 9.0, 1.0)


def test_deterministic_sites_follow_the_draws():
    samples = {"mu": jnp.arange(5.0), "z": jnp.ones((5, 3), int)}
    draws = Predictive(mixture, samples)(KEY)
    np.testing.assert_array_equal(draws["centre"], np.tile(np.arange(5.0)[:, None] + 2.0, 3))


def test_numpy_draws_and_a_table_of_the_users_serve():
    def model(table: Any, x: Any = None) -> None:
        z = mx.sample("z", dist.Categorical(np.ones(3) / 3))
        mx.sample("x", dist.Normal(table[z], mx.sample("scale", dist.HalfNormal(1.0))), obs=x)

    table = np.array([0.0, 10.0, 20.0])
    samples = {"scale": np.full(20, 0.1)}
    draws = Predictive(model, samples, infer_discrete=True)(KEY, table, 20.3)
    assert (draws["z"] == 2).all()


# -- shapes and options


def test_draws_grouped_by_chain_stay_so():
    samples = {"mu": jnp.arange(6.0).reshape(2, 3)}
    draws = Predictive(mixture, samples, batch_ndims=2)(KEY)
    assert draws["x"].shape == (2, 3, 3)
    centre = draws["centre"] - 2.0 * draws["z"]
    np.testing.assert_allclose(centre, np.tile(np.arange(6.0).reshape(2, 3, 1), 3))


def test_all_at_once_or_one_after_the_other_is_the_same():
    samples = {"mu": jnp.arange(6.0)}
    for inferred, args in ((False, ()), (True, (DATA,))):
        serial, parallel = (
            Predictive(mixture, samples, infer_discrete=inferred, parallel=parallel)(KEY, *args)
            for parallel in (False, True)
        )
        assert serial.keys() == parallel.keys()
        for name in serial:
            np.testing.assert_allclose(serial[name], parallel[name], rtol=1e-6)


def test_the_same_key_gives_the_same_draws():
    predictive = Predictive(mixture, num_samples=5)
    first, again, other = predictive(KEY), predictive(0), predictive(1)
    np.testing.assert_array_equal(first["x"], again["x"])
    assert (first["x"] != other["x"]).all()
    assert len(np.unique(first["mu"])) == 5


def test_the_sites_to_return_can_be_chosen():
    samples = {"mu": jnp.arange(3.0)}
    draws = Predictive(mixture, samples, return_sites=["mu", "x"])(KEY, DATA)
    np.testing.assert_array_equal(draws["mu"], samples["mu"])
    np.testing.assert_array_equal(draws["x"], np.tile(DATA.astype(np.float32), (3, 1)))
    with pytest.raises(ValueError, match="'loc'.*'mu'"):
        Predictive(mixture, samples, return_sites=["loc"])(KEY)
    with pytest.raises(TypeError, match=r"\['mu'\]"):
        Predictive(mixture, samples, return_sites="mu")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "num_samples"),
        ({"num_samples": 0}, "num_samples"),
        ({"posterior_samples": {}}, "num_samples"),
        ({"posterior_samples": {"mu": np.zeros(2), "z": np.zeros((3, 3))}}, "'z'.*3"),
        ({"posterior_samples": {"mu": np.zeros(2)}, "batch_ndims": 2}, "'mu'.*batch_ndims"),
        ({"posterior_samples": {"mu": np.zeros(2)}, "num_samples": 3}, "3.*2 draws"),
        ({"posterior_samples": {"mu": np.zeros(2)}, "guide": mixture}, "not both"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        Predictive(mixture, **options)


def test_bad_data_are_named():
    predictive = Predictive(mixture, {"mu": jnp.zeros(2)}, infer_discrete=True)
    with pytest.raises(mx.ModelError, match="'x'.*NaN"):
        predictive(KEY, np.array([0.0, np.nan, 1.0]))


def located(x: Any = None) -> None:
    loc = mx.sample("loc", dist.Normal(0.0, 1.0))
    mx.sample("x", dist.Normal(loc, 1.0), obs=x)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ({"lok": np.zeros(5)}, "draws of 'lok'.*none of its 'loc'.*misspelt"),
        ({"loc": np.zeros((5, 3))}, r"site 'loc': each of its draws has shape \(3,\)"),
        ({"loc": np.array([0.0, np.nan])}, "site 'loc': its value in posterior_samples has NaN"),
    ],
    ids=["misspelt", "shape", "nan"],
)
def test_draws_that_do_not_fit_the_model(samples: Any, words: str) -> None:
    with pytest.raises(mx.ModelError, match=words):
        Predictive(located, samples)(jax.random.key(0))


def test_draws_that_nobody_asks_for_are_ignored() -> None:
    samples = {"loc": np.zeros(5), "of another model": np.zeros(5)}
    assert Predictive(located, samples)(jax.random.key(0))["x"].shape == (5,)
