"""The compiled answer of a query, and when it may be used again.

A query of a model is run, recorded (`graph/record.py`), analysed and compiled. All but the run follows from
the record: two records that are the same program, with the same sites at the same places, have the same
answers, on whatever arrays. So the compiled answer is remembered under what it was made from. What the
program closes over, data above all, is no part of that: it is an argument of the compiled answer.

JAX itself remembers the compiled code, by the shapes of these arguments and by its own settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core as jex_core

import marginax.marginal.queries as queries
from marginax.blocks.devices import current_mesh
from marginax.graph.record import Record
from marginax.graph.sites import Site
from marginax.jaxpr.compiled import jitted_as_it_pays
from marginax.jaxpr.remembered import Remembered
from marginax.jaxpr.same_program import ProgramKey
from marginax.marginal.prepared import Prepared, prepare_record
from marginax.marginal.queries import Query

SHARE_OF_A_BATCH = 8
"""A batch's largest array may take this share of the limit: there are several of them."""

_remembered: Remembered[Callable[..., Any]] = Remembered()


@dataclass(frozen=True)
class Call:
    """What a query is asked of, beside the numbers."""

    record: Record
    given: tuple[str, ...]
    """The names of the values in params."""
    batch: tuple[int, ...]
    """The leading shape of these values."""
    batch_size: int | None
    """How many draws of a batch are evaluated at once; as many as fit when nothing is said."""
    memory_limit: int

    def prepared(self, values: Mapping[str, Any]) -> Prepared:
        """The model, made ready for a query."""
        return prepare_record(self.record, values, self.memory_limit)


def answer(call: Call, query: Query, key: Any, values: Mapping[str, Any]) -> Any:
    """The answer of a query as a part of whatever is being traced.

    Parameters
    ----------
    call : Call
        The model and what is given.
    query : Query
        What is asked.
    key : PRNG key or None
        For queries that draw.
    values : mapping of arrays
        By site.
    """
    return _answer(call.prepared(values), call, query, key, values)


def compiled_answer(call: Call, query: Query, key: Any, values: Mapping[str, Any]) -> Any:
    """The same of numbers, by a compiled program that is made once."""
    program = call.record.program_key()
    consts = list(call.record.program.consts)
    return _compiled_once(call, query, values, program)(consts, key, dict(values))


def differentiable_answer(call: Call, query: Query, key: Any, values: Mapping[str, Any]) -> Any:
    """The same of numbers that are being differentiated by, outside of `jax.jit`."""
    program = call.record.program_key(with_derivatives=True)
    if program.unproven:  # compiled again each time it would be slower than step by step
        return answer(call, query, key, values)
    consts = list(call.record.program.consts)
    return _compiled_once(call, query, values, program)(consts, key, dict(values))


def are_differentiated_numbers(values: Any) -> bool:
    """Whether all values that are traced are so for the sake of derivatives alone: their numbers are known."""
    try:
        for leaf in jax.tree.leaves(values):
            jex_core.concrete_or_error(None, leaf)
    except jax.errors.ConcretizationTypeError:
        return False
    return True


def _compiled_once(
    call: Call, query: Query, values: Mapping[str, Any], program: ProgramKey
) -> Callable[..., Any]:
    record = call.record
    if program.unproven:
        return _compiled(call.prepared(values), call, query)
    key = (
        program,
        record.inputs,
        record.outputs,
        tuple(record.places.items()),
        tuple(record.scale_constants.items()),
        tuple(map(_told_apart_by, record.sites.values())),
        query,
        call.given,
        call.batch,
        call.batch_size,
        call.memory_limit,
        current_mesh(),
    )
    found = _remembered.find(key)
    if found is not None:
        record.refuse_beyond_tables()  # the numbers that the model closes over may be others now
        return found
    return _remembered.add(key, _compiled(call.prepared(values), call, query))


def _compiled(prepared: Prepared, call: Call, query: Query) -> Callable[..., Any]:
    bare = _without_numbers(prepared)
    without = replace(call, record=replace(call.record, program=bare.graph.captured.jaxpr))

    def run(consts: list[Any], key: Any, values: dict[str, Array]) -> Any:
        captured = bare.graph.captured
        program = jex_core.ClosedJaxpr(captured.jaxpr.jaxpr, consts)
        graph = replace(bare.graph, captured=replace(captured, jaxpr=program))
        return _answer(replace(bare, graph=graph), without, query, key, values)

    return jitted_as_it_pays(run)


def _without_numbers(prepared: Prepared) -> Prepared:
    """What is remembered must not keep a user's data alive."""
    captured = prepared.graph.captured
    shapes = [
        jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in captured.jaxpr.jaxpr.constvars
    ]
    program = jex_core.ClosedJaxpr(captured.jaxpr.jaxpr, shapes)
    graph = replace(prepared.graph, captured=replace(captured, jaxpr=program))
    return replace(prepared, graph=graph, values={})


def _told_apart_by(site: Site) -> Hashable:
    """What of a site has a part in an answer."""
    support = site.support
    values = None if support is None else (support.shape, support.dtype.str, support.tobytes())
    return (
        site.name,
        site.kind,
        site.shape,
        np.dtype(site.dtype).str if site.dtype is not None else "",
        site.plates,
        site.series,
        site.batch_shape,
        site.event_dim,
        site.is_observed,
        site.is_free,
        site.is_point_mass,
        site.is_auxiliary,
        site.is_discrete,
        site.is_masked,
        site.distribution,
        values,
        site.cut,
    )


def _answer(
    prepared: Prepared, call: Call, query: Query, key: Any, values: Mapping[str, Any]
) -> Any:
    """The answer of a query, for each draw of a batch."""

    def one(key: Any, values: Mapping[str, Any]) -> Any:
        return prepared.ask(lambda prepared: query(prepared, key), values)

    if not call.batch:
        return one(key, values)
    count = math.prod(call.batch)
    flat = {n: v.reshape((count, *v.shape[len(call.batch) :])) for n, v in values.items()}
    keys = None if key is None else jax.random.split(key, count)
    size = _as_many_as_fit(prepared, flat) if call.batch_size is None else call.batch_size
    if count <= size:
        results = jax.vmap(one)(keys, flat)
    else:
        results = jax.lax.map(lambda draw: one(*draw), (keys, flat), batch_size=size)
    return jax.tree.map(lambda leaf: leaf.reshape((*call.batch, *leaf.shape[1:])), results)


def _as_many_as_fit(prepared: Prepared, flat: Mapping[str, Array]) -> int:
    """How many draws may be evaluated at once."""
    example = {name: jnp.zeros(value.shape[1:], value.dtype) for name, value in flat.items()}
    peak = max(queries.peak_bytes(replace(prepared, values=example)), 1)
    return max(prepared.memory_limit // (SHARE_OF_A_BATCH * peak), 1)
