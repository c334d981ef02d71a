"""Refuse an index beyond a table: JAX takes the last row instead, without a word.

What a variable may be is known while tracing, and so are data. One pass over the equations follows
whole numbers as far as they are made of those: elementwise, by rearranging, through functions called
inside, carried from step to step (`_carried`). Where such a number chooses from a table, it must be
one of its rows. NumPy's meaning of negative numbers (-1 is the last row) is JAX's too, and stays.

A number beyond the table that nobody uses is no mistake: ``where(z < 2, table[z], 0.0)``. So an index
beyond is remembered with the values of the variables that make it, `where` forgets those for which it
takes the other case, and only what arrives at a site's density is refused. What depends on continuous
values or on traced data cannot be looked at. What gathers with ``mode="clip"`` or ``"fill"`` is left alone; of one
scalar index ``table.at[z].get(mode="clip")`` is to JAX the same as ``table[z]``, and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core as jex_core
from jax.lax import GatherScatterMode

from marginax.errors import ModelError
from marginax.jaxpr.axis_flow import shape_of
from marginax.jaxpr.dependence import scan_parts
from marginax.jaxpr.equations import CALLS, called_jaxpr
from marginax.jaxpr.indexing import fold_elementwise

ROUNDS = 8
"""Steps in which a carried number must have had all its values; of others (a counter) nothing is known."""
MOST_VALUES = 256
"""That it may have."""
MOST_NUMBERS = 10**7
"""In an array that is computed here; more only where the data are more."""


@dataclass(frozen=True)
class Beyond:
    """An index beyond a table, for some values of variables."""

    index: int
    size: int
    variables: tuple[str, ...]
    bad: Any
    """For which of their values, an axis for each."""

    def error(self, site: str) -> ModelError:
        """What to raise at a site."""
        by = ", ".join(f"'{v}'" for v in self.variables if not v.startswith(" ")) or "data"
        return ModelError(
            f"an index that is computed from {by} is {self.index}, but the table that it chooses from has "
            f"{self.size} rows (0 to {self.size - 1}). JAX would take another row instead.",
            site=site,
            advice=(
                "Give the table a row for every value, or say what is meant: "
                f"table[jnp.minimum(index, {self.size - 1})], or jnp.take(table, index, mode='clip')."
            ),
        )


@dataclass(frozen=True)
class Known:
    """What is known of an array."""

    array: np.ndarray | None = None
    """Its numbers: own axes (of size one where it repeats itself), then one for each of the variables."""
    variables: tuple[str, ...] = ()
    beyond: tuple[Beyond, ...] = ()


NOTHING = Known()


def of_support(support: np.ndarray, ndim_batch: int, name: str) -> Known:
    """A variable's values, shape (K, *event_shape)."""
    array = support.transpose((*range(1, support.ndim), 0))
    return Known(array.reshape((1,) * ndim_batch + array.shape), (name,))


def refuse_beyond(
    jaxpr: jex_core.ClosedJaxpr, inputs: Sequence[Known], sites: Sequence[str | None]
) -> None:
    """Raise where a table is too short.

    Parameters
    ----------
    jaxpr : ClosedJaxpr
        The traced model.
    inputs : sequence of Known
        What is known of its inputs.
    sites : sequence of str or None
        For each output the site that it belongs to; None for those that do not matter.
    """
    for found, site in zip(_through(jaxpr.jaxpr, jaxpr.consts, inputs), sites, strict=True):
        if found.beyond and site is not None:
            raise found.beyond[0].error(site)


def _of_const(value: Any) -> Known:
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if isinstance(value, Tracer) or kind not in ("i", "u", "b"):
        return NOTHING
    if not getattr(value, "is_fully_addressable", True):
        return NOTHING
    return Known(np.asarray(value))


