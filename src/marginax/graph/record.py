"""One run of a model, and all that is read off it: its sites, and its log densities as a program.

A model is an ordinary function: it may read globals, attributes and arrays that change between two calls,
so each call of a query runs it again, but once. The run is abstract (`jax.make_jaxpr`): shapes and types
flow through the model, its log densities become equations, no arithmetic happens.

The difficulty is that the inputs of that program, the latent values, are known only while it is traced. So
a latent site that has no value is given the output of an equation of its own, which says nothing but
"this site's value" and stands outside of every scan that the model is in the middle of (`input_of`).
Afterwards these equations are taken out of the program, and what they had made are its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend import core as jex_core
from numpyro.distributions import Distribution, ImproperUniform, discrete

from marginax.density.distribution_layers import unwrapped
from marginax.density.validate import check_parameters, numpyro_checks
from marginax.errors import ModelError
from marginax.graph.build import Stated
from marginax.graph.capture import Key, refuse_long_indices
from marginax.graph.explaining import explaining
from marginax.graph.factors import Place
from marginax.graph.known_data import with_data_known
from marginax.graph.log_density import LogDensity, density_trace
from marginax.graph.same_run import Run, Statements, in_place_of, run_of
from marginax.graph.sites import (
    Recorder,
    Site,
    as_jax_arrays,
    warn_of_loops,
    with_support,
)
from marginax.jaxpr.complement import with_complements
from marginax.jaxpr.concrete import is_concrete
from marginax.jaxpr.known_values import known_numbers
from marginax.jaxpr.objects import written_out
from marginax.jaxpr.same_program import ProgramKey, program_key
from marginax.language import handlers
from marginax.language.handlers.recording import Trace
from marginax.language.primitives import check_value_fits
from marginax.language.stack import Message, Messenger, element, is_point_mass, isolated

latent_p = jex_core.Primitive("latent")
"""Stands for a latent value while a model runs; its operand is there so that JAX never evaluates it at once."""
latent_p.def_abstract_eval(lambda token, *, name, shape, dtype: ShapedArray(shape, dtype))


@dataclass(frozen=True)
class Record:
    """What one run of a model says."""

    sites: Mapping[str, Site]
    """By name, in the order of the run."""
    program: jex_core.ClosedJaxpr
    """From latent values to log densities and other values."""
    inputs: tuple[str, ...]
    """The names of the latent values that it takes."""
    outputs: tuple[Key, ...]
    """What it returns."""
    places: Mapping[str, Place]
    """Where each log density stands."""
    scale_constants: Mapping[Hashable, float]

    is_recognised: bool = False
    """Whether it is that of an earlier run, which stated the same."""
    _keys: dict[bool, ProgramKey] = field(default_factory=dict, compare=False, repr=False)

    def program_key(self, with_derivatives: bool = False) -> ProgramKey:
        """The key of the program, see `same_program`."""
        if with_derivatives not in self._keys:
            self._keys[with_derivatives] = program_key(self.program.jaxpr, with_derivatives)
        return self._keys[with_derivatives]

    def refuse_beyond_tables(self) -> None:
        """Raise where a table that the model closes over is shorter than an index into it may be."""
        if not self.is_recognised:  # else it was done
            refuse_long_indices(self.program, self.outputs, [self.sites[n] for n in self.inputs])


class Latents(Messenger):
    """Gives each latent site without a value an input of the program.

    Parameters
    ----------
    model : callable
        The model.
    token : array
        What ties inputs to the run.
    given : collection of str
        The names of values that have one in the model and are inputs all the same.
    """

    def __init__(self, model: Callable[..., Any], token: Any, given: Collection[str]) -> None:
        super().__init__(model)
        self.token = token
        self.given = given
        self.outside = jex_core.find_top_trace(())
        self.inputs: dict[str, Any] = {}
        self.free: set[str] = set()
        self.point_masses: set[str] = set()

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "param" and msg["name"] in self.given:
            example = jax.eval_shape(lambda: jnp.asarray(_initial(msg)))
            msg["value"] = self.input_of(msg, example.shape, example.dtype)
        if msg["type"] != "sample":
            return
        check_parameters(msg)
        name, value = msg["name"], msg["value"]
        if value is None and is_point_mass(msg["fn"]):
            self.point_masses.add(name)
        elif value is None:
            self.free.add(name)
            shape = tuple(msg["fn"].shape(msg["kwargs"].get("sample_shape", ())))
            msg["value"] = self.value_of(msg, shape)
        elif name in self.given and not msg["is_observed"]:
            value = jnp.asarray(value)
            msg["value"] = element(msg, self.input_of(msg, value.shape, value.dtype))

    def value_of(self, msg: Message, shape: tuple[int, ...]) -> Any:
        """The value of a free latent site, of this shape in one step."""
        return element(msg, self.input_of(msg, shape, _drawn_type(msg["fn"])))

    def input_of(self, msg: Message, shape: tuple[int, ...], dtype: Any) -> Any:
        """The input for a site, of a scan that for all its steps; a scan runs its body more than once."""
        name = msg["name"]
        if name not in self.inputs:
            lengths = [steps.length for steps in reversed(msg.get("steps", ()))]
            lengths = [] if msg["type"] == "param" else lengths
            with jex_core.set_current_trace(self.outside):
                self.inputs[name] = latent_p.bind(
                    self.token, name=name, shape=(*lengths, *shape), dtype=dtype
                )
        return self.inputs[name]


def _initial(msg: Message) -> Any:
    """The initial value of a parameter that is given another one: only its shape counts."""
    if msg["value"] is not None:
        return msg["value"]
    with isolated(handlers.seed(rng_seed=0)):
        return msg["fn"](*msg["args"], **msg["kwargs"])


def _drawn_type(fn: Any) -> Any:
    """The type of what is drawn from a distribution."""
    base = unwrapped(fn)
    if not fn.is_discrete or isinstance(base, ImproperUniform):  # which cannot be drawn from
        return jnp.result_type(float)
    has_parts = any(isinstance(part, Distribution) for part in vars(base).values())
    if has_parts or type(base).__module__ != discrete.__name__:
        return _type_of_draw(fn)
    numbers = (jnp.result_type(leaf) for leaf in jax.tree.leaves(base))
    kind = (type(base), jnp.result_type(int), *numbers)
    if kind not in _DRAWN_TYPES:
        _DRAWN_TYPES[kind] = _type_of_draw(fn)
    return _DRAWN_TYPES[kind]


_DRAWN_TYPES: dict[tuple[Any, ...], Any] = {}
"""Of NumPyro's own, by those of their parameters; to find one out takes as long as the rest of a statement."""


