"""Where the values of a distribution lie: of a compound one by its parts, not by what it declares.

NumPyro's compound distributions declare the support of one of their parts. A hurdle in front of a
positive distribution says "positive", though it is there to hold zeros; a mixture of two intervals
says the first; a time that is censored may lie where an exact one could not. Here the support is put
together from the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import (
    ExpandedDistribution,
    HurdleProbs,
    Independent,
    IntervalCensoredDistribution,
    LeftCensoredDistribution,
    MaskedDistribution,
    MixtureGeneral,
    MixtureSameFamily,
    RightCensoredDistribution,
    ZeroInflatedProbs,
    constraints,
)

_INDEPENDENT = type(constraints.independent(constraints.real, 1))
_INTERVAL = type(constraints.interval(0.0, 1.0))
_GREATER = type(constraints.greater_than(0.0))
_LESS = type(constraints.less_than(0.0))


class Zero(constraints.Constraint):
    """The number zero alone."""

    is_discrete = True
    lower_bound = upper_bound = 0

    def __call__(self, x: Any) -> Any:
        return x == 0

    def feasible_like(self, prototype: Any) -> Any:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> Any:
        return (), ((), {})


class AnyOf(constraints.Constraint):
    """What at least one of several constraints allows."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = tuple(parts)
        self.is_discrete = all(part.is_discrete for part in self.parts)
        self.event_dim = self.parts[0].event_dim

    def __call__(self, x: Any) -> Any:
        x = jnp.asarray(x)
        return jnp.any(jnp.stack(jnp.broadcast_arrays(*(part(x) for part in self.parts))), 0)

    def feasible_like(self, prototype: Any) -> Any:
        return feasible(self.parts[0], prototype)

    def tree_flatten(self) -> Any:
        same = {"is_discrete": self.is_discrete, "event_dim": self.event_dim}
        return (self.parts,), (("parts",), same)


class _RealWhere(constraints.Constraint):
    """Any real number in some elements, in the others what another constraint says."""

    def __init__(self, free: Any, base: Any) -> None:
        self.free, self.base = free, base

    def __call__(self, x: Any) -> Any:
        return jnp.where(self.free, constraints.real(jnp.asarray(x)), self.base(jnp.asarray(x)))

    def feasible_like(self, prototype: Any) -> Any:
        return feasible(self.base, prototype)

    def tree_flatten(self) -> Any:
        return (self.free, self.base), (("free", "base"), {})


class _Ends(constraints.Constraint):
    """Two ends of an interval, the lower one first; they may be infinite."""

    event_dim = 1

    def __init__(self, base: Any) -> None:
        self.base = base

    def __call__(self, x: Any) -> Any:
        return x[..., 0] <= x[..., 1]

    def feasible_like(self, prototype: Any) -> Any:
        return feasible(self.base, prototype)

    def tree_flatten(self) -> Any:
        return (self.base,), (("base",), {})


def support_of(fn: Any) -> Any:
    """The constraint that holds for every value that a distribution can take.

    Parameters
    ----------
    fn : Distribution
        With whatever wrappers.

    Returns
    -------
    constraint
        As it declares it itself, unless it is one of the compound ones that do not know.
    """
    if isinstance(fn, ExpandedDistribution | MaskedDistribution):
        return support_of(fn.base_dist)
    if isinstance(fn, Independent):
        return constraints.independent(support_of(fn.base_dist), fn.reinterpreted_batch_ndims)
    if isinstance(fn, HurdleProbs | ZeroInflatedProbs):
        return _any_of([support_of(fn.base_dist), Zero()])
    if isinstance(fn, MixtureSameFamily):
        return support_of(fn.component_distribution)
    if isinstance(fn, MixtureGeneral) and fn._support is None:
        return _any_of([support_of(part) for part in fn.component_distributions])
    if isinstance(fn, LeftCensoredDistribution | RightCensoredDistribution):
        return _RealWhere(fn.censored, support_of(fn.base_dist))
    if isinstance(fn, IntervalCensoredDistribution):
        return _Ends(support_of(fn.base_dist))
    return fn.support


def _any_of(parts: Sequence[Any]) -> Any:
    """The union of some constraints; without those that another one holds already."""
    found: list[Any] = []
    for part in parts:
        held = isinstance(part, Zero) and any(_holds_zero(other) for other in found)
        if not held and not any(part is other for other in found):
            found.append(part)
    return found[0] if len(found) == 1 else AnyOf(found)


def _holds_zero(constraint: Any) -> bool:
    is_one_of_a_kind = isinstance(constraint, constraints.ParameterFreeConstraint)
    return is_one_of_a_kind and bool(constraint(np.zeros(())))


def feasible(support: Any, like: Any) -> Any:
    """A possible value of the shape of another one, at which no formula overflows.

    NumPyro's is halfway between the ends of an interval, which may be infinite, or one beyond a bound,
    which may be too large for that to change anything.
    """
    shape = jnp.shape(like)
    if isinstance(support, _INDEPENDENT):
        return feasible(support.base_constraint, like)
    if isinstance(support, _INTERVAL):
        low, high = support.lower_bound, support.upper_bound
        has_low, has_high = jnp.isfinite(low), jnp.isfinite(high)
        within = jnp.where(has_low, low, 0) / 2 + jnp.where(has_high, high, 0) / 2
        above = jnp.where(has_low, _beyond(low, 1), 0.0)
        below = jnp.where(has_high, _beyond(high, -1), above)
        return jnp.broadcast_to(
            jnp.where(has_low & has_high, within, jnp.where(has_low, above, below)), shape
        )
    if isinstance(support, _GREATER):
        return jnp.broadcast_to(_beyond(support.lower_bound, 1), shape)
    if isinstance(support, _LESS):
        return jnp.broadcast_to(_beyond(support.upper_bound, -1), shape)
    return support.feasible_like(like)


def _beyond(bound: Any, side: int) -> Any:
    """A number on one side of a bound; zero where the bound is infinite."""
    is_bound = jnp.isfinite(bound)
    near = jnp.where(is_bound, bound, 0)
    return jnp.where(is_bound, near + side * (1 + jnp.abs(near)), 0)
