"""Analytic divergences in place of sampled ones.

Where the guide's q(x) and the model's p(x | parents) are a pair whose Kullback-Leibler divergence has
a formula, -KL(q || p) is the expectation of log p(x) - log q(x) over x, and has less noise. That holds
as long as nothing else in the two depends on the x that was averaged over: the parents of x in the
model must not have been drawn given x in the guide. Both dependences are read off the traced program.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from numpyro.distributions import (
    Beta,
    Kumaraswamy,
    kl_divergence,
)

from marginax.density.distribution_layers import is_masked, mask_of, unwrapped, without_masks
from marginax.errors import ModelError
from marginax.graph.capture import Key, capture
from marginax.graph.log_density import LogDensity
from marginax.graph.sites import Site
from marginax.language.stack import Message, is_point_mass


def divergences(
    guide_trace: Mapping[str, Message], model_trace: Mapping[str, Message], names: Collection[str]
) -> dict[str, LogDensity]:
    """Minus the divergence of each site that has a formula, as the log density of a traced program.

    Parameters
    ----------
    guide_trace, model_trace : mapping of messages
        Sites with their ``"density"``.
    names : collection of str
        The guide's sites to ask about.
    """
    found = {}
    for name in names:
        if name not in model_trace:
            continue
        here, there = guide_trace[name], model_trace[name]
        array = _minus_kl(here, there)
        if array is not None:
            density = there["density"]
            found[name] = LogDensity(array, density.plates, density.scales)
    return found


def _minus_kl(here: Message, there: Message) -> Array | None:
    q, p = here["fn"], there["fn"]
    log_q, log_p = here["density"], there["density"]
    if (
        is_point_mass(q)
        # NumPyro's formula for this pair is the beginning of a series, not the divergence.
        or (isinstance(unwrapped(q), Kumaraswamy) and isinstance(unwrapped(p), Beta))
        or log_q.series
        or log_p.series
        or q.event_dim != p.event_dim
        or set(log_q.plates) != set(log_p.plates)
        or jnp.shape(log_q.array) != jnp.shape(log_p.array)
        or not _are_same(log_q.scales, log_p.scales)
    ):
        return None
    masked = is_masked(q) or is_masked(p)
    try:
        kl = kl_divergence(without_masks(q), without_masks(p)) if masked else kl_divergence(q, p)
    except NotImplementedError:  # there is no formula
        return None
    shape = jnp.shape(log_q.array)
    array = jnp.broadcast_to(-kl, shape)
    if not masked:
        return array
    # A formula for an expectation of log p or of log q alone there is none.
    both = jnp.logical_and(mask_of(q), mask_of(p))
    return jnp.where(jnp.broadcast_to(both, shape), array, log_p.array - log_q.array)


def _are_same(scales: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Whether two sites stand in the same scales, as far as that is known while tracing."""

    def same(a: Any, b: Any) -> bool:
        return a is b or (isinstance(a, int | float) and isinstance(b, int | float) and a == b)

    return len(scales) == len(others) and all(map(same, scales, others))


def check_mean_field(
    names: Collection[str],
    latents: Mapping[str, Site],
    densities: Callable[[dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    """Refuse a guide in which a parent that a site has in the model is drawn given that site.

    Parameters
    ----------
    names : collection of str
        The sites whose divergence is used.
    latents : mapping of Site
        The latent sites of the guide.
    densities : callable
        From their values to the log densities of guide and of model, arrays by site name.
    """

    def program(values: dict[str, Any]) -> dict[Key, Any]:
        of_guide, of_model = densities(values)
        out: dict[Key, Any] = {("guide", name): of_guide[name] for name in latents}
        return out | {("model", name): of_model[name] for name in names}

    dependence = capture(program, latents, ()).dependence
    drawn_given: dict[str, set[str]] = {}  # all that each site of the guide depends on
    for name in latents:  # in the order of the guide
        parents = {v for v in dependence["guide", name] if v != name}
        drawn_given[name] = parents.union(*(drawn_given[parent] for parent in parents))
    for name in names:
        for parent in dependence["model", name]:
            if name in drawn_given[parent]:
                raise ModelError(
                    f"in the model it depends on '{parent}', which the guide draws after it and given it, so "
                    "its divergence has no mean-field formula.",
                    site=name,
                    advice=f"Draw '{parent}' first in the guide, or use TraceEnum_ELBO.",
                )