def _type_of_draw(fn: Any) -> Any:
    # The key is made inside: outside it would be a step of the model's program.
    return jax.eval_shape(lambda: fn.sample(jax.random.key(0))).dtype


class _Run(Recorder, density_trace):
    """Records both the sites and their log densities, and what is stated."""

    def __init__(self, filling: Latents) -> None:
        super().__init__(filling)
        self.statements = Statements()

    def postprocess_message(self, msg: Message) -> None:
        self.statements.add(msg)
        if msg["type"] == "sample" and "density" not in msg:
            check_value_fits(msg)  # a density would fail without the site's name
        super().postprocess_message(msg)

    def differing(self, msg: Message) -> dict[str, Any]:
        kept = density_trace.differing(self, msg) | {"bounds": msg.get("bounds", [])}
        return kept | {"jacobian": msg["jacobian"]} if "jacobian" in msg else kept


class _BareRun(handlers.trace):
    """Records only what is stated."""

    def __init__(self, filling: Latents) -> None:
        super().__init__(filling)
        self.filling = filling
        self.statements = Statements()
        self.messages: list[Message] = []

    def postprocess_message(self, msg: Message) -> None:
        self.statements.add(msg)
        self.messages.append(msg.copy())
        super().postprocess_message(msg)


def record_model(
    model: Callable[..., Any],
    args: Any,
    kwargs: Any,
    given: Collection[str] = (),
    filling: type[Latents] = Latents,
    is_compared: bool = False,
) -> Record:
    """Run a model once.

    Parameters
    ----------
    model : callable
        The model, under whatever handlers fix some of its values.
    args, kwargs
        Its arguments: Python values stay Python values, data stay numbers.
    given : collection of str
        The names for which values will be given: of those that have one in the model, inputs are made, too.
    filling : class of handler
        What gives latent sites their values.
    is_compared : bool
        Whether the sites will be compared with those of later runs (`refuse_changes`).

    Raises
    ------
    ModelError
        For a model that is wrong in itself (see the language), whatever the parameters.
    """
    args, kwargs = as_jax_arrays((args, kwargs))
    return record_run(model, args, kwargs, given, filling, is_compared)[0]


