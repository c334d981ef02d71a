"""JAX's default random numbers, computed without a loop.

The generator is Threefry-2x32 with twenty rounds (Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
as easy as 1, 2, 3", SC 2011). On a CPU JAX runs the rounds in a loop, which compiles quickly. A loop of XLA
costs eighty small operations for one number, though, and a transition of NUTS asks for a dozen keys and
numbers one after the other: for a small model they took more time than all the rest (measured: 8.3 us
a leapfrog, 3.6 without the loop). Here the rounds are written out, XLA makes one operation of them, and
the bits are the same.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import define_prng_impl

NAME = "threefry2x32"
"""JAX's name of the generator."""

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
"""The constant of the key schedule."""


def straight(key: Array) -> Array:
    """The same keys, of which numbers are drawn without a loop.

    Parameters
    ----------
    key : array of random keys
        Typed keys, of any shape.

    Returns
    -------
    array of random keys
        Those given if they are of another generator, or if the computation does not run on a CPU.

    Examples
    --------
    >>> import jax
    >>> from marginax.infer.mcmc.straight_threefry import straight
    >>> key = jax.random.key(1)
    >>> bool(jax.random.normal(straight(key)) == jax.random.normal(key))
    True
    """
    if jax.default_backend() != "cpu" or str(jax.random.key_impl(key)) != NAME:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_IMPLEMENTATION)


def _hash(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Encrypt a counter of two words with a key of two words."""
    words = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY))
    x, y = high + words[0], low + words[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << jnp.uint32(rotation)) | (y >> jnp.uint32(32 - rotation)))
        x = x + words[(group + 1) % 3]
        y = y + words[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def _counters(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The numbers 0, 1, 2, ... as two words each."""
    count = math.prod(shape)
    if count >= 2**32:
        raise ValueError(f"no more than 2**32 random numbers are drawn at once, not {count}.")
    low = jnp.arange(count, dtype=jnp.uint32).reshape(shape)
    return jnp.zeros_like(low), low


def _seed(seed: Any) -> Array:
    words = jnp.asarray(seed).astype(jnp.uint32)
    return jnp.stack([jnp.zeros_like(words), words])


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(_hash(key, *_counters(shape)), axis=-1)


def _fold_in(key: Array, data: Any) -> Array:
    return jnp.stack(_hash(key, *_seed(data)))


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    high, low = _hash(key, *_counters(shape))
    if bit_width == 64:
        return (high.astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)
    return (high ^ low).astype(jnp.dtype(f"uint{bit_width}"))


_IMPLEMENTATION: Any = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="straight threefry2x32",
    tag="sfry",
)
