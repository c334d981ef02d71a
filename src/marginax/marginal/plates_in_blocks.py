"""Which plates of a factor graph may be evaluated in blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from marginax.blocks.blocked import fits_in_cache
from marginax.blocks.devices import current_mesh
from marginax.blocks.on_disk import READ
from marginax.blocks.program import flat_program
from marginax.graph.factors import FactorGraph


def sizes_in_blocks(graph: FactorGraph) -> Mapping[int, int | None]:
    """Sizes of plates, and the block sizes that they ask for, as `in_blocks` takes them.

    Parameters
    ----------
    graph : FactorGraph
        Any. Plates that say nothing are among the sizes if the arrays may be larger than the cache, or if
        several devices share them.
    """
    asked: dict[int, int | None] = {}
    for plate, size in graph.plate_sizes.items():
        block_size = graph.block_sizes.get(plate)
        if block_size is not None:
            asked[size] = min(block_size, asked.get(size) or block_size)
    asked |= {size: None for size in rows_on_disk_of(graph) if size not in asked}
    if current_mesh() is not None or not fits_in_cache(_most_elements(graph)):
        asked |= {s: None for s in graph.plate_sizes.values() if s > 1 and s not in asked}
    return asked


def rows_on_disk_of(graph: FactorGraph) -> list[int]:
    """How many rows there are in each array on disk."""
    steps = flat_program(graph.captured.jaxpr).steps
    return [s.outputs[0].shape[0] for s in steps if s.eqn.primitive.name == READ]


def _most_elements(graph: FactorGraph) -> int:
    """Of any array of an evaluation, at most."""
    steps = flat_program(graph.captured.jaxpr).steps
    largest = max((math.prod(v.shape) for step in steps for v in step.outputs), default=1)
    values = [math.prod(graph.sizes[v] for v in p.variables) for p in graph.places.values()]
    return largest * max(values, default=1)
