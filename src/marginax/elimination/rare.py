"""One draw from a few values of given probabilities, none of them too rare to be drawn rightly.

Looking a uniform number up among cumulative sums is exact only to the spacing of both: in single
precision a first value of probability 1e-30 comes once in eight million draws (the uniform number is
zero), and a value of 1e-9 that is added to 0.3 never comes. Here the unit interval is cut into 2^24
cells. A value gets the whole cells that fit into its probability; these are small whole numbers, which
add up exactly. What is left of each probability, less than one cell, is put together in a few more
cells, and there a second random number is looked up among the remainders, relative to their own sum.
All that rounding leaves over goes to the likeliest value, which it changes least.

With 32 bits in the second number, nothing is resolved below 2^-57: what is rarer is not drawn.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

CELL_BITS = 24  # whole numbers up to 2^24 are exact in single precision
FINE_BITS = 32


def draw_index(key: Any, weights: Array, axis: int) -> Array:
    """Draw an index along an axis.

    Parameters
    ----------
    key : PRNG key
        One draw is made for each element of the other axes.
    weights : array
        The probabilities; those along the axis add up to one, or are all zero.
    axis : int
        The axis.

    Returns
    -------
    array of int
        The drawn indices, without the axis. An index of probability zero is not drawn, unless all are.
    """
    shape = list(weights.shape)
    shape[axis] = 1
    coarse, fine = (jax.random.bits(k, shape, jnp.uint32) for k in jax.random.split(key))
    return index_at(weights, axis, coarse >> (32 - CELL_BITS), fine)


def index_at(weights: Array, axis: int, cell: Array, fine: Array) -> Array:
    """The index that belongs to a cell, a whole number of 24 bits, and a place in it, one of 32."""
    axis %= weights.ndim
    likeliest = jnp.argmax(weights, axis, keepdims=True)
    index = lax.broadcasted_iota(likeliest.dtype, weights.shape, axis)
    in_cells = jnp.where(index == likeliest, 0, weights * 2**CELL_BITS)
    whole = jnp.floor(in_cells)
    rest = in_cells - whole
    shared = jnp.ceil(jnp.sum(rest, axis, keepdims=True))  # the cells of the remainders
    cell = cell.astype(weights.dtype)
    within = (fine.astype(weights.dtype) + 0.5) * 2.0**-FINE_BITS
    is_shared = cell < shared
    sizes = jnp.where(is_shared, rest, whole)
    point = jnp.where(is_shared, within * shared, cell - shared)
    # Rounded, sums of remainders may grow, or fall, where nothing is added; so ask what has a size.
    reached = (sizes > 0) & (jnp.cumsum(sizes, axis) > point)
    found = jnp.any(reached, axis, keepdims=True)
    chosen = jnp.where(found, jnp.argmax(reached, axis, keepdims=True), likeliest)
    return jnp.squeeze(chosen, axis)
