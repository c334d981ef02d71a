"""In which order variables of one group are eliminated: the cheaper of a greedy order and of opt_einsum's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import opt_einsum

from marginax.elimination.axes import Axis
from marginax.elimination.plan import Term


def elimination_order(
    group: Mapping[int, Term], local: Sequence[Axis], sizes: Mapping[Axis, int]
) -> list[Axis]:
    """The cheaper of two orders: the cheapest variable first, or along opt_einsum's path.

    The first is exact on trees (a chain, a star), the second is a search on small loopy graphs.
    """
    # What one factor alone depends on leaves that factor first: it only makes things smaller.
    uses = Counter(v for term in group.values() for v in term.variables)
    private = [v for v in local if uses[v] == 1]
    shared = [v for v in local if uses[v] > 1]
    if len(shared) <= 1 or len(group) <= 2:
        return private + shared
    left = [tuple(v for v in term.variables if v not in private) for term in group.values()]
    orders = (_cheapest_first(left, shared, sizes), _along_path(left, shared, sizes))
    return private + min(orders, key=lambda order: _cost(left, order, sizes))


def _cost(
    factors: Sequence[Sequence[Axis]], order: Sequence[Axis], sizes: Mapping[Axis, int]
) -> int:
    left = [set(names) for names in factors]
    cost = 0
    for variable in order:
        touched = [names for names in left if variable in names]
        union = set[Axis]().union(*touched)
        cost += math.prod(sizes[v] for v in union) * (len(touched) + 1)
        left = [names for names in left if variable not in names]
        left.append(union - {variable})
    return cost


def _cheapest_first(
    factors: Sequence[Sequence[Axis]], local: Sequence[Axis], sizes: Mapping[Axis, int]
) -> list[Axis]:
    """Eliminate, again and again, the variable whose factors together are smallest."""
    left = {i: set(names) for i, names in enumerate(factors)}

    def joined(variable: Axis) -> set[Axis]:
        return set[Axis]().union(*(left[i] for i in holders[variable]))

    def elements(variable: Axis) -> int:
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
    factors: Sequence[Sequence[Axis]], local: Sequence[Axis], sizes: Mapping[Axis, int]
) -> list[Axis]:
    """The order in which opt_einsum's path makes variables disappear."""
    every = union(factors)
    symbol = {v: opt_einsum.get_symbol(i) for i, v in enumerate(every)}
    operands = ["".join(symbol[v] for v in names) for names in factors]
    output = "".join(symbol[v] for v in every if v not in local)
    shapes = [tuple(sizes[v] for v in names) for names in factors]
    equation = ",".join(operands) + "->" + output
    path, _ = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize="auto")
    held = [set(names) for names in factors]
    order: list[Axis] = []
    for positions in path:
        merged = set[Axis]().union(*(held[i] for i in positions))
        for i in sorted(positions, reverse=True):
            del held[i]
        elsewhere = set[Axis]().union(*held)
        done = [v for v in local if v in merged and v not in elsewhere and v not in order]
        order += done
        held.append(merged - set(done))
    return order


def union(names: Iterable[Sequence[Axis]]) -> tuple[Axis, ...]:
    """All names of several groups, in the order in which they come."""
    return tuple(dict.fromkeys(name for group in names for name in group))
