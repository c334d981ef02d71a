"""Sites: one immutable record for each statement of a model, from one abstract run.

Shapes and types flow through the model, no arithmetic happens: the run is `jax.make_jaxpr`, here or where it
records the densities as well (`record.py`). A site
that nobody gave a value to (it is not observed, substituted, replayed or conditioned) is *free*;
free sites are what marginalisation sums out, or asks a value for. One exception: a latent `Delta`
is a *point mass*, which leaves nothing open. Integrating over it is putting in its value, so it is run
as it stands, whatever its value depends on.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.extend import core as jex_core

from marginax.arrays.arguments import argument_name, as_array, is_list_of_numbers
from marginax.arrays.masked import refuse_masked
from marginax.arrays.narrowing import check_narrowing
from marginax.density.distribution_layers import distribution_name, is_masked
from marginax.density.supports import bounds_of, find_support, traced_bounds
from marginax.density.true_supports import support_of
from marginax.density.validate import (
    check_observed,
    check_observed_numbers,
    is_fixed,
    numpyro_checks,
)
from marginax.errors import ModelError
from marginax.graph.draft import Draft, Start
from marginax.graph.explaining import explaining
from marginax.graph.known_data import with_data_known
from marginax.graph.same_sites import Seen, refuse_changes, seen
from marginax.jaxpr.concrete import is_concrete
from marginax.jaxpr.known_values import known_numbers
from marginax.jaxpr.objects import written_out
from marginax.language import handlers
from marginax.language.plates import CondIndepStackFrame
from marginax.language.scan import Series
from marginax.language.stack import Message, isolated


@dataclass(frozen=True)
class Site:
    """What is known of a site before any number is computed."""

    name: str
    kind: str
    """``"sample"``, ``"param"``, ``"deterministic"`` or ``"plate"``."""
    shape: tuple[int, ...]
    dtype: Any
    plates: tuple[CondIndepStackFrame, ...] = ()
    """The plates around it, outermost (leftmost) dimension first."""
    given_steps: int = 0
    """How many of its steps have a value, where that is not all."""
    series: tuple[Series, ...] = ()
    """The scans that it is stated in, innermost first; each has an axis, the outermost the first."""
    distribution: str = ""
    batch_shape: tuple[int, ...] = ()
    event_dim: int = 0
    is_observed: bool = False
    is_free: bool = False
    is_point_mass: bool = False
    """Whether it is latent but has one possible value, which follows from what it depends on."""
    is_auxiliary: bool = False
    """Whether it is a `factor`, which observes nothing."""
    is_discrete: bool = False
    is_masked: bool = False
    support: np.ndarray | None = None
    """The values to sum over, shape ``(K, *event_shape)``; None where it is not summed out."""
    cut: tuple[bool, bool] = (False, False)
    """Whether the distribution allows values below the smallest, or above the largest of these."""
    not_enumerated_because: str = ""
    """Why a free discrete site is not summed out."""
    value: Any = None
    """The number that a handler inside has fixed a latent site or a parameter to, if it is one."""
    constraint: Any = None
    """Where a free site's (or a parameter's) value lives, if that is known while tracing."""
    seen: Seen | None = None
    """What is compared with later runs."""


class ManySitesWarning(UserWarning):
    """A Python loop states so many discrete sites that compiling the model takes long."""


MANY = 200
"""Sites of one loop, beyond which a program takes long to compile (400 of a chain: half a minute)."""


class Recorder(handlers.trace):
    """Records of each message what is known of it as a `Site`, where it is stated.

    Parameters
    ----------
    filling : Messenger
        The model, under the handler that gives its latent sites values. It remembers which sites those were, in its
        sets ``free`` and ``point_masses``.
    """

    def __init__(self, filling: Any) -> None:
        super().__init__(filling)
        self.filling = filling
        self.bounded: dict[str, tuple[Message, Any]] = {}
        """The sites, as they are stated in one step, whose bounds may be looked up, and these (`bounds_of`)."""

    def postprocess_message(self, msg: Message) -> None:
        if msg.get("name") is None:
            return
        if "site" not in msg:  # otherwise it comes from a scan, and was recorded there
            name, points = msg["name"], self.filling.point_masses
            is_free = name in self.filling.free
            if is_free and msg["fn"].is_discrete:
                bounds = bounds_of(msg)
                msg["bounds"] = traced_bounds(bounds)
                if msg["bounds"]:
                    self.bounded[name] = msg.copy(), bounds
            msg["site"] = _record(msg, is_free, name in points)
        elif msg.get("series"):
            msg["site"] = _of_series(msg, msg["site"])
        msg["site"] = replace(msg["site"], seen=seen(msg))
        super().postprocess_message(msg)

    def differing(self, msg: Message) -> dict[str, Any]:
        return {"value": msg["value"], "bounds": msg.get("bounds", [])}


def _of_series(msg: Message, site: Site) -> Site:
    """The site of all steps of a scan, from that of one step."""
    value = msg["value"]
    if site.is_observed and not site.is_masked and is_concrete(value):
        check_observed_numbers(site.name, np.asarray(value), site.constraint)
    return replace(
        site,
        shape=jnp.shape(value),
        batch_shape=(msg["series"][-1].length, *site.batch_shape),
        series=msg["series"],
    )


def as_jax_arrays(arguments: Any) -> Any:
    """A model's arguments with arrays, columns and lists of numbers as JAX's arrays, which variables can index.

    Raises
    ------
    ModelError
        For an iterator: the first run of a model uses it up, and it is run more than once. For a
        masked array.
    """

    def convert(path: Any, leaf: Any) -> Any:
        name = argument_name(path)
        if isinstance(leaf, Iterator):
            raise ModelError(
                f"the model's argument {name} is a {type(leaf).__name__}, which can be gone through but once, "
                "and a model is run more than once.",
                advice="Make a list of it: list(rows).",
            )
        refuse_masked(f"the model's argument {name}", leaf)
        leaf = as_array(leaf, name)
        if isinstance(leaf, np.ndarray | np.generic):
            check_narrowing(f"the model's argument {name}", leaf)
        is_numeric = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"
        return jnp.asarray(np.asarray(leaf)) if is_numeric else leaf

    with jax.ensure_compile_time_eval():  # numbers stay numbers, also while something is traced
        return jax.tree.map_with_path(
            convert,
            arguments,
            is_leaf=lambda node: isinstance(node, Iterator) or is_list_of_numbers(node),
        )


def collect_sites(model: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Site]:
    """Run a model abstractly and return its sites by name, in the order of the run.

    It is run twice, to see that it states the same each time.

    Parameters
    ----------
    model : callable
        The model, under whatever handlers fix some of its values.
    *args, **kwargs
        Its arguments, as they are: Python values stay Python values, data stay numbers.

    Returns
    -------
    dict of Site

    Raises
    ------
    ModelError
        For a model that is wrong in itself (see the language), whatever the parameters.
    """
    sites = collect_sites_once(model, *args, **kwargs)
    refuse_changes(seen_in(sites), seen_in(collect_sites_once(model, *args, **kwargs)))
    return sites


def seen_in(sites: Mapping[str, Site]) -> dict[str, Seen]:
    """What of sites is compared with later runs."""
    return {name: site.seen for name, site in sites.items() if site.seen is not None}


def collect_sites_once(model: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Site]:
    """Like `collect_sites`, where the run that comes next is compared with this one (`refuse_changes`)."""
    return run_once(model, args, kwargs).sites


@dataclass(frozen=True)
class AbstractRun:
    """What one abstract run of a model says."""

    sites: dict[str, Site]
    start: Callable[[Any, Any, Any], dict[str, Array]]
    """From a random key, and the model's arguments, to the values of the sites that begin somewhere."""
    started: set[str]
    """These sites."""


