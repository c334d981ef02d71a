"""A `scan` of NumPyro's, as one of this library.

NumPyro runs the body of a scan with all handlers around it switched off, and then sends the series of
each site through them, once. Here the body's statements pass through the handlers step by step, as those
of `language/scan.py` do. That comes to the same for a handler which does the same at every step, a mask or
a scale by one number, say; where one has values for a whole series (``condition``, ``substitute``), a
handler of this library takes its place, which knows about steps; and a ``seed`` within the model gives a
key to each step. Every other handler around a scan is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro import handlers as theirs
from numpyro.primitives import Messenger as TheirMessenger

from marginax.errors import ModelError
from marginax.language import handlers
from marginax.language.scan import scan
from marginax.language.stack import Message, Messenger

_AROUND_A_SCAN = (
    theirs.block,
    theirs.condition,
    theirs.infer_config,
    theirs.mask,
    theirs.reparam,
    theirs.scale,
    theirs.scope,
    theirs.seed,
    theirs.substitute,
    theirs.uncondition,
)


class OfOneStep(TheirMessenger):
    """Makes NumPyro's handlers that have values for a series leave the sites of a scan's body alone."""

    def process_message(self, msg: Message) -> None:
        cast(dict[str, Any], msg)["_control_flow_done"] = True  # NumPyro's own sign for that


def control_flow(msg: Message, inside: list[Any]) -> Any:
    """Run the scan that a message of NumPyro's asks for.

    Parameters
    ----------
    msg : dict
        The message. What it holds, and what NumPyro expects as its value, is private to NumPyro's
        ``contrib.control_flow``.
    inside : list
        NumPyro's handlers around the scan, outermost first.

    Returns
    -------
    tuple
        The result in NumPyro's form, with no sites left for it to state.
    """
    if "history" not in msg["kwargs"]:  # the message of a scan has it, that of a cond has not
        raise ModelError(
            "from_numpyro: `cond` has no translation.",
            advice=(
                "Choose the parameters instead of the branch, numpyro.sample('x', "
                "dist.Normal(jnp.where(condition, a, b), 1.0)), or write a Python `if` where the condition is "
                "known before the model runs."
            ),
        )
    f, init, xs, length, reverse = msg["args"]
    _check(inside)
    key = msg["kwargs"]["rng_key"]
    if key is not None:
        length = jnp.shape(jax.tree.leaves(xs)[0])[0] if length is None else length
        f, xs = _seeded(f), (jax.random.split(key, length), xs)

    def step(carry: Any, x: Any) -> Any:
        with OfOneStep():
            return f(carry, x)

    with ExitStack() as around:
        for kind, values in reversed(msg["kwargs"]["substitute_stack"]):  # outermost first
            around.enter_context(_with_series(kind, values))
        carry, ys = scan(step, init, xs, length, reverse, msg["kwargs"]["history"])
    return (length, None, carry), (SimpleNamespace(trace={}), ys)


def _check(inside: list[Any]) -> None:
    for handler in inside:
        factor: Any = getattr(handler, "mask", getattr(handler, "scale", True))
        is_traced_scale = isinstance(handler, theirs.scale) and isinstance(factor, Tracer)
        if not isinstance(handler, _AROUND_A_SCAN) or np.ndim(factor) or is_traced_scale:
            raise ModelError(
                f"from_numpyro: a scan inside numpyro's {type(handler).__name__}, which would have to know "
                "its steps.",
                advice=(
                    "Put that into the body of the scan, or use the handler of marginax.handlers, around "
                    "from_numpyro(model)."
                ),
            )


def _seeded(f: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def step(carry: Any, now: Any) -> Any:
        key, x = now
        return theirs.seed(f, key)(carry, x)

    return step


def _with_series(kind: str, values: Any) -> Messenger:
    """A handler of this library for NumPyro's condition or substitute around a scan."""
    if callable(values):
        raise ModelError(
            f"from_numpyro: a scan inside numpyro's {kind} with a function; give the values as data={{...}}."
        )
    return {"condition": handlers.condition, "substitute": handlers.substitute}[kind](data=values)
