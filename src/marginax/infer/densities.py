"""`log_density`: a model's density at given parameters, discrete sites summed out, and its trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

import marginax.queries as queries
from marginax.graph.sites import as_jax_arrays
from marginax.graph.validate import is_concrete
from marginax.language import handlers
from marginax.marginal import marginalize


def log_density(
    model: Callable[..., Any],
    model_args: Sequence[Any],
    model_kwargs: Mapping[str, Any],
    params: Mapping[str, Any],
) -> tuple[Array, dict[str, Any]]:
    """Log density of parameters and data, with the discrete sites summed out.

    Parameters
    ----------
    model : callable
        The model.
    model_args, model_kwargs : sequence, mapping
        Its arguments.
    params : mapping
        Constrained values of its other latent sites.

    Returns
    -------
    array, shape (), and dict
        The log density, and the trace of a run with these values; a discrete site has its
        posterior mode there.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     z = mx.sample("z", dist.Bernoulli(0.5))
    ...     mx.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=1.0)
    >>> value, trace = mx.infer.log_density(model, (), {}, {})
    >>> round(float(value), 4)
    -0.6931
    """
    marginal = marginalize(model)
    value = marginal.log_density(params, *model_args, **model_kwargs)
    if is_concrete(value) and value == -jnp.inf:  # there is no mode; any values serve
        discrete, _ = queries.mode(marginal.prepare(params, model_args, model_kwargs))
    else:
        discrete = marginal.mode(params, *model_args, **model_kwargs)
    fixed = handlers.substitute(model, data=dict(params) | discrete)
    model_args, model_kwargs = as_jax_arrays((tuple(model_args), dict(model_kwargs)))
    return value, handlers.trace(fixed).get_trace(*model_args, **model_kwargs)
