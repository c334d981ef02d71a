"""A jaxpr's equations, each analysed once.

Dependence analysis walks through a program several times, and through the functions it calls at every call;
evaluation does so again. What they ask of an equation (its shapes, how its axes flow, what it calls, which other
equation is the same) does not change, so it is found once for each jaxpr and kept as long as the jaxpr lives. JAX
itself keeps the functions that it traced, so those of its library are analysed once in a process.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jax.extend import core as jex_core

from marginax.jaxpr.axis_flow import AxisFlow, Shape, axis_flow, shape_of

INLINED = frozenset({"jit", "pjit", "closed_call", "core_call", "call"})
"""Calls that mean what the function called means, and nothing else."""

CALLS = INLINED | {
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
}


class Signature:
    """All that decides what an equation makes of its arguments; equal signatures do the same."""

    __slots__ = ("_hash", "parts")

    def __init__(self, parts: tuple[Hashable, ...]) -> None:
        self.parts = parts
        self._hash = hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Signature) and self._hash == other._hash and self.parts == other.parts
        )


@dataclass(frozen=True, eq=False)
class Equation:
    """An equation of a jaxpr, and what is known of it."""

    eqn: jex_core.JaxprEqn
    name: str
    """Of its primitive."""
    literals: tuple[Any, ...]
    """For each input its number if it is a literal, otherwise None."""
    shapes: tuple[Shape, ...]
    """Of the inputs."""
    out_shape: Shape
    """Of the first output; () if it has none."""
    flow: AxisFlow | None
    called: jex_core.Jaxpr | None
    """The function that it calls, of those in `CALLS`."""
    called_consts: tuple[Any, ...]
    signature: Signature | None
    """None where that cannot be told, or where it does more than to compute its outputs."""


_analysed: WeakKeyDictionary[jex_core.Jaxpr, tuple[Equation, ...]] = WeakKeyDictionary()


def equations_of(jaxpr: jex_core.Jaxpr) -> tuple[Equation, ...]:
    """The equations of a jaxpr, in order."""
    found = _analysed.get(jaxpr)
    if found is None:
        found = _analysed[jaxpr] = tuple(map(equation, jaxpr.eqns))
    return found


def equation(eqn: jex_core.JaxprEqn) -> Equation:
    """Analyse an equation."""
    name, called, consts = eqn.primitive.name, None, ()
    if name in CALLS:
        called, consts = called_jaxpr(eqn), called_consts(eqn)
    shapes = tuple(map(shape_of, eqn.invars))
    return Equation(
        eqn,
        name,
        tuple(_number(a) if isinstance(a, jex_core.Literal) else None for a in eqn.invars),
        shapes,
        shape_of(eqn.outvars[0]) if eqn.outvars else (),
        axis_flow(eqn),
        called,
        consts,
        _signature(eqn, shapes),
    )


def called_jaxpr(eqn: jex_core.JaxprEqn) -> jex_core.Jaxpr:
    """The function that a call-like equation calls."""
    inner = _inner(eqn.params)
    return inner.jaxpr if isinstance(inner, jex_core.ClosedJaxpr) else inner


def called_consts(eqn: jex_core.JaxprEqn) -> tuple[Any, ...]:
    """The constants of that function."""
    inner = _inner(eqn.params)
    return tuple(inner.consts) if isinstance(inner, jex_core.ClosedJaxpr) else ()


def _inner(params: Mapping[str, Any]) -> Any:
    (inner,) = (params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params)
    return inner


def _number(literal: jex_core.Literal) -> Any:
    aval: Any = literal.aval
    return np.asarray(literal.val, aval.dtype)[()]


def _signature(eqn: jex_core.JaxprEqn, shapes: tuple[Shape, ...]) -> Signature | None:
    if eqn.effects:
        return None
    try:
        return Signature((eqn.primitive, tuple(sorted(eqn.params.items())), shapes, eqn.ctx))
    except TypeError:  # a parameter cannot be hashed
        return None
