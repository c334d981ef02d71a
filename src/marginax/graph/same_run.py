"""Whether a run of a model states the same as one before, so that nothing need be analysed again.

To run a model takes little. What takes long when a query is asked again is the rest: log densities, checks of
parameters, supports. All of that follows from what the run *states*: its messages, each with a distribution and its
parameters, a value, plates, scales. What is computed from latent values is traced, so a run is a program, from latent
values to everything traced that its messages hold, and the messages themselves, with numbers in place of what is
traced. Where both are equal, and all numbers that are known too, two runs state the same model.

A run whose log densities are traced with it has the same key. Its program has more steps and more constants; without
those that its log densities alone need it is the program of the bare run. So the one run that the first call makes
gives both the record and the key; later calls make a bare run, which is all that is traced, and find the record.

Only what is proven equal counts. A run is never recognised where a distribution is the user's own, for its log
density may read anything; where there is a scan, whose steps are programs inside of the program; nor where there is
much data, as comparing it takes as long as what it saves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from copy import copy
from dataclasses import dataclass, is_dataclass
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core as jex_core
from numpyro.distributions import Distribution
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.transforms import Transform

from marginax.jaxpr.same_program import OURS, Walk
from marginax.language.stack import Message

MOST_BYTES = 2**20
"""Of the arrays in a run that is recognised: to read them takes a millisecond."""

_DERIVED = frozenset({"site", "bounds", "density"})
"""What handlers of this package add to a message; it follows from the rest."""


class Statements:
    """What the messages of a run hold, written down while it is traced."""

    def __init__(self) -> None:
        self.walk = _Walk()
        self.words: list[str] = []

    @property
    def traced(self) -> list[Any]:
        """What is traced in the messages."""
        return [] if self.walk.unproven else [value for _, value in self.walk.traced.values()]

    def add(self, msg: Message) -> None:
        """Write down a message that has its value, before anything is derived from it."""
        if msg.get("steps") or msg.get("series"):
            self.walk.unproven.append("a scan")
        if self.walk.unproven:
            return
        made_by = () if msg["type"] == "sample" else ("fn",)  # the value is there already
        entries = {k: v for k, v in msg.items() if k not in _DERIVED and k not in made_by}
        self.words.append(self.walk.word(entries))


@dataclass(frozen=True)
class RunKey:
    """What a run states; where it is equal, so is the record."""

    digest: str
    """Of the program."""
    words: tuple[str, ...]
    """Of the messages and the program's constants."""
    objects: tuple[Any, ...]
    """What is compared by ``==``."""
    about: tuple[Hashable, ...]


@dataclass(frozen=True)
class Run:
    """The key of a run, and the arrays that it was made of."""

    key: RunKey
    arrays: dict[str, Any]
    """By the word that `word_of` has for their numbers."""


def run_of(
    statements: Statements, program: jex_core.ClosedJaxpr, about: tuple[Hashable, ...]
) -> Run | None:
    """What a run states; None if that cannot be compared with another run.

    Parameters
    ----------
    statements : Statements
        Its messages.
    program : ClosedJaxpr
        From latent values to what is traced in them.
    about : tuple
        What else has a part in the record.
    """
    walk = statements.walk
    needed = _without_the_rest(program)
    words = [walk.array(const) for const in needed.consts]
    digest = walk.jaxpr(needed.jaxpr)
    size = sum(getattr(array, "nbytes", 0) for array in walk.arrays.values())
    if walk.unproven or size > MOST_BYTES:
        return None
    key = RunKey(digest, (*statements.words, *words), tuple(walk.numbers), (*about, *_settings()))
    return Run(key, walk.arrays)


def word_of(array: Any) -> str:
    """The word for an array's numbers."""
    return _Walk().array(array)


def in_place_of(value: Any, traced: list[Any], found: list[Any]) -> Any:
    """A message, or a part of it, with other values where something is traced.

    Parameters
    ----------
    value
        Of a run that can be recognised: the walk has looked into all of it.
    traced, found : list of arrays
        What is traced in it, and what stands in its place.
    """
    by = {id(one): other for one, other in zip(traced, found, strict=True)}

    def put(value: Any) -> Any:
        if isinstance(value, Tracer):
            return by.get(id(value), value)
        if isinstance(value, dict):
            return type(value)((key, put(part)) for key, part in value.items())
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(put, value))
        if isinstance(value, list | tuple):
            return type(value)(map(put, value))
        if _is_looked_into(value):
            other = copy(value)
            vars(other).update(put(vars(value)))
            return other
        return value

    return put(value)


def _without_the_rest(program: jex_core.ClosedJaxpr) -> jex_core.ClosedJaxpr:
    """Without steps that the outputs do not need; the constants in the order in which they are used."""
    jaxpr = program.jaxpr
    needed = {v for v in jaxpr.outvars if isinstance(v, jex_core.Var)}
    eqns: list[jex_core.JaxprEqn] = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not needed.isdisjoint(eqn.outvars):
            eqns.insert(0, eqn)
            needed.update(v for v in eqn.invars if isinstance(v, jex_core.Var))
    consts = dict(zip(jaxpr.constvars, program.consts, strict=True))
    used = [*(v for eqn in eqns for v in eqn.invars), *jaxpr.outvars]
    kept = dict.fromkeys(v for v in used if isinstance(v, jex_core.Var) and v in consts)
    about = jaxpr.debug_info.with_unknown_names()
    less = jex_core.Jaxpr(list(kept), jaxpr.invars, jaxpr.outvars, eqns, jaxpr.effects, about)
    return jex_core.ClosedJaxpr(less, [consts[v] for v in kept])


def _settings() -> tuple[Hashable, ...]:
    """Those of JAX that log densities are traced by."""
    config: Any = jax.config
    return (
        config.jax_enable_x64,
        config.jax_default_matmul_precision,
        config.jax_numpy_dtype_promotion,
    )


class _Walk(Walk):
    """Writes messages as words. What is traced in them is numbered, an array counts by its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.traced: dict[int, tuple[int, Any]] = {}
        """By identity, with a number each: what is one value in two places is one here."""
        self.arrays: dict[str, Any] = {}
        """By their words."""
        self.seen: dict[int, tuple[int, Any]] = {}
        """Arrays in messages, likewise: a scale that is one array in two places is one scale."""

    def array(self, value: Any) -> str:
        """The word for an array's numbers."""
        word = self._array(value)
        self.arrays[word] = value
        return word

    def word(self, value: Any) -> str:
        if isinstance(value, Tracer):
            return f"traced {_number(self.traced, value)}"
        if isinstance(value, np.ndarray | jax.Array):
            return f"array {_number(self.seen, value)} {self.array(value)}"
        if type(value) is OrderedDict:  # an expanded distribution has some
            return f"ordered {self.word(tuple(value.items()))}"
        if type(value).__module__.split(".")[0] not in OURS:
            return super().word(value)
        if _is_looked_into(value):
            parts = [f"{name}={self.word(part)}" for name, part in sorted(vars(value).items())]
            return f"{self._known(type(value))}({','.join(parts)})"
        if isinstance(value, tuple):  # one with names
            return f"{self._known(type(value))}({','.join(map(self.word, value))})"
        return super().word(value)


def _is_looked_into(value: Any) -> bool:
    """Whether an object of this package or NumPyro's is what its attributes are."""
    if type(value).__module__.split(".")[0] not in OURS:
        return False
    return isinstance(value, Distribution | Constraint | Transform) or is_dataclass(value)


def _number(found: dict[int, tuple[int, Any]], value: Any) -> int:
    return found.setdefault(id(value), (len(found), value))[0]
