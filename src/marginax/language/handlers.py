"""The effect handlers: each changes what a model's statements mean, one idea apiece.

Names, signatures and meanings are NumPyro's. All of them wrap a function, ``handler(model, ...)``,
and most also serve in a ``with`` statement.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from marginax.arrays.narrowing import check_narrowing
from marginax.errors import ModelError
from marginax.language.primitives import as_numbers, check_infer, prng_key
from marginax.language.stack import Message, Messenger, apply_stack, element, read_lazily

Trace = dict[str, Message]


class trace(Messenger):
    """Record every site.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     return mx.sample("x", dist.Normal(0.0, 1.0))
    >>> tr = mx.handlers.trace(mx.handlers.seed(model, rng_seed=0)).get_trace()
    >>> tr["x"]["type"]
    'sample'
    """

    def __enter__(self) -> Trace:
        super().__enter__()
        self.trace: Trace = {}
        return self.trace

    def postprocess_message(self, msg: Message) -> None:
        name = msg.get("name")
        if name is None:
            return
        earlier = self.trace.get(name)
        if earlier is not None and earlier["type"] != msg["type"]:
            raise ModelError(
                f"the name '{name}' is used for a {earlier['type']} site and for a {msg['type']} "
                "site; rename one of them."
            )
        if earlier is not None and msg["type"] in ("sample", "deterministic"):
            raise ModelError(
                f"site '{name}' is stated twice; give every sample, factor and deterministic site "
                "of the model a name of its own (in a loop: f'{name}_{i}')."
            )
        if earlier is not None and msg["type"] == "plate" and _are_drawn_apart(earlier, msg):
            raise ModelError(
                f"plate '{name}' is subsampled twice, with different elements each time, so what "
                f"stands in it would not belong together. Make it once, p = plate('{name}', ...), and "
                "write `with p:` each time."
            )
        self.trace[name] = msg.copy()

    def get_trace(self, *args: Any, **kwargs: Any) -> Trace:
        """Run the function and return its sites by name, in the order of the run."""
        self(*args, **kwargs)
        return self.trace

    def differing(self, msg: Message) -> dict[str, Any]:
        """What of a site stated in a scan is kept for every step: arrays, or trees of them, by key of the message."""
        kept = {"value": msg["value"]}
        return kept | {"fn": msg["fn"]} if msg["type"] == "sample" else kept


def _are_drawn_apart(*plates: Message) -> bool:
    """Whether a plate's elements are drawn a second time; other sizes are refused elsewhere."""
    drawn = any(msg["kwargs"].get("rng_key") is not None for msg in plates)
    return drawn and plates[0]["args"] == plates[1]["args"]


class seed(Messenger):
    """Give every site that needs one a fresh random key.

    Parameters
    ----------
    fn : callable, optional
        The model.
    rng_seed : int or PRNG key
        Where randomness starts. A wrapped function gives the same result at every call.
    hide_types : list of str, optional
        Message types to leave without a key.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     return mx.sample("x", dist.Normal(0.0, 1.0))
    >>> seeded = mx.handlers.seed(model, rng_seed=0)
    >>> bool(seeded() == seeded())
    True
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        rng_seed: Any = None,
        hide_types: Collection[str] | None = None,
    ) -> None:
        if rng_seed is None:
            raise TypeError("seed: rng_seed must be an integer or a PRNG key, not None.")
        self.rng_key = as_key(rng_seed)
        self.hide_types = tuple(hide_types or ())
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] in self.hide_types or msg["type"] not in ("sample", "plate", "prng_key"):
            return
        if msg["kwargs"].get("rng_key") is None and msg["value"] is None:
            msg["kwargs"]["rng_key"] = self.next_key()

    def next_key(self) -> Any:
        """A fresh key."""
        self.rng_key, key = jax.random.split(self.rng_key)
        return key

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fn is None:
            return super().__call__(*args, **kwargs)
        # Each call uses up the keys of a copy, so that the next one (or one in another thread)
        # starts from the same key, and no traced key stays behind in this object.
        args, kwargs = read_lazily((args, kwargs))
        with copy.copy(self):
            return self.run(args, kwargs)


def as_key(rng_seed: Any) -> Any:
    """An integer, or an old- or new-style key, as a key."""
    if isinstance(rng_seed, int | np.integer) and not isinstance(rng_seed, bool):
        return jax.random.key(int(rng_seed))
    shape, dtype = getattr(rng_seed, "shape", None), getattr(rng_seed, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ():
        return rng_seed
    if dtype is not None and shape == (2,) and dtype == jnp.uint32:
        return rng_seed
    if dtype is not None and shape == () and jnp.issubdtype(dtype, jnp.integer):
        return jax.random.key(rng_seed)
    raise TypeError(
        f"a random seed must be an integer or one PRNG key such as jax.random.key(0), not {rng_seed!r}."
    )


class substitute(Messenger):
    """Fix the values of sites without making them observed.

    A site of a `scan` takes the value of the whole series, the steps on its first axis. A series that ends before the
    scan is given to its first steps, and the others are drawn.

    Parameters
    ----------
    fn : callable, optional
        The model.
    data : dict, optional
        Values by site name (a plate's name gives its indices).
    substitute_fn : callable, optional
        Instead of ``data``: a function of the message that returns a value or None.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     return mx.sample("x", dist.Normal(0.0, 1.0))
    >>> mx.handlers.substitute(model, data={"x": 2.0})()
    2.0
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        data: Mapping[str, Any] | None = None,
        substitute_fn: Callable[[Message], Any] | None = None,
    ) -> None:
        self.value_of = _one_source("substitute", data, substitute_fn)
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] not in ("sample", "param", "plate", "deterministic"):
            return
        value = self.value_of(msg)
        if value is not None:
            check_narrowing(f"site '{msg['name']}'", value)
            msg["value"] = value


