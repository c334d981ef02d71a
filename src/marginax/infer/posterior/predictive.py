"""`Predictive`: run a model once for every draw of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from marginax.density.validate import check_value
from marginax.errors import ModelError
from marginax.graph.known_data import with_data_known
from marginax.graph.same_sites import refuse_changes, seen_of
from marginax.graph.sites import Site, as_jax_arrays, collect_sites_once, seen_in
from marginax.infer.posterior.discrete import infer_discrete
from marginax.jaxpr.compiled import hoisted_jit
from marginax.language import handlers
from marginax.language.primitives import as_numbers


class Predictive:
    """Draws from the prior, the posterior predictive, or the posterior of discrete sites.

    Parameters
    ----------
    model : callable
        The model.
    posterior_samples : mapping, optional
        Draws by site name, with ``batch_ndims`` leading dimensions.
    guide : callable, optional
        Draw from this guide instead, with ``params`` substituted.
    params : mapping, optional
        Values of `param` sites of guide and model.
    num_samples : int, optional
        How many draws; needed when there are no ``posterior_samples``.
    return_sites : collection of str, optional
        Sites to return; those that ``posterior_samples`` does not have when nothing is said.
    infer_discrete : bool
        Draw discrete latent sites from their exact posterior given the data and the other sites.
        Otherwise they are drawn from the prior, like every other latent site.
    parallel : bool
        Run all draws at once (more memory) instead of one after the other.
    batch_ndims : int
        Leading dimensions of the draws; 2 for draws grouped by chain.

    Examples
    --------
    >>> import jax
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(x=None):
    ...     z = mx.sample("z", dist.Bernoulli(0.5))
    ...     mx.sample("x", dist.Normal(1.0 * z, 1.0), obs=x)
    >>> prior = mx.infer.Predictive(model, num_samples=3)
    >>> prior(jax.random.key(0))["x"].shape
    (3,)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        posterior_samples: Mapping[str, Any] | None = None,
        *,
        guide: Callable[..., Any] | None = None,
        params: Mapping[str, Any] | None = None,
        num_samples: int | None = None,
        return_sites: Collection[str] | None = None,
        infer_discrete: bool = False,
        parallel: bool = False,
        batch_ndims: int = 1,
    ) -> None:
        if posterior_samples is None and num_samples is None:
            raise ValueError(
                "Predictive: give posterior_samples=, or num_samples= and perhaps guide=."
            )
        if posterior_samples is not None and guide is not None:
            raise ValueError("Predictive: give posterior_samples= or guide=, not both.")
        if isinstance(return_sites, str):
            raise TypeError(f"Predictive: return_sites must be a list: [{return_sites!r}].")
        self.model = model
        self.guide = guide
        self.params = dict(params or {})
        self.samples = {
            n: jnp.asarray(as_numbers(n, v)) for n, v in (posterior_samples or {}).items()
        }
        self.return_sites = return_sites
        self.infer_discrete = infer_discrete
        self.parallel = parallel
        self.batch_shape = self._batch_shape(num_samples, batch_ndims)

    def _batch_shape(self, num_samples: int | None, batch_ndims: int) -> tuple[int, ...]:
        if not self.samples:
            if num_samples is None or num_samples < 1:
                raise ValueError(f"Predictive: num_samples must be at least 1, not {num_samples}.")
            return (num_samples,)
        shapes = {name: value.shape[:batch_ndims] for name, value in self.samples.items()}
        first = next(iter(shapes.values()))
        for name, shape in shapes.items():
            if shape != first or len(shape) != batch_ndims:
                raise ValueError(
                    f"Predictive: the draws of '{name}' have leading dimensions {shape}, the others "
                    f"{first}, and batch_ndims is {batch_ndims}."
                )
        if num_samples is not None and batch_ndims == 1 and num_samples != first[0]:
            raise ValueError(
                f"Predictive: num_samples is {num_samples}, but there are {first[0]} draws; leave it out."
            )
        return first

    def __call__(self, rng_key: Any, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Run the model for every draw.

        Parameters
        ----------
        rng_key : PRNG key or int
            For everything random.
        *args, **kwargs
            The model's arguments; leave observed data out to predict it.

        Returns
        -------
        dict of array, each with the draws' leading dimensions
        """
        count = 1
        for size in self.batch_shape:
            count *= size
        flat = {
            n: v.reshape((count, *v.shape[len(self.batch_shape) :]))
            for n, v in self.samples.items()
        }
        args, kwargs = as_jax_arrays((args, kwargs))
        model = handlers.substitute(self.model, data=self.params)
        sites = collect_sites_once(model, *args, **kwargs)
        self._check_samples(sites)
        one = partial(self._one, model, sites, self._names(sites), args, kwargs)
        keys = jax.random.split(handlers.as_key(rng_key), count)

        def one_by_one(keys: Any, flat: dict[str, Array]) -> dict[str, Array]:
            return jax.lax.map(lambda draw: one(*draw), (keys, flat))

        every = jax.vmap(one) if self.parallel else one_by_one
        drawn = hoisted_jit(every, keys, flat)(keys, flat)
        return {n: v.reshape((*self.batch_shape, *v.shape[1:])) for n, v in drawn.items()}

    def _check_samples(self, sites: Mapping[str, Site]) -> None:
        """Do the draws fit the model's sites?"""
        missing = [n for n, s in sites.items() if s.is_free and not s.is_discrete]
        missing = [name for name in missing if name not in self.samples]
        for name, value in self.samples.items():
            site = sites.get(name)
            meant = get_close_matches(name, missing, 1) if site is None else []
            if meant:
                raise ModelError(
                    f"Predictive: there are draws of '{name}', which the model has no site for, but none of its "
                    f"'{meant[0]}'; is one of the names misspelt?"
                )
            if site is None or site.kind == "deterministic" or site.is_observed:
                continue
            own = value.shape[len(self.batch_shape) :]
            ends_early = site.series and 0 < own[0] < site.shape[0] and own[1:] == site.shape[1:]
            if own != site.shape and not ends_early:
                raise ModelError(
                    f"each of its draws has shape {own}, but the site has shape {site.shape}.",
                    site=name,
                )
            check_value(name, site.constraint, value, "its value in posterior_samples")

    def _names(self, sites: Mapping[str, Site]) -> list[str]:
        if self.return_sites is not None:
            unknown = [name for name in self.return_sites if name not in sites]
            if unknown:
                raise ValueError(
                    f"Predictive: return_sites names '{unknown[0]}', but the model has {list(sites)}."
                )
            return list(self.return_sites)
        return [
            name
            for name, site in sites.items()
            if name not in self.samples
            and not site.is_observed
            and site.kind in ("sample", "deterministic")
        ]

    def _one(
        self,
        model: Callable[..., Any],
        sites: Mapping[str, Site],
        names: list[str],
        args: Any,
        kwargs: Any,
        key: Any,
        draw: dict[str, Array],
    ) -> dict[str, Array]:
        def recorded(fn: Callable[..., Any]) -> handlers.Trace:
            return with_data_known(lambda: handlers.trace(fn).get_trace(*args, **kwargs))

        guide_key, model_key, discrete_key = jax.random.split(key, 3)
        model = handlers.substitute(model, data=draw)
        if self.guide is not None:
            guide = handlers.seed(handlers.substitute(self.guide, data=self.params), guide_key)
            trace = recorded(guide)
            model = handlers.replay(model, trace=trace)
        if self.infer_discrete:
            model = infer_discrete(model, temperature=1, rng_key=discrete_key)
        trace = recorded(handlers.seed(model, model_key))
        refuse_changes(seen_in(sites), seen_of(trace))
        return {name: trace[name]["value"] for name in names}
