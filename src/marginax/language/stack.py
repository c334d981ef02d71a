"""The handler stack: how a primitive statement in a model becomes data.

A model is an ordinary Python function. A primitive such as `sample` does not act by itself: it
writes down what it wants as a *message* (a dictionary) and sends that message through the stack of
active handlers. Each handler may read the message or change it. So one model can be run forwards,
recorded, conditioned, replayed or differentiated without knowing which of these happens to it.

A message travels down and up again::

    sample("x", Normal(0, 1))
        |  process_message: innermost handler first, then outwards,
        |  until the outermost one or until one sets message["stop"]
        v
    the default: if nobody gave a value, draw one from the distribution
        |  postprocess_message: from where the message stopped, back inwards
        v
    message["value"] is what `sample` returns

Innermost first is what makes `plate` inside `seed` inside `trace` work as one expects: the plate
widens the distribution, the seed adds a random key, the default draws, and the trace, being
outermost, records a finished message.

Every other module of the language is a small class on top of this one.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypedDict, cast

import jax
from numpyro.distributions import (
    Delta,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)

from marginax.errors import ModelError


class Message(TypedDict):
    """One primitive statement, under way through the stack. Keys that NumPyro has mean what they mean there.

    `statement` makes one. The keys in the second half are there where a handler has set them.
    """

    type: str
    """``"sample"``, ``"param"``, ``"deterministic"``, ``"plate"``, ``"subsample"`` or ``"prng_key"``."""
    name: str
    fn: Any
    """The distribution; of other statements, the function that makes the value."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    """With these ``fn`` is called."""
    value: Any
    """None until there is one."""
    is_observed: bool
    infer: dict[str, Any]
    """Advice to inference."""
    scale: Any
    """What the log density is multiplied by; None for one."""
    scale_handlers: tuple[Any, ...]
    """The keys of the `scale` handlers around it, outermost first."""
    intermediates: list[Any]
    """What the value of a transformed distribution was made from."""
    cond_indep_stack: list[Any]
    """The plates around it, innermost first."""

    stop: bool
    """Handlers further out do not see it."""
    is_intervened: bool
    """`do` gives the model another value."""
    overwrite: Any
    """A function of what is drawn, for what the value is then."""
    steps: tuple[Any, ...]
    """The scans under way around it, the outermost first."""
    series: tuple[Any, ...]
    """The scans that it is a whole series of, the outermost first."""
    all_elements: Any
    """Of a plate in a scan, what it gives when nobody chooses."""
    site: Any
    """What was collected of it (`graph.sites`)."""
    bounds: Any
    """The bounds of its support (`graph.sites`)."""
    density: Any
    """Its log density (`graph.log_density`)."""
    jacobian: Any
    """The logarithm of how much its value is stretched by a transform that made it (`infer.target`)."""
    beside: Any
    """An array that was made with its value (`infer.start`)."""
    from_numpyro: Any
    """What it translates."""


def statement(type: str, name: str | None, fn: Any = None, **given: Any) -> Message:
    """A primitive statement as a model makes it; what is not given is empty."""
    blank = {
        "type": type,
        "name": name,
        "fn": fn,
        "args": (),
        "kwargs": {},
        "value": None,
        "scale": None,
        "scale_handlers": (),
        "cond_indep_stack": [],
    }
    if type == "sample":
        blank |= {"is_observed": False, "infer": {}, "intermediates": []}
    return cast(Message, blank | given)


class _Stack(threading.local):
    """The active handlers, outermost first; each thread runs its models on a stack of its own."""

    def __init__(self) -> None:
        self.handlers: list[Messenger] = []


_stack = _Stack()


one_at_a_time = threading.RLock()
"""Held while a model runs that uses NumPyro's stack and switches, which are one for all threads."""


