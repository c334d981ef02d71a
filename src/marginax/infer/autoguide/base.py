"""What all automatic guides share.

A guide is used twice. First it *runs*, with the model's arguments, as half of a bound: it looks at the
model's sites, states a parameter or two for each, and draws. Afterwards it is *asked*, with nothing
but the fitted parameters: for medians, quantiles, draws. To answer it must know what the sites were, their
shapes and supports, and these follow from the model's arguments.

So each run leaves one thing behind: the `LatentSite` records, immutable and free of arrays. Whoever asks may
give the model's arguments again, after the parameters; then they count. That serves a guide which has
not run in this process, say with parameters read from a file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from marginax.errors import ModelError
from marginax.infer.autoguide.latents import LatentSite
from marginax.infer.known import KnownModel, know, knowing
from marginax.infer.start.initial_run import values_at_start
from marginax.infer.start.initialization import InitStrategy, init_to_uniform
from marginax.jaxpr.concrete import is_concrete
from marginax.language.primitives import as_numbers


class AutoGuide(ABC):
    """Base class of automatic guides.

    Parameters
    ----------
    model : callable
        The model. `handlers.block` around it is not needed, and harmless.
    prefix : str
        Enters the names of the parameters.
    init_loc_fn : callable
        A function of a site that returns where its location begins; see `infer.initialization`.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        prefix: str = "auto",
        init_loc_fn: InitStrategy = init_to_uniform,
    ) -> None:
        if not callable(model):
            raise TypeError(f"{type(self).__name__}: the model must be a function.")
        self.model = model
        self.prefix = prefix
        self.init_loc_fn = init_loc_fn
        self._remembered: Mapping[str, LatentSite] | None = None

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run the guide.

        Parameters
        ----------
        *args, **kwargs
            The model's arguments.

        Returns
        -------
        dict
            The value of every continuous site by name.
        """

    @abstractmethod
    def median(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The median of every site, in its support.

        Parameters
        ----------
        params : mapping
            The parameters by name: the result's ``params``.
        *args, **kwargs
            The model's arguments; only needed by a guide that has not run.

        Returns
        -------
        dict of array
            By site name; for all elements of a subsampled plate.

        Raises
        ------
        ModelError
            When the guide has not run and gets no arguments, or a parameter is missing or has another
            shape than the sites ask for.
        """

    @abstractmethod
    def quantiles(
        self, params: Mapping[str, Any], quantiles: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Quantiles of every site, in its support, each number of it by itself.

        Where the support ties numbers together (a probability vector), the images of the quantiles on the
        unconstrained scale.

        Parameters
        ----------
        params : mapping
            The parameters by name: the result's ``params``.
        quantiles : float or sequence of float
            Which, strictly between 0 and 1.
        *args, **kwargs
            The model's arguments; only needed by a guide that has not run.

        Returns
        -------
        dict of array, each with the dimensions of ``quantiles`` first

        Raises
        ------
        ModelError
            As `median` does.
        ValueError
            When a quantile is not between 0 and 1.
        """

    @abstractmethod
    def sample_posterior(
        self,
        rng_key: Any,
        params: Mapping[str, Any],
        *args: Any,
        sample_shape: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Draws of every continuous site from the guide.

        For draws of what depends on them (discrete and deterministic sites, predictions) pass these to
        `Predictive`.

        Parameters
        ----------
        rng_key : PRNG key
            For the draws.
        params : mapping
            The parameters by name: the result's ``params``.
        *args, **kwargs
            The model's arguments; only needed by a guide that has not run.
        sample_shape : tuple of int
            Leading dimensions of the draws.

        Returns
        -------
        dict of array, each with the dimensions ``sample_shape`` first

        Raises
        ------
        ModelError
            As `median` does.
        """

    def continuous_sites(self, *args: Any, **kwargs: Any) -> dict[str, LatentSite]:
        """The latent sites that the guide is for.

        Raises
        ------
        ModelError
            When a discrete latent site cannot be summed out, or the support of a continuous one is not
            fixed: no automatic guide fits them.
        """
        known = self._known(args, kwargs)
        for name, site in known.sites.items():
            if site.is_free and site.is_discrete and site.support is None:
                raise ModelError(
                    f"it is a latent {site.distribution} that cannot be summed out "
                    f"({site.not_enumerated_because}), and {type(self).__name__} is for continuous sites; "
                    "give it a finite support or write the guide by hand.",
                    site=name,
                )
        return {name: LatentSite.of(site) for name, site in known.continuous.items()}

    def initial_values(self, key: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Where the locations begin, by site name."""
        return values_at_start(self._known(args, kwargs), self.init_loc_fn, key)

    def _known(self, args: Any, kwargs: Any) -> KnownModel:
        here = knowing()
        if here is None:
            return know(self.model, args, kwargs)
        return here.know(self.model, args, kwargs, self.init_loc_fn)

    def _look(self, args: Any, kwargs: Any) -> Mapping[str, LatentSite]:
        """The sites at a run; remembered."""
        self._remembered = self.continuous_sites(*args, **kwargs)
        return self._remembered

    def _known_sites(self, args: Any, kwargs: Any) -> Mapping[str, LatentSite]:
        """The sites when asked: of these arguments, or else of the last run."""
        if args or kwargs:
            return self.continuous_sites(*args, **kwargs)
        if self._remembered is None:
            raise ModelError(
                f"{type(self).__name__}: this guide has not run yet, so it does not know the model's sites.",
                advice=(
                    "Give the model's arguments after the parameters, guide.median(params, data) say, or run it "
                    "first: SVI does, and so does handlers.seed(guide, rng_seed=0)(data)."
                ),
            )
        return self._remembered

    def _beginning(self, args: Any, kwargs: Any) -> Callable[[Any], dict[str, Any]]:
        """A function of a key that gives where the locations begin, by site."""
        found: dict[str, Any] = {}

        def begin(key: Any) -> dict[str, Any]:
            # One run of the model gives all sites theirs; it happens only if one is asked for.
            here = knowing()
            if here is not None and here.later is not None:
                sites = self.continuous_sites(*args, **kwargs)
                return {name: jnp.zeros(site.shape) for name, site in sites.items()}
            if not found:
                found.update(self.initial_values(key, *args, **kwargs))
            return found

        return begin

    def _parameter(self, params: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Array:
        """One of the fitted parameters."""
        if name not in params:
            known = ", ".join(repr(n) for n in params) or "none"
            raise ModelError(
                f"{type(self).__name__}: params has no '{name}'; its names are: {known}."
            )
        value = jnp.asarray(as_numbers(name, params[name]))
        if value.shape != shape:
            raise ModelError(
                f"it has shape {value.shape}, but the model's sites ask for {shape}.",
                site=name,
                kind="param",
                advice=(
                    "Give the model's arguments that it was fitted with after the parameters; of parameters of "
                    "several fits, pass one at a time (or use jax.vmap)."
                ),
            )
        return value


def check_quantiles(quantiles: Any) -> Array:
    """Quantiles as an array of numbers strictly between 0 and 1."""
    array = jnp.asarray(as_numbers("quantiles", quantiles), jnp.result_type(float))
    if is_concrete(array):
        values = np.asarray(array)
        if not ((values > 0) & (values < 1)).all():
            raise ValueError(
                f"quantiles must lie strictly between 0 and 1 (at the ends they are infinite), not {values}."
            )
    return array


def check_init_scale(guide: str, init_scale: Any) -> float:
    """The standard deviation that a guide begins with."""
    if not isinstance(init_scale, int | float | np.number) or not 0 < init_scale < np.inf:
        raise ValueError(f"{guide}: init_scale must be a positive number, not {init_scale!r}.")
    return float(init_scale)