def record_run(
    model: Callable[..., Any],
    args: Any,
    kwargs: Any,
    given: Collection[str] = (),
    filling: type[Latents] = Latents,
    is_compared: bool = False,
) -> tuple[Record, Run | None]:
    """The same with arguments that `as_jax_arrays` has seen; and by what the run is recognised, if it can be."""
    parts = _Parts()

    def flat(run: _Run) -> list[Any]:
        return [*parts.of(run.trace), *run.statements.traced]

    run, traced = _traced(model, args, kwargs, given, filling, _Run, flat)
    return parts.record(run, traced, is_compared), _run(run, traced, len(parts.outputs), given)


@dataclass(frozen=True)
class BareRun:
    """A run of which nothing but its statements was traced."""

    run: Run | None
    """By what it is recognised, if it can be."""
    filling: Latents
    messages: list[Message]
    traced: list[Any]
    """What is traced in the messages."""
    program: jex_core.ClosedJaxpr
    """From latent values to this."""

    def record(self) -> Record:
        """What `record_model` would say of this run, if it can be recognised; the model is not run again."""
        parts, runs = _Parts(), list[_Run]()

        def flat(*values: Any) -> list[Any]:
            runs[:] = [_Run(self.filling)]
            runs[0].trace = {}
            computed = jex_core.jaxpr_as_fun(self.program)(*values)
            found = [*map(_traced_like, self.traced, computed)]
            for msg in self.messages:
                runs[0].postprocess_message(in_place_of(msg, self.traced, found))
            return parts.of(runs[0].trace)

        shapes = [
            jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in self.program.jaxpr.invars
        ]
        with isolated(), numpyro_checks(False):
            traced = written_out(with_data_known(lambda: jax.make_jaxpr(flat)(*shapes)))
        return parts.record(runs[0], traced, is_compared=False)


def _traced_like(traced: Any, found: Any) -> Any:
    """A constant that the run did not know is not known here either: what is known is checked."""
    if not is_concrete(found) or jnp.issubdtype(traced.dtype, jax.dtypes.prng_key):
        return found
    number = np.asarray(found)
    return jnp.asarray(number.item() if traced.weak_type else number.astype(traced.dtype))


def bare_run(
    model: Callable[..., Any], args: Any, kwargs: Any, given: Collection[str] = ()
) -> BareRun:
    """Run a model for what it states alone, which takes less than `record_run`."""
    run, program = _traced(
        model, args, kwargs, given, Latents, _BareRun, lambda run: run.statements.traced
    )
    statements: Statements = run.statements
    found = _run(run, program, 0, given)
    return BareRun(found, run.filling, run.messages, statements.traced, program)


def _traced(
    model: Callable[..., Any],
    args: Any,
    kwargs: Any,
    given: Collection[str],
    filling: type[Latents],
    kind: type[_Run] | type[_BareRun],
    outputs: Callable[[Any], list[Any]],
) -> tuple[Any, jex_core.ClosedJaxpr]:
    """The run, and the program from its latent values to some outputs of it."""
    runs: list[Any] = []

    def flat(token: Any) -> list[Any]:
        runs[:] = [kind(filling(model, token, given))]
        runs[0].get_trace(*args, **kwargs)
        return outputs(runs[0])

    # NumPyro's checks name no site; those of this package do.
    with isolated(), numpyro_checks(False), explaining(model, args, kwargs, given):
        traced = written_out(with_data_known(lambda: jax.make_jaxpr(flat)(jnp.zeros(()))))
    return runs[0], _of_latents(traced, tuple(runs[0].filling.inputs))


def _run(
    run: Any, traced: jex_core.ClosedJaxpr, n_outputs: int, given: Collection[str]
) -> Run | None:
    about = (type(run.filling), tuple(run.filling.inputs), tuple(sorted(given)))
    return run_of(run.statements, _with_outputs(traced, slice(n_outputs, None)), about)


