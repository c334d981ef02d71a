"""Log probabilities that stay exact where a parameter is at the edge of its range.

A probability of exactly zero or one, a rate of exactly zero: once a discrete variable is summed out
they are common (`Poisson(rate * occupied)`, a certain entry of a table), and all that is wrong with
them is that a value becomes impossible. NumPyro moves such probabilities inwards by the smallest
number, which turns "impossible" into "once in 10^38", and a strong likelihood then makes it the
mode; or it divides zero by zero in the derivative. The formulas here give -inf to the value, zero to
the derivative of what is impossible, and the true derivative to the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import gammaln
from numpyro.distributions import BernoulliProbs, BinomialProbs, Poisson


def _times_log(count: Any, probability: Any) -> Array:
    """``count * log(probability)``: 0 for no count, -inf for a count of what is impossible."""
    counts = count > 0
    possible = probability > 0
    logarithm = jnp.log(jnp.where(counts & possible, probability, 1.0))
    return jnp.where(counts & jnp.logical_not(possible), -jnp.inf, count * logarithm)


def _times_log_complement(count: Any, probability: Any) -> Array:
    """``count * log(1 - probability)``, in the same way."""
    counts = count > 0
    possible = probability < 1
    logarithm = jnp.log1p(-jnp.where(counts & possible, probability, 0.0))
    return jnp.where(counts & jnp.logical_not(possible), -jnp.inf, count * logarithm)


def _bernoulli(fn: Any, value: Array) -> Array:
    """One logarithm, of the probability of what is observed."""
    p = jnp.asarray(fn.probs, value.dtype)
    rest = 1 - p
    chosen = jnp.where(value > 0, p, rest)
    logarithm = jnp.log(jnp.where(chosen > 0, chosen, 1.0))
    # Of a small p, 1 - p has lost digits. What that does to its logarithm is known (Kahan): the ratio of
    # log(1 - p) to p hardly changes with p. The derivative has lost nothing.
    kept = rest - 1  # minus what is left of p
    exact = jnp.where(kept < 0, logarithm * (p / jnp.where(kept < 0, -kept, 1.0)), -p)
    off = jnp.where((value > 0) | (p >= 0.5), 0.0, exact - logarithm)
    return jnp.where(chosen > 0, logarithm + lax.stop_gradient(off), -jnp.inf)


def _binomial(fn: Any, value: Array) -> Array:
    n = jnp.asarray(fn.total_count, value.dtype)
    ways = gammaln(n + 1) - gammaln(value + 1) - gammaln(n - value + 1)
    return ways + _times_log(value, fn.probs) + _times_log_complement(n - value, fn.probs)


def _poisson(fn: Any, value: Array) -> Array:
    rate = jnp.asarray(fn.rate, value.dtype)
    return _times_log(value, rate) - gammaln(value + 1) - rate


FORMULAS: dict[type, Callable[[Any, Array], Array]] = {
    BernoulliProbs: _bernoulli,
    BinomialProbs: _binomial,
    Poisson: _poisson,
}
"""By distribution, a function of it and a possible value of floating type."""