class condition(Messenger):
    """Make latent sites observed.

    A site of a `scan` takes the value of the whole series, the steps on its first axis. A series that ends before the
    scan is given to its first steps, and the others are drawn.

    Parameters
    ----------
    fn : callable, optional
        The model.
    data : dict, optional
        Observed values by site name.
    condition_fn : callable, optional
        Instead of ``data``: a function of the message that returns a value or None.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     return mx.sample("x", dist.Normal(0.0, 1.0))
    >>> conditioned = mx.handlers.condition(model, data={"x": 2.0})
    >>> mx.handlers.trace(conditioned).get_trace()["x"]["is_observed"]
    True
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        data: Mapping[str, Any] | None = None,
        condition_fn: Callable[[Message], Any] | None = None,
    ) -> None:
        self.value_of = _one_source("condition", data, condition_fn)
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] != "sample":
            return
        value = self.value_of(msg)
        if value is not None:
            msg["value"], msg["is_observed"] = as_numbers(msg["name"], value), True


class uncondition(Messenger):
    """Make observed sites latent: they are drawn, whatever was observed.

    What was observed is kept in the site, as ``infer["obs"]``. A `factor` is no observation and
    stays.

    Parameters
    ----------
    fn : callable, optional
        The model.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(data):
    ...     return mx.sample("x", dist.Normal(0.0, 1.0), obs=data)
    >>> free = mx.handlers.uncondition(mx.handlers.seed(model, rng_seed=0))
    >>> tr = mx.handlers.trace(free).get_trace(1.5)
    >>> tr["x"]["is_observed"], tr["x"]["infer"]["obs"]
    (False, 1.5)
    """

    def process_message(self, msg: Message) -> None:
        if msg["type"] != "sample" or not msg["is_observed"] or msg["infer"].get("is_auxiliary"):
            return
        msg["infer"].update(was_observed=True, obs=msg["value"])
        msg.update(is_observed=False, value=None)
        # A seed inside this handler saw a value and gave no key.
        if msg["kwargs"].get("rng_key") is None:
            msg["kwargs"]["rng_key"] = prng_key()


def _one_source(
    handler: str, data: Mapping[str, Any] | None, fn: Callable[[Message], Any] | None
) -> Callable[[Message], Any]:
    if (data is None) == (fn is None):
        raise ValueError(
            f"{handler}: give either data= (a dictionary by site name) or {handler}_fn=."
        )
    if fn is not None:
        return fn
    values = dict(data or {})

    def value_of(msg: Message) -> Any:
        value = values.get(msg["name"])
        return value if value is None or msg["type"] in ("param", "plate") else _given(msg, value)

    return value_of


def _given(msg: Message, values: Any) -> Any:
    """The value that is given to a site; in a scan, the element for the step of a series.

    A series may end before the scan does. Then the site is drawn, and its first steps are overwritten
    with the series: so a series is forecast.
    """
    steps = msg.get("steps", ())
    given = np.shape(values)[0] if np.ndim(values) else 0
    if len(steps) != 1 or msg["type"] != "sample" or not 0 < given < steps[0].length:
        return element(msg, values)
    values, t = jnp.asarray(as_numbers(msg["name"], values)), steps[0].t
    msg["infer"]["given_steps"] = given
    msg["overwrite"] = lambda drawn: jnp.where(t < given, values[jnp.minimum(t, given - 1)], drawn)
    return None


class replay(Messenger):
    """Give latent sites and plates the values that they have in a trace.

    A site of a `scan` takes the value of the whole series, the steps on its first axis. A series that ends before the
    scan is given to its first steps, and the others are drawn.

    Parameters
    ----------
    fn : callable, optional
        The model.
    trace : dict
        What `trace.get_trace` of a guide (or model) returned.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     return mx.sample("x", dist.Normal(0.0, 1.0))
    >>> seeded = mx.handlers.seed(model, rng_seed=0)
    >>> tr = mx.handlers.trace(seeded).get_trace()
    >>> bool(mx.handlers.replay(model, trace=tr)() == seeded())
    True
    """

    def __init__(self, fn: Callable[..., Any] | None = None, trace: Trace | None = None) -> None:
        if trace is None:
            raise TypeError("replay: give trace=, the recorded sites to replay.")
        self.trace = trace
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] not in ("sample", "plate") or msg["name"] not in self.trace:
            return
        recorded = self.trace[msg["name"]]
        if msg["type"] == "sample" and msg["is_observed"]:
            return
        if recorded["type"] != msg["type"] or recorded.get("is_observed", False):
            here = "a latent variable" if msg["type"] == "sample" else "a plate"
            there = "observed" if recorded.get("is_observed") else f"a {recorded['type']} site"
            raise ModelError(
                f"site '{msg['name']}' is {here} of the model, but in the trace to replay it is "
                f"{there}; make it {here} there too, or give it another name."
            )
        msg["value"] = recorded["value"]
        if msg["type"] == "sample":
            msg["infer"] = dict(recorded["infer"])
            msg["value"] = _given(msg, recorded["value"])


class block(Messenger):
    """Hide sites from the handlers outside.

    Parameters
    ----------
    fn : callable, optional
        The model.
    hide_fn : callable, optional
        A function of the message: True hides it.
    hide, expose : list of str, optional
        Site names to hide, or the only ones not to.
    hide_types, expose_types : list of str, optional
        Message types to hide, or the only ones not to.

    With nothing given every site is hidden.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     x = mx.sample("x", dist.Normal(0.0, 1.0))
    ...     return mx.sample("y", dist.Normal(x, 1.0))
    >>> seeded = mx.handlers.seed(model, rng_seed=0)
    >>> list(mx.handlers.trace(mx.handlers.block(seeded, hide=["x"])).get_trace())
    ['y']
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        hide_fn: Callable[[Message], bool] | None = None,
        hide: Collection[str] | None = None,
        expose_types: Collection[str] | None = None,
        expose: Collection[str] | None = None,
        hide_types: Collection[str] | None = None,
    ) -> None:
        given = [a for a in (hide_fn, hide, expose, hide_types, expose_types) if a is not None]
        if len(given) > 1:
            raise ValueError(
                "block: give at most one of hide_fn, hide, expose, hide_types, expose_types."
            )
        for names in (hide, expose, hide_types, expose_types):
            if isinstance(names, str):
                raise TypeError(f"block: {names!r} must be in a list: [{names!r}].")
        if hide_fn is not None:
            # It is asked about sites only; the messages of helpers such as `subsample` have no name.
            self.hides = lambda msg: msg["name"] is not None and hide_fn(msg)
        elif hide is not None:
            self.hides = lambda msg: msg.get("name") in hide
        elif expose is not None:
            self.hides = lambda msg: msg.get("name") not in expose
        elif hide_types is not None:
            self.hides = lambda msg: msg["type"] in hide_types
        elif expose_types is not None:
            self.hides = lambda msg: msg["type"] not in expose_types
        else:
            self.hides = lambda msg: True
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "prng_key" or not self.hides(msg):
            return
        msg["stop"] = True
        # A hidden site must still be drawn, and the seed stands outside: ask it for a key.
        drawn = msg["type"] in ("sample", "plate") and msg["value"] is None
        if drawn and msg["kwargs"].get("rng_key") is None:
            msg["kwargs"]["rng_key"] = prng_key()


