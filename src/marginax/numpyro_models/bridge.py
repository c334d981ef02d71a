"""`from_numpyro`: a model that is written in NumPyro, as it stands, as a model of this library.

NumPyro has a handler stack of its own, which works as the one here does (`language/stack.py`). While a
translated model runs there are two stacks, and a statement of NumPyro travels through both::

    numpyro.sample("x", ...)
        |  NumPyro's handlers that the model has entered: its plates, masks, scales, ...
        v
    _Bridge, the outermost of them: the message stops, and its statement is made here instead
        |  _AsStated, the innermost handler of this library: puts on the new message what
        |  NumPyro's handlers did to the old one
        v
    the handlers around the model: those of `marginalize`, of SVI, a user's own
        |
        v
    the value, which goes back inwards through NumPyro's handlers to the model

The hard thing is that nothing that NumPyro's handlers did may be lost. What they leave in the distribution
(its shape, a mask) and in the other entries of a message travels with it. Two things do not: how many
elements a subsampled plate stands for, and in which order scales nest, of which a message has only the
product. They are read off the handlers themselves, on NumPyro's stack; a scale that they do not explain
is refused. A scan is a world of its own: see `steps`.

Statements of this library may stand in the same model wherever no handler of NumPyro's would have to see
them; `_Watch` refuses the others.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpyro
from jax.core import Tracer
from numpyro import handlers as theirs

# NumPyro has no public name for its stack, which is a list, outermost handler first; nor for its frames.
from numpyro.primitives import (
    _PYRO_STACK,
    CondIndepStackFrame as TheirFrame,
    Messenger as TheirMessenger,
)

from marginax.errors import ModelError
from marginax.language import handlers
from marginax.language.plates import CondIndepStackFrame, plate
from marginax.language.primitives import deterministic, param, prng_key, sample, subsample
from marginax.language.stack import (
    Companion,
    Message,
    Messenger,
    accompanied_by,
    active_handlers,
    one_at_a_time,
)
from marginax.numpyro_models.steps import OfOneStep, control_flow

_TRANSLATED: Literal["from_numpyro"] = "from_numpyro"
"""The key of a message that says that it stands for one of NumPyro's."""


def from_numpyro(model: Callable[..., Any]) -> Callable[..., Any]:
    """Take a model (or guide) that is written in NumPyro as it stands.

    Its latent sites with finitely many values are then summed out as in any model here: their values have
    the shape that they are sampled with, without enumeration dimensions.

    Parameters
    ----------
    model : callable
        A function that states sites with ``numpyro.sample``, ``param``, ``plate``, ``plate_stack``,
        ``deterministic``, ``factor``, ``subsample``, ``prng_key`` and
        ``numpyro.contrib.control_flow.scan``, also under NumPyro's handlers, within the function or around
        it (``from_numpyro(numpyro.handlers.condition(model, data))``).

    Returns
    -------
    callable
        A model with the same arguments, result, sites and shapes, for everything here that takes one. It
        may be part of a larger model, whose plates must leave it the dimensions that it names with
        ``dim=``.

    Raises
    ------
    TypeError
        When ``model`` is not a function, or an automatic guide of NumPyro.
    ModelError
        When the model runs, for what has no translation: ``cond``, neural network modules, ``mutable``,
        some handlers around a ``scan``, a scale set by a handler of one's own, and statements of this
        library or a whole translated model inside NumPyro's handlers, which do not see them.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import numpyro
    >>> from numpyro import distributions as dist
    >>> def mixture(data):
    ...     locs = numpyro.sample("locs", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    ...     with numpyro.plate("data", len(data)):
    ...         z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
    ...         numpyro.sample("obs", dist.Normal(locs[z], 1.0), obs=data)
    >>> m = mx.marginalize(mx.from_numpyro(mixture))
    >>> m.mode({"locs": jnp.array([0.0, 5.0])}, jnp.array([0.3, 4.0, 6.0]))["z"]
    Array([0, 1, 1], dtype=int32)
    """
    if not callable(model):
        raise TypeError(f"from_numpyro: the model must be a function, not {_kind(model)}.")
    _check_is_no_guide_of_numpyro(model)

    @functools.wraps(model, updated=())
    def translated(*args: Any, **kwargs: Any) -> Any:
        return _run(model, args, kwargs)

    return translated


