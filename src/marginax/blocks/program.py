"""A jaxpr as a flat list of steps: every function that it calls is written out in place.

What is called by name alone (`jit`, a custom derivative, a checkpoint) hides how axes run through it.
Here nothing is differentiated any more (`in_blocks` does that before), so that only the values count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.extend import core as jex_core

from marginax.jaxpr.axis_flow import dtype_of, shape_of
from marginax.jaxpr.equations import CALLS


@dataclass(frozen=True, eq=False)
class Value:
    """An array of a program; two are the same only if they are one object."""

    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True, eq=False)
class Step:
    """One equation, which calls nothing that is written out elsewhere."""

    eqn: jex_core.JaxprEqn
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    debug_info: Any


@dataclass(frozen=True)
class Program:
    """Steps in order, and what goes in and comes out."""

    inputs: tuple[Value, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Value, ...]
    known: Mapping[Value, Any] = field(default_factory=dict)
    """Arrays of values that are no input: literals, and constants of what is called."""

    @property
    def computed(self) -> list[Value]:
        """Every array that a step makes."""
        return [value for step in self.steps for value in step.outputs]


def bytes_of(value: Value) -> int:
    """What an array takes."""
    return math.prod(value.shape) * value.dtype.itemsize


def flat_program(jaxpr: jex_core.ClosedJaxpr) -> Program:
    """Write out a jaxpr.

    Parameters
    ----------
    jaxpr : ClosedJaxpr
        Its constants become known values.
    """
    steps: list[Step] = []
    known: dict[Value, Any] = {}
    inputs = [Value(shape_of(v), dtype_of(v)) for v in jaxpr.jaxpr.invars]
    outputs = _write_out(jaxpr, inputs, steps, known)
    return Program(tuple(inputs), tuple(steps), tuple(outputs), known)


def _write_out(
    jaxpr: jex_core.ClosedJaxpr,
    inputs: Sequence[Value],
    steps: list[Step],
    known: dict[Value, Any],
) -> list[Value]:
    inner = jaxpr.jaxpr
    values: dict[jex_core.Var, Value] = dict(zip(inner.invars, inputs, strict=True))

    def constant(array: Any, atom: Any) -> Value:
        value = Value(shape_of(atom), dtype_of(atom))
        known[value] = array
        return value

    for variable, array in zip(inner.constvars, jaxpr.consts, strict=True):
        values[variable] = constant(array, variable)

    def read(atom: jex_core.Var | jex_core.Literal) -> Value:
        if isinstance(atom, jex_core.Literal):
            return constant(np.asarray(atom.val, dtype_of(atom)), atom)
        return values[atom]

    for eqn in inner.eqns:
        arguments = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name in CALLS:
            outputs = _write_out(_called(eqn), arguments, steps, known)
        else:
            outputs = [Value(shape_of(v), dtype_of(v)) for v in eqn.outvars]
            steps.append(Step(eqn, tuple(arguments), tuple(outputs), inner.debug_info))
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in inner.outvars]


def called_program(eqn: jex_core.JaxprEqn) -> Program:
    """What an equation that calls one function calls, as a program."""
    return flat_program(_called(eqn))


def _called(eqn: jex_core.JaxprEqn) -> jex_core.ClosedJaxpr:
    (inner,) = (
        eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params
    )
    return inner if isinstance(inner, jex_core.ClosedJaxpr) else jex_core.ClosedJaxpr(inner, ())
