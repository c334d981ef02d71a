"""The compiled programs of a fit: where starts begin, rounds of EM, coordinates, and L-BFGS in these.

The model is traced once, with tables and priors as arguments; both searches evaluate what was traced. Designs of the
same kind (`kinds`) and sizes share the programs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from marginax.jaxpr.compiled import QUICK, jitted, part
from marginax.jaxpr.remembered import Remembered
from marginax.marginal.facade import marginalize
from marginax.mixture.climbing import Climb, Evaluation, at_the_bottom, climbed
from marginax.mixture.conditioning import (
    constrained,
    information,
    inward,
    outward,
    slope_inward,
    unconstrained,
)
from marginax.mixture.kinds import Kind, is_known, put_together, taken_apart
from marginax.mixture.maximization import Gradient, Rounds, begun, onwards
from marginax.mixture.model import Design, Rows
from marginax.mixture.modes import with_modes
from marginax.mixture.room import SOME_WEIGHT, switched, tilts

Point = Mapping[str, Any]


@dataclass(frozen=True)
class Programs:
    """Compiled functions. All take the design's numbers and the table first, and have the starts in front."""

    begin: Callable[..., Rounds]
    """Of labels, shape (starts, rows)."""
    rounds: Callable[..., Rounds]
    """Of where the rounds have led, of the least gain, and of how many rounds there are to be."""
    coordinates: Callable[..., tuple[Any, Climb]]
    """Of some rows and parameters: coordinates around these, and where the climb begins."""
    climb: Callable[..., Climb]
    """Of coordinates, of where the climb is, of the least gain, and of how many evaluations there are to be."""


_remembered: Remembered[Programs] = Remembered()


def programs(design: Design, rows: Rows, most: int, is_small: bool) -> tuple[Any, Programs]:
    """The numbers of a design, and the programs that fit a design of its kind to a table of this size.

    Parameters
    ----------
    design : Design
        What is fitted.
    rows : Rows
        The table.
    most : int
        Evaluations of a climb at most.
    is_small : bool
        Whether they run for less time than it would take to optimise them.
    """
    kind, numbers = taken_apart(design)
    leaves, structure = jax.tree.flatten((numbers, rows))
    shapes = tuple(jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for leaf in leaves)
    parts = (kind, structure, shapes, most, is_small)
    if not is_known(kind, structure):
        return numbers, _programs(*parts)
    return numbers, _remembered.find(parts) or _remembered.add(parts, _programs(*parts))


def _programs(
    kind: Kind, structure: Any, shapes: tuple[Any, ...], most: int, is_small: bool
) -> Programs:
    gradient = _gradient(kind, *jax.tree.unflatten(structure, shapes))
    options = QUICK if is_small else {}

    def begin(numbers: Any, rows: Rows, labels: Any) -> Rounds:
        return begun(searched(kind, numbers), rows, labels)

    def rounds(numbers: Any, rows: Rows, state: Rounds, enough: Any, until: Any) -> Rounds:
        design = searched(kind, numbers)
        evaluate = partial(gradient, numbers, rows)
        return onwards(design, rows, evaluate, state, enough, until)

    def coordinates(numbers: Any, rows: Rows, some: Rows, values: Point) -> tuple[Any, Climb]:
        design = searched(kind, numbers)

        def one(values: Point) -> tuple[Any, Any]:
            free = unconstrained(design, switched(design, values, SOME_WEIGHT))
            blocks = information(design, free, some, jnp.sum(rows.is_real))
            return blocks, inward(design, free, blocks)

        blocks, place = jax.vmap(one)(values)
        starts = len(place)
        found = Found(values, jnp.zeros((starts, kind.components)))
        told = jnp.zeros((starts, len(design.priors)))
        here = Evaluation(
            jnp.full(starts, jnp.inf, place.dtype), jnp.zeros_like(place), told, found
        )
        return blocks, at_the_bottom(place, here, most)

    def climb(
        numbers: Any, rows: Rows, blocks: Any, state: Climb, enough: Any, until: Any
    ) -> Climb:
        design = searched(kind, numbers)

        def there(free: Any) -> Point:
            return switched(design, constrained(design, free))

        def evaluate(place: Any) -> Evaluation:
            free = jax.vmap(partial(outward, design))(place, blocks)
            values, pull = jax.vjp(jax.vmap(there), free)
            value, by_values, shares = gradient(numbers, rows, values)
            (slopes,) = pull(by_values)
            norms = [
                jnp.linalg.norm(slopes[s].reshape(len(place), -1), axis=1) for s in design.priors
            ]
            slope = jax.vmap(partial(slope_inward, design))(slopes, blocks)
            return Evaluation(value, slope, jnp.stack(norms, 1), Found(values, jnp.sum(shares, 1)))

        return climbed(evaluate, state, enough, jnp.minimum(until, most))

    return Programs(
        jitted(begin, QUICK),
        jitted(rounds, options),
        jitted(coordinates, QUICK),
        jitted(climb, options),
    )


class Found(NamedTuple):
    """What is said of a place, beside the loss."""

    values: Point
    """The parameters."""
    counts: Any
    """Shape (components,): how many rows each has, as is expected."""


def _gradient(kind: Kind, numbers: Any, rows: Rows) -> Gradient:
    """The loss and its gradient, traced once for arguments of these shapes."""
    values = jax.eval_shape(partial(_anywhere, kind), numbers)
    shares = jax.ShapeDtypeStruct((len(rows.cells), kind.components), rows.cells.dtype)

    def density(numbers: Any, rows: Rows, values: Any, added: Any) -> Any:
        model = searched(kind, numbers).model
        return marginalize(model).log_density(values, rows._replace(tilts=added))

    run = jex_core.jaxpr_as_fun(jax.make_jaxpr(density)(numbers, rows, values, shares))

    @part  # of both searches
    def gradient(numbers: Any, rows: Rows, values: Any) -> tuple[Any, Any, Any]:
        def loss(values: Any, added: Any) -> Any:
            (value,) = run(*jax.tree.leaves((numbers, rows, values, added)))
            return -value

        both = jax.vmap(jax.value_and_grad(loss, (0, 1)), (0, None))
        value, (slopes, shares) = both(dict(values), tilts(searched(kind, numbers), rows))
        return value, slopes, -shares

    return gradient


def searched(kind: Kind, numbers: Any) -> Design:
    """The design of which the most probable parameters are searched."""
    return with_modes(put_together(kind, numbers))


def _anywhere(kind: Kind, numbers: Any) -> dict[str, Any]:
    """Numbers in the shape of the parameters."""
    design = searched(kind, numbers)
    found = {}
    for site, parameter in design.priors.items():
        shape = (*parameter.prior.batch_shape, *parameter.prior.event_shape)
        own = () if parameter.is_shared or site in design.outer else (kind.components,)
        found[site] = jnp.zeros((*own, *shape))
    return found
