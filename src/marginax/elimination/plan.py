"""A plan as data: the terms, the steps that sum variables out of them, and what each step costs.

Plans are made from names and sizes alone (`planner`), before any array exists; `execute` carries them out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from marginax.elimination.axes import Axis, Name
from marginax.elimination.factor import Factor


@dataclass(frozen=True)
class Term:
    """The names of a factor's axes."""

    name: Name
    variables: tuple[Axis, ...]
    plates: frozenset[Axis]
    scales: tuple[Hashable, ...] = ()
    """The keys of the scales inside which it stands, outermost first."""


def term_of(factor: Factor) -> Term:
    """The names of a factor."""
    scales = tuple(scale.key for scale in factor.scales)
    return Term(factor.name, factor.variables, frozenset(factor.plates), scales)


@dataclass(frozen=True)
class Eliminate:
    """Add up some slots and reduce one variable; the result goes to a new slot."""

    variable: Axis
    inputs: tuple[int, ...]
    output: int
    variables: tuple[Axis, ...]
    """All variables of the sum before reduction, the eliminated one among them."""
    plates: tuple[Axis, ...]
    flops: int
    elements: int
    """Elements of the sum before reduction, the largest array of this step."""


@dataclass(frozen=True)
class Multiply:
    """Multiply one slot over some plates; the result goes to a new slot."""

    input: int
    output: int
    over: tuple[Axis, ...]


@dataclass(frozen=True)
class Chain:
    """A time axis, and what links its steps, by name.

    A variable goes by one name in its own step and by others in the steps that remember it.
    """

    time: Axis
    """Name of the axis: a plate of the factors of its steps."""
    length: int
    later: Mapping[Axis, Axis]
    """The name that each remembered variable has one step later."""
    first: Mapping[Axis, Axis]
    """For each name of something remembered, what it is called outside, at the first step."""
    last: Mapping[Axis, Axis]
    """The same after the last step."""
    elimination: str = "auto"
    """How to go along: ``"auto"``, ``"sequential"``, ``"blocked"`` or ``"associative"``."""


@dataclass(frozen=True)
class Advance:
    """Go from the first step of a chain to its last: messages over what is remembered, again and again."""

    chain: Chain
    messages: tuple[Term, ...]
    """What is carried from step to step."""
    incoming: tuple[tuple[int, ...], ...]
    """For each message the slots that it begins as."""
    potentials: tuple[int, ...]
    """Slots with what is left of the steps, each with the time axis."""
    step: Plan
    """For one step, of the messages and then the potentials."""
    merged: tuple[tuple[int, ...], ...]
    """For each message the results of the step that it becomes."""
    totals: tuple[int, ...]
    """The results of the step that depend on nothing."""
    outputs: tuple[int, ...]
    """Slots: for each message what it is in the end, and a constant to it; last, a number."""
    sizes: Mapping[Axis, int]
    home: Mapping[Axis, frozenset[Axis]]
    """Of all names in here, as for `make_plan`."""
    shapes: tuple[tuple[int, ...], ...]
    """Of the messages: plates by name, then variables."""
    flops: int
    elements: int

    def place(self, terms: Sequence[Term]) -> tuple[tuple[int, ...], ...]:
        """For each message the positions of the factors that are part of it; each is part of one."""
        return tuple(
            tuple(
                i
                for i, term in enumerate(terms)
                if next(m for m in self.messages if fits(term, m)) is message
            )
            for message in self.messages
        )


@dataclass(frozen=True)
class Plan:
    """Steps of an elimination, in order, over numbered slots that begin as the factors."""

    terms: tuple[Term, ...]
    steps: tuple[Eliminate | Multiply | Advance, ...]
    results: tuple[int, ...]
    """Slots that are left in the end: numbers, and factors of kept variables."""

    @property
    def order(self) -> tuple[Axis, ...]:
        """The variables in the order in which they are eliminated."""
        return tuple(step.variable for step in self.steps if isinstance(step, Eliminate))

    @property
    def flops(self) -> int:
        """Additions and exponentials of all eliminations, roughly."""
        return sum(step.flops for step in self.steps if not isinstance(step, Multiply))

    @property
    def largest(self) -> int:
        """Elements of the largest array that an elimination forms."""
        return max((s.elements for s in self.steps if not isinstance(s, Multiply)), default=1)

    def __str__(self) -> str:
        lines = []
        names = [str(term.name) for term in self.terms]
        for step in self.steps:
            if isinstance(step, Eliminate):
                of = " * ".join(names[i] for i in step.inputs)
                where = f" in {_listed(step.plates)}" if step.plates else ""
                rest = _listed(v for v in step.variables if v != step.variable)
                names.append(f"f{step.output}({rest})")
                lines.append(
                    f"sum out {step.variable}{where}: {of} -> {names[-1]}"
                    f"   [{step.elements:,} elements, {step.flops:,} FLOPs]"
                )
            elif isinstance(step, Advance):
                of = " * ".join(names[i] for i in (*sum(step.incoming, ()), *step.potentials))
                first = len(names)
                for message in step.messages:
                    ends = _listed(step.chain.last.get(v, v) for v in message.variables)
                    names.append(f"f{len(names)}({ends})")
                    names.append(f"f{len(names)}")
                names.append(f"f{len(names)}")
                lines.append(
                    f"for {step.chain.length:,} {step.chain.time}, {step.chain.elimination}: {of} -> "
                    f"{', '.join(names[first:])}   [{step.elements:,} elements, {step.flops:,} FLOPs]"
                )
                lines += [f"    each: {line}" for line in str(step.step).splitlines()]
            else:
                names.append(f"f{step.output}")
                lines.append(
                    f"multiply {names[step.input]} over {_listed(step.over)} -> {names[-1]}"
                )
        return "\n".join(lines) or "nothing to eliminate"


def _listed(axes: Iterable[Axis]) -> str:
    return ", ".join(map(str, axes))


def inputs_of(step: Eliminate | Multiply | Advance) -> tuple[int, ...]:
    """The slots that a step reads."""
    if isinstance(step, Multiply):
        return (step.input,)
    return (
        step.inputs if isinstance(step, Eliminate) else (*sum(step.incoming, ()), *step.potentials)
    )


def outputs_of(step: Eliminate | Multiply | Advance) -> tuple[int, ...]:
    """The slots that it fills."""
    return step.outputs if isinstance(step, Advance) else (step.output,)


def fits(term: Term, message: Term) -> bool:
    return message.plates == term.plates and set(message.variables) >= set(term.variables)
