"""What can be asked of a marginalised model: pure functions of a `Prepared` and a random key.

One elimination serves all. The marginal, the mode and a draw are derivatives of the log total with
respect to *tilts*, zeros added to the variables' own factors (see `elimination.semiring`); a tilt of
two variables gives their joint marginal. The entropy is a forward derivative of the same total, and the
pointwise log-likelihood comes from the outside messages of the same plan (`elimination.outside`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core as jex_core

from marginax.blocks.blocked import blocks_of, in_blocks
from marginax.density.supports import beyond_the_cut
from marginax.elimination.axes import At, Axis, Back
from marginax.elimination.contract import contract
from marginax.elimination.factor import Factor
from marginax.elimination.outside import outside_messages
from marginax.elimination.plan import Plan, term_of
from marginax.elimination.planner import make_plan
from marginax.elimination.semiring import ENTROPY, MAX, SUM, Semiring, sample_semiring
from marginax.errors import ModelError
from marginax.graph.factors import Evaluated, in_batch_shape, several
from marginax.graph.recurrence import Recurrence
from marginax.graph.sites import Site
from marginax.marginal.filtering import as_series, in_order, predictive
from marginax.marginal.prepared import Prepared

Query = Callable[[Prepared, Any], Any]
"""From a prepared model and a random key (or None) to arrays."""


def log_density(prepared: Prepared, key: Any = None) -> Array:
    """The log of the sum over all variables."""
    return log_total(prepared, SUM, prepared.evaluate())


def peak_bytes(prepared: Prepared) -> int:
    """The largest array of an evaluation of the log density, if nothing is fused away; nothing is computed."""
    sizes = [prepared.planned_bytes()]
    if prepared.sizes_in_blocks:
        answer = in_blocks(
            lambda values: log_density(replace(prepared, values=values)),
            prepared.sizes_in_blocks,
            sizes.append,
        )
    else:

        def answer(values: Mapping[str, Any]) -> None:
            prepared.graph.evaluate(values, sizes.append)

    jax.eval_shape(answer, dict(prepared.values))
    return max(sizes)


def blocks_of_plates(prepared: Prepared) -> dict[str, int]:
    """The plates whose log density is evaluated in blocks, and how many elements a block has."""
    found = blocks_of(
        lambda values: log_density(replace(prepared, values=values)),
        prepared.sizes_in_blocks,
        dict(prepared.values),
    )
    sizes = prepared.graph.plate_sizes
    return {str(plate): found[size] for plate, size in sizes.items() if size in found}


def log_total(
    prepared: Prepared,
    semiring: Semiring,
    evaluated: Evaluated,
    tilts: Sequence[Factor] = (),
) -> Array:
    """The log of the sum over all variables, with more factors than the model's."""
    graph = prepared.graph
    return contract(
        _plan(prepared, tilts),
        [*evaluated.factors, *tilts],
        semiring,
        graph.plate_sizes,
        graph.plate_scales,
        evaluated.variable_scales,
    ).log_total


def _plan(prepared: Prepared, extra: Sequence[Factor]) -> Plan:
    if not extra:
        return prepared.plan
    graph = prepared.graph
    terms = [term_of(f) for f in extra]
    return make_plan(
        [*graph.terms(), *terms],
        graph.sizes,
        graph.plate_sizes,
        graph.home,
        chains=graph.chains,
    )


