"""L-BFGS reaches the optimum that Adam reaches, in far fewer evaluations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from scipy.optimize import minimize

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, init_to_value
from marginax.infer.autoguide import AutoDelta, AutoNormal

KEY = jax.random.key(0)
DATA = np.array([0.0, 1.0, 10.0, 11.0, 12.0])
START = {"weights": np.array([0.5, 0.5]), "scale": 3.0, "locs": np.array([1.0, 9.0])}


def mixture(x: Any) -> None:
    weights = mx.sample("weights", dist.Dirichlet(2.0 * jnp.ones(2)))
    scale = mx.sample("scale", dist.LogNormal(0.0, 2.0))
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("x", dist.Normal(locs[z], scale), obs=x)


def fit(optim: Any, steps: int) -> Any:
    guide = AutoDelta(mixture, init_loc_fn=init_to_value(values=START))
    svi = SVI(mixture, guide, optim, TraceEnum_ELBO())
    return svi.run(KEY, steps, DATA, progress_bar=False)


def best_by_scipy() -> float:
    """The lowest loss near the start: the log joint in NumPy, minimised by SciPy."""

    def loss(free: np.ndarray) -> float:
        w = 1 / (1 + np.exp(-free[0]))
        scale, locs = np.exp(free[1]), free[2:]
        prior = np.log(6.0) + np.log(w) + np.log(1 - w)
        prior += -0.5 * (free[1] / 2) ** 2 - np.log(2) - 0.5 * np.log(2 * np.pi) - free[1]
        prior += (-0.5 * (locs / 10) ** 2 - np.log(10) - 0.5 * np.log(2 * np.pi)).sum()
        normal = -0.5 * ((DATA[:, None] - locs) / scale) ** 2 - free[1] - 0.5 * np.log(2 * np.pi)
        return -prior - np.logaddexp(np.log(w) + normal[:, 0], np.log(1 - w) + normal[:, 1]).sum()

    return minimize(loss, np.array([0.0, np.log(3.0), 1.0, 9.0]), method="BFGS").fun


def test_it_reaches_the_optimum_of_adam_in_far_fewer_evaluations():
    with jax.enable_x64(True):  # in single precision its last steps are lost in rounding
        adam, lbfgs = fit(optax.adam(0.05), 3000), fit("lbfgs", 3000)
    assert lbfgs.stopped == adam.stopped == "converged"
    assert lbfgs.losses[-1] == pytest.approx(best_by_scipy(), abs=1e-4)
    assert lbfgs.losses[-1] == pytest.approx(adam.losses[-1], abs=1e-3)
    for name, value in adam.params.items():
        np.testing.assert_allclose(lbfgs.params[name], value, atol=0.02)
    assert lbfgs.evaluations < adam.evaluations / 5


def valley() -> None:
    """Rosenbrock's, which is curved; the lowest point is (1, 1)."""
    x = mx.param("x", lambda key: -1.0 + 0.5 * jax.random.uniform(key))
    y = mx.param("y", 2.0)
    mx.factor("f", -((1 - x) ** 2) - 10 * (y - x**2) ** 2)


def descend(steps: int, optim: Any = "lbfgs", **options: Any) -> Any:
    svi = SVI(valley, lambda: None, optim, TraceEnum_ELBO())
    return svi.run(KEY, steps, progress_bar=False, **options)


def test_in_double_precision_the_gradient_vanishes():
    with jax.enable_x64(True):
        result = descend(500, tolerance=1e-12)
        assert result.losses.dtype == np.float64
        assert max(norms[-1] for norms in result.gradient_norms.values()) < 1e-5
        np.testing.assert_allclose([result.params["x"], result.params["y"]], 1.0, atol=1e-5)


def test_restarts_search_along_their_own_lines():
    svi = SVI(valley, lambda: None, "lbfgs", TraceEnum_ELBO())
    together = svi.run(KEY, 8, tolerance=0, num_restarts=3, progress_bar=False)
    assert together.restarts is not None
    for key, losses in zip(jax.random.split(KEY, 3), together.restarts.losses, strict=True):
        alone = svi.run(KEY, 8, init_state=svi.init(key), tolerance=0, progress_bar=False)
        np.testing.assert_allclose(losses, alone.losses, rtol=1e-3)
    assert len(np.unique(together.restarts.losses[:, 0])) == 3


