"""`infer_discrete`: run a model with its discrete sites set to their posterior mode or a draw."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from marginax.density.validate import numpyro_checks
from marginax.errors import ModelError
from marginax.graph.known_data import with_data_known
from marginax.graph.sites import Site, as_jax_arrays, collect_sites
from marginax.jaxpr.compiled import hoisted_jit
from marginax.jaxpr.concrete import is_concrete
from marginax.language import handlers
from marginax.language.primitives import prng_key
from marginax.language.stack import Message, Messenger, isolated
from marginax.marginal.facade import Marginal


def infer_discrete(
    fn: Callable[..., Any] | None = None,
    first_available_dim: int | None = None,
    temperature: int = 1,
    rng_key: Any = None,
) -> Callable[..., Any]:
    """A model whose discrete latent sites take values from their exact joint posterior.

    The posterior is given everything else: the data, and the values of the continuous sites, which
    are usually fixed with `handlers.replay`, `handlers.condition` or `handlers.substitute` *inside*.
    Continuous sites that are not fixed are drawn from the prior (that needs a seed).

    Parameters
    ----------
    fn : callable, optional
        The model; without it, a decorator.
    first_available_dim : int, optional
        Accepted for Pyro's and NumPyro's sake; nothing here depends on it.
    temperature : {0, 1}
        0 for the joint mode, 1 for one joint draw.
    rng_key : PRNG key, optional
        For the draw; without it, a key from the `handlers.seed` around the call.

    Returns
    -------
    callable
        A model with the same arguments, for `handlers.trace` to record.

    Raises
    ------
    ModelError
        When a draw has no key, or no joint assignment is possible.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(x):
    ...     z = mx.sample("z", dist.Bernoulli(0.5))
    ...     mx.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    >>> best = mx.infer.infer_discrete(model, temperature=0)
    >>> int(mx.handlers.trace(best).get_trace(1.0)["z"]["value"])
    1
    """
    if temperature not in (0, 1):
        raise ValueError(
            f"infer_discrete: temperature must be 0 (the mode) or 1 (a draw), not {temperature!r}."
        )
    if fn is None:
        return functools.partial(infer_discrete, temperature=temperature, rng_key=rng_key)
    key_given = None if rng_key is None else handlers.as_key(rng_key)
    model = fn

    @functools.wraps(model)
    def inferred(*args: Any, **kwargs: Any) -> Any:
        key = key_given
        if key is None and temperature == 1:
            key = prng_key()
            if key is None:
                raise ModelError(
                    "infer_discrete: temperature=1 draws at random and needs a key: pass rng_key=, or "
                    "run it under handlers.seed."
                )
        args, kwargs = as_jax_arrays((args, kwargs))
        values, unchanged = _values(model, temperature, key, args, kwargs)
        with handlers.substitute(data=values), numpyro_checks(False):
            return unchanged(model)(*args, **kwargs)

    return inferred


def _values(
    model: Callable[..., Any], temperature: int, key: Any, args: Any, kwargs: Any
) -> tuple[dict[str, Any], _Unchanged]:
    """Values of all discrete latent sites, and of the continuous ones that nothing had fixed."""
    known = _Observed(model)
    sites = collect_sites(known, *args, **kwargs)
    loose = [n for n, s in sites.items() if s.is_free and s.support is None]
    if loose and key is None:
        key = prng_key()
        if key is None:
            raise ModelError(
                "infer_discrete needs its value; fix it inside with handlers.replay or handlers.substitute, "
                "or run under handlers.seed to draw it.",
                site=loose[0],
            )
    # What the handlers inside fix may change between calls, so it goes in as numbers.
    fixed = {n: s.value for n, s in sites.items() if s.value is not None}
    if loose:
        key, prior_key = jax.random.split(key)
        fixed |= _draw_from_prior(model, loose, prior_key, args, kwargs)
    marginal = Marginal(model)
    ask = marginal.mode if temperature == 0 else functools.partial(marginal.draw, key)
    found = ask(fixed, *args, **kwargs)
    chosen = {name: value for name, value in found.items() if sites[name].is_free}
    drawn = chosen | {name: fixed[name] for name in loose}
    return drawn, _Unchanged(sites, known.values | fixed | chosen)


class _Observed(Messenger):
    """Remember the observed values."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__(fn)
        self.values: dict[str, Any] = {}

    def postprocess_message(self, msg: Message) -> None:
        if msg["type"] == "sample" and msg["is_observed"] and not msg.get("steps"):
            self.values[msg["name"]] = msg["value"]


class _Unchanged(Messenger):
    """Refuse values other than those that the posterior was computed for."""

    def __init__(self, sites: Mapping[str, Site], values: Mapping[str, Any]) -> None:
        super().__init__()
        self.sites = sites
        self.values = values

    def postprocess_message(self, msg: Message) -> None:
        site = self.sites.get(msg["name"]) if msg["type"] == "sample" else None
        if site is None:
            return
        now: Any = msg["value"]
        before = now if msg.get("steps") else self.values.get(site.name, now)
        both = is_concrete((before, now))
        if msg["is_observed"] != site.is_observed or (
            both and not np.array_equal(before, now, equal_nan=True)
        ):
            raise ModelError(
                "a handler around infer_discrete gives it another value than the one that its posterior was "
                "computed for.",
                site=site.name,
                advice="Put that handler inside: infer_discrete(handlers.condition(model, ...), ...).",
            )


def _draw_from_prior(
    model: Callable[..., Any], names: list[str], key: Any, args: Any, kwargs: Any
) -> dict[str, Any]:
    def run(key: Any) -> dict[str, Any]:
        with isolated():
            seeded = handlers.seed(model, rng_seed=key)
            trace = with_data_known(lambda: handlers.trace(seeded).get_trace(*args, **kwargs))
        return {name: trace[name]["value"] for name in names}

    return hoisted_jit(run, key)(key)
