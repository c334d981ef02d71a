"""A chain of sums on numbers instead of logarithms.

One step of the forward algorithm on logarithms takes an exponential for every pair of states. On
numbers it is a product of a vector and a matrix; exponentials are taken of the potentials, all at
once and, where they are the same at every step, once. Messages and potentials are kept relative to
their largest entry.

What is lost is what is smaller than the smallest number that can be held, ``tiny``. Potentials are at
most 1, messages less than 2 (they are divided by a power of two c), so a sum of K terms is less than
2K. One step loses, of each entry of the next message before it is divided, at most ``2K tiny`` for each
potential; after division that is ``2K tiny / c``, and the K terms of the next sum carry it on. A sum is
unchanged in all its digits if that is less than ``eps`` of it::

    sum * min(c, 1)  >=  K (4K (potentials + 1) + 4) tiny / eps

with c of the step before. A smaller sum is right only if it is exactly zero because all its terms are
impossible, which a pass over truth values tells. Otherwise logarithms are used.

Adjoints are bounded where messages are not zero: the adjoint of an entry, times the entry, is a
posterior probability. Where an entry is exactly zero nothing bounds it (a state that cannot be
reached may explain the data best, more so with every step), and it is set to zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from marginax.elimination.axes import Axis, sorted_axes
from marginax.elimination.factor import Factor, Scale
from marginax.elimination.loops import power_of_two, scan_in_time, top_of
from marginax.elimination.plan import Advance, Eliminate
from marginax.elimination.products import everywhere, sum_of_product


class Found(NamedTuple):
    """Messages after the last step, as logarithms."""

    arrays: tuple[Array, ...]
    """With a maximum of zero."""
    constants: tuple[Array, ...]
    """What was taken off each message in each stage, over stages and plates."""


def are_numbers_enough(
    step: Advance, potentials: Sequence[Factor], scales: Sequence[Scale]
) -> bool:
    """Whether a step takes sums of products and nothing else, and hands on no message as it is."""
    places = {message.plates | {step.chain.time} for message in step.messages}
    keys = [scale.key for scale in scales]
    dtypes = {jnp.dtype(factor.array.dtype) for factor in potentials}
    return (
        dtypes <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.float64)}
        and all(isinstance(inner, Eliminate) for inner in step.step.steps)
        and not step.totals
        and all(slot >= len(step.messages) for group in step.merged for slot in group)
        and all([scale.key for scale in f.scales] == keys for f in potentials)
        and all(frozenset(f.plates) in places for f in potentials)
    )


def advance_in_numbers(
    step: Advance, begin: Sequence[Array], potentials: Sequence[Factor]
) -> tuple[Found, Array]:
    """Go along a chain, on numbers.

    Parameters
    ----------
    step : Advance
        The plan of one step, for which `are_numbers_enough`.
    begin : sequence of arrays
        Messages before the first step, as logarithms with a maximum of zero.
    potentials : sequence of Factor
        Logarithms, the time axis first.

    Returns
    -------
    Found, bool array of shape ()
        Whether nothing was lost that matters.
    """
    length, scopes = step.chain.length, _together(potentials)
    logs: list[Array | None] = [None] * len(potentials)
    tops: list[tuple[frozenset[Axis], Array]] = []
    for positions in scopes:
        array = sum((potentials[i].array for i in positions[1:]), potentials[positions[0]].array)
        factor = potentials[positions[0]]
        top = top_of(array, len(factor.plates))
        logs[positions[0]] = array - top
        times = length if array.shape[0] == 1 else 1
        flat = top.reshape(top.shape[: len(factor.plates)]) * times
        tops.append((frozenset(factor.plates[1:]), flat))
    present = [log for log in logs if log is not None]
    run = _Numbers(step, potentials, [log is not None for log in logs])

    def body(messages: Any, now: Any) -> tuple[Any, Any]:
        slots, sums = run.eliminate(messages, now[1])
        products = run.merge(slots)
        largest = [
            power_of_two(top_of(product, len(message.plates)))
            for product, message in zip(products, step.messages, strict=True)
        ]
        after = [
            # Impossible entries get no adjoint; NaN stays.
            jnp.where(product <= 0, 0, product / jnp.where(top > 0, top, 1))
            for product, top in zip(products, largest, strict=True)
        ]
        return after, (sums, largest)

    numbers = [jnp.exp(log) for log in present]
    first = [jnp.exp(array) for array in begin]
    early = [n if n.shape[0] == 1 else n[:-1] for n in numbers]
    kept = sum(array.size for array in begin)
    before, (sums, largest) = scan_in_time(body, first, early, length - 1, kept)
    slots, last_sums = run.eliminate(before, [n[-1] for n in numbers])
    ends = run.merge_logarithms(slots, [log[-1] for log in present])
    sums = [jnp.concatenate([a, b[None]]) for a, b in zip(sums, last_sums, strict=True)]
    large = run.are_large(sums, largest)

    def is_all_else_impossible() -> Array:
        truths = [[(a != -jnp.inf).astype(a.dtype) for a in group] for group in (begin, present)]
        possible = run.are_possible(*truths)
        return _all([a | ~b for a, b in zip(large, possible, strict=True)])

    fine = jax.lax.cond(_all(large), lambda: jnp.array(True), is_all_else_impossible)
    arrays, constants = [], []
    for message, end, c in zip(step.messages, ends, largest, strict=True):
        n = len(message.plates)
        top = top_of(end, n)
        arrays.append(end - top)
        stages = [jnp.log(jnp.where(c > 0, c, 1)), top[None]]
        stages = [stage.reshape(stage.shape[: n + 1]) for stage in stages]
        mine = next(m for m in step.messages if m.plates == message.plates) is message
        stages += [top for plates, top in tops if mine and plates == message.plates]
        shape = stages[0].shape[1:]
        stages = [jnp.broadcast_to(stage, (stage.shape[0], *shape)) for stage in stages]
        constants.append(jnp.concatenate(stages))
    return Found(tuple(arrays), tuple(constants)), fine


def _all(truths: Sequence[Array]) -> Array:
    found = jnp.array(True)
    for truth in truths:
        found &= jnp.all(truth)
    return everywhere(found)


def _together(potentials: Sequence[Factor]) -> list[list[int]]:
    """Potentials over the same plates and variables: their product has a largest entry, theirs may clash."""
    found: dict[Any, list[int]] = {}
    for i, factor in enumerate(potentials):
        found.setdefault((factor.plates, factor.variables), []).append(i)
    return list(found.values())


class _Numbers:
    """One step, on numbers."""

    def __init__(
        self, step: Advance, potentials: Sequence[Factor], present: Sequence[bool]
    ) -> None:
        self.step = step
        self.present = [
            (len(step.messages) + i, factor)
            for i, (factor, is_present) in enumerate(zip(potentials, present, strict=True))
            if is_present
        ]

    def eliminate(
        self, messages: Sequence[Array], pieces: Sequence[Array]
    ) -> tuple[dict[int, Factor], list[Array]]:
        """Every slot of the step, and the sums among them."""
        slots = {
            i: Factor(m.name, sorted_axes(m.plates), m.variables, array)
            for i, (m, array) in enumerate(zip(self.step.messages, messages, strict=True))
        }
        for (slot, factor), piece in zip(self.present, pieces, strict=True):
            slots[slot] = Factor(factor.name, factor.plates[1:], factor.variables, piece)
        sums = []
        for inner in self.step.step.steps:
            assert isinstance(inner, Eliminate)
            arrays = [
                slots[i].aligned(inner.plates, inner.variables) for i in inner.inputs if i in slots
            ]
            axis = len(inner.plates) + inner.variables.index(inner.variable)
            rest = tuple(v for v in inner.variables if v != inner.variable)
            array = sum_of_product(arrays, axis)
            slots[inner.output] = Factor(f"f{inner.output}", inner.plates, rest, array)
            sums.append(array)
        return slots, sums

    def merge(self, slots: dict[int, Factor]) -> list[Array]:
        """The messages that come of a step."""
        return [
            self._merged(i, [slots[s] for s in group if s in slots], jnp.multiply, 1.0)
            for i, group in enumerate(self.step.merged)
        ]

    def merge_logarithms(self, slots: dict[int, Factor], logs: Sequence[Array]) -> list[Array]:
        """The same as logarithms; potentials keep what is too small as a number."""
        exact = {
            slot: Factor(f.name, f.plates[1:], f.variables, log)
            for (slot, f), log in zip(self.present, logs, strict=True)
        }
        for slot, factor in slots.items():
            if slot not in exact:
                some = ~(factor.array <= 0)  # NaN stays
                log = jnp.where(some, jnp.log(jnp.where(some, factor.array, 1)), -jnp.inf)
                exact[slot] = Factor(factor.name, factor.plates, factor.variables, log)
        return [
            self._merged(i, [exact[s] for s in group if s in exact], jnp.add, 0.0)
            for i, group in enumerate(self.step.merged)
        ]

    def _merged(self, number: int, factors: Sequence[Factor], join: Any, none: float) -> Array:
        message, later = self.step.messages[number], self.step.chain.later
        plates = sorted_axes(message.plates)
        array: Any = none
        for factor in factors:
            names = tuple(later.get(v, v) for v in factor.variables)
            renamed = Factor(factor.name, factor.plates, names, factor.array)
            array = join(array, renamed.aligned(plates, message.variables))
        return jnp.broadcast_to(array, self.step.shapes[number])

    def are_large(self, sums: Sequence[Array], largest: Sequence[Array]) -> list[Array]:
        """Of every sum, whether it is so large that lost terms do not matter."""
        eliminations = [s for s in self.step.step.steps if isinstance(s, Eliminate)]
        terms = math.prod(self.step.sizes[s.variable] for s in eliminations)
        lost = terms * (4 * terms * (len(self.present) + 1) + 4)
        found = []
        for inner, array in zip(eliminations, sums, strict=True):
            counted = array
            for message, c in zip(self.step.messages, largest, strict=True):
                kept = 1 + len(inner.plates)
                if message.plates != frozenset(inner.plates):  # the least that any of them was
                    c, kept = jnp.min(c, tuple(range(1, c.ndim))), 1
                before = jnp.minimum(c, 1).reshape(c.shape[:kept] + (1,) * (array.ndim - kept))
                one = jnp.ones((1, *before.shape[1:]), before.dtype)
                counted = counted * jnp.concatenate([one, before])
            info = jnp.finfo(array.dtype)
            found.append(counted >= lost * (info.tiny / info.eps))
        return found

    def are_possible(self, begin: Sequence[Array], truths: Sequence[Array]) -> list[Array]:
        """Of every sum, whether it has a term that is not zero."""

        def truth(array: Array) -> Array:
            return (array > 0).astype(array.dtype)

        def body(messages: Any, now: Any) -> tuple[Any, Any]:
            slots, sums = self.eliminate(messages, now[1])
            after = [truth(array) for array in self.merge(slots)]
            return after, [array > 0 for array in sums]

        length = self.step.chain.length
        return scan_in_time(body, list(begin), truths, length, 0)[1]
