"""Factors: logarithms of functions of discrete variables, as arrays with named axes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax import Array, lax

from marginax.elimination.axes import Axis, Name, sorted_axes


@dataclass(frozen=True)
class Scale:
    """A power to which the result of an elimination is raised.

    Two scales are the same scale if their keys are equal; the value may be traced.
    """

    key: Hashable
    value: Any
    """A number, or an array over ``plates`` (size one where it is the same)."""
    plates: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class Factor:
    """The logarithm of a function of some variables, for every element of some plates.

    ``array`` has one axis for each of ``plates``, then one for each of ``variables``; a plate's axis
    may have size one, which means that the factor is the same for all its elements.
    """

    name: Name
    plates: tuple[Axis, ...]
    variables: tuple[Axis, ...]
    array: Array
    scales: tuple[Scale, ...] = ()
    """The scales inside which the factor stands, outermost first."""

    def aligned(self, plates: tuple[Axis, ...], variables: tuple[Axis, ...]) -> Array:
        """The array with axes for all the given names, of size one where the factor has none."""
        return arranged(self.array, *arrangement(self, plates, variables))

    def with_scales_applied(self, keep: int = 0) -> Factor:
        """Leave all scales but the outermost ``keep``: the array is multiplied by them."""
        array = self.array
        for scale in self.scales[keep:]:
            value = scale.value
            if scale.plates:
                over = Factor(str(scale.key), scale.plates, (), value)
                value = over.aligned(self.plates, self.variables)
            array = array * value
        return replace(self, array=array, scales=self.scales[:keep])


def arrangement(
    factor: Factor, plates: tuple[Axis, ...], variables: tuple[Axis, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The order in which a factor's axes stand among all the given names, and where new ones come in."""
    own, wanted = (*factor.plates, *factor.variables), (*plates, *variables)
    order = tuple(own.index(name) for name in wanted if name in own)
    return order, tuple(i for i, name in enumerate(wanted) if name not in own)


def arranged(array: Any, order: Sequence[int], new: Sequence[int]) -> Any:
    """An array with its axes in an order, and new ones at some places; of NumPy it stays NumPy's."""
    if isinstance(array, np.ndarray):
        return np.expand_dims(array.transpose(order), tuple(new))
    if tuple(order) != tuple(range(len(order))):
        array = lax.transpose(array, order)
    return lax.expand_dims(array, new) if new else array


def time_first(factor: Factor, time: Axis) -> Factor:
    """The same with the time axis in front, and the other plates by name."""
    plates = (time, *sorted_axes({*factor.plates} - {time}))
    return replace(factor, plates=plates, array=factor.aligned(plates, factor.variables))
