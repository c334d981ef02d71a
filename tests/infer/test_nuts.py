"""NUTS as a pair of functions: `warm_up` finds a tuning, `step` makes a transition."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marginax.infer import NUTS

KEY = jax.random.key(0)
COVARIANCE = np.array([[1.0, 9.0], [9.0, 100.0]])


def log_density(position: Any) -> Any:
    """Two normal variables, one ten times as wide as the other, correlated by 0.9."""
    x = jnp.stack([position["a"], position["b"]])
    return -0.5 * x @ jnp.linalg.inv(jnp.asarray(COVARIANCE)) @ x


START = {"a": jnp.array(1.0), "b": jnp.array(-3.0)}


def model() -> None:
    pass


def warm_up(steps: int, **options: Any) -> Any:
    kernel = NUTS(model, **options)
    return jax.jit(lambda key: kernel.warm_up(log_density, key, START, steps))(KEY)


def test_without_warm_up_the_step_size_is_the_given_one_and_the_mass_is_one():
    for dense, mass in ((False, np.ones(2)), (True, np.eye(2))):
        state, tuning = warm_up(0, step_size=0.3, dense_mass=dense)
        assert float(tuning.step_size) == np.float32(0.3)
        np.testing.assert_array_equal(tuning.inverse_mass_matrix, mass)
        assert state.position == START


@pytest.fixture(scope="module")
def dense() -> Any:
    return warm_up(1000, dense_mass=True)


def test_a_dense_warm_up_finds_the_covariance(dense: Any):
    _, tuning = dense
    scales = np.sqrt(np.diag(COVARIANCE))
    relative = np.asarray(tuning.inverse_mass_matrix) / np.outer(scales, scales)
    # The last window has some 500 draws: a variance errs by sqrt(2 / 500) of itself.
    np.testing.assert_allclose(relative, [[1.0, 0.9], [0.9, 1.0]], atol=5 * np.sqrt(2 / 500))


def test_a_higher_acceptance_rate_takes_smaller_steps():
    """Of one chain it is a random number: the medians of several are compared."""
    sizes = []
    for p in (0.6, 0.8, 0.95):
        kernel = NUTS(model, target_accept_prob=p)
        keys = jax.random.split(KEY, 16)
        _, tuning = jax.jit(
            jax.vmap(lambda key, kernel=kernel: kernel.warm_up(log_density, key, START, 300))
        )(keys)
        sizes.append(float(jnp.median(tuning.step_size)))
    assert sizes[0] > sizes[1] > sizes[2]


def test_steps_after_warm_up_have_the_right_moments(dense: Any):
    state, tuning = dense
    kernel = NUTS(model, dense_mass=True)

    def transition(state: Any, key: Any) -> Any:
        state, info = kernel.step(log_density, tuning, key, state)
        return state, (state.position, info)

    _, (draws, info) = jax.jit(lambda keys: jax.lax.scan(transition, state, keys))(
        jax.random.split(KEY, 4000)
    )
    assert set(info) == {"accept_prob", "diverging", "energy", "num_steps", "potential_energy"}
    assert not info["diverging"].any()
    # The average of the step sizes tried is somewhat smaller than the one asked for, as in Stan.
    assert 0.75 < float(info["accept_prob"].mean()) < 0.97
    x = np.stack([draws["a"], draws["b"]])
    expected = jax.vmap(lambda a, b: -log_density({"a": a, "b": b}))(*x)
    np.testing.assert_allclose(info["potential_energy"], expected, rtol=1e-3, atol=1e-5)
    assert (info["energy"] >= info["potential_energy"] - 1e-4).all()
    # Draws of a well-tuned NUTS on a Gaussian are as good as a tenth as many independent ones, at least.
    scales = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose(x.mean(axis=1) / scales, 0.0, atol=5 / np.sqrt(400))
    relative = np.cov(x) / np.outer(scales, scales)
    np.testing.assert_allclose(relative, [[1.0, 0.9], [0.9, 1.0]], atol=5 * np.sqrt(2 / 400))


@pytest.mark.parametrize("steps", [1, 5, 19])
def test_the_shortest_warm_ups_do_something_finite(steps: int):
    _, tuning = warm_up(steps)
    assert tuning.step_size > 0
    assert jnp.isfinite(tuning.inverse_mass_matrix).all()


def test_a_tree_is_no_deeper_than_allowed():
    kernel = NUTS(model, step_size=1e-3, max_tree_depth=3)
    state, tuning = warm_up(0, step_size=1e-3)
    _, info = jax.jit(lambda key: kernel.step(log_density, tuning, key, state))(KEY)
    assert info["num_steps"] == 2**3 - 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target_accept_prob": 1.0}, "target_accept_prob"),
        ({"target_accept_prob": 0.0}, "target_accept_prob"),
        ({"step_size": 0.0}, "step_size"),
        ({"max_tree_depth": 0}, "max_tree_depth"),
    ],
)
def test_options_are_checked(options: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        NUTS(model, **options)


def test_a_model_is_a_function():
    with pytest.raises(TypeError, match="NUTS"):
        NUTS("model")  # pyright: ignore
