"""Plans: in which order to eliminate, and what it costs, from names and sizes alone.

Plates make one difference to ordinary variable elimination: a factor inside a plate is really as
many factors as the plate has elements. *Tensor variable elimination* (Obermeyer et al., 2019,
"Tensor Variable Elimination for Plated Factor Graphs", algorithm 1) eliminates them all at once:

1. Take the factors in a deepest set of plates, the *leaf*.
2. Sum out the variables that live in exactly these plates, group by connected group.
3. What remains of a group depends on variables further out only. Multiply it over the plates
   in which none of those live, and put the product back among the factors further out.
4. Repeat, until nothing is left inside plates; then sum out the global variables.

Step 3 fails when the variables that remain live, together, in all of the leaf's plates (one in
plate A and one in plate B, meeting in a factor of A and B): then no order multiplies anything out
before summing, and the exact sum is exponential in the plates' sizes. That is refused here.

*Kept* variables are never eliminated; a factor of kept variables alone stays as it is. Within a
group the order is the cheaper of a greedy one and of opt_einsum's. Everything about cost is in the
`Plan`, before any array exists.

Scales nest like plates: what stands in a scale is raised to a power once the variables of that scale
are summed out. So within a group those that stand in more scales come first. The scales of a variable
are those that all its factors have in common; its own factor stands in no more.

Time is planned as one step. A *chain* is a time axis whose elements are linked by variables that
the next step remembers. First everything that belongs to one step alone is summed out, for all
steps at once, as in a plate. What is left of a step links what it remembers to what it hands on; a
plan for that one step (`Advance`) is then run again and again (`chain.py`), from messages over the
variables that the first step remembers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from marginax.elimination.axes import Axis, by_name, sorted_axes
from marginax.elimination.order import elimination_order, union
from marginax.elimination.plan import Advance, Chain, Eliminate, Multiply, Plan, Term


class IntractableError(ValueError):
    """No elimination order is exact at a cost below exponential in a plate's size."""


def make_plan(
    terms: Sequence[Term],
    sizes: Mapping[Axis, int],
    plate_sizes: Mapping[Axis, int],
    home: Mapping[Axis, frozenset[Axis]],
    keep: Iterable[Axis] = (),
    chains: Sequence[Chain] = (),
) -> Plan:
    """Plan the elimination of every variable that is not kept.

    Parameters
    ----------
    terms : sequence of Term
        The factors' names; they fill the first slots.
    sizes, plate_sizes : mapping from name to int
        Numbers of values, and of plate elements.
    home : mapping from variable to plates
        The plates in which each variable lives.
    keep : iterable of axes
        Variables that stay.
    chains : sequence of Chain
        Time axes, in an order in which none depends on the end of a later one.

    Returns
    -------
    Plan

    Raises
    ------
    IntractableError
        When the plates make exact elimination exponential.
    ValueError
        When a factor stands outside of the plates of one of its variables.
    """
    for term in terms:
        for variable in term.variables:
            if not home[variable] <= term.plates:
                beyond = [str(plate) for plate in sorted_axes(home[variable] - term.plates)]
                raise ValueError(
                    f"the factor '{term.name}' depends on '{variable}' but stands outside of the "
                    f"plates {beyond}, in which '{variable}' lives."
                )
    planner = _Planner(terms, sizes, plate_sizes, home)
    live = dict(enumerate(terms))
    for number, chain in enumerate(chains):
        inside = {s: t for s, t in live.items() if chain.time in t.plates}
        others = {s: t for s, t in live.items() if s not in inside}
        to_come = {v for c in chains[number:] for v in c.last.values()} - set(chain.first.values())
        waiting = {
            s: t
            for s, t in others.items()
            if to_come.intersection(t.variables) or any(c.time in t.plates for c in chains)
        }
        ready = {s: t for s, t in others.items() if s not in waiting}
        wanted = {v for t in (*inside.values(), *waiting.values()) for v in t.variables}
        wanted |= {*keep, *chain.first.values()}
        ready = planner.reduce(ready, wanted, True)
        remembered = {*chain.first, *chain.later}
        outside = {v for t in inside.values() for v in t.variables if chain.time not in home[v]}
        inside = planner.reduce(inside, remembered | outside, True)
        # What does not depend on anything linked through time has left the time axis there.
        ready |= {s: t for s, t in inside.items() if chain.time not in t.plates}
        potentials = {s: t for s, t in inside.items() if chain.time in t.plates}
        first = set(chain.first.values())
        incoming = {s: t for s, t in ready.items() if first.intersection(t.variables)}
        live = {s: t for s, t in (ready | waiting).items() if s not in incoming}
        if chain.first:
            live |= planner.advance(chain, incoming, potentials)
    results = planner.reduce(live, frozenset(keep), False)
    return Plan(tuple(terms), tuple(planner.steps), tuple(results))


