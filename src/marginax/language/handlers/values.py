"""Values for what a model would draw: from outside, from another run, or from a prior."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from marginax.arrays.narrowing import check_narrowing
from marginax.errors import ModelError
from marginax.language.handlers.recording import Trace
from marginax.language.primitives import as_numbers, prng_key
from marginax.language.stack import Message, Messenger, apply_stack, element


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
                f"it is {here} of the model, but in the trace to replay it is {there}; make it {here} there "
                "too, or give it another name.",
                site=msg["name"],
            )
        msg["value"] = recorded["value"]
        if msg["type"] == "sample":
            msg["infer"] = dict(recorded["infer"])
            msg["value"] = _given(msg, recorded["value"])


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
                "two handlers.do intervene on it; take it out of one of them.", site=msg["name"]
            )
        value = element(msg, self.data[msg["name"]])
        # The message forks. The site itself goes on outwards, to be drawn, scored and recorded as if
        # nothing had happened; what returns to the model is a constant, which adds no density.
        itself = copy.copy(msg)
        itself["kwargs"] = dict(msg["kwargs"])
        itself["cond_indep_stack"] = list(msg["cond_indep_stack"])
        itself["is_intervened"] = True
        apply_stack(itself, outside=self)
        msg.update(itself)
        msg["type"], msg["name"] = "deterministic", f"{itself['name']}__CF"
        msg["value"], msg["stop"] = value, True


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
                "lifted in the body of a scan it would be another variable at every step; "
                "state it before the scan.",
                site=msg["name"],
                kind="param",
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
