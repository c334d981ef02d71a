"""Whether a model states the same each time that it is run.

A model is run more than once: abstractly for its sites, then for its density. A generator is used up by the first
run, a list that is popped is shorter in the next, a random number of NumPy is another: the runs would not be of the
same model. What is compared: which sites there are, in which order, with which shapes, distributions and
plates, and the numbers among observed values and parameters that are known while tracing and are not many. Not seen
is a change in what JAX computes from such numbers, or in large data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.density.distribution_layers import distribution_name
from marginax.errors import ModelError
from marginax.jaxpr.concrete import is_concrete
from marginax.language.stack import Message

MOST_COMPARED = 10**5
"""Numbers in one array."""

WHAT_TO_WRITE = (
    "A model is run more than once and must state the same each time; something in it is used up or changes. Of a "
    "generator make a list before the run, rows = list(rows); give random numbers and what changes as arguments."
)


@dataclass(frozen=True)
class Seen:
    """What one run shows of a site."""

    kind: str
    shape: tuple[int, ...]
    is_observed: bool
    distribution: str
    plates: tuple[tuple[Any, ...], ...]
    numbers: tuple[Any, ...]


_WORDS = {"is_observed": "being observed", "numbers": "value, or a parameter of its distribution,"}


def seen(msg: Message) -> Seen:
    """What a message shows, after its site was run."""
    value, fn = msg["value"], msg.get("fn")
    is_sample = msg["type"] == "sample"
    is_observed = is_sample and bool(msg["is_observed"])
    shown = (value if is_observed else None, fn if is_sample and not msg.get("series") else None)
    frames = sorted(tuple(frame) for frame in msg["cond_indep_stack"])
    return Seen(
        msg["type"],
        np.shape(value) if msg["type"] != "plate" else (msg["args"][0],),
        is_observed,
        distribution_name(fn) if is_sample else "",
        tuple(frames),
        tuple(leaf if _is_compared(leaf) else None for leaf in jax.tree.leaves(shown)),
    )


def seen_of(trace: Mapping[str, Message]) -> dict[str, Seen]:
    """What a run shows, by site."""
    return {name: seen(msg) for name, msg in trace.items()}


def _is_compared(leaf: Any) -> bool:
    if not isinstance(leaf, np.ndarray | np.generic | jax.Array | bool | int | float):
        return False
    is_here = not isinstance(leaf, jax.Array) or (
        is_concrete(leaf) and leaf.is_fully_addressable and not _is_key(leaf)
    )
    return is_here and np.size(leaf) <= MOST_COMPARED


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def refuse_changes(first: Mapping[str, Seen], again: Mapping[str, Seen]) -> None:
    """Raise a ModelError that names the first site in which two runs of a model differ."""
    for change in _changes(first, again):
        raise ModelError(f"{change} {WHAT_TO_WRITE}")


def _changes(first: Mapping[str, Seen], again: Mapping[str, Seen]) -> Iterator[str]:
    for name in first:
        if name not in again:
            yield f"site '{name}': the first run of the model states it, the next does not."
    for name in again:
        if name not in first:
            yield f"site '{name}': the first run of the model does not state it, the next does."
    for one, other in zip(first, again, strict=True):
        if one != other:
            yield f"site '{other}': it stands where the first run of the model has '{one}'."
    for name, one in first.items():
        for field in fields(Seen):
            before, now = getattr(one, field.name), getattr(again[name], field.name)
            if field.name == "numbers":
                same = len(before) == len(now) and all(map(_equal, before, now))
                what = ""
            else:
                same, what = before == now, f": it was {before} and is {now}"
            if not same:
                word = _WORDS.get(field.name, field.name)
                yield f"site '{name}': its {word} differs between two runs of the model{what}."


def _equal(before: Any, now: Any) -> bool:
    """Whether two numbers, known in both runs, are the same; NaN is NaN."""
    if before is now or before is None or now is None:
        return True
    with jax.ensure_compile_time_eval():
        one, other = np.asarray(before), np.asarray(now)
    if one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
