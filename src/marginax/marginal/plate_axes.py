"""What feeds each factor along each of its plates: the proof that its elements can be evaluated on their own.

A factor's elements are followed backwards along a plate, through every step that is pointwise along it, to the
inputs whose rows they come from. Where a step mixes the elements, what it makes is computed for the whole plate first.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from marginax.blocks.on_disk import READ
from marginax.blocks.pointwise import ways_along
from marginax.blocks.program import Program, Value, flat_program
from marginax.graph.factors import FactorGraph


@dataclass(frozen=True)
class PlateAxis:
    """A factor along one of its plates."""

    factor: str
    plate: str
    fed_by: tuple[str, ...]
    """Inputs that have an element for each of the plate's, and on which axis; without any it is the same for all."""
    mixed_by: tuple[str, ...]
    """Primitives that mix the elements of something on the way; empty if every step is pointwise."""


def plate_axes(graph: FactorGraph) -> tuple[PlateAxis, ...]:
    """For each factor and plate what feeds it, and whether each step is pointwise along the plate.

    Parameters
    ----------
    graph : FactorGraph
        Any; nothing is computed.
    """
    program = flat_program(graph.captured.jaxpr)
    outputs = dict(zip(graph.captured.outputs, program.outputs, strict=True))
    names = {v: f"'{n}'" for v, n in zip(program.inputs, graph.captured.inputs, strict=True)}
    found: dict[PlateAxis, None] = {}
    for place in graph.places.values():
        value = outputs["log_density", place.density]
        for frame in place.plates:
            axis = len(value.shape) + frame.dim
            if axis < 0 or value.shape[axis] != frame.size:
                continue
            fed_by, mixed_by = _feeding(program, value, axis, names)
            found[PlateAxis(place.density, str(place.axis(frame)), fed_by, mixed_by)] = None
    return tuple(found)


def _feeding(
    program: Program, value: Value, axis: int, names: dict[Value, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    along: dict[Value, set[int]] = defaultdict(set)
    along[value].add(axis)
    fed_by: dict[str, None] = {}
    mixed_by: dict[str, None] = {}
    for step in reversed(program.steps):
        wanted = {v: along[v] for v in step.outputs if along[v]}
        if wanted and step.eqn.primitive.name == READ:
            fed_by["rows on disk, axis 0"] = None
            continue
        for _, way in ways_along(step, wanted):
            if way is None:
                mixed_by[step.eqn.primitive.name] = None
                continue
            for source, place in zip(step.inputs, way.axes, strict=True):
                if place is not None:
                    along[source].add(place)
    for source in (*program.inputs, *program.known):
        what = names.get(source, f"data of shape {source.shape}")
        for place in sorted(along[source]):
            fed_by[f"{what}, axis {place}"] = None
    return tuple(fed_by), tuple(mixed_by)
