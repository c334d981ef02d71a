"""A site's log density, with nothing in it that could turn a gradient into NaN.

A value outside of a distribution's support has log density -inf. It must not come from the formula:
evaluated where it means nothing, the formula may give NaN, and even where the NaN is covered by a
`where` afterwards, its derivative comes through (zero times infinity). So the value is moved to a
possible one *before* the formula sees it, and the result is replaced afterwards. Impossible values
are common once discrete variables are summed out: of a count that is larger than its enumerated
total, of a variable whose list of values is longer than one element's own support. The same is done
for observed values that a mask switches off: they may hold anything.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import CategoricalLogits, CategoricalProbs, constraints

from marginax.graph.distribution_layers import mask_of, unwrapped
from marginax.graph.exact_formulas import FORMULAS
from marginax.graph.parameters import checks, density_correction
from marginax.graph.validate import is_concrete, is_fixed, numpyro_checks, satisfies
from marginax.language.stack import Message

_INDEPENDENT = type(constraints.independent(constraints.real, 1))


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
    fn, density = msg["fn"], _log_prob(msg)
    correction = density_correction(fn, checks(fn))
    return density if correction is None else density + correction


def _log_prob(msg: Message) -> Any:
    """The same for parameters that are valid."""
    fn, value, intermediates = msg["fn"], msg["value"], msg["intermediates"]
    if intermediates or mask_of(fn) is False:  # drawn from this distribution, or of no account
        with numpyro_checks(False):
            return fn.log_prob(value, intermediates) if intermediates else fn.log_prob(value)
    kept, inside = _varying_mask(fn), _inside(fn.support, value)
    # What is latent was drawn or enumerated, so it is possible also where it is masked out.
    moves = [where for where in (kept if msg["is_observed"] else None, inside) if where is not None]
    if not moves:
        return _density(fn, value, kept)
    try:
        shape = jnp.broadcast_shapes(jnp.shape(value), fn.shape())
        possible = fn.support.feasible_like(jnp.broadcast_to(value, shape))
    except NotImplementedError:  # NumPyro has no possible value to give; it covers the result alone
        with numpyro_checks(inside is not None):
            return fn.log_prob(value)
    for usable in moves:
        per_event = jnp.reshape(usable, jnp.shape(usable) + (1,) * fn.event_dim)
        value = jnp.where(per_event, value, possible)
    density = _density(fn, value, kept)
    if inside is None:
        return density
    return jnp.where(inside if kept is None else inside | ~kept, density, -jnp.inf)


def _density(fn: Any, value: Any, kept: Any) -> Any:
    """The log density of a possible value."""
    base = unwrapped(fn)
    formula = FORMULAS.get(type(base))
    if formula is None:
        if isinstance(base, CategoricalProbs | CategoricalLogits):
            value = jnp.asarray(value).astype(int)  # an index; 1.0 may be observed
        with numpyro_checks(False):
            return fn.log_prob(value)
    shape = jnp.broadcast_shapes(jnp.shape(value), fn.shape())
    each = formula(base, jnp.broadcast_to(jnp.asarray(value, jnp.result_type(float)), shape))
    each = jnp.where(jnp.isneginf(each), -jnp.inf, each)  # of what is impossible nothing comes back
    density = jnp.sum(each, tuple(range(-fn.event_dim, 0)))
    return density if kept is None else jnp.where(kept, density, 0.0)


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
    return support(jnp.asarray(value))  # NumPy's own arrays it would compare with NumPy


def _varying_mask(fn: Any) -> Any:
    """Where no mask switches the distribution off; None where none varies."""
    kept = mask_of(fn)
    return None if isinstance(kept, bool) else jnp.broadcast_to(kept, fn.batch_shape)
