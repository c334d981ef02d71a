"""The model as it stands once a guide has spoken: what the guide states is given, the rest is summed out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax

from marginax.density.validate import numpyro_checks
from marginax.graph.known_data import with_data_known
from marginax.graph.sites import Site, collect_sites_once
from marginax.language import handlers
from marginax.language.stack import Message, isolated


def record(fn: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Message]:
    """The trace of a run under no other handlers, unchecked."""
    with isolated(), numpyro_checks(False):
        return with_data_known(lambda: handlers.trace(fn).get_trace(*args, **kwargs))


def seeded(fn: Callable[..., Any], params: Mapping[str, Any], key: Any) -> Callable[..., Any]:
    """A guide or model with its parameters and randomness fixed."""
    return handlers.seed(handlers.substitute(fn, data=dict(params)), key)


def given_guide(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    params: Mapping[str, Any],
    key: Any,
    args: Any,
    kwargs: Any,
    sum_out: bool = True,
    sites: Mapping[str, Site] | None = None,
) -> tuple[Callable[..., Any], dict[str, Site]]:
    """The model with the values that the guide draws.

    Parameters
    ----------
    model, guide : callable
        Of a guide with branches (`guide_paths`), give one of them.
    params : mapping
        Of both.
    key : PRNG key
        For what they draw.
    args, kwargs
        Arguments of both.
    sum_out : bool
        Leave the guide's discrete sites open, so that they are summed out, where they can be.
    sites : mapping of Site, optional
        The model's, if they are known.

    Returns
    -------
    callable, dict of Site
        The model, and its sites.
    """
    guide_key, model_key = jax.random.split(key)
    stated = record(seeded(guide, params, guide_key), args, kwargs)
    model = seeded(model, params, model_key)
    if sites is None:
        sites = collect_sites_once(model, *args, **kwargs)
    values = {
        name: msg["value"]
        for name, msg in stated.items()
        if msg["type"] == "plate"
        or (
            msg["type"] == "sample"
            and name in sites
            and not (sum_out and sites[name].support is not None)
        )
    }
    given = {n: replace(s, is_free=False) if n in values else s for n, s in sites.items()}
    return handlers.substitute(model, data=values), given
