"""`log_density` and `log_likelihood`: a model's densities with its discrete sites summed out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

import marginax.marginal.queries as queries
from marginax.errors import ModelError
from marginax.graph.sites import as_jax_arrays
from marginax.infer.known import know_surely
from marginax.jaxpr.concrete import is_concrete
from marginax.language import handlers
from marginax.marginal.facade import marginalize
from marginax.marginal.prepared import check_params


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


def log_likelihood(
    model: Callable[..., Any],
    posterior_samples: Mapping[str, Any],
    *args: Any,
    parallel: bool = False,
    batch_ndims: int = 1,
    **kwargs: Any,
) -> dict[str, Array]:
    """Log-likelihood of each observation for every draw, with the discrete sites summed out.

    Parameters
    ----------
    model : callable
        The model.
    posterior_samples : mapping
        Draws of its other latent sites, with ``batch_ndims`` leading dimensions.
    *args, **kwargs
        The model's arguments, with the observed data.
    parallel : bool
        Evaluate all draws at once, however much memory that takes; otherwise as many as fit.
    batch_ndims : int
        Leading dimensions of the draws.

    Returns
    -------
    dict of array, shape (*draws, *batch_shape)
        By observed site; see `Marginal.pointwise`.

    Raises
    ------
    ModelError
        When the draws do not have ``batch_ndims`` leading dimensions, or do not fit the model.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(x):
    ...     loc = mx.sample("loc", dist.Normal(0.0, 1.0))
    ...     with mx.plate("data", len(x)):
    ...         z = mx.sample("z", dist.Bernoulli(0.5))
    ...         mx.sample("x", dist.Normal(loc + z, 1.0), obs=x)
    >>> mx.infer.log_likelihood(model, {"loc": jnp.zeros(10)}, jnp.ones(3))["x"].shape
    (10, 3)
    """
    sites = know_surely(model, args, kwargs).sites
    draws = {name: value for name, value in posterior_samples.items() if name in sites}
    _, batch = check_params(sites, draws)
    if len(batch) != batch_ndims:
        raise ModelError(
            f"log_likelihood: the draws have {len(batch)} leading dimensions, {batch}, but batch_ndims "
            f"is {batch_ndims}."
        )
    together = max(math.prod(batch), 1) if parallel else None
    return marginalize(model).pointwise(draws, *args, batch_size=together, **kwargs)