def _check_is_no_guide_of_numpyro(model: Any) -> None:
    if isinstance(model, numpyro.infer.autoguide.AutoGuide):
        raise TypeError(
            "an automatic guide of NumPyro knows NumPyro's model; write "
            f"marginax.infer.autoguide.{_kind(model)}(model)."
        )


def _run(model: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a model with a bridge for what it states in NumPyro's words."""
    with one_at_a_time:
        if _serving() is not None:
            return model(*args, **kwargs)
        _check_nothing_is_around()
        bridge = _Bridge()
        with bridge, bridge.watch:
            return model(*args, **kwargs)


def _serving() -> _Bridge | None:
    """The bridge that serves the run that is going on, where there is one."""
    bridges = [handler for handler in _PYRO_STACK if isinstance(handler, _Bridge)]
    return bridges[-1] if bridges and bridges[-1].watch in active_handlers() else None


class _NumPyro(Companion):
    """Puts a bridge under every model that runs under handlers of this library."""

    def run(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """See `Companion.run`."""
        _check_is_no_guide_of_numpyro(fn)
        if not one_at_a_time.acquire(blocking=False):  # a model of another thread has the bridge
            return fn(*args, **kwargs)
        try:
            return _run(fn, args, kwargs)
        finally:
            one_at_a_time.release()

    def check_entering(self, handler: Messenger) -> None:
        """A statement of NumPyro's passes its own handlers first, whichever was entered first."""
        bridge = _serving() if _PYRO_STACK else None
        if bridge is None or bridge.is_translating or bridge.enters_a_series():
            return
        inside = bridge.inside()
        plates_alone = all(isinstance(other, numpyro.plate) for other in inside)
        if inside and not (
            (isinstance(handler, plate | handlers.mask) and _are(inside, _IN_ANY_ORDER))
            or (isinstance(handler, _WITHIN_PLATES) and plates_alone)
        ):
            ours = _kind(handler)
            raise ModelError(
                f"marginax's {ours} is entered inside numpyro's {_kind(inside[-1])}, which does not see what it "
                f"does. {_advice(inside[-1])}"
            )

    def check_nobody_else_listens(self) -> None:
        """See `Companion.check_nobody_else_listens`."""
        if _PYRO_STACK and not isinstance(_PYRO_STACK[-1], _Bridge):
            handler = _PYRO_STACK[-1]
            raise ModelError(
                f"a statement of marginax stands inside numpyro's {_kind(handler)}, which does not see it. "
                f"{_advice(handler)} NumPyro's own inference takes models that are written in NumPyro."
            )


_IN_ANY_ORDER = (
    numpyro.plate,
    theirs.condition,
    theirs.infer_config,
    theirs.mask,
    theirs.scale,
    theirs.seed,
    theirs.substitute,
    theirs.uncondition,
)
"""Handlers of NumPyro's that come to the same inside a plate or a mask of this library as around it."""

_WITHIN_PLATES = (
    handlers.condition,
    handlers.infer_config,
    handlers.replay,
    handlers.scale,
    handlers.seed,
    handlers.substitute,
    handlers.trace,
    handlers.uncondition,
)
"""Handlers of this library that come to the same inside a plate of NumPyro's as around it."""


def _are(things: list[Any], kinds: tuple[type, ...]) -> bool:
    return all(isinstance(thing, kinds) for thing in things)


def _advice(handler: Any) -> str:
    """What to write instead of one of NumPyro's handlers around statements of this library."""
    kind = _kind(handler)
    if isinstance(handler, numpyro.plate):
        return "Write mx.plate instead, or all that stands inside it with numpyro."
    if hasattr(handlers, kind):
        return f"Write mx.handlers.{kind} instead, or all that stands inside it with numpyro."
    return "Write all that stands inside it with numpyro, or leave it out."


def _check_nothing_is_around() -> None:
    # A bridge on top belongs to another run, in whose model an inference of this library is called.
    if _PYRO_STACK and not isinstance(_PYRO_STACK[-1], _Bridge):
        raise ModelError(
            f"from_numpyro: the model is run inside numpyro's {_kind(_PYRO_STACK[-1])}, which does not see "
            "its sites.",
            advice=(
                "Put NumPyro's handlers around the model itself, from_numpyro(handler(model, ...)), or use "
                "marginax.handlers. NumPyro's own inference takes the model itself."
            ),
        )


class _Bridge(TheirMessenger):
    """The outermost of NumPyro's handlers: makes each statement here instead, and gives back its value."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = _Watch(self)
        self.thread = threading.get_ident()
        self.scans = 0
        """How many scans the statement being translated stands in."""
        self.is_translating = False
        """Whether a statement is being translated that has nothing of the model inside."""

    def inside(self) -> list[Any]:
        """NumPyro's handlers that the model has entered, outermost first."""
        inner = _PYRO_STACK[_PYRO_STACK.index(self) + 1 :]
        return [handler for handler in inner if not isinstance(handler, OfOneStep)]

    def enters_a_series(self) -> bool:
        """Whether a scan is being translated whose body has not begun."""
        steps = [h for h in _PYRO_STACK[_PYRO_STACK.index(self) :] if isinstance(h, OfOneStep)]
        return len(steps) < self.scans

    def process_message(self, msg: Message) -> None:
        if self.thread != threading.get_ident():
            raise ModelError(
                "NumPyro has one stack for all threads, and a model runs in another thread just now.",
                site=msg.get("name"),
                advice="Pass from_numpyro(model), which waits for its turn.",
            )
        msg["stop"] = True
        inside = self.inside()
        if msg["type"] == "inspect":  # `numpyro.get_mask`: the handlers inside have answered it
            return
        if msg["type"] == "control_flow":
            self.scans += 1
            try:
                msg["value"] = control_flow(msg, inside)
            finally:
                self.scans -= 1
            return
        if msg["type"] not in _STATEMENTS:
            raise ModelError(
                f"from_numpyro has no translation of a '{msg['type']}' statement; pass what it holds to the "
                "model as an argument, or state it as a param.",
                site=msg.get("name"),
            )
        self.is_translating = True
        try:
            with _AsStated(msg, inside) as here:
                msg["value"] = _STATEMENTS[msg["type"]](msg)
        finally:
            self.is_translating = False
        if (
            msg["type"] == "plate"
        ):  # it must be given a dimension that no plate around the model has
            frames = here.translation["cond_indep_stack"]
            msg["cond_indep_stack"] = [TheirFrame(f.name, f.dim, f.size) for f in frames]
        if msg["type"] == "prng_key" and msg["value"] is None:
            _check_nothing_is_hidden(inside)


class _Watch(Messenger):
    """Refuses a statement of this library that a handler of NumPyro's would have to see, but cannot."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def process_message(self, msg: Message) -> None:
        unseen = _TRANSLATED not in msg or len(msg.get("steps", ())) > self.bridge.scans
        inside = self.bridge.inside()
        if unseen and inside:
            raise ModelError(
                f"{msg['type']} '{msg.get('name')}': it is stated with marginax (or in a marginax scan) inside "
                f"numpyro's {_kind(inside[-1])}, which does not see it. {_advice(inside[-1])}"
            )


class _AsStated(Messenger):
    """Puts on the message of a translated statement what NumPyro's handlers did to the original."""

    def __init__(self, original: Message, inside: list[Any]) -> None:
        super().__init__()
        self.original = original
        self.inside = inside
        self.translation: Message | None = None

    def process_message(self, msg: Message) -> None:
        if _TRANSLATED in msg:
            return
        msg[_TRANSLATED] = True
        if msg["type"] != self.original["type"]:  # a key, for the value to be drawn with
            return
        self.translation = msg
        if msg["value"] is None or msg["type"] == "plate":
            msg["value"] = self.original["value"]  # substituted, perhaps
        if msg["type"] == "plate":
            msg["kwargs"] = dict(self.original["kwargs"])  # a key, perhaps
        if "cond_indep_stack" in self.original:
            msg["cond_indep_stack"] += _frames(self.original, self.inside)
        if msg["type"] in ("sample", "param", "plate"):
            self.scale(msg)

    def scale(self, msg: Message) -> None:
        """The scales around it, one by one, where NumPyro's message has their product."""
        for handler in reversed(self.inside):
            if isinstance(handler, theirs.scale):
                handlers.scale(scale=handler.scale).process_message(msg)
        for frame in msg["cond_indep_stack"]:
            if frame.size < frame.full_size:
                factor = frame.full_size / frame.size
                msg["scale"] = factor if msg["scale"] is None else msg["scale"] * factor
        # A `do` sends the message through the handlers inside it twice, which NumPyro then counts twice.
        is_twice = "_intervener_id" in self.original
        if not (is_twice or _are_equal(self.original.get("scale"), msg["scale"])):
            raise ModelError(
                f"it is scaled by {self.original['scale']}, by another handler than numpyro.handlers.scale "
                "and subsampled plates, so how the scales nest is not known.",
                site=msg["name"],
                advice="Use those.",
            )


def _are_equal(*scales: Any) -> bool:
    traced = [isinstance(scale, Tracer) for scale in scales]
    if any(traced):
        return all(traced)
    first, second = (1.0 if scale is None else scale for scale in scales)
    return np.allclose(first, second)


def _frames(msg: Message, inside: list[Any]) -> list[CondIndepStackFrame]:
    """NumPyro's plates around a statement."""
    sizes = {h.dim: h.size for h in inside if isinstance(h, numpyro.plate)}
    found = {frame.dim: frame for frame in msg["cond_indep_stack"]}  # a `do` writes them twice
    return [CondIndepStackFrame(f.name, f.dim, f.size, sizes[f.dim]) for f in found.values()]


def _sample(msg: Message) -> Any:
    name, fn, infer = msg["name"], msg["fn"], msg["infer"]
    if "_scan_current_index" in infer:  # NumPyro has run the scan by itself
        raise ModelError(
            "it stands in a scan that a numpyro.handlers.block hides, all but its sites.",
            site=name,
            advice="Write block(hide=[...]) with the names of the sites to hide.",
        )
    for frame in msg["cond_indep_stack"]:
        if fn.batch_shape[frame.dim] != frame.size:
            raise ModelError(
                f"its distribution has batch shape {tuple(fn.batch_shape)}, which does not fit the plate "
                f"'{frame.name}' of size {frame.size} (dim {frame.dim}).",
                site=name,
                advice="Give the plate that size.",
            )
    options = msg["kwargs"]
    obs = msg["value"] if msg["is_observed"] else None
    return sample(name, fn, obs, options.get("rng_key"), options.get("sample_shape", ()), infer)


def _param(msg: Message) -> Any:
    # NumPyro wraps an initial value that is a function of a key in one that asks for the key itself.
    init = msg["args"][0] if msg["args"] else lambda _: msg["fn"]()
    return param(msg["name"], init, **msg["kwargs"])


def _plate(msg: Message) -> Any:
    with plate(msg["name"], *msg["args"]) as indices:
        return indices


def _prng_key(msg: Message) -> Any:
    key = msg["kwargs"]["rng_key"]
    return prng_key() if key is None else key


_STATEMENTS: dict[str, Callable[[Message], Any]] = {
    "sample": _sample,  # and `factor`
    "param": _param,
    "deterministic": lambda msg: deterministic(msg["name"], msg["value"]),
    "plate": _plate,
    "prng_key": _prng_key,
    "subsample": lambda msg: subsample(msg["value"], msg["kwargs"]["event_dim"]),
}


def _check_nothing_is_hidden(inside: list[Any]) -> None:
    """NumPyro's block asks for a key to draw a site with."""
    if any(isinstance(handler, theirs.block) for handler in inside):
        raise ModelError(
            "from_numpyro: a numpyro.handlers.block hides a site, so it must be drawn, but there is no "
            "random key.",
            advice=(
                "Run the model under a seed, marginax.handlers.seed(model, rng_seed=0), or leave the block out."
            ),
        )


def _kind(thing: Any) -> str:
    return type(thing).__name__


accompanied_by(_NumPyro())
