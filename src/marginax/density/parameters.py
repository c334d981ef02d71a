"""Which parameters of a distribution are valid, said once for all who ask.

NumPyro knows of every parameter where it must lie. Here that becomes a truth value for each element
of a site's batch, for every distribution that a site is made of: those inside of a mixture, a
truncation or a transformation too. Numbers that are known while tracing are refused at once
(`validate`). For traced ones the truth value is part of the program, and has two readers:

- `density_correction` is added to the site's log density. Where a parameter is invalid it is NaN,
  so that no formula can turn it into a plausible number (`gammaln` of a negative shape is one). Where
  probabilities do not add up to one it is minus the logarithm of what they add up to: the density
  is the normalised one. It has the shape of the parameters, not of the data, so that it costs nothing.
- `validity` is asked by eager queries beside their answer, by SVI and MCMC at their starts and ends.
  It is stricter: there probabilities that do not add up to one are an error.

Edges that mean something stay valid: a probability of exactly zero or one, logits of -inf, a rate or
a shape of zero, bounds that meet, a number of trials below zero. They make values impossible, which
they usually are for values of a variable that are impossible themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import CategoricalProbs, Delta, MultinomialProbs, Unit, constraints

from marginax.density.demands import BOUNDS, bounds_hold, has_bounds, holds
from marginax.density.distribution_layers import components, distribution_name, layers, mask_of
from marginax.density.validate import demand
from marginax.errors import ModelError


class InvalidParameterWarning(UserWarning):
    """A parameter of a distribution is invalid where an algorithm has ended."""


@dataclass(frozen=True, order=True)
class Parameter:
    """A parameter of a distribution, and what is demanded of it."""

    distribution: str
    name: str
    demand: str
    """In words: "positive and finite", ..."""
    is_simplex: bool

    @property
    def advice(self) -> str:
        """What to do about one that is invalid."""
        if self.is_simplex:
            return (
                "Probably the weights were not normalised (p / p.sum(-1, keepdims=True)), or a row of a table is "
                "no probability distribution; a param needs constraint=constraints.simplex."
            )
        return (
            "Declare the latent site or the param that it comes from where it is always valid (a LogNormal for a "
            "scale, say), or map it there, by jnp.exp or jnp.maximum, also for values that are impossible anyway."
        )


@dataclass(frozen=True)
class Check:
    """Whether a parameter is valid, for each element of a batch that the parameter tells apart."""

    parameter: Parameter
    valid: Any
    usable: Any
    """Whether a density can be made of it; so of probabilities that do not add up to one."""


def checks(fn: Any) -> list[Check]:
    """The checks of all parameters that are traced, those of inner distributions included.

    Parameters
    ----------
    fn : Distribution
        Of a site. Where a mask switches it off, its parameters may be anything.

    Returns
    -------
    list of Check
        Their arrays broadcast against the batch of ``fn``.
    """
    kept = mask_of(fn)
    if kept is False:
        return []
    found = _of(fn, set())
    if kept is True or not found:
        return found
    dropped = jnp.logical_not(kept)
    return [replace(c, valid=c.valid | dropped, usable=c.usable | dropped) for c in found]


def validity(found: list[Check]) -> dict[Parameter, Any]:
    """By parameter, whether it is valid; of two of the same name, whether both are."""
    valid: dict[Parameter, Any] = {}
    for check in found:
        known = valid.get(check.parameter)
        valid[check.parameter] = check.valid if known is None else known & check.valid
    return valid


def invalid(found: Mapping[str, Mapping[Parameter, Any]]) -> ModelError | None:
    """Which parameter is invalid, as an error to raise; None for none.

    Parameters
    ----------
    found : mapping
        By site and parameter, whether it is valid; numbers.
    """
    for site, parameters in found.items():
        for parameter, valid in parameters.items():
            if not np.asarray(valid).all():  # not np.all, which would compile a program
                what = f"'{parameter.name}' of {parameter.distribution}"
                return ModelError(
                    f"the parameter {what} is not {parameter.demand} for some values of what it depends on.",
                    site=site,
                    advice=parameter.advice,
                )
    return None


def density_correction(fn: Any, found: list[Check]) -> Any:
    """What is to be added to the log density; None for nothing.

    Parameters
    ----------
    fn : Distribution
        Of a site.
    found : list of Check
        Its checks.
    """
    if not found:
        return None
    kept, usable = mask_of(fn), found[0].usable
    for check in found[1:]:
        usable = usable & check.usable
    correction = jnp.where(usable, 0.0, jnp.nan)
    excess = _excess(fn)
    if excess is None:
        return correction
    return correction - (excess if kept is True else jnp.where(kept, excess, 0.0))


def _excess(fn: Any) -> Any:
    """The logarithm of what probabilities add up to, as it is part of the formula; None where it is not.

    Mixtures and categories as vectors normalise them themselves.
    """
    outermost_last = layers(fn)[::-1]
    base = outermost_last[0]
    if not isinstance(base, CategoricalProbs | MultinomialProbs) or not _is_traced(base.probs):
        return None
    probs: Any = base.probs
    excess: Any = jnp.log(jnp.sum(probs, -1))
    if isinstance(base, MultinomialProbs):
        excess = excess * base.total_count
    for inner, outer in pairwise(outermost_last):
        if len(inner.batch_shape) > len(outer.batch_shape):
            excess = jnp.broadcast_to(excess, inner.batch_shape)
        excess = _reduced(excess, inner, outer, jnp.sum)
    return excess


def _of(fn: Any, seen: set[tuple[int, type]]) -> list[Check]:
    found = list(_own(fn, seen))
    for inner in components(fn):
        for check in _of(inner, seen):
            valid, usable = (_reduced(x, inner, fn, jnp.all) for x in (check.valid, check.usable))
            found.append(Check(check.parameter, valid, usable))
    return found


def _reduced(array: Any, inner: Any, outer: Any, reduction: Any) -> Any:
    """From the batch of an inner distribution to that of the one it is inside of."""
    surplus = len(inner.batch_shape) - len(outer.batch_shape)
    surplus = min(max(surplus, jnp.ndim(array) - len(outer.batch_shape)), jnp.ndim(array))
    return reduction(array, tuple(range(-surplus, 0))) if surplus > 0 else array


def _own(fn: Any, seen: set[tuple[int, type]]) -> Iterator[Check]:
    """The checks of a distribution's own parameters that are traced."""
    if isinstance(fn, Delta | Unit):  # a point, and a factor of the density: any will do
        return
    kind, ndim = distribution_name(fn), len(fn.batch_shape)
    values = {n: vars(fn)[n] for n in fn.arg_constraints if vars(fn).get(n) is not None}
    for name, value in values.items():
        constraint = fn.arg_constraints[name]
        if not _is_traced(value) or (id(value), type(constraint)) in seen or 0 in value.shape:
            continue
        seen.add((id(value), type(constraint)))
        valid = holds(fn, name, value)
        if valid is None:
            continue
        usable = valid
        if constraint is constraints.simplex:
            usable = jnp.all(value >= 0, -1) & (jnp.sum(value, -1) > 0)
        parameter = Parameter(kind, name, demand(fn, name), usable is not valid)
        yield Check(parameter, *_at_most(ndim, valid, usable))
    if has_bounds(fn) and _is_traced((values["low"], values["high"])):
        valid = bounds_hold(fn, values["low"], values["high"])
        yield Check(Parameter(kind, "high", BOUNDS, False), *_at_most(ndim, valid, valid))


def _at_most(ndim: int, *arrays: Any) -> Iterator[Any]:
    """Arrays of truth values without the axes that belong to an event."""
    for array in arrays:
        surplus = jnp.ndim(array) - ndim
        yield jnp.all(array, tuple(range(-surplus, 0))) if surplus > 0 else array


def _is_traced(value: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
