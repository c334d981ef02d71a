"""A model's log densities as factors with named axes, ready for elimination.

A variable's element that a mask switches off adds nothing anywhere. It is not known for that, and something may still
depend on it, so it keeps its own distribution: a factor that sums to one, whatever range it is summed over, is nothing
to the sum, and makes the element's draws those of a forward run. What else is made of factors (the entropy, the mode's
density, the terms of a bound) leaves these elements out; `Evaluated.masked` says which they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp

from marginax.density.parameters import Parameter
from marginax.elimination.axes import Axis, Name, Part, Role
from marginax.elimination.factor import Factor, Scale
from marginax.elimination.plan import Chain, Term
from marginax.errors import ModelError
from marginax.graph.capture import (
    Captured,
    Key,
    evaluate_outputs,
    named_array,
)
from marginax.graph.recurrence import Recurrence
from marginax.graph.sites import Site
from marginax.graph.steps import SteppedValue, stepped
from marginax.jaxpr.enumerated import Enumerated, materialise
from marginax.language.plates import CondIndepStackFrame


@dataclass(frozen=True)
class Place:
    """Where a factor stands: what is left of a `LogDensity` once its array is traced.

    The log density of a site in a scan is several factors: one for each head, one for all steps
    that are alike.
    """

    density: str
    """The log density that it is, or is part of."""
    plates: tuple[CondIndepStackFrame, ...]
    scales: tuple[Hashable, ...]
    is_masked: bool
    is_discrete: bool
    site: str
    whole: tuple[CondIndepStackFrame, ...] = ()
    """Those of its plates that are all steps of a scan."""
    variables: tuple[Axis, ...] = ()
    """Its axes beside those of plates."""
    own: Axis = ""
    """Its site's own variable among them."""
    time: Axis | None = None
    """The time axis of the scan that it belongs to."""
    head: int | None = None
    """The step of it that it belongs to; None for all that are alike."""

    def axis(self, frame: CondIndepStackFrame) -> Axis:
        """The axis of one of its plates."""
        return Part(frame.name, Role.WHOLE) if frame in self.whole else frame.name

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Those of its plates, time first."""
        plates = tuple(map(self.axis, self.plates))
        return plates if self.time is None or self.head is not None else (self.time, *plates)


@dataclass(frozen=True)
class FactorGraph:
    """Which factors there are, and what each depends on. No array has been computed yet."""

    captured: Captured
    latents: Mapping[str, Site]
    variables: Mapping[str, Site]
    """The latents that are enumerated."""
    places: Mapping[Name, Place]
    """By factor name, in the order of the program."""
    scale_constants: Mapping[Hashable, Any]
    plate_sizes: Mapping[Axis, int]
    plate_scales: Mapping[Axis, float]
    home: Mapping[Axis, frozenset[Axis]] = field(default_factory=dict)
    """The plates in which each variable lives, by its axes."""
    sizes: Mapping[Axis, int] = field(default_factory=dict)
    """Numbers of values, likewise."""
    block_sizes: Mapping[Axis, int | None] = field(default_factory=dict)
    """How many elements of each plate are evaluated at once, where it says so."""
    chains: tuple[Chain, ...] = ()
    """The scans whose steps are linked by variables, for `make_plan`."""

    def parents(self, factor: Name) -> tuple[str, ...]:
        """The latents that a factor depends on, in the order of the program."""
        place = self.places[factor]
        found = {*self.captured.dependence["log_density", place.density], place.site}
        return tuple(name for name in self.captured.inputs if name in found)

    def recurrence(self, variable: str) -> Recurrence | None:
        """The scan that a variable is stated in."""
        scans = (r for r in self.captured.recurrences if variable in r.variables.values())
        return next(scans, None)

    def terms(self) -> list[Term]:
        """The factors' names and axes, for `make_plan`."""
        return [
            Term(name, place.variables, frozenset(place.axes), place.scales)
            for name, place in self.places.items()
        ]

    def largest_factor(self) -> int:
        """How many elements the largest factor has."""
        return max(map(self.elements, self.places), default=1)

    def elements(self, factor: Name) -> int:
        """How many elements a factor has."""
        place = self.places[factor]
        # Along a time axis it may be the same; what is not is refused when it is made.
        plates = [self.plate_sizes[p] for p in place.axes if p != place.time]
        return math.prod([self.sizes[v] for v in place.variables] + plates)

    def evaluate(
        self, values: Mapping[str, Any], visit: Callable[[int], None] = lambda size: None
    ) -> Evaluated:
        """Compute every factor.

        Parameters
        ----------
        values : mapping of arrays
            Values of the latents that are not enumerated.
        visit : callable, optional
            Called with the bytes of each array on the way, before anything is allocated if the
            caller is being traced.
        """
        outputs = self._outputs(values, lambda key: key[0] != "valid", visit)
        shapes = self.captured.output_shapes
        factors, variable_scales, masked = [], {}, {}
        for name, place in self.places.items():
            shape = shapes["log_density", place.density]
            is_masked = place.is_masked and bool(place.own)
            variables, array = self._laid_out(
                "unmasked" if is_masked else "log_density", place, outputs
            )
            if place.own and place.own not in variables:  # equal for all its values
                variables = (*variables, place.own)
                array = jnp.broadcast_to(array[..., None], (*array.shape, self.sizes[place.own]))
            if place.is_discrete:
                array = _impossible_where_clipped(array)
            if is_masked:
                off = Factor(name, place.axes, *self._laid_out("kept", place, outputs))
                every = tuple(dict.fromkeys((*variables, *off.variables)))
                array = Factor(name, place.axes, variables, array).aligned(place.axes, every)
                masked[name] = off.aligned(place.axes, every) == 0
                variables = every
                array = jnp.where(
                    masked[name], _summing_to_one(array, every.index(place.own) - len(every)), array
                )
            ndim = len(shape) - (place.time is not None)
            scales = tuple(self._scale(k, outputs, name, ndim) for k in place.scales)
            factors.append(Factor(name, place.axes, variables, array, scales))
            if place.own:
                variable_scales[place.own] = scales
        for recurrence in self.captured.recurrences:
            for variable in recurrence.variables.values():
                if recurrence.length:
                    named = recurrence.alike(variable)
                    variable_scales |= dict.fromkeys(named, variable_scales[named[-1]])
                    ends = recurrence.single(variable)
                    variable_scales |= dict.fromkeys(ends, variable_scales[named[-1]])
        values_out = {
            str(key[1]): jnp.asarray(materialise(out, shapes[key], out.constant).array)
            for key, out in outputs.items()
            if key[0] == "value" and isinstance(out, Enumerated)
        }
        return Evaluated(factors, variable_scales, values_out, masked)

    def _laid_out(
        self, kind: str, place: Place, outputs: Mapping[Key, Enumerated | SteppedValue]
    ) -> tuple[tuple[Axis, ...], Array]:
        """The variables and the array of a factor, from what the program returns of its density."""
        key = (kind, place.density)
        value, shape = outputs[key], self.captured.output_shapes[key]
        if place.time is not None:
            if isinstance(value, Enumerated):
                scan = next(r for r in self.captured.recurrences if r.time == place.time)
                value = stepped(value, shape, scan)
            shape = shape[1:]
            value = value.rest if place.head is None else value.heads[place.head]
        assert isinstance(value, Enumerated)
        variables = cast(tuple[Axis, ...], value.variables)
        array = named_array(value, shape, place.plates)
        if place.time in place.axes:
            variables, array = _time_first(variables, array, place)
        return variables, array

    def elementwise(self, density: str, values: Mapping[str, Any]) -> Array:
        """The log density of a site that depends on no variable, an element of its batch each."""
        value = self._outputs(values, lambda key: key == ("log_density", density))[
            "log_density", density
        ]
        shape = self.captured.output_shapes["log_density", density]
        assert isinstance(value, Enumerated)
        return jnp.asarray(materialise(value, shape, value.constant).array)

    def validity(self, values: Mapping[str, Any]) -> dict[str, dict[Parameter, Array]]:
        """By site and parameter, whether the parameter is valid for all values of all variables."""
        found: dict[str, dict[Parameter, Array]] = {}
        for key, value in self._outputs(values, lambda key: key[0] == "valid").items():
            site, parameter = cast(tuple[str, Parameter], key[1])
            parts = [value] if isinstance(value, Enumerated) else value.parts
            every = [jnp.all(jnp.asarray(part.array)) for part in parts]
            found.setdefault(site, {})[parameter] = jnp.all(jnp.stack(every))
        return found

    def _outputs(
        self,
        values: Mapping[str, Any],
        wanted: Callable[[Key], bool],
        visit: Callable[[int], None] = lambda size: None,
    ) -> dict[Key, Enumerated | SteppedValue]:
        return evaluate_outputs(self.captured, self.latents, values, wanted, visit)

    def _scale(self, key: Hashable, outputs: Mapping[Key, Any], factor: Name, ndim: int) -> Scale:
        if key in self.scale_constants:
            return Scale(key, self.scale_constants[key])
        value, site = outputs["scale", key], self.places[factor].density
        if value.variables:
            raise ModelError(
                f"its handlers.scale depends on the discrete variable '{value.variables[0]}', which is summed "
                "out; a scale must be a number given everything else.",
                site=site,
            )
        shape = self.captured.output_shapes["scale", key]
        array = materialise(value, shape, value.constant).array
        # A number is refused where it is stated; of a traced one the density tells.
        array = jnp.where(array > 0, array, jnp.nan)
        if not shape:
            return Scale(key, array)
        frames = self.places[factor].plates
        dims = {frame.dim for frame in frames}
        if len(shape) > ndim or any(
            size != 1 and i - len(shape) not in dims for i, size in enumerate(shape)
        ):
            raise ModelError(
                f"its handlers.scale has shape {shape}, whose dimensions are not those of the plates around "
                "it; a scale may vary along plates only.",
                site=site,
            )
        varying = [f for f in frames if -f.dim <= len(shape) and shape[f.dim] != 1]
        along = tuple(map(self.places[factor].axis, varying))
        return Scale(key, jnp.reshape(array, [frame.size for frame in varying]), along)