class _Planner:
    """Collects the steps of a plan."""

    def __init__(
        self,
        terms: Sequence[Term],
        sizes: Mapping[Axis, int],
        plate_sizes: Mapping[Axis, int],
        home: Mapping[Axis, frozenset[Axis]],
    ) -> None:
        self.terms = terms
        self.sizes = sizes
        self.plate_sizes = plate_sizes
        self.home = home
        self.steps: list[Eliminate | Multiply | Advance] = []
        self.next_slot = len(terms)
        self.scales = dict.fromkeys(home, ()) | _scales_of(terms)

    def _by_depth(
        self, group: Mapping[int, Term], leaf: frozenset[Axis], keep: frozenset[Axis]
    ) -> list[list[Axis]]:
        """The variables to eliminate from a group, those that stand in the most scales first."""
        local = [
            v
            for v in union(term.variables for term in group.values())
            if _is_local(v, self.home, leaf) and v not in keep
        ]
        depths = sorted({len(self.scales[v]) for v in local}, reverse=True)
        return [[v for v in local if len(self.scales[v]) == depth] for depth in depths]

    def reduce(
        self, live: Mapping[int, Term], keep: Iterable[Axis], out_of_plates: bool
    ) -> dict[int, Term]:
        """Sum out all that is not kept, and return the slots that are left.

        A factor of kept variables alone stays in all its plates, or, if they are to come
        ``out_of_plates``, in those in which one of them lives.
        """
        home, keep = self.home, frozenset(keep)
        live, results = dict(live), dict[int, Term]()
        while live:
            # Ties are broken by name, so that the same model has the same plan every time.
            leaf = max((t.plates for t in live.values()), key=lambda p: (len(p), by_name(p)))
            here = {slot: live.pop(slot) for slot in [s for s in live if live[s].plates == leaf]}
            for group in _groups(here, home, leaf, keep):
                for variables in self._by_depth(group, leaf, keep):
                    for variable in elimination_order(group, variables, self.sizes):
                        self._eliminate(variable, group, leaf)
                for slot, term in group.items():
                    target = frozenset[Axis]().union(*(home[v] for v in term.variables))
                    kept = bool(term.variables) and keep.issuperset(term.variables)
                    if not leaf or (kept and (target >= leaf or not out_of_plates)):
                        results[slot] = term
                        continue
                    if target >= leaf:
                        raise IntractableError(
                            _why_intractable(term, self.terms, home, leaf, self.plate_sizes)
                        )
                    over = sorted_axes(leaf - target)
                    self.steps.append(Multiply(slot, self.next_slot, over))
                    name = f"f{self.next_slot}"
                    live[self.next_slot] = Term(name, term.variables, leaf & target)
                    self.next_slot += 1
        return results

    def _eliminate(self, variable: Axis, group: dict[int, Term], leaf: frozenset[Axis]) -> None:
        """Sum a variable out of a group of factors, which afterwards has the result in their place."""
        inputs = tuple(s for s, t in group.items() if variable in t.variables)
        axes = union(group[s].variables for s in inputs)
        deeper = [v for v in axes if len(self.scales[v]) > len(self.scales[variable])]
        if deeper:
            raise IntractableError(
                f"'{deeper[0]}' stands in a scale and '{variable}' outside of it, and the sum over '{variable}' comes "
                f"first, because of the plates (or because '{deeper[0]}' is kept). A scale raises a sum to a power, so "
                f"'{deeper[0]}' would have to be summed out before. Put '{variable}' into the same handlers.scale, or "
                f"'{deeper[0]}' into the plates of '{variable}'."
            )
        elements = math.prod([self.sizes[v] for v in axes] + [self.plate_sizes[p] for p in leaf])
        self.steps.append(
            Eliminate(
                variable,
                inputs,
                self.next_slot,
                axes,
                sorted_axes(leaf),
                flops=elements * (len(inputs) + 1),
                elements=elements,
            )
        )
        for slot in inputs:
            del group[slot]
        rest = tuple(v for v in axes if v != variable)
        group[self.next_slot] = Term(f"f{self.next_slot}", rest, leaf)
        self.next_slot += 1

    def advance(
        self, chain: Chain, incoming: Mapping[int, Term], potentials: Mapping[int, Term]
    ) -> dict[int, Term]:
        """From messages before the first step of a chain to those after its last."""
        step = plan_advance(
            chain, incoming, potentials, self.sizes, self.plate_sizes, self.home, self.next_slot
        )
        self.steps.append(step)
        self.next_slot += len(step.outputs)
        # Under their names of after the last step they appear in no factor of the model.
        for name, end in chain.last.items():
            self.scales[end] = self.scales[name]
        made: dict[int, Term] = {}
        for message, slot, constant in zip(
            step.messages, step.outputs[:-1:2], step.outputs[1::2], strict=True
        ):
            ends = tuple(chain.last.get(v, v) for v in message.variables)
            made[slot] = Term(f"f{slot}", ends, message.plates)
            made[constant] = Term(f"f{constant}", (), message.plates)
        return made | {step.outputs[-1]: Term("", (), frozenset())}


