"""Numbers that a traced function computes from what is known.

While a model is traced every array that it makes is abstract, also `jnp.array([0, 4, 9])`. Those
that depend on no input of the trace can be looked up afterwards: the equations are all there.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from marginax.jaxpr.compiled import hoisted_jit
from marginax.jaxpr.concrete import is_concrete
from marginax.jaxpr.dependence import NOTHING, dependences

_UNKNOWN = {"an input": ()}


def known_numbers(closed: jex_core.ClosedJaxpr) -> list[np.ndarray | None]:
    """The outputs of a traced function that do not depend on its arguments, as numbers.

    Returns
    -------
    list
        For each output a NumPy array, or None if it depends on an argument, or on something that is itself traced
        around the call.
    """
    whole = closed.jaxpr
    # Constants that are traced further outside are no more known than arguments are.
    inputs = [*whole.constvars, *whole.invars]
    is_known = [*map(is_concrete, closed.consts), *(False for _ in whole.invars)]
    about = whole.debug_info.with_unknown_names()
    opened = jex_core.Jaxpr((), inputs, whole.outvars, whole.eqns, whole.effects, about)
    found = dependences(opened, [NOTHING if known else _UNKNOWN for known in is_known])
    chosen = [i for i, dependence in enumerate(found) if not dependence]
    outvars = [whole.outvars[i] for i in chosen]
    fixed = jex_core.Jaxpr((), inputs, outvars, whole.eqns, whole.effects, about)
    with jax.ensure_compile_time_eval():
        values = [
            c if known else _any(var.aval)
            for c, known, var in zip([*closed.consts, *whole.invars], is_known, inputs, strict=True)
        ]
        run = hoisted_jit(jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(fixed, ())), *values)
        numbers = dict(zip(chosen, map(np.asarray, run(*values)), strict=True))
    return [numbers.get(i) for i in range(len(found))]


def _any(aval: Any) -> Any:
    """Some value of an input that nothing asked for depends on."""
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), aval.shape)
    return jnp.zeros(aval.shape, aval.dtype)
