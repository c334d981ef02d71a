"""Dependence analysis: what each value of a jaxpr depends on, and along which axes.

One forward pass over the equations answers two questions for every array of the computation:

- *which* inputs it depends on (so a factor is evaluated over the supports of its own variables and
  of no others), and
- *how*: for each axis of such an input, the axis of this array that runs along with it, or the
  name of the primitive that mixed the elements.

The second is the proof that a plate keeps its promise. A variable in the plate "data" enters the
jaxpr with the plate on its axis 0. If the log density of a site in that plate still runs along it
on the plate's own axis, then element i of the density depends on element i of the variable alone,
and the plate may be summed out element by element. If it met a `cumsum` on the way, it may not.

Functions called inside (jitted ones, custom derivatives, branches, loops) are walked through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from jax.extend import core as jex_core

from marginax.jaxpr.axis_flow import shape_of
from marginax.jaxpr.equations import Equation, called_jaxpr, equations_of

Axis = int | str
"""An axis of the array at hand, or the name of the primitive that mixed the elements."""

Dependence = Mapping[Any, tuple[Axis, ...]]
"""For each input that an array depends on, by whatever it goes by: for each axis of the input, where it went."""

NOTHING: Dependence = {}


def dependences(jaxpr: jex_core.Jaxpr, inputs: Sequence[Dependence]) -> list[Dependence]:
    """What each output of a jaxpr depends on.

    Parameters
    ----------
    jaxpr : Jaxpr
        An open jaxpr; its constants depend on nothing.
    inputs : sequence of Dependence
        One for each of its input variables.

    Returns
    -------
    list of Dependence
        One for each output.
    """
    known: dict[jex_core.Var, Dependence] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: jex_core.Var | jex_core.Literal) -> Dependence:
        return NOTHING if isinstance(atom, jex_core.Literal) else known.get(atom, NOTHING)

    for equation in equations_of(jaxpr):
        eqn = equation.eqn
        arguments = [read(atom) for atom in eqn.invars]
        if any(arguments):
            known.update(zip(eqn.outvars, through(equation, arguments), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def through(equation: Equation, arguments: Sequence[Dependence]) -> list[Dependence]:
    """What each output of an equation depends on, from what its inputs do."""
    arguments, eqn, name = list(arguments), equation.eqn, equation.name
    if equation.called is not None:
        return _through_call(equation.called, arguments)
    if name == "custom_linear_solve":
        return _through_linear_solve(eqn, arguments)
    if name == "cond":
        return _through_cond(eqn, arguments)
    if name == "scan":
        return _through_scan(eqn, arguments)
    if name == "while":
        return _through_while(eqn, arguments)
    flow = equation.flow
    moved = [
        _mixed(argument, name) if flow is None else _moved(argument, flow.maps[i], name)
        for i, argument in enumerate(arguments)
        if argument
    ]
    return [_join(moved, name)] * len(eqn.outvars)


def own_dependences(jaxpr: jex_core.Jaxpr) -> tuple[Mapping[int, tuple[Axis, ...]], ...]:
    """What each output of a jaxpr depends on of its own inputs, by their positions; found once."""
    found = _own.get(jaxpr)
    if found is None:
        inputs = [{i: tuple(range(len(shape_of(v))))} for i, v in enumerate(jaxpr.invars)]
        found = _own[jaxpr] = tuple(dependences(jaxpr, inputs))
    return found


_own: WeakKeyDictionary[jex_core.Jaxpr, tuple[Mapping[int, tuple[Axis, ...]], ...]] = (
    WeakKeyDictionary()
)


def _through_call(called: jex_core.Jaxpr, arguments: list[Dependence]) -> list[Dependence]:
    joined = [
        _join([_moved(arguments[i], path, _MET) for i, path in out.items() if arguments[i]], _MET)
        for out in own_dependences(called)
    ]
    # Where arguments meet along different axes, the step at which they do has a name to be found.
    if any(_MET in path for out in joined for path in out.values()):
        return dependences(called, arguments)
    return joined


_MET = ""


def _moved(argument: Dependence, axes: Sequence[Axis | None], primitive: str) -> Dependence:
    def move(axis: Axis) -> Axis:
        if isinstance(axis, str):
            return axis
        new = axes[axis]
        return primitive if new is None else new

    return {name: tuple(move(axis) for axis in path) for name, path in argument.items()}


def _mixed(argument: Dependence, primitive: str) -> Dependence:
    return {
        name: tuple(axis if isinstance(axis, str) else primitive for axis in path)
        for name, path in argument.items()
    }


def _join(parts: Sequence[Dependence], primitive: str) -> Dependence:
    """A value made of several: it runs along an axis only if all its parts agree on it."""
    joined: dict[Any, tuple[Axis, ...]] = {}
    for part in parts:
        for name, path in part.items():
            if name in joined:
                pairs = zip(joined[name], path, strict=True)
                path = tuple(_agree(a, b, primitive) for a, b in pairs)
            joined[name] = path
    return joined


def _agree(a: Axis, b: Axis, primitive: str) -> Axis:
    if a == b or isinstance(a, str):
        return a
    return b if isinstance(b, str) else primitive


def _through_linear_solve(eqn: jex_core.JaxprEqn, arguments: list[Dependence]) -> list[Dependence]:
    """The value is what its own `solve` function returns; the others serve its derivative."""
    lengths = eqn.params["const_lengths"]
    first = lengths.matvec + lengths.vecmat
    consts, sides = arguments[first : first + lengths.solve], arguments[sum(lengths) :]
    return dependences(eqn.params["jaxprs"].solve.jaxpr, [*consts, *sides])


def _through_cond(eqn: jex_core.JaxprEqn, arguments: list[Dependence]) -> list[Dependence]:
    choice, *operands = arguments
    branches = [dependences(branch.jaxpr, operands) for branch in eqn.params["branches"]]
    chosen = _mixed(choice, "cond")
    return [_join([chosen, *outputs], "cond") for outputs in zip(*branches, strict=True)]


def scan_parts(eqn: jex_core.JaxprEqn) -> tuple[int, int]:
    """How many constants a scan has, and how many carried values; the rest is scanned over."""
    body = called_jaxpr(eqn)
    # Versions of JAX spell these numbers differently; all of them put one axis more on what is scanned
    # than the body sees.
    n_carry = sum(
        len(shape_of(out)) == len(shape_of(inner))
        for out, inner in zip(eqn.outvars, body.outvars, strict=True)
    )
    n_scanned = sum(
        len(shape_of(atom)) == len(shape_of(inner)) + 1
        for atom, inner in zip(eqn.invars, body.invars, strict=True)
    )
    return len(eqn.invars) - n_carry - n_scanned, n_carry


def _through_scan(eqn: jex_core.JaxprEqn, arguments: list[Dependence]) -> list[Dependence]:
    body = called_jaxpr(eqn)
    n_consts, n_carry = scan_parts(eqn)
    consts, carry = arguments[:n_consts], arguments[n_consts : n_consts + n_carry]
    slices = [_shifted(xs, -1) for xs in arguments[n_consts + n_carry :]]
    while True:  # what is carried can only gather dependences, so this ends
        outputs = dependences(body, [*consts, *carry, *slices])
        new_carry = [_join(pair, "scan") for pair in zip(carry, outputs[:n_carry], strict=True)]
        if new_carry == carry:
            return [*carry, *(_shifted(ys, 1) for ys in outputs[n_carry:])]
        carry = new_carry


def _shifted(argument: Dependence, by: int) -> Dependence:
    """Into a loop's body the scanned axis goes away in front; out of it, it comes back."""

    def shift(axis: Axis) -> Axis:
        if isinstance(axis, str):
            return axis
        return "scan" if axis + by < 0 else axis + by

    return {name: tuple(shift(axis) for axis in path) for name, path in argument.items()}


def _through_while(eqn: jex_core.JaxprEqn, arguments: list[Dependence]) -> list[Dependence]:
    params = eqn.params
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    cond_consts, body_consts = arguments[:n_cond], arguments[n_cond : n_cond + n_body]
    carry = arguments[n_cond + n_body :]
    while True:
        (test,) = dependences(params["cond_jaxpr"].jaxpr, [*cond_consts, *carry])
        outputs = dependences(params["body_jaxpr"].jaxpr, [*body_consts, *carry])
        control = _mixed(test, "while")
        new_carry = [_join([*pair, control], "while") for pair in zip(carry, outputs, strict=True)]
        if new_carry == carry:
            return carry
        carry = new_carry
