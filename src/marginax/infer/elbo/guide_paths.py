"""The paths of a guide whose Python control flow depends on discrete sites.

A site marked ``infer={"enumerate": "sequential"}`` has one concrete value while the guide runs, so
an `if` may ask for it, and what follows may differ: other sites, other shapes. All its values are
visited by running the guide again, which makes a tree::

    run with nothing fixed:  a = 0, b = 0     still to run: {a: 0, b: 1}, {a: 1}
    run with {a: 0, b: 1}:   a = 0, b = 1
    run with {a: 1}:         a = 1, c = 0     (here the guide has a `c` and no `b`)
    ...

A run takes the first value at every site that is not fixed, and leaves the other values of each as
beginnings of runs to come. So every leaf of the tree is run exactly once, and no inner node twice.
A run is abstract (`collect_sites_once`): nothing is computed but shapes, and the values that are chosen.

A site with several elements in plates cannot steer one program by one value. It stays a variable,
and is enumerated in parallel: the expectation is the same.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpyro.distributions import constraints

from marginax.density.distribution_layers import unwrapped
from marginax.density.supports import bounds_of, find_support
from marginax.errors import ModelError
from marginax.graph.sites import Site, collect_sites_once
from marginax.language.stack import Message, Messenger, is_point_mass

LARGEST_TREE = 256
"""Paths of one guide; each is traced on its own."""

_UNBOUNDED = type(constraints.integer_greater_than(0))


@dataclass(frozen=True)
class GuidePath:
    """One run of a guide."""

    chosen: Mapping[str, Any]
    """The value of each sequential site, NumPy's."""
    counts: Mapping[str, int]
    """How many values each of them can have."""
    sites: Mapping[str, Site]
    may_be_drawn: frozenset[str]
    """Discrete sites that ask not to be enumerated, or have infinitely many values."""


class _Walker(Messenger):
    """Gives sequential sites concrete values: those of a prefix, then the first of each."""

    def __init__(self, fn: Callable[..., Any], prefix: Mapping[str, Any]) -> None:
        super().__init__(fn)
        self.prefix = prefix

    def __enter__(self) -> Any:
        self.values: dict[str, list[Any]] = {}
        self.chosen: dict[str, Any] = {}
        self.may_be_drawn: set[str] = set()
        return super().__enter__()

    def process_message(self, msg: Message) -> None:
        if not _is_open(msg):
            return
        name, infer = msg["name"], msg["infer"]
        if ("enumerate" in infer and infer["enumerate"] is None) or (
            "support" not in infer and isinstance(unwrapped(msg["fn"]).support, _UNBOUNDED)
        ):
            self.may_be_drawn.add(name)
        elif infer.get("enumerate") == "sequential" and not msg.get("steps"):
            values = possible_values(msg)
            if values is not None:
                self.values[name] = values
                self.chosen[name] = msg["value"] = self.prefix.get(name, values[0])


def _is_open(msg: Message) -> bool:
    """Whether a message is of a discrete site that nobody has given a value."""
    return (
        msg["type"] == "sample"
        and msg["value"] is None
        and msg["fn"].is_discrete
        and not is_point_mass(msg["fn"])
    )


def possible_values(msg: Message) -> list[Any] | None:
    """The values of a discrete site of one element, NumPy's; None where there is no such list."""
    batch = (*msg["kwargs"].get("sample_shape", ()), *msg["fn"].batch_shape)
    support, _ = find_support(msg, bounds_of(msg))
    if support is None or math.prod(batch) != 1:
        return None
    dtype = jax.dtypes.canonicalize_dtype(support.values.dtype)
    shape = (*batch, *msg["fn"].event_shape)
    return [np.asarray(value, dtype).reshape(shape)[()] for value in support.values]


def guide_paths(guide: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[GuidePath]:
    """Every path of a guide; one where it has no sequential sites.

    Parameters
    ----------
    guide : callable
        With its parameters substituted.
    args, kwargs
        Its arguments.

    Raises
    ------
    ModelError
        When there are too many.
    """
    waiting: deque[dict[str, Any]] = deque([{}])
    visited = 0
    while waiting:
        prefix = waiting.popleft()  # the widest first: a tree that is too large shows early
        walker = _Walker(guide, prefix)
        sites = collect_sites_once(walker, *args, **kwargs)
        chosen = walker.chosen
        names = list(chosen)
        for i, name in enumerate(names):
            if name in prefix:
                continue
            before = {other: chosen[other] for other in names[:i]}
            waiting += [{**before, name: value} for value in walker.values[name][1:]]
        visited += 1
        if visited + len(waiting) > LARGEST_TREE:
            raise ModelError(
                f"the guide has more than {LARGEST_TREE:,} combinations of values of its sequential sites "
                f"({', '.join(repr(n) for n in names)}), each of which is a program of its own. Enumerate in "
                "parallel (infer={'enumerate': 'parallel'}) those that no `if` asks for."
            )
        counts = {name: len(values) for name, values in walker.values.items()}
        yield GuidePath(chosen, counts, sites, frozenset(walker.may_be_drawn))
