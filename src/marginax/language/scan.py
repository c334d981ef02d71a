"""Time: `scan` states the same step again and again, `markov` marks a loop that does so in Python.

The body of a scan is an ordinary piece of model for *one* step. It is traced once and run by
`jax.lax.scan`; what it states at each step is recorded as one site for the whole series, with the
steps on a new leftmost axis.

Two things make that work with handlers that know nothing of it. Inside the body every message
passes through the handlers around the scan as it would anywhere, so a plate or a mask around a scan
means what it says. Only what a handler keeps is different for each step: a `seed` gets a key for
every step, and a `trace` records a step, whose series the outer one receives in the end. And where
a handler has values for a whole series, the message says which step it is: its ``"steps"`` take the
element of a series that belongs to the step (`element`).
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core as jex_core
from numpyro.distributions.batch_util import promote_batch_shape

from marginax.arrays.narrowing import check_narrowing
from marginax.errors import ModelError, NotKnownError
from marginax.language import handlers
from marginax.language.stack import Message, Messenger, active_handlers, isolated

NEEDS_A_NUMBER = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)

ELIMINATIONS = ("auto", "sequential", "blocked", "associative")


@dataclass(frozen=True)
class Series:
    """The scan that a site belongs to."""

    name: str
    length: int
    reverse: bool
    elimination: str = "auto"
    """How its discrete variables are summed out along time."""
    carried: tuple[str, ...] = ()
    """What it carries, as the body would write it."""


class Steps:
    """Gives the handlers around a scan the element of a series that belongs to the step being traced.

    The body is traced twice: first to learn which series are asked for, then with their elements
    among what is scanned over.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.t: Any = 0
        """The number of the step."""
        self.asked: list[Any] = []
        self.elements: Iterator[Any] | None = None

    def element(self, name: str | None, values: Any) -> Any:
        """The element of a series for this step; a site's name is for the message of an error."""
        shape = jnp.shape(values)
        if not shape or shape[0] != self.length:
            raise ModelError(
                f"it is stated in a scan of {self.length} steps, so its value is a series, with the steps on "
                f"its first axis; the one given has shape {shape}.",
                site=name,
            )
        if self.elements is not None:
            return next(self.elements)
        self.asked.append(values)
        return jnp.zeros(shape[1:], jnp.result_type(values))


