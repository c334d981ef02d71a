"""Draws as ArviZ wants them, with everything that a marginalised model can add to them.

To the draws of continuous sites come exact joint draws of the discrete variables, which were summed out, and
their exact marginal probabilities; the log-likelihood of each observation with the discrete variables summed
out, which is what leave-one-out comparison needs; and new data from the posterior predictive distribution.
Dimensions are named after plates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from marginax.graph.sites import Site
from marginax.infer.known import KnownModel, know_surely
from marginax.infer.posterior.predictive import Predictive
from marginax.infer.start.initial_run import initial_trace
from marginax.infer.start.initialization import init_to_median
from marginax.jaxpr.compiled import QUICK, remembered_jit
from marginax.language import handlers
from marginax.marginal.facade import Marginal, marginalize

PROBABILITIES = "_probs"

_STATISTICS = {"accept_prob": "acceptance_rate", "num_steps": "n_steps"}
"""ArviZ's names, where they differ from NumPyro's."""


def to_arviz(
    model: Callable[..., Any],
    samples: Mapping[str, Any],
    *args: Any,
    sample_stats: Mapping[str, Any] | None = None,
    rng_key: Any = None,
    discrete: bool = True,
    log_likelihood: bool = True,
    posterior_predictive: bool = True,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, list[str]] | None = None,
    batch_size: int | None = None,
    **kwargs: Any,
) -> Any:
    """Hand draws to ArviZ.

    Parameters
    ----------
    model : callable
        The model.
    samples : mapping of array, shape (chains, draws, *site_shape)
        Draws of the continuous latent sites, and perhaps of deterministic ones.
    *args, **kwargs
        The model's arguments, with the observed data.
    sample_stats : mapping of array, shape (chains, draws), optional
        What the sampler reported.
    rng_key : PRNG key or int, optional
        For the discrete draws and the predictive ones; key 0 when nothing is said.
    discrete : bool
        Add to ``posterior`` a joint draw of the discrete variables for each draw, under their own names, and
        their marginal probabilities, under ``"<name>_probs"`` with a last dimension for the values.
    log_likelihood : bool
        Add the log-likelihood of each observation, with the discrete variables summed out. Where
        observations share a discrete variable, as those of a series do, it is that of one given all others: what
        ``arviz.loo`` takes (see `Marginal.pointwise`).
    posterior_predictive : bool
        Add new data for each draw, with discrete variables drawn anew, as for elements not seen yet.
    coords : mapping, optional
        Labels along dimensions, instead of 0, 1, 2, ....
    dims : mapping, optional
        Names of the dimensions of a site, instead of those of its plates.
    batch_size : int, optional
        How many draws are evaluated at once; as many as fit when nothing is said.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        Whichever the installed ArviZ uses. Groups ``posterior``, ``sample_stats``, ``log_likelihood``,
        ``posterior_predictive``, ``observed_data``, as far as there is something to say.

    Raises
    ------
    ImportError
        When ArviZ is not installed.

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
    >>> found = mx.infer.to_arviz(model, {"loc": jnp.zeros((2, 10))}, jnp.ones(3))
    >>> found.posterior["z"].dims
    ('chain', 'draw', 'data')
    """
    arviz = _arviz()
    key = jax.random.key(0) if rng_key is None else handlers.as_key(rng_key)
    known = know_surely(model, args, kwargs)
    args, kwargs, sites = known.args, known.kwargs, known.sites
    naming = _Naming(sites, coords or {}, dims or {})
    marginal = marginalize(model)
    variables = [n for n, s in sites.items() if s.is_free and s.support is not None]
    observed = [n for n, s in sites.items() if s.is_observed and not s.is_auxiliary]
    given = {
        n: v for n, v in samples.items() if n in sites and sites[n].is_free and n not in variables
    }
    groups: dict[str, dict[str, Any]] = {"posterior": dict(samples)}
    if discrete and variables:
        drawn = {name: samples[name] for name in variables if name in samples}
        if not drawn:
            drawn = _discrete_draws(marginal, key, given, args, kwargs, batch_size)
        groups["posterior"] |= drawn
        shares = _batched(marginal.posterior, given, samples, args, kwargs, batch_size)
        groups["posterior"] |= {name + PROBABILITIES: value for name, value in shares.items()}
    if sample_stats:
        groups["sample_stats"] = _statistics(sample_stats)
    if log_likelihood and observed:
        groups["log_likelihood"] = dict(
            _batched(marginal.pointwise, given, samples, args, kwargs, batch_size)
        )
    if posterior_predictive and observed:
        groups["posterior_predictive"] = _predicted(
            model, given, samples, observed, jax.random.fold_in(key, 1), args, kwargs
        )
    if observed:
        groups["observed_data"] = _observations(known, observed, key)
    for group, values in groups.items():
        groups[group] = {name: np.asarray(value) for name, value in values.items()}
    return _assembled(arviz, groups, naming)


def _arviz() -> Any:
    """ArviZ, imported late, for it takes seconds."""
    try:
        with warnings.catch_warnings():
            # Once a day ArviZ announces its own next version.
            warnings.simplefilter("ignore", FutureWarning)
            import arviz
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ: pip install arviz") from error
    return arviz


def _leading(samples: Mapping[str, Any]) -> tuple[int, int]:
    """Chains and draws."""
    chains, draws, *_ = np.shape(next(iter(samples.values())))
    return chains, draws


def _batched(
    query: Callable[..., Mapping[str, Array]],
    given: Mapping[str, Any],
    samples: Mapping[str, Any],
    args: Any,
    kwargs: Any,
    batch_size: int | None,
) -> dict[str, Any]:
    """A query for every draw; where nothing continuous is given, one answer serves for all."""
    found = query(given, *args, batch_size=batch_size, **kwargs)
    if given:
        return dict(found)
    leading = _leading(samples)
    return {name: np.broadcast_to(v, (*leading, *np.shape(v))) for name, v in found.items()}


def _discrete_draws(
    marginal: Marginal, key: Any, given: Mapping[str, Any], args: Any, kwargs: Any, size: int | None
) -> Mapping[str, Array]:
    return marginal.draw(key, given, *args, batch_size=size, **kwargs)


def _statistics(fields: Mapping[str, Any]) -> dict[str, Any]:
    found = {_STATISTICS.get(n, n): v for n, v in fields.items() if n != "potential_energy"}
    if "potential_energy" in fields:
        found["lp"] = -np.asarray(fields["potential_energy"])
    return found


def _predicted(
    model: Callable[..., Any],
    given: Mapping[str, Any],
    samples: Mapping[str, Any],
    observed: list[str],
    key: Any,
    args: Any,
    kwargs: Any,
) -> dict[str, Any]:
    free = handlers.uncondition(model)
    if given:
        predictive = Predictive(free, given, return_sites=observed, batch_ndims=2)
        return predictive(key, *args, **kwargs)
    chains, draws = _leading(samples)
    predictive = Predictive(free, num_samples=chains * draws, return_sites=observed)
    found = predictive(key, *args, **kwargs)
    return {name: v.reshape((chains, draws, *v.shape[1:])) for name, v in found.items()}


def _observations(known: KnownModel, observed: list[str], key: Any) -> dict[str, Any]:
    """The data, as one run of the model states them."""

    def run(key: Any) -> dict[str, Any]:
        trace, _ = initial_trace(known, init_to_median, key)
        return {name: trace[name]["value"] for name in observed}

    return remembered_jit(run, key, options=QUICK)(key)


class _Naming:
    """Names of dimensions, and labels along them."""

    def __init__(
        self,
        sites: Mapping[str, Site],
        coords: Mapping[str, Any],
        dims: Mapping[str, list[str]],
    ) -> None:
        self._sites, self._dims = sites, dims
        self.coords = dict(coords)

    def of(self, name: str, shape: tuple[int, ...]) -> list[str]:
        """The dimensions of an array of a site (without those of chains and draws)."""
        if name in self._dims:
            return list(self._dims[name])
        own = name.removesuffix(PROBABILITIES) if name not in self._sites else name
        site = self._sites.get(own)
        found = [f"{name}_dim_{i}" for i in range(len(shape))]
        if site is None:
            return found
        event_dim = 0 if own != name else site.event_dim
        for frame in site.plates:
            axis = len(shape) - event_dim + frame.dim - (own != name)
            if 0 <= axis < len(shape) and shape[axis] == frame.size:
                found[axis] = self._plate(frame.name, frame.size)
        for axis, series in enumerate(reversed(site.series)):
            found[axis] = self._labelled(series.name, np.arange(series.length))
        if own != name:
            support = np.asarray(site.support)
            labels = support if support.ndim == 1 else np.arange(len(support))
            found[-1] = self._labelled(f"{own}_value", labels)
        return found

    def _plate(self, plate: str, size: int) -> str:
        # In a data set a dimension called like a variable would have to be its labels.
        taken = {n for n, s in self._sites.items() if s.kind != "plate"}
        return self._labelled(f"{plate}_plate" if plate in taken else plate, np.arange(size))

    def _labelled(self, dimension: str, labels: np.ndarray) -> str:
        self.coords.setdefault(dimension, labels)
        return dimension


def _assembled(arviz: Any, groups: Mapping[str, Mapping[str, np.ndarray]], naming: _Naming) -> Any:
    dims = {
        name: naming.of(name, value.shape if group == "observed_data" else value.shape[2:])
        for group, values in groups.items()
        if group != "sample_stats"
        for name, value in values.items()
    }
    # Not hasattr: for names that are gone, ArviZ 1 has a warning.
    if "InferenceData" in vars(arviz):
        return arviz.from_dict(**groups, coords=naming.coords, dims=dims)
    return arviz.from_dict(dict(groups), coords=naming.coords, dims=dims)
