"""An array for every value of some discrete variables: its own axes first, then one for each variable."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from marginax.jaxpr.folding import (
    LARGEST,
    operand,
)


@dataclass(frozen=True)
class Enumerated:
    """An array of the jaxpr, evaluated for every value of some discrete variables.

    ``array`` has its own axes, of which those in ``constant`` have size one and stand for their full
    size; then one axis for each of ``variables``, in the evaluation's order.
    """

    array: Any
    variables: tuple[Hashable, ...] = ()
    constant: frozenset[int] = frozenset()

    @property
    def ndim_own(self) -> int:
        """How many axes are its own."""
        return np.ndim(self.array) - len(self.variables)

    @property
    def sizes(self) -> dict[Hashable, int]:
        """How many values each variable has."""
        return dict(zip(self.variables, np.shape(self.array)[self.ndim_own :], strict=True))


def common_shape(argument: Enumerated, variables: Sequence[Hashable], rank: int) -> tuple[int, ...]:
    """With so many own axes (a scalar's are of size one) and one for each of the variables."""
    shape, n_own = np.shape(argument.array), argument.ndim_own
    if not shape or (argument.variables == variables and n_own == rank):
        return shape
    sizes = argument.sizes
    return (*(shape[:n_own] or (1,) * rank), *(sizes.get(v, 1) for v in variables))


def over(argument: Enumerated, variables: Sequence[Hashable], rank: int) -> Any:
    """A known array in that shape."""
    shape = common_shape(argument, variables, rank)
    return argument.array if shape == np.shape(argument.array) else argument.array.reshape(shape)


def spread(argument: Enumerated, variables: Sequence[Hashable], shape: Sequence[int]) -> Any:
    """The array in a full shape of own axes and one for each of the variables."""
    if np.shape(argument.array) == tuple(shape):
        return argument.array
    first = len(shape) - len(variables)
    dims = [
        *range(argument.ndim_own),
        *(first + variables.index(v) for v in argument.variables),
    ]
    return broadcast(argument.array, shape, dims)


def broadcast(array: Any, shape: Sequence[int], dims: Sequence[int]) -> Any:
    """An array in a larger shape, its axes at the given places; a small known one stays known."""
    if isinstance(array, np.ndarray) and int(np.prod(shape)) <= LARGEST:
        own = [1] * len(shape)
        for axis, to in enumerate(dims):
            own[to] = array.shape[axis]
        return np.broadcast_to(array.reshape(own), shape)
    return lax.broadcast_in_dim(operand(array), shape, dims)


def materialise(value: Enumerated, shape: Sequence[int], axes: frozenset[int]) -> Enumerated:
    """Bring the given constant axes of a value to their full size."""
    axes = axes & value.constant
    if not axes:
        return value
    full = list(np.shape(value.array))
    for axis in axes:
        full[axis] = shape[axis]
    array = broadcast(value.array, full, range(len(full)))
    return Enumerated(array, value.variables, value.constant - axes)


def mapped(
    fn: Callable[..., Any], arguments: Sequence[Enumerated], variables: Sequence[Hashable]
) -> Any:
    """Map over the variables; arguments have theirs last, in the same order."""
    for variable in variables:
        in_axes = tuple(-1 if variable in a.variables else None for a in arguments)
        fn = jax.vmap(fn, in_axes=in_axes, out_axes=-1)
    return fn(*(jnp.asarray(operand(a.array)) for a in arguments))


def support_input(
    support: Array | np.ndarray, ndim_batch: int, name: Hashable, shape: Sequence[int]
) -> Enumerated:
    """A variable over its whole support: the same value in every element of its plates.

    Parameters
    ----------
    support : array, shape (K, *event_shape)
        Its possible values.
    ndim_batch : int
        How many of its axes are plates.
    name : hashable
        Its name.
    shape : sequence of int
        Its shape in the model.
    """
    array = support.transpose((*range(1, support.ndim), 0))
    array = array.reshape((1,) * ndim_batch + array.shape)
    constant = frozenset(axis for axis in range(ndim_batch) if shape[axis] != 1)
    return Enumerated(array, (name,), constant)
