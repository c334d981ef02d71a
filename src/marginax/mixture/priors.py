"""Priors that the user states, in place of a family's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from marginax.mixture.family import Parameter

FLAT = "flat"

_STORABLE = (
    "Beta Cauchy Dirichlet Exponential Gamma Gumbel HalfCauchy HalfNormal InverseGamma Kumaraswamy Laplace "
    "Logistic LogNormal LogUniform Normal Pareto StudentT Uniform Weibull Wishart WishartCholesky"
).split()


def with_priors(defaults: Mapping[str, Parameter], stated: Any) -> dict[str, Parameter]:
    """The priors of all parameters, those that are stated in place of the defaults.

    Parameters
    ----------
    defaults : mapping
        By site.
    stated : None, "flat" or mapping of str to Distribution
        ``"flat"``: no priors, for maximum likelihood.

    Raises
    ------
    ValueError, TypeError
        When a name is no parameter, or a prior does not have the parameter's shape or range.
    """
    if stated is None:
        return dict(defaults)
    if isinstance(stated, str) and stated == FLAT:
        return {name: p._replace(prior=_flat(p.prior)) for name, p in defaults.items()}
    if not isinstance(stated, Mapping):
        raise TypeError(
            "priors must be None, 'flat', or a dictionary from parameters to distributions, such as "
            f"{{'weights': dist.Dirichlet(jnp.ones(3))}}, not {stated!r}."
        )
    found = dict(defaults)
    for name, prior in stated.items():
        if name not in defaults:
            known = ", ".join(repr(n) for n in defaults)
            raise ValueError(f"priors names {name!r}, which is no parameter; there are: {known}.")
        fitting = _fitting(name, prior, defaults[name].prior)
        found[name] = defaults[name]._replace(prior=fitting, is_stated=True)
    return found


def shape_of(prior: Any) -> tuple[int, ...]:
    """The shape of a prior's values."""
    return (*prior.batch_shape, *prior.event_shape)


def _flat(prior: Any) -> Any:
    shape = shape_of(prior)
    support = prior.support
    own = len(shape) - support.event_dim
    return dist.ImproperUniform(support, (), shape[own:]).expand(shape[:own]).to_event(own)


def _fitting(name: str, prior: Any, default: Any) -> Any:
    if not isinstance(prior, dist.Distribution):
        raise TypeError(
            f"priors[{name!r}] must be a distribution of marginax.distributions, not {type(prior).__name__}."
        )
    if isinstance(prior, dist.Delta) or prior.is_discrete:
        raise ValueError(
            f"priors[{name!r}] is a {type(prior).__name__}, but the parameter is continuous and estimated; give it a "
            "prior with a density, a narrow one to keep it near a value."
        )
    shape = shape_of(default)
    batch = shape[: len(shape) - len(prior.event_shape)]
    try:
        if (*batch, *prior.event_shape) != shape:
            raise ValueError
        expanded = prior.expand(batch)
    except ValueError:
        raise ValueError(
            f"priors[{name!r}] has the shape {shape_of(prior)}, but the parameter has {shape or 'no dimensions'} "
            "(of one component)."
        ) from None
    values = expanded.to_event(len(batch)) if batch else expanded
    allowed, needed = values.support, default.support
    if not all(np.all(np.asarray(needed(value))) for value in _some_values(allowed, shape)):
        raise ValueError(
            f"priors[{name!r}] is a {type(prior).__name__}, whose values need not be {needed}, as the parameter's are."
        )
    return values


def _some_values(support: Any, shape: tuple[int, ...]) -> list[Any]:
    """Values from all over a support: in its middle and near its ends."""
    transform = dist.biject_to(support)
    free = transform.inverse_shape(shape)
    return [transform(jnp.full(free, number)) for number in (-10.0, -1.0, 0.0, 1.0, 10.0)]


def as_data(priors: Any) -> Any:
    """Stated priors as JSON: names and numbers."""
    if priors is None or priors == FLAT:
        return priors
    return {name: _distribution_as_data(name, prior) for name, prior in priors.items()}


def from_data(data: Any) -> Any:
    """The priors that `as_data` wrote.

    Raises
    ------
    ValueError
        For anything else.
    """
    if data is None or data == FLAT:
        return data
    if not isinstance(data, dict):
        raise ValueError("its priors are no dictionary.")
    return {str(name): _distribution(entry) for name, entry in data.items()}


def _distribution_as_data(name: str, prior: Any) -> dict[str, Any]:
    event = 0
    while isinstance(prior, dist.Independent | dist.ExpandedDistribution):
        if isinstance(prior, dist.ExpandedDistribution):
            raise ValueError(
                f"priors[{name!r}] is expanded, which a model file cannot hold; give its parameters their full shape."
            )
        event += prior.reinterpreted_batch_ndims
        prior = prior.base_dist
    kind = type(prior).__name__
    if kind not in _STORABLE:
        raise ValueError(
            f"priors[{name!r}] is a {kind}, which a model file cannot hold; it can hold {', '.join(_STORABLE)}."
        )
    arguments = {
        argument: np.asarray(getattr(prior, argument)).tolist()
        for argument in prior.arg_constraints
        if getattr(prior, argument, None) is not None
    }
    if kind.startswith("Wishart"):  # of its three ways to say it, one
        arguments = {
            "concentration": np.asarray(prior.concentration).tolist(),
            "scale_tril": np.asarray(prior.scale_tril).tolist(),
        }
    return {"distribution": kind, "arguments": arguments, "event_dim": event}


def _distribution(entry: Any) -> Any:
    if not isinstance(entry, dict) or entry.get("distribution") not in _STORABLE:
        raise ValueError(f"its priors have an entry {entry!r}, which is no known distribution.")
    arguments = {
        str(name): np.asarray(value, np.float64) for name, value in dict(entry["arguments"]).items()
    }
    try:
        return getattr(dist, entry["distribution"])(**arguments).to_event(int(entry["event_dim"]))
    except TypeError as error:
        raise ValueError(f"its priors have an entry {entry!r}: {error}") from error
