"""What of a design decides which program fits it, apart from the numbers that a program is given.

Two designs of the same kind, of the same sizes, are fitted by the same compiled program, whatever their priors' and
columns' numbers are; names of columns do not matter. Families and distributions that this package and NumPyro bring are
known by their class and what they were made with. Of a class of somebody else nobody knows what else its methods read,
and a kind with one is not known (`is_known`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from marginax.jaxpr.compiled import jitted
from marginax.jaxpr.remembered import Remembered
from marginax.mixture.columns import Columns
from marginax.mixture.family import Family, Parameter
from marginax.mixture.model import WEIGHTS, Design, Group
from marginax.mixture.room import with_room

KNOWN = ("marginax.", "numpyro.")
"""Where classes come from whose objects are the same where their types and numbers are."""

_remembered: Remembered[Callable[..., Any]] = Remembered()


@dataclass(frozen=True)
class Kind:
    """A design without its numbers."""

    components: int
    is_chain: bool
    groups: tuple[tuple[str, Family, tuple[int, ...], tuple[int, ...], tuple[str, ...]], ...]
    """Of each its name, family, columns, numbers of categories and parameters."""
    sites: tuple[tuple[str, bool, bool], ...]
    """Of each its name, and whether components share it and its prior is stated."""


def taken_apart(design: Design) -> tuple[Kind, Any]:
    """The kind of a design, and its numbers: a tree of arrays."""
    groups = tuple(
        (g.name, g.family, g.where, g.columns.categories, tuple(g.parameters))
        for g in design.groups
    )
    sites = tuple((s, p.is_shared, p.is_stated) for s, p in design.priors.items())
    priors = {site: parameter.prior for site, parameter in design.priors.items()}
    columns = tuple((group.columns.centre, group.columns.spread) for group in design.groups)
    components, there = design.components, None
    if design.room:
        priors[WEIGHTS] = with_room(design, priors[WEIGHTS])
        components, there = design.room, np.arange(design.room) < design.components
    numbers = priors, columns, there
    kind = Kind(components, design.is_chain, groups, sites)
    return kind, jax.tree.map(_in_double_precision, numbers)


def put_together(kind: Kind, numbers: Any) -> Design:
    """The design of a kind with these numbers, which may be traced."""
    priors, columns, there = numbers
    count = kind.components if there is None else there.sum()
    parameters = {s: Parameter(priors[s], shared, stated) for s, shared, stated in kind.sites}
    groups = []
    for (name, family, where, categories, own), (centre, spread) in zip(
        kind.groups, columns, strict=True
    ):
        known = Columns(("",) * len(where), centre, spread, categories, count)
        of_group = {n: parameters[f"{name}.{n}" if name else n] for n in own}
        groups.append(Group(name, family, where, known, of_group))
    return Design(kind.components, tuple(groups), parameters, kind.is_chain, is_there=there)


def is_known(kind: Kind, structure: Any) -> bool:
    """Whether equal kinds, with numbers of equal structure, are fitted by equal programs."""
    families = (type(family) for _, family, *_ in kind.groups)
    return all(c.__module__.startswith(KNOWN) for c in (*families, *_classes(structure)))


def compiled(
    function: Callable[..., Any], design: Design, options: Mapping[str, Any] = MappingProxyType({})
) -> Callable[..., Any]:
    """A function of a design and arrays as a compiled one of the arrays, which designs of the same kind share.

    Parameters
    ----------
    function : callable
        Defined once, at the top of a module: by itself it is known again.
    design : Design
        Its first argument.
    options : mapping
        XLA's.
    """
    kind, numbers = taken_apart(design)
    if not is_known(kind, jax.tree.structure(numbers)):
        return partial(_compiled(function, kind, options), numbers)
    key = (function, kind, tuple(options.items()))
    found = _remembered.find(key) or _remembered.add(key, _compiled(function, kind, options))
    return partial(found, numbers)


def _compiled(
    function: Callable[..., Any], kind: Kind, options: Mapping[str, Any]
) -> Callable[..., Any]:
    def of_numbers(numbers: Any, *args: Any) -> Any:
        return function(put_together(kind, numbers), *args)

    return jitted(of_numbers, options)


def _classes(structure: Any) -> Iterator[type]:
    """Of all nodes of a tree but those of Python itself."""
    found = structure.node_data()
    if found is not None and found[0].__module__ != "builtins":
        yield found[0]
    for child in structure.children():
        yield from _classes(child)


def _in_double_precision(number: Any) -> np.ndarray:
    array = np.asarray(number)
    return array.astype(np.float64) if array.dtype.kind == "f" else array