def test_a_run_that_goes_on_is_one_long_run():
    whole, first = descend(12, tolerance=0), descend(5, tolerance=0)
    rest = descend(7, tolerance=0, init_state=first.state)
    np.testing.assert_allclose(np.concatenate([first.losses, rest.losses]), whole.losses, rtol=1e-3)


def test_what_the_last_search_found_is_forgotten_where_the_data_are_others():
    def model(x: Any) -> None:
        mx.factor("f", -jnp.sum((mx.param("loc", 0.0) - x) ** 2))

    svi = SVI(model, lambda x: None, "lbfgs", TraceEnum_ELBO())
    first = svi.run(KEY, 3, jnp.ones(2), progress_bar=False)
    rest = svi.run(KEY, 3, 50 * jnp.ones(2), init_state=first.state, progress_bar=False)
    assert rest.losses[0] == pytest.approx(2 * 49.0**2, rel=1e-3)
    _, loss = svi.update(first.state, 50 * jnp.ones(2))
    assert float(loss) == pytest.approx(2 * 49.0**2, rel=1e-3)


def test_batches_are_refused():
    def model(x: Any) -> None:
        mx.factor("f", -jnp.sum((mx.param("loc", 0.0) - x) ** 2))

    svi = SVI(model, lambda x: None, "lbfgs", TraceEnum_ELBO())
    with pytest.raises(mx.ModelError, match="searches along lines.*batches"):
        svi.run(KEY, 3, batches=[np.ones(2), np.zeros(2)], progress_bar=False)


def test_no_number_of_a_state_is_weakly_typed():
    """Such a one is a strong one after the first steps, and the whole loop would be compiled again."""
    svi = SVI(valley, lambda: None, "lbfgs", TraceEnum_ELBO())
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(svi.init(KEY).optim_state))


def test_an_optax_object_that_searches_is_treated_likewise():
    result = descend(500, optax.lbfgs(memory_size=5))
    assert result.stopped == "converged"
    assert result.evaluations > len(result.losses)
    backtracking = optax.chain(optax.sgd(0.02), optax.scale_by_backtracking_linesearch(15))
    assert np.diff(descend(10, backtracking, tolerance=0).losses).max() < 0


def test_the_loss_never_rises():
    assert np.diff(descend(30, tolerance=0).losses).max() < 1e-5


def test_a_noisy_objective_is_refused():
    guide = AutoNormal(mixture)
    svi = SVI(mixture, guide, "lbfgs", TraceEnum_ELBO())
    with pytest.raises(mx.ModelError, match=r"searches along lines.*AutoDelta"):
        svi.run(KEY, 5, DATA, progress_bar=False)


def test_a_subsampled_objective_is_refused():
    def model(x: Any) -> None:
        loc = mx.sample("locs", dist.Normal(0.0, 10.0))
        with mx.plate("data", len(x), subsample_size=2):
            mx.sample("x", dist.Normal(loc, 1.0), obs=mx.subsample(x, event_dim=0))

    svi = SVI(model, AutoDelta(model), "lbfgs", TraceEnum_ELBO())
    with pytest.raises(mx.ModelError, match="searches along lines"):
        svi.run(KEY, 5, DATA, progress_bar=False)


def test_an_optimiser_of_numpyro_is_no_optimiser_here():
    with pytest.raises(TypeError, match=r"optax.*NumPyro's names are in marginax\.optim"):
        SVI(valley, lambda: None, numpyro.optim.Adam(0.1), TraceEnum_ELBO())


def test_optimisers_are_objects_or_known_by_name():
    with pytest.raises(ValueError, match="'adam' is not known.*'lbfgs'"):
        SVI(mixture, AutoDelta(mixture), "adam", TraceEnum_ELBO())
