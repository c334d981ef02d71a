"""The optimisers by NumPyro's names take NumPyro's steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest

import marginax as mx

START = {"x": jnp.array([1.0, -2.0, 30.0]), "y": jnp.array(0.5)}
STEPS = 25


def loss(values: Any) -> Any:
    return jnp.sum(jnp.cosh(values["x"] / 10)) + values["y"] ** 4


def ours(optimiser: Any) -> Any:
    state, values = optimiser.init(START), START
    for _ in range(STEPS):
        updates, state = optimiser.update(jax.grad(loss)(values), state, values)
        values = optax.apply_updates(values, updates)
    return values


def theirs(optimiser: Any) -> Any:
    state = optimiser.init(START)
    for _ in range(STEPS):
        values = optimiser.get_params(state)
        state = optimiser.update(jax.grad(loss)(values), state)
    return optimiser.get_params(state)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Adam", {"step_size": 0.1}),
        ("Adam", {"step_size": 0.1, "b1": 0.8, "b2": 0.99}),
        ("ClippedAdam", {"step_size": 0.1, "clip_norm": 0.3}),
        ("RMSProp", {"step_size": 0.05, "gamma": 0.8}),
        ("Momentum", {"step_size": 0.1, "mass": 0.7}),
        ("SGD", {"step_size": 0.1}),
    ],
)
def test_the_steps_are_numpyros(name: str, options: Any):
    actual = ours(getattr(mx.optim, name)(**options))
    expected = theirs(getattr(numpyro.optim, name)(**options))
    for site in START:
        np.testing.assert_allclose(actual[site], expected[site], rtol=1e-4)


def test_adagrads_steps_shrink_with_the_root_of_the_sum_of_squares():
    optimiser = mx.optim.Adagrad(0.1)
    state, gradient, squares = optimiser.init(jnp.zeros(())), jnp.array(3.0), 0.1
    for _ in range(5):
        update, state = optimiser.update(gradient, state)
        squares += 9.0
        assert float(update) == pytest.approx(-0.1 * 3.0 / np.sqrt(squares), rel=1e-5)


def test_a_step_size_may_be_a_schedule():
    optimiser = mx.optim.SGD(optax.exponential_decay(1.0, 1, 0.5))
    state, taken = optimiser.init(jnp.zeros(())), []
    for _ in range(3):
        update, state = optimiser.update(jnp.array(1.0), state)
        taken.append(float(update))
    assert taken == [-1.0, -0.5, -0.25]