def plan_advance(
    chain: Chain,
    incoming: Mapping[int, Term],
    potentials: Mapping[int, Term],
    sizes: Mapping[Axis, int],
    plate_sizes: Mapping[Axis, int],
    home: Mapping[Axis, frozenset[Axis]],
    next_slot: int = 0,
) -> Advance:
    """Plan one step of a chain, and what messages go from step to step.

    Their scopes are found by going along until none grows any more: variables that a step couples stay
    together from then on.

    Parameters
    ----------
    chain : Chain
        The time axis.
    incoming : mapping from slot to Term
        The factors of what the first step remembers, by their names outside.
    potentials : mapping from slot to Term
        What is left of each step, with the time axis.
    sizes, plate_sizes, home : mapping
        As for `make_plan`.
    next_slot : int
        Where its outputs go.

    Returns
    -------
    Advance
    """
    time = chain.time
    inside = {outer: name for name, outer in chain.first.items()}
    whole_home, home = home, {v: plates - {time} for v, plates in home.items()}
    begin = [
        Term(t.name, tuple(inside.get(v, v) for v in t.variables), t.plates)
        for t in incoming.values()
    ]
    pieces = [Term(t.name, t.variables, t.plates - {time}) for t in potentials.values()]
    state = {*chain.first, *chain.later}
    outside = {v for t in (*begin, *pieces) for v in t.variables if v not in state}
    alone = [Term("", (v,), home[v]) for v in chain.first]  # each has a message, whatever comes in
    messages = _connected([*begin, *alone], state)
    while True:
        terms = [*messages, *pieces]
        planner = _Planner(terms, sizes, plate_sizes, home)
        left = planner.reduce(dict(enumerate(terms)), {*chain.later, *outside}, True)
        step = Plan(tuple(terms), tuple(planner.steps), tuple(left))
        ends = {
            slot: Term("", tuple(chain.later.get(v, v) for v in t.variables), t.plates)
            for slot, t in left.items()
            if t.variables
        }
        grown = _connected([*messages, *ends.values()], state)
        if {(m.plates, frozenset(m.variables)) for m in grown} == {
            (m.plates, frozenset(m.variables)) for m in messages
        }:
            break
        messages = grown

    names = {v for t in terms for v in (*t.variables, *chain.later.values())}
    made = Advance(
        chain,
        tuple(messages),
        (),
        tuple(potentials),
        step,
        (),
        tuple(slot for slot, t in left.items() if not t.variables),
        tuple(range(next_slot, next_slot + 2 * len(messages) + 1)),
        {v: sizes[v] for v in names},
        {v: whole_home[v] for v in names},
        tuple(
            (*(plate_sizes[p] for p in sorted_axes(m.plates)), *(sizes[v] for v in m.variables))
            for m in messages
        ),
        step.flops * chain.length,
        _elements_at_once(chain, step, messages, sizes),
    )
    slots = tuple(incoming), tuple(ends)
    into = [made.place(list(group)) for group in (begin, ends.values())]
    incoming_of, merged = (
        tuple(tuple(of[i] for i in group) for group in groups)
        for of, groups in zip(slots, into, strict=True)
    )
    return replace(made, incoming=incoming_of, merged=merged)


