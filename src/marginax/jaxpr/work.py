"""How much a traced program computes, roughly: whether it is worth a compiler's while.

XLA takes about as long to optimise a program of small arrays as one of large arrays, seconds for some thousand
operations. What it gains is a half of the time that the program runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core as jex_core

LITTLE = 10**6
"""Numbers; to compute them takes some milliseconds."""


def is_little(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a program computes so little that optimising it takes longer than it saves in a hundred runs."""
    return work(jaxpr) <= LITTLE


def work(jaxpr: jex_core.Jaxpr) -> float:
    """The numbers that a program computes; infinite if it is not known how often its loops go round."""
    return sum(map(_of_equation, jaxpr.eqns))


def _of_equation(eqn: jex_core.JaxprEqn) -> float:
    name = eqn.primitive.name
    if name == "while":
        return math.inf
    if name == "scan":
        return eqn.params["length"] * work(eqn.params["jaxpr"].jaxpr)
    inner = list(_programs(eqn.params.values()))
    if inner:
        return sum(map(work, inner))
    written = sum(math.prod(_shape(v)) for v in eqn.outvars)
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return written * math.prod(_shape(eqn.invars[0])[axis] for axis in contracted)
    return written


def _programs(values: Any) -> Iterator[jex_core.Jaxpr]:
    for value in values:
        if isinstance(value, jex_core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, jex_core.Jaxpr):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _programs(value)


def _shape(atom: Any) -> tuple[int, ...]:
    return getattr(atom.aval, "shape", ())  # a token of an effect has none
