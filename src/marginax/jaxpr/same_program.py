"""Whether two traced programs are the same computation, proven instead of read off their printed form.

A jaxpr prints its equations, but not all that they mean: arrays that an inner function closes over (in a jitted
function inside `lax.scan`, say), the context of an equation, the functions among its parameters. Here it is walked.
Variables are numbered, so that names do not matter; arrays count by their bytes; inner jaxprs by a digest of their
own. What JAX itself compares by ``==`` (types, meshes, shardings, primitives) is kept in the key and compared so. What
cannot be proven equal, a Python function above all, is named, and such a program is never taken for another. An
object of ours that a program calls says itself what tells it from others in another process, by ``told_apart_by``.

A custom derivative, or a rule for mapping, is left out where a program is called with numbers: it says nothing about
the values. Where the program is to be differentiated, it counts (``with_derivatives``), and is known by the name of
the library's function that is the rule.
"""

from __future__ import annotations

import enum
import hashlib
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core as jex_core
from jax.extend.linear_util import WrappedFun

from marginax.jaxpr.written_rules import written_rule

RULES: Mapping[str, frozenset[str]] = {
    "custom_jvp_call": frozenset({"jvp_jaxpr_fun", "jvp_jaxpr_thunk"}),
    "custom_vjp_call": frozenset({"fwd_jaxpr_thunk", "bwd", "out_trees"}),
    "custom_vjp_call_jaxpr": frozenset({"fwd_jaxpr_thunk", "bwd", "out_trees"}),
    "custom_vmap_call": frozenset({"rule"}),
    "remat2": frozenset({"policy"}),
    "checkpoint": frozenset({"policy"}),
}
"""Parameters of primitives that have no part in their values, but in their derivatives."""
NEVER_MATTER: Mapping[str, frozenset[str]] = {
    "reduce": frozenset({"computation"}),  # its jaxpr stands beside it
}
"""Parameters that have no part in either."""

LIBRARIES = frozenset({"jax", "jaxlib", "numpy", "ml_dtypes"})
"""The values of their types are known by what they consist of."""
OURS = frozenset({"marginax", "numpyro"})
NAMED = LIBRARIES | OURS | {"optax", "blackjax"}
"""Of these a function or a class is known by its name."""


@dataclass(frozen=True)
class ProgramKey:
    """What a program is: two programs whose keys are equal, and prove it, are the same computation."""

    digest: str
    """Of the program's structure and of all arrays in it; the same in every process, unless ``untold``."""
    objects: tuple[Any, ...]
    """What is compared by ``==``, in the order of the program."""
    unproven: tuple[str, ...]
    """What of it cannot be compared, even in this process; if there is anything, the program equals no other."""
    untold: tuple[str, ...]
    """What its values depend on that another process could not recognise."""


def program_key(jaxpr: jex_core.Jaxpr, with_derivatives: bool = False) -> ProgramKey:
    """The key of a program whose outermost constants are its arguments.

    Parameters
    ----------
    jaxpr : Jaxpr
        The values of its ``constvars`` are no part of the key; those of inner jaxprs are.
    with_derivatives : bool
        Whether programs with equal keys have the same derivatives, too.
    """
    walk = Walk(with_derivatives)
    digest = walk.jaxpr(jaxpr)
    return ProgramKey(digest, tuple(walk.numbers), tuple(walk.unproven), tuple(walk.untold))