def _through(jaxpr: jex_core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Known]) -> list[Known]:
    """What is known of the outputs of a jaxpr."""
    known: dict[jex_core.Var, Known] = dict(zip(jaxpr.invars, inputs, strict=True))
    known.update(zip(jaxpr.constvars, map(_of_const, consts), strict=True))
    chosen = [e.invars[0] for e in jaxpr.eqns if e.primitive.name == "cond"]
    chooses = {atom for atom in chosen if not isinstance(atom, jex_core.Literal)}

    def read(atom: Any) -> Known:
        if isinstance(atom, jex_core.Literal):
            return _of_const(np.asarray(atom.val))
        return known.get(atom, NOTHING)

    for eqn in jaxpr.eqns:
        arguments = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if not any(a.array is not None or a.beyond for a in arguments) and not (
            name == "scan" or name in CALLS
        ):
            continue
        if name == "clamp" and eqn.outvars[0] in chooses:
            outputs = _of_switch(arguments)
        else:
            outputs = _of_equation(eqn, name, arguments)
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _of_equation(eqn: jex_core.JaxprEqn, name: str, arguments: list[Known]) -> list[Known]:
    if name in CALLS:
        inner = next(eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in eqn.params)
        return _through(called_jaxpr(eqn), getattr(inner, "consts", ()), arguments)
    if name == "scan":
        return _of_scan(eqn, arguments)
    if name == "cond":
        return _of_cond(eqn, arguments)
    beyond = _joined(arguments)
    if name == "select_n":
        beyond = _of_select(arguments)
    elif name in ("gather", "dynamic_slice"):
        beyond += _chosen(eqn, name, arguments)
    outputs = [replace(NOTHING, beyond=beyond) for _ in eqn.outvars]
    if outputs and all(a.array is not None for a in arguments):  # what prints has none
        array, variables = _computed(eqn, name, arguments)
        outputs[0] = Known(array, variables, beyond)
    return outputs


