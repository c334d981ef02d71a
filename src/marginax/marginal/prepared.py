"""A model made ready for a query: its sites, factor graph and plan, and the values that are given.

Every query (`queries.py`) is a pure function of a `Prepared`, which holds no enumerated array yet.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.blocks.blocked import in_blocks
from marginax.density.parameters import invalid
from marginax.density.validate import check_value
from marginax.elimination.axes import Axis, Name
from marginax.elimination.factor import Factor
from marginax.elimination.plan import Advance, Eliminate, Plan
from marginax.elimination.planner import make_plan
from marginax.errors import ModelError
from marginax.graph.build import graph_of
from marginax.graph.capture import analysed
from marginax.graph.factors import Evaluated, FactorGraph
from marginax.graph.record import Record
from marginax.graph.sites import Site
from marginax.jaxpr.compiled import hoisted_jit
from marginax.language.primitives import as_numbers
from marginax.marginal.explanation import explanation
from marginax.marginal.plates_in_blocks import rows_on_disk_of, sizes_in_blocks

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Prepared:
    """A model's graph and plan, and the values of what is not summed out."""

    graph: FactorGraph
    plan: Plan
    values: Mapping[str, Any]
    sites: Mapping[str, Site]
    memory_limit: int
    """Bytes that the largest array of an evaluation may take."""
    sizes_in_blocks: Mapping[int, int | None] = field(default_factory=dict)
    """Sizes of plates that may be evaluated in blocks, see `in_blocks`."""

    def evaluate(self) -> Evaluated:
        """Compute every factor.

        Raises
        ------
        ModelError
            When an array on the way is larger than the limit; under a trace, before it exists.
        """
        # In blocks arrays never have this size; `ask` looks at what they have.
        visit = self._nothing if self.sizes_in_blocks else self.refuse_above_limit
        return self.graph.evaluate(self.values, visit)

    def evaluate_for_variables(self) -> Evaluated:
        """Compute every factor that says something of what is summed out.

        The density of a given value that touches no variable is left out, as if it were one: it is the
        same for all that a variable can be, and may be infinite or zero without making them impossible.
        """
        evaluated = self.evaluate()
        factors = [
            replace(factor, array=jnp.zeros_like(factor.array))
            if self._is_bystander(factor)
            else factor
            for factor in evaluated.factors
        ]
        return replace(evaluated, factors=factors)

    def _is_bystander(self, factor: Factor) -> bool:
        site = self.sites.get(self.graph.places[factor.name].density)
        is_latent = site is not None and not site.is_observed and not site.is_auxiliary
        return is_latent and not factor.variables

    def ask(self, query: Callable[[Prepared], Any], values: Mapping[str, Any] | None = None) -> Any:
        """The answer of a query, with large plates evaluated in blocks.

        Parameters
        ----------
        query : callable
            A pure function of a prepared model.
        values : mapping of arrays, optional
            Of what is not summed out, instead of those that the model was prepared with.
        """

        def answer(values: Mapping[str, Any]) -> Any:
            return query(replace(self, values=values))

        blocked = in_blocks(answer, self.sizes_in_blocks, self.refuse_above_limit)
        return blocked(dict(self.values if values is None else values))

    def _nothing(self, size: int) -> None: ...

    def refuse_above_limit(self, size: int) -> None:
        """Refuse an array of so many bytes, if that is too many."""
        if size > self.memory_limit:
            table = explanation(self.graph, self.plan, self.sites, size)
            raise ModelError(
                f"summing out this model needs an array of {size:,} bytes, more than the limit of "
                f"{self.memory_limit:,}.",
                advice=(
                    "Split variables into smaller ones, put independent ones into a plate, or raise "
                    f"memory_limit= of marginalize.\n\n{table}"
                ),
            )

    def is_observation(self, factor: Name) -> bool:
        """Whether a factor is the log density of something observed, or part of it."""
        site = self.sites.get(self.graph.places[factor].density)
        return site is not None and site.is_observed and not site.is_auxiliary

    def planned_bytes(self) -> int:
        """The largest array that the plan names; of plates in blocks, one element."""
        sizes = self.graph.plate_sizes

        def elements(count: int, plates: Iterable[Axis]) -> int:
            return count // math.prod(sizes[p] for p in plates if sizes[p] in self.sizes_in_blocks)

        counts = [self.graph.elements(term.name) for term in self.plan.terms]
        counts = [
            elements(count, self.graph.places[term.name].axes)
            for count, term in zip(counts, self.plan.terms, strict=True)
        ]
        for step in self.plan.steps:
            if isinstance(step, Eliminate):
                counts.append(elements(step.elements, step.plates))
            elif isinstance(step, Advance):
                counts.append(step.elements)
        return max(counts, default=1) * np.dtype(jnp.result_type(float)).itemsize


