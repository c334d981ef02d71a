"""Compile a function whose closed-over arrays become arguments instead of constants.

A model's data, and whatever else it reads, are closed over, so that it sees them as they are (a NumPy
array may decide Python control flow). Compiled as constants, large data would be copied into the
program and folded by the compiler; as arguments they are neither.

It also settles when a compiled program may be used again. A model is an ordinary function: it may
read globals, attributes and arrays that change between two calls, so neither its identity nor its
arguments tell whether it still means the same. It is therefore traced at every call (which costs
milliseconds), and what is remembered is the compiled program of the *jaxpr*: two jaxprs with equal keys
(`same_program`) are the same computation, on whatever arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import jax
from jax.core import Tracer, eval_context
from jax.extend import core as jex_core

from marginax.jaxpr.remembered import Remembered
from marginax.jaxpr.same_program import program_key
from marginax.jaxpr.work import is_little

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_llvm_disable_expensive_passes": True,
}
"""Options of XLA for a program that runs once: optimising it would take longer than it saves."""

ALWAYS_ON_CPU = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""Options of XLA for all programs on a CPU. It is switched off that whole trees of operations become one call of the
library YNN, which XLA does by itself from 0.11.2 of jaxlib on: compiling a sampler of a thousand rows then does not
end."""

with eval_context():
    NOTHING_TRACED = jex_core.get_opaque_trace_state(convention="flax")
    """What JAX says of the state it is in outside of all transformations."""

_remembered: Remembered[Callable[..., Any]] = Remembered()


@dataclass(frozen=True)
class Hoisted:
    """A function that was traced once."""

    jaxpr: jex_core.Jaxpr
    """It, with what it closes over as ``constvars``."""
    consts: list[Any]
    """What it closes over."""
    call: Callable[..., Any]
    """The compiled function, for arguments of the same shapes; it can be differentiated and mapped."""


def hoisted(fn: Callable[..., Any], *example: Any) -> Hoisted:
    """Trace once, compile once.

    Parameters
    ----------
    fn : callable
        A pure function of arrays.
    *example
        Arguments (or their shapes) like those it will be called with.
    """
    closed, structure = _trace(fn, example)
    own = _runner(closed.jaxpr, structure, {})
    return _hoisted(closed, own, own)


def _hoisted(
    closed: jex_core.ClosedJaxpr, own: Callable[..., Any], shared: Callable[..., Any]
) -> Hoisted:
    consts = list(closed.consts)

    def call(*args: Any) -> Any:
        leaves = jax.tree.leaves(args)
        # Programs are shared by the values that they compute, whatever their derivatives are.
        is_traced = any(isinstance(leaf, Tracer) for leaf in (*leaves, *consts))
        return (own if is_traced else shared)(consts, leaves)

    return Hoisted(closed.jaxpr, consts, call)


def hoisted_jit(fn: Callable[..., Any], *example: Any) -> Callable[..., Any]:
    """Of `hoisted`, the function alone."""
    return hoisted(fn, *example).call


def remembered(
    fn: Callable[..., Any], *example: Any, options: Mapping[str, Any] = MappingProxyType({})
) -> Hoisted:
    """Like `hoisted`, but a program that was compiled before is used again.

    ``options`` are XLA's (`QUICK`, say), see `compiler_options`.
    """
    closed, structure = _trace(fn, example)
    options = compiler_options(options)
    own = _runner(closed.jaxpr, structure, options)
    program = program_key(closed.jaxpr)
    if program.unproven:
        return _hoisted(closed, own, own)
    key = (program, structure, tuple(sorted(options.items())))
    return _hoisted(closed, own, _remembered.find(key) or _remembered.add(key, own))


def remembered_jit(
    fn: Callable[..., Any], *example: Any, options: Mapping[str, Any] = MappingProxyType({})
) -> Callable[..., Any]:
    """Of `remembered`, the function alone."""
    return remembered(fn, *example, options=options).call


def jitted(
    function: Callable[..., Any], options: Mapping[str, Any] = MappingProxyType({})
) -> Callable[..., Any]:
    """A pure function of arrays, compiled once for each of their shapes.

    Parameters
    ----------
    function : callable
        What it reads beside its arguments must never change.
    options : mapping
        XLA's, see `compiler_options`. They are left out inside of a transformation: JAX refuses options there.
    """

    @cache
    def alone() -> Callable[..., Any]:
        return jax.jit(function, compiler_options=compiler_options(options))

    inside = jax.jit(function)

    def call(*args: Any) -> Any:
        return (alone() if _is_alone() else inside)(*args)

    return call


def jitted_as_it_pays(function: Callable[..., Any]) -> Callable[..., Any]:
    """A pure function of arrays, compiled quickly if it computes little, and well if much (`marginax.jaxpr.work`).

    Its first arguments decide.

    Parameters
    ----------
    function : callable
        What it reads beside its arguments must never change.
    """
    alone: list[Callable[..., Any]] = []
    inside = jax.jit(function)

    def call(*args: Any) -> Any:
        if not _is_alone():
            return inside(*args)
        if not alone:
            traced = inside.trace(*args)  # JAX keeps it for the call
            options = compiler_options(QUICK if is_little(traced.jaxpr.jaxpr) else {})
            alone.append(jax.jit(function, compiler_options=options))
        return alone[0](*args)

    return call


def _is_alone() -> bool:
    return jex_core.get_opaque_trace_state(convention="flax") == NOTHING_TRACED


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """A pure function of arrays as a part of several programs, traced and differentiated once for all."""
    return jax.jit(function)


def compiler_options(asked: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The options of XLA for a program, as far as the installed one has them.

    Parameters
    ----------
    asked : mapping
        Options for this program; the backend's own are added.
    """
    always = ALWAYS_ON_CPU if jax.default_backend() == "cpu" else {}
    wanted = {**always, **asked}
    if _are_known(*wanted.items()):
        return wanted
    return {name: value for name, value in wanted.items() if _are_known((name, value))}


@cache
def _are_known(*options: tuple[str, Any]) -> bool:
    """Whether this XLA has these options; they come and go, and none changes a result."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True


def _trace(fn: Callable[..., Any], example: Any) -> tuple[jex_core.ClosedJaxpr, Any]:
    closed, result = jax.make_jaxpr(fn, return_shape=True)(*example)
    return closed, jax.tree.structure(result)


def _runner(
    jaxpr: jex_core.Jaxpr, structure: Any, options: Mapping[str, Any]
) -> Callable[..., Any]:
    def run(consts: list[Any], leaves: list[Any]) -> Any:
        function = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(jaxpr, consts))
        return jax.tree.unflatten(structure, function(*leaves))

    return jitted(run, options)
