"""What is demanded of a parameter of a distribution, elementwise, of traced numbers and of known ones.

NumPyro's constraints, with these differences. What follows from single precision is allowed:
probabilities that add up to almost one, a covariance matrix that is almost symmetric. Infinite is no
value of a scale, and nothing is below zero; but zero itself, bounds that meet, logits of -inf and a
number of trials below zero have a meaning: they make values impossible (or, of logits, certain).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import (
    GammaPoisson,
    LeftTruncatedDistribution,
    NegativeBinomial2,
    RelaxedBernoulliLogits,
    RightTruncatedDistribution,
    TwoSidedTruncatedDistribution,
    Wishart,
    WishartCholesky,
    constraints,
)

ROUNDING = 1e-5  # of a probability that was computed in single precision
SIMPLEX_TOLERANCE = 1e-3  # float32 weights of many components do not add up to one exactly
# Of the product of two standard deviations: an inverse is not quite symmetric.
MATRIX_TOLERANCE = 1e-3

_INDEPENDENT = type(constraints.independent(constraints.positive, 1))
_DEPENDENT = type(constraints.dependent)
_ABOVE = type(constraints.greater_than(0.0))
_WHOLE = type(constraints.integer_greater_than(0))


BOUNDS = "at or above the parameter 'low', both numbers"


def bounds_hold(fn: Any, low: Any, high: Any) -> Any:
    """Whether the bounds of a range are some, elementwise."""
    valid = low <= high
    if isinstance(fn, TwoSidedTruncatedDistribution):  # an infinite one truncates nothing
        return valid
    return valid & (low > -jnp.inf) & (high < jnp.inf)


def has_bounds(fn: Any) -> bool:
    """Whether a distribution has parameters 'low' and 'high', which `bounds_hold` is about."""
    return {"low", "high"} <= fn.arg_constraints.keys() & vars(fn).keys()


def is_log_odds(fn: Any, name: str) -> bool:
    """Whether a parameter is the logarithm of weights or odds, which may be infinite."""
    return name in ("logits", "gate_logits") and not isinstance(fn, RelaxedBernoulliLogits)


def holds(fn: Any, name: str, value: Any) -> Any:
    """Whether a parameter is valid, without the axes that its constraint looks at together.

    Parameters
    ----------
    fn : Distribution
        Whose it is.
    name : str
        The parameter.
    value : array
        Its value, traced or known.

    Returns
    -------
    array of bool, or None
        None where nothing is demanded.
    """
    constraint, xp = fn.arg_constraints[name], np if isinstance(value, np.ndarray) else jnp
    if is_log_odds(fn, name):
        if constraint is constraints.real_vector:
            highest = xp.max(value, -1)  # NaN if there is one
            return (highest > -xp.inf) & (highest < xp.inf)
        return xp.logical_not(xp.isnan(value))
    if isinstance(constraint, _DEPENDENT):
        if name == "concentration" and _is_wishart(fn):
            return (value > fn.event_shape[-1] - 1) & (value < xp.inf)
        return None
    if isinstance(fn, LeftTruncatedDistribution | RightTruncatedDistribution):
        if name == "high":  # an infinite bound truncates nothing
            return value > -xp.inf
        return value < xp.inf
    if name == "rate" and isinstance(fn, GammaPoisson | NegativeBinomial2):
        return value >= 0  # infinite: of a mean of zero
    return _satisfied(constraint, value, xp)


def _is_wishart(fn: Any) -> bool:
    inverse = type(fn).__name__.startswith("InverseWishart")  # not in every NumPyro that is allowed
    return inverse or isinstance(fn, Wishart | WishartCholesky)


def _satisfied(constraint: Any, value: Any, xp: Any) -> Any:
    if isinstance(constraint, _INDEPENDENT) or constraint is constraints.real_vector:
        inner = _satisfied(constraint.base_constraint, value, xp)
        axes = tuple(range(-min(constraint.reinterpreted_batch_ndims, xp.ndim(inner)), 0))
        return xp.all(inner, axes)
    if constraint is constraints.simplex:
        is_one = xp.abs(xp.sum(value, -1) - 1) < SIMPLEX_TOLERANCE
        return is_one & xp.all(value >= 0, -1)
    if constraint is constraints.unit_interval:
        return (value >= -ROUNDING) & (value <= 1 + ROUNDING)
    if constraint is constraints.real or constraint is constraints.circular:
        return xp.isfinite(value)
    if constraint is constraints.positive_definite:
        # What is symmetric but not positive definite has no Cholesky factor; that is NaN.
        return _is_symmetric(value, xp) & xp.all(_diagonal(value, xp) > 0, -1)
    if constraint is constraints.corr_matrix:
        unit = xp.all(xp.abs(_diagonal(value, xp) - 1) < MATRIX_TOLERANCE, -1)
        return _is_symmetric(value, xp) & unit
    if constraint is constraints.lower_cholesky:
        return _is_triangular(value, xp)
    if constraint is constraints.corr_cholesky:
        unit = xp.abs(xp.sum(value**2, -1) - 1) < MATRIX_TOLERANCE
        return _is_triangular(value, xp) & xp.all(unit, -1)
    if constraint is constraints.ordered_vector:
        return xp.all(value[..., 1:] >= value[..., :-1], -1) & xp.all(value == value, -1)
    if isinstance(constraint, _WHOLE):  # fewer than none: no value is possible
        return (
            xp.floor(value) == value if xp.issubdtype(value.dtype, xp.floating) else value == value
        )
    if isinstance(constraint, _ABOVE):
        return (value >= constraint.lower_bound) & (value < xp.inf)
    if constraint is constraints.positive_definite_circulant_vector:
        return xp.all(constraint(value), -1)
    return constraint(value)


def _diagonal(value: Any, xp: Any) -> Any:
    return xp.diagonal(value, axis1=-2, axis2=-1)


def _is_symmetric(value: Any, xp: Any) -> Any:
    """Up to rounding; and finite."""
    scale = xp.sqrt(xp.abs(_diagonal(value, xp)))
    slack = MATRIX_TOLERANCE * scale[..., :, None] * scale[..., None, :]
    return xp.all(xp.abs(value - xp.swapaxes(value, -2, -1)) <= slack, (-2, -1))


def _is_triangular(value: Any, xp: Any) -> Any:
    """Whether matrices are lower triangular, with a positive diagonal, and finite."""
    above = xp.all(xp.triu(value, 1) == 0, (-2, -1))
    finite = xp.all(xp.isfinite(value), (-2, -1))
    return above & finite & xp.all(_diagonal(value, xp) > 0, -1)
