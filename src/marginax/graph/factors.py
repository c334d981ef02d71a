"""A model's log densities as factors with named axes, ready for elimination."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax import Array

from marginax.elimination.factor import Factor, Scale
from marginax.elimination.plan import Term
from marginax.graph.capture import (
    Captured,
    Key,
    capture,
    check_plates,
    evaluate_outputs,
    named_array,
)
from marginax.graph.distribution_layers import is_masked
from marginax.graph.evaluate import Enumerated, materialise
from marginax.graph.log_prob import log_prob
from marginax.graph.sites import Site
from marginax.graph.validate import validity
from marginax.language.errors import ModelError
from marginax.language.plates import CondIndepStackFrame
from marginax.language.stack import Message


@dataclass(frozen=True)
class LogDensity:
    """One log density of a traced program: an array, and where it stands."""

    array: Any
    plates: tuple[CondIndepStackFrame, ...] = ()
    scales: tuple[Any, ...] = ()
    """Values of the scale handlers around it, outermost first."""
    is_masked: bool = False
    is_discrete: bool = False
    site: str = ""
    """The site whose log density it is, where that is not the factor's name."""
    validity: Mapping[str, Any] = field(default_factory=dict)
    """By parameter of its distribution, whether it is valid (`validate.validity`)."""


def log_density_of(msg: Message) -> LogDensity:
    """The log density of a sample site that has run."""
    return LogDensity(
        log_prob(msg),
        tuple(sorted(msg["cond_indep_stack"], key=lambda frame: frame.dim)),
        tuple(msg["scale_handlers"]),
        is_masked(msg["fn"]),
        msg["fn"].is_discrete,
        validity=validity(msg["fn"]),
    )


@dataclass(frozen=True)
class Place:
    """Where a factor stands: what is left of a `LogDensity` once its array is traced."""

    plates: tuple[CondIndepStackFrame, ...]
    scales: tuple[Hashable, ...]
    is_masked: bool
    is_discrete: bool
    site: str


