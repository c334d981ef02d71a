"""The expectation of costs under a distribution that is given by its factors.

It is not a new algorithm, because an expectation is a derivative of a log partition function::

    E_q[c] = d/de  log sum_z q(z) exp(e c(z))   at e = 0

So the costs enter the very plan that sums q to one, and one forward-mode derivative (`jax.jvp`) in
their direction gives the expectation of all of them. The weights on the way are q's own marginals,
and a value of probability zero contributes nothing, whatever its cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array

from marginax.elimination.axes import Axis
from marginax.elimination.contract import Contracted, contract
from marginax.elimination.factor import Factor
from marginax.elimination.plan import Plan, term_of
from marginax.elimination.planner import make_plan
from marginax.elimination.semiring import SUM


@dataclass(frozen=True)
class Names:
    """What a plan is made from beside the factors; see `make_plan`."""

    sizes: Mapping[Axis, int]
    plate_sizes: Mapping[Axis, int]
    home: Mapping[Axis, frozenset[Axis]]
    keep: frozenset[Axis]
    """Variables that stay: what is expected given their values."""

    def plan(self, factors: Iterable[Factor]) -> Plan:
        """The plan that leaves the kept variables."""
        terms = [term_of(factor) for factor in factors]
        return make_plan(terms, self.sizes, self.plate_sizes, self.home, self.keep)


def expectation(
    weights: Sequence[Factor], costs: Sequence[Factor], names: Names
) -> tuple[Factor, ...]:
    """The expected costs, as factors of the kept variables, to be added up over their plates.

    Parameters
    ----------
    weights : sequence of Factor
        The distribution; it need not be normalised.
    costs : sequence of Factor
        Functions of its variables.
    names : Names
        Of all axes.
    """
    if not weights:
        return tuple(costs)
    plan = names.plan([*weights, *costs])
    left: list[Factor] = []

    def log_partition(tilts: list[Array]) -> list[Array]:
        tilted = [replace(c, array=tilt) for c, tilt in zip(costs, tilts, strict=True)]
        left[:] = _all_of(contract(plan, [*weights, *tilted], SUM, names.plate_sizes))
        return [factor.array for factor in left]

    arrays = [c.array for c in costs]
    _, expected = jax.jvp(log_partition, ([jnp.zeros_like(a) for a in arrays],), (arrays,))
    return tuple(replace(f, array=array) for f, array in zip(left, expected, strict=True))


def log_masses(weights: Sequence[Factor], names: Names) -> tuple[Factor, ...]:
    """The logarithm of the sum of the weights, as factors of the kept variables."""
    return _all_of(contract(names.plan(weights), weights, SUM, names.plate_sizes))


def _all_of(contracted: Contracted) -> tuple[Factor, ...]:
    return (Factor("constant", (), (), contracted.log_total), *contracted.kept)