class _Step(Messenger):
    """Tells the handlers around a scan that a message comes from one of its steps."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    def process_message(self, msg: Message) -> None:
        msg["steps"] = (*msg.get("steps", ()), self.steps)
        if any(isinstance(scale, Tracer) for scale in msg.get("scale_handlers", ())):
            raise ModelError(
                "a handlers.scale in the body of a scan must be a number that is the same at every step; put "
                "it around the scan, or write the power into a factor.",
                site=msg["name"],
            )
        if msg["type"] == "plate":
            msg["all_elements"] = msg["value"]
        if msg["type"] == "plate" and msg["value"] is None:
            raise ModelError(
                "a subsampled plate in the body of a scan would have other elements at every step.",
                site=msg["name"],
                kind="plate",
                advice="Put it around the scan.",
            )


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    history: int = 1,
    *,
    elimination: str = "auto",
) -> tuple[Any, Any]:
    """State the same piece of model at every step of a series.

    Its discrete latent sites are summed out along time, exactly. Which steps depend on which, the
    order of the chain, is found from what the body does with what it carries.

    Parameters
    ----------
    f : callable
        One step: from what is carried and this step's element of ``xs`` to what is carried on and
        an output. The sites that it states are series: their values have the steps on the first
        axis.
    init
        What the first step gets: arrays, or values of sites stated before.
    xs : arrays, shape (length, ...), optional
        What each step gets an element of.
    length : int, optional
        The number of steps; needed only without ``xs``.
    reverse : bool
        Whether the last element comes first.
    history : int
        Accepted for NumPyro's sake; the order is inferred.
    elimination : {"auto", "sequential", "blocked", "associative"}
        How to sum out along time: step by step, many blocks of steps side by side, or pair by pair;
        chosen from length, number of states and device when nothing is said.

    Returns
    -------
    carry, ys
        What is carried in the end, and every step's output, with the steps on the first axis.

    Raises
    ------
    ModelError
        When there is no step, the lengths differ, the body returns something else to carry than it
        gets, or it uses a value where Python needs a number.
    ValueError
        When ``elimination`` is not one of these.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def hidden_markov(y):
    ...     stay = mx.sample("stay", dist.Beta(9.0, 1.0))
    ...     def step(z, y):
    ...         z = mx.sample("z", dist.Bernoulli(jnp.where(z == 1, stay, 1 - stay)))
    ...         mx.sample("y", dist.Normal(2.0 * z, 1.0), obs=y)
    ...         return z, None
    ...     mx.scan(step, 0, y)
    >>> m = mx.marginalize(hidden_markov)
    >>> m.mode({"stay": 0.9}, jnp.array([0.1, -0.4, 2.2, 1.9]))["z"]
    Array([0, 0, 1, 1], dtype=int32)
    """
    if elimination not in ELIMINATIONS:
        raise ValueError(f"scan: elimination must be one of {ELIMINATIONS}, not {elimination!r}.")
    _check_history("scan", history)
    for what, tree in (("scan: its start", init), ("scan: its series", xs)):
        for leaf in jax.tree.leaves(tree):
            check_narrowing(what, leaf)
    init = jax.tree.map(jnp.asarray, init)
    xs = jax.tree.map(jnp.asarray, xs)
    length = _length(xs, length)
    outside = active_handlers()
    keys = [
        jax.random.split(handler.next_key(), length) if isinstance(handler, handlers.seed) else None
        for handler in outside
    ]
    recorded: list[_Recorded] = []

    def step(carry: Any, now: Any, elements: Sequence[Any] | None) -> Any:
        steps.t, x, keys = now
        steps.elements = None if elements is None else iter(elements)
        inside = [_inside(h, key) for h, key in zip(outside, keys, strict=True)]
        with isolated(*inside, _Step(steps)):
            result = f(carry, x)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ModelError(
                "scan: its body must return two things, what is carried on and an output (None if there is none): "
                "`return carry, None`."
            )
        recorded[:] = [
            _Recorded(h, msg)
            for h, handler in zip(outside, inside, strict=True)
            if isinstance(h, handlers.trace) and isinstance(handler, handlers.trace)
            for msg in handler.trace.values()
        ]
        return *result, [r.arrays() for r in recorded]

    steps, now = Steps(length), (jnp.arange(length), xs, keys)

    def learn(carry: Any) -> Any:
        """What the body carries on; on the way, which series it asks for."""
        steps.asked.clear()
        try:
            return jax.eval_shape(lambda c, now: step(c, now, None), carry, _first(now))[0]
        except NEEDS_A_NUMBER as error:
            raise NotKnownError(
                "scan: its body uses a value where Python needs one number (an `if`, `int()`, a loop bound, "
                "a shape, the index of a list or of a NumPy array), but it is traced once for all steps.",
                advice=(
                    "Write jnp.where(condition, a, b) for an `if`, jnp.asarray(table)[z] for a choice among "
                    f"values. JAX says: {str(error).splitlines()[0]}"
                ),
            ) from error

    after = learn(init)
    taken = _as_carried(init, after)
    if taken is not init:
        init, after = taken, learn(taken)
    _check_carry(init, after)
    scanned = (now, [jnp.asarray(values) for values in steps.asked])
    body = _Body.of(lambda c, now: step(c, *now), init, _first(scanned))
    carry, ys, series = body.run(init, scanned, length, reverse)
    _, _, differ = body.differing()
    paths = jax.tree_util.tree_leaves_with_path(init)
    carried = tuple(f"carry{jax.tree_util.keystr(path)}" for path, _ in paths)
    frame = Series(_name(recorded), length, reverse, elimination, carried)
    for site, arrays, which in zip(recorded, series, differ, strict=True):
        site.finish(arrays, any(jax.tree.leaves(which)), frame)
    return carry, ys


def _first(tree: Any) -> Any:
    """The shapes of what one step gets."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), tree)


