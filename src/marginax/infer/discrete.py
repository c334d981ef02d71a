"""`infer_discrete`: run a model with its discrete sites set to their posterior mode or a draw."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from marginax.graph.sites import as_jax_arrays, collect_sites
from marginax.graph.validate import is_concrete
from marginax.language import handlers
from marginax.language.errors import ModelError
from marginax.language.primitives import prng_key
from marginax.language.stack import Message, Messenger, isolated
from marginax.marginal import Marginal, diagnose, draw_query, mode_query
from marginax.static_jit import call_compiled


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
        values = _values(model, temperature, key, args, kwargs)
        with handlers.substitute(data=values):
            return model(*args, **kwargs)

    return inferred


def _values(
    model: Callable[..., Any], temperature: int, key: Any, args: Any, kwargs: Any
) -> dict[str, Any]:
    """Values of all discrete latent sites, and of the continuous ones that nothing had fixed."""
    known = _Known(model)
    sites = collect_sites(known, *args, **kwargs)
    loose = [n for n, s in sites.items() if s.is_free and s.support is None]
    if loose and key is None:
        key = prng_key()
        if key is None:
            raise ModelError(
                f"site '{loose[0]}': infer_discrete needs its value; fix it inside with "
                "handlers.replay or handlers.substitute, or run under handlers.seed to draw it."
            )
    # What the handlers inside fix may change between calls, so it goes in as numbers.
    fixed = {n: s.value for n, s in sites.items() if s.value is not None}
    if loose:
        key, prior_key = jax.random.split(key)
        fixed |= _draw_from_prior(model, loose, prior_key, args, kwargs)
    query = _mode if temperature == 0 else _draw
    marginal = Marginal(model)
    # A value fixed inside that is no number now is being traced: then so is everything here.
    traced = any(
        s.kind == "sample" and s.value is None and not s.is_free and not s.is_observed
        for s in sites.values()
    )
    if not traced and is_concrete((key, fixed, args, kwargs)):
        arrays = {n: jnp.asarray(v) for n, v in fixed.items()}
        chosen, total = call_compiled(query, marginal, key, (arrays, known.numbers), args, kwargs)
        if not jnp.isfinite(total):
            raise diagnose(marginal.prepare(fixed, args, kwargs))
    else:
        chosen, _ = query(marginal, key, (fixed, {}), args, kwargs)
    return chosen | {name: fixed[name] for name in loose}


class _Known(Messenger):
    """Remember which plates and observed sites the handlers inside give numbers to."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__(fn)
        self.numbers: dict[str, Any] = {}

    def postprocess_message(self, msg: Message) -> None:
        is_data = msg["type"] == "plate" or (msg["type"] == "sample" and msg["is_observed"])
        if is_data and is_concrete(msg["value"]):
            self.numbers[msg["name"]] = jnp.asarray(msg["value"])


def _mode(m: Marginal, key: Any, values: Any, args: Any, kwargs: Any) -> Any:
    fixed, known = values
    return mode_query(Marginal(handlers.substitute(m.model, data=known)), key, fixed, args, kwargs)


def _draw(m: Marginal, key: Any, values: Any, args: Any, kwargs: Any) -> Any:
    fixed, known = values
    return draw_query(Marginal(handlers.substitute(m.model, data=known)), key, fixed, args, kwargs)


def _draw_from_prior(
    model: Callable[..., Any], names: list[str], key: Any, args: Any, kwargs: Any
) -> dict[str, Any]:
    def run(key: Any) -> dict[str, Any]:
        with isolated():
            trace = handlers.trace(handlers.seed(model, rng_seed=key)).get_trace(*args, **kwargs)
        return {name: trace[name]["value"] for name in names}

    return jax.jit(run)(key)
