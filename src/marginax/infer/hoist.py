"""Compile a function whose closed-over arrays become arguments instead of constants.

Inference closes over the user's data, so that a model sees them as they are (a NumPy array may
decide Python control flow). Compiled as constants, large data would be copied into the program and
folded by the compiler; as arguments they are neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core as jex_core


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
        The compiled function, for arguments of these shapes.
    """
    closed, result = jax.make_jaxpr(fn, return_shape=True)(*example)
    structure = jax.tree.structure(result)

    @jax.jit
    def run(consts: list[Any], args: tuple[Any, ...]) -> Any:
        function = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(closed.jaxpr, consts))
        return jax.tree.unflatten(structure, function(*jax.tree.leaves(args)))

    consts = list(closed.consts)
    return lambda *args: run(consts, args)