@dataclass(frozen=True)
class FactorGraph:
    """Which factors there are, and what each depends on. No array has been computed yet."""

    captured: Captured
    latents: Mapping[str, Site]
    variables: Mapping[str, Site]
    """The latents that are enumerated."""
    places: Mapping[str, Place]
    """By factor name, in the order of the program."""
    scale_constants: Mapping[Hashable, Any]
    plate_sizes: Mapping[str, int]
    plate_scales: Mapping[str, float]
    home: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The plates in which each variable lives."""

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of values."""
        return {name: len(_support(site)) for name, site in self.variables.items()}

    def parents(self, factor: str) -> tuple[str, ...]:
        """The latents that a factor depends on, in the order of the program."""
        found = {*self.captured.dependence["log_density", factor], self.places[factor].site}
        return tuple(name for name in self.captured.inputs if name in found)

    def terms(self) -> list[Term]:
        """The factors' names and axes, for `make_plan`."""
        return [
            Term(
                name,
                tuple(v for v in self.parents(name) if v in self.variables),
                frozenset(frame.name for frame in place.plates),
            )
            for name, place in self.places.items()
        ]

    def largest_factor(self) -> int:
        """How many elements the largest factor has."""
        sizes = self.sizes
        counts = [
            math.prod([sizes[v] for v in t.variables] + [self.plate_sizes[p] for p in t.plates])
            for t in self.terms()
        ]
        return max(counts, default=1)

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
        factors, variable_scales = [], {}
        for name, place in self.places.items():
            key = ("log_density", name)
            value = outputs[key]
            variables, array = value.variables, named_array(value, shapes[key], place.plates)
            if place.site in self.variables and place.site not in variables:
                # Equal for all its values: uniform, or masked out by a constant.
                variables = (*variables, place.site)
                array = jnp.broadcast_to(array[..., None], (*array.shape, self.sizes[place.site]))
            if place.is_discrete:
                array = _impossible_where_clipped(array)
            if place.is_masked and place.site in self.variables:
                array = _nothing_where_masked(array, variables.index(place.site) - len(variables))
            scales = tuple(self._scale(k, outputs, name, len(shapes[key])) for k in place.scales)
            plates = tuple(frame.name for frame in place.plates)
            factors.append(Factor(name, plates, variables, array, scales))
            if place.site in self.variables:
                variable_scales[place.site] = scales
        values_out = {
            str(key[1]): jnp.asarray(materialise(out, shapes[key], out.constant).array)
            for key, out in outputs.items()
            if key[0] == "value"
        }
        return Evaluated(factors, variable_scales, values_out)

    def elementwise(self, factor: str, values: Mapping[str, Any]) -> Array:
        """The log density of a site that depends on no variable, an element of its batch each."""
        value = self._outputs(values, lambda key: key == ("log_density", factor))[
            "log_density", factor
        ]
        shape = self.captured.output_shapes["log_density", factor]
        return jnp.asarray(materialise(value, shape, value.constant).array)

    def validity(self, values: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
        """By site and parameter, whether the parameter is valid for all values of all variables."""
        found: dict[str, dict[str, Array]] = {}
        for key, value in self._outputs(values, lambda key: key[0] == "valid").items():
            site, parameter = cast(tuple[str, str], key[1])
            found.setdefault(site, {})[parameter] = jnp.all(jnp.asarray(value.array))
        return found

    def _outputs(
        self,
        values: Mapping[str, Any],
        wanted: Callable[[Key], bool],
        visit: Callable[[int], None] = lambda size: None,
    ) -> dict[Key, Enumerated]:
        return evaluate_outputs(self.captured, self.latents, values, wanted, visit)

    def _scale(self, key: Hashable, outputs: Mapping[Key, Any], factor: str, ndim: int) -> Scale:
        if key in self.scale_constants:
            return Scale(key, self.scale_constants[key])
        value = outputs["scale", key]
        if value.variables:
            raise ModelError(
                f"site '{factor}': its handlers.scale depends on the discrete variable "
                f"'{value.variables[0]}', which is summed out; a scale must be a number given everything else."
            )
        shape = self.captured.output_shapes["scale", key]
        array = materialise(value, shape, value.constant).array
        if not shape:
            return Scale(key, array)
        frames = self.places[factor].plates
        dims = {frame.dim for frame in frames}
        if len(shape) > ndim or any(
            size != 1 and i - len(shape) not in dims for i, size in enumerate(shape)
        ):
            raise ModelError(
                f"site '{factor}': its handlers.scale has shape {shape}, whose dimensions are not "
                "those of the plates around it; a scale may vary along plates only."
            )
        varying = [f for f in frames if -f.dim <= len(shape) and shape[f.dim] != 1]
        along = tuple(frame.name for frame in varying)
        return Scale(key, jnp.reshape(array, [frame.size for frame in varying]), along)


@dataclass(frozen=True)
class Evaluated:
    """A factor graph's numbers."""

    factors: list[Factor]
    variable_scales: Mapping[str, tuple[Scale, ...]]
    values: Mapping[str, Array]
    """Recorded values (deterministic sites) that depend on no enumerated variable."""


def _support(site: Site) -> np.ndarray:
    if site.support is None:
        raise ModelError(
            f"site '{site.name}': it is not enumerable: {site.not_enumerated_because}."
        )
    return site.support


def _impossible_where_clipped(array: Array) -> Array:
    """Make what is impossible -inf.

    Some distributions write the logarithm of a probability of zero as the smallest finite number; two
    of those add up to -inf, one of them to a log density that looks possible.
    """
    return jnp.where(array <= jnp.finfo(array.dtype).min, -jnp.inf, array)


def _nothing_where_masked(array: Array, axis: int) -> Array:
    """Make a masked-out variable add exactly nothing.

    A mask turns the variable's log probabilities into zeros, which would count its values. No two
    values of a probability mass function have log probability zero, so such elements are the
    masked ones; there each value gets an equal share.
    """
    size = array.shape[axis]
    if size == 1:
        return array
    masked = jnp.all(array == 0, axis, keepdims=True)
    return jnp.where(masked, -jnp.log(jnp.asarray(size, array.dtype)), array)


def several(plates: tuple[CondIndepStackFrame, ...]) -> tuple[CondIndepStackFrame, ...]:
    """The plates that stand for more than one element."""
    return tuple(frame for frame in plates if frame.full_size > 1)


def _of(size: int, full_size: int) -> str:
    return str(size) if size == full_size else f"{size} (of {full_size})"


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
    places: dict[str, Place] = {}
    constants: dict[Hashable, Any] = {}
    alive: list[Any] = []  # so that no two scales can have the same identity

    def outputs(values: dict[str, Any]) -> dict[Key, Any]:
        densities, recorded = program(values)
        out: dict[Key, Any] = {}
        for name, density in densities.items():
            keys = []
            for scale in density.scales:
                if isinstance(scale, int | float | np.number):
                    key: Hashable = float(scale)
                    constants[key] = float(scale)
                else:
                    key = f"array {id(scale)}"
                    alive.append(scale)
                    out["scale", key] = scale
                keys.append(key)
            out["log_density", name] = density.array
            for parameter, valid in density.validity.items():
                out["valid", (name, parameter)] = valid
            site = density.site or name
            places[name] = Place(
                density.plates, tuple(keys), density.is_masked, density.is_discrete, site
            )
        for name, value in recorded.items():
            out["value", name] = value
        return out

    captured = capture(outputs, latents)
    variables = {name: site for name, site in latents.items() if name in enumerate_names}
    sizes: dict[str, tuple[int, int]] = {}
    for name, place in places.items():
        for frame in place.plates:
            size, full_size = sizes.setdefault(frame.name, (frame.size, frame.full_size))
            if (size, full_size) != (frame.size, frame.full_size):
                raise ModelError(
                    f"plate '{frame.name}' has size {_of(size, full_size)} at one site and "
                    f"{_of(frame.size, frame.full_size)} at '{name}'; plates of different sizes need "
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
    places = {name: replace(p, plates=several(p.plates)) for name, p in places.items()}
    home = {
        name: frozenset(frame.name for frame in several(site.plates))
        for name, site in variables.items()
    }
    for site in variables.values():
        _support(site)
    plate_sizes = {plate: size for plate, (size, _) in sizes.items()}
    plate_scales = {plate: full / size for plate, (size, full) in sizes.items() if full != size}
    return FactorGraph(
        captured, latents, variables, places, constants, plate_sizes, plate_scales, home
    )
