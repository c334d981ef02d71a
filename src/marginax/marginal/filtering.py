"""What is known step by step: queries that look at a series from its beginning.

Posterior probabilities (`queries.posterior`) know the whole series. Here each step knows only what
came before it, and perhaps itself: *filtered* probabilities, and the density of each observation
given those before it.

Both are small problems, one for each step, in which the messages from the past
(`chain.messages_along`) are factors like any other and time is a plate: all steps are answered at
once. The heads of a scan (`recurrence`) have no messages yet; each is a problem of its own,
together with the heads before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

from marginax.elimination.axes import At, Axis, Back, sorted_axes
from marginax.elimination.chain import messages_along
from marginax.elimination.contract import contract
from marginax.elimination.execute import Setting, execute
from marginax.elimination.factor import Factor
from marginax.elimination.outside import outside_messages
from marginax.elimination.plan import Advance, Plan, term_of
from marginax.elimination.planner import make_plan
from marginax.elimination.semiring import SUM
from marginax.graph.factors import Evaluated, in_batch_shape
from marginax.graph.recurrence import Recurrence
from marginax.marginal.prepared import Prepared


@dataclass(frozen=True)
class StepProblem:
    """A step of a scan and its past; or all steps that are alike, each with its past."""

    past: list[Factor]
    """Messages; or, of a head, everything before it."""
    own: list[Factor]
    """The factors of the step, in the order of the program."""
    variables: Mapping[str, Axis]
    """The scan's variables, each as the axis that it is in this step."""
    home: Mapping[Axis, frozenset[Axis]]
    sizes: Mapping[Axis, int]
    axes: tuple[Axis, ...]
    """The time axis, of those that are alike."""


def filtered(prepared: Prepared, key: object = None) -> tuple[dict[str, Array], Array]:
    """Probabilities of the variables of every scan, given this step and those before; and a log total."""
    evaluated = prepared.evaluate_for_variables()
    found, total = {}, jnp.zeros(())
    for recurrence in prepared.graph.captured.recurrences:
        problems = step_problems(prepared, evaluated, recurrence)
        parts = [_marginals(prepared, evaluated, problem) for problem in problems]
        total = total + sum(value for _, value in parts)
        for variable in recurrence.variables.values():
            site = prepared.graph.variables[variable]
            series = in_order(recurrence, [shares[variable] for shares, _ in parts])
            shape = site.shape[: len(site.shape) - site.event_dim]
            found[variable] = series.reshape((*shape, series.shape[-1]))
    return found, total


def one_step_ahead(prepared: Prepared, key: object = None) -> dict[str, Array]:
    """For every observed site of a scan each element's density given the past.

    That is all steps before, the sites stated before it in its own step, and its step's other elements.
    """
    graph, found = prepared.graph, {}
    evaluated = prepared.evaluate_for_variables()
    for recurrence in graph.captured.recurrences:
        values: dict[str, list[Array]] = {}
        for problem in step_problems(prepared, evaluated, recurrence):
            for i, factor in enumerate(problem.own):
                if not prepared.is_observation(factor.name):
                    continue
                known = [
                    other
                    for j, other in enumerate(problem.own)
                    if j < i or not prepared.is_observation(other.name)
                ]
                factors = [*problem.past, *known, factor]
                plan = _plan(problem, factors, graph.plate_sizes)
                last = len(factors) - 1
                message = outside_messages(plan, factors, graph.plate_sizes, [last])[last]
                place = graph.places[factor.name]
                values.setdefault(place.density, []).append(predictive(factor, message))
        found |= {n: as_series(prepared, recurrence, n, parts) for n, parts in values.items()}
    for factor in evaluated.factors:
        if factor.variables or not prepared.is_observation(factor.name):
            continue
        place = graph.places[factor.name]
        if place.time is None and prepared.sites[place.density].series:
            found[place.density] = graph.elementwise(place.density, prepared.values)
    return found


