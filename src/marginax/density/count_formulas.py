"""Log probabilities of counts, exact to rounding also for large ones.

``x log(m) - m - log(x!)`` of a count of 10^8 subtracts numbers of 2 * 10^9, which single precision knows to
the nearest hundred. Loader (2000, "Fast and accurate computation of binomial probabilities") subtracts
them on paper. With Stirling's formula, ``log(x!) = x log(x) - x + excess(x)``, what remains is a
*deviance*, how far the count is from its mean, and the excess, about ``log(2 pi x) / 2``::

    log Poisson(x | m) = -deviance(x, m) - excess(x)

Both are accurate to rounding, and a deviance changes with the square of a rounding error in its mean.
Binomial, multinomial and negative binomial probabilities, and those with a Beta or Dirichlet variable
integrated out, are made of the same two parts: what they add to the ones shown is zero in sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln
from numpyro.distributions import (
    BetaBinomial,
    BetaNegativeBinomial,
    BinomialLogits,
    BinomialProbs,
    DirichletMultinomial,
    GammaPoisson,
    MultinomialLogits,
    MultinomialProbs,
    NegativeBinomial2 as NumpyroNegativeBinomial2,
    NegativeBinomialLogits,
    NegativeBinomialProbs,
    Poisson,
)

from marginax.distributions import NegativeBinomial2
from marginax.jaxpr.concrete import is_concrete

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_NEAR = 0.2  # of (mean - count) / (mean + count): up to there the series is used
_SERIES_TERMS = {4: 6, 8: 12}  # by the bytes of a number: 0.04^terms is below its rounding
_STIRLING_FROM = {4: 4.0, 8: 12.0}  # likewise: where the terms below are exact to rounding
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_RARE = 1e-25  # below, a share may be rounded to zero while its logarithm is not


@jax.custom_jvp
def _deviance(count: Array, mean: Array) -> Array:
    """Of a positive count and a positive mean.

    Its terms are of the size of the count where it is of the size of one, so near the mean it is a series
    in ``v = (mean - count) / (mean + count)``, from ``log(mean / count) = 2 artanh(v)``.
    """
    difference = mean - count
    v = difference / (mean + count)
    near = jnp.abs(v) < _NEAR
    square = jnp.where(near, v * v, 0)
    total = jnp.zeros_like(square)
    for term in range(_SERIES_TERMS[square.dtype.itemsize], 0, -1):
        total = total * square + 1 / (2 * term + 1)
    series = v * (difference - 2 * count * square * total)
    return jnp.where(near, series, count * jnp.log(count / mean) + difference)


@_deviance.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (count, mean), (d_count, d_mean) = primals, tangents
    by_mean = (mean - count) / mean
    return _deviance(count, mean), jnp.log(count / mean) * d_count + by_mean * d_mean


def deviance(count: Any, mean: Any) -> Array:
    """``count log(count / mean) + mean - count``; infinite for a count of what is impossible."""
    counts, possible = count > 0, mean > 0
    usual = counts & possible
    inside = _deviance(jnp.where(counts, count, 1.0), jnp.where(usual, mean, 1.0))
    return jnp.where(usual, inside, jnp.where(counts, jnp.inf, mean))


def _deviance_of_share(count: Any, total: Any, share: Any, log_share: Any) -> Array:
    """The deviance of a count from ``total * share``, also where that is too small for a number."""
    counts, rare = count > 0, share < _RARE
    never = counts & jnp.isneginf(log_share)
    log_share = jnp.where(never, 0.0, log_share)
    usual = deviance(count, total * jnp.where(rare & counts, 0.5, share))
    some = jnp.where(counts, count, 1.0)
    log_ratio = jnp.log(some / jnp.where(counts, total, 1.0)) - jnp.where(rare, log_share, 0.0)
    found = jnp.where(rare & counts, some * log_ratio - some + total * share, usual)
    return jnp.where(never, jnp.inf, found)


def excess(number: Any) -> Array:
    """``log(number!) - number log(number) + number``, of a number that is not negative."""
    some = jnp.where(number > 0, number, 1.0)
    is_large = some >= _STIRLING_FROM[some.dtype.itemsize]
    large = jnp.where(is_large, some, _STIRLING_FROM[some.dtype.itemsize])
    inverse = 1 / large
    square = inverse * inverse
    total = jnp.zeros_like(large)
    for coefficient in reversed(_STIRLING):
        total = total * square + coefficient
    stirling = _HALF_LOG_TWO_PI + 0.5 * jnp.log(large) + inverse * total
    small = jnp.where(is_large, 1.0, some)
    direct = gammaln(small + 1) - small * jnp.log(small) + small
    return jnp.where(number > 0, jnp.where(is_large, stirling, direct), 0.0)


def _poisson(fn: Any, value: Array) -> Array:
    return -deviance(value, jnp.asarray(fn.rate, value.dtype)) - excess(value)


def _ways(n: Any, value: Any) -> Array:
    return excess(n) - excess(value) - excess(n - value)


def _binomial_probs(fn: Any, value: Array) -> Array:
    n, p = jnp.asarray(fn.total_count, value.dtype), fn.probs
    return _ways(n, value) - deviance(value, n * p) - deviance(n - value, n * (1 - p))


def _of_logits(n: Any, value: Any, logits: Any) -> Array:
    """The deviances of a value and the rest of n, for log odds."""
    up = jax.nn.sigmoid(logits), jax.nn.log_sigmoid(logits)
    down = jax.nn.sigmoid(-logits), jax.nn.log_sigmoid(-logits)
    return _deviance_of_share(value, n, *up) + _deviance_of_share(n - value, n, *down)


def _binomial_logits(fn: Any, value: Array) -> Array:
    n = jnp.asarray(fn.total_count, value.dtype)
    return _ways(n, value) - _of_logits(n, value, jnp.asarray(fn.logits, value.dtype))


def _multinomial_probs(fn: Any, value: Array) -> Array:
    n, total = jnp.sum(value, -1, keepdims=True), jnp.sum(fn.probs, -1)
    each = excess(value) + deviance(value, n * fn.probs / total[..., None])
    found = excess(n[..., 0]) - jnp.sum(each, -1)
    # What traced probabilities add up to is taken off again by `parameters.density_correction`.
    return found if is_concrete(fn.probs) else found + n[..., 0] * jnp.log(total)


def _multinomial_logits(fn: Any, value: Array) -> Array:
    n = jnp.sum(value, -1, keepdims=True)
    log_share = jax.nn.log_softmax(fn.logits, -1)
    each = excess(value) + _deviance_of_share(value, n, jnp.exp(log_share), log_share)
    return excess(n[..., 0]) - jnp.sum(each, -1)


def _waiting(r: Any, value: Any) -> Array:
    """What negative binomial forms have beside the deviances: a binomial one whose last trial is fixed."""
    n = r + value
    return jnp.log(r / n) + excess(n) - excess(value) - excess(r)


def _negative_binomial_probs(fn: Any, value: Array) -> Array:
    r, p = jnp.asarray(fn.total_count, value.dtype), fn.probs
    n = r + value
    return _waiting(r, value) - deviance(value, n * p) - deviance(r, n * (1 - p))


def _negative_binomial_logits(fn: Any, value: Array) -> Array:
    r, logits = jnp.asarray(fn.total_count, value.dtype), jnp.asarray(fn.logits, value.dtype)
    n = r + value
    up = jax.nn.sigmoid(logits), jax.nn.log_sigmoid(logits)
    down = jax.nn.sigmoid(-logits), jax.nn.log_sigmoid(-logits)
    off = _deviance_of_share(value, n, *up) + _deviance_of_share(r, n, *down)
    return _waiting(r, value) - off


def _gamma_poisson(fn: Any, value: Array) -> Array:
    r, rate = jnp.asarray(fn.concentration, value.dtype), jnp.asarray(fn.rate, value.dtype)
    n = r + value
    off = deviance(value, n / (1 + rate)) + deviance(r, n / (1 + 1 / rate))
    return _waiting(r, value) - off


def _negative_binomial_mean(fn: Any, value: Array) -> Array:
    r, mean = jnp.asarray(fn.concentration, value.dtype), jnp.asarray(fn.expected, value.dtype)
    n = r + value
    off = deviance(value, n * mean / (mean + r)) + deviance(r, n * r / (mean + r))
    return _waiting(r, value) - off


def _urn(counts: Any, balls: Any) -> Array:
    """Dirichlet-multinomial: counts drawn from an urn, by kind on the last axis."""
    n, start = jnp.sum(counts, -1, keepdims=True), jnp.sum(balls, -1, keepdims=True)
    end, after = n + start, counts + balls
    share = after / end
    each = (
        (excess(after) - excess(counts) - excess(balls))
        - deviance(counts, n * share)
        - deviance(balls, start * share)
        + jnp.log(balls / after)
    )
    whole = excess(n) - excess(end) + excess(start) + jnp.log(end / start)
    return whole[..., 0] + jnp.sum(each, -1)


def _two_kinds(n: Any, value: Any, one: Any, zero: Any) -> Array:
    one, zero = jnp.broadcast_to(one, value.shape), jnp.broadcast_to(zero, value.shape)
    return _urn(jnp.stack([value, n - value], -1), jnp.stack([one, zero], -1).astype(value.dtype))


def _beta_binomial(fn: Any, value: Array) -> Array:
    n = jnp.asarray(fn.total_count, value.dtype)
    return _two_kinds(n, value, fn.concentration1, fn.concentration0)


def _beta_negative_binomial(fn: Any, value: Array) -> Array:
    r = jnp.asarray(fn.n, value.dtype)
    n = r + value
    return jnp.log(r / n) + _two_kinds(n, value, fn.concentration1, fn.concentration0)


def _dirichlet_multinomial(fn: Any, value: Array) -> Array:
    return _urn(value, jnp.asarray(fn.concentration, value.dtype))


COUNT_FORMULAS: dict[type, Callable[[Any, Array], Array]] = {
    Poisson: _poisson,
    BinomialProbs: _binomial_probs,
    BinomialLogits: _binomial_logits,
    MultinomialProbs: _multinomial_probs,
    MultinomialLogits: _multinomial_logits,
    NegativeBinomialProbs: _negative_binomial_probs,
    NegativeBinomialLogits: _negative_binomial_logits,
    NegativeBinomial2: _negative_binomial_mean,
    NumpyroNegativeBinomial2: _gamma_poisson,
    GammaPoisson: _gamma_poisson,
    BetaBinomial: _beta_binomial,
    BetaNegativeBinomial: _beta_negative_binomial,
    DirichletMultinomial: _dirichlet_multinomial,
}
"""By distribution, a function of it and a possible value of floating type: one number for each element
of the batch."""

_SMALL = 1000
"""Counts up to here may as well be done the short way: what it rounds off is below a thousandth."""

_SHORT_WHEN_SMALL = (
    Poisson,
    BinomialProbs,
    BinomialLogits,
    MultinomialProbs,
    MultinomialLogits,
)
"""Those with no other large numbers than their counts."""


def count_formula(
    fn: Any, largest: Callable[[], float | None]
) -> Callable[[Any, Array], Array] | None:
    """The formula of a distribution of counts that is worth its cost; None where the short one will do.

    Parameters
    ----------
    fn : Distribution
        Any, without layers around it.
    largest : callable
        The largest value that may occur, or None if that is not known now.
    """
    if type(fn) in _SHORT_WHEN_SMALL:
        known = largest()
        if known is not None and known <= _SMALL and _total(fn) <= _SMALL:
            return None
    return COUNT_FORMULAS.get(type(fn))


def _total(fn: Any) -> float:
    """How many trials there are at most, as far as that is known."""
    total = getattr(fn, "total_count", 0)
    return float(np.max(np.asarray(total), initial=0)) if is_concrete(total) else math.inf
