"""Random keys for what a model draws."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.language.stack import Message, Messenger, read_lazily


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
