"""Operations of JAX that are objects, written out.

Newer versions of JAX write some functions (`jnp.searchsorted`, say) as one equation with an object that knows how to
compute it, `jax.experimental.hijax.HiPrim`. How axes flow through it cannot be looked up by a name. So each becomes a
call of what it stands for, at any depth, before anything is analysed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import jax
from jax.extend import core as jex_core

from marginax.jaxpr.compiled import part
from marginax.jaxpr.same_program import is_object

OBJECT = "call_hi_primitive"
"""The primitive's name."""

_written: WeakKeyDictionary[jex_core.Jaxpr, jex_core.Jaxpr | None] = WeakKeyDictionary()
"""What jaxprs become, None where nothing changes. JAX keeps those of its library's functions, and so does this."""


def written_out(program: jex_core.ClosedJaxpr) -> jex_core.ClosedJaxpr:
    """The same program without operations that are objects."""
    jaxpr = _jaxpr(program.jaxpr)
    return program if jaxpr is program.jaxpr else jex_core.ClosedJaxpr(jaxpr, program.consts)


def _jaxpr(jaxpr: jex_core.Jaxpr) -> jex_core.Jaxpr:
    if jaxpr not in _written:
        equations = list(map(_equation, jaxpr.eqns))
        is_same = all(new is old for new, old in zip(equations, jaxpr.eqns, strict=True))
        _written[jaxpr] = None if is_same else jaxpr.replace(eqns=equations)
    found = _written[jaxpr]
    return jaxpr if found is None else found


def _equation(eqn: jex_core.JaxprEqn) -> jex_core.JaxprEqn:
    if eqn.primitive.name == OBJECT:
        (operation,) = (value for value in eqn.params.values() if is_object(value))
        (written,) = jax.make_jaxpr(_call_of(operation))(*(v.aval for v in eqn.invars)).eqns
        return _equation(eqn.replace(primitive=written.primitive, params=written.params))
    params = {name: _parameter(value) for name, value in eqn.params.items()}
    is_same = all(params[name] is value for name, value in eqn.params.items())
    return eqn if is_same else eqn.replace(params=params)


def _call_of(operation: Any) -> Callable[..., Any]:
    return part(lambda *leaves: operation.expand(*jax.tree.unflatten(operation.in_tree, leaves)))


def _parameter(value: Any) -> Any:
    if isinstance(value, jex_core.ClosedJaxpr):
        return written_out(value)
    if isinstance(value, jex_core.Jaxpr):
        return _jaxpr(value)
    if type(value) is tuple:
        parts = tuple(map(_parameter, value))
        return (
            parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
        )
    return value