@dataclass(frozen=True)
class Evaluated:
    """A factor graph's numbers."""

    factors: list[Factor]
    variable_scales: Mapping[Axis, tuple[Scale, ...]]
    values: Mapping[str, Array]
    """Recorded values (deterministic sites) that depend on no enumerated variable."""
    masked: Mapping[Name, Array] = field(default_factory=dict)
    """By factor of a variable that has masks, where they switch it off; it broadcasts to the factor's array."""


def _time_first(
    variables: tuple[Axis, ...], array: Array, place: Place
) -> tuple[tuple[Axis, ...], Array]:
    """Take the time axis from the variables' to before the plates'."""
    if place.time not in variables:
        return variables, array[None]
    axis = len(place.plates) + variables.index(place.time)
    return tuple(v for v in variables if v != place.time), jnp.moveaxis(array, axis, 0)


def support_of_variable(site: Site) -> np.ndarray:
    if site.support is None:
        raise ModelError(f"it is not enumerable: {site.not_enumerated_because}.", site=site.name)
    return site.support


def _impossible_where_clipped(array: Array) -> Array:
    """Make what is impossible -inf.

    Some distributions write the logarithm of a probability of zero as the smallest finite number; two
    of those add up to -inf, one of them to a log density that looks possible.
    """
    where = np.where if isinstance(array, np.ndarray) else jnp.where
    return where(array <= jnp.finfo(array.dtype).min, -np.inf, array)  # pyright: ignore[reportReturnType]


