"""Semirings: three ways to take a variable out of a factor, one formula for their derivative.

Elimination only ever does two things to logarithms: it adds factors up, and it *reduces* one
variable. What the reduction is decides what comes out. All three have a derivative of one shape, a
weighted sum over the variable's values::

    d reduce(x) = sum_k  weight_k dx_k

=======  =========  ==================================  ==============================================
name     value      weights                             d log Z / d(zero added to a variable's factor)
=======  =========  ==================================  ==============================================
sum      logsumexp  softmax                             its exact posterior marginal
max      max        one-hot of the argmax               its value in the joint mode
sample   logsumexp  one-hot of a categorical draw       its value in one exact joint draw
=======  =========  ==================================  ==============================================

The last column is the chain rule at work: a variable's weights are conditional on what is
eliminated later, and the derivative multiplies the conditionals along the path, which is exactly
how a backward pass reads marginals, the mode or a draw from a forward one (for the sum: Darwiche,
2003, "A Differential Approach to Inference in Bayesian Networks").

One more rule has the weights of the sum and adds the entropy of those weights to the derivative,
``sum_k weight_k (dx_k - log weight_k)``. Along the plan, then, conditional entropies add up, weighted
by what is upstream, to the entropy of the joint posterior: its chain rule. That needs no large
numbers to cancel, as the difference of log Z and an expected log density would.

The rules are written for forward-mode (`jax.custom_jvp`) because those of the table are linear in ``dx`` and so serve
reverse mode too, and because an expectation is a forward derivative (see `infer.elbo.expectation`). A weight of
zero beats any derivative, also an infinite one: impossible values (-inf) contribute nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from marginax.elimination.products import log_product, two_factors
from marginax.elimination.rare import draw_index


@dataclass(frozen=True)
class Semiring:
    """How to reduce one variable: ``reduce(array, axis, step)``."""

    name: str
    reduce: Callable[[Array, int, int], Array]
    product: Callable[[Array, Array, int], Array] | None = None
    """How to reduce a sum of two arrays without forming it: ``product(a, b, axis)``, if there is a way."""
    key: Any = None
    """What is drawn is drawn with keys folded in from this one."""

    def at(self, t: Any) -> Semiring:
        """The same for step ``t`` of a loop, where what is drawn has keys of its own."""
        return self if self.key is None else sample_semiring(jax.random.fold_in(self.key, t))

    def eliminate(self, arrays: Sequence[Array], axis: int, step: int) -> Array:
        """Add up arrays (of size one where they are constant) and reduce one variable."""
        pair = two_factors(arrays, axis) if self.product is not None else None
        if pair is not None and self.product is not None:
            return self.product(*pair, axis)
        return self.reduce(total_of(arrays), axis, step)


def total_of(arrays: Sequence[Any]) -> Any:
    """The sum of arrays of equal rank, of size one where they are constant; of NumPy's it is NumPy's."""
    total = arrays[0]
    for array in arrays[1:]:
        if not (isinstance(total, np.ndarray) and isinstance(array, np.ndarray)):
            shape = np.broadcast_shapes(total.shape, array.shape)
            dtype = jnp.promote_types(total.dtype, array.dtype)
            total, array = (
                lax.broadcast_in_dim(lax.convert_element_type(a, dtype), shape, range(len(shape)))
                for a in (total, array)
            )
            total = lax.add(total, array)
        else:
            total = total + array
    return total


def _reduction(
    value: Callable[[Array, int], Array], weights: Callable[[Array, Array, int, Any], Array]
) -> Callable[[Array, Any, int], Array]:
    @partial(jax.custom_jvp, nondiff_argnums=(2,))
    def reduce(x: Array, key: Any, axis: int) -> Array:
        return value(x, axis)

    @reduce.defjvp
    def _(axis: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
        x, key = primals
        total = reduce(x, key, axis)
        weight = weights(x, total, axis, key)
        nothing = lax.full_like(weight, 0)
        change = lax.select(lax.eq(weight, nothing), nothing, tangents[0])
        return total, lax.reduce_sum(lax.mul(weight, change), (axis,))

    return reduce


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _reduce_entropy(x: Array, axis: int) -> Array:
    return _logsumexp(x, axis)


@_reduce_entropy.defjvp
def _(axis: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x,), (change,) = primals, tangents
    total = _reduce_sum(x, None, axis)  # so that the entropy has a derivative of its own
    weight = _softmax(x, total, axis, None)
    some = weight > 0
    log_weight = jnp.where(some, x, 0) - jnp.where(some, jnp.expand_dims(total, axis), 0)
    return total, jnp.sum(weight * (jnp.where(some, change, 0) - log_weight), axis)


def _max(x: Array, axis: int) -> Array:
    return jnp.max(x, axis)


def _relative(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Exponentials relative to the largest, their sum, and the largest.

    Value and weights are both made of these, so that a program with both takes each exponential once.
    """
    if x.dtype.kind in "iub":
        x = lax.convert_element_type(x, float)
    top = _along(lax.reduce_max(x, (axis,)), axis)
    top = lax.stop_gradient(lax.select(lax.is_finite(top), top, lax.full_like(top, 0)))
    # The choice keeps an infinite derivative of an impossible value out of second derivatives.
    nothing = lax.full_like(x, -jnp.inf)
    numbers = lax.exp(lax.select(lax.eq(x, nothing), nothing, lax.sub(x, _like(top, x))))
    return numbers, _along(lax.reduce_sum(numbers, (axis,)), axis), top