def run_once(
    model: Callable[..., Any], args: Any, kwargs: Any, start: Start | None = None, key: Any = None
) -> AbstractRun:
    """Run a model abstractly.

    Parameters
    ----------
    model : callable
        The model, under whatever handlers fix some of its values.
    args, kwargs
        Its arguments, as they are.
    start : callable, optional
        Where continuous sites begin that are present with all their elements; without, they are drawn.
    key : PRNG key, optional
        One like those that the values will be asked with.

    Raises
    ------
    ModelError
        For a model that is wrong in itself (see the language), whatever the parameters.
    """
    args, kwargs = as_jax_arrays((args, kwargs))
    leaves, structure = jax.tree.flatten((args, kwargs))
    is_traced = [isinstance(leaf, Tracer) for leaf in leaves]
    recorders: list[Recorder] = []

    def traced_in(leaves: list[Any]) -> list[Any]:
        return [leaf for leaf, traced in zip(leaves, is_traced, strict=True) if traced]

    def run(key: Any, yes: Any, traced: list[Any]) -> tuple[dict[str, list[Any]], dict[str, Array]]:
        again = iter(traced)
        whole = [next(again) if t else leaf for leaf, t in zip(leaves, is_traced, strict=True)]
        args, kwargs = jax.tree.unflatten(structure, whole)
        recorder = Recorder(Draft(model, key, start, yes))
        trace = recorder.get_trace(*args, **kwargs)
        recorders[:] = [recorder]
        bounds = {name: msg["bounds"] for name, msg in trace.items() if msg.get("bounds")}
        return bounds, {name: trace[name]["value"] for name in recorder.filling.started}

    # NumPyro's checks name no site; those of this package do.
    with isolated(), numpyro_checks(False), explaining(model, args, kwargs):
        trace = jax.make_jaxpr(run, return_shape=True)
        key = jax.random.key(0) if key is None else key
        program, shapes = with_data_known(lambda: trace(key, True, traced_in(leaves)))
    (recorder,), outputs = recorders, jax.tree.structure(shapes)
    sites = {name: msg["site"] for name, msg in recorder.trace.items()}
    if shapes[0]:  # bounds that are traced may follow from constants all the same
        numbers, _ = jax.tree.unflatten(outputs, known_numbers(written_out(program)))
        for name, (msg, bounds) in recorder.bounded.items():
            sites[name] = with_support(sites[name], msg, bounds, numbers[name])
    warn_of_loops(sites)

    def values(key: Any, args: Any, kwargs: Any) -> dict[str, Array]:
        arguments = (key, True, *traced_in(jax.tree.leaves((args, kwargs))))
        return jax.tree.unflatten(outputs, jex_core.jaxpr_as_fun(program)(*arguments))[1]

    return AbstractRun(sites, values, set(recorder.filling.started))


