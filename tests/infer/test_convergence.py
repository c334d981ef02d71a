"""A run stops when its loss has stopped falling, and not before."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO
from marginax.infer.svi.convergence import check_points, has_converged

KEY = jax.random.key(0)
WINDOW = 50


def converged(losses: Any, tolerance: float = 1e-4, is_noisy: bool = False) -> bool:
    return has_converged(np.atleast_2d(losses), WINDOW, tolerance, is_noisy)


def test_the_first_look_is_when_two_windows_are_full_and_the_looks_become_rarer():
    looks = list(itertools.takewhile(lambda n: n <= 2000, check_points(WINDOW)))
    assert looks[:4] == [100, 150, 200, 250]
    steps = np.diff(looks)
    assert (steps[1:] >= steps[:-1]).all()
    assert steps[-1] == looks[-2] // 10


@pytest.mark.parametrize("rate", [0.9, 0.99, 0.999])
def test_what_is_left_to_gain_is_of_the_order_of_the_tolerance(rate: float):
    """A loss that falls by powers: at the first look that says yes, the rest of the fall is small."""
    for n in check_points(WINDOW):
        losses = 100.0 * rate ** np.arange(n)
        if converged(losses):
            assert losses[-1] < 1e-3
            return
        assert n < 100_000


def test_a_loss_that_falls_slowly_but_surely_has_not_converged():
    assert not converged(-1e-5 * np.arange(1000.0))


def test_a_loss_that_rises_has_not_converged():
    assert not converged(0.01 * np.arange(1000.0))


def test_a_large_loss_in_single_precision_converges_within_its_rounding():
    rng = np.random.default_rng(0)
    wobble = 1e6 + rng.choice([-0.0625, 0.0, 0.0625], size=400)
    assert converged(wobble.astype(np.float32))
    assert not converged(1e6 + np.linspace(10.0, 0.0, 400).astype(np.float32))


def test_noise_is_allowed_for_only_where_the_loss_is_noisy():
    noise = np.random.default_rng(0).normal(size=4000)
    assert not converged(noise)
    assert converged(noise, is_noisy=True)
    # A fall of one standard deviation from one window of 1000 to the next is beyond all noise.
    assert not converged(noise - np.arange(4000) / 1000, is_noisy=True)


def test_all_runs_must_have_converged_but_for_those_that_have_failed():
    flat, falling = np.zeros(400), -np.arange(400.0)
    failed = np.where(np.arange(400) < 150, 0.0, np.nan)
    assert converged([flat, failed])
    assert not converged([flat, falling])
    assert not converged([failed, failed])


# -- in a run


def valley() -> None:
    mx.factor("f", -jnp.sum((mx.param("x", jnp.array([5.0, -3.0])) - 1.0) ** 2))


def noisy_valley() -> None:
    x = mx.param("x", 5.0)
    mx.factor("f", -(x**2) + jax.random.normal(mx.prng_key()))


def nothing() -> None:
    pass


def fit(model: Any, steps: int, optim: Any = None, **options: Any) -> Any:
    svi = SVI(model, nothing, optim or optax.sgd(0.1), TraceEnum_ELBO())
    return svi.run(KEY, steps, progress_bar=False, **options)


def test_a_deterministic_run_stops_at_its_optimum():
    result = fit(valley, 5000)
    assert result.stopped == "converged"
    assert len(result.losses) == result.evaluations < 1000
    assert all(len(norms) == len(result.losses) for norms in result.gradient_norms.values())
    np.testing.assert_allclose(result.params["x"], 1.0, atol=1e-3)


def test_a_run_without_tolerance_takes_all_its_steps():
    result = fit(valley, 700, tolerance=0)
    assert result.stopped == "num_steps"
    assert len(result.losses) == 700


def test_a_noisy_run_takes_all_its_steps_unless_told_a_tolerance():
    assert len(fit(noisy_valley, 1500).losses) == 1500
    result = fit(noisy_valley, 20_000, tolerance=1e-3)
    assert result.stopped == "converged"
    assert 500 <= len(result.losses) < 20_000


def test_a_guide_that_draws_makes_a_noisy_run_and_point_estimates_do_not():
    def model() -> None:
        mx.sample("x", dist.Normal(0.0, 1.0))

    def drawing() -> None:
        mx.sample("x", dist.Normal(mx.param("loc", 0.0), 1.0))

    def pointing() -> None:
        mx.sample("x", dist.Delta(mx.param("loc", 1.0)))

    for guide, stopped in ((drawing, "num_steps"), (pointing, "converged")):
        svi = SVI(model, guide, optax.sgd(0.1), TraceEnum_ELBO())
        assert svi.run(KEY, 400, progress_bar=False).stopped == stopped


def test_where_a_run_stops_does_not_depend_on_how_it_is_watched():
    silent = fit(valley, 5000)
    svi = SVI(valley, nothing, optax.sgd(0.1), TraceEnum_ELBO())
    watched = svi.run(KEY, 5000)
    np.testing.assert_array_equal(silent.losses, watched.losses)


def test_a_tolerance_is_a_number_of_nats():
    with pytest.raises(ValueError, match="tolerance"):
        fit(valley, 10, tolerance=-1.0)
