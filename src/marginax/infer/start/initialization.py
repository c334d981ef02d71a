"""Where inference begins: functions of a site that return an initial value.

Any function of a site serves: it receives the site's message (``site["name"]``, ``site["fn"]``,
``site["kwargs"]["rng_key"]``, ...) and returns a value in the site's support, or None to leave the
choice to the prior. The ones here may be passed as they are, or called with options first:
``init_to_uniform`` or ``init_to_uniform(radius=1)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import ImproperUniform
from numpyro.distributions.transforms import biject_to

from marginax.density.distribution_layers import unwrapped
from marginax.density.validate import check_value
from marginax.errors import ModelError
from marginax.language.primitives import as_numbers
from marginax.language.stack import Message, element

InitStrategy = Callable[[Message], Any]


def init_to_uniform(site: Message | None = None, radius: float = 2.0) -> Any:
    """Uniform in ``(-radius, radius)`` on the unconstrained scale.

    Parameters
    ----------
    site : dict, optional
        The site; without it, a strategy with this radius.
    radius : float
        Half the width of the interval.

    Returns
    -------
    array of the site's shape, or a strategy
    """
    if site is None:
        return partial(init_to_uniform, radius=radius)
    transform = biject_to(site["fn"].support)
    shape = transform.inverse_shape(site_shape(site))
    value = jax.random.uniform(site_key(site), shape, minval=-radius, maxval=radius)
    return transform(value)


def init_to_feasible(site: Message | None = None) -> Any:
    """The middle of the unconstrained scale: one fixed point inside the support.

    Parameters
    ----------
    site : dict, optional
        The site; without it, this strategy.
    """
    if site is None:
        return init_to_feasible
    transform = biject_to(site["fn"].support)
    return transform(jnp.zeros(transform.inverse_shape(site_shape(site))))


def init_to_sample(site: Message | None = None) -> Any:
    """One draw from the prior; of an improper one, which has none, `init_to_uniform`.

    Parameters
    ----------
    site : dict, optional
        The site; without it, this strategy.
    """
    if site is None:
        return init_to_sample
    if _is_improper(site):
        return init_to_uniform(site)
    return site["fn"].sample(site_key(site), _sample_shape(site))


def init_to_median(site: Message | None = None, num_samples: int = 15) -> Any:
    """The median of some prior draws, taken on the unconstrained scale so that it is in the support.

    An improper prior has no draws; there it is `init_to_uniform`.

    Parameters
    ----------
    site : dict, optional
        The site; without it, a strategy with this number of draws.
    num_samples : int
        How many draws.
    """
    if site is None:
        return partial(init_to_median, num_samples=num_samples)
    if _is_improper(site):
        return init_to_uniform(site)
    transform = biject_to(site["fn"].support)
    draws = site["fn"].sample(site_key(site), (num_samples, *_sample_shape(site)))
    return transform(jnp.median(jax.vmap(transform.inv)(draws), axis=0))


def init_to_mean(site: Message | None = None) -> Any:
    """The prior mean; where it is not finite, the median of prior draws.

    Parameters
    ----------
    site : dict, optional
        The site; without it, this strategy.
    """
    if site is None:
        return init_to_mean
    try:
        mean = site["fn"].mean
    except NotImplementedError:
        return init_to_median(site)
    mean = jnp.broadcast_to(mean, site_shape(site))
    return jnp.where(jnp.isfinite(mean), mean, init_to_median(site))


def init_to_value(site: Message | None = None, values: Mapping[str, Any] | None = None) -> Any:
    """Given values; where a site has none, uniform on the unconstrained scale.

    Parameters
    ----------
    site : dict, optional
        The site; without it, a strategy with these values.
    values : mapping
        Values by site name.
    """
    values = {} if values is None else values
    if site is None:
        return partial(init_to_value, values=dict(values))
    if site["name"] in values:
        return element(site, values[site["name"]])
    return init_to_uniform(site)


def _is_improper(site: Message) -> bool:
    return isinstance(unwrapped(site["fn"]), ImproperUniform)


def site_shape(site: Message) -> tuple[int, ...]:
    """The shape of a site's value."""
    return _sample_shape(site) + tuple(site["fn"].shape())


def _sample_shape(site: Message) -> tuple[int, ...]:
    return tuple(site["kwargs"].get("sample_shape", ()))


def site_key(site: Message) -> Any:
    key = site["kwargs"].get("rng_key")
    if key is None:
        raise ModelError(
            "its initial value is random and there is no key; run the model under handlers.seed.",
            site=site["name"],
        )
    return key


def initial_value(strategy: InitStrategy, site: Message) -> Array:
    """The value at which a continuous latent site begins.

    Parameters
    ----------
    strategy : callable
        A function of a site.
    site : dict
        The site, with a random key.

    Raises
    ------
    ModelError
        When the value is no number, does not have the site's shape, or lies outside its support.
    """
    name = site["name"]
    value = strategy(site)
    value = init_to_sample(site) if value is None else as_numbers(name, value)
    if jnp.shape(value) != site_shape(site):
        raise ModelError(
            f"its initial value has shape {jnp.shape(value)}, but the site has shape {site_shape(site)}.",
            site=name,
        )
    check_value(name, site["fn"].support, value, "its initial value")
    return jnp.asarray(value, jnp.result_type(float))
