"""Compile a function whose closed-over arrays become arguments instead of constants.

A model's data, and whatever else it reads, are closed over, so that it sees them as they are (a NumPy
array may decide Python control flow). Compiled as constants, large data would be copied into the
program and folded by the compiler; as arguments they are neither.

It also settles when a compiled program may be used again. A model is an ordinary function: it may
read globals, attributes and arrays that change between two calls, so neither its identity nor its
arguments tell whether it still means the same. It is therefore traced at every call (which costs
milliseconds), and what is remembered is the compiled program of the *jaxpr*: two equal jaxprs are the
same computation, on whatever arrays.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core as jex_core

MOST_REMEMBERED = 256

_remembered: OrderedDict[Any, Callable[..., Any]] = OrderedDict()
_lock = threading.Lock()


def hoisted_jit(fn: Callable[..., Any], *example: Any) -> Callable[..., Any]:
    """Trace once, compile once.

    Parameters
    ----------
    fn : callable
        A pure function of arrays.
    *example
        Arguments (or their shapes) like those it will be called with.

    Returns
    -------
    callable
        The compiled function, for arguments of these shapes; differentiable.
    """
    closed, structure = _trace(fn, example)
    run = _runner(closed.jaxpr, structure)
    return lambda *args: run(list(closed.consts), jax.tree.leaves(args))


def remembered_jit(fn: Callable[..., Any], *example: Any) -> Callable[..., Any]:
    """Like `hoisted_jit`, but a program that was compiled before is used again.

    Not for functions that are differentiated afterwards: of a custom derivative a jaxpr shows the
    name alone. Derivatives taken inside ``fn`` are part of its jaxpr.
    """
    closed, structure = _trace(fn, example)
    text = str(closed.jaxpr)
    if "callback" in text or "..." in text:  # a Python function, or an array too long to print
        run = _runner(closed.jaxpr, structure)
    else:
        key = (text, structure)
        with _lock:
            run = _remembered.setdefault(key, _runner(closed.jaxpr, structure))
            _remembered.move_to_end(key)
            if len(_remembered) > MOST_REMEMBERED:
                _remembered.popitem(last=False)
    return lambda *args: run(list(closed.consts), jax.tree.leaves(args))


def _trace(fn: Callable[..., Any], example: Any) -> tuple[jex_core.ClosedJaxpr, Any]:
    closed, result = jax.make_jaxpr(fn, return_shape=True)(*example)
    return closed, jax.tree.structure(result)


def _runner(jaxpr: jex_core.Jaxpr, structure: Any) -> Callable[..., Any]:
    @jax.jit
    def run(consts: list[Any], leaves: list[Any]) -> Any:
        function = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(jaxpr, consts))
        return jax.tree.unflatten(structure, function(*leaves))

    return run
