"""Log probabilities of half lines and intervals, exact far out in the tails, and what stands on them.

A truncated distribution is divided by the probability of where it may lie, a censored value has the
probability of where it may have been. Computed from a distribution function alone, such a probability
is zero, or one, from a few standard deviations on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as d
from jax import Array
from jax.scipy.special import gammaincc, log_ndtr

from marginax.density.distribution_layers import unwrapped
from marginax.density.log_formulas import log_complement, log_of, log_one_minus_exp, log_sigmoid
from marginax.density.true_supports import feasible

Density = Callable[[Any, Any], Array]


def _below_laplace(z: Array) -> Array:
    below = z < 0
    half = jnp.log(2.0)
    return jnp.where(below, z - half, jnp.log1p(-0.5 * jnp.exp(-jnp.where(below, 0.0, z))))


def _below_soft_laplace(z: Array) -> Array:
    far = z < -15.0  # from here on the arc tangent is its argument
    return jnp.log(2 / jnp.pi) + jnp.where(
        far, z, jnp.log(jnp.arctan(jnp.exp(jnp.where(far, 0.0, z))))
    )


_BELOW_STANDARD: dict[type, Callable[[Array], Array]] = {
    d.Normal: log_ndtr,
    d.Logistic: log_sigmoid,
    d.Laplace: _below_laplace,
    d.Cauchy: lambda z: jnp.log(jnp.arctan2(1.0, -z) / jnp.pi),
    d.SoftLaplace: _below_soft_laplace,
}
"""Of distributions that are symmetric about zero, the log probability below a point, at scale one."""

_ABOVE: dict[type, Callable[[Any, Array], Array]] = {
    d.Exponential: lambda fn, x: -fn.rate * x,
    d.Weibull: lambda fn, x: -((x / fn.scale) ** fn.concentration),
    d.Gamma: lambda fn, x: log_of(gammaincc(fn.concentration, fn.rate * x)),
    d.Chi2: lambda fn, x: log_of(gammaincc(fn.concentration, fn.rate * x)),
    d.Gompertz: lambda fn, x: -fn.concentration * jnp.expm1(fn.rate * x),
    d.HalfNormal: lambda fn, x: jnp.log(2.0) + log_ndtr(-x / fn.scale),
    d.LogNormal: lambda fn, x: log_ndtr((fn.loc - jnp.log(x)) / fn.scale),
    d.Pareto: lambda fn, x: fn.alpha * (jnp.log(fn.scale) - jnp.log(x)),
}
"""The log probability above a point of the support."""

_BELOW: dict[type, Callable[[Any, Array], Array]] = {
    d.LogNormal: lambda fn, x: log_ndtr((jnp.log(x) - fn.loc) / fn.scale),
}
"""The log probability below a point of the support."""


def log_below(fn: Any, value: Any) -> Array:
    """The log probability of up to a value, which may be infinite or outside of the support."""
    return _tail(fn, value, -1)


def log_above(fn: Any, value: Any) -> Array:
    """The log probability of a value and all beyond it."""
    return _tail(fn, value, 1)


def _tail(fn: Any, value: Any, side: int) -> Array:
    fn, value = unwrapped(fn), jnp.asarray(value, jnp.result_type(float))
    inside = fn.support(value)
    possible = feasible(fn.support, value)
    # Where it lies outside, on which side.
    has_all = (value > possible) if side < 0 else (value < possible)
    outside = jnp.where(has_all, 0.0, -jnp.inf)
    x: Any = jnp.where(inside, value, possible)
    kind, exact = type(fn), _BELOW if side < 0 else _ABOVE
    if kind in _BELOW_STANDARD:
        found = _BELOW_STANDARD[kind](-side * (x - fn.loc) / fn.scale)
    elif kind is d.StudentT:  # symmetric too: above lies what the mirrored one has below
        found = log_of(fn.cdf(x if side < 0 else 2 * fn.loc - x))
    elif kind in exact:
        found = exact[kind](fn, x)
    elif side < 0 and kind in _ABOVE:
        found = log_one_minus_exp(_ABOVE[kind](fn, x))
    else:
        found = log_of(fn.cdf(x)) if side < 0 else log_complement(fn.cdf(x))
    return jnp.where(inside, found, outside)


def log_between(fn: Any, low: Any, high: Any) -> Array:
    """The log probability between two ends, from the side on which it loses nothing."""
    is_right = log_below(fn, low) > log_above(fn, high)
    more = jnp.where(is_right, log_above(fn, low), log_below(fn, high))
    less = jnp.where(is_right, log_above(fn, high), log_below(fn, low))
    return more + log_one_minus_exp(less - more)


def _left_truncated(fn: Any, value: Any, density: Density) -> Array:
    return density(fn.base_dist, value) - log_above(fn.base_dist, fn.low)


def _right_truncated(fn: Any, value: Any, density: Density) -> Array:
    return density(fn.base_dist, value) - log_below(fn.base_dist, fn.high)


def _truncated(fn: Any, value: Any, density: Density) -> Array:
    return density(fn.base_dist, value) - log_between(fn.base_dist, fn.low, fn.high)


def _left_censored(fn: Any, value: Any, density: Density) -> Array:
    return jnp.where(fn.censored, log_below(fn.base_dist, value), density(fn.base_dist, value))


def _right_censored(fn: Any, value: Any, density: Density) -> Array:
    return jnp.where(fn.censored, log_above(fn.base_dist, value), density(fn.base_dist, value))


def _interval_censored(fn: Any, value: Any, density: Density) -> Array:
    value = jnp.asarray(value)
    low, high = value[..., 0], value[..., 1]
    left, right = fn.left_censored, fn.right_censored
    is_interval = jnp.logical_not(left | right)
    is_point = is_interval & jnp.isclose(low, high)
    # Of an end that does not count nothing is asked, not even for a derivative.
    inner = feasible(unwrapped(fn.base_dist).support, low)
    apart = is_interval & jnp.logical_not(is_point)
    between = log_between(
        fn.base_dist, jnp.where(apart, low, inner), jnp.where(apart, high, jnp.inf)
    )
    outside = jnp.logaddexp(log_below(fn.base_dist, low), log_above(fn.base_dist, high))
    exact = density(fn.base_dist, jnp.where(is_point, low, inner))
    found = jnp.where(is_point, exact, between)
    found = jnp.where(left & right, outside, found)
    found = jnp.where(left & ~right, log_below(fn.base_dist, high), found)
    return jnp.where(right & ~left, log_above(fn.base_dist, low), found)


TAIL_FORMULAS: dict[type, Callable[[Any, Any, Density], Array]] = {
    d.LeftTruncatedDistribution: _left_truncated,
    d.RightTruncatedDistribution: _right_truncated,
    d.TwoSidedTruncatedDistribution: _truncated,
    d.LeftCensoredDistribution: _left_censored,
    d.RightCensoredDistribution: _right_censored,
    d.IntervalCensoredDistribution: _interval_censored,
}
"""By distribution, a function of it, a possible value, and the density to ask its parts for."""
