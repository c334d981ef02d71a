"""Elimination along time: the same step, again and again.

A chain is summed out by carrying *messages* along: factors of what the next step remembers. One
step multiplies them with what is left of the step (its *potentials*), and sums out what is
remembered no more. For a hidden Markov model that is the forward algorithm (Rabiner, 1989, "A
Tutorial on Hidden Markov Models", III.A). As everywhere in this package the semiring decides what
comes out, and the derivative along the whole chain is its backward pass: smoothed marginals, the
Viterbi path, or a joint draw.

Messages are kept at a maximum of zero, and what is taken off is added up apart, because
the logarithm of a density of 100,000 steps leaves no digits for the differences between its states.

Three ways along:

*Sequential*, step by step. Where only sums are taken, not on logarithms but on numbers relative to
the largest: a step is then a few multiplications instead of as many exponentials. What could be
lost is a number too small to be held. As with matrix products (`products.py`) each sum is compared
with the size at which lost terms could matter, and where one is too small, though not impossible,
the logarithms are used, in the same program.

*Blocked*. The series is cut into blocks, and all blocks advance side by side, from every value that
could be remembered at their beginning. That is more work, by the number of those values, but it is
done many at a time. What comes of a block is itself a potential, so a chain of blocks remains,
which is a chain.

*Associative*. Blocks of two, again and again, as many times as it takes.

Backward passes need every step's messages. Of long series whose steps are large only some are kept,
and the others are computed again (Griewank, 1992, "Achieving Logarithmic Growth of Temporal and
Spatial Complexity").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from marginax.elimination.axes import Axis, Part, Role, sorted_axes
from marginax.elimination.execute import ScaleError, Setting, execute
from marginax.elimination.factor import Factor, Scale, time_first
from marginax.elimination.loops import scan_in_time, sum_in_time, top_of
from marginax.elimination.numbers import advance_in_numbers, are_numbers_enough
from marginax.elimination.plan import Advance, Chain, Term, term_of
from marginax.elimination.planner import plan_advance
from marginax.elimination.semiring import SUM, Semiring

BLOCKS_PAY = {"cpu": (2, 2**16), "accelerator": (16, 256)}
"""By device, with how many states at most, and from how many steps on, blocks are faster: on a CPU as measured (two
states, 100,000 steps: 3.6 against 5.3 ms); on accelerators, whose steps wait on one another, by reckoning."""

CHAINS = 2**20
"""More than a plan has steps."""


@dataclass(frozen=True)
class Messages:
    """What is known of a chain's past at one step, as logarithms."""

    arrays: tuple[Array, ...]
    """Over the plates and variables of the step's messages, each with a maximum of zero."""
    constants: tuple[Array, ...]
    """What was taken off, over the plates of each."""
    number: Array
    """Logarithms that depend on nothing, shape ()."""


jax.tree_util.register_dataclass(Messages, ["arrays", "constants", "number"], [])


def advance(
    step: Advance,
    slots: Mapping[int, Factor],
    semiring: Semiring,
    number: int,
    setting: Setting,
) -> dict[int, Factor]:
    """Run a chain from its first step to its last.

    Parameters
    ----------
    step : Advance
        The plan of one step.
    slots : mapping from int to Factor
        The factors by slot, those of the steps with the time axis.
    semiring : Semiring
        How to reduce a variable.
    number : int
        Of this step in the plan.
    setting : Setting
        Sizes and scales.

    Returns
    -------
    dict from slot to Factor
        The outputs of the step.
    """
    # Its draws are folded in twice, from a number that no other step has.
    semiring = semiring.at(CHAINS + number)
    chain = _Chain(step, [slots[i] for i in step.potentials], semiring, setting)
    begin = chain.begin([slots[i] for group in step.incoming for i in group])
    end = chain.run(begin)
    made: dict[int, Factor] = {}
    for i, (factor, constant) in enumerate(chain.as_factors(end)):
        ends = tuple(step.chain.last.get(v, v) for v in factor.variables)
        made[step.outputs[2 * i]] = replace(factor, variables=ends)
        made[step.outputs[2 * i + 1]] = constant
    made[step.outputs[-1]] = Factor("number", (), (), end.number)
    return made