def weights(
    prepared: Prepared, semiring: Semiring, scopes: Sequence[tuple[str, ...]]
) -> tuple[list[Array], Array]:
    """For each group of variables the weights of their joint values; and the log total.

    Parameters
    ----------
    prepared : Prepared
        The model.
    semiring : Semiring
        It decides what the weights are: marginals, or ones at the mode or at a draw.
    scopes : sequence of tuples of str
        The groups.

    Returns
    -------
    list of array, array
        Each has an axis for the steps if the group is stated in a scan, one for each plate,
        leftmost first, then one for each variable.
    """
    evaluated = prepared.evaluate_for_variables()
    if semiring is MAX:
        evaluated = _without_heights(prepared, evaluated)
    dtype = jnp.result_type(float, *[factor.array.dtype for factor in evaluated.factors])
    tilts = [_tilts(prepared, evaluated, scope, dtype) for scope in scopes]

    def total(arrays: list[list[Array]]) -> Array:
        tilted = [
            replace(tilt, array=array)
            for group, of_group in zip(tilts, arrays, strict=True)
            for tilt, array in zip(group, of_group, strict=True)
        ]
        return log_total(prepared, semiring, evaluated, tilted)

    zeros = [[tilt.array for tilt in group] for group in tilts]
    value, gradients = jax.value_and_grad(total)(zeros)
    shares = [
        _series(prepared, scope, [_share(g, len(t.plates)) for g, t in zip(of, group, strict=True)])
        for scope, of, group in zip(scopes, gradients, tilts, strict=True)
    ]
    return shares, value


def _without_heights(prepared: Prepared, evaluated: Evaluated) -> Evaluated:
    """Masked elements at their own mode are worth nothing, so that no other variable is chosen for their sake."""
    factors = []
    for factor in evaluated.factors:
        if factor.name in evaluated.masked:
            own = prepared.graph.places[factor.name].own
            axis = len(factor.plates) + factor.variables.index(own)
            height = jnp.max(factor.array, axis, keepdims=True)
            height = jnp.where(evaluated.masked[factor.name] & jnp.isfinite(height), height, 0)
            factor = replace(factor, array=factor.array - height)
        factors.append(factor)
    return replace(evaluated, factors=factors)


def _share(gradient: Array, n_plates: int) -> Array:
    """A scale multiplies the logarithm and with it the gradient: take it out again."""
    return gradient / jnp.sum(gradient, tuple(range(n_plates, gradient.ndim)), keepdims=True)


def _recurrence_of(prepared: Prepared, scope: tuple[str, ...]) -> Recurrence | None:
    """The scan in which a group of variables is stated."""
    found = {r.time: r for v in scope if (r := prepared.graph.recurrence(v)) is not None}
    if len(found) > 1:
        raise ModelError(
            f"{' and '.join(map(repr, scope))} are stated in different scans; only variables of one scan have "
            "probabilities together, step by step."
        )
    return next(iter(found.values()), None)


def _tilts(
    prepared: Prepared, evaluated: Evaluated, scope: tuple[str, ...], dtype: Any
) -> list[Factor]:
    """Zeros to add to the logarithm for each joint value; in a scan, for each head and for the rest."""
    graph, recurrence = prepared.graph, _recurrence_of(prepared, scope)
    sites = [graph.variables[name] for name in scope]
    frames = {frame.name: frame for site in sites for frame in several(site.plates)}
    plates = tuple(frame.name for frame in sorted(frames.values(), key=lambda frame: frame.dim))
    named: list[tuple[tuple[Axis, ...], tuple[Axis, ...]]] = [(scope, plates)]
    if recurrence is not None:
        inside = recurrence.variables.values()
        named = [
            (tuple(At(v, t) if v in inside else v for v in scope), plates)
            for t in range(recurrence.heads)
        ]
        if recurrence.length:
            now = tuple(Back(v, 0) if v in inside else v for v in scope)
            named.append((now, (recurrence.time, *plates)))
    tilts = []
    for variables, axes in named:
        shape = (*(graph.plate_sizes[p] for p in axes), *(graph.sizes[v] for v in variables))
        # A factor of two variables stands where the one that is further inside stands.
        scales = max((evaluated.variable_scales.get(v, ()) for v in variables), key=len)
        name = f"tilt of {' and '.join(map(str, variables))}"
        tilts.append(Factor(name, axes, variables, jnp.zeros(shape, dtype), scales))
    return tilts


