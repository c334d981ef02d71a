"""Capture: a model's log densities as one jaxpr, with what each of them depends on.

The program ``latent values -> {factor name: log density array}`` is traced once. Nothing is
enumerated while tracing: inside the model a discrete variable has exactly the shape it has when it
is sampled, so `T[a][b]`, `where`, `dot` mean what they mean in NumPy. Only afterwards, on the jaxpr,
is it decided which log density must be evaluated over which supports (`dependence`), and how
(`evaluate`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend import core as jex_core

from marginax.density.supports import all_at_once
from marginax.elimination.axes import Axis
from marginax.errors import ModelError
from marginax.graph.blame import blame, unnamed
from marginax.graph.known_data import NEEDS_A_NUMBER, with_data_known
from marginax.graph.recurrence import Mixed, Recurrence, Scope, Stepped, scopes_of
from marginax.graph.sites import Site
from marginax.graph.steps import SteppedValue, evaluate_scan
from marginax.jaxpr.bounds import NOTHING, Known, of_support, refuse_beyond
from marginax.jaxpr.complement import with_complements
from marginax.jaxpr.dependence import Dependence, dependences
from marginax.jaxpr.enumerated import Enumerated, materialise, support_input
from marginax.jaxpr.evaluate import Evaluation, evaluate
from marginax.jaxpr.folding import operand
from marginax.jaxpr.objects import written_out
from marginax.language.plates import CondIndepStackFrame
from marginax.language.scan import Series

Key = tuple[str, Hashable]
"""What an output is, and its name: ("log_density", "obs"), ..."""

CHECKED = ("log_density", "value")
"""The outputs in which no index beyond a table may be used."""

Program = Callable[[dict[str, Any]], Mapping[Key, Any]]


@dataclass(frozen=True)
class Captured:
    """The traced program: plain data that later stages read."""

    jaxpr: jex_core.ClosedJaxpr
    inputs: tuple[str, ...]
    """Names of the latent values, in the order of the jaxpr's inputs."""
    outputs: tuple[Key, ...]
    """What it returns, in the order of the jaxpr's outputs."""
    dependence: Mapping[Key, Dependence]
    """For each output, the latent values it depends on and along which axes."""
    output_shapes: Mapping[Key, tuple[int, ...]]
    scopes: Mapping[Key, Scope | Stepped | Mixed]
    """For each output, the variables that it depends on; of those in a scan, at which steps."""
    recurrences: tuple[Recurrence, ...]
    """The scans whose steps have variables."""

    @property
    def order(self) -> dict[Hashable, int]:
        """The order in which axes of variables stand, those of time before all."""
        scanned = {v: r for r in self.recurrences for v in r.variables.values()}
        axes: list[Axis] = [r.time for r in self.recurrences]
        for name in self.inputs:
            r = scanned.get(name)
            axes += [name] if r is None else [*r.single(name), *r.alike(name)]
        return {axis: i for i, axis in enumerate(axes)}


def capture(program: Program, latents: Mapping[str, Site], enumerated: Collection[str]) -> Captured:
    """Trace a program of latent values and analyse what its outputs depend on.

    Parameters
    ----------
    program : callable
        From a dictionary of latent values to a dictionary of arrays.
    latents : mapping of Site
        The latent values that it takes, with their shapes and types.
    enumerated : collection of str
        The names of those that are summed out.

    Returns
    -------
    Captured

    Raises
    ------
    ModelError
        When the program needs the number behind a latent value (a Python ``if``, ``int(z)``, a
        shape), which no exact enumeration can follow.
    """
    names = tuple(latents)
    outputs: list[Key] = []

    def flat(*values: Any) -> list[Any]:
        result = program(dict(zip(names, values, strict=True)))
        outputs[:] = list(result)
        return [jnp.asarray(value) for value in result.values()]

    abstract = [jax.ShapeDtypeStruct(site.shape, site.dtype) for site in latents.values()]
    try:
        traced = with_data_known(lambda: jax.make_jaxpr(flat)(*abstract))
        jaxpr = with_complements(written_out(traced))
    except NEEDS_A_NUMBER as error:
        examples = {name: _example(site) for name, site in latents.items()}
        found = blame(program, examples, lambda name: latents[name].support is not None, error)
        found = found or unnamed(error)
        if found is None:
            raise
        raise found from error
    return analysed(jaxpr, tuple(outputs), latents, enumerated)


