"""Going along a time axis, and summing along it, in bounded memory and without losing digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

KEPT_AT_ONCE = 2**24
"""Elements that a backward pass may keep; beyond, parts of the series are computed twice."""


def scan_in_time(
    body: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    arrays: Sequence[Array],
    length: int,
    elements: int,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`jax.lax.scan` over the first axis of arrays, in bounded memory also for the backward pass.

    Parameters
    ----------
    body : callable
        From what is carried, and ``(t, slices)``, to what is carried and what is collected.
    init
        What is carried first.
    arrays : sequence of arrays
        Their first axis is time, or has size one where they are the same at all times.
    length : int
        Steps.
    elements : int
        That a backward pass keeps for a step.
    reverse : bool
        From the last step to the first; what is collected stands in the order of the steps all the same.
    """
    varying = [array for array in arrays if array.shape[0] != 1 or length == 1]

    def one(carry: Any, now: Any) -> tuple[Any, Any]:
        t, slices = now
        left = iter(slices)
        pieces = [next(left) if a.shape[0] != 1 or length == 1 else a[0] for a in arrays]
        return body(carry, (t, pieces))

    def several(carry: Any, now: Any) -> tuple[Any, Any]:
        return jax.lax.scan(one, carry, now, reverse=reverse)

    now = (jnp.arange(length), varying)
    if length * elements <= KEPT_AT_ONCE:
        return several(init, now)
    block = math.isqrt(length)
    whole = length - length % block
    main = jax.tree.map(lambda a: a[:whole].reshape((-1, block, *a.shape[1:])), now)
    left = jax.tree.map(lambda a: a[whole:], now)
    carry, rest = several(init, left) if reverse and whole < length else (init, None)
    carry, found = jax.lax.scan(jax.checkpoint(several), carry, main, reverse=reverse)
    found = jax.tree.map(lambda a: a.reshape((whole, *a.shape[2:])), found)
    if not reverse and whole < length:
        carry, rest = several(carry, left)
    if rest is not None:
        found = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), found, rest)
    return carry, found


def top_of(array: Array, n_plates: int) -> Array:
    """The largest entry over the variables, with their axes kept; zero where all are impossible.

    A constant, whatever it depends on: what is taken off is added again.
    """
    top = jnp.max(array, tuple(range(n_plates, array.ndim)), keepdims=True)
    return jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))


def power_of_two(array: Array) -> Array:
    """The largest power of two that is not larger, of normal positive numbers; zero of zero.

    Dividing by it rounds nothing. Over 100,000 steps the roundings of divisions would add up in a gradient.
    """
    bits, exponent = {
        jnp.dtype(jnp.float32): (jnp.int32, 0x7F800000),
        jnp.dtype(jnp.float64): (jnp.int64, 0x7FF0000000000000),
    }[array.dtype]
    kept = jax.lax.bitcast_convert_type(array, bits) & jnp.array(exponent, bits)
    return jax.lax.bitcast_convert_type(kept, array.dtype)


def sum_in_time(array: Array) -> Array:
    """Sum over the first axis, in two stages: so many numbers one by one would lose digits."""
    length = array.shape[0]
    block = math.isqrt(length)
    whole = length - length % block
    main = array[:whole].reshape((-1, block, *array.shape[1:]))
    return jnp.sum(jnp.sum(main, 1), 0) + jnp.sum(array[whole:], 0)