class _Parts:
    """What a record is made of, from a trace with sites and densities, and what is traced of it."""

    def __init__(self) -> None:
        self.outputs: list[Key] = []
        self.stated: Stated | None = None

    def of(self, trace: Trace) -> list[Any]:
        """The outputs of the program."""
        densities = {n: m["density"] for n, m in trace.items() if m["type"] == "sample"}
        densities |= _jacobians(trace)
        recorded = {
            n: m["value"]
            for n, m in trace.items()
            if m["type"] == "deterministic" or "jacobian" in m
        }
        bounds = {
            ("bound", (name, i)): bound
            for name, msg in trace.items()
            for i, bound in enumerate(msg.get("bounds", ()))
        }
        self.stated = Stated.of(densities, recorded)
        self.outputs = [*self.stated.outputs, *bounds]
        return [jnp.asarray(x) for x in (*self.stated.outputs.values(), *bounds.values())]

    def record(self, run: _Run, traced: jex_core.ClosedJaxpr, is_compared: bool) -> Record:
        """The record, once the outputs (and maybe others after them) are traced."""
        assert self.stated is not None
        sites = {name: msg["site"] for name, msg in run.trace.items()}
        if not is_compared:  # what would be has data among it
            sites = {name: replace(site, seen=None) for name, site in sites.items()}
        n_bounds = sum(kind == "bound" for kind, _ in self.outputs)
        if n_bounds:
            numbers = _bounds(_with_outputs(traced, slice(len(self.outputs))), self.outputs)
            for name, (msg, found) in run.bounded.items():
                sites[name] = with_support(sites[name], msg, found, numbers[name])
        warn_of_loops(sites)
        kept = len(self.outputs) - n_bounds
        return Record(
            sites,
            with_complements(_with_outputs(traced, slice(kept))),
            tuple(run.filling.inputs),
            tuple(self.outputs[:kept]),
            self.stated.places,
            self.stated.scale_constants,
        )


def _jacobians(trace: Mapping[str, Message]) -> dict[str, LogDensity]:
    """Those of the transforms that values were made by: outside of all plates and scales, which are the model's."""
    found = {
        f"{name} (Jacobian)": LogDensity(msg["jacobian"], site=name)
        for name, msg in trace.items()
        if "jacobian" in msg
    }
    for name in found.keys() & trace.keys():
        raise ModelError(
            "its name is that of a factor that comes with a transform; give it another.",
            site=name,
        )
    return found


def _of_latents(traced: jex_core.ClosedJaxpr, names: tuple[str, ...]) -> jex_core.ClosedJaxpr:
    """The program whose inputs are what the equations of `latent_p` stand for."""
    jaxpr = traced.jaxpr
    found = {e.params["name"]: e.outvars[0] for e in jaxpr.eqns if e.primitive is latent_p}
    eqns = [eqn for eqn in jaxpr.eqns if eqn.primitive is not latent_p]
    program = jex_core.Jaxpr(
        jaxpr.constvars,
        [found[name] for name in names],
        jaxpr.outvars,
        eqns,
        jaxpr.effects,
        jaxpr.debug_info.with_unknown_names(),
    )
    return jex_core.ClosedJaxpr(program, traced.consts)


def _with_outputs(closed: jex_core.ClosedJaxpr, which: slice) -> jex_core.ClosedJaxpr:
    jaxpr = closed.jaxpr
    about = jaxpr.debug_info.with_unknown_names()
    inputs = jaxpr.constvars, jaxpr.invars
    fewer = jex_core.Jaxpr(*inputs, jaxpr.outvars[which], jaxpr.eqns, jaxpr.effects, about)
    return jex_core.ClosedJaxpr(fewer, closed.consts)


def _bounds(
    program: jex_core.ClosedJaxpr, outputs: list[Key]
) -> Mapping[str, list[np.ndarray | None]]:
    """By site, the numbers behind its bounds, as far as they follow from what is known."""
    numbers: dict[str, list[np.ndarray | None]] = {}
    for (kind, key), number in zip(outputs, known_numbers(program), strict=True):
        if kind == "bound":
            site, _ = cast(tuple[str, int], key)
            numbers.setdefault(site, []).append(number)
    return numbers