def _summing_to_one(array: Array, axis: int) -> Array:
    """Log probabilities that sum to one over a range; equal ones where none is possible, or they are no numbers."""
    array = jnp.where(jnp.isnan(array), -jnp.inf, array)
    possible = jnp.any(array > -jnp.inf, axis, keepdims=True)
    array = jnp.where(possible, array, 0)
    return array - logsumexp(array, axis, keepdims=True)


def in_batch_shape(
    value: Array, plates: tuple[CondIndepStackFrame, ...], ndim: int, steps: tuple[int, ...] = ()
) -> Array:
    """A value over plates, as an array of the rank of a site's batch.

    Parameters
    ----------
    value : array
        An axis for each of ``steps``, then one for each plate, of size one where it is the same.
    plates : tuple of frames
        The plates, leftmost first.
    ndim : int
        Of the batch, without steps.
    steps : tuple of int
        Sizes of axes in front.
    """
    sizes = {frame.dim: frame.size for frame in plates}
    shape = [sizes.get(dim, 1) for dim in range(-ndim, 0)]
    full = [size for _, size in sorted(sizes.items())]
    return jnp.broadcast_to(value, (*steps, *full)).reshape((*steps, *shape))


def several(plates: tuple[CondIndepStackFrame, ...]) -> tuple[CondIndepStackFrame, ...]:
    """The plates that stand for more than one element."""
    return tuple(frame for frame in plates if frame.full_size > 1)


def of_full_size(size: int, full_size: int) -> str:
    return str(size) if size == full_size else f"{size} (of {full_size})"