class Walk:
    """Writes every part of a program as a word; equal words mean equal parts."""

    def __init__(self, with_derivatives: bool = False) -> None:
        self.with_derivatives = with_derivatives
        self.numbers: dict[Any, int] = {}
        """The objects that are compared by ``==``, numbered as they come."""
        self.named: dict[int, str] = {}
        """By number of such an object, how it was written."""
        self.words: dict[int, tuple[Any, str]] = {}
        """By the identity of what was written before, which is kept, so that nothing else gets its identity."""
        self.unproven: list[str] = []
        self.untold: list[str] = []
        self._has_values = True

    def jaxpr(self, jaxpr: jex_core.Jaxpr) -> str:
        if id(jaxpr) in self.words:
            return self.words[id(jaxpr)][1]
        names: dict[jex_core.Var, str] = {}
        words: list[str] = []

        def define(variables: Iterable[jex_core.Var]) -> None:
            for variable in variables:
                names[variable] = str(len(names))
                words.append(self._known(variable.aval))

        def read(atoms: Iterable[jex_core.Var | jex_core.Literal]) -> None:
            for atom in atoms:
                words.append(
                    self._literal(atom) if isinstance(atom, jex_core.Literal) else names[atom]
                )

        define(jaxpr.constvars)
        words.append("inputs")
        define(jaxpr.invars)
        for eqn in jaxpr.eqns:
            words.append(self._known(eqn.primitive))
            read(eqn.invars)
            words.append(self._parameters(eqn))
            if eqn.effects:
                effects = [f"{type(e).__module__}.{type(e).__qualname__}" for e in eqn.effects]
                words += sorted(effects)
            words.append(self._known(eqn.ctx))
            define(eqn.outvars)
        words.append("outputs")
        read(jaxpr.outvars)
        return self._noted(jaxpr, _digest("\n".join(words).encode()))

    def _noted(self, value: Any, word: str) -> str:
        if self._has_values:  # elsewhere it may hide what is `untold` where it does matter
            self.words[id(value)] = value, word
        return word

    def _parameters(self, eqn: jex_core.JaxprEqn) -> str:
        has_values, self._has_values = self._has_values, self._has_values and bool(eqn.outvars)
        rules = RULES.get(eqn.primitive.name, frozenset())
        without = NEVER_MATTER.get(eqn.primitive.name, frozenset())
        if not self.with_derivatives:
            without |= rules
        words = [
            f"{name}={self._rule(value) if name in rules else self.word(value)}"
            for name, value in sorted(eqn.params.items())
            if name not in without
        ]
        self._has_values = has_values
        return " ".join(words)

    def word(self, value: Any) -> str:
        kind = type(value)
        if kind in _PLAIN:
            return _PLAIN[kind](value)
        if kind is tuple or kind is list:
            return f"{kind.__name__}({','.join(map(self.word, value))})"
        if kind is slice:
            return f"slice{self.word((value.start, value.stop, value.step))}"
        if isinstance(value, jex_core.ClosedJaxpr):
            return f"{self.jaxpr(value.jaxpr)}({','.join(map(self._array, value.consts))})"
        if isinstance(value, jex_core.Jaxpr):
            return self.jaxpr(value)
        if id(value) in self.words:
            return self.words[id(value)][1]
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._array(value)
        if kind in (set, frozenset):
            return self._unordered(value)
        if kind is dict:
            entries = [f"{self.word(key)}:{self.word(entry)}" for key, entry in value.items()]
            return f"dict({','.join(sorted(entries))})"
        if isinstance(value, np.dtype | enum.Enum | jax.sharding.Mesh):
            return self._known(value)
        if hasattr(value, "told_apart_by"):
            return self._known(value, value.told_apart_by)
        if _is_named(value):
            return self._known(value, f"{value.__module__}.{value.__qualname__}")
        if _is_of_libraries(kind):
            if isinstance(value, tuple) and hasattr(value, "_fields"):
                return f"{self._known(kind)}({','.join(map(self.word, value))})"
            if is_dataclass(value):
                parts = [self.word(getattr(value, field.name)) for field in fields(value)]
                return f"{self._known(kind)}({','.join(parts)})"
            if is_object(value):
                operation: Any = value
                parts = map(self.word, (operation.params, operation.in_avals, operation.out_aval))
                return f"{self._known(kind)}({','.join(parts)})"
            if not callable(value) and not isinstance(value, WrappedFun):
                return self._known(value)
        return self._unknown(value)

    def _rule(self, value: Any) -> str:
        """A derivative's rule, by the function that its author has written."""
        written = written_rule(value)
        return self.word(value) if written is None else self.word(written)

    def _unordered(self, values: Iterable[Any]) -> str:
        # Numbered in the order of their printed forms: that of a set changes from process to process.
        return f"set({','.join(map(self.word, sorted(values, key=repr)))})"

    def _known(self, value: Any, text: str | None = None) -> str:
        """What is compared by ``==`` within this process, and by a text with other processes."""
        if id(value) in self.words:
            return self.words[id(value)][1]
        try:
            count, number = len(self.numbers), self.numbers.setdefault(value, len(self.numbers))
        except TypeError:  # it cannot be hashed
            return self._unknown(value)
        if number < count and number in self.named:  # most types of arrays come again and again
            return self._noted(value, self.named[number])
        if text is None:
            text = repr(value)
            if " at 0x" in text:
                text = f"{type(value).__module__}.{type(value).__qualname__}"
                self._leave_untold(text)
        word = f"{number}:{type(value).__qualname__} {text!r}"
        if self._has_values:
            self.named[number] = word
        return self._noted(value, word)

    def _unknown(self, value: Any) -> str:
        named = value if hasattr(value, "__qualname__") else type(value)
        name = f"{named.__module__}.{named.__qualname__}"
        self.unproven.append(name)
        self._leave_untold(name)
        return f"unknown {name!r}"

    def _leave_untold(self, name: str) -> None:
        if self._has_values:  # what a step without outputs does (printing, say) changes no number
            self.untold.append(name)

    def _literal(self, literal: jex_core.Literal) -> str:
        return f"{self._array(literal.val)} {self._known(literal.aval)}"

    def _array(self, value: Any) -> str:
        """Its type, shape and bytes, and how it is spread over devices, if it is."""
        if isinstance(value, Tracer):
            return self._unknown(value)
        if isinstance(value, jax.Array):
            known = self.words.get(id(value))
            return self._noted(value, self._jax_array(value)) if known is None else known[1]
        if not isinstance(value, np.ndarray | np.generic | bool | int | float | complex):
            return self._unknown(value)
        array = np.asarray(value)
        if array.dtype.hasobject:
            return self._unknown(value)
        about = f"{array.dtype.name}{array.dtype.str}{array.shape}"
        if array.ndim == 0:
            return about + array.tobytes().hex()
        return about + _digest(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def _jax_array(self, value: jax.Array) -> str:
        if not value.is_fully_addressable:
            return self._unknown(value)
        where = self.word(value.sharding) if len(value.sharding.device_set) > 1 else ""
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return f"{self._known(value.dtype)}{self._array(jax.random.key_data(value))}{where}"
        return self._array(np.asarray(value)) + where


def _digest(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=20).hexdigest()


def _float(value: float) -> str:
    return struct.pack("<d", value).hex()  # of NaN the bits count, and zero has a sign


_PLAIN: Mapping[type, Callable[[Any], str]] = {
    type(None): repr,
    type(...): repr,
    bool: repr,
    int: repr,
    str: repr,
    bytes: repr,
    range: repr,
    float: lambda value: f"float {_float(value)}",
    complex: lambda value: f"complex {_float(value.real)} {_float(value.imag)}",
}


def _is_of_libraries(kind: type) -> bool:
    return kind.__module__.split(".")[0] in LIBRARIES


def is_object(value: Any) -> bool:
    """Whether it is an operation of JAX that is an object (`objects`); all of it follows from these."""
    return all(hasattr(value, name) for name in ("params", "in_avals", "out_aval"))


def _is_named(value: Any) -> bool:
    """Whether it is a function or class of a library that its name leads to."""
    module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str):
        return False
    if module.split(".")[0] not in NAMED:
        return False
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found is value