def as_series(
    prepared: Prepared, recurrence: Recurrence, site: str, parts: Sequence[Array]
) -> Array:
    """What was found of a site at each head and in the steps that are alike, over plates, as its batch has it."""
    ndim = len(prepared.sites[site].batch_shape) - 1
    places = [p for p in prepared.graph.places.values() if p.density == site]
    laid_out = []
    for place, part in zip(places, parts, strict=True):
        if place.head is not None:
            part = part[None]
        elif part.shape[0] == 1:  # the same at all steps
            part = jnp.broadcast_to(part, (recurrence.length, *part.shape[1:]))
        laid_out.append(in_batch_shape(part, place.plates, ndim, (part.shape[0],)))
    series = jnp.concatenate(laid_out)
    return series[::-1] if recurrence.series.reverse else series


def predictive(factor: Factor, message: Factor) -> Array:
    """The density of a factor's value given all that is in the message, over its plates."""
    axes = tuple(range(len(factor.plates), len(factor.plates) + len(factor.variables)))
    return logsumexp(message.array + factor.array, axes) - logsumexp(message.array, axes)


def in_order(recurrence: Recurrence, parts: Sequence[Array]) -> Array:
    """What was found of each head, and of the steps that are alike, as one series."""
    heads = [part[None] for part in parts[: recurrence.heads]]
    series = jnp.concatenate([*heads, *parts[recurrence.heads :]])
    return series[::-1] if recurrence.series.reverse else series


def step_problems(
    prepared: Prepared, evaluated: Evaluated, recurrence: Recurrence
) -> list[StepProblem]:
    """The problems of a scan: one for each head, then one for all other steps.

    Parameters
    ----------
    prepared : Prepared
        The model.
    evaluated : Evaluated
        Its numbers.
    recurrence : Recurrence
        The scan.
    """
    graph = prepared.graph
    scans = [r.time for r in graph.captured.recurrences]
    position = scans.index(recurrence.time)
    to_come = {
        name
        for r in graph.captured.recurrences[position:]
        for v in r.variables.values()
        for name in (*r.single(v), *r.alike(v))
    }
    heads: list[list[Factor]] = [[] for _ in range(recurrence.heads)]
    alike, outside = [], []
    for factor in evaluated.factors:
        place = graph.places[factor.name]
        if place.time == recurrence.time:
            (alike if place.head is None else heads[place.head]).append(factor)
        elif not to_come.intersection(factor.variables) and place.time not in scans[position:]:
            outside.append(factor)
    needed = {v for f in (*alike, *(f for h in heads for f in h)) for v in f.variables} - to_come
    earlier = [c for c in graph.chains if c.time in scans[:position]]
    plan = make_plan(
        [term_of(f) for f in outside], graph.sizes, graph.plate_sizes, graph.home, needed, earlier
    )
    setting = Setting(graph.plate_sizes, graph.plate_scales, evaluated.variable_scales)
    known = contract(
        plan, outside, SUM, setting.plate_sizes, setting.plate_scales, setting.variable_scales
    ).kept
    problems = []
    past = list(known)
    for t, own in enumerate(heads):
        names = {v: At(v, t) for v in recurrence.variables.values()}
        problems.append(StepProblem(list(past), own, names, graph.home, graph.sizes, ()))
        past += own
    if recurrence.length:
        problems.append(_of_steps_alike(prepared, recurrence, past, alike, setting))
    return problems


