"""Explain a model: run it once, plan, and say what was found and what that took. Nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp

import marginax.marginal.queries as queries
from marginax.graph.record import record_model
from marginax.graph.sites import as_jax_arrays
from marginax.jaxpr.compilations import Compilations
from marginax.marginal.explanation import Explanation, Spent, explanation
from marginax.marginal.prepared import prepare_record

NO_LIMIT = 2**62
"""Bytes. What does not fit into memory can still be explained."""


def explained(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    compilations: Compilations,
) -> Explanation:
    """What is summed out of a model, in which order, at what cost, and what was spent on it.

    Parameters
    ----------
    model : callable
        The model.
    args, kwargs
        Its arguments; arrays or `jax.ShapeDtypeStruct`.
    compilations : Compilations
        Those of the queries that were asked before.
    """
    began, planning = perf_counter(), 0.0
    made: list[Explanation] = []
    leaves, structure = jax.tree.flatten(as_jax_arrays((args, kwargs)))
    abstract = {i: x for i, x in enumerate(leaves) if isinstance(x, jax.ShapeDtypeStruct)}

    def run(arrays: dict[int, Any]) -> None:
        nonlocal planning
        whole = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
        args, kwargs = jax.tree.unflatten(structure, whole)
        record = record_model(model, args, kwargs)
        sites = record.sites
        values = {
            name: jnp.zeros(site.shape, site.dtype)
            for name, site in sites.items()
            if site.is_free and site.support is None
        }
        recorded = perf_counter()
        prepared = prepare_record(record, values, NO_LIMIT)
        planning = perf_counter() - recorded
        made.append(
            explanation(
                prepared.graph,
                prepared.plan,
                sites,
                queries.peak_bytes(prepared),
                queries.blocks_of_plates(prepared),
            )
        )

    jax.eval_shape(run, abstract)
    tracing = perf_counter() - began - planning
    spent = Spent(tracing, planning, compilations.seconds, compilations.programs)
    return replace(made[0], spent=spent)