class mask(Messenger):
    """Switch off the log density of sites, element by element.

    A site masked out adds exactly nothing to any answer, a latent one too; its draws are those of a forward run. A
    discrete variable that is masked out, or elements of it, therefore keeps its own distribution, from which what
    depends on it is averaged; it is left out of the entropy, of the terms of a bound, and of what warns of a range
    that is too narrow, and its mode is the likeliest value given what it depends on. (NumPyro sums such a variable over
    equal weights of one, which adds the logarithm of their number.)

    Parameters
    ----------
    fn : callable, optional
        The model.
    mask : bool or bool array, broadcastable to the sites' batch shapes
        True keeps.

    Examples
    --------
    >>> import marginax as mx
    >>> def model(is_known):
    ...     with mx.handlers.mask(mask=is_known):
    ...         mx.factor("penalty", -1.0)
    >>> float(mx.marginalize(model).log_density({}, False))
    0.0
    """

    def __init__(self, fn: Callable[..., Any] | None = None, mask: ArrayLike = True) -> None:
        self.mask = mask if isinstance(mask, bool) else jnp.asarray(as_numbers("mask", mask))
        if not jnp.issubdtype(jnp.result_type(self.mask), jnp.bool_):
            raise ValueError("mask: the mask must be a boolean or an array of booleans.")
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] != "sample":
            return
        try:
            msg["fn"] = msg["fn"].mask(self.mask)
        except ValueError:
            raise ModelError(
                f"site '{msg['name']}': a mask of shape {jnp.shape(self.mask)} does not fit its "
                f"distribution, whose batch shape is {msg['fn'].batch_shape}; give the mask a shape "
                "that broadcasts to it."
            ) from None


