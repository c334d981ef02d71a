"""A run of a model at its initial values: where each of its continuous latent sites begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from marginax.errors import ModelError
from marginax.graph.known_data import with_data_known
from marginax.graph.same_sites import refuse_changes, seen_of
from marginax.graph.sites import seen_in
from marginax.infer.known import KnownModel, know
from marginax.infer.start.initialization import InitStrategy, initial_value
from marginax.language import handlers
from marginax.language.stack import Message, is_point_mass, isolated


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
    return values_at_start(know(model, args, kwargs), strategy, key)


def values_at_start(known: KnownModel, strategy: InitStrategy, key: Any) -> dict[str, Any]:
    """The same of a model that is known, perhaps with where it begins."""
    if known.start is not None and known.start.strategy is strategy:
        return known.start.values(key, known.args, known.kwargs)
    trace, names = initial_trace(known, strategy, key)
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
                    f"the subsampled plate '{frame.name}' around it is hidden, so that only {frame.size} of "
                    f"its {frame.full_size} elements would get initial values.",
                    site=name,
                    advice=(
                        "Leave handlers.block out (discrete sites need none), or hide sites by their names."
                    ),
                )
        value = initial_value(strategy, site)
        chosen.append(name)
        if beside is not None:
            site["beside"] = beside(site, value)
        return value

    seeded: Any = handlers.seed(known.model, rng_seed=key)
    # Else the plates may stay as small as they are: so may the data, where they come in batches.
    if known.is_local:
        seeded = _WholePlates(seeded)
    placed = handlers.substitute(seeded, substitute_fn=choose)
    with isolated():
        trace = with_data_known(
            lambda: handlers.trace(placed).get_trace(*known.args, **known.kwargs)
        )
    first = seen_in(known.sites)
    again = seen_of(trace)
    if known.is_local:  # the sizes of plates are others: which sites there are is compared
        again = {name: first.get(name, one) for name, one in again.items()}
    refuse_changes(first, again)
    return trace, list(dict.fromkeys(chosen))
