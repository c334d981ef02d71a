"""The statements a model is made of: `sample`, `param`, `deterministic`, `factor`, `subsample`, `prng_key`.

Each writes a message and sends it through the handler stack (see `stack`). Names, signatures and
meanings are NumPyro's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, Unit

from marginax.arrays.masked import refuse_masked
from marginax.arrays.narrowing import check_narrowing, check_rounding
from marginax.errors import ModelError
from marginax.language.stack import Message, apply_stack, is_active, statement

ENUMERATE_CHOICES = (None, "parallel", "sequential")
_NOT_NUMBERS = "OUSMm"  # NumPy kinds: objects, text, bytes, dates, durations


def sample(
    name: str,
    fn: Distribution | None,  # NumPyro's type for what its Categorical(...) returns
    obs: ArrayLike | None = None,
    rng_key: Any = None,
    sample_shape: tuple[int, ...] = (),
    infer: dict[str, Any] | None = None,
    obs_mask: ArrayLike | None = None,
) -> Any:
    """State a random variable.

    Parameters
    ----------
    name : str
        The site's name, unique in the model.
    fn : Distribution
        The variable's distribution given everything before it.
    obs : array, shape ``fn.shape()``, optional
        The observed value. Without it the variable is latent.
    rng_key : PRNG key, optional
        Only for use outside any handler; under `handlers.seed` it is not needed.
    sample_shape : tuple of int
        Independent copies to the left of the distribution's batch shape.
    infer : dict, optional
        Advice to inference. ``"enumerate"``: ``"parallel"`` or ``"sequential"`` (the same in a
        model) to sum the variable out, ``None`` to leave it alone. A latent variable with a finite
        support is summed out when nothing is said.
    obs_mask : bool array, shape ``fn.batch_shape``, optional
        Where True, ``obs`` is observed; elsewhere the value is missing and becomes the latent site
        ``name + "_unobserved"``.

    Returns
    -------
    array, shape ``sample_shape + fn.shape()`` widened by the plates around it
        The variable's value.

    Raises
    ------
    ModelError
        When the value must be drawn without a key, when ``obs`` is not numeric or does not fit the
        distribution and its plates, or when ``infer`` has an unknown ``"enumerate"``.
    TypeError
        When ``fn`` is not a distribution.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> with mx.handlers.seed(rng_seed=0):
    ...     x = mx.sample("x", dist.Normal(0.0, 1.0))
    >>> x.shape
    ()
    """
    _check_name("sample", name)
    if not isinstance(fn, Distribution):
        raise TypeError(
            f"site '{name}': the second argument of `sample` must be a distribution from "
            f"marginax.distributions, not {type(fn).__name__}."
        )
    if not isinstance(sample_shape, tuple | list):
        raise ModelError(f"sample_shape must be a tuple, ({sample_shape!r},) perhaps.", site=name)
    infer = {} if infer is None else check_infer(name, infer)
    if obs is not None:
        obs = as_numbers(name, obs)
        _check_whole_numbers(name, fn, obs)
    if obs_mask is not None:
        return _sample_partly_observed(name, fn, obs, obs_mask, rng_key, sample_shape, infer)
    if not is_active() and obs is not None:
        return obs
    kwargs = {"rng_key": rng_key, "sample_shape": tuple(sample_shape)}
    is_observed = obs is not None
    msg = apply_stack(
        statement(
            "sample", name, fn, kwargs=kwargs, value=obs, is_observed=is_observed, infer=infer
        )
    )
    check_value_fits(msg)
    return msg["value"]


def _check_name(statement: str, name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(
            f"{statement}: the site's name, its first argument, must be a string, not {_shorten(name)}."
        )


def check_infer(name: str, infer: Any) -> dict[str, Any]:
    """The ``infer`` options of a site as a new dictionary, checked."""
    if not isinstance(infer, Mapping):
        raise ModelError(
            f"infer must be a dictionary such as {{'enumerate': 'parallel'}}, not {infer!r}.",
            site=name,
        )
    choice = infer.get("enumerate")
    if choice not in ENUMERATE_CHOICES:
        raise ModelError(
            f"infer={{'enumerate': {choice!r}}} is not known; write 'parallel' or 'sequential' to sum the "
            "variable out, or None to leave it as it is.",
            site=name,
        )
    return dict(infer)


def as_numbers(name: str, value: Any) -> Any:
    """A value that a user gave to a site, as an array of numbers; plain numbers stay what they are."""
    if isinstance(value, bool | int | float):
        check_narrowing(f"site '{name}'", value)
        return value
    refuse_masked(f"site '{name}': its value", value)
    array, what = value, type(value).__name__
    try:
        if isinstance(value, list | tuple):
            is_traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
            array = jnp.asarray(value) if is_traced else np.asarray(value)
        elif not isinstance(value, jax.Array):
            array = np.asarray(value)
            what = f"{what} of {array.dtype}"
        is_numeric = getattr(array.dtype, "kind", "") not in _NOT_NUMBERS
    except (TypeError, ValueError, OverflowError):
        is_numeric = False
    if not is_numeric:
        raise ModelError(
            f"its value must be an array of numbers, but it is a {what} ({_shorten(value)}); convert it "
            "first, for example with np.asarray(value, dtype=float).",
            site=name,
        )
    check_narrowing(f"site '{name}'", array)
    return array


def _check_whole_numbers(name: str, fn: Distribution, obs: Any) -> None:
    """A continuous distribution makes floating numbers of them."""
    is_known = isinstance(obs, np.ndarray | jax.Array) and not isinstance(obs, Tracer)
    if not is_known or obs.dtype.kind not in "iu" or fn.is_discrete or not obs.size:
        return
    if not isinstance(obs, jax.Array) or obs.is_fully_addressable:
        check_rounding(f"site '{name}'", np.asarray(obs), jnp.result_type(float))


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def check_value_fits(msg: Message) -> None:
    """A value may not silently widen a distribution inside plates (nor the other way round)."""
    frames, fn = msg["cond_indep_stack"], msg["fn"]
    actual = np.shape(msg["value"])
    if actual[max(len(actual) - fn.event_dim, 0) :] != tuple(fn.event_shape):
        raise ModelError(
            f"its value has shape {actual}, which does not end in the event shape {tuple(fn.event_shape)} of "
            "its distribution; give one value for each element.",
            site=msg["name"],
        )
    if not frames:
        return
    expected = tuple(fn.shape())
    try:
        fits = np.broadcast_shapes(actual, expected) == expected
    except ValueError:
        fits = False
    if not fits:
        plates = ", ".join(f"'{f.name}' of size {f.size}" for f in frames)
        kind = "observed value" if msg["is_observed"] else "value"
        raise ModelError(
            f"the {kind} has shape {actual}, but the distribution inside the plates around it ({plates}) has "
            f"shape {expected}.",
            site=msg["name"],
            advice=(
                "Make the plate as long as the data, for example plate('data', len(data)), or move event "
                "dimensions into the distribution with .to_event()."
            ),
        )


def _sample_partly_observed(
    name: str,
    fn: Distribution,
    obs: Any,
    obs_mask: Any,
    rng_key: Any,
    sample_shape: tuple[int, ...],
    infer: dict[str, Any],
) -> Any:
    obs_mask = jnp.asarray(as_numbers(name, obs_mask))
    if obs_mask.dtype != bool:
        raise ModelError("obs_mask must be an array of booleans.", site=name)
    seen, unseen = (masked(name, fn, kept) for kept in (obs_mask, ~obs_mask))
    observed = sample(f"{name}_observed", seen, obs, rng_key, sample_shape, infer)
    unobserved = sample(f"{name}_unobserved", unseen, None, rng_key, sample_shape, infer)
    per_event = obs_mask.reshape(obs_mask.shape + (1,) * fn.event_dim)
    return deterministic(name, jnp.where(per_event, observed, unobserved))


def masked(name: str, fn: Distribution, mask: Any) -> Distribution:
    """A site's distribution, switched off where a mask is false."""
    try:
        return fn.mask(mask)
    except ValueError:
        raise ModelError(
            f"a mask of shape {jnp.shape(mask)} does not fit its distribution, whose batch shape is "
            f"{fn.batch_shape}; give the mask a shape that broadcasts to it.",
            site=name,
        ) from None


