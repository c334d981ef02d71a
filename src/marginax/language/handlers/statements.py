"""How statements count: hidden, masked, scaled, renamed, told how to be treated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from marginax.language.primitives import as_numbers, check_infer, masked, prng_key
from marginax.language.stack import Message, Messenger


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
        if msg["type"] == "sample":
            msg["fn"] = masked(msg["name"], msg["fn"], self.mask)


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
