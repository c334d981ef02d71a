"""A site's log density, with nothing in it that could turn a gradient into NaN.

A value outside of a distribution's support has log density -inf. It must not come from the formula:
evaluated where it means nothing, the formula may give NaN, and even where the NaN is covered by a
`where` afterwards, its derivative comes through (zero times infinity). So the value is moved to a
possible one *before* the formula sees it, and the result is replaced afterwards. Impossible values
are common once discrete variables are summed out: of a count that is larger than its enumerated
total, of a variable whose list of values is longer than one element's own support. The same is done
for observed values that a mask switches off: they may hold anything. The parts of a compound
distribution, a mixture's say, are treated in the same way, each with its own support.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import CategoricalLogits, CategoricalProbs, Delta, constraints

from marginax.density.compound_formulas import COMPOUND_FORMULAS, with_parts
from marginax.density.count_formulas import count_formula
from marginax.density.distribution_layers import mask_of, unwrapped
from marginax.density.edge_formulas import EDGE_FORMULAS
from marginax.density.parameters import checks, density_correction
from marginax.density.supports import bounds
from marginax.density.tail_formulas import TAIL_FORMULAS
from marginax.density.true_supports import feasible, support_of
from marginax.density.validate import SIMPLEX_TOLERANCE, is_fixed, numpyro_checks, satisfies
from marginax.jaxpr.concrete import is_concrete
from marginax.language.stack import Message

_INDEPENDENT = type(constraints.independent(constraints.real, 1))
_CATEGORICAL = CategoricalProbs | CategoricalLogits
_WITH_IMPOSSIBLE = _CATEGORICAL | Delta
"""Their own formulas give -inf, rightly, beside which there may be more."""

_COMPOUND = COMPOUND_FORMULAS | TAIL_FORMULAS


def log_prob(msg: Message) -> Any:
    """The log density of a sample site that has run, one number for each element of its batch.

    Parameters
    ----------
    msg : dict
        The site's message, with its value.

    Returns
    -------
    array, shape (*batch_shape)
        -inf where the value is impossible, exactly zero where the site is masked out, NaN where a
        parameter is invalid. Probabilities that do not add up to one are normalised.
    """
    fn, found = msg["fn"], _log_prob(msg)
    correction = density_correction(fn, checks(fn))
    if correction is None:
        return found
    # Nothing comes back from what is impossible, but for being invalid.
    impossible = jnp.isneginf(found) & ~jnp.isnan(correction)
    return jnp.where(impossible, -jnp.inf, found + correction)


def _log_prob(msg: Message) -> Any:
    """The same for parameters that are valid."""
    fn, value, intermediates = msg["fn"], msg["value"], msg["intermediates"]
    stated = msg["infer"].get("support", (None, None))[1]
    stated = stated if is_concrete(stated) else None
    if intermediates:  # it was drawn from this distribution
        largest = partial(_largest, fn, value, stated)
        return _density(fn, value, _varying_mask(fn), largest, intermediates)
    # What is latent was drawn or enumerated, so it is possible also where it is masked out.
    return density(fn, value, msg["is_observed"], stated)


def density(
    fn: Any, value: Any, may_be_anything_where_masked: bool = True, stated: int | None = None
) -> Any:
    """The log density of a distribution at any value.

    Parameters
    ----------
    fn : Distribution
        With its wrappers; of a compound one every part is treated alike.
    value : array
        It may be impossible.
    may_be_anything_where_masked : bool
        Whether the value may be impossible, or NaN, where a mask switches the distribution off.
    stated : int, optional
        The largest value, where the site states it.

    Returns
    -------
    array, shape (*batch_shape)
    """
    if mask_of(fn) is False:  # it is of no account
        with numpyro_checks(False):
            return fn.log_prob(value)
    support = support_of(fn)
    kept, inside = _varying_mask(fn), _inside(support, value)
    masked = kept if may_be_anything_where_masked else None
    moves = [where for where in (masked, inside) if where is not None]
    largest = partial(_largest, fn, value, stated)
    if not moves:
        return _density(fn, value, kept, largest)
    try:
        shape = jnp.broadcast_shapes(jnp.shape(value), fn.shape())
        possible = feasible(support, jnp.broadcast_to(value, shape))
    except NotImplementedError:  # NumPyro has no possible value to give; it covers the result alone
        with numpyro_checks(inside is not None):
            return fn.log_prob(value)
    for usable in moves:
        per_event = jnp.reshape(usable, jnp.shape(usable) + (1,) * fn.event_dim)
        value = jnp.where(per_event, value, possible)
    found = _density(fn, value, kept, largest)
    if inside is None:
        return found
    return jnp.where(inside if kept is None else inside | ~kept, found, -jnp.inf)


def _density(
    fn: Any,
    value: Any,
    kept: Any,
    largest: Callable[[], float | None],
    intermediates: Any = None,
) -> Any:
    """The log density of a possible value."""
    base = unwrapped(fn)
    formula = count_formula(base, largest) or _formula(base, EDGE_FORMULAS)
    compound = _formula(base, _COMPOUND)
    if formula is None and compound is None:
        if isinstance(base, _CATEGORICAL):
            value = jnp.asarray(value).astype(int)  # an index; 1.0 may be observed
        made = with_parts(fn, density)
        with numpyro_checks(False):
            found = made.log_prob(value, intermediates) if intermediates else made.log_prob(value)
        is_mixed = made is not fn or isinstance(base, _WITH_IMPOSSIBLE)
        return _nothing_from_impossible(found) if is_mixed else found
    shape = jnp.broadcast_shapes(jnp.shape(value), fn.shape())
    if formula is not None:
        each = formula(base, jnp.broadcast_to(jnp.asarray(value, jnp.result_type(float)), shape))
    else:
        assert compound is not None
        each = compound(base, value, density)
        each = jnp.broadcast_to(each, shape[: len(shape) - base.event_dim])
    components = tuple(range(base.event_dim - fn.event_dim, 0))
    if components:  # one that is impossible outweighs one whose density is infinite
        impossible = jnp.any(jnp.isneginf(each), components)
        each = jnp.where(jnp.isneginf(each), 0.0, each)
        found = jnp.where(impossible, -jnp.inf, jnp.sum(each, components))
    else:
        found = _nothing_from_impossible(each)
    return found if kept is None else jnp.where(kept, found, 0.0)


def _nothing_from_impossible(found: Any) -> Any:
    """The same density, whose derivatives are zero where it is -inf."""
    return jnp.where(jnp.isneginf(found), -jnp.inf, found)


def _formula(base: Any, formulas: Any) -> Any:
    """The formula for a distribution, or None; one that has a density of its own keeps it."""
    for kind in type(base).__mro__:
        if kind in formulas:
            return formulas[kind]
        if "log_prob" in vars(kind):
            return None
    return None


def _largest(fn: Any, value: Any, stated: int | None) -> float | None:
    """The largest value of whole numbers that may occur, if that is known now."""
    if is_concrete(value):
        return float(np.max(np.asarray(value), initial=0))
    return bounds(unwrapped(fn).support)[1] if stated is None else stated


def _inside(support: Any, value: Any) -> Any:
    """Where a value lies in the support; None where that needs no asking."""
    base = support
    while isinstance(base, _INDEPENDENT) and base is not constraints.real_vector:
        base = base.base_constraint
    # On the whole real line the formula itself says what is impossible.
    if base is constraints.real or base is constraints.real_vector:
        return None
    if is_concrete(value) and is_fixed(support) and satisfies(support, np.asarray(value)):
        return None
    return _contains(support, jnp.asarray(value))  # NumPy's own arrays it would compare with NumPy


def _contains(support: Any, value: Any) -> Any:
    """Whether events lie in a constraint; probabilities add up as exactly as they were computed."""
    if isinstance(support, _INDEPENDENT):
        each = _contains(support.base_constraint, value)
        return jnp.all(each, tuple(range(-support.reinterpreted_batch_ndims, 0)))
    if support is constraints.simplex:
        is_one = jnp.abs(jnp.sum(value, -1) - 1) < SIMPLEX_TOLERANCE
        return is_one & jnp.all(value >= 0, -1)
    return support(value)


def _varying_mask(fn: Any) -> Any:
    """Where no mask switches the distribution off; None where none varies."""
    kept = mask_of(fn)
    return None if isinstance(kept, bool) else jnp.broadcast_to(kept, fn.batch_shape)
