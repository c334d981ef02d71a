"""A point estimate for every continuous site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from marginax.infer.autoguide.base import AutoGuide, check_quantiles
from marginax.infer.autoguide.latents import in_plates
from marginax.infer.start.initialization import InitStrategy, init_to_median
from marginax.language.plates import plate
from marginax.language.primitives import param, sample


class AutoDelta(AutoGuide):
    """A point estimate for every continuous site: with it, SVI finds the MAP.

    Parameters
    ----------
    model : callable
        The model.
    prefix : str
        Parameters are named ``{site}_{prefix}_loc`` and live in the site's support.
    init_loc_fn : callable
        A function of a site that returns its initial value; see `infer.initialization`.

    Examples
    --------
    >>> import jax, optax
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(data):
    ...     loc = mx.sample("loc", dist.Normal(0.0, 10.0))
    ...     with mx.plate("data", len(data)):
    ...         mx.sample("obs", dist.Normal(loc, 1.0), obs=data)
    >>> guide = mx.infer.autoguide.AutoDelta(model)
    >>> svi = mx.infer.SVI(model, guide, optax.adam(0.1), mx.infer.TraceEnum_ELBO())
    >>> data = jnp.array([1.0, 2.0, 3.0])
    >>> result = svi.run(jax.random.key(0), 300, data, progress_bar=False)
    >>> round(float(guide.median(result.params)["loc"]), 2)
    1.99
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        prefix: str = "auto",
        init_loc_fn: InitStrategy = init_to_median,
    ) -> None:
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        begin = self._beginning(args, kwargs)
        plates: dict[str, plate] = {}
        values = {}
        for name, site in self._look(args, kwargs).items():
            with in_plates(site, plates):
                loc = param(
                    self._loc(name),
                    lambda key, name=name: begin(key)[name],
                    constraint=site.constraint,
                    event_dim=site.event_dim,
                )
                values[name] = sample(name, dist.Delta(loc, event_dim=site.event_dim))
        return values

    def _loc(self, name: str) -> str:
        return f"{name}_{self.prefix}_loc"

    def get_posterior(
        self, params: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, dist.Distribution]:
        """The point mass of every site.

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
        return {
            name: dist.Delta(
                self._parameter(params, self._loc(name), site.shape), 0.0, site.event_dim
            )
            for name, site in sites.items()
        }

    def median(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        sites = self._known_sites(args, kwargs)
        return {n: self._parameter(params, self._loc(n), site.shape) for n, site in sites.items()}

    def quantiles(
        self, params: Mapping[str, Any], quantiles: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        asked = check_quantiles(quantiles)
        return _repeated(self.median(params, *args, **kwargs), asked.shape)

    def sample_posterior(
        self,
        rng_key: Any,
        params: Mapping[str, Any],
        *args: Any,
        sample_shape: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> dict[str, Any]:
        return _repeated(self.median(params, *args, **kwargs), sample_shape)


def _repeated(values: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    return {name: jnp.broadcast_to(v, tuple(shape) + v.shape) for name, v in values.items()}
