"""Simulation-based calibration: over many data sets, the true value's rank among its draws is uniform.

Talts, Betancourt, Simpson, Vehtari and Gelman (2018, "Validating Bayesian inference algorithms with
simulation-based calibration"). Parameters are drawn from the prior, data from the model; then the posterior
is sampled. If prior, density, marginalisation and sampler agree, the rank of a true parameter among
independent draws of its posterior has a uniform distribution, and so has a true discrete value's.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.slow,
    # Of two hundred posteriors some are hard; if draws were wrong for it, ranks would tell.
    pytest.mark.filterwarnings("ignore:.*after warm-up diverged"),
    pytest.mark.filterwarnings("ignore:.*were cut off"),
]

SIMULATIONS = 200
WARMUP, DRAWS, THINNING = 300, 63, 10
"""Thinned out so that draws are nearly independent; ranks go from 0 to 63."""
BINS = 16


def mixture(x: Any = None) -> None:
    """Told apart by an order of their priors, so that a parameter is one and not two."""
    weight = mx.sample("weight", dist.Beta(2.0, 2.0))
    locs = mx.sample("locs", dist.Normal(jnp.array([-1.0, 2.0]), 1.0).to_event(1))
    scale = mx.sample("scale", dist.LogNormal(0.0, 0.5))
    with mx.plate("n", 12):
        z = mx.sample("z", dist.Bernoulli(weight))
        mx.sample("x", dist.Normal(locs[z], scale), obs=x)


def hidden_markov(x: Any = None) -> None:
    stay = mx.sample("stay", dist.Beta(4.0, 2.0).expand([2]).to_event(1))
    locs = mx.sample("locs", dist.Normal(jnp.array([-1.0, 1.0]), 1.0).to_event(1))

    def step(z: Any, x: Any) -> Any:
        p = jnp.where(z == 1, stay[1], 1 - stay[0])
        z = mx.sample("z", dist.Bernoulli(p))
        return z, mx.sample("x", dist.Normal(locs[z], 0.7), obs=x)

    mx.scan(step, 0, x, length=15)


def occupancy(x: Any = None) -> None:
    """Sites are occupied or not; a species that is there may be overlooked at each visit."""
    occupied = mx.sample("occupied", dist.Beta(2.0, 2.0))
    detected = mx.sample("detected", dist.Beta(2.0, 2.0))
    with mx.plate("sites", 20):
        z = mx.sample("z", dist.Bernoulli(occupied))
        mx.sample("x", dist.Binomial(4, z * detected), obs=x)


def simulate(model: Callable[..., Any], key: Any) -> dict[str, Any]:
    """A draw of everything from the model."""
    trace = mx.handlers.trace(mx.handlers.seed(model, rng_seed=key)).get_trace()
    return {name: site["value"] for name, site in trace.items() if site["type"] == "sample"}


def ranks(model: Callable[..., Any], names: list[str]) -> dict[str, np.ndarray]:
    """Of the true value among the draws, for each scalar; each shape (simulations,)."""
    found: dict[str, list[int]] = {}
    rng = np.random.default_rng(0)
    marginal = mx.marginalize(model)
    mcmc = MCMC(
        NUTS(model),
        num_warmup=WARMUP,
        num_samples=DRAWS * THINNING,
        thinning=THINNING,
        progress_bar=False,
    )
    for key in jax.random.split(jax.random.key(7), SIMULATIONS):
        truth_key, run_key, draw_key = jax.random.split(key, 3)
        truth = simulate(model, truth_key)
        mcmc.run(run_key, truth["x"])
        draws = {name: np.asarray(value) for name, value in mcmc.get_samples().items()}
        for name in names:
            below = (draws[name] < np.asarray(truth[name])).sum(axis=0)
            for i, rank in enumerate(np.atleast_1d(below)):
                found.setdefault(f"{name}[{i}]", []).append(int(rank))
        # Of a discrete quantity: how many elements are in the second component. Ties are broken at random.
        drawn = np.asarray(marginal.draw(draw_key, draws, truth["x"])["z"]).sum(axis=1)
        members = float(np.asarray(truth["z"]).sum())
        ties = rng.integers(0, (drawn == members).sum() + 1)
        found.setdefault("members", []).append(int((drawn < members).sum() + ties))
    return {name: np.array(value) for name, value in found.items()}


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (mixture, ["weight", "locs", "scale"]),
        (hidden_markov, ["stay", "locs"]),
        (occupancy, ["occupied", "detected"]),
    ],
)
def test_ranks_of_the_truth_are_uniform(model: Any, names: list[str]):
    found = ranks(model, names)
    for name, rank in found.items():
        counts = np.bincount(rank * BINS // (DRAWS + 1), minlength=BINS)
        p = stats.chisquare(counts).pvalue
        # One in a thousand for each of the scalars of the three models together.
        assert p > 1e-3 / 12, (name, p, counts.tolist())