def messages_along(step: Advance, slots: Mapping[int, Factor], setting: Setting) -> list[Factor]:
    """What each step knows of its past: the messages before every step.

    Parameters
    ----------
    step : Advance
        The plan of one step.
    slots : mapping from int to Factor
        The factors by slot.
    setting : Setting
        Sizes and scales.

    Returns
    -------
    list of Factor
        For each message one over time and its plates and variables, up to a constant for each step.
    """
    chain = _Chain(step, [slots[i] for i in step.potentials], SUM, setting)
    begin = chain.begin([slots[i] for group in step.incoming for i in group])
    _, arrays = chain.scan(
        lambda arrays, now: (chain.next(arrays, *now).arrays, arrays), begin.arrays
    )
    return [
        Factor(term.name, (step.chain.time, *_plates(term)), term.variables, array, chain.scales)
        for term, array in zip(step.messages, arrays, strict=True)
    ]


class _Chain:
    """A chain's numbers, and how to go along it in one semiring."""

    def __init__(
        self,
        step: Advance,
        potentials: Sequence[Factor],
        semiring: Semiring,
        setting: Setting,
    ) -> None:
        self.step = step
        self.potentials = [time_first(f, step.chain.time) for f in potentials]
        self.semiring = semiring
        self.setting = setting
        found = {v: setting.variable_scales.get(v, ()) for v in step.chain.first}
        self.scales: tuple[Scale, ...] = next(iter(found.values()))
        for name, scales in found.items():
            if _keys(scales) != _keys(self.scales):
                first = next(iter(found))
                raise ScaleError(
                    f"'{name}' and '{first}' are carried through the same steps but stand in different "
                    "scales. Put one handlers.scale around the whole scan."
                )

    def begin(self, incoming: Sequence[Factor]) -> Messages:
        """The messages that the first step gets."""
        inside = {outer: name for name, outer in self.step.chain.first.items()}
        named = [_renamed(factor, inside) for factor in incoming]
        return self._gathered(named, self.step.place([term_of(f) for f in named]), jnp.zeros(()))

    def run(self, begin: Messages) -> Messages:
        """From the messages before the first step to those after the last."""
        length, method = self.step.chain.length, self._method()
        if method == "sequential" or length < 4 or self.step.totals:
            return self._one_by_one(begin)
        block = 2 if method == "associative" else math.isqrt(length)
        return self._in_blocks(begin, length // block, block)

    def _method(self) -> str:
        """How to go along; where nothing is said, by the number of steps and states and the device."""
        said = self.step.chain.elimination
        if said != "auto":
            return said
        states = max(
            math.prod(shape[len(message.plates) :])
            for message, shape in zip(self.step.messages, self.step.shapes, strict=True)
        )
        backend = "cpu" if jax.default_backend() == "cpu" else "accelerator"
        most, shortest = BLOCKS_PAY[backend]
        pays = states <= most and self.step.chain.length >= shortest and not self.step.totals
        return "blocked" if pays else "sequential"

    def next(self, arrays: Sequence[Array], t: Any, pieces: Sequence[Array]) -> Messages:
        """One step, on logarithms."""
        slots = self.inputs(arrays, pieces)
        plan, semiring = self.step.step, self.semiring.at(t)
        for i, step in enumerate(plan.steps):
            assert not isinstance(step, Advance)
            slots[step.output] = execute(step, slots, semiring, i, self.setting)
        factors, groups = [], []
        for group in self.step.merged:
            groups.append(range(len(factors), len(factors) + len(group)))
            factors += [_renamed(slots[i], self.step.chain.later) for i in group]
        number = sum(
            (slots[i].with_scales_applied().array for i in self.step.totals), jnp.zeros(())
        )
        return self._gathered(factors, groups, number)

    def inputs(self, arrays: Sequence[Array], pieces: Sequence[Array]) -> dict[int, Factor]:
        """The messages and potentials of one step, by the slots of its plan."""
        found = [
            Factor(term.name, _plates(term), term.variables, array, self.scales)
            for term, array in zip(self.step.messages, arrays, strict=True)
        ]
        found += [
            replace(factor, plates=factor.plates[1:], array=piece)
            for factor, piece in zip(self.potentials, pieces, strict=True)
        ]
        return dict(enumerate(found))

    def scan(self, body: Callable[[Any, Any], tuple[Any, Any]], init: Any) -> tuple[Any, Any]:
        """Carry something along: ``body`` gets it, and beside it the step's number and potentials."""
        arrays = [factor.array for factor in self.potentials]
        return scan_in_time(body, init, arrays, self.step.chain.length, self.step.step.largest)

    def as_factors(self, messages: Messages) -> list[tuple[Factor, Factor]]:
        """Each message, and the constant that was taken off it."""
        return [
            (
                Factor(term.name, _plates(term), term.variables, array, self.scales),
                Factor(term.name, _plates(term), (), constant, self.scales),
            )
            for term, array, constant in zip(
                self.step.messages, messages.arrays, messages.constants, strict=True
            )
        ]

    def _gathered(
        self, factors: Sequence[Factor], groups: Sequence[Sequence[int]], number: Array
    ) -> Messages:
        """Multiply the factors that belong to each message."""
        dtype = jnp.result_type(float, *[f.array.dtype for f in (*factors, *self.potentials)])
        arrays, constants = [], []
        step = self.step
        for term, shape, group in zip(step.messages, step.shapes, groups, strict=True):
            plates = _plates(term)
            array = jnp.zeros(shape, dtype)
            for factor in (factors[i] for i in group):
                inner = factor.with_scales_applied(keep=len(self.scales))
                array = array + inner.aligned(plates, term.variables)
            top = top_of(array, len(plates))
            arrays.append(array - top)
            constants.append(top.reshape(shape[: len(plates)]))
        return Messages(tuple(arrays), tuple(constants), number.astype(dtype))

    def _one_by_one(self, begin: Messages) -> Messages:
        if self.semiring is SUM and are_numbers_enough(self.step, self.potentials, self.scales):
            return self._in_numbers(begin)
        return self._in_logarithms(begin)

    def _in_logarithms(self, begin: Messages) -> Messages:
        def body(arrays: Any, now: Any) -> tuple[Any, Any]:
            after = self.next(arrays, *now)
            return after.arrays, (after.constants, after.number)

        arrays, (constants, numbers) = self.scan(body, begin.arrays)
        return _added(begin, arrays, constants, numbers)

    def _in_numbers(self, begin: Messages) -> Messages:
        arrays = [factor.array for factor in self.potentials]

        def slowly(arrays: Any, begin: Any) -> Any:
            same = _Chain(
                self.step,
                [replace(f, array=a) for f, a in zip(self.potentials, arrays, strict=True)],
                self.semiring,
                self.setting,
            )
            return same._in_logarithms(begin)

        found, fine = advance_in_numbers(self.step, begin.arrays, self.potentials)
        fast = _added(begin, found.arrays, found.constants, jnp.zeros((1,), begin.number.dtype))
        return jax.lax.cond(
            fine,
            lambda fast, *_: fast,
            lambda _, *rest: jax.checkpoint(slowly)(*rest),
            fast,
            arrays,
            begin,
        )

    def _in_blocks(self, begin: Messages, blocks: int, length: int) -> Messages:
        """All blocks side by side, then from block to block, then what is left over."""
        step, time = self.step, self.step.chain.time
        transfers = self._transfers(blocks, length)
        constants = list(begin.constants)
        for factor in transfers:
            if not factor.variables:
                constants[self._of_plates(factor.plates[1:])] += sum_in_time(factor.array)
        transfers = [factor for factor in transfers if factor.variables]
        home = {v: plates - {time} for v, plates in step.home.items()}
        remembered = step.chain.first
        linked = {v: home[v] | {_blocks(time)} for v in remembered}
        home |= linked | {_exit(v): plates for v, plates in linked.items()}
        chain = Chain(
            _blocks(time),
            blocks,
            later={_exit(v): v for v in remembered},
            first={v: v for v in remembered},
            last={},
            elimination="associative" if self._method() == "associative" else "sequential",
        )
        incoming = [factor for factor, _ in self.as_factors(begin)]
        over_blocks = self._sub_chain(chain, incoming, transfers, home, 1)
        ends = over_blocks.as_factors(over_blocks.run(over_blocks.begin(incoming)))
        for _, constant in ends:
            constants[self._of_plates(constant.plates)] += constant.array
        found = [factor for factor, _ in ends]
        gathered = self._gathered(found, step.place([term_of(f) for f in found]), begin.number)
        total = [a + b for a, b in zip(constants, gathered.constants, strict=True)]
        reached = replace(gathered, constants=tuple(total))
        left = step.chain.length - blocks * length
        if not left:
            return reached
        rest = replace(step, chain=replace(step.chain, length=left))
        potentials = [
            f if f.array.shape[0] == 1 else replace(f, array=f.array[-left:])
            for f in self.potentials
        ]
        after = _Chain(rest, potentials, self.semiring.at(2), self.setting)
        return after._one_by_one(reached)

    def _of_plates(self, plates: tuple[Axis, ...]) -> int:
        """The first of the messages that stands in some plates."""
        return next(i for i, m in enumerate(self.step.messages) if _plates(m) == plates)

    def _transfers(self, blocks: int, length: int) -> list[Factor]:
        """For each block, what links the values remembered at its beginning to those at its end."""
        step, time = self.step, self.step.chain.time
        block = _blocks(time)
        remembered = step.chain.first
        home = {v: p | {block} if time in p else p for v, p in step.home.items()}
        home |= {_entry(v): home[v] - {time} for v in remembered}
        chain = Chain(time, length, step.chain.later, {v: v for v in remembered}, {}, "sequential")
        same = []
        for v in remembered:
            plates = sorted_axes(home[_entry(v)])
            size = step.sizes[v]
            table = jnp.where(jnp.eye(size, dtype=bool), 0.0, -jnp.inf)
            array = table.reshape((1,) * len(plates) + (size, size))
            same.append(Factor("", plates, (v, _entry(v)), array, self.scales))
        cut = [
            replace(f, plates=(time, block, *f.plates[1:]), array=_cut(f.array, blocks, length))
            for f in self.potentials
        ]
        inner = self._sub_chain(chain, same, cut, home, 0, {block: blocks})
        names = {v: _exit(v) for v in remembered} | {_entry(v): v for v in remembered}
        found: list[Factor] = []
        for factor, constant in inner.as_factors(inner.run(inner.begin(same))):
            found += [time_first(_renamed(factor, names), block), time_first(constant, block)]
        return found

    def _sub_chain(
        self,
        chain: Chain,
        incoming: Sequence[Factor],
        potentials: Sequence[Factor],
        home: Mapping[Axis, frozenset[Axis]],
        number: int,
        plate_sizes: Mapping[Axis, int] | None = None,
    ) -> _Chain:
        """A chain of the same variables, under more names."""
        sizes = dict(self.step.sizes)
        sizes |= {end(v): sizes[v] for v in chain.first for end in (_entry, _exit)}
        setting = replace(
            self.setting,
            plate_sizes={**self.setting.plate_sizes, **(plate_sizes or {})},
            variable_scales=dict.fromkeys(sizes, self.scales),
        )
        step = plan_advance(
            chain,
            {i: term_of(f) for i, f in enumerate(incoming)},
            {i: term_of(f) for i, f in enumerate(potentials)},
            sizes,
            setting.plate_sizes,
            home,
        )
        return _Chain(step, potentials, self.semiring.at(number), setting)


def _blocks(time: Axis) -> Axis:
    return Part(time, Role.BLOCKS)


def _entry(variable: Axis) -> Axis:
    return Part(variable, Role.ENTRY)


def _exit(variable: Axis) -> Axis:
    return Part(variable, Role.EXIT)


def _cut(array: Array, blocks: int, length: int) -> Array:
    """A time axis as two: within blocks, and blocks."""
    if array.shape[0] == 1:
        return array[:, None]
    whole = array[: blocks * length]
    return jnp.moveaxis(whole.reshape((blocks, length, *array.shape[1:])), 0, 1)


def _added(begin: Messages, arrays: Any, constants: Any, numbers: Array) -> Messages:
    total = [b + sum_in_time(c) for b, c in zip(begin.constants, constants, strict=True)]
    return Messages(tuple(arrays), tuple(total), begin.number + sum_in_time(numbers))


def _renamed(factor: Factor, names: Mapping[Axis, Axis]) -> Factor:
    return replace(factor, variables=tuple(names.get(v, v) for v in factor.variables))


def _plates(term: Term) -> tuple[Axis, ...]:
    return sorted_axes(term.plates)


def _keys(scales: Sequence[Scale]) -> list[Any]:
    return [scale.key for scale in scales]