def _computed(
    eqn: jex_core.JaxprEqn, name: str, arguments: list[Known]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    shapes = [shape_of(atom) for atom in eqn.invars]
    if name in ("gather", "dynamic_slice"):
        return _looked_up(eqn, arguments, shapes)
    if len(arguments) == 1 and name in ("broadcast_in_dim", "reshape", "squeeze"):
        return _rearranged(eqn.params, name, arguments[0], shapes[0]), arguments[0].variables
    variables = tuple(dict.fromkeys(v for a in arguments for v in a.variables))
    rank = len(shape_of(eqn.outvars[0]))
    which = arguments[0].array
    if name == "select_n" and which is not None and which.max(initial=0) >= len(arguments) - 1:
        return None, ()
    arrays = [_over(a, len(s), rank, variables) for a, s in zip(arguments, shapes, strict=True)]
    if name == "concatenate":
        at = eqn.params["dimension"]
        if any(a.shape[at] != s[at] for a, s in zip(arrays, shapes, strict=True)):
            return None, ()
        common = np.broadcast_shapes(*((*a.shape[:at], 1, *a.shape[at + 1 :]) for a in arrays))
        full = [np.broadcast_to(a, (*common[:at], a.shape[at], *common[at + 1 :])) for a in arrays]
        return np.concatenate(full, at), variables
    wanted = shape_of(eqn.outvars[0])
    for array in arrays:
        own = array.shape[: array.ndim - len(variables)]
        if len(own) != rank or any(n not in (1, w) for n, w in zip(own, wanted, strict=True)):
            return None, ()  # not elementwise
    largest = max(MOST_NUMBERS, *(a.size for a in arrays))
    if math.prod(np.broadcast_shapes(*(a.shape for a in arrays))) > largest:
        return None, ()
    return fold_elementwise(name, eqn.params, arrays, largest), variables


def _looked_up(
    eqn: jex_core.JaxprEqn, arguments: list[Known], shapes: Sequence[Sequence[int]]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """What is chosen from a table of whole numbers, ``group[z]`` say, for all values of the variables."""
    table, *places = arguments
    assert table.array is not None
    if table.variables:
        return None, ()
    variables = tuple(dict.fromkeys(v for a in places for v in a.variables))
    arrays = [_over(a, len(s), len(s), variables) for a, s in zip(places, shapes[1:], strict=True)]
    sizes = np.broadcast_shapes(*(a.shape[a.ndim - len(variables) :] for a in arrays))
    out_shape = shape_of(eqn.outvars[0])
    if math.prod((*sizes, *out_shape)) > max(MOST_NUMBERS, table.array.size):
        return None, ()

    def one_after_the_other(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        own = len(shape)
        whole = np.broadcast_to(array, (*shape, *sizes))
        return np.moveaxis(whole, range(own), range(-own, 0)).reshape((-1, *shape))

    rows = [one_after_the_other(a, s) for a, s in zip(arrays, shapes[1:], strict=True)]
    with jax.ensure_compile_time_eval():
        operand = jnp.asarray(np.broadcast_to(table.array, shapes[0]))
        chosen = jax.vmap(lambda *at: eqn.primitive.bind(operand, *at, **eqn.params))(*rows)
    found = np.asarray(chosen).reshape((*sizes, *out_shape))
    return np.moveaxis(found, range(len(sizes)), range(-len(sizes), 0)), variables


def _rearranged(
    params: Mapping[str, Any], name: str, known: Known, shape: Sequence[int]
) -> np.ndarray | None:
    """What repeats itself along an axis is left as it is."""
    assert known.array is not None
    own, sizes = known.array.shape[: len(shape)], known.array.shape[len(shape) :]
    if name == "squeeze":
        gone = {axis % len(shape) for axis in params["dimensions"]}
        kept = [size for axis, size in enumerate(own) if axis not in gone]
    elif name == "broadcast_in_dim":
        kept = [1] * len(params["shape"])
        for axis, to in enumerate(params["broadcast_dimensions"]):
            kept[to] = own[axis]
    elif all(size == 1 for size in own):
        kept = [1] * len(params["new_sizes"])
    elif own == tuple(shape):
        kept = list(params["new_sizes"])
    else:
        return None
    return known.array.reshape((*kept, *sizes))


def _over(known: Known, own: int, rank: int, variables: tuple[str, ...]) -> np.ndarray:
    """The array with an axis for each of the variables, and as many own axes as the result has."""
    assert known.array is not None
    shape = known.array.shape
    sizes = dict(zip(known.variables, shape[own:], strict=True))
    order = [known.variables.index(v) + own for v in variables if v in sizes]
    array = known.array.transpose((*range(own), *order))
    lead = array.shape[:own] or (1,) * rank
    return array.reshape((*lead, *(sizes.get(v, 1) for v in variables)))


def _joined(arguments: Sequence[Known]) -> tuple[Beyond, ...]:
    return tuple({id(b): b for a in arguments for b in a.beyond}.values())


def _chosen(eqn: jex_core.JaxprEqn, name: str, arguments: list[Known]) -> tuple[Beyond, ...]:
    """What is beyond an operand of which slices are taken."""
    shape = shape_of(eqn.invars[0])
    if name == "dynamic_slice":
        sizes, places = eqn.params["slice_sizes"], list(enumerate(arguments[1:]))
    else:
        if eqn.params["mode"] not in (GatherScatterMode.PROMISE_IN_BOUNDS, None):
            return ()
        sizes, index = eqn.params["slice_sizes"], arguments[1]
        if index.array is None:
            return ()
        own = len(shape_of(eqn.invars[1]))
        last = own - 1
        axes = eqn.params["dimension_numbers"].start_index_map
        places = [
            (
                axis,
                replace(
                    index, array=np.take(index.array, [c % index.array.shape[last]], axis=last)
                ),
            )
            for c, axis in enumerate(axes)
        ]
    found: list[Beyond] = []
    for axis, index in places:
        if index.array is None or not index.array.size:
            continue
        n = len(index.variables)
        outside = (index.array < 0) | (index.array > shape[axis] - sizes[axis])
        if outside.any():
            bad = outside.any(tuple(range(outside.ndim - n)))
            wrong = index.array[outside]
            number = int(wrong.max() if wrong.max() > 0 else wrong.min() - shape[axis])
            found.append(Beyond(number, shape[axis], index.variables, bad))
    return tuple(found)


def _of_switch(arguments: list[Known]) -> list[Known]:
    """The index of `lax.switch`, which clamps it."""
    low, index, high = arguments
    if low.array is None or index.array is None or high.array is None:
        return [replace(NOTHING, beyond=_joined(arguments))]
    outside = (index.array < low.array) | (index.array > high.array)
    beyond = _joined(arguments)
    if outside.any():
        number, size = int(index.array[outside].max()), int(high.array.max()) + 1
        beyond += (Beyond(number, size, index.variables, outside),)
    return [Known(np.clip(index.array, low.array, high.array), index.variables, beyond)]


def _of_select(arguments: list[Known]) -> tuple[Beyond, ...]:
    which, *cases = arguments
    found = list(which.beyond)
    if which.array is None:
        return tuple(found) + _joined(cases)
    n = len(which.variables)
    number = which.array.astype(int)
    if number.size and number.max() >= len(cases):
        bad = (number >= len(cases)).any(tuple(range(number.ndim - n)))
        found.append(Beyond(int(number.max()), len(cases), which.variables, bad))
    for i, case in enumerate(cases):
        taken = (number == i).any(tuple(range(number.ndim - n)))
        found += [b for b in (_where(b, taken, which.variables) for b in case.beyond) if b]
    return tuple(found)


def _where(beyond: Beyond, taken: Any, variables: tuple[str, ...]) -> Beyond | None:
    """An index beyond, for those values of variables that are not passed over."""
    names = tuple(dict.fromkeys((*beyond.variables, *variables)))
    bad = _over(Known(np.asarray(beyond.bad), beyond.variables), 0, 0, names)
    bad = bad & _over(Known(np.asarray(taken), variables), 0, 0, names)
    return replace(beyond, variables=names, bad=bad) if bad.any() else None


def _of_cond(eqn: jex_core.JaxprEqn, arguments: list[Known]) -> list[Known]:
    which, *operands = arguments
    outputs = []
    for i, branch in enumerate(eqn.params["branches"]):
        found = _through(branch.jaxpr, branch.consts, operands)
        if which.array is not None:
            taken = which.array.astype(int) == i
            found = [
                replace(
                    f,
                    beyond=tuple(
                        filter(None, (_where(b, taken, which.variables) for b in f.beyond))
                    ),
                )
                for f in found
            ]
        outputs.append(found)
    return [
        replace(NOTHING, beyond=which.beyond + _joined(same)) for same in zip(*outputs, strict=True)
    ]


def _of_scan(eqn: jex_core.JaxprEqn, arguments: list[Known]) -> list[Known]:
    """Every step at once; of what is carried all values that it ever has."""
    body, inner = called_jaxpr(eqn), eqn.params["jaxpr"]
    n_consts, n_carry = scan_parts(eqn)
    constants = list(arguments[:n_consts])
    carry = arguments[n_consts : n_consts + n_carry]
    step = f" step of {id(eqn)}"
    scanned = [_sliced(a, step) for a in arguments[n_consts + n_carry :]]
    ranks = [len(shape_of(v)) for v in body.invars[n_consts : n_consts + n_carry]]
    values = [_values(c) for c in carry]
    rounds = 0
    while True:
        given = [
            _carried(v, rank, i) for i, (v, rank) in enumerate(zip(values, ranks, strict=True))
        ]
        found = _through(body, getattr(inner, "consts", ()), [*constants, *given, *scanned])
        after = [_union(v, _values(f)) for v, f in zip(values, found[:n_carry], strict=True)]
        if all(a is b for a, b in zip(after, values, strict=True)):
            beyond = _joined([*carry, *found])
            return [
                replace(NOTHING, beyond=beyond if f.beyond or c.beyond else ())
                for f, c in _pairs(found, carry)
            ]
        rounds += 1
        grows = [a is not b for a, b in zip(after, values, strict=True)]
        over = rounds >= ROUNDS
        values = [None if over and g else a for a, g in zip(after, grows, strict=True)]


def _pairs(found: list[Known], carry: Sequence[Known]) -> list[tuple[Known, Known]]:
    return list(zip(found, [*carry, *[NOTHING] * (len(found) - len(carry))], strict=True))


def _sliced(known: Known, step: str) -> Known:
    """What one step sees of a series: its steps are an axis as those of variables are."""
    if known.array is None:
        return known
    if known.array.shape[0] == 1:
        return replace(known, array=known.array[0])
    array = np.moveaxis(known.array, 0, -1)
    return replace(known, array=array, variables=(*known.variables, step))


def _values(known: Known) -> np.ndarray | None:
    if known.array is None or known.array.size > MOST_NUMBERS:
        return None
    found = np.unique(known.array)
    return found if len(found) <= MOST_VALUES else None


def _union(old: np.ndarray | None, new: np.ndarray | None) -> np.ndarray | None:
    """The old one itself where nothing is added."""
    if old is None or new is None:
        return None
    both = np.union1d(old, new)
    if len(both) == len(old):
        return old
    return both if len(both) <= MOST_VALUES else None


def _carried(values: np.ndarray | None, rank: int, position: int) -> Known:
    if values is None:
        return NOTHING
    return Known(values.reshape((1,) * rank + (-1,)), (f" carried {position}",))