def markov(fn: Any = None, history: int = 1) -> Any:
    """Mark a Python loop, or a function, whose steps depend on few steps before.

    Accepted for Pyro's and NumPyro's sake. It changes nothing: which steps depend on which is found
    by itself, and variables are eliminated in an order that makes use of it. For many steps, `scan`
    compiles faster.

    Parameters
    ----------
    fn : iterable or callable
        What to loop over, or a function; without it, a decorator.
    history : int
        How many steps back a step depends on.

    Returns
    -------
    iterable or callable
        The same.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(ys):
    ...     z = 0
    ...     for t in mx.markov(range(len(ys))):
    ...         z = mx.sample(f"z_{t}", dist.Bernoulli(0.2 + 0.6 * z))
    ...         mx.sample(f"y_{t}", dist.Normal(z, 1.0), obs=ys[t])
    >>> sorted(mx.marginalize(model).mode({}, [0.0, 3.0]))
    ['z_0', 'z_1']
    """
    _check_history("markov", history)
    if fn is None:
        return lambda fn: markov(fn, history)
    if not isinstance(fn, Iterable) and not callable(fn):
        raise TypeError(f"markov: it takes an iterable or a function, not {type(fn).__name__}.")
    return fn


def _check_history(statement: str, history: Any) -> None:
    if not isinstance(history, int) or isinstance(history, bool) or history < 0:
        raise ModelError(f"{statement}: history must be a whole number >= 0, not {history!r}.")


def _length(xs: Any, length: int | None) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(xs)]
    for shape in shapes:
        if not shape:
            raise ModelError(
                "scan: xs has a number in it; its arrays need the steps on their first axis."
            )
    try:
        said = set() if length is None else {operator.index(length)}
    except TypeError:
        raise ModelError(f"scan: length must be a whole number, not {length!r}.") from None
    found = {shape[0] for shape in shapes} | said
    if len(found) != 1:
        what = "neither xs nor length is given" if not found else f"they are {sorted(found)}"
        raise ModelError(f"scan: xs and length must agree on the number of steps; {what}.")
    (steps,) = found
    if steps < 1:
        raise ModelError(f"scan: it has {steps} steps; it needs at least one. Are the data empty?")
    return steps


def _as_carried(init: Any, after: Any) -> Any:
    """Plain numbers take the type of what the body carries on in their place.

    The same object where nothing changes.
    """
    if jax.tree.structure(init) != jax.tree.structure(after):
        return init

    def convert(first: Any, then: Any) -> Any:
        weak = jax.typeof(first).weak_type
        fits = jnp.result_type(first, then.dtype) == then.dtype
        return jnp.asarray(first, then.dtype) if weak and fits else first

    taken = jax.tree.map(convert, init, after)
    pairs = zip(jax.tree.leaves(init), jax.tree.leaves(taken), strict=True)
    return init if all(a is b for a, b in pairs) else taken


def _check_carry(init: Any, after: Any) -> None:
    if jax.tree.structure(init) != jax.tree.structure(after):
        raise ModelError(
            f"scan: the first step gets {jax.tree.structure(init)} to carry, but the body carries on "
            f"{jax.tree.structure(after)}; both must be built alike."
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(init), jax.tree.leaves(after), strict=True)
    for (path, first), then in pairs:
        if jnp.shape(first) != then.shape or first.dtype != then.dtype:
            raise ModelError(
                f"scan: the first step gets carry{jax.tree_util.keystr(path)} of shape {jnp.shape(first)} and "
                f"type {first.dtype}, but the body carries on {then.shape} and {then.dtype} there; they must "
                "be the same.",
                advice="Begin with an array of that shape and type, jnp.zeros(...) perhaps.",
            )


def _name(recorded: Sequence[_Recorded]) -> str:
    names = [r.msg["name"] for r in recorded if r.msg["type"] == "sample"]
    return f"steps of {names[0]}" if names else "steps"


def _inside(handler: Messenger, key: Any) -> Messenger:
    """What stands for a handler within one step."""
    if isinstance(handler, handlers.seed):
        handler = copy.copy(handler)
        handler.rng_key = key
    elif isinstance(handler, handlers.trace):
        handler = copy.copy(handler)
        handler.trace = {}
    return handler


