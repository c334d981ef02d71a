"""The generator without a loop gives JAX's bits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marginax.infer.mcmc.straight_threefry import straight

KEY = jax.random.key(42)


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: jax.random.normal(key, (5, 3)),
        lambda key: jax.random.uniform(key),
        lambda key: jax.random.bernoulli(key, 0.3, (7,)),
        lambda key: jax.random.bits(key, (4,), jnp.uint8),
        lambda key: jax.random.bits(key, (0,)),
        lambda key: jax.random.key_data(jax.random.split(key, 3)),
        lambda key: jax.random.key_data(jax.random.split(key, (2, 2))[1, 0]),
        lambda key: jax.random.key_data(jax.random.fold_in(key, 2**31 + 3)),
        lambda key: jax.vmap(jax.random.normal)(jax.random.split(key, 4)),
    ],
)
def test_bits_are_those_of_jax(draw: Callable[[Any], Any]):
    np.testing.assert_array_equal(draw(straight(KEY)), draw(KEY))
    np.testing.assert_array_equal(jax.jit(draw)(straight(KEY)), draw(KEY))


def test_bits_are_those_of_jax_in_double_precision():
    with jax.enable_x64(True):
        for draw in (jax.random.normal, jax.random.exponential):
            np.testing.assert_array_equal(
                draw(straight(KEY), (5,), jnp.float64), draw(KEY, (5,), jnp.float64)
            )


def test_keys_of_other_generators_stay_what_they_are():
    key = jax.random.key(1, impl="rbg")
    assert straight(key) is key