def _planned(
    graph: FactorGraph,
    sites: Mapping[str, Site],
    values: Mapping[str, Any],
    memory_limit: int | None,
) -> Prepared:
    plan = make_plan(graph.terms(), graph.sizes, graph.plate_sizes, graph.home, chains=graph.chains)
    limit = default_memory_limit() if memory_limit is None else memory_limit
    prepared = Prepared(graph, plan, values, sites, limit, sizes_in_blocks(graph))
    prepared.refuse_above_limit(prepared.planned_bytes())
    return prepared


def prepare_record(
    record: Record, values: Mapping[str, Any], memory_limit: int | None = None
) -> Prepared:
    """Graph and plan of a model of which a run has been recorded, refused if it would not fit into memory.

    Parameters
    ----------
    record : Record
        The run.
    values : mapping of arrays
        Values that fit the sites (`check_params`); free sites without one are summed out.
    memory_limit : int, optional
        In bytes, for the largest array.
    """
    latents = {name: record.sites[name] for name in record.inputs}
    enumerated = frozenset(name for name in latents if name not in values)
    captured = analysed(record.program, record.outputs, latents, enumerated)
    graph = graph_of(captured, record.places, record.scale_constants, latents, enumerated)
    return _planned(graph, record.sites, values, memory_limit)


def default_memory_limit() -> int:
    """Half of the device's memory, in bytes; half of the machine's where the device does not tell."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] // 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def check_params(
    sites: Mapping[str, Site], params: Params
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The entries of ``params`` that give a site its value, and the leading shape of their batch.

    Returns
    -------
    dict of arrays, tuple of int
        The tuple is empty for one set of parameters. A batch of draws has the same leading
        dimensions before every site's own shape.

    Raises
    ------
    ModelError
        For an unknown or observed name, a missing or misshapen value, or one outside its support.
    """
    values: dict[str, Any] = {}
    for name, value in params.items():
        site = sites.get(name)
        if site is None or site.kind == "plate":
            known = ", ".join(repr(n) for n, s in sites.items() if s.is_free or s.kind == "param")
            raise ModelError(
                f"params names '{name}', which the model has no site for; it has {known}."
            )
        if site.kind == "deterministic":
            continue
        if site.is_observed:
            raise ModelError("params gives it a value, but it is observed.", site=name)
        value = as_numbers(name, value)
        if jnp.iscomplexobj(value) and not jnp.issubdtype(site.dtype, jnp.complexfloating):
            raise ModelError("its value in params is complex, but the site is real.", site=name)
        values[name] = value
    for name, site in sites.items():
        if site.given_steps:
            raise ModelError(
                f"a value is given for its first {site.given_steps} steps only. That serves to run the model "
                "beyond them (Predictive); a density needs them all, or fewer steps in the scan.",
                site=name,
            )
        if not site.is_free or name in values or site.support is not None:
            continue
        why = f" ({site.not_enumerated_because})" if site.not_enumerated_because else ""
        raise ModelError(
            f"it is a latent {site.distribution} that is not summed out{why}, so it needs a value of shape "
            f"{site.shape} in params.",
            site=name,
        )
    batch = _batch_shape(sites, values)
    for name, value in values.items():
        check_value(name, sites[name].constraint, value, "its value in params")
    return values, batch