class scale(Messenger):
    """Multiply the log density of sites by a positive number.

    The scale multiplies after the discrete variables inside it were summed out:
    ``scale * log(sum)``, never ``log(sum of powers)``.

    Parameters
    ----------
    fn : callable, optional
        The model.
    scale : float or array, broadcastable to the sites' batch shapes
        The factor.

    Examples
    --------
    >>> import marginax as mx
    >>> def model():
    ...     with mx.handlers.scale(scale=3.0):
    ...         mx.factor("penalty", -1.0)
    >>> float(mx.marginalize(model).log_density({}))
    -3.0
    """

    def __init__(self, fn: Callable[..., Any] | None = None, scale: ArrayLike = 1.0) -> None:
        self.scale = as_numbers("scale", scale)
        if not isinstance(scale, Tracer) and not np.all(np.asarray(self.scale) > 0):
            raise ValueError(f"scale: the scale must be positive, not {scale}.")
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] not in ("param", "sample", "plate"):
            return
        msg["scale"] = self.scale if msg["scale"] is None else self.scale * msg["scale"]
        # Outermost first: elimination leaves the scales in the order in which they nest.
        msg["scale_handlers"] = (self.scale, *msg["scale_handlers"])


class scope(Messenger):
    """Put a prefix before the names of sites and plates, so that a submodel can be used again.

    Parameters
    ----------
    fn : callable, optional
        The model.
    prefix : str
        What to put before the names.
    divider : str
        What to put between prefix and name.
    hide_types : list of str, optional
        Message types whose names stay as they are.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def part():
    ...     return mx.sample("x", dist.Normal(0.0, 1.0))
    >>> def model():
    ...     return mx.handlers.scope(part, prefix="a")() + mx.handlers.scope(part, prefix="b")()
    >>> list(mx.handlers.trace(mx.handlers.seed(model, rng_seed=0)).get_trace())
    ['a/x', 'b/x']
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        prefix: str = "",
        divider: str = "/",
        *,
        hide_types: Collection[str] | None = None,
    ) -> None:
        self.start = f"{prefix}{divider}"
        self.hide_types = tuple(hide_types or ())
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["name"] is not None and msg["type"] not in self.hide_types:
            msg["name"] = self.start + msg["name"]
        # The plates inside this scope; those around it add their own frames later.
        if "cond_indep_stack" in msg and "plate" not in self.hide_types:
            msg["cond_indep_stack"] = [
                frame._replace(name=self.start + frame.name) for frame in msg["cond_indep_stack"]
            ]


class do(Messenger):
    """Intervene: replace a site's value downstream, and cut it from what made it.

    The site itself remains as it was, latent and with its own distribution; what follows in the
    model sees the given value (Pearl's do-operator).

    Parameters
    ----------
    fn : callable, optional
        The model.
    data : dict
        Values by site name.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     x = mx.sample("x", dist.Normal(0.0, 1.0))
    ...     return 10.0 * x
    >>> intervened = mx.handlers.do(model, data={"x": 2.0})
    >>> mx.handlers.seed(intervened, rng_seed=0)()
    20.0
    """

    def __init__(
        self, fn: Callable[..., Any] | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        if data is None:
            raise TypeError("do: give data=, the values by site name.")
        self.data = dict(data)
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] != "sample" or msg["name"] not in self.data:
            return
        if msg.get("is_intervened"):
            raise ModelError(
                f"site '{msg['name']}': two handlers.do intervene on it; take it out of one of them."
            )
        value = element(msg, self.data[msg["name"]])
        # The message forks. The site itself goes on outwards, to be drawn, scored and recorded as if
        # nothing had happened; what returns to the model is a constant, which adds no density.
        itself = dict(
            msg,
            kwargs=dict(msg["kwargs"]),
            cond_indep_stack=list(msg["cond_indep_stack"]),
            is_intervened=True,
        )
        apply_stack(itself, outside=self)
        msg.update(
            itself, type="deterministic", name=f"{itself['name']}__CF", value=value, stop=True
        )


class lift(Messenger):
    """Turn parameters into latent variables.

    Parameters
    ----------
    fn : callable, optional
        The model.
    prior : Distribution or dict of Distribution by parameter name
        Their priors.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     return mx.param("rate", 0.5)
    >>> lifted = mx.handlers.lift(model, prior={"rate": dist.Exponential(1.0)})
    >>> mx.handlers.trace(mx.handlers.seed(lifted, rng_seed=0)).get_trace()["rate"]["type"]
    'sample'
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        prior: Distribution | Mapping[str, Distribution] | None = None,
    ) -> None:
        priors = prior.values() if isinstance(prior, Mapping) else (prior,)
        if not all(isinstance(p, Distribution) for p in priors):
            raise TypeError(
                "lift: give prior=, a distribution or a dictionary of distributions by parameter "
                f"name, not {prior!r}."
            )
        self.prior = prior
        super().__init__(fn)

    def __enter__(self) -> Any:
        self._lifted: dict[str, Message] = {}
        return super().__enter__()

    def process_message(self, msg: Message) -> None:
        if msg["type"] != "param":
            return
        prior = self.prior.get(msg["name"]) if isinstance(self.prior, Mapping) else self.prior
        if prior is None:
            return
        if msg.get("steps"):
            raise ModelError(
                f"param '{msg['name']}': lifted in the body of a scan it would be another variable at every step; "
                "state it before the scan."
            )
        msg.update(
            type="sample",
            fn=prior,
            args=(),
            kwargs={"rng_key": None, "sample_shape": ()},
            intermediates=[],
            infer={},
            is_observed=False,
        )
        if msg["name"] in self._lifted:
            # The same parameter stated again is the same variable: hidden, with its first value.
            msg.update(value=self._lifted[msg["name"]]["value"], is_observed=True, stop=True)
        else:
            self._lifted[msg["name"]] = msg


class infer_config(Messenger):
    """Change sites' ``infer`` options.

    Parameters
    ----------
    fn : callable, optional
        The model.
    config_fn : callable
        A function of the message that returns the options to set.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     mx.sample("z", dist.Bernoulli(0.5))
    >>> kept = mx.handlers.infer_config(model, config_fn=lambda site: {"enumerate": None})
    >>> mx.handlers.trace(mx.handlers.seed(kept, rng_seed=0)).get_trace()["z"]["infer"]
    {'enumerate': None}
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        config_fn: Callable[[Message], Mapping[str, Any]] | None = None,
    ) -> None:
        if config_fn is None:
            raise TypeError("infer_config: give config_fn=.")
        self.config_fn = config_fn
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "sample":
            msg["infer"].update(check_infer(msg["name"], self.config_fn(msg)))