class Companion:
    """Another library's way to state sites, served while a model runs here."""

    def run(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a model's function so that its statements of either kind arrive on this stack."""
        return fn(*args, **kwargs)

    def check_entering(self, handler: Messenger) -> None:
        """Refuse a handler that is entered where the other library's would have to see it."""

    def check_nobody_else_listens(self) -> None:
        """Refuse a statement under handlers of the other library alone, which do not see it."""


_companions = [Companion()]


def accompanied_by(companion: Companion) -> None:
    """Serve another library's statements from now on; `numpyro_models` asks for it when it is imported."""
    _companions[:] = [companion]


def read_lazily(arguments: Any) -> Any:
    """A model's arguments, in which what stands for an array elsewhere (on disk) is one, to be read when needed."""
    return jax.tree.map(
        lambda leaf: leaf.__jax_array__() if getattr(leaf, "is_read_lazily", False) else leaf,
        arguments,
        # What a model does with an iterator is its own affair.
        is_leaf=lambda node: isinstance(node, Iterator),
    )


class Messenger:
    """Base class of all handlers: a context manager and a wrapper of functions.

    Parameters
    ----------
    fn : callable, optional
        The model (or guide) to run under this handler. Without it the handler serves as a context
        manager (``with handler: ...``) or as a decorator.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> class Loud(mx.handlers.Messenger):
    ...     def process_message(self, msg):
    ...         print(msg["type"], msg["name"])
    >>> with mx.handlers.seed(rng_seed=0), Loud():
    ...     x = mx.sample("x", dist.Normal(0.0, 1.0))
    sample x
    """

    def __init__(self, fn: Callable[..., Any] | None = None) -> None:
        if fn is not None and not callable(fn):
            raise TypeError(
                f"{type(self).__name__}: the first argument must be a function (the model), not "
                f"{type(fn).__name__}; pass the other arguments by name."
            )
        self.fn = fn
        if fn is not None:
            functools.update_wrapper(self, fn, updated=())

    def __enter__(self) -> Any:
        _companions[0].check_entering(self)
        _stack.handlers.append(self)
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        # After an exception, handlers that were entered inside this one may not have been left yet:
        # they go with it. One that is gone already takes nothing else along.
        handlers = _stack.handlers
        for position in reversed(range(len(handlers))):
            if handlers[position] is self:
                del handlers[position:]
                break

    def process_message(self, msg: Message) -> None:
        """Change the message on its way down; called before a value is drawn."""

    def postprocess_message(self, msg: Message) -> None:
        """Read or change the message on its way up; the value is there."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fn is None:
            if len(args) != 1 or kwargs or not callable(args[0]):
                raise TypeError(
                    f"{type(self).__name__} was made without a function: call it with the function "
                    "to wrap, or use it in a `with` statement."
                )
            return self._wrap(args[0])
        args, kwargs = read_lazily((args, kwargs))
        with self:
            return self.run(args, kwargs)

    def run(self, args: Any, kwargs: Any) -> Any:
        """Call the wrapped function, which is the model itself where it is no handler."""
        fn: Any = self.fn
        if isinstance(fn, Messenger):
            return fn(*args, **kwargs)
        return _companions[0].run(fn, args, kwargs)

    def _wrap(self, fn: Callable[..., Any]) -> Self:
        self.fn = fn
        functools.update_wrapper(self, fn, updated=())
        return self


@contextmanager
def isolated(*handlers: Messenger) -> Iterator[None]:
    """Run what is inside under these handlers alone: those outside neither see it nor change it.

    Parameters
    ----------
    *handlers : Messenger
        Outermost first.
    """
    outside, _stack.handlers = _stack.handlers, list(handlers)
    try:
        yield
    finally:
        _stack.handlers = outside


def active_handlers() -> tuple[Messenger, ...]:
    """The handlers that are listening, outermost first."""
    return tuple(_stack.handlers)


def is_active() -> bool:
    """Whether any handler is listening."""
    if not _stack.handlers:
        _companions[0].check_nobody_else_listens()
    return bool(_stack.handlers)


def apply_stack(msg: Message, outside: Messenger | None = None) -> Message:
    """Send a message through the active handlers and give it its default value.

    Parameters
    ----------
    msg : dict
        The message; it is changed in place.
    outside : Messenger, optional
        Where the message is on its way already: only the handlers outside this one process it.

    Returns
    -------
    dict
        The same message, with its ``"value"`` set.

    Raises
    ------
    ModelError
        When a value must be drawn and no random key was given.
    """
    handlers = _stack.handlers
    reached = len(handlers) if outside is None else handlers.index(outside)
    while reached > 0:
        reached -= 1
        handlers[reached].process_message(msg)
        if msg.get("stop"):
            break
    overwrite = cast(Any, msg.pop("overwrite", None))
    if msg["value"] is None:
        _draw(msg)
        if overwrite is not None:
            msg.update(value=overwrite(msg["value"]), intermediates=[])
    for handler in handlers[reached:]:
        handler.postprocess_message(msg)
    return msg


def element(msg: Message, values: Any) -> Any:
    """Of a value for all steps of the scans around a site, the one for this step.

    For handlers; outside of any scan the value as it is.
    """
    for steps in reversed(msg.get("steps", ())):
        values = steps.element(msg["name"], values)
    return values


def is_point_mass(fn: Any) -> bool:
    """Whether a distribution has one possible value, so that drawing it takes no random key."""
    while isinstance(fn, ExpandedDistribution | Independent | MaskedDistribution):
        fn = fn.base_dist
    return isinstance(fn, Delta)


def _draw(msg: Message) -> None:
    if msg["type"] == "sample":
        if msg["kwargs"].get("rng_key") is None and not is_point_mass(msg["fn"]):
            raise ModelError(
                "a value must be drawn but there is no random key.",
                site=msg["name"],
                advice=(
                    "Run the model under a seed, `handlers.seed(model, rng_seed=0)(...)`, or fix the site's "
                    "value with `obs=`, `handlers.condition` or `handlers.substitute`."
                ),
            )
        try:
            drawn = msg["fn"](*msg["args"], sample_intermediates=True, **msg["kwargs"])
        except NotImplementedError as error:
            raise ModelError(
                f"{type(msg['fn']).__name__} cannot be drawn from{f' ({error})' if str(error) else ''}.",
                site=msg["name"],
                advice=(
                    "Give the site a value, with handlers.condition, handlers.substitute or as posterior_samples "
                    "of Predictive, or write a distribution that can be drawn from."
                ),
            ) from error
        msg["value"], msg["intermediates"] = drawn
    else:
        msg["value"] = msg["fn"](*msg["args"], **msg["kwargs"])