def _along(x: Array, axis: int) -> Array:
    return lax.expand_dims(x, [axis])


def _like(x: Array, other: Array) -> Array:
    return lax.broadcast_in_dim(x, other.shape, range(other.ndim))


def _logsumexp(x: Array, axis: int) -> Array:
    _, total, top = _relative(x, axis)
    return lax.squeeze(lax.add(lax.log(total), top), [axis])


def _softmax(x: Array, total: Array, axis: int, key: Any) -> Array:
    numbers, total, _ = _relative(x, axis)
    nothing = lax.full_like(total, 0)
    some = lax.select(lax.eq(total, nothing), lax.full_like(total, 1), total)
    return lax.div(numbers, _like(some, x))


def _one_hot(chosen: Array, x: Array, total: Array, axis: int) -> Array:
    hot = jax.nn.one_hot(chosen, x.shape[axis], axis=axis, dtype=x.dtype)
    return jnp.where(jnp.expand_dims(total == -jnp.inf, axis), 0, hot)


def _argmax(x: Array, total: Array, axis: int, key: Any) -> Array:
    return _one_hot(jnp.argmax(x, axis), x, total, axis)


def _draw(x: Array, total: Array, axis: int, key: Any) -> Array:
    return _one_hot(draw_index(key, _softmax(x, total, axis, key), axis), x, total, axis)


_reduce_sum = _reduction(_logsumexp, _softmax)
_reduce_max = _reduction(_max, _argmax)
_reduce_sample = _reduction(_logsumexp, _draw)

SUM = Semiring(
    "sum",
    lambda x, axis, step: _reduce_sum(x, None, axis),
    lambda a, b, axis: log_product(a, b, axis, lambda x, axis: _reduce_sum(x, None, axis)),
)
"""Sum over the variable: the marginal."""

MAX = Semiring("max", lambda x, axis, step: _reduce_max(x, None, axis))
"""Maximise over the variable: the joint mode."""

ENTROPY = Semiring("entropy", lambda x, axis, step: _reduce_entropy(x, axis))
"""Sum over the variable; the forward derivative along zeros is the entropy of the posterior."""


def sample_semiring(key: Any) -> Semiring:
    """Sum over the variable, with a derivative that draws from it.

    Parameters
    ----------
    key : PRNG key
        Each elimination step draws with a key of its own, folded in from its number.
    """
    return Semiring(
        "sample",
        lambda x, axis, step: _reduce_sample(x, jax.random.fold_in(key, step), axis),
        key=key,
    )