def _series(prepared: Prepared, scope: tuple[str, ...], parts: Sequence[Array]) -> Array:
    """What was found of each head and of the rest, as one array with the steps on its first axis."""
    recurrence = _recurrence_of(prepared, scope)
    return parts[0] if recurrence is None else in_order(recurrence, parts)


def _values(site: Site) -> Any:
    assert site.support is not None
    return site.support


def posterior(prepared: Prepared, key: Any = None) -> tuple[dict[str, Array], Array]:
    """Marginal probabilities of every variable, shape (*batch_shape, K); and the log total."""
    variables = prepared.graph.variables
    shares, total = weights(prepared, SUM, [(name,) for name in variables])
    return {
        name: share.reshape((*_batch_shape(site), share.shape[-1]))
        for (name, site), share in zip(variables.items(), shares, strict=True)
    }, total


def mode(prepared: Prepared, key: Any = None) -> tuple[dict[str, Array], Array]:
    """The joint mode; and the log of its joint density."""
    return _chosen(prepared, MAX)


def draw(prepared: Prepared, key: Any) -> tuple[dict[str, Array], Array]:
    """One joint draw; and the log total."""
    return _chosen(prepared, sample_semiring(key))


def _chosen(prepared: Prepared, semiring: Semiring) -> tuple[dict[str, Array], Array]:
    """The values that one-hot weights point at."""
    variables = prepared.graph.variables
    shares, total = weights(prepared, semiring, [(name,) for name in variables])
    values = {}
    for (name, site), share in zip(variables.items(), shares, strict=True):
        support = jnp.asarray(site.support, site.dtype)
        values[name] = support[jnp.argmax(share, -1)].reshape(site.shape)
    return values | _following(prepared, values), total


def _following(prepared: Prepared, chosen: Mapping[str, Array]) -> dict[str, Array]:
    """The deterministic sites that depend on variables, at the values chosen for these.

    Among them what is partly observed (``obs_mask``): what was seen, and a draw of the rest.
    """
    captured = prepared.graph.captured
    names = [
        str(name)
        for (kind, name), found in captured.dependence.items()
        if kind == "value" and found.keys() & chosen.keys()
    ]
    if not names:
        return {}
    values = {**prepared.values, **chosen}
    inputs = [jnp.asarray(values[n], prepared.graph.latents[n].dtype) for n in captured.inputs]
    outputs = jex_core.jaxpr_as_fun(captured.jaxpr)(*inputs)
    return {n: outputs[captured.outputs.index(("value", n))] for n in names}


@dataclass(frozen=True)
class Pairwise:
    """The query for the joint marginal of two variables."""

    first: str
    second: str

    def __call__(self, prepared: Prepared, key: Any = None) -> tuple[Array, Array]:
        variables = prepared.graph.variables
        for name in (self.first, self.second):
            if name not in variables:
                known = ", ".join(map(repr, variables)) or "none"
                raise ModelError(
                    f"pairwise: '{name}' is no variable that is summed out; those are {known}."
                )
        if self.first == self.second:
            raise ModelError(
                f"pairwise: both names are '{self.first}'; use posterior for one variable."
            )
        (share,), total = weights(prepared, SUM, [(self.first, self.second)])
        # A plate of one element is none in the plan.
        sites = variables[self.first], variables[self.second]
        frames = {frame.name: frame for site in sites for frame in site.plates}
        plates = sorted(frames.values(), key=lambda frame: frame.dim)
        steps = share.shape[: share.ndim - 2 - len(several(tuple(plates)))]
        return share.reshape((*steps, *(f.size for f in plates), *share.shape[-2:])), total


