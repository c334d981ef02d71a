"""Losses, and what they are compared with, for the tests of the ELBOs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from closeness import assert_mean, assert_same

from marginax.infer.elbo import TraceEnum_ELBO

KEY = jax.random.key(0)
DATA = np.array([0.3, -1.2, 2.5, 0.9])
LOCS = np.array([-1.0, 0.5, 2.0])
PARTICLES = 4000


def emptyguide(*args: Any) -> None:
    pass


def normal(x: Any, loc: Any, scale: Any) -> Any:
    return -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)


def table(*shape: int, seed: int = 1) -> Any:
    """Rows of probabilities."""
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), size=shape[:-1])


def loss(
    model: Any,
    guide: Any,
    params: Any,
    *args: Any,
    key: Any = KEY,
    particles: int = 1,
    elbo: Any = TraceEnum_ELBO,
) -> Any:
    estimator = elbo(num_particles=particles)
    return jax.jit(lambda k, p: estimator.loss(k, p, model, guide, *args))(key, params)


def assert_equal_with_gradient(
    model: Any, guide: Any, by_hand: Any, params: Any, *args: Any, elbo: Any = TraceEnum_ELBO
) -> None:
    """The negative bound and its gradient, against the formula written out."""
    params = jax.tree.map(jnp.asarray, params)
    ours = jax.jit(jax.value_and_grad(lambda p: loss(model, guide, p, *args, elbo=elbo)))
    theirs = jax.jit(jax.value_and_grad(lambda p: -by_hand(p)))
    (value, gradient), (expected, expected_gradient) = ours(params), theirs(params)
    assert_same(value, expected)
    assert gradient.keys() == expected_gradient.keys()
    for name in gradient:
        assert_same(*(along(params[name], g[name]) for g in (gradient, expected_gradient)))


def along(value: Any, gradient: Any) -> Any:
    """Of probabilities, a gradient in the directions in which they still add up to one; others are normalised."""
    value, gradient = np.asarray(value), np.asarray(gradient)
    are_probabilities = value.ndim > 0 and np.allclose(value.sum(-1), 1)
    return gradient - gradient.mean(-1, keepdims=True) if are_probabilities else gradient


def many_losses(
    model: Any, guide: Any, params: Any, *args: Any, elbo: Any = TraceEnum_ELBO
) -> tuple[Any, Any]:
    """Losses, and their gradients, of many keys."""
    params = jax.tree.map(jnp.asarray, params)

    def one(key: Any) -> Any:
        return jax.value_and_grad(
            lambda p: loss(model, guide, p, *args, key=key, elbo=elbo),
        )(params)

    return jax.jit(jax.vmap(one))(jax.random.split(KEY, PARTICLES))


def assert_unbiased(
    model: Any, guide: Any, by_hand: Any, params: Any, *args: Any, elbo: Any = TraceEnum_ELBO
) -> tuple[Any, Any]:
    """The average loss and gradient of many keys, against the formula of the bound written out."""
    params = jax.tree.map(jnp.asarray, params)
    expected, slopes = jax.jit(jax.value_and_grad(lambda p: -by_hand(p)))(params)
    losses, gradients = many_losses(model, guide, params, *args, elbo=elbo)
    assert_mean(losses, expected)
    for name in params:
        assert_mean(gradients[name], slopes[name])
    return losses, gradients
