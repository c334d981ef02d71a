"""Log densities that stay exact at the ends of a support and of a parameter's range.

A probability of exactly zero or one, a rate of exactly zero, a logit that is infinite: once a discrete
variable is summed out they are common (`Poisson(rate * occupied)`, a certain entry of a table), and all
that is wrong with them is that a value becomes impossible. NumPyro moves such probabilities inwards by
the smallest number, which turns "impossible" into "once in 10^38", and a strong likelihood then makes it
the mode; or it divides zero by zero in the derivative. The formulas here give -inf to the value, zero to
the derivative of what is impossible, and the true derivative to the rest.

At an end of a continuous support a density is the limit from inside, as in SciPy: it may be zero (-inf),
infinite (+inf), or, as under ``Beta(1, 1)`` or a flat Dirichlet, finite. Where it is infinite its
derivative means nothing, and zero is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as d
from jax import Array
from jax.lax import stop_gradient
from jax.scipy.special import gammaln

from marginax.density.log_formulas import (
    counted,
    log_complement,
    log_of,
    log_power,
    log_sigmoid,
    log_sigmoids,
)


def _bernoulli_probs(fn: Any, value: Array) -> Array:
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
    return jnp.where(chosen > 0, logarithm + stop_gradient(off), -jnp.inf)


def _bernoulli_logits(fn: Any, value: Array) -> Array:
    return log_sigmoid((2 * value - 1) * fn.logits)


def _binomial(fn: Any, value: Array, one: Array, none: Array) -> Array:
    n = jnp.asarray(fn.total_count, value.dtype)
    ways = gammaln(n + 1) - gammaln(value + 1) - gammaln(n - value + 1)
    return ways + counted(value, one) + counted(n - value, none)


def _binomial_probs(fn: Any, value: Array) -> Array:
    return _binomial(fn, value, log_of(fn.probs), log_complement(fn.probs))


def _binomial_logits(fn: Any, value: Array) -> Array:
    return _binomial(fn, value, *log_sigmoids(jnp.asarray(fn.logits, value.dtype)))


def _poisson(fn: Any, value: Array) -> Array:
    rate = jnp.asarray(fn.rate, value.dtype)
    return counted(value, log_of(rate)) - gammaln(value + 1) - rate


def _geometric_probs(fn: Any, value: Array) -> Array:
    return counted(value, log_complement(fn.probs)) + log_of(fn.probs)


def _geometric_logits(fn: Any, value: Array) -> Array:
    one, none = log_sigmoids(jnp.asarray(fn.logits, value.dtype))
    return counted(value, none) + one


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
    # JAX's betaln has seven digits in double precision, too.
    constant = gammaln(a) + gammaln(b) - gammaln(a + b)
    return log_power(a - 1, value) + log_power(b - 1, 1 - value) - constant


def _dirichlet(fn: Any, value: Array) -> Array:
    a = fn.concentration
    ways = gammaln(jnp.sum(a, -1)) - jnp.sum(gammaln(a), -1)
    each = log_power(a - 1, value)
    # Of a product of zeros and infinities (a vertex of a simplex, say) zero is taken.
    each = jnp.where(jnp.any(jnp.isneginf(each), -1, keepdims=True), -jnp.inf, each)
    return ways + jnp.sum(each, -1)


def _kumaraswamy(fn: Any, value: Array) -> Array:
    a, b = jnp.asarray(fn.concentration1), jnp.asarray(fn.concentration0)
    is_zero, is_one = value == 0, value == 1
    inside = jnp.where(is_zero | is_one, 0.5, value)
    rest = jnp.log(-jnp.expm1(a * jnp.log(inside)))  # log(1 - value**a), exact also near one
    # At zero that is -(value**a), which matters to the derivative alone.
    at_zero = jnp.where(a >= 1, -(jnp.where(is_zero, value, 0.0) ** jnp.maximum(a, 1.0)), 0.0)
    right = (b - 1) * jnp.where(is_zero, at_zero, rest)
    right = jnp.where(is_one, log_power(b - 1, jnp.where(is_one, 0.0, 1.0)), right)
    return jnp.log(a) + jnp.log(b) + log_power(a - 1, value) + right


def _log_uniform(fn: Any, value: Array) -> Array:
    return -jnp.log(value) - jnp.log(jnp.log(fn.high) - jnp.log(fn.low))


def _truncated_power_law(fn: Any, value: Array) -> Array:
    power = jnp.asarray(fn.alpha + 1, value.dtype)
    low, high = jnp.asarray(fn.low, value.dtype), jnp.asarray(fn.high, value.dtype)
    has_low = low > 0
    ratio = jnp.where(has_low, jnp.log(high) - jnp.log(jnp.where(has_low, low, 1.0)), jnp.inf)
    # The integral of value**alpha is high**power * (1 - exp(-power * ratio)) / power: near a power of
    # zero its series, and from zero on just high**power / power.
    exponent = jnp.where(has_low, power * jnp.where(has_low, ratio, 1.0), 1.0)
    small = jnp.abs(exponent) < 1e-3
    safe = jnp.where(small, 1.0, exponent)
    scaled = jnp.where(
        small, 1 - exponent / 2 + exponent**2 / 6 - exponent**3 / 24, -jnp.expm1(-safe) / safe
    )
    positive = jnp.where(has_low, 1.0, power)
    whole = jnp.log1p(-(jnp.where(has_low, 0.0, low / high) ** positive)) - jnp.log(positive)
    share = jnp.where(has_low, jnp.log(scaled) + jnp.log(jnp.where(has_low, ratio, 1.0)), whole)
    return log_power(fn.alpha, value) - power * jnp.log(high) - share


def _relaxed_bernoulli(fn: Any, value: Array) -> Array:
    t, rest = fn.temperature, 1 - value
    logits = jnp.asarray(fn.logits, value.dtype)
    most = jnp.maximum(logits, 0.0)
    total = most + jnp.log(jnp.exp(logits - most) * rest**t + jnp.exp(-most) * value**t)
    return jnp.log(t) + logits + log_power(t - 1, value) + log_power(t - 1, rest) - 2 * total


def _polya_gamma(fn: Any, value: Array) -> Array:
    is_end = value == 0
    x = jnp.where(is_end, 1.0, value)[..., None]
    odd = 2.0 * jnp.arange(fn.num_log_prob_terms) + 1.0
    terms = jnp.log(odd) - 0.125 * odd**2 / x  # with alternating signs
    first = terms[..., :1]
    signs = jnp.where(jnp.arange(fn.num_log_prob_terms) % 2 == 0, 1.0, -1.0)
    rest = jnp.log(jnp.sum(signs * jnp.exp(terms - first), -1))
    found = first[..., 0] + rest - 1.5 * jnp.log(x[..., 0]) - 0.5 * jnp.log(2 * jnp.pi)
    return jnp.where(is_end, -jnp.inf, found)


EDGE_FORMULAS: dict[type, Callable[[Any, Array], Array]] = {
    d.BernoulliProbs: _bernoulli_probs,
    d.BernoulliLogits: _bernoulli_logits,
    d.BinomialProbs: _binomial_probs,
    d.BinomialLogits: _binomial_logits,
    d.Poisson: _poisson,
    d.GeometricProbs: _geometric_probs,
    d.GeometricLogits: _geometric_logits,
    d.MultinomialProbs: _multinomial_probs,
    d.MultinomialLogits: _multinomial_logits,
    d.Beta: _beta,
    d.Dirichlet: _dirichlet,
    d.Kumaraswamy: _kumaraswamy,
    d.LogUniform: _log_uniform,
    d.DoublyTruncatedPowerLaw: _truncated_power_law,
    d.RelaxedBernoulliLogits: _relaxed_bernoulli,
    d.TruncatedPolyaGamma: _polya_gamma,
}
"""By distribution, a function of it and a possible value of floating type."""