def param(name: str, init_value: Any = None, **kwargs: Any) -> Any:
    """State a parameter to be optimised by `SVI`.

    Parameters
    ----------
    name : str
        The site's name. The same name may be stated again; it is the same parameter.
    init_value : array or callable
        Where to begin: a value, or a function of a random key that returns one.
    constraint : numpyro constraint, optional
        Where the parameter lives; the whole real line when nothing is said.
    event_dim : int, optional
        Rightmost dimensions that are not plates; needed only inside a subsampled plate, where the
        plate's dimensions of the parameter are subsampled with it.

    Returns
    -------
    array
        Its current value: the initial one outside of an inference algorithm.

    Examples
    --------
    >>> import marginax as mx
    >>> mx.param("loc", 0.5)
    0.5
    """
    _check_name("param", name)
    _check_param_options(name, kwargs)
    if callable(init_value):
        make: Callable[..., Any] = init_value

        def fn(**_: Any) -> Any:
            key = prng_key()
            if key is None:
                raise ModelError(
                    "its init_value is a function of a random key, but the model "
                    "runs outside of a seed; write handlers.seed(model, rng_seed=0).",
                    site=name,
                    kind="param",
                )
            return make(key)

    elif init_value is None:

        def fn(**_: Any) -> Any:
            raise ModelError(
                f"it has no init_value, and no handler gave it a value; write "
                f"param('{name}', init_value=...).",
                site=name,
                kind="param",
            )

    else:
        for leaf in jax.tree.leaves(init_value):
            as_numbers(name, leaf)

        def fn(**_: Any) -> Any:
            return init_value

    if not is_active():
        return fn()
    return apply_stack(statement("param", name, fn, kwargs=kwargs))["value"]