def _of_steps_alike(
    prepared: Prepared,
    recurrence: Recurrence,
    past: Sequence[Factor],
    alike: Sequence[Factor],
    setting: Setting,
) -> StepProblem:
    """Time as a plate, and messages in it.

    What earlier steps say of variables outside of the scan must reach later ones, so these
    variables too are handed on from step to step, as variables that stay what they are.
    """
    graph, time = prepared.graph, recurrence.time
    own = {n for v in recurrence.variables.values() for n in recurrence.alike(v)}
    shared = [v for v in dict.fromkeys(v for f in alike for v in f.variables) if v not in own]
    chain = next(c for c in graph.chains if c.time == time)
    chain = replace(
        chain,
        later={**chain.later, **{Back(v, 0): Back(v, 1) for v in shared}},
        first={**chain.first, **{Back(v, 1): v for v in shared}},
        last={**chain.last, **{Back(v, 1): At(v, recurrence.series.length) for v in shared}},
    )
    home, sizes = dict(graph.home), dict(graph.sizes)
    scales = dict(setting.variable_scales)
    stays = []
    for v in shared:
        for name in (Back(v, 0), Back(v, 1), At(v, recurrence.series.length)):
            home[name], sizes[name], scales[name] = (
                graph.home[v] | {time},
                sizes[v],
                scales.get(v, ()),
            )
        home[At(v, recurrence.series.length)] = graph.home[v]
        plates = (time, *sorted_axes(graph.home[v]))
        same = jnp.where(jnp.eye(sizes[v], dtype=bool), 0.0, -jnp.inf)
        table = same.reshape((1,) * len(plates) + same.shape)
        stays.append(Factor(f"{v} stays", plates, (Back(v, 1), Back(v, 0)), table, scales[v]))
    now = {v: Back(v, 0) for v in shared}
    named = [
        replace(f, variables=tuple(now.get(v, v) for v in f.variables)) for f in (*stays, *alike)
    ]
    messages = []
    if chain.first:
        factors = [*past, *named]
        plan = make_plan(
            [term_of(f) for f in factors], sizes, setting.plate_sizes, home, (), [chain]
        )
        setting = replace(setting, variable_scales=scales)
        messages = _messages(plan, factors, setting)
    return StepProblem(
        [*messages, *named[: len(stays)]],
        named[len(stays) :],
        {v: Back(v, 0) for v in recurrence.variables.values()},
        {v: plates | {time} for v, plates in home.items()},
        sizes,
        (time,),
    )


def _messages(plan: Plan, factors: Sequence[Factor], setting: Setting) -> list[Factor]:
    """What each step of the one chain in a plan knows of its past."""
    slots = dict(enumerate(factors))
    for number, step in enumerate(plan.steps):
        if isinstance(step, Advance):
            return messages_along(step, slots, setting)
        slots[step.output] = execute(step, slots, SUM, number, setting)
    raise ValueError("the plan has no chain.")


def _marginals(
    prepared: Prepared, evaluated: Evaluated, problem: StepProblem
) -> tuple[dict[str, Array], Array]:
    graph = prepared.graph
    factors = [*problem.past, *problem.own]
    dtype = jnp.result_type(float, *[factor.array.dtype for factor in factors])
    tilts = []
    for variable, name in problem.variables.items():
        frames = sorted(graph.variables[variable].plates, key=lambda frame: frame.dim)
        plates = tuple(f.name for f in frames if f.name in problem.home[name])
        axes = (*problem.axes, *plates)
        shape = (*(graph.plate_sizes[p] for p in axes), graph.sizes[name])
        scales = evaluated.variable_scales.get(name, ())
        tilts.append(Factor(f"tilt of {name}", axes, (name,), jnp.zeros(shape, dtype), scales))
    plan = _plan(problem, [*factors, *tilts], graph.plate_sizes)

    def total(arrays: list[Array]) -> Array:
        tilted = [replace(t, array=array) for t, array in zip(tilts, arrays, strict=True)]
        return contract(
            plan,
            [*factors, *tilted],
            SUM,
            graph.plate_sizes,
            graph.plate_scales,
            evaluated.variable_scales,
        ).log_total

    value, gradients = jax.value_and_grad(total)([tilt.array for tilt in tilts])
    shares = [g / jnp.sum(g, -1, keepdims=True) for g in gradients]
    return dict(zip(problem.variables, shares, strict=True)), value


def _plan(problem: StepProblem, factors: Sequence[Factor], plate_sizes: Mapping[Axis, int]) -> Plan:
    return make_plan([term_of(f) for f in factors], problem.sizes, plate_sizes, problem.home)
