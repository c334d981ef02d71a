"""Summing out a variable as a matrix product, where that wins and is as good as exact.

A variable that joins two factors, ``sum_k exp(a[i, k] + b[k, j])``, is a matrix product of
exponentials. Done directly it takes an exponential for every triple (i, k, j); as a matrix product,
one for every entry of a and of b, and the triples become multiplications, which processors are best
at.

The exponentials are taken relative to the largest entry of each row of a and each column of b. What is
lost by that: where a row's largest entry meets a column's smallest, all terms of a sum may be so small
that they vanish. So each sum is compared with the size at which vanished terms could matter; if one is
below it (and not because all its terms are impossible), the direct way is taken instead, with the
same program. The result is therefore that of the direct way, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

SMALLEST = 2**14
"""Elements of the joint array; below, a product saves nothing (measured on a CPU)."""

LEAST_SAVED = 24
"""How many times larger the joint array must be than the larger of the two factors."""


FEWEST_TERMS = 24
"""Terms of a sum of products, below which multiplying and adding is faster (measured on a CPU)."""


def two_factors(arrays: Sequence[Array], axis: int) -> tuple[Array, Array] | None:
    """The addends as two, if a product of two wins.

    Parameters
    ----------
    arrays : sequence of arrays
        Of equal rank; an axis of size one means that an array is constant along it.
    axis : int
        What is summed out.
    """
    shape = jnp.broadcast_shapes(*(array.shape for array in arrays))
    groups = _grouped(arrays, jnp.add)
    if len(groups) != 2 or any(group.shape[axis] == 1 for group in groups):
        return None
    elements = 1
    for size in shape:
        elements *= size
    if elements < SMALLEST or elements < LEAST_SAVED * max(group.size for group in groups):
        return None
    return groups[0], groups[1]


@jax.custom_batching.custom_vmap
def everywhere(truth: Array) -> Array:
    """A truth value; of a batch that is mapped over, whether it holds in all of it.

    For a choice between two ways. If it differed within a batch, both would be computed for all of it.
    """
    return truth


@everywhere.def_vmap
def _(size: int, is_batched: Any, truth: Array) -> tuple[Array, bool]:
    return everywhere(jnp.all(truth)), False


def sum_of_product(arrays: Sequence[Array], axis: int) -> Array:
    """``sum prod arrays`` along an axis; of large ones as a product of matrices.

    Parameters
    ----------
    arrays : sequence of arrays
        Of equal rank; an axis of size one means that an array is constant along it.
    axis : int
        What is summed out.
    """
    groups = _grouped(arrays, jnp.multiply)
    terms = max(group.shape[axis] for group in groups)
    if len(groups) == 2 and terms >= FEWEST_TERMS:
        return _sums(groups[0], groups[1], axis)
    return jnp.sum(reduce(jnp.multiply, groups), axis)


def _grouped(arrays: Sequence[Array], join: Any) -> list[Array]:
    """Small arrays join large ones that have all of their axes."""
    groups: list[Array] = []
    for array in sorted(arrays, key=lambda a: a.size, reverse=True):
        for i, group in enumerate(groups):
            if jnp.broadcast_shapes(group.shape, array.shape) == group.shape:
                groups[i] = join(group, array)
                break
        else:
            groups.append(array)
    return groups


def log_product(a: Array, b: Array, axis: int, directly: Any) -> Array:
    """The logarithm of ``sum exp(a + b)`` along an axis.

    Parameters
    ----------
    a, b : arrays
        Of equal rank, of size one where they are constant.
    axis : int
        What is summed out.
    directly : callable
        The same for the sum of the two, for where the product is not good enough.
    """
    product = _sums(*_relative(a, b, axis), axis=axis)
    terms = max(a.shape[axis], b.shape[axis])
    info = jnp.finfo(product.dtype)
    large = product >= terms * info.tiny / info.eps

    def is_possible() -> Array:
        """Where a sum has a term that is not zero."""
        left, right = ((x > -jnp.inf).astype(product.dtype) for x in (a, b))
        return _sums(left, right, axis) > 0

    fine = jax.lax.cond(
        everywhere(jnp.all(large)),
        lambda: jnp.array(True),
        lambda: everywhere(jnp.all(large | ~is_possible())),
    )
    return jax.lax.cond(
        fine, lambda a, b: _fast(a, b, axis), lambda a, b: directly(a + b, axis), a, b
    )


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _fast(a: Array, b: Array, axis: int) -> Array:
    total = _sums(*_relative(a, b, axis), axis=axis)
    return jnp.log(total) + jnp.squeeze(_top(a, axis) + _top(b, axis), axis)


@_fast.defjvp
def _(axis: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (a, b), (da, db) = primals, tangents
    left, right = _relative(a, b, axis)
    total = _sums(left, right, axis)
    # What is impossible contributes nothing, whatever its derivative.
    change = _sums(left * jnp.where(left == 0, 0, da), right, axis)
    change += _sums(left, right * jnp.where(right == 0, 0, db), axis)
    some = total > 0
    return _fast(a, b, axis), jnp.where(some, change / jnp.where(some, total, 1), 0)


def _relative(a: Array, b: Array, axis: int) -> tuple[Array, Array]:
    return jnp.exp(a - _top(a, axis)), jnp.exp(b - _top(b, axis))


def _top(x: Array, axis: int) -> Array:
    """The largest entry along the axis, as a constant; zero where all are impossible."""
    top = jnp.max(x, axis, keepdims=True)
    return jax.lax.stop_gradient(jnp.where(top == -jnp.inf, 0, top))


def _sums(a: Array, b: Array, axis: int) -> Array:
    """``sum a * b`` along an axis, as a matrix product."""
    names = [chr(ord("a") + i) for i in range(a.ndim)]
    spelled = [
        "".join(n for n, size in zip(names, x.shape, strict=True) if size > 1) for x in (a, b)
    ]
    shape = list(jnp.broadcast_shapes(a.shape, b.shape))
    kept = "".join(n for i, n in enumerate(names) if i != axis and shape[i] > 1)
    squeezed = [x.reshape([size for size in x.shape if size > 1]) for x in (a, b)]
    sums = jnp.einsum(f"{spelled[0]},{spelled[1]}->{kept}", *squeezed, precision="highest")
    del shape[axis]
    return sums.reshape(shape)
