"""What ArviZ is given: draws, exact probabilities and likelihoods, with dimensions named after plates."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.infer import to_arviz
from marginax.infer.draws.arviz_data import _arviz

X = np.array([-0.4, 0.3, 2.8, 3.3])
CHAINS, DRAWS = 2, 400


def mixture(x: Any) -> None:
    weight = mx.sample("weight", dist.Beta(2.0, 2.0))
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(jnp.zeros(3), 5.0).to_event(1))
    with mx.plate("rows", len(x)):
        z = mx.sample("z", dist.Bernoulli(weight))
        mx.sample("x", dist.Normal(locs[z, 0], 1.0), obs=x)


def draws() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    locs = rng.normal(0.0, 0.3, size=(CHAINS, DRAWS, 2, 3)) + np.array([[0.0], [3.0]])
    return {"weight": rng.beta(3.0, 3.0, size=(CHAINS, DRAWS)), "locs": locs}


@pytest.fixture(scope="module")
def given() -> dict[str, np.ndarray]:
    return draws()


@pytest.fixture(scope="module")
def data(given: Any) -> Any:
    stats = {
        "accept_prob": np.full((CHAINS, DRAWS), 0.9),
        "num_steps": np.full((CHAINS, DRAWS), 7),
        "potential_energy": np.full((CHAINS, DRAWS), 2.5),
    }
    return to_arviz(mixture, given, X, sample_stats=stats, rng_key=1, coords={"rows": list("abcd")})


@pytest.fixture(scope="module")
def terms(given: Any) -> np.ndarray:
    """Weight times density of each point in each component, shape (chains, draws, rows, 2)."""
    w = given["weight"][..., None, None]
    density = stats.norm.pdf(X[:, None], given["locs"][..., 0][..., None, :])
    return np.concatenate([1 - w, w], axis=-1) * density


def test_dimensions_are_named_after_plates(data: Any):
    posterior = data["posterior"]
    dims = {name: posterior[name].dims[2:] for name in posterior.data_vars}
    assert dims == {
        "weight": (),
        "locs": ("components", "locs_dim_1"),
        "z": ("rows",),
        "z_probs": ("rows", "z_value"),
    }
    assert posterior["rows"].values.tolist() == list("abcd")
    assert posterior["z_value"].values.tolist() == [0, 1]
    for group in ("log_likelihood", "posterior_predictive", "observed_data"):
        assert data[group]["x"].dims[-1:] == ("rows",)


def test_what_the_sampler_reported_has_the_names_of_arviz(data: Any):
    found = data["sample_stats"]
    assert set(found.data_vars) == {"acceptance_rate", "n_steps", "lp"}
    assert (found["lp"] == -2.5).all()


def test_probabilities_and_likelihoods_are_exact(data: Any, terms: Any):
    shares = terms / terms.sum(-1, keepdims=True)
    np.testing.assert_allclose(data["posterior"]["z_probs"], shares, atol=1e-5)
    np.testing.assert_allclose(data["log_likelihood"]["x"], np.log(terms.sum(-1)), rtol=1e-4)
    np.testing.assert_allclose(data["observed_data"]["x"], X, rtol=1e-6)


def test_discrete_draws_follow_their_probabilities(data: Any, terms: Any):
    share = (terms / terms.sum(-1, keepdims=True))[..., 1]
    found = data["posterior"]["z"].values
    error = np.sqrt((share * (1 - share)).sum((0, 1))) / (CHAINS * DRAWS)
    assert (np.abs(found.mean((0, 1)) - share.mean((0, 1))) < 5 * error + 1e-6).all()


def test_predictions_are_new_data_of_new_members(data: Any, given: Any):
    w, locs = given["weight"][..., None], given["locs"][..., 0]
    mean = ((1 - w[..., 0]) * locs[..., 0] + w[..., 0] * locs[..., 1]).mean()
    found = data["posterior_predictive"]["x"].values
    assert found.shape == (CHAINS, DRAWS, 4)
    # Within a row all draws are independent given the parameters.
    assert found.mean() == pytest.approx(mean, abs=5 * found.std() / np.sqrt(found.size))
    assert not (found[..., 0] == found[..., 1]).any()


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of pandas, in ArviZ
def test_leave_one_out_prefers_the_model_that_is_true():
    arviz: Any = _arviz()
    rng = np.random.default_rng(3)
    y = rng.normal(1.0, 1.0, size=60)

    def normal(y: Any, scale: float) -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 100.0))
        with mx.plate("rows", len(y)):
            mx.sample("y", dist.Normal(loc, scale), obs=y)

    found = {}
    for name, scale in (("true", 1.0), ("wrong", 4.0)):
        loc = rng.normal(y.mean(), scale / np.sqrt(60), size=(4, 500))  # the posterior
        found[name] = to_arviz(lambda y, s=scale: normal(y, s), {"loc": loc}, y)
    loo = arviz.loo(found["true"])
    # In closed form: the density of each given the others, a normal of their mean.
    others = (y.sum() - y) / 59
    exact = stats.norm.logpdf(y, others, np.sqrt(1 + 1 / 59)).sum()
    pointwise = found["true"]["log_likelihood"]["y"].values.reshape(2000, 60)
    error = float(
        np.sqrt(pointwise.var(axis=0).sum() / 2000)
    )  # of an average over independent draws
    estimate = float(getattr(loo, "elpd_loo", getattr(loo, "elpd", np.nan)))
    assert estimate == pytest.approx(exact, abs=5 * error)
    assert list(arviz.compare(found).index) == ["true", "wrong"]


def test_nested_plates_and_scans():
    def model(y: Any) -> None:
        with mx.plate("outer", 3, dim=-2):
            left = mx.sample("left", dist.Normal(0.0, 1.0))
            with mx.plate("inner", 2, dim=-1):
                mx.sample("both", dist.Normal(left, 1.0), obs=jnp.zeros((3, 2)))

        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Bernoulli(0.2 + 0.6 * z))
            mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)
            return z, None

        mx.scan(step, 0, y)

    found = to_arviz(model, {"left": np.zeros((1, 5, 3, 1))}, jnp.zeros(4))
    posterior = found["posterior"]
    assert posterior["left"].dims[2:] == ("outer", "left_dim_1")
    assert posterior["z"].dims[2:] == ("steps of z",)
    assert posterior["z_probs"].dims[2:] == ("steps of z", "z_value")
    assert found["log_likelihood"]["both"].dims[2:] == ("outer", "inner")
    assert found["log_likelihood"]["y"].dims[2:] == ("steps of z",)
    assert found["posterior_predictive"]["y"].shape == (1, 5, 4)


def test_a_plate_called_like_an_array_gets_another_name():
    def model() -> None:
        with mx.plate("n", 2):
            mx.deterministic("n_squared", mx.sample("a", dist.Normal(0.0, 1.0)) ** 2)

    found = to_arviz(model, {"a": np.zeros((1, 5, 2)), "n_squared": np.zeros((1, 5, 2))})
    assert found["posterior"]["n_squared"].dims[-1] == "n"
    assert set(_groups(found)) == {"posterior"}


def _groups(data: Any) -> list[str]:
    return [name for name in ("posterior", "log_likelihood", "observed_data") if name in data]


def test_models_of_discrete_sites_alone():
    def coin() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=1.0)

    mcmc = mx.infer.MCMC(
        mx.infer.NUTS(coin), num_warmup=0, num_samples=50, num_chains=2, progress_bar=False
    )
    mcmc.run(jax.random.key(0))
    found = mcmc.to_arviz()
    np.testing.assert_array_equal(found["posterior"]["z"], mcmc.get_samples(True)["z"])
    np.testing.assert_allclose(found["posterior"]["z_probs"][0, 0], [0.2, 0.8], rtol=1e-5)
    assert found["log_likelihood"]["x"].shape == (2, 50)


def test_without_arviz_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match="pip install arviz"):
        to_arviz(mixture, draws(), X)
