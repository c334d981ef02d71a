"""One distribution over all continuous sites together, as a vector without constraints.

The vector is laid out site by site in the model's order, each site's free numbers in C order. It is
drawn at one site, ``_{prefix}_latent``, which the model does not have (it is *auxiliary*). Each
site of the model is then a point mass at the image of its part of the vector, and carries the density that the
change of variables adds: minus the logarithm of the bijection's Jacobian. Together they are the
density of the guide in the model's own variables::

    log q(x) = log q(vector) - sum over sites  log |d x_site / d vector_site|
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from marginax.errors import ModelError
from marginax.infer.autoguide.base import AutoGuide, check_quantiles
from marginax.infer.autoguide.latents import LatentSite, in_plates
from marginax.language.handlers.seeding import as_key
from marginax.language.plates import plate
from marginax.language.primitives import param, sample


class Start(NamedTuple):
    """Where a parameter of a joint guide begins, and where it lives."""

    value: Any
    constraint: Any = None


class AutoContinuous(AutoGuide):
    """Base class of the guides with one distribution over all sites, on the unconstrained scale.

    A kind of guide says which parameters it has beside its location (`shape_parameters`), and what
    distribution they make (`distribution`).

    Parameters
    ----------
    model : callable
        The model; its continuous sites may not stand in subsampled plates.
    prefix : str
        Parameters are named ``{prefix}_{what}``.
    init_loc_fn : callable
        A function of a site that returns its initial value; see `infer.initialization`.
    """

    @abstractmethod
    def shape_parameters(self, size: int) -> dict[str, Start]:
        """The parameters beside ``loc``, for a vector of that size."""

    @abstractmethod
    def distribution(self, loc: Array, **shape_parameters: Array) -> dist.Distribution:
        """The distribution of the vector at a run."""

    def continuous_sites(self, *args: Any, **kwargs: Any) -> dict[str, LatentSite]:
        sites = super().continuous_sites(*args, **kwargs)
        guide = type(self).__name__
        for name, site in sites.items():
            if site.subsampled is not None:
                raise ModelError(
                    f"it stands in the subsampled plate '{site.subsampled}', and {guide} has one distribution "
                    "over all elements at once, which every step would need whole.",
                    site=name,
                    advice=(
                        "Use AutoNormal or AutoDelta for it (AutoGuideList joins guides), or leave "
                        "subsample_size out."
                    ),
                )
        if not sites:
            raise ModelError(
                f"{guide}: the model has no continuous latent site, so there is nothing to guide; discrete "
                "ones are summed out.",
                advice="Write the guide `lambda *args: None`.",
            )
        return sites

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        begin = self._beginning(args, kwargs)
        sites = self._look(args, kwargs)

        def begin_vector(key: Any) -> Array:
            values = begin(key)
            return pack({n: s.transform.inv(values[n]) for n, s in sites.items()})

        loc = param(f"{self.prefix}_loc", begin_vector)
        shape = {
            what: param(f"{self.prefix}_{what}", start.value, constraint=start.constraint)
            for what, start in self.shape_parameters(size(sites)).items()
        }
        vector = sample(
            f"_{self.prefix}_latent", self.distribution(loc, **shape), infer={"is_auxiliary": True}
        )
        plates: dict[str, plate] = {}
        values = {}
        for name, free in unpack(sites, vector).items():
            site = sites[name]
            value = site.transform(free)
            jacobian = site.transform.log_abs_det_jacobian(free, value)
            within_event = jnp.ndim(jacobian) - (jnp.ndim(value) - site.event_dim)
            jacobian = jnp.sum(jacobian, tuple(range(-within_event, 0)))
            with in_plates(site, plates):
                point = dist.Delta(value, log_density=-jacobian, event_dim=site.event_dim)
                values[name] = sample(name, point)
        return values

    def get_posterior(
        self, params: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> dist.Distribution:
        """The distribution of the unconstrained vector.

        Parameters
        ----------
        params : mapping
            The parameters by name: the result's ``params``.
        *args, **kwargs
            The model's arguments; only needed by a guide that has not run.

        Returns
        -------
        Distribution
            Of the sites' unconstrained values one after the other, in the model's order.
        """
        sites = self._known_sites(args, kwargs)
        shape = {
            what: self._parameter(params, f"{self.prefix}_{what}", jnp.shape(start.value))
            for what, start in self.shape_parameters(size(sites)).items()
        }
        return self.distribution(self._fitted_loc(params, sites), **shape)

    def _fitted_loc(self, params: Mapping[str, Any], sites: Mapping[str, LatentSite]) -> Array:
        return self._parameter(params, f"{self.prefix}_loc", (size(sites),))

    def median(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        sites = self._known_sites(args, kwargs)
        return constrain(sites, self._fitted_loc(params, sites))

    def quantiles(
        self, params: Mapping[str, Any], quantiles: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        asked, sites = check_quantiles(quantiles), self._known_sites(args, kwargs)
        posterior: Any = self.get_posterior(params, *args, **kwargs)
        locs = unpack(sites, posterior.mean)
        scales = unpack(sites, jnp.sqrt(posterior.variance))
        return {n: s.normal_quantiles(locs[n], scales[n], asked) for n, s in sites.items()}

    def sample_posterior(
        self,
        rng_key: Any,
        params: Mapping[str, Any],
        *args: Any,
        sample_shape: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> dict[str, Any]:
        posterior = self.get_posterior(params, *args, **kwargs)
        vectors = jnp.asarray(posterior.sample(as_key(rng_key), tuple(sample_shape)))
        return constrain(self._known_sites(args, kwargs), vectors)


def size(sites: Mapping[str, LatentSite]) -> int:
    """How long the vector of all sites is."""
    return sum(math.prod(site.free_shape) for site in sites.values())


def pack(free: Mapping[str, Any]) -> Array:
    """The unconstrained values of all sites as one vector."""
    return jnp.concatenate([jnp.ravel(value) for value in free.values()])


def unpack(sites: Mapping[str, LatentSite], vector: Array) -> dict[str, Array]:
    """Vectors (on the last axis) as the unconstrained values of all sites."""
    values, start = {}, 0
    for name, site in sites.items():
        shape = site.free_shape
        part = vector[..., start : start + math.prod(shape)]
        values[name] = jnp.reshape(part, vector.shape[:-1] + shape)
        start += math.prod(shape)
    return values


def constrain(sites: Mapping[str, LatentSite], vector: Array) -> dict[str, Array]:
    """Vectors (on the last axis) as values of all sites."""
    return {n: sites[n].transform(free) for n, free in unpack(sites, vector).items()}