class _Recorded:
    """A site of one step, to become one of the whole series."""

    def __init__(self, handler: handlers.trace, msg: Message) -> None:
        self.handler = handler
        self.msg = msg

    def arrays(self) -> dict[str, Any]:
        """What may differ from step to step."""
        return {} if self.msg["type"] == "plate" else self.handler.differing(self.msg)

    def finish(self, arrays: dict[str, Any], differs: bool, series: Series) -> None:
        """Give the message of the whole series to the handler."""
        msg = cast(dict[str, Any], copy.copy(self.msg))
        msg["intermediates"] = []
        if msg["type"] == "sample":  # what was observed at one step, say
            msg["infer"] = {k: v for k, v in msg["infer"].items() if k != "obs"}
        msg.pop("steps", None)
        msg["kwargs"] = {k: v for k, v in msg["kwargs"].items() if k != "rng_key"}
        if msg["type"] == "plate":
            if msg["value"] is not msg.pop("all_elements"):
                raise ModelError(
                    "it is stated in the body of a scan and given other elements than all.",
                    site=msg["name"],
                    kind="plate",
                    advice="Put it around the scan.",
                )
            arrays = {"value": jnp.arange(msg["args"][0])}
        elif msg["type"] == "param":
            if differs:
                raise ModelError(
                    "its initial value is another one at every step of a scan; state it before "
                    "the scan.",
                    site=msg["name"],
                    kind="param",
                )
            arrays = jax.tree.map(lambda array: array[0], arrays)
        else:
            msg["series"] = (*msg.get("series", ()), series)
        if "fn" in arrays and msg["type"] == "sample":
            arrays["fn"] = promote_batch_shape(arrays["fn"])
        self.handler.postprocess_message(cast(Message, msg | arrays))


@dataclass(frozen=True)
class _Body:
    """The body of a scan, traced."""

    closed: jex_core.ClosedJaxpr
    structure: Any
    n_carry: int

    @staticmethod
    def of(step: Callable[[Any, Any], Any], init: Any, scanned: Any) -> _Body:
        closed, shape = jax.make_jaxpr(step, return_shape=True)(init, scanned)
        return _Body(closed, jax.tree.structure(shape), len(jax.tree.leaves(init)))

    def run(self, init: Any, scanned: Any, length: int, reverse: bool) -> Any:
        """The result of the body, all but what is carried for every step."""
        jaxpr, function = self.closed.jaxpr, jex_core.jaxpr_as_fun(self.closed)
        leaves = jax.tree.leaves(scanned)
        inputs = dict(zip(jaxpr.invars[self.n_carry :], leaves, strict=True))
        outputs = jaxpr.outvars[self.n_carry :]
        # What a step hands out as it came in, observed data say, stays what it is: numbers that can be checked.
        forwarded = {
            i: inputs[v]
            for i, v in enumerate(outputs)
            if not isinstance(v, jex_core.Literal) and v in inputs
        }

        def one(carry: list[Any], now: list[Any]) -> tuple[list[Any], list[Any]]:
            results = function(*carry, *now)
            carry, rest = results[: self.n_carry], results[self.n_carry :]
            return carry, [r for i, r in enumerate(rest) if i not in forwarded]

        carry, made = jax.lax.scan(one, jax.tree.leaves(init), leaves, length, reverse)
        rest = iter(made)
        results = [forwarded[i] if i in forwarded else next(rest) for i in range(len(outputs))]
        return jax.tree.unflatten(self.structure, [*carry, *results])

    def differing(self) -> Any:
        """For every output whether it may differ from step to step."""
        jaxpr = self.closed.jaxpr
        differ = set(jaxpr.invars)
        for eqn in jaxpr.eqns:
            if any(not isinstance(a, jex_core.Literal) and a in differ for a in eqn.invars):
                differ.update(eqn.outvars)
        found = [not isinstance(v, jex_core.Literal) and v in differ for v in jaxpr.outvars]
        return jax.tree.unflatten(self.structure, found)