def _check_param_options(name: str, options: dict[str, Any]) -> None:
    unknown = sorted(options.keys() - {"constraint", "event_dim"})
    if unknown:
        raise TypeError(
            f"param '{name}': {', '.join(unknown)} is not an option of it; it takes constraint= and "
            "event_dim=."
        )
    event_dim = options.get("event_dim")
    if event_dim is not None and (not isinstance(event_dim, int) or event_dim < 0):
        raise ModelError(
            f"event_dim must be an integer >= 0, not {event_dim!r}.",
            site=name,
            kind="param",
        )


def deterministic(name: str, value: ArrayLike) -> Any:
    """Record a value under a name; it adds nothing to the density.

    Parameters
    ----------
    name : str
        The site's name, unique in the model.
    value : array
        Any function of the sites before it.

    Returns
    -------
    array
        The value, unchanged.

    Examples
    --------
    >>> import marginax as mx
    >>> with mx.handlers.trace() as tr:
    ...     _ = mx.deterministic("twice", 2 * 3.0)
    >>> tr["twice"]["value"]
    6.0
    """
    _check_name("deterministic", name)
    if value is None:
        raise ModelError(
            "a deterministic site needs a value, not None; leave the statement out where there is none.",
            site=name,
        )
    if not is_active():
        return value
    return apply_stack(statement("deterministic", name, value=value))["value"]


def factor(name: str, log_factor: ArrayLike) -> None:
    """Multiply the density by ``exp(log_factor)``.

    Parameters
    ----------
    name : str
        The site's name, unique in the model.
    log_factor : array, shape of the plates around it, or any shape outside plates
        The logarithm of the factor; it may depend on discrete variables like any other site.

    Examples
    --------
    >>> import marginax as mx
    >>> def model(z):
    ...     mx.factor("penalty", -0.5 * z**2)
    >>> m = mx.marginalize(model)
    >>> float(m.log_density({}, 2.0))
    -2.0
    """
    unit = Unit(jnp.asarray(as_numbers(name, log_factor)))
    # One empty event per element: the value carries nothing, the density is all in the unit.
    sample(name, unit, obs=unit.sample(None), infer={"is_auxiliary": True})


def prng_key() -> Any:
    """A fresh random key from the `handlers.seed` around the model.

    Returns
    -------
    PRNG key or None
        None when no seed is active.

    Examples
    --------
    >>> import jax
    >>> import marginax as mx
    >>> with mx.handlers.seed(rng_seed=0):
    ...     noise = jax.random.normal(mx.prng_key())
    """
    if not is_active():
        return None
    key = statement("prng_key", None, lambda rng_key: rng_key, kwargs={"rng_key": None})
    return apply_stack(key)["value"]


def subsample(data: ArrayLike, event_dim: int) -> Any:
    """Take the rows of ``data`` that the subsampled plates around it have chosen.

    Parameters
    ----------
    data : array
        Full-size data, whose dimensions left of the event are those of the plates.
    event_dim : int
        Rightmost dimensions of ``data`` that are not plates.

    Returns
    -------
    array
        ``data`` with each subsampled plate's dimension reduced to the chosen rows.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> with mx.handlers.seed(rng_seed=0), mx.plate("data", 10, subsample_size=4):
    ...     rows = mx.subsample(jnp.arange(10.0), event_dim=0)
    >>> rows.shape
    (4,)
    """
    if not isinstance(event_dim, int) or event_dim < 0:
        raise TypeError(f"subsample: event_dim must be an integer >= 0, not {event_dim!r}.")
    data = as_numbers("subsample(data)", data)
    if not is_active():
        return data
    rows = statement("subsample", None, value=data, kwargs={"event_dim": event_dim})
    return apply_stack(rows)["value"]
