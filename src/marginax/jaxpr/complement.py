"""``1 - p`` without cancellation, for probabilities near one.

``sigmoid(12)`` is 0.999994, of which single precision keeps the last digit only; from ``sigmoid(17)`` on it is
one, and the logarithm of the rest, ``log1p(-p)``, is wrong or infinite. But a traced program says where a probability
comes from, and mostly its complement can be had from there: that of ``sigmoid(x)`` is ``sigmoid(-x)``, that of
``exp(x)`` is ``-expm1(x)``, that of ``a b`` is ``(1 - b) + b (1 - a)``, which for a discrete ``b`` of zero or one is
exact. So the program is run once more, symbolically, with a way to the complement beside each value that has one,
and what asks for it, ``1 - p``, ``log1p(-p)`` and ``p < 1``, takes that way. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex_core

from marginax.jaxpr.axis_flow import dtype_of
from marginax.jaxpr.dependence import scan_parts
from marginax.jaxpr.equations import INLINED, called_consts, called_jaxpr
from marginax.jaxpr.evaluate import as_function

_SOURCES = frozenset({"logistic", "exp", "expm1"})
"""What makes probabilities whose complements rounding loses."""


@dataclass(frozen=True)
class _Number:
    """A value of the program, and what is known of it."""

    value: Any
    complement: Callable[[], Any] | None = None
    """One minus the value, from what the value was made of."""
    negative_of: _Number | None = None
    expm1_of: Any = None
    """The value is ``exp`` of this, less one."""

    def rest(self) -> Any:
        """One minus the value, as well as it can be had."""
        return 1 - self.value if self.complement is None else self.complement()


Rule = Callable[[jex_core.JaxprEqn, Sequence[_Number]], Callable[[], Any] | None]
"""For an equation and its arguments, the complement of its result; None where there is no better way."""


def with_complements(closed: jex_core.ClosedJaxpr) -> jex_core.ClosedJaxpr:
    """The same program, with complements of probabilities that are exact to rounding.

    Parameters
    ----------
    closed : ClosedJaxpr
        A traced program.

    Returns
    -------
    ClosedJaxpr
        The program itself where no complement is asked for.
    """
    if not (_has(closed.jaxpr, _is_source) and _has(closed.jaxpr, _asks)):
        return closed

    def run(*arguments: Any) -> list[Any]:
        numbers = _run(closed.jaxpr, closed.consts, [_Number(value) for value in arguments])
        return [number.value for number in numbers]

    inputs = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    return jax.make_jaxpr(run)(*inputs)


def _has(jaxpr: jex_core.Jaxpr, is_it: Callable[[jex_core.JaxprEqn], bool]) -> bool:
    """Whether some equation, at any depth that `_run` enters, is one of those."""
    return any(
        is_it(eqn) or (_enters(eqn) and _has(called_jaxpr(eqn), is_it)) for eqn in jaxpr.eqns
    )


def _enters(eqn: jex_core.JaxprEqn) -> bool:
    return eqn.primitive.name in INLINED or eqn.primitive.name == "scan"


def _is_source(eqn: jex_core.JaxprEqn) -> bool:
    return eqn.primitive.name in _SOURCES


def _asks(eqn: jex_core.JaxprEqn) -> bool:
    name = eqn.primitive.name
    return (
        name == "log1p"
        or (name == "sub" and _is_one(eqn.invars[0]))
        or (name in ("lt", "ge") and _is_one(eqn.invars[1]))
    )


def _is_one(atom: Any) -> bool:
    is_literal = isinstance(atom, jex_core.Literal)
    return is_literal and np.ndim(atom.val) == 0 and bool(np.asarray(atom.val) == 1)


def _run(
    jaxpr: jex_core.Jaxpr, consts: Sequence[Any], arguments: Sequence[_Number]
) -> list[_Number]:
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    known.update(zip(jaxpr.constvars, map(_Number, consts), strict=True))

    def read(atom: jex_core.Var | jex_core.Literal) -> _Number:
        if isinstance(atom, jex_core.Literal):
            return _Number(np.asarray(atom.val, dtype_of(atom)))
        return known[atom]

    for eqn in jaxpr.eqns:
        given = [read(atom) for atom in eqn.invars]
        known.update(zip(eqn.outvars, _results(eqn, given, jaxpr.debug_info), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _results(
    eqn: jex_core.JaxprEqn, given: Sequence[_Number], debug_info: Any
) -> Sequence[_Number]:
    name = eqn.primitive.name
    if name in INLINED:
        return _run(called_jaxpr(eqn), called_consts(eqn), given)
    asked = _answer(eqn, given)
    if asked is not None:
        return [asked]
    if name == "scan":
        return _scan(eqn, given, debug_info)
    values = as_function(eqn, debug_info)(*(number.value for number in given))
    if name not in RULES or not jnp.issubdtype(dtype_of(eqn.outvars[0]), np.floating):
        return [_Number(value) for value in values]
    way = RULES[name](eqn, given)
    return [
        _Number(
            values[0],
            None if way is None else cache(way),
            given[0] if name == "neg" else None,
            given[0].value if name == "expm1" else None,
        )
    ]


def _scan(eqn: jex_core.JaxprEqn, given: Sequence[_Number], debug_info: Any) -> list[_Number]:
    """A scan whose steps have complements, also of what they are given from outside."""
    body, consts = called_jaxpr(eqn), called_consts(eqn)
    values = [number.value for number in given]
    if not _has(body, _asks):
        return [_Number(value) for value in as_function(eqn, debug_info)(*values)]
    n_consts, n_carry = scan_parts(eqn)
    shared, series = given[:n_consts], given[n_consts + n_carry :]
    rests = {i: n.rest() for i, n in enumerate(series) if n.complement is not None}

    def step(carry: Any, now: Any) -> Any:
        rows, rows_rests = now
        ways = {i: partial(_same, rest) for i, rest in rows_rests.items()}
        scanned = [_Number(row, ways.get(i)) for i, row in enumerate(rows)]
        numbers = _run(body, consts, [*shared, *map(_Number, carry), *scanned])
        results = [number.value for number in numbers]
        return tuple(results[:n_carry]), tuple(results[n_carry:])

    options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    start = tuple(values[n_consts : n_consts + n_carry])
    along = tuple(n.value for n in series), rests
    carry, stacked = lax.scan(step, start, along, **options)
    return [_Number(value) for value in (*carry, *stacked)]


def _same(value: Any) -> Any:
    return value


def _answer(eqn: jex_core.JaxprEqn, given: Sequence[_Number]) -> _Number | None:
    """The result of an equation that asks for a complement, where there is one."""
    name = eqn.primitive.name
    if not _asks(eqn):
        return None
    number = {"log1p": given[0].negative_of, "sub": given[-1]}.get(name, given[0])
    if number is None or number.complement is None:
        return None
    p, rest = number.value, number.complement()
    if name in ("lt", "ge"):
        return _Number(rest > 0 if name == "lt" else rest <= 0)
    # Of a small probability it is the complement that has lost digits, and its derivative too.
    small = p < 0.5
    if name == "sub":
        return _Number(jnp.where(small, 1 - p, rest), lambda: p)
    log_rest = jnp.log(jnp.where(small, 1, rest))
    return _Number(jnp.where(small, jnp.log1p(jnp.where(small, given[0].value, 0)), log_rest))


def _logistic(eqn: jex_core.JaxprEqn, given: Sequence[_Number]) -> Callable[[], Any]:
    return lambda: lax.logistic(-given[0].value)


def _exp(eqn: jex_core.JaxprEqn, given: Sequence[_Number]) -> Callable[[], Any]:
    return lambda: -jnp.expm1(given[0].value)


def _neg(eqn: jex_core.JaxprEqn, given: Sequence[_Number]) -> Callable[[], Any] | None:
    exponent = given[0].expm1_of
    return None if exponent is None else lambda: jnp.exp(exponent)


def _sub(eqn: jex_core.JaxprEqn, given: Sequence[_Number]) -> Callable[[], Any] | None:
    return (lambda: given[1].value) if _is_one(eqn.invars[0]) else None


def _mul(eqn: jex_core.JaxprEqn, given: Sequence[_Number]) -> Callable[[], Any] | None:
    a, b = given if given[0].complement is not None else given[::-1]
    if a.complement is None:
        return None

    def rest() -> Any:
        both = b.rest() + b.value * a.rest()
        if b.complement is not None:
            return both
        # If it is no probability, and no zero or one, these terms may be larger than their sum.
        return jnp.where((b.value >= 0) & (b.value <= 1), both, 1 - a.value * b.value)

    return rest


def _moved(first: int = 0, last: int | None = None) -> Rule:
    """Of a primitive that moves or chooses elements: the same done to the complements of these arguments."""

    def rule(eqn: jex_core.JaxprEqn, given: Sequence[_Number]) -> Callable[[], Any] | None:
        places = range(len(given))[first:last]
        fills = eqn.params.get("fill_value") is not None
        if fills or all(given[i].complement is None for i in places):
            return None

        def rests() -> Any:
            values = [n.rest() if i in places else n.value for i, n in enumerate(given)]
            return eqn.primitive.bind(*values, **eqn.params)

        return rests

    return rule


def _nothing(eqn: jex_core.JaxprEqn, given: Sequence[_Number]) -> None:
    return None


RULES: dict[str, Rule] = {
    "logistic": _logistic,
    "exp": _exp,
    "expm1": _nothing,
    "neg": _neg,
    "sub": _sub,
    "mul": _mul,
    "select_n": _moved(1),
    "concatenate": _moved(),
    "stack": _moved(),
    "gather": _moved(0, 1),
    "dynamic_slice": _moved(0, 1),
    **dict.fromkeys(
        [
            "broadcast_in_dim",
            "convert_element_type",
            "reshape",
            "squeeze",
            "transpose",
            "slice",
            "rev",
            "copy",
        ],
        _moved(0, 1),
    ),
}
"""By primitive."""
