"""Guides made from a model: its continuous latent sites, each with its own approximation.

The discrete sites need no guide: they are summed out of the model exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from marginax.graph.sites import Site, collect_sites
from marginax.infer.initialization import InitStrategy, init_to_median, initial_values
from marginax.language.errors import ModelError
from marginax.language.plates import plate
from marginax.language.primitives import param, sample


class AutoGuide:
    """Base class of automatic guides.

    Parameters
    ----------
    model : callable
        The model. `handlers.block` around it is not needed, and harmless.
    prefix : str
        Parameters are named ``{site}_{prefix}_{what}``.
    init_loc_fn : callable
        A function of a site that returns where its location begins; see `infer.initialization`.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        prefix: str = "auto",
        init_loc_fn: InitStrategy = init_to_median,
    ) -> None:
        if not callable(model):
            raise TypeError(f"{type(self).__name__}: the model must be a function.")
        self.model = model
        self.prefix = prefix
        self.init_loc_fn = init_loc_fn

    def continuous_sites(self, *args: Any, **kwargs: Any) -> dict[str, Site]:
        """The latent sites that the guide is for.

        Raises
        ------
        ModelError
            When a discrete latent site cannot be summed out: no automatic guide fits it.
        """
        sites = collect_sites(self.model, *args, **kwargs)
        for name, site in sites.items():
            if site.is_free and site.is_discrete and site.support is None:
                raise ModelError(
                    f"site '{name}': it is a latent {site.distribution} that cannot be summed out "
                    f"({site.not_enumerated_because}), and {type(self).__name__} is for continuous "
                    "sites; give it a finite support or write the guide by hand."
                )
            if site.is_free and not site.is_discrete and site.constraint is None:
                raise ModelError(
                    f"site '{name}': the support of its {site.distribution} depends on other values, "
                    f"so {type(self).__name__} cannot keep a free parameter inside it. Write the "
                    "site as a fixed support that is then moved and stretched."
                )
        return {n: s for n, s in sites.items() if s.is_free and not s.is_discrete}

    def initial_values(self, key: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Where the locations begin, by site name."""
        return initial_values(self.model, self.init_loc_fn, key, *args, **kwargs)


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

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run the guide.

        Returns
        -------
        dict
            The value of every continuous site by name.
        """
        begin: dict[str, Any] = {}

        def initial(name: str) -> Callable[[Any], Any]:
            def value(key: Any) -> Any:
                # One run of the model gives all sites theirs; it happens only if one is asked for.
                if not begin:
                    begin.update(self.initial_values(key, *args, **kwargs))
                return begin[name]

            return value

        plates: dict[str, plate] = {}
        values = {}
        for name, site in self.continuous_sites(*args, **kwargs).items():
            with ExitStack() as stack:
                for f in site.plates:
                    if f.name not in plates:
                        plates[f.name] = plate(f.name, f.full_size, f.size, f.dim)
                    stack.enter_context(plates[f.name])
                loc = param(
                    f"{name}_{self.prefix}_loc",
                    initial(name),
                    constraint=site.constraint,
                    event_dim=site.event_dim,
                )
                point = dist.Delta(loc, event_dim=site.event_dim)
                values[name] = sample(name, point)
        return values

    def median(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The point estimates.

        Parameters
        ----------
        params : mapping
            The result's ``params``.

        Returns
        -------
        dict
            Values by site name.
        """
        suffix = f"_{self.prefix}_loc"
        return {n.removesuffix(suffix): v for n, v in params.items() if n.endswith(suffix)}

    def sample_posterior(
        self,
        rng_key: Any,
        params: Mapping[str, Any],
        *args: Any,
        sample_shape: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Draws from the guide: its point estimates, repeated.

        Parameters
        ----------
        rng_key : PRNG key
            Not used; every guide has the same signature.
        params : mapping
            The result's ``params``.
        sample_shape : tuple of int
            Leading dimensions of the draws.
        """
        return jax.tree.map(
            lambda v: jnp.broadcast_to(v, sample_shape + jnp.shape(v)), self.median(params)
        )
