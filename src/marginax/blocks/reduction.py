"""Steps that take a large axis away: sums and the like, which can be found a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from marginax.blocks.pointwise import anywhere
from marginax.blocks.program import Step, Value


class Found(NamedTuple):
    """What blocks have given so far."""

    total: Array
    lost: Array | None = None
    """What rounding has added to a sum too much."""


@dataclass(frozen=True)
class Reduction:
    """A step that takes the large axis away."""

    step: Step
    axes: tuple[int | None, ...]
    """Where the axis is, in each input; None where an input is needed whole."""
    combine: Callable[[Any, Any], Array]
    """From what was found before and what a block adds to what is found."""
    neutral: Any
    """What stands for a row that must not count."""
    adds_up_in_place: bool = False
    """Whether the step itself adds to its first input, where what was found before can stand."""

    def is_start(self, position: int) -> bool:
        """Whether an input is what the sum begins with, to which no row adds."""
        return self.adds_up_in_place and position == 0

    def nothing(self, corrected: bool) -> Found:
        """What is found before any row, and without what the sum begins with."""
        output = self.step.outputs[0]
        nothing = jnp.full(output.shape, self.neutral, output.dtype)
        is_sum = self.combine is jnp.add and jnp.issubdtype(output.dtype, jnp.floating)
        is_corrected = is_sum and corrected and not self.adds_up_in_place
        return Found(nothing, nothing if is_corrected else None)

    def after(self, found: Found, arguments: list[Any], counts: Array | None) -> Found:
        """What is found after a block.

        Parameters
        ----------
        found : Found
            Before it.
        arguments : list of arrays
            The step's inputs, of which those with the axis have a block's rows.
        counts : bool array, shape (rows,), or None
            Which of them count; all if None.
        """
        eqn, params = self.step.eqn, anywhere(self.step.eqn.params)
        if self.adds_up_in_place:
            _, places, updates = arguments
            updates = self._counted(updates, self.axes[2], counts)
            return Found(eqn.primitive.bind(found.total, places, updates, **params))
        arguments = [
            self._counted(argument, axis, counts)
            for argument, axis in zip(arguments, self.axes, strict=True)
        ]
        return self._combined(found, eqn.primitive.bind(*arguments, **params))

    def _combined(self, found: Found, part: Array) -> Found:
        if found.lost is None:
            return Found(self.combine(found.total, part))
        # Compensated summation (Kahan, 1965): many blocks lose no more digits than one.
        part = part - found.lost
        total = found.total + part
        lost = (total - found.total) - part
        return Found(total, jnp.where(jnp.isfinite(total), lost, 0))

    def _counted(self, array: Array, axis: int | None, counts: Array | None) -> Array:
        if counts is None or axis is None:
            return array
        shape = [1] * array.ndim
        shape[axis] = -1
        return jnp.where(counts.reshape(shape), array, jnp.asarray(self.neutral, array.dtype))


def _least(dtype: Any) -> Any:
    return -np.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _greatest(dtype: Any) -> Any:
    return np.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max


_COMBINED: dict[str, tuple[Callable[[Any, Any], Array], Callable[[Any], Any]]] = {
    "reduce_sum": (jnp.add, lambda dtype: 0),
    "reduce_prod": (jnp.multiply, lambda dtype: 1),
    "reduce_max": (jnp.maximum, _least),
    "reduce_min": (jnp.minimum, _greatest),
    "reduce_and": (jnp.bitwise_and, lambda dtype: np.invert(np.zeros((), dtype))),
    "reduce_or": (jnp.bitwise_or, lambda dtype: 0),
}
"""How results of blocks are put together, and what does not change them."""


def reduction_over(step: Step, size: int, given: Collection[Value]) -> Reduction | None:
    """A step as a reduction over an axis of some size, if it is one.

    Parameters
    ----------
    step : Step
        Any.
    size : int
        Of the axis.
    given : collection of Value
        What exists anyway: of that alone nothing need be reduced in blocks.
    """
    eqn, name = step.eqn, step.eqn.primitive.name
    if all(source in given for source in step.inputs):
        return None
    shapes = [source.shape for source in step.inputs]
    if name in _COMBINED and len(step.inputs) == 1:
        combine, neutral = _COMBINED[name]
        for axis in eqn.params["axes"]:
            if shapes[0][axis] == size:
                return Reduction(step, (axis,), combine, neutral(step.inputs[0].dtype))
    if name == "dot_general":
        for left, right in zip(*eqn.params["dimension_numbers"][0], strict=True):
            if shapes[0][left] == size:
                return Reduction(step, (left, right), jnp.add, 0)
    if name == "scatter-add":
        numbers = eqn.params["dimension_numbers"]
        batch = [a for a in range(len(shapes[2])) if a not in numbers.update_window_dims]
        for of_indices, of_updates in enumerate(batch):
            is_paired = of_indices in numbers.scatter_indices_batching_dims
            if shapes[2][of_updates] == size and not is_paired:
                return Reduction(step, (None, of_indices, of_updates), jnp.add, 0, True)
    return None
