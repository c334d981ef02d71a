"""Two models that differ in one array, deep inside: each gets its own numbers, and its own checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from scipy.special import expit
from scipy.stats import norm

import marginax as mx
import marginax.distributions as dist
import marginax.marginal.answers as answers
from marginax.infer import MCMC, NUTS, SVI, TraceEnum_ELBO
from marginax.infer.autoguide import AutoDelta

KEY = jax.random.key(0)
SCALES = (1.0, 10.0)
PRIOR = 0.3


def make(scale: float, is_cut: bool = False) -> Callable[..., None]:
    """Two coins: the second's and the data's locations go through a jitted function inside a scan."""
    table = np.array([scale], np.float32)
    times = jax.jit(lambda u: jnp.asarray(table)[0] * u)

    def double(u: Any) -> Any:
        return lax.scan(lambda c, _: (c + times(u), None), jnp.zeros(()), None, length=2)[0]

    def model(x: Any) -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 1.0))
        z = mx.sample("z", dist.Bernoulli(PRIOR))
        if is_cut:
            mx.sample("count", dist.Poisson(1.0), infer={"support": (0, 2)})
        mx.sample("x", dist.Normal(double(loc) + double(0.1) * z, 1.0), obs=x)

    return model


def by_hand(scale: float, loc: float, x: float) -> tuple[float, float]:
    """Log density of loc and x but for the cut, and the probability of z."""
    joint = [
        np.log(p) + norm.logpdf(x, 2 * scale * loc + 0.2 * scale * z)
        for z, p in ((0, 1 - PRIOR), (1, PRIOR))
    ]
    return norm.logpdf(loc) + np.logaddexp(*joint), expit(joint[1] - joint[0])


@pytest.mark.filterwarnings("ignore::marginax.TruncationWarning")
def test_every_query_answers_for_its_own_model():
    found = []
    for scale in SCALES:
        m, params, x = mx.marginalize(make(scale, is_cut=True)), {"loc": 0.5}, 2.0
        density, probability = by_hand(scale, 0.5, x)
        cut = np.log(np.exp(-1.0) * 2.5)  # of the counts
        np.testing.assert_allclose(m.log_density(params, x), density + cut, rtol=1e-5)
        np.testing.assert_allclose(m.posterior(params, x)["z"][1], probability, rtol=2e-4)
        assert int(m.mode(params, x)["z"]) == (probability > 0.5)
        np.testing.assert_allclose(
            m.pointwise(params, x)["x"], density - norm.logpdf(0.5), rtol=1e-5
        )
        draws = m.draw(KEY, {"loc": jnp.full(400, 0.5)}, x)["z"]
        assert abs(draws.mean() - probability) < 4 * np.sqrt(0.25 / 400)
        pair = m.pairwise("z", "count", params, x)
        np.testing.assert_allclose(np.sum(pair, 1)[1], probability, rtol=2e-4)
        found.append((float(m.entropy(params, x)), float(m.beyond_cuts(params, x)["count"])))
    assert abs(found[0][0] - found[1][0]) > 0.01


def fit(scale: float, checkpoint: Path | None = None) -> float:
    model = make(scale)
    svi = SVI(model, AutoDelta(model), optax.adam(0.1), TraceEnum_ELBO())
    options: dict[str, Any] = {"checkpoint": checkpoint, "progress_bar": False, "tolerance": 0.0}
    return float(svi.run(KEY, 150, 2.0, **options).params["loc_auto_loc"])


def sample(scale: float, checkpoint: Path | None = None) -> float:
    mcmc = MCMC(NUTS(make(scale)), num_warmup=100, num_samples=200, progress_bar=False)
    mcmc.run(KEY, 2.0, checkpoint=checkpoint)
    return float(mcmc.get_samples()["loc"].mean())


@pytest.mark.parametrize("run", [fit, sample])
def test_svi_and_nuts_fit_their_own_model_and_refuse_a_checkpoint_of_the_other(
    run: Callable[..., float], tmp_path: Path
):
    # The posterior mean, had z not moved the data; it moves by less than what is allowed.
    for scale in SCALES:
        want = 2 * scale * 2.0 / (1 + 4 * scale**2)
        assert abs(run(scale, tmp_path / str(scale)) - want) < 0.15
    file = tmp_path / str(SCALES[0])
    with pytest.raises(mx.ModelError, match="from another run: its program"):
        run(SCALES[1], file)


def test_other_data_or_an_equal_model_do_not_compile_again():
    def ask(x: float) -> None:
        model = make(3.0)
        data = jnp.array([x])
        mx.marginalize(lambda data: model(data[0])).posterior({"loc": 0.5}, data)

    ask(2.0)
    before = set(answers._remembered)
    assert before
    ask(1.0)
    assert set(answers._remembered) == before  # the same programs, and no more of them
