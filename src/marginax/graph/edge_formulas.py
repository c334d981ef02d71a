"""Log densities that stay exact at the ends of a support and of a parameter's range.

What `exact_formulas` does for probabilities and rates, these do for distributions given by logits and
for continuous ones. At an end of its support a density is the limit from inside, as in SciPy: it may be
zero (-inf), infinite (+inf), or, as under ``Beta(1, 1)`` or a flat Dirichlet, finite. Where it is
infinite its derivative means nothing, and zero is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as d
from jax import Array
from jax.scipy.special import betaln, gammaln

from marginax.graph.log_formulas import (
    counted,
    log_complement,
    log_of,
    log_power,
    log_sigmoid,
    log_sigmoids,
)


def _bernoulli_logits(fn: Any, value: Array) -> Array:
    return log_sigmoid((2 * value - 1) * fn.logits)


def _binomial_logits(fn: Any, value: Array) -> Array:
    n = jnp.asarray(fn.total_count, value.dtype)
    ways = gammaln(n + 1) - gammaln(value + 1) - gammaln(n - value + 1)
    one, none = log_sigmoids(jnp.asarray(fn.logits, value.dtype))
    return ways + counted(value, one) + counted(n - value, none)


def _geometric_probs(fn: Any, value: Array) -> Array:
    return counted(value, log_complement(fn.probs)) + log_of(fn.probs)


def _geometric_logits(fn: Any, value: Array) -> Array:
    one, none = log_sigmoids(jnp.asarray(fn.logits, value.dtype))
    return counted(value, none) + one


def _negative_binomial_ways(count: Any, value: Array) -> Array:
    return gammaln(value + count) - gammaln(count) - gammaln(value + 1)


def _negative_binomial_probs(fn: Any, value: Array) -> Array:
    n = jnp.asarray(fn.total_count, value.dtype)
    likely = counted(value, log_of(fn.probs)) + counted(n, log_complement(fn.probs))
    return _negative_binomial_ways(n, value) + likely


def _negative_binomial_logits(fn: Any, value: Array) -> Array:
    n = jnp.asarray(fn.total_count, value.dtype)
    one, none = log_sigmoids(jnp.asarray(fn.logits, value.dtype))
    likely = counted(value, one) + counted(n, none)
    return _negative_binomial_ways(n, value) + likely


def _multinomial(value: Array, log_probs: Array) -> Array:
    ways = gammaln(jnp.sum(value, -1) + 1) - jnp.sum(gammaln(value + 1), -1)
    return ways + jnp.sum(counted(value, log_probs), -1)


def _multinomial_probs(fn: Any, value: Array) -> Array:
    return _multinomial(value, log_of(fn.probs))


def _multinomial_logits(fn: Any, value: Array) -> Array:
    return _multinomial(value, _log_softmax(jnp.asarray(fn.logits, value.dtype)))


def _log_softmax(logits: Array) -> Array:
    impossible = jnp.isneginf(logits)
    normal = jax.nn.log_softmax(logits, -1, where=jnp.logical_not(impossible))
    return jnp.where(impossible, -jnp.inf, normal)


def _beta(fn: Any, value: Array) -> Array:
    a, b = fn.concentration1, fn.concentration0
    return log_power(a - 1, value) + log_power(b - 1, 1 - value) - betaln(a, b)


def _dirichlet(fn: Any, value: Array) -> Array:
    a = fn.concentration
    ways = gammaln(jnp.sum(a, -1)) - jnp.sum(gammaln(a), -1)
    each = log_power(a - 1, value)
    # Of a product of zeros and infinities (a vertex of a simplex, say) zero is taken.
    each = jnp.where(jnp.any(jnp.isneginf(each), -1, keepdims=True), -jnp.inf, each)
    return ways + jnp.sum(each, -1)


def _kumaraswamy(fn: Any, value: Array) -> Array:
    a, b = jnp.asarray(fn.concentration1), jnp.asarray(fn.concentration0)
    is_end = (value == 0) | (value == 1)
    inside = jnp.where(is_end, 0.5, value)
    logarithm = jnp.log(inside)
    rest = jnp.log(-jnp.expm1(a * logarithm))  # log(1 - value**a), exact also near one
    at_one = log_power(b - 1, jnp.where(value == 1, 0.0, 1.0))
    each = jnp.where(is_end, log_power(a - 1, value) + at_one, (a - 1) * logarithm + (b - 1) * rest)
    return jnp.log(a) + jnp.log(b) + each


def _log_uniform(fn: Any, value: Array) -> Array:
    return -jnp.log(value) - jnp.log(jnp.log(fn.high) - jnp.log(fn.low))


EDGE_FORMULAS: dict[type, Callable[[Any, Array], Array]] = {
    d.BernoulliLogits: _bernoulli_logits,
    d.BinomialLogits: _binomial_logits,
    d.GeometricProbs: _geometric_probs,
    d.GeometricLogits: _geometric_logits,
    d.NegativeBinomialProbs: _negative_binomial_probs,
    d.NegativeBinomialLogits: _negative_binomial_logits,
    d.MultinomialProbs: _multinomial_probs,
    d.MultinomialLogits: _multinomial_logits,
    d.Beta: _beta,
    d.Dirichlet: _dirichlet,
    d.Kumaraswamy: _kumaraswamy,
    d.LogUniform: _log_uniform,
}
"""By distribution, a function of it and a possible value of floating type."""
