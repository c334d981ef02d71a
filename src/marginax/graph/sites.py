"""Sites: one immutable record for each statement of a model, from one abstract run.

The run is `jax.eval_shape`: shapes and types flow through the model, no arithmetic happens. A site
that nobody gave a value to (it is not observed, substituted, replayed or conditioned) is *free*;
free sites are what marginalisation sums out, or asks a value for. One exception: a latent `Delta`
is a *point mass*, which leaves nothing open. Integrating over it is putting in its value, so it is run
as it stands, whatever its value depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import ImproperUniform

from marginax.graph.blame import NEEDS_A_NUMBER, blame
from marginax.graph.distribution_layers import distribution_name, is_masked, unwrapped
from marginax.graph.supports import find_support
from marginax.graph.validate import (
    check_observed,
    check_observed_numbers,
    check_parameters,
    is_concrete,
    is_fixed,
    numpyro_checks,
)
from marginax.language import handlers
from marginax.language.errors import ModelError
from marginax.language.masked import refuse_masked_arguments
from marginax.language.plates import CondIndepStackFrame
from marginax.language.scan import Series
from marginax.language.stack import Message, is_point_mass, isolated


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


class _Draft(handlers.seed):
    """A seed that remembers which latent sites had no value."""

    def __init__(self, fn: Callable[..., Any], key: Any) -> None:
        super().__init__(fn, rng_seed=key)
        self.free: set[str] = set()
        self.point_masses: set[str] = set()

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "sample":
            check_parameters(msg)
            if msg["value"] is None and isinstance(unwrapped(msg["fn"]), ImproperUniform):
                # It cannot be drawn from; its shape is all that is wanted here.
                self.free.add(msg["name"])
                msg["value"] = msg["fn"].support.feasible_like(jnp.zeros(msg["fn"].shape()))
            elif msg["value"] is None:
                kind = self.point_masses if is_point_mass(msg["fn"]) else self.free
                kind.add(msg["name"])
        super().process_message(msg)


class _Recorder(handlers.trace):
    """Records of each message what is known of it as a `Site`, where it is stated."""

    def __init__(self, draft: _Draft) -> None:
        super().__init__(draft)
        self.draft = draft

    def postprocess_message(self, msg: Message) -> None:
        if msg.get("name") is None:
            return
        if "site" not in msg:  # otherwise it comes from a scan, and was recorded there
            free, points = self.draft.free, self.draft.point_masses
            msg["site"] = _record(msg, msg["name"] in free, msg["name"] in points)
        elif msg.get("series"):
            msg["site"] = _of_series(msg, msg["site"])
        super().postprocess_message(msg)

    def differing(self, msg: Message) -> dict[str, Any]:
        return {"value": msg["value"]}


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
    """A model's arguments with NumPy's arrays as JAX's, which variables can index."""
    refuse_masked_arguments(arguments)

    def convert(leaf: Any) -> Any:
        is_numeric = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"
        return jnp.asarray(np.asarray(leaf)) if is_numeric else leaf

    with jax.ensure_compile_time_eval():  # numbers stay numbers, also while something is traced
        return jax.tree.map(convert, arguments)


def collect_sites(model: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Site]:
    """Run a model abstractly and return its sites by name, in the order of the run.

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
    args, kwargs = as_jax_arrays((args, kwargs))
    sites: dict[str, Site] = {}

    def run(key: Any) -> None:
        recorder = _Recorder(_Draft(model, key))
        for name, msg in recorder.get_trace(*args, **kwargs).items():
            sites[name] = msg["site"]

    with isolated(), numpyro_checks(False):  # they name no site; those of this package do
        try:
            jax.eval_shape(run, jax.random.key(0))
        except NEEDS_A_NUMBER as error:
            found = _blamed(model, args, kwargs, error)
            if found is None:
                raise
            raise found from error
    return sites


def _blamed(
    model: Callable[..., Any], args: Any, kwargs: Any, error: Exception
) -> ModelError | None:
    """Run the model with numbers, to learn which of its latent values the error comes from."""

    def number(leaf: Any) -> Any:
        return np.ones(leaf.shape, leaf.dtype) if isinstance(leaf, Tracer) else leaf

    try:
        with jax.ensure_compile_time_eval():
            args, kwargs = jax.tree.map(number, (args, kwargs))
            draft = _Draft(model, jax.random.key(0))
            trace = handlers.trace(draft).get_trace(*args, **kwargs)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None  # it does not run with numbers either

    def run(values: dict[str, Any]) -> None:
        handlers.trace(handlers.substitute(model, data=values)).get_trace(*args, **kwargs)

    examples = {name: trace[name]["value"] for name in trace if name in draft.free}
    return blame(run, examples, lambda name: trace[name]["fn"].has_enumerate_support, error)


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
    discrete = is_free and fn.is_discrete
    support, reason = find_support(msg) if discrete else (None, "")
    if support is not None:
        _check_batch_is_plates(msg, common["shape"], common["plates"])
    return Site(
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
        support=None if support is None else support.values,
        cut=(False, False) if support is None else (support.cut_below, support.cut_above),
        not_enumerated_because=reason,
        value=value if is_fixed_latent and is_concrete(value) else None,
        constraint=fn.support if is_fixed(fn.support) else None,
    )


def _check_batch_is_plates(
    msg: Message, value_shape: tuple[int, ...], plates: tuple[CondIndepStackFrame, ...]
) -> None:
    """Each element of an enumerated site must belong to a plate, or be part of an event."""
    shape = value_shape[: len(value_shape) - msg["fn"].event_dim]  # with its sample_shape
    dims = {frame.dim for frame in plates}
    for dim in range(-len(shape), 0):
        if shape[dim] != 1 and dim not in dims:
            raise ModelError(
                f"site '{msg['name']}': it is discrete and latent with batch shape {shape}, but "
                f"dimension {dim} of size {shape[dim]} belongs to no plate, so its elements cannot be "
                f"summed out one by one. Write `with plate('name', {shape[dim]}):` around it."
            )