def _batch_shape(sites: Mapping[str, Site], values: Mapping[str, Any]) -> tuple[int, ...]:
    batches: dict[str, tuple[int, ...]] = {}
    for name, value in values.items():
        shape, own = jnp.shape(value), sites[name].shape
        lead = len(shape) - len(own)
        if lead < 0 or shape[lead:] != own:
            raise ModelError(
                f"its value in params has shape {shape}, but the site has shape {own}.",
                site=name,
                advice=(
                    "Give it that shape, or, for a batch of draws, that shape with the batch's dimensions before "
                    "it at every site."
                ),
            )
        batches[name] = tuple(shape[:lead])
    if len(set(batches.values())) > 1:
        first, *others = batches
        other = next(name for name in others if batches[name] != batches[first])
        raise ModelError(
            f"its value in params has leading batch dimensions {batches[other]} (its shape is "
            f"{jnp.shape(values[other])}, the site's own {sites[other].shape}), but those of '{first}' are "
            f"{batches[first]}; a batch of draws has the same ones at every site.",
            site=other,
        )
    return next(iter(batches.values()), ())


def diagnose(prepared: Prepared, evaluated: Evaluated | None = None) -> ModelError:
    """Which site makes the density NaN or impossible, as an error to raise.

    Parameters
    ----------
    prepared : Prepared
        The model.
    evaluated : Evaluated, optional
        The factors to look at; all of the model's as they are when nothing is said.
    """
    if rows_on_disk_of(prepared.graph):
        return _diagnose_in_blocks(prepared)
    fault = invalid(prepared.graph.validity(prepared.values))
    if fault is not None:
        return fault
    for factor in (evaluated or prepared.evaluate()).factors:
        array = np.asarray(factor.array)
        variable_axes = tuple(range(len(factor.plates), array.ndim))
        best = array.max(axis=variable_axes) if variable_axes else array
        bad, what = np.isnan(best), "NaN"
        if not bad.any():
            bad, what = np.isneginf(best), "-inf: an impossible value"
        if bad.any():
            where = f" in {int(bad.sum())} of {bad.size} plate elements, the first at index " + (
                ", ".join(str(i) for i in np.argwhere(bad)[0])
            )
            parents = prepared.graph.parents(factor.name)
            named = [f"'{p}'" for p in parents if p != factor.name]
            own = ["its own value"] if factor.name in prepared.values else []
            given = ", ".join([*own, *named]) or "constants only"
            return ModelError(
                f"its log density is {what}{where if bad.ndim else ''}. It depends on {given}; check those "
                "values and the data.",
                site=str(factor.name),
            )
    return ModelError(
        "the log density is not finite although every site allows some value of its own: no joint assignment "
        "of the discrete variables is possible with these parameters and data.",
        advice="Check the zeros (-inf) in the tables that link them.",
    )


def _diagnose_in_blocks(prepared: Prepared) -> ModelError:
    """The same of rows on disk, which are not looked at as a whole."""

    def counts(prepared: Prepared) -> dict[str, Any]:
        found = {}
        for factor in prepared.evaluate().factors:
            best = jnp.max(factor.array, tuple(range(len(factor.plates), factor.array.ndim)))
            found[factor.name] = jnp.sum(~jnp.isfinite(best))
        return found

    values = dict(prepared.values)
    found = hoisted_jit(lambda values: prepared.ask(counts, values), values)(values)
    for name, count in found.items():
        if count:
            return ModelError(
                f"its log density is NaN or -inf, an impossible value, in {int(count)} elements of its "
                "plates. Some of the data are on disk; look there for NaN and for values that cannot be.",
                site=name,
            )
    return ModelError(
        "the log density is not finite although every site allows some value of its own."
    )
