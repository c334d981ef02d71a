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
from marginax.graph.known_data import with_data_known
from marginax.graph.same_sites import refuse_changes, seen_of
from marginax.graph.sites import seen_in
from marginax.infer.known import KnownModel, know
from marginax.language import handlers
from marginax.language.primitives import as_numbers
from marginax.language.stack import (
    Message,
    element,
    is_point_mass,
    isolated,
)

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
            f"site '{site['name']}': its initial value is random and there is no key; run the model "
            "under handlers.seed."
        )
    return key


class _WholePlates(handlers.Messenger):
    """Initial values are wanted for all elements of a plate, also of a subsampled one."""

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "plate":
            msg["value"] = jnp.arange(msg["args"][0])


def initial_values(
    model: Callable[..., Any], strategy: InitStrategy, key: Any, *args: Any, **kwargs: Any
) -> dict[str, Any]:
    """Initial values of a model's continuous latent sites, in their supports.

    Sites are visited in the model's order, so a strategy sees the distributions that earlier
    initial values lead to.

    Parameters
    ----------
    model : callable
        The model.
    strategy : callable
        A function of a site.
    key : PRNG key
        For random strategies.
    *args, **kwargs
        The model's arguments.

    Raises
    ------
    ModelError
        When a value is no number, does not have the site's shape, or lies outside its support.
    """
    trace, names = initial_trace(know(model, args, kwargs), strategy, key)
    return {name: trace[name]["value"] for name in names}


def initial_trace(
    known: KnownModel,
    strategy: InitStrategy,
    key: Any,
    beside: Callable[[Message, Array], Array] | None = None,
) -> tuple[handlers.Trace, list[str]]:
    """One run of a model at its initial values.

    Parameters
    ----------
    known : KnownModel
        The model.
    strategy : callable
        A function of a site.
    key : PRNG key
        For random strategies.
    beside : callable, optional
        A function of a site and its value; its results are recorded, too, as the message's ``"beside"``.

    Returns
    -------
    dict of messages, list of str
        The run, and the names of the sites that got initial values.
    """
    chosen: list[str] = []

    def choose(site: Message) -> Any:
        if site["type"] != "sample" or site["value"] is not None:
            return None
        if site["fn"].is_discrete or is_point_mass(site["fn"]):
            return None
        name = site["name"]
        for frame in site["cond_indep_stack"]:
            if frame.size != frame.full_size:
                raise ModelError(
                    f"site '{name}': the subsampled plate '{frame.name}' around it is hidden, so that "
                    f"only {frame.size} of its {frame.full_size} elements would get initial values. "
                    "Leave handlers.block out (discrete sites need none), or hide sites by their names."
                )
        value = strategy(site)
        value = init_to_sample(site) if value is None else as_numbers(name, value)
        if jnp.shape(value) != site_shape(site):
            raise ModelError(
                f"site '{name}': its initial value has shape {jnp.shape(value)}, but the "
                f"site has shape {site_shape(site)}."
            )
        check_value(name, site["fn"].support, value, "its initial value")
        chosen.append(name)
        value = jnp.asarray(value, jnp.result_type(float))
        if beside is not None:
            site["beside"] = beside(site, value)
        return value

    seeded: Any = handlers.seed(known.model, rng_seed=key)
    # Else the plates may stay as small as they are: so may the data, where they come in batches.
    is_local = any(f.size != f.full_size for s in known.continuous.values() for f in s.plates)
    if is_local:
        seeded = _WholePlates(seeded)
    placed = handlers.substitute(seeded, substitute_fn=choose)
    with isolated():
        trace = with_data_known(
            lambda: handlers.trace(placed).get_trace(*known.args, **known.kwargs)
        )
    first = seen_in(known.sites)
    again = seen_of(trace)
    if is_local:  # the sizes of plates are others: which sites there are is compared
        again = {name: first.get(name, one) for name, one in again.items()}
    refuse_changes(first, again)
    return trace, list(dict.fromkeys(chosen))
