"""From a captured program to a factor graph: where each log density stands, and how scans become chains."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from marginax.elimination.axes import At, Axis, Back, Name, sorted_axes
from marginax.elimination.plan import Chain
from marginax.errors import ModelError
from marginax.graph.capture import (
    Captured,
    Key,
    capture,
    check_plates,
)
from marginax.graph.factors import FactorGraph, Place, of_full_size, several, support_of_variable
from marginax.graph.log_density import LogDensity
from marginax.graph.recurrence import Mixed, Recurrence, Scope, Stepped
from marginax.graph.sites import Site
from marginax.language.plates import CondIndepStackFrame


@dataclass(frozen=True)
class Stated:
    """The log densities and other values of one run, as outputs of a program and where they stand."""

    outputs: Mapping[Key, Any]
    """The arrays."""
    places: Mapping[str, Place]
    """Where each log density stands."""
    scale_constants: Mapping[Hashable, float]

    @staticmethod
    def of(densities: Mapping[str, LogDensity], recorded: Mapping[str, Any]) -> Stated:
        """Take them apart.

        Parameters
        ----------
        densities : mapping of LogDensity
            By factor name.
        recorded : mapping of arrays
            Other values, by name.
        """
        outputs: dict[Key, Any] = {}
        placed: dict[str, Place] = {}
        constants: dict[Hashable, float] = {}
        arrays: list[
            Any
        ] = []  # the scales that are arrays; two sites in the same one share its key
        for name, density in densities.items():
            keys = []
            for scale in density.scales:
                if isinstance(scale, int | float | np.number):
                    key: Hashable = float(scale)
                    constants[key] = float(scale)
                else:
                    number = next((i for i, a in enumerate(arrays) if a is scale), len(arrays))
                    arrays += [scale] if number == len(arrays) else []
                    key = f"array {number}"
                    outputs["scale", key] = scale
                keys.append(key)
            outputs["log_density", name] = density.array
            if density.kept is not None:
                outputs["unmasked", name] = density.unmasked
                outputs["kept", name] = density.kept
            for parameter, valid in density.validity.items():
                outputs["valid", (name, parameter)] = valid
            whole = _as_plates(density)
            placed[name] = Place(
                name,
                (*whole, *density.plates),
                tuple(keys),
                density.is_masked,
                density.is_discrete,
                density.site or name,
                whole,
            )
        for name, value in recorded.items():
            outputs["value", name] = value
        return Stated(outputs, placed, constants)


def factor_graph(
    program: Callable[[dict[str, Any]], tuple[dict[str, LogDensity], dict[str, Any]]],
    latents: Mapping[str, Site],
    enumerate_names: frozenset[str],
) -> FactorGraph:
    """Trace a program of latent values into a factor graph.

    Parameters
    ----------
    program : callable
        From latent values to ``(log densities by factor name, other values by name)``.
    latents : mapping of Site
        The latent values that it takes.
    enumerate_names : frozenset of str
        Those that are summed out; they need a support.

    Raises
    ------
    ModelError
        When the elements of a plate depend on one another, or a plate has two sizes.
    """
    made: list[Stated] = []

    def outputs(values: dict[str, Any]) -> Mapping[Key, Any]:
        made[:] = [Stated.of(*program(values))]
        return made[0].outputs

    captured = capture(outputs, latents, enumerate_names)
    return graph_of(captured, made[0].places, made[0].scale_constants, latents, enumerate_names)


def graph_of(
    captured: Captured,
    placed: Mapping[str, Place],
    constants: Mapping[Hashable, float],
    latents: Mapping[str, Site],
    enumerate_names: frozenset[str],
) -> FactorGraph:
    """The factor graph of a captured program.

    Parameters
    ----------
    captured : Captured
        The program.
    placed : mapping of Place
        Where its log densities stand.
    constants : mapping of float
        Its constant scales.
    latents : mapping of Site
        The latent values that it takes.
    enumerate_names : frozenset of str
        Those that are summed out; they need a support.

    Raises
    ------
    ModelError
        See `factor_graph`.
    """
    variables = {name: site for name, site in latents.items() if name in enumerate_names}
    frames: dict[Axis, tuple[int, int]] = {}
    block_sizes: dict[Axis, int | None] = {}
    for name, place in placed.items():
        for axis, frame in zip(place.axes, place.plates, strict=True):
            size, full_size = frames.setdefault(axis, (frame.size, frame.full_size))
            block_sizes[axis] = block_sizes.get(axis) or frame.block_size
            if (size, full_size) != (frame.size, frame.full_size):
                raise ModelError(
                    f"plate '{axis}' has size {of_full_size(size, full_size)} at one site and "
                    f"{of_full_size(frame.size, frame.full_size)} at '{name}'; plates of different sizes need "
                    "different names."
                )
        key = ("log_density", name)
        check_plates(
            name,
            place.plates,
            len(captured.output_shapes[key]),
            captured.dependence[key],
            variables,
        )
    # From here on a plate of one element is none: nothing is multiplied over it.
    places: dict[Name, Place] = {}
    for name, whole in placed.items():
        place = replace(whole, plates=several(whole.plates))
        places |= _parts(name, place, captured, variables)
    whole = {place.axis(frame) for place in placed.values() for frame in place.whole}
    stepped_apart = whole - {axis for place in places.values() for axis in place.axes}
    plate_sizes = {p: size for p, (size, _) in frames.items() if p not in stepped_apart}
    plate_sizes |= {r.time: r.length for r in captured.recurrences}
    sizes: dict[Axis, int] = {}
    home: dict[Axis, frozenset[Axis]] = {}
    for name, site in variables.items():
        plates = frozenset[Axis](frame.name for frame in several(site.plates))
        count, axes = len(support_of_variable(site)), dict[Axis, frozenset[Axis]]({name: plates})
        if site.series:
            recurrence = next(r for r in captured.recurrences if name in r.variables.values())
            axes = dict.fromkeys(recurrence.single(name), plates)
            axes |= dict.fromkeys(recurrence.alike(name), plates | {recurrence.time})
        home |= axes
        sizes |= dict.fromkeys(axes, count)
    plate_scales = {plate: full / size for plate, (size, full) in frames.items() if full != size}
    chains = tuple(_chain(r) for r in captured.recurrences if r.length)
    return FactorGraph(
        captured,
        latents,
        variables,
        places,
        constants,
        plate_sizes,
        plate_scales,
        home,
        sizes,
        block_sizes,
        chains,
    )


def _as_plates(density: LogDensity) -> tuple[CondIndepStackFrame, ...]:
    """The steps of scans as plates: given all variables outside, a series is a product over its steps."""
    ndim = jnp.ndim(density.array)
    return tuple(
        CondIndepStackFrame(series.name, i - ndim, series.length, series.length)
        for i, series in enumerate(reversed(density.series))
    )


def _parts(
    name: str, place: Place, captured: Captured, variables: Mapping[str, Site]
) -> dict[Name, Place]:
    """The factors that a log density is, by name."""
    scope, order = captured.scopes["log_density", name], captured.order
    recurrence = next((r for r in captured.recurrences if place.site in r.variables.values()), None)
    if isinstance(scope, Mixed):
        stated = " and ".join(f"'{v}'" for v in sorted_axes(scope.variables))
        raise ModelError(
            f"it stands outside of the scan that states {stated}, but depends on it at every step: "
            "on what the scan returns for all steps.",
            site=name,
            advice="State it in the body of the scan, or use only what is carried in the end.",
        )

    if not isinstance(scope, frozenset) or recurrence is not None:  # its steps are told apart
        place = replace(place, plates=tuple(f for f in place.plates if f not in place.whole))

    def part(scope: Scope, own: Axis, **where: Any) -> Place:
        axes = sorted({*scope, own} - {""}, key=order.__getitem__)
        return replace(place, variables=tuple(axes), own=own, **where)

    if isinstance(scope, frozenset):
        if recurrence is None:
            return {name: part(scope, place.site if place.site in variables else "")}
        # Its density is the same for all its values.
        scope = Stepped((scope,) * recurrence.heads, scope)
    recurrence = recurrence or _scan_of(scope, captured)
    is_own = place.site in recurrence.variables.values()
    found: dict[Name, Place] = {
        At(name, t): part(at, At(place.site, t) if is_own else "", time=recurrence.time, head=t)
        for t, at in enumerate(scope.heads)
    }
    if recurrence.length:
        own = Back(place.site, 0) if is_own else ""
        found[name] = part(scope.rest, own, time=recurrence.time)
    return found


def _scan_of(scope: Stepped, captured: Captured) -> Recurrence:
    """The scan whose variables a value of each step depends on: the last one, for it may go on from others' ends."""
    return next(
        r
        for r in reversed(captured.recurrences)
        if any(scope.axes & {*r.alike(v), *r.single(v)} for v in r.variables.values())
    )


def _chain(recurrence: Recurrence) -> Chain:
    """A scan as elimination sees it."""
    later: dict[Axis, Axis] = {}
    first: dict[Axis, Axis] = {}
    last: dict[Axis, Axis] = {}
    for variable, memory in recurrence.memory.items():
        for lag in range(1, memory + 1):
            later[Back(variable, lag - 1)] = Back(variable, lag)
            first[Back(variable, lag)] = At(variable, recurrence.heads - lag)
            last[Back(variable, lag)] = At(variable, recurrence.series.length - lag)
    return Chain(
        recurrence.time,
        recurrence.length,
        later,
        first,
        last,
        recurrence.series.elimination,
    )
