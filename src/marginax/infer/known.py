"""What a run of an algorithm knows of its model: found out once, at its start, and handed to all of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from marginax.graph.record import Record
from marginax.graph.sites import (
    Site,
    as_jax_arrays,
    collect_sites,
    collect_sites_once,
    run_once,
)
from marginax.infer.start.initialization import InitStrategy, initial_value
from marginax.language.plates import CondIndepStackFrame
from marginax.language.primitives import prng_key
from marginax.language.stack import Message, Messenger, active_handlers
from marginax.marginal.prepared import Prepared, prepare_record


@dataclass(frozen=True)
class Start:
    """Where the continuous latent sites of a model begin."""

    strategy: InitStrategy
    values: Callable[[Any, Any, Any], dict[str, Array]]
    """From a random key and the model's arguments to values by site."""


@dataclass(frozen=True)
class KnownModel:
    """A model with its arguments, and its sites."""

    model: Callable[..., Any]
    args: Any
    kwargs: Any
    sites: Mapping[str, Site]
    record: Record | None = None
    """Of its run, where that was one for its density (`target.know_unconstrained`)."""
    start: Start | None = None
    """Where it begins, if its run has said so."""

    def prepare(self, values: Mapping[str, Any], memory_limit: int | None = None) -> Prepared:
        """Its graph and plan, given values that fit its sites; free sites without one are summed out."""
        assert self.record is not None
        return prepare_record(self.record, values, memory_limit)

    @property
    def continuous(self) -> dict[str, Site]:
        """The latent sites that have no value and are not discrete."""
        return {n: s for n, s in self.sites.items() if s.is_free and not s.is_discrete}

    @property
    def is_local(self) -> bool:
        """Whether a continuous latent site stands in a subsampled plate, so that some elements are absent."""
        return any(f.size != f.full_size for s in self.continuous.values() for f in s.plates)

    @property
    def has_cuts(self) -> bool:
        """Whether a site states a range for an infinite support."""
        return any(any(site.cut) for site in self.sites.values())


def know_surely(model: Callable[..., Any], args: Any, kwargs: Any) -> KnownModel:
    """Like `know`, where nobody compares later: the model is run twice, and must state the same each time."""
    args, kwargs = as_jax_arrays((args, kwargs))
    return KnownModel(model, args, kwargs, collect_sites(model, *args, **kwargs))


def know(model: Callable[..., Any], args: Any, kwargs: Any) -> KnownModel:
    """Run a model abstractly for its sites; whoever runs it next compares (`refuse_changes`).

    Parameters
    ----------
    model : callable
        The model, under whatever handlers fix some of its values.
    args, kwargs
        Its arguments.

    Raises
    ------
    ModelError
        For a model that is wrong in itself, whatever the parameters.
    """
    args, kwargs = as_jax_arrays((args, kwargs))
    return KnownModel(model, args, kwargs, collect_sites_once(model, *args, **kwargs))


def know_at_start(
    model: Callable[..., Any], args: Any, kwargs: Any, strategy: InitStrategy, key: Any
) -> KnownModel:
    """Like `know`, in a run at the model's initial values, so that these are known, too.

    Not where elements of a site are absent; they begin somewhere as well, which takes another run.

    Parameters
    ----------
    model, args, kwargs
        See `know`.
    strategy : callable
        A function of a site that says where it begins.
    key : PRNG key
        One like those that the values will be asked with.
    """

    def begin(site: Message) -> Array | None:
        try:
            return initial_value(strategy, site)
        except NotImplementedError:  # of a support without bijection; who needs one says so
            return None

    args, kwargs = as_jax_arrays((args, kwargs))
    run = run_once(model, args, kwargs, begin, key)
    known = KnownModel(model, args, kwargs, run.sites)
    all_begin = run.started == set(known.continuous)
    return replace(known, start=Start(strategy, run.start)) if all_begin else known


@dataclass(frozen=True)
class Stated:
    """A `param` as it is stated."""

    name: str
    event_dim: int | None
    plates: tuple[CondIndepStackFrame, ...]
    shape: tuple[int, ...]


class AnyParameters(Messenger):
    """Gives parameters values that are traced, for sites as they are whatever the parameters will be.

    Parameters
    ----------
    fn : callable
        A model or a guide, under a seed.
    stated : list of Stated
        Those that it states are added.
    """

    def __init__(self, fn: Callable[..., Any], stated: list[Stated]) -> None:
        super().__init__(fn)
        self.stated = stated

    def process_message(self, msg: Message) -> None:
        if msg["type"] != "param":
            return
        if msg["value"] is None:
            value = jnp.asarray(msg["fn"](), jnp.result_type(float))
            msg["value"] = jnp.where(jax.random.uniform(prng_key()) < 2.0, value, 0.0)
        event_dim, plates = msg["kwargs"].get("event_dim"), tuple(msg["cond_indep_stack"])
        self.stated.append(Stated(msg["name"], event_dim, plates, jnp.shape(msg["value"])))


class Knowing(Messenger):
    """Around a guide: what automatic guides inside ask of their models is found out once.

    Parameters
    ----------
    fn : callable
        The guide.
    found : list of KnownModel
        What is known; what is asked for the first time is added.
    later : PRNG key, optional
        One like those that initial values will be asked with, later; now only their shapes count.
    """

    def __init__(self, fn: Callable[..., Any], found: list[KnownModel], later: Any = None) -> None:
        super().__init__(fn)
        self.found = found
        self.later = later
        self.stated: list[Stated] = []

    def know(
        self,
        model: Callable[..., Any],
        args: Any,
        kwargs: Any,
        strategy: InitStrategy | None = None,
    ) -> KnownModel:
        """The model, with whatever parameters of its own, and perhaps with where it begins."""
        args, kwargs = as_jax_arrays((args, kwargs))
        for known in self.found:
            if known.model is model and _are_like((args, kwargs), (known.args, known.kwargs)):
                return replace(known, args=args, kwargs=kwargs)
        run = AnyParameters(model, self.stated)
        if strategy is None or self.later is None:
            known = know(run, args, kwargs)
        else:
            known = know_at_start(run, args, kwargs, strategy, self.later)
        known = replace(known, model=model)
        # A traced array means nothing once its trace is over; sites do not depend on its numbers.
        shapes = jax.tree.map(_without_numbers, (args, kwargs))
        self.found.append(replace(known, args=shapes[0], kwargs=shapes[1]))
        return known


def knowing() -> Knowing | None:
    """The handler that answers for models here, if there is one."""
    return next((h for h in reversed(active_handlers()) if isinstance(h, Knowing)), None)


def _without_numbers(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, Tracer) else leaf


def _are_like(arguments: Any, known: Any) -> bool:
    """Whether arguments are those that something is known for."""
    leaves, structure = jax.tree.flatten(arguments)
    others, other_structure = jax.tree.flatten(known)
    return structure == other_structure and all(map(_is_like, leaves, others))


def _is_like(leaf: Any, known: Any) -> bool:
    if not isinstance(known, jax.ShapeDtypeStruct):
        return leaf is known
    is_array = isinstance(leaf, jax.Array)
    return is_array and (leaf.shape, leaf.dtype) == (known.shape, known.dtype)
