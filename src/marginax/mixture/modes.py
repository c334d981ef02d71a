"""Priors as the search for the most probable parameters takes them: so that there is a most probable one.

Two things differ from sampling, where the priors are used as they are.

*A density that is infinite at the edge* of its range (a Dirichlet, beta or gamma with a concentration below 1) has its
maximum there, at a share or a rate of exactly zero, whatever the rows say, and an optimiser runs into that corner.
Such concentrations are raised to 1, where the density is flat, and this is said (`unbounded`).

*A mode depends on what is called the parameter.* Of a precision matrix the Cholesky factor is what is computed with,
but the factor's own density has a Jacobian that weighs the first column more than the last (L_11^d ... L_dd^1): its
mode would depend on the order of the columns. The mode here is that of the matrix, as in Fraley and Raftery (2007); for
a single column it is then that of the gamma density of a precision, which diagonal covariances have.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import distributions as dist

from marginax.mixture.model import Design

_CONCENTRATIONS = {
    dist.Dirichlet: ("concentration",),
    dist.Beta: ("concentration1", "concentration0"),
    dist.Gamma: ("concentration",),
    dist.Weibull: ("concentration",),
    dist.Kumaraswamy: ("concentration1", "concentration0"),
}
"""Of densities that are infinite at an edge where one of these is less than 1."""


class FactorOfWishart(dist.WishartCholesky):
    """A Cholesky factor L with the density of the Wishart matrix L L', not its own."""

    def log_prob(self, value: Any) -> Array:
        count = jnp.shape(value)[-1]
        diagonal = jnp.log(jnp.diagonal(value, axis1=-2, axis2=-1))
        # d(L L')/dL, without a constant.
        volume = jnp.sum(jnp.arange(count, 0, -1) * diagonal, -1)
        return super().log_prob(value) - volume - count * jnp.log(2.0)


def with_modes(design: Design) -> Design:
    """A design with priors that have modes, those of the module's top."""
    priors = {s: p._replace(prior=_with_mode(p.prior)) for s, p in design.priors.items()}
    return replace(design, priors=priors)


def unbounded(design: Design) -> tuple[str, ...]:
    """The sites whose priors are infinite at an edge."""
    return tuple(s for s, p in design.priors.items() if _is_unbounded(p.prior))


def without_wrappers(prior: Any) -> Any:
    """The distribution that others only give another shape."""
    while isinstance(prior, dist.Independent | dist.ExpandedDistribution):
        prior = prior.base_dist
    return prior


def _is_unbounded(prior: Any) -> bool:
    inner = without_wrappers(prior)
    if isinstance(inner, dist.WishartCholesky):
        return bool(np.any(np.asarray(inner.concentration) < _least(inner)))
    names = _CONCENTRATIONS.get(type(inner), ())
    return any(np.any(np.asarray(getattr(inner, name)) < 1) for name in names)


def _least(prior: Any) -> float:
    """Degrees of freedom from which on a Wishart density is finite."""
    return prior.event_shape[-1] + 1.0


def _with_mode(prior: Any) -> Any:
    if isinstance(prior, dist.Independent):
        return dist.Independent(_with_mode(prior.base_dist), prior.reinterpreted_batch_ndims)
    if isinstance(prior, dist.ExpandedDistribution):
        return _with_mode(prior.base_dist).expand(prior.batch_shape)
    if isinstance(prior, dist.WishartCholesky):
        freedom = jnp.maximum(jnp.asarray(prior.concentration), _least(prior))
        return FactorOfWishart(freedom, scale_tril=prior.scale_tril, validate_args=False)
    names = _CONCENTRATIONS.get(type(prior))
    if names is None:
        return prior
    arguments = {n: jnp.asarray(getattr(prior, n)) for n in prior.arg_constraints}
    raised = {n: jnp.maximum(v, 1.0) if n in names else v for n, v in arguments.items()}
    return type(prior)(**raised)
