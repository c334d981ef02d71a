"""The function behind a custom derivative in a traced program.

JAX has no public way to it: a step `custom_jvp_call` holds a function that traces the rule on demand, made
anew at every trace, in whose closure the rule is wrapped. Its parts are looked at here by name, with
Python's `inspect`; where they are not what is expected, the rule is not recognised, and the program that
holds it is never taken for another.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from jax.extend.linear_util import WrappedFun


def written_rule(value: Any) -> Callable[..., Any] | None:
    """What the author of a custom JVP has passed to ``defjvp``; None where it cannot be told.

    Parameters
    ----------
    value
        The parameter ``jvp_jaxpr_fun`` of a step.
    """
    if not isinstance(value, WrappedFun):
        return None
    thunk = _nonlocals(value.f).get("fn")
    rule = _nonlocals(thunk).get("jvp")
    if not isinstance(rule, WrappedFun):
        return None
    # Anything else around it, static arguments say, would be a part of the rule.
    around = [getattr(transform, "__name__", "") for transform, _ in rule.transforms]
    return rule.f if around == ["_flatten_jvp"] else None


def _nonlocals(fn: Any) -> dict[str, Any]:
    return dict(inspect.getclosurevars(fn).nonlocals) if isinstance(fn, FunctionType) else {}