def analysed(
    jaxpr: jex_core.ClosedJaxpr,
    outputs: tuple[Key, ...],
    latents: Mapping[str, Site],
    enumerated: Collection[str],
) -> Captured:
    """What the outputs of a traced program depend on.

    Parameters
    ----------
    jaxpr : ClosedJaxpr
        The program, a function of the latent values.
    outputs : tuple of Key
        What it returns.
    latents : mapping of Site
        The latent values, in the order of its inputs.
    enumerated : collection of str
        The names of those that are summed out.

    Raises
    ------
    ModelError
        Where a table is shorter than an index into it may be, or the steps of a scan cannot be told apart.
    """
    names = tuple(latents)
    refuse_long_indices(jaxpr, outputs, latents.values())
    paths = [{name: tuple(range(len(site.shape)))} for name, site in latents.items()]
    found = dependences(jaxpr.jaxpr, paths)
    shapes = {name: tuple(aval.shape) for name, aval in zip(outputs, jaxpr.out_avals, strict=True)}
    chosen = {i: latents[name] for i, name in enumerate(names) if name in enumerated}
    series = {i: (site.name, _one_series(site)) for i, site in chosen.items() if site.series}
    plain = {i: site.name for i, site in chosen.items() if not site.series}
    scopes = scopes_of(jaxpr.jaxpr, series, plain)
    found_in = {v for r in scopes.recurrences for v in r.variables.values()}
    for variable, _ in series.values():
        if variable not in found_in:
            raise ModelError(
                "its scan stands inside of another function of JAX (jit, cond, vmap), where its steps cannot "
                "be told apart.",
                site=variable,
                advice="Call mx.scan in the model itself; for many series write a plate around it.",
            )
    return Captured(
        jaxpr,
        names,
        outputs,
        dict(zip(outputs, found, strict=True)),
        shapes,
        dict(zip(outputs, scopes.outputs, strict=True)),
        scopes.recurrences,
    )


def refuse_long_indices(
    jaxpr: jex_core.ClosedJaxpr, outputs: Sequence[Key], latents: Iterable[Site]
) -> None:
    """Raise where an index may be beyond a table.

    Parameters
    ----------
    jaxpr : ClosedJaxpr
        The program.
    outputs : sequence of Key
        What it returns.
    latents : iterable of Site
        The latent values that it takes.
    """
    known = [_known(site) for site in latents]
    refuse_beyond(jaxpr, known, [str(n) if kind in CHECKED else None for kind, n in outputs])


def _known(site: Site) -> Known:
    """What is known of a latent value: those that it may have."""
    if site.support is None or np.dtype(site.dtype).kind not in "iub":
        return NOTHING
    support = np.asarray(site.support, site.dtype)
    return of_support(support, len(site.shape) - site.event_dim, site.name)


def _one_series(site: Site) -> Series:
    *inner, series = site.series
    if inner:
        raise ModelError(
            "it is discrete and stated in a scan inside of another scan. Discrete variables are summed out "
            "along one time axis: make the inner steps a Python loop, or one scan of them all.",
            site=site.name,
        )
    return series


def _example(site: Site) -> Any:
    if site.value is not None:
        return np.asarray(site.value)
    value = 0 if site.support is None else site.support[0]
    return np.broadcast_to(np.asarray(value, site.dtype), site.shape)