def entropy(prepared: Prepared, key: Any = None) -> tuple[Array, Array]:
    """The entropy of the joint posterior, less what masked elements have of their own; and the log total.

    The entropy of an element given all else is the expectation of minus its log probability: a derivative of the
    total in the direction of its factor.
    """
    evaluated = prepared.evaluate_for_variables()

    def total(arrays: list[Array]) -> Array:
        factors = [
            replace(f, array=array) for f, array in zip(evaluated.factors, arrays, strict=True)
        ]
        return log_total(prepared, ENTROPY, replace(evaluated, factors=factors))

    arrays = [factor.array for factor in evaluated.factors]
    if not arrays:
        return jnp.zeros(()), jnp.zeros(())
    own = [_of_masked(factor, evaluated) for factor in evaluated.factors]
    value, change = jax.jvp(total, (arrays,), (own,))
    return jnp.where(jnp.isfinite(value), change, jnp.nan), value


def _of_masked(factor: Factor, evaluated: Evaluated) -> Array:
    """The log probabilities of masked elements, and zeros."""
    if factor.name not in evaluated.masked:
        return jnp.zeros_like(factor.array)
    possible = factor.array > -jnp.inf
    return jnp.where(evaluated.masked[factor.name] & possible, factor.array, 0)


def pointwise(prepared: Prepared, key: Any = None) -> dict[str, Array]:
    """For every observed site, each element's log-likelihood given all others."""
    graph = prepared.graph
    factors = prepared.evaluate_for_variables().factors
    observed = [
        i
        for i, f in enumerate(factors)
        if f.name in graph.places and prepared.is_observation(f.name)
    ]
    messages = outside_messages(prepared.plan, factors, graph.plate_sizes, observed)
    found: dict[str, Array] = {}
    steps: dict[str, list[Array]] = {}
    for i in observed:
        factor, place = factors[i], graph.places[factors[i].name]
        if place.time is not None:
            steps.setdefault(place.density, []).append(predictive(factor, messages[i]))
        elif factor.variables:
            ndim = len(prepared.sites[place.density].batch_shape)
            value = predictive(factor, messages[i])
            found[place.density] = in_batch_shape(value, place.plates, ndim)
        else:
            found[place.density] = graph.elementwise(place.density, prepared.values)
    for name, parts in steps.items():
        time = next(p.time for p in graph.places.values() if p.density == name)
        recurrence = next(r for r in graph.captured.recurrences if r.time == time)
        found[name] = as_series(prepared, recurrence, name, parts)
    return found


@dataclass(frozen=True)
class Checked:
    """A query, and beside its answer whether the probabilities that the model computes are some."""

    query: Query

    def __call__(self, prepared: Prepared, key: Any = None) -> tuple[Any, Any]:
        return self.query(prepared, key), prepared.graph.validity(prepared.values)


def beyond_cuts(prepared: Prepared, key: Any = None) -> dict[str, Array]:
    """For every variable whose support is cut, the estimated probability beyond the cut; zero where it is masked."""
    variables = {n: s for n, s in prepared.graph.variables.items() if any(s.cut)}
    shares, _ = weights(prepared, SUM, [(name,) for name in variables])
    found = {}
    for (name, site), share in zip(variables.items(), shares, strict=True):
        beyond = beyond_the_cut(_values(site), site.cut, share)
        beyond = jnp.where(_masked(prepared, name), 0, beyond)
        found[name] = beyond.reshape(_batch_shape(site))
    return found


def _masked(prepared: Prepared, name: str) -> Array:
    """Where a variable is masked, whatever others are: over its steps and plates."""
    graph, masked = prepared.graph, prepared.evaluate().masked
    parts = []
    for factor, place in graph.places.items():
        if place.density == name and factor in masked:
            off = masked[factor]
            off = jnp.all(off, tuple(range(len(place.axes), off.ndim)))
            parts.append(jnp.broadcast_to(off, [graph.plate_sizes[p] for p in place.axes]))
    return _series(prepared, (name,), parts) if parts else jnp.zeros((), bool)


def _batch_shape(site: Site) -> tuple[int, ...]:
    return site.shape[: len(site.shape) - site.event_dim]