def _elements_at_once(
    chain: Chain, step: Plan, messages: Sequence[Term], sizes: Mapping[Axis, int]
) -> int:
    """Blocks advance side by side, each from every value that could be remembered at its beginning."""
    if chain.elimination not in ("blocked", "associative"):
        return step.largest
    blocks = chain.length // 2 if chain.elimination == "associative" else math.isqrt(chain.length)
    states = max((math.prod(sizes[v] for v in m.variables) for m in messages), default=1)
    return step.largest * max(blocks, 1) * states


def _connected(terms: Sequence[Term], state: set[Axis]) -> list[Term]:
    """Factors over the same plates that share a variable of the state, taken together."""
    merged: list[Term] = []
    for term in terms:
        apart, together = [], term
        for other in merged:
            if other.plates == together.plates and _share(other, together, state):
                variables = union([other.variables, together.variables])
                together = Term("", variables, other.plates)
            else:
                apart.append(other)
        merged = [*apart, together]
    named = sorted(merged, key=lambda t: (by_name(t.plates), by_name(t.variables)))
    return [Term(f"message {i}", t.variables, t.plates) for i, t in enumerate(named)]


def _share(a: Term, b: Term, state: set[Axis]) -> bool:
    mine, yours = state.intersection(a.variables), state.intersection(b.variables)
    return bool(mine & yours) or not (mine or yours)


def _is_local(variable: Axis, home: Mapping[Axis, frozenset[Axis]], leaf: frozenset[Axis]) -> bool:
    return home[variable] == leaf


def _groups(
    here: dict[int, Term],
    home: Mapping[Axis, frozenset[Axis]],
    leaf: frozenset[Axis],
    keep: frozenset[Axis],
) -> list[dict[int, Term]]:
    """Factors connected through variables that are eliminated here."""
    groups: list[tuple[set[Axis], dict[int, Term]]] = []
    for slot, term in here.items():
        local = {v for v in term.variables if _is_local(v, home, leaf) and v not in keep}
        members = {slot: term}
        apart = []
        for other_local, other in groups:
            if other_local & local:
                local |= other_local
                members = other | members
            else:
                apart.append((other_local, other))
        groups = [*apart, (local, members)]
    return [dict(sorted(members.items())) for _, members in groups]


def _scales_of(terms: Iterable[Term]) -> dict[Axis, tuple[Hashable, ...]]:
    """The scales that all factors of each variable stand in."""
    found: dict[Axis, tuple[Hashable, ...]] = {}
    for term in terms:
        for variable in term.variables:
            common = zip(found.get(variable, term.scales), term.scales, strict=False)
            found[variable] = tuple(
                a for a, _ in itertools.takewhile(lambda p: p[0] == p[1], common)
            )
    return found


def _why_intractable(
    term: Term,
    terms: Sequence[Term],
    home: Mapping[Axis, frozenset[Axis]],
    leaf: frozenset[Axis],
    plate_sizes: Mapping[Axis, int],
) -> str:
    def plates(names: Iterable[Axis]) -> str:
        return "{" + ", ".join(f"'{p}' ({plate_sizes[p]})" for p in sorted_axes(names)) + "}"

    meeting = [t.name for t in terms if t.plates == leaf and set(t.variables) & set(term.variables)]
    where = "; ".join(f"'{v}' lives in the plates {plates(home[v])}" for v in term.variables)
    sites = ", ".join(f"'{name}'" for name in meeting) or f"'{term.name}'"
    return (
        f"the discrete variables cannot be summed out exactly. {where}; they meet in {sites}, in the "
        f"plates {plates(leaf)}. Every element of one then depends on every element of the other, "
        "and the exact sum is exponential in the plates' sizes. It becomes tractable when one of "
        "these variables is moved out of its plate, is given a value (in `params`, or with "
        "handlers.condition), or lives in all of these plates."
    )