def evaluate_outputs(
    captured: Captured,
    latents: Mapping[str, Site],
    values: Mapping[str, Any],
    is_wanted: Callable[[Key], bool],
    visit: Callable[[int], None] = lambda size: None,
) -> dict[Key, Enumerated | SteppedValue]:
    """Evaluate the outputs over the supports of the variables that they depend on.

    Recorded values ("value") of enumerated variables are left out: no density needs them, and they
    may depend on many variables at once.

    Parameters
    ----------
    captured : Captured
        The traced program.
    latents : mapping of Site
        Its latent values; those with a ``support`` and without an entry in ``values`` are enumerated.
    values : mapping of arrays
        The values of the others.
    is_wanted : callable
        Which outputs to evaluate.
    visit : callable, optional
        Called with the bytes of each array as it is made.
    """
    inputs = []
    for name in captured.inputs:
        site = latents[name]
        if name in values:
            value = jnp.asarray(values[name], site.dtype)
            inputs.append(Enumerated(value))
        else:
            assert site.support is not None
            support = np.asarray(site.support, site.dtype)  # known while tracing
            ndim_batch = len(site.shape) - site.event_dim
            inputs.append(support_input(support, ndim_batch, name, site.shape))
    order = captured.order
    wanted = [
        i
        for i, key in enumerate(captured.outputs)
        if is_wanted(key)
        and (key[0] != "value" or captured.dependence[key].keys() <= values.keys())
    ]

    def rule(
        evaluation: Evaluation,
        eqn: jex_core.JaxprEqn,
        arguments: list[Enumerated],
        needed: list[bool],
    ) -> Any:
        found = [r for r in captured.recurrences if r.eqn is eqn]
        return evaluate_scan(found[0], arguments, needed, evaluation) if found else None

    results = evaluate(
        captured.jaxpr.jaxpr, captured.jaxpr.consts, inputs, order, wanted, visit, rule
    )
    return dict(zip((captured.outputs[i] for i in wanted), results, strict=True))


def check_plates(
    name: str,
    plates: tuple[CondIndepStackFrame, ...],
    ndim: int,
    dependence: Dependence,
    variables: Mapping[str, Site],
) -> None:
    """Prove that a site may be summed out plate element by plate element, or say why not.

    Parameters
    ----------
    name : str
        The site whose log density is asked about.
    plates : tuple of frames
        The plates around it.
    ndim : int
        The rank of its log density.
    dependence : Dependence
        Of its log density.
    variables : mapping of Site
        The variables that are to be summed out.
    """
    own = {frame.name: frame for frame in plates}
    for variable, path in dependence.items():
        if variable not in variables:
            continue
        site = variables[variable]
        ndim_batch = len(site.shape) - site.event_dim
        for frame in site.plates:
            if frame.name not in own:
                raise ModelError(
                    f"it depends on '{variable}', which lives in the plate '{frame.name}' of size "
                    f"{frame.size}, but stands outside of that plate: it sees all elements at once, so they "
                    "cannot be summed out one by one.",
                    site=name,
                    advice=(
                        f"Move '{name}' into the plate, or take '{variable}' out of "
                        f"it{all_at_once(variable, frame.size, site.support)}."
                    ),
                )
            # The value of a scan's site may come from earlier steps.
            own_value = variable == name and not site.series
            if frame.size == 1 or own_value:
                continue
            axis = path[ndim_batch + frame.dim]
            if axis != ndim + own[frame.name].dim:
                cause = (
                    f"they are mixed by `{axis}`"
                    if isinstance(axis, str)
                    else "they arrive on another axis than the plate's"
                )
                raise ModelError(
                    f"in the plate '{frame.name}' it depends on more than its own element of "
                    f"'{variable}': {cause} on the way. Elements of a plate must be independent.",
                    site=name,
                    advice=(
                        "Use only elementwise steps and indexing by the variable's own value inside the plate, "
                        "or write the dependence without a plate."
                    ),
                )


def named_array(
    value: Enumerated, shape: tuple[int, ...], plates: tuple[CondIndepStackFrame, ...]
) -> Array:
    """A log density with its axes in the order: plates, then variables; other axes are summed.

    A plate along which it is constant keeps size one.
    """
    ndim = len(shape)
    dims = {ndim + frame.dim: frame for frame in plates if -frame.dim <= ndim}
    bare = frozenset(axis for axis in range(ndim) if axis not in dims)
    array = materialise(value, shape, bare).array
    if bare:
        array = jnp.sum(array, axis=tuple(sorted(bare)))
    missing = [i for i, frame in enumerate(plates) if -frame.dim > ndim]
    if isinstance(array, np.ndarray | np.generic):
        return operand(np.expand_dims(array, missing))
    return lax.expand_dims(array, missing) if missing else array
