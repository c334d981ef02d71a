"""A normal distribution for every continuous site, on the unconstrained scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from marginax.infer.autoguide.base import AutoGuide, check_init_scale, check_quantiles
from marginax.infer.autoguide.latents import LatentSite, in_plates
from marginax.infer.start.initialization import InitStrategy, init_to_uniform
from marginax.language.handlers.seeding import as_key
from marginax.language.plates import plate
from marginax.language.primitives import param, sample


class AutoNormal(AutoGuide):
    """Independent normals on the unconstrained scale, moved into each site's support.

    The guide for models of any size: sites in a subsampled plate have their parameters for every
    element of the plate, and each step moves those of the subsample.

    Parameters
    ----------
    model : callable
        The model.
    prefix : str
        Parameters are named ``{site}_{prefix}_loc`` and ``{site}_{prefix}_scale``.
    init_loc_fn : callable
        A function of a site that returns its initial value; see `infer.initialization`.
    init_scale : float
        The standard deviation to begin with.

    References
    ----------
    Kucukelbir, Tran, Ranganath, Gelman and Blei (2017). Automatic Differentiation Variational
    Inference. JMLR 18.

    Examples
    --------
    >>> import jax, optax
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(data):
    ...     rate = mx.sample("rate", dist.Gamma(2.0, 1.0))
    ...     with mx.plate("data", len(data)):
    ...         mx.sample("obs", dist.Poisson(rate), obs=data)
    >>> guide = mx.infer.autoguide.AutoNormal(model)
    >>> svi = mx.infer.SVI(model, guide, optax.adam(0.02), mx.infer.TraceEnum_ELBO())
    >>> data = jnp.array([3, 5, 4, 4])
    >>> result = svi.run(jax.random.key(0), 1000, data, progress_bar=False)
    >>> low, high = guide.quantiles(result.params, [0.05, 0.95])["rate"]
    >>> bool(low < 18 / 5 < high)  # the posterior is Gamma(18, 5)
    True
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        prefix: str = "auto",
        init_loc_fn: InitStrategy = init_to_uniform,
        init_scale: float = 0.1,
    ) -> None:
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)
        self.init_scale = check_init_scale(type(self).__name__, init_scale)

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        begin = self._beginning(args, kwargs)
        plates: dict[str, plate] = {}
        values = {}
        for name, site in self._look(args, kwargs).items():
            with in_plates(site, plates):
                if (
                    0 in site.free_shape
                ):  # it has one possible value, as the weight of a lone component
                    point = site.transform(jnp.zeros(site.free_shape))
                    values[name] = sample(name, dist.Delta(point, event_dim=site.event_dim))
                    continue
                loc = param(
                    f"{name}_{self.prefix}_loc",
                    lambda key, site=site: site.transform.inv(begin(key)[site.name]),
                    event_dim=site.free_event_dim,
                )
                scale = param(
                    f"{name}_{self.prefix}_scale",
                    jnp.full(site.free_shape, self.init_scale),
                    constraint=constraints.softplus_positive,
                    event_dim=site.free_event_dim,
                )
                values[name] = sample(name, site.normal(loc, scale))
        return values

    def _fitted(self, params: Mapping[str, Any], site: LatentSite) -> tuple[Array, Array]:
        """Location and scale of a site."""
        loc, scale = (f"{site.name}_{self.prefix}_{what}" for what in ("loc", "scale"))
        shape = site.free_shape
        if 0 in shape:
            return jnp.zeros(shape), jnp.ones(shape)
        return self._parameter(params, loc, shape), self._parameter(params, scale, shape)

    def get_posterior(
        self, params: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, dist.Distribution]:
        """The distribution of every site.

        Parameters
        ----------
        params : mapping
            The parameters by name: the result's ``params``.
        *args, **kwargs
            The model's arguments; only needed by a guide that has not run.

        Returns
        -------
        dict of Distribution
            By site name; for all elements of a subsampled plate.
        """
        sites = self._known_sites(args, kwargs)
        return {n: site.normal(*self._fitted(params, site)) for n, site in sites.items()}

    def median(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        sites = self._known_sites(args, kwargs)
        return {n: site.transform(self._fitted(params, site)[0]) for n, site in sites.items()}

    def quantiles(
        self, params: Mapping[str, Any], quantiles: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        asked, sites = check_quantiles(quantiles), self._known_sites(args, kwargs)
        return {n: s.normal_quantiles(*self._fitted(params, s), asked) for n, s in sites.items()}

    def sample_posterior(
        self,
        rng_key: Any,
        params: Mapping[str, Any],
        *args: Any,
        sample_shape: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> dict[str, Any]:
        posterior = self.get_posterior(params, *args, **kwargs)
        keys = jax.random.split(as_key(rng_key), len(posterior))
        return {
            name: fn.sample(key, tuple(sample_shape))
            for key, (name, fn) in zip(keys, posterior.items(), strict=True)
        }
