"""A model's log densities as factors with named axes, ready for elimination.

A variable's element that a mask switches off adds nothing anywhere. It is not known for that, and something may still
depend on it, so it keeps its own distribution: a factor that sums to one, whatever range it is summed over, is nothing
to the sum, and makes the element's draws those of a forward run. What else is made of factors (the entropy, the mode's
density, the terms of a bound) leaves these elements out; `Evaluated.masked` says which they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp

from marginax.density.distribution_layers import (
    distribution_name,
    is_masked,
    mask_of,
    without_masks,
)
from marginax.density.log_prob import log_prob
from marginax.density.parameters import Parameter, checks, validity
from marginax.elimination.factor import Factor, Scale
from marginax.elimination.plan import Chain, Term
from marginax.errors import ModelError
from marginax.graph.capture import (
    Captured,
    Key,
    capture,
    check_plates,
    evaluate_outputs,
    named_array,
)
from marginax.graph.recurrence import Mixed, Recurrence, Stepped, at, back
from marginax.graph.sites import Site
from marginax.graph.steps import SteppedValue, stepped
from marginax.jaxpr.evaluate import Enumerated, materialise
from marginax.language import handlers
from marginax.language.plates import CondIndepStackFrame
from marginax.language.scan import Series
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
    series: tuple[Series, ...] = ()
    """The scans that it is stated in, each of which has an axis, the outermost the first."""
    validity: Mapping[Parameter, Any] = field(default_factory=dict)
    """By traced parameter of its distribution, whether it is valid."""
    unmasked: Any = None
    """What the array would be without masks, of a discrete latent site that has some."""
    kept: Any = None
    """Where no mask switches it off, of the same shape."""


def log_density_of(msg: Message) -> LogDensity:
    """The log density of a sample site that has run."""
    if "given_steps" in msg["infer"]:
        raise ModelError(
            f"site '{msg['name']}': a value is given for its first {msg['infer']['given_steps']} steps "
            "only. That serves to run the model beyond them (Predictive); a density needs them all, or "
            "fewer steps in the scan."
        )
    unmasked = kept = None
    try:
        if is_masked(msg["fn"]) and msg["fn"].is_discrete and not msg["is_observed"]:
            unmasked = log_prob(cast(Message, {**msg, "fn": without_masks(msg["fn"])}))
            kept = jnp.broadcast_to(mask_of(msg["fn"]), jnp.shape(unmasked))
            array = jnp.where(kept, unmasked, 0.0)
        else:
            array = log_prob(msg)
    except NotImplementedError as error:
        raise ModelError(
            f"site '{msg['name']}': the log density of {distribution_name(msg['fn'])} cannot be computed: something "
            f"that it is made of (a censored or truncated distribution needs the cdf) is missing in NumPyro"
            f"{f', which says: {error}' if str(error) else ''}. Write a distribution that has it, or state the log "
            "density yourself with mx.factor."
        ) from error
    return LogDensity(
        array,
        tuple(sorted(msg["cond_indep_stack"], key=lambda frame: frame.dim)),
        tuple(msg["scale_handlers"]),
        is_masked(msg["fn"]),
        msg["fn"].is_discrete,
        validity=validity(checks(msg["fn"])),
        unmasked=unmasked,
        kept=kept,
    )


WHOLE = " (whole)"
"""After the name of a scan, for all its steps as a plate."""


class density_trace(handlers.trace):
    """Records with every sample site its log density, as ``"density"``, computed where it is stated."""

    def postprocess_message(self, msg: Message) -> None:
        if msg["type"] == "sample" and "density" not in msg:
            msg["density"] = log_density_of(msg)
        elif msg["type"] == "sample":  # of a scan, where those of its steps were put together
            names = ("array", "validity", "series", "unmasked", "kept")
            whole = {key: msg[key] for key in names}
            msg["density"] = replace(msg["density"], **whole)
        super().postprocess_message(msg)

    def differing(self, msg: Message) -> dict[str, Any]:
        kept = {"value": msg["value"]}
        if msg["type"] == "sample":
            differing = ("array", "validity", "unmasked", "kept")
            kept |= {key: getattr(msg["density"], key) for key in differing}
        return kept


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
    variables: tuple[str, ...] = ()
    """The names of its axes beside those of plates."""
    own: str = ""
    """The name of its site's own variable among them."""
    time: str | None = None
    """The time axis of the scan that it belongs to."""
    head: int | None = None
    """The step of it that it belongs to; None for all that are alike."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The plates by name, time first."""
        plates = tuple(frame.name for frame in self.plates)
        return plates if self.time is None or self.head is not None else (self.time, *plates)


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
    """The plates in which each variable lives, by the names of its axes."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Numbers of values, likewise."""
    block_sizes: Mapping[str, int | None] = field(default_factory=dict)
    """How many elements of each plate are evaluated at once, where it says so."""
    chains: tuple[Chain, ...] = ()
    """The scans whose steps are linked by variables, for `make_plan`."""

    def parents(self, factor: str) -> tuple[str, ...]:
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

    def elements(self, factor: str) -> int:
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
                    named = recurrence.names(variable)
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
    ) -> tuple[tuple[str, ...], Array]:
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
        variables, array = value.variables, named_array(value, shape, place.plates)
        if place.time in place.axes:
            variables, array = _time_first(variables, array, place)
        return variables, array

    def elementwise(self, factor: str, values: Mapping[str, Any]) -> Array:
        """The log density of a site that depends on no variable, an element of its batch each."""
        value = self._outputs(values, lambda key: key == ("log_density", factor))[
            "log_density", factor
        ]
        shape = self.captured.output_shapes["log_density", factor]
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

    def _scale(self, key: Hashable, outputs: Mapping[Key, Any], factor: str, ndim: int) -> Scale:
        if key in self.scale_constants:
            return Scale(key, self.scale_constants[key])
        value, site = outputs["scale", key], self.places[factor].density
        if value.variables:
            raise ModelError(
                f"site '{site}': its handlers.scale depends on the discrete variable "
                f"'{value.variables[0]}', which is summed out; a scale must be a number given everything else."
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
                f"site '{site}': its handlers.scale has shape {shape}, whose dimensions are not "
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
    masked: Mapping[str, Array] = field(default_factory=dict)
    """By factor of a variable that has masks, where they switch it off; it broadcasts to the factor's array."""


def _time_first(
    variables: tuple[str, ...], array: Array, place: Place
) -> tuple[tuple[str, ...], Array]:
    """Take the time axis from the variables' to before the plates'."""
    if place.time not in variables:
        return variables, array[None]
    axis = len(place.plates) + variables.index(place.time)
    return tuple(v for v in variables if v != place.time), jnp.moveaxis(array, axis, 0)


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


def _of(size: int, full_size: int) -> str:
    return str(size) if size == full_size else f"{size} (of {full_size})"


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
            placed[name] = Place(
                name,
                (*_as_plates(density), *density.plates),
                tuple(keys),
                density.is_masked,
                density.is_discrete,
                density.site or name,
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
    frames: dict[str, tuple[int, int]] = {}
    block_sizes: dict[str, int | None] = {}
    for name, place in placed.items():
        for frame in place.plates:
            size, full_size = frames.setdefault(frame.name, (frame.size, frame.full_size))
            block_sizes[frame.name] = block_sizes.get(frame.name) or frame.block_size
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
    places: dict[str, Place] = {}
    for name, whole in placed.items():
        parts = _parts(name, replace(whole, plates=several(whole.plates)), captured, variables)
        for factor, place in parts:
            _refuse_taken(factor, places)
            places[factor] = place
    stepped_apart = {name for name in frames if name.endswith(WHOLE)} - {
        frame.name for place in places.values() for frame in place.plates
    }
    plate_sizes = {p: size for p, (size, _) in frames.items() if p not in stepped_apart}
    for r in captured.recurrences:
        _refuse_taken(r.time, plate_sizes)
        plate_sizes[r.time] = r.length
    sizes, home = {}, {}
    for name, site in variables.items():
        plates = frozenset(frame.name for frame in several(site.plates))
        count, axes = len(_support(site)), {name: plates}
        if site.series:
            recurrence = next(r for r in captured.recurrences if name in r.variables.values())
            axes = dict.fromkeys(recurrence.single(name), plates)
            axes |= dict.fromkeys(recurrence.names(name), plates | {recurrence.time})
        for axis in axes:
            _refuse_taken(axis, home)
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
        CondIndepStackFrame(series.name + WHOLE, i - ndim, series.length, series.length)
        for i, series in enumerate(reversed(density.series))
    )


def _refuse_taken(name: str, others: Collection[str]) -> None:
    if name in others:
        raise ModelError(
            f"the name '{name}' belongs to a step, or to the steps, of a scan in the plan; give the site or plate that "
            "has it, or the one in the scan, another name."
        )


def _parts(
    name: str, place: Place, captured: Captured, variables: Mapping[str, Site]
) -> list[tuple[str, Place]]:
    """The factors that a log density is, by name."""
    scope, order = captured.scopes["log_density", name], captured.order
    recurrence = next((r for r in captured.recurrences if place.site in r.variables.values()), None)
    if isinstance(scope, Mixed):
        stated = " and ".join(f"'{v}'" for v in sorted(scope.variables))
        raise ModelError(
            f"site '{name}' stands outside of the scan that states {stated}, but depends on it at every step: on "
            "what the scan returns for all steps. State it in the body of the scan, or use only what is carried "
            "in the end."
        )

    if not isinstance(scope, frozenset) or recurrence is not None:  # its steps are told apart
        place = replace(place, plates=tuple(f for f in place.plates if not f.name.endswith(WHOLE)))

    def part(factor: str, names: frozenset[str], own: str, **where: Any) -> tuple[str, Place]:
        axes = sorted({*names, own} - {""}, key=order.__getitem__)
        return factor, replace(place, variables=tuple(axes), own=own, **where)

    if isinstance(scope, frozenset):
        if recurrence is None:
            return [part(name, scope, place.site if place.site in variables else "")]
        # Its density is the same for all its values.
        scope = Stepped((scope,) * recurrence.heads, scope)
    recurrence = recurrence or _scan_of(scope, captured)
    is_own = place.site in recurrence.variables.values()
    found = [
        part(
            at(name, t),
            names,
            at(place.site, t) if is_own else "",
            time=recurrence.time,
            head=t,
        )
        for t, names in enumerate(scope.heads)
    ]
    if recurrence.length:
        own = back(place.site, 0) if is_own else ""
        found.append(part(name, scope.rest, own, time=recurrence.time))
    return found


def _scan_of(scope: Stepped, captured: Captured) -> Recurrence:
    """The scan whose variables a value of each step depends on."""
    return next(
        r
        for r in captured.recurrences
        if any(scope.names & {*r.names(v), *r.single(v)} for v in r.variables.values())
    )


def _chain(recurrence: Recurrence) -> Chain:
    """A scan as elimination sees it."""
    later, first, last = {}, {}, {}
    for variable, memory in recurrence.memory.items():
        for lag in range(1, memory + 1):
            later[back(variable, lag - 1)] = back(variable, lag)
            first[back(variable, lag)] = at(variable, recurrence.heads - lag)
            last[back(variable, lag)] = at(variable, recurrence.series.length - lag)
    return Chain(
        recurrence.time,
        recurrence.length,
        later,
        first,
        last,
        recurrence.series.elimination,
    )
