"""Logarithms at their edges: what is impossible is -inf, and no derivative comes back from there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient


def log_sigmoid(logit: Any) -> Array:
    """``log(sigmoid(logit))``, also at infinite logits, which say "impossible" and "certain"."""
    is_edge = jnp.isinf(logit)
    inner = jax.nn.log_sigmoid(jnp.where(is_edge, 0.0, logit))
    return jnp.where(is_edge, jnp.where(logit > 0, 0.0, -jnp.inf), inner)


def log_sigmoids(logit: Any) -> tuple[Array, Array]:
    """The logarithms of the probabilities of both outcomes, one first; they share the costly half."""
    is_edge = jnp.isinf(logit)
    safe = jnp.where(is_edge, 0.0, logit)
    shared = jnp.log1p(jnp.exp(-jnp.abs(safe)))
    one = jnp.where(is_edge, jnp.where(logit > 0, 0.0, -jnp.inf), jnp.minimum(safe, 0.0) - shared)
    none = jnp.where(is_edge, jnp.where(logit > 0, -jnp.inf, 0.0), -jnp.maximum(safe, 0.0) - shared)
    return one, none


def counted(count: Any, logarithm: Any) -> Array:
    """``count * logarithm`` for counts of what has that log probability: 0 for none, whatever it is."""
    impossible = (count > 0) & jnp.isneginf(logarithm)
    used = jnp.where((count > 0) & jnp.logical_not(impossible), logarithm, 0.0)
    return jnp.where(impossible, -jnp.inf, count * used)


def log_power(exponent: Any, base: Any) -> Array:
    """``exponent * log(base)`` for a base from 0 on: where it is 0, the limit, and ``0 * log(0)`` is 0."""
    is_edge = base == 0
    inner = exponent * jnp.log(jnp.where(is_edge, 1.0, base))
    limit = jnp.where(exponent > 0, -jnp.inf, jnp.where(exponent < 0, jnp.inf, 0.0))
    return jnp.where(is_edge, limit, inner)


def log_of(probability: Any) -> Array:
    """``log(probability)``, -inf of zero."""
    possible = probability > 0
    return jnp.where(possible, jnp.log(jnp.where(possible, probability, 1.0)), -jnp.inf)


def log_complement(probability: Any) -> Array:
    """``log(1 - probability)``, -inf of one; written as `complement` looks for it."""
    possible = probability < 1
    return jnp.where(possible, jnp.log1p(-jnp.where(possible, probability, 0.0)), -jnp.inf)


def plus(*logarithms: Any) -> Array:
    """The logarithm of a product, impossible where one of its parts is."""
    impossible = jnp.isneginf(logarithms[0])
    for logarithm in logarithms[1:]:
        impossible = impossible | jnp.isneginf(logarithm)
    total = sum(jnp.where(impossible, 0.0, logarithm) for logarithm in logarithms)
    return jnp.where(impossible, -jnp.inf, total)


def log_sum(terms: Array) -> Array:
    """The logarithm of the sum along the last axis of numbers given by their logarithms."""
    largest = stop_gradient(jnp.max(terms, -1, keepdims=True))
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
    nothing = jnp.isneginf(terms)
    each = jnp.exp(jnp.where(nothing, 0.0, terms - largest))
    total = jnp.sum(jnp.where(nothing, 0.0, each), -1)
    impossible = jnp.all(nothing, -1)
    inner = jnp.log(jnp.where(impossible, 1.0, total)) + largest[..., 0]
    return jnp.where(impossible, -jnp.inf, inner)


def log_one_minus_exp(logarithm: Any) -> Array:
    """``log(1 - exp(logarithm))`` for a logarithm up to 0."""
    is_edge = (logarithm == 0) | jnp.isneginf(logarithm)
    safe = jnp.where(is_edge, -1.0, logarithm)
    near = safe > -0.693
    inner = jnp.where(
        near,
        jnp.log(-jnp.expm1(jnp.where(near, safe, -0.5))),
        jnp.log1p(-jnp.exp(jnp.where(near, -1.0, safe))),
    )
    return jnp.where(is_edge, jnp.where(logarithm == 0, -jnp.inf, 0.0), inner)
