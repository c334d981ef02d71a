"""The record of a model's run, out of memory where the run states what an earlier one did (`same_run`).

A model is run once in a query: for its record, if it was never called with these arguments, and else for what it
states alone, as then the record is probably known. If it is not, as something that the model reads beside its arguments
has changed, the record is made of what was stated. What is remembered holds no data: the arrays of the run at hand take
the places of those before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.extend import core as jex_core

from marginax.graph.record import Record, bare_run, record_run
from marginax.graph.same_run import MOST_BYTES, Run, word_of
from marginax.graph.sites import as_jax_arrays
from marginax.jaxpr.concrete import is_concrete
from marginax.jaxpr.remembered import Remembered


@dataclass(frozen=True)
class _Known:
    """A record without its numbers."""

    record: Record
    places: tuple[str | None, ...]
    """Of each constant of its program, the word of the array in the run that it is; None for one of its own."""
    own: tuple[Any, ...]
    """The constants that are in no message, such as the tables of a density's formula."""

    def with_arrays(self, run: Run) -> Record:
        own = iter(self.own)
        consts = [next(own) if word is None else run.arrays[word] for word in self.places]
        program = jex_core.ClosedJaxpr(self.record.program.jaxpr, consts)
        return replace(self.record, program=program, is_recognised=True)


_called: Remembered[bool] = Remembered(1024)
"""What models were called with."""
_known: Remembered[_Known] = Remembered()


def recognised(
    model: Callable[..., Any], args: Any, kwargs: Any, given: Collection[str] = ()
) -> Record:
    """The record of a run; see `record_model`, which does not look for an earlier one."""
    args, kwargs = as_jax_arrays((args, kwargs))
    asked = _word_of_call(model, args, kwargs, given)
    called = None if asked is None else _called.find(asked)
    if called is None:
        record, run = record_run(model, args, kwargs, given)
        if asked is not None and run is not None and _remember(record, run):
            _called.add(asked, True)
        return record
    bare = bare_run(model, args, kwargs, given)
    if bare.run is None:  # it states something else now, that cannot be compared
        return record_run(model, args, kwargs, given)[0]
    known = _known.find(bare.run.key)
    if known is not None:
        return known.with_arrays(bare.run)
    record = bare.record()
    _remember(record, bare.run)
    return record


def _word_of_call(
    model: Callable[..., Any], args: Any, kwargs: Any, given: Collection[str]
) -> Hashable | None:
    """By what it is guessed that a call has been made before; None where it is not worth a guess."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    if not is_concrete(arrays) or sum(array.nbytes for array in arrays) > MOST_BYTES:
        return None
    name = getattr(model, "__qualname__", type(model).__qualname__)
    words = [word_of(x) if isinstance(x, jax.Array) else repr(x) for x in leaves]
    return (name, str(structure), tuple(words), tuple(sorted(given)))


def _remember(record: Record, run: Run) -> bool:
    """Keep a record without its numbers; not if its program has data of its own."""
    words = [word_of(const) for const in record.program.consts]
    places = tuple(word if word in run.arrays else None for word in words)
    own = tuple(
        const for const, place in zip(record.program.consts, places, strict=True) if place is None
    )
    if sum(getattr(array, "nbytes", 0) for array in own) > MOST_BYTES:
        return False
    jaxpr = record.program.jaxpr
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in jaxpr.constvars]
    bare = replace(record, program=jex_core.ClosedJaxpr(jaxpr, shapes))
    _known.add(run.key, _Known(bare, places, own))
    return True