def warn_of_loops(sites: Mapping[str, Site]) -> None:
    """Point to `scan` where a Python loop states more sites than a program should have."""
    numbered = Counter(
        name.rstrip("0123456789")
        for name, site in sites.items()
        if site.support is not None and name[-1:].isdigit()
    )
    for stem, count in numbered.items():
        if count > MANY:
            warnings.warn(
                f"the sites '{stem}...' are {count} discrete variables that a Python loop states one by one. Each "
                "becomes a part of the compiled program, which may take minutes to compile. Write the loop as mx.scan "
                "if each depends on the one before, as a plate if they do not depend on each other.",
                ManySitesWarning,
                stacklevel=3,
            )


def _record(msg: Message, is_free: bool, is_point: bool) -> Site:
    value = msg["value"]
    common: dict[str, Any] = {
        "name": msg["name"],
        "kind": msg["type"],
        "shape": jnp.shape(value) if msg["type"] != "plate" else (msg["args"][0],),
        "dtype": jnp.result_type(value) if value is not None else None,
        "plates": tuple(sorted(msg["cond_indep_stack"], key=lambda frame: frame.dim)),
    }
    if msg["type"] != "sample":
        constraint = msg.get("kwargs", {}).get("constraint") if msg["type"] == "param" else None
        fixed = value if msg["type"] == "param" and is_concrete(value) else None
        return Site(**common, constraint=constraint, value=fixed)
    fn = msg["fn"]
    check_observed(msg)
    is_fixed_latent = not (is_free or is_point or msg["is_observed"])
    support = support_of(fn)
    site = Site(
        **common,
        distribution=distribution_name(fn),
        batch_shape=tuple(fn.batch_shape),
        event_dim=fn.event_dim,
        is_observed=msg["is_observed"],
        given_steps=msg["infer"].get("given_steps", 0),
        is_auxiliary=bool(msg["infer"].get("is_auxiliary")),
        is_free=is_free,
        is_point_mass=is_point,
        is_discrete=fn.is_discrete,
        is_masked=is_masked(fn),
        value=value if is_fixed_latent and is_concrete(value) else None,
        constraint=support if is_fixed(support) else None,
    )
    return with_support(site, msg, bounds_of(msg)) if is_free and fn.is_discrete else site


def with_support(
    site: Site, msg: Message, bounds: Any, numbers: Sequence[Any] | None = None
) -> Site:
    """A free discrete site with the values that it is summed over, or why it is not.

    Parameters
    ----------
    site : Site
        What else is known of it.
    msg : dict
        Its message; of a site in a scan, that of one step.
    bounds
        What `bounds_of` said of it while it was traced.
    numbers : sequence, optional
        For each of its `traced_bounds` the number, if it is known; without, they are not looked up yet.
    """
    values, reason = find_support(msg, bounds, numbers)
    if values is None:
        return replace(site, not_enumerated_because=reason)
    _check_batch_is_plates(msg, jnp.shape(msg["value"]), site.plates)
    cut = values.cut_below, values.cut_above
    return replace(site, support=values.values, cut=cut, not_enumerated_because="")


def _check_batch_is_plates(
    msg: Message, value_shape: tuple[int, ...], plates: tuple[CondIndepStackFrame, ...]
) -> None:
    """Each element of an enumerated site must belong to a plate, or be part of an event."""
    shape = value_shape[: len(value_shape) - msg["fn"].event_dim]  # with its sample_shape
    dims = {frame.dim for frame in plates}
    for dim in range(-len(shape), 0):
        if shape[dim] != 1 and dim not in dims:
            raise ModelError(
                f"it is discrete and latent with batch shape {shape}, but dimension {dim} of size "
                f"{shape[dim]} belongs to no plate, so its elements cannot be summed out one by one.",
                site=msg["name"],
                advice=f"Write `with plate('name', {shape[dim]}):` around it.",
            )
