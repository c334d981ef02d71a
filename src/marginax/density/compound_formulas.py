"""Distributions made of others: a mixture, a zero beside a distribution, a value that is censored.

Each part is asked for its own density by the same rules as a site (`log_prob`), so that what is
impossible under one part takes nothing from the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import (
    ExpandedDistribution,
    HurdleLogits,
    HurdleProbs,
    Independent,
    MaskedDistribution,
    MixtureGeneral,
    MixtureSameFamily,
    ZeroInflatedLogits,
    ZeroInflatedProbs,
)

from marginax.density.distribution_layers import is_distribution
from marginax.density.log_formulas import (
    log_complement,
    log_of,
    log_one_minus_exp,
    log_sigmoids,
    log_sum,
    plus,
)
from marginax.jaxpr.concrete import is_concrete

Density = Callable[[Any, Any], Array]
"""From a distribution and any value to the log density."""


def with_parts(fn: Any, density: Density) -> Any:
    """The same distribution, made of parts whose log density is computed by another function.

    Parameters
    ----------
    fn : Distribution
        Of any kind; it stays as it is.
    density : callable
        From a part and a value to the log density.

    Returns
    -------
    Distribution
        The one that was given, if it has no parts.
    """
    if isinstance(fn, ExpandedDistribution | Independent | MaskedDistribution):
        base = with_parts(fn.base_dist, density)
        if base is fn.base_dist:
            return fn
        made = copy.copy(fn)
        made.base_dist = base
        return made
    replaced = {}
    for name, value in vars(fn).items():
        leaves = jax.tree.leaves(value, is_leaf=is_distribution)
        if any(map(is_distribution, leaves)):
            replaced[name] = jax.tree.map(
                lambda leaf: _part(leaf, density) if is_distribution(leaf) else leaf,
                value,
                is_leaf=is_distribution,
            )
    if not replaced:
        return fn
    made = copy.copy(fn)
    vars(made).update(replaced)
    return made


def _part(part: Any, density: Density) -> Any:
    """A copy of a distribution that is still of its class, with a density of ours."""
    made = copy.copy(part)

    def log_prob(value: Any, intermediates: Any = None) -> Any:
        return part.log_prob(value, intermediates) if intermediates else density(part, value)

    made.log_prob = log_prob
    return made


def _mixture_weights(fn: Any) -> Array:
    return jax.nn.log_softmax(fn.mixing_distribution.logits)


def _same_family(fn: Any, value: Any, density: Density) -> Array:
    axis = fn.mixture_dim
    if is_concrete(value):  # what is known stays known
        with jax.ensure_compile_time_eval():
            value = jnp.expand_dims(value, axis)
    else:
        value = jnp.expand_dims(value, axis)
    return log_sum(plus(_mixture_weights(fn), density(fn.component_distribution, value)))


def _general(fn: Any, value: Any, density: Density) -> Array:
    each = jnp.broadcast_arrays(*(density(part, value) for part in fn.component_distributions))
    return log_sum(plus(_mixture_weights(fn), jnp.stack(each, -1)))


def _gate(fn: Any) -> tuple[Array, Array]:
    """The logarithms of the probabilities of a zero from the gate, and of none."""
    if isinstance(fn, ZeroInflatedLogits | HurdleLogits):
        return log_sigmoids(fn.gate_logits)
    return log_of(fn.gate), log_complement(fn.gate)


def _zero_inflated(fn: Any, value: Any, density: Density) -> Array:
    zero, other = _gate(fn)
    other = plus(other, density(fn.base_dist, value))
    both = jnp.stack(jnp.broadcast_arrays(zero, other), -1)
    return jnp.where(jnp.asarray(value) == 0, log_sum(both), other)


def _hurdle(fn: Any, value: Any, density: Density) -> Array:
    zero, other = _gate(fn)
    is_zero = jnp.asarray(value) == 0
    elsewhere = jnp.where(is_zero, jnp.ones_like(value), value)
    other = plus(other, density(fn.base_dist, elsewhere))
    if fn.base_dist.support.is_discrete:
        above = log_one_minus_exp(density(fn.base_dist, jnp.zeros((), int)))
        never = jnp.isneginf(above)  # above zero, so that all of the other values are impossible
        other = jnp.where(never, -jnp.inf, other - jnp.where(never, 0.0, above))
    return jnp.where(is_zero, zero, other)


COMPOUND_FORMULAS: dict[type, Callable[[Any, Any, Density], Array]] = {
    MixtureSameFamily: _same_family,
    MixtureGeneral: _general,
    ZeroInflatedProbs: _zero_inflated,
    ZeroInflatedLogits: _zero_inflated,
    HurdleProbs: _hurdle,
}
"""By distribution, a function of it, a possible value, and the density to ask its parts for."""
