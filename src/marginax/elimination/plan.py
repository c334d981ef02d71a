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
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import opt_einsum


class IntractableError(ValueError):
    """No elimination order is exact at a cost below exponential in a plate's size."""


@dataclass(frozen=True)
class Term:
    """The names of a factor's axes."""

    name: str
    variables: tuple[str, ...]
    plates: frozenset[str]


@dataclass(frozen=True)
class Eliminate:
    """Add up some slots and reduce one variable; the result goes to a new slot."""

    variable: str
    inputs: tuple[int, ...]
    output: int
    variables: tuple[str, ...]
    """All variables of the sum before reduction, the eliminated one among them."""
    plates: tuple[str, ...]
    flops: int
    elements: int
    """Elements of the sum before reduction, the largest array of this step."""


@dataclass(frozen=True)
class Multiply:
    """Multiply one slot over some plates; the result goes to a new slot."""

    input: int
    output: int
    over: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Steps of an elimination, in order, over numbered slots that begin as the factors."""

    terms: tuple[Term, ...]
    steps: tuple[Eliminate | Multiply, ...]
    results: tuple[int, ...]
    """Slots that are left in the end: numbers, and factors of kept variables."""

    @property
    def order(self) -> tuple[str, ...]:
        """The variables in the order in which they are eliminated."""
        return tuple(step.variable for step in self.steps if isinstance(step, Eliminate))

    @property
    def flops(self) -> int:
        """Additions and exponentials of all eliminations, roughly."""
        return sum(step.flops for step in self.steps if isinstance(step, Eliminate))

    @property
    def largest(self) -> int:
        """Elements of the largest array that an elimination forms."""
        return max((s.elements for s in self.steps if isinstance(s, Eliminate)), default=1)

    def __str__(self) -> str:
        lines = []
        names = [term.name for term in self.terms]
        for step in self.steps:
            if isinstance(step, Eliminate):
                of = " * ".join(names[i] for i in step.inputs)
                where = f" in {', '.join(step.plates)}" if step.plates else ""
                rest = ", ".join(v for v in step.variables if v != step.variable)
                names.append(f"f{step.output}({rest})")
                lines.append(
                    f"sum out {step.variable}{where}: {of} -> {names[-1]}"
                    f"   [{step.elements:,} elements, {step.flops:,} FLOPs]"
                )
            else:
                names.append(f"f{step.output}")
                lines.append(
                    f"multiply {names[step.input]} over {', '.join(step.over)} -> {names[-1]}"
                )
        return "\n".join(lines) or "nothing to eliminate"


def make_plan(
    terms: Sequence[Term],
    sizes: Mapping[str, int],
    plate_sizes: Mapping[str, int],
    home: Mapping[str, frozenset[str]],
    keep: Iterable[str] = (),
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
    keep : iterable of str
        Variables that stay.

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
    keep = frozenset(keep)
    for term in terms:
        for variable in term.variables:
            if not home[variable] <= term.plates:
                raise ValueError(
                    f"the factor '{term.name}' depends on '{variable}' but stands outside of the "
                    f"plates {sorted(home[variable] - term.plates)}, in which '{variable}' lives."
                )
    live: dict[int, Term] = dict(enumerate(terms))
    steps: list[Eliminate | Multiply] = []
    results: list[int] = []
    next_slot = len(terms)
    while live:
        # Ties are broken by name, so that the same model has the same plan every time.
        leaf = max((t.plates for t in live.values()), key=lambda p: (len(p), sorted(p)))
        here = {slot: live.pop(slot) for slot in [s for s in live if live[s].plates == leaf]}
        for group in _groups(here, home, leaf, keep):
            order = _elimination_order(group, home, leaf, keep, sizes)
            for variable in order:
                inputs = tuple(s for s, t in group.items() if variable in t.variables)
                union = _union(group[s].variables for s in inputs)
                elements = math.prod([sizes[v] for v in union] + [plate_sizes[p] for p in leaf])
                steps.append(
                    Eliminate(
                        variable,
                        inputs,
                        next_slot,
                        union,
                        tuple(sorted(leaf)),
                        flops=elements * (len(inputs) + 1),
                        elements=elements,
                    )
                )
                for slot in inputs:
                    del group[slot]
                rest = tuple(v for v in union if v != variable)
                group[next_slot] = Term(f"f{next_slot}", rest, leaf)
                next_slot += 1
            for slot, term in group.items():
                if not leaf or (term.variables and all(v in keep for v in term.variables)):
                    results.append(slot)
                    continue
                target = frozenset[str]().union(*(home[v] for v in term.variables))
                if target >= leaf:
                    raise IntractableError(_why_intractable(term, terms, home, leaf, plate_sizes))
                over = tuple(sorted(leaf - target))
                steps.append(Multiply(slot, next_slot, over))
                live[next_slot] = Term(f"f{next_slot}", term.variables, leaf & target)
                next_slot += 1
    return Plan(tuple(terms), tuple(steps), tuple(results))


def _is_local(variable: str, home: Mapping[str, frozenset[str]], leaf: frozenset[str]) -> bool:
    return home[variable] == leaf


def _groups(
    here: dict[int, Term],
    home: Mapping[str, frozenset[str]],
    leaf: frozenset[str],
    keep: frozenset[str],
) -> list[dict[int, Term]]:
    """Factors connected through variables that are eliminated here."""
    groups: list[tuple[set[str], dict[int, Term]]] = []
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


def _elimination_order(
    group: Mapping[int, Term],
    home: Mapping[str, frozenset[str]],
    leaf: frozenset[str],
    keep: frozenset[str],
    sizes: Mapping[str, int],
) -> list[str]:
    """The cheaper of two orders: the cheapest variable first, or along opt_einsum's path.

    The first is exact on trees (a chain, a star), the second is a search on small loopy graphs.
    """
    union = _union(term.variables for term in group.values())
    local = [v for v in union if _is_local(v, home, leaf) and v not in keep]
    # What one factor alone depends on leaves that factor first: it only makes things smaller.
    uses = Counter(v for term in group.values() for v in term.variables)
    private = [v for v in local if uses[v] == 1]
    shared = [v for v in local if uses[v] > 1]
    if len(shared) <= 1 or len(group) <= 2:
        return private + shared
    left = [tuple(v for v in term.variables if v not in private) for term in group.values()]
    orders = (_cheapest_first(left, shared, sizes), _along_path(left, shared, sizes))
    return private + min(orders, key=lambda order: _cost(left, order, sizes))


def _cost(factors: Sequence[Sequence[str]], order: Sequence[str], sizes: Mapping[str, int]) -> int:
    left = [set(names) for names in factors]
    cost = 0
    for variable in order:
        touched = [names for names in left if variable in names]
        union = set[str]().union(*touched)
        cost += math.prod(sizes[v] for v in union) * (len(touched) + 1)
        left = [names for names in left if variable not in names]
        left.append(union - {variable})
    return cost


def _cheapest_first(
    factors: Sequence[Sequence[str]], local: Sequence[str], sizes: Mapping[str, int]
) -> list[str]:
    """Eliminate, again and again, the variable whose factors together are smallest."""
    left = {i: set(names) for i, names in enumerate(factors)}

    def joined(variable: str) -> set[str]:
        return set[str]().union(*(left[i] for i in holders[variable]))

    def elements(variable: str) -> int:
        return math.prod(sizes[v] for v in joined(variable))

    holders = {v: {i for i, names in left.items() if v in names} for v in local}
    costs = {v: elements(v) for v in local}
    order = []
    while costs:
        variable = min(costs, key=lambda v: costs[v])
        del costs[variable]
        order.append(variable)
        rest = joined(variable) - {variable}
        gone = holders.pop(variable)
        new = len(factors) + len(order)
        for i in gone:
            del left[i]
        left[new] = rest
        for v in rest & costs.keys():
            holders[v] = (holders[v] - gone) | {new}
        costs |= {v: elements(v) for v in rest & costs.keys()}
    return order


def _along_path(
    factors: Sequence[Sequence[str]], local: Sequence[str], sizes: Mapping[str, int]
) -> list[str]:
    """The order in which opt_einsum's path makes variables disappear."""
    union = _union(factors)
    symbol = {v: opt_einsum.get_symbol(i) for i, v in enumerate(union)}
    operands = ["".join(symbol[v] for v in names) for names in factors]
    output = "".join(symbol[v] for v in union if v not in local)
    shapes = [tuple(sizes[v] for v in names) for names in factors]
    equation = ",".join(operands) + "->" + output
    path, _ = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize="auto")
    held = [set(names) for names in factors]
    order: list[str] = []
    for positions in path:
        merged = set[str]().union(*(held[i] for i in positions))
        for i in sorted(positions, reverse=True):
            del held[i]
        elsewhere = set[str]().union(*held)
        done = [v for v in local if v in merged and v not in elsewhere and v not in order]
        order += done
        held.append(merged - set(done))
    return order


def _union(names: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in names for name in group))


def _why_intractable(
    term: Term,
    terms: Sequence[Term],
    home: Mapping[str, frozenset[str]],
    leaf: frozenset[str],
    plate_sizes: Mapping[str, int],
) -> str:
    def plates(names: Iterable[str]) -> str:
        return "{" + ", ".join(f"'{p}' ({plate_sizes[p]})" for p in sorted(names)) + "}"

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
