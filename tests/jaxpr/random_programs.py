"""Random programs on small integer arrays, made of the steps that models are made of.

All arithmetic is on integers modulo a prime, so that results are exact in whatever order they are
computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

MODULUS = 7

TABLE = jnp.asarray(np.random.default_rng(0).integers(0, MODULUS, (MODULUS, MODULUS)), jnp.int32)


@jax.custom_jvp
def squared(x: Any) -> Any:
    return x * x % MODULUS


squared.defjvp(lambda primals, tangents: (squared(*primals), tangents[0]))


def _compatible(x: Any, y: Any) -> tuple[Any, Any]:
    """Both arrays, the second cut to something that broadcasts with the first."""
    while y.ndim > 3:
        y = y[0]
    pairs = zip(reversed(x.shape), reversed(y.shape), strict=False)
    for i, (a, b) in enumerate(pairs):
        if a != b and 1 not in (a, b):
            y = lax.slice_in_dim(y, 0, 1, axis=y.ndim - 1 - i)
    return x, y


def _some_axis(x: Any, n: int) -> tuple[Any, int]:
    x = x if x.ndim else x[None]
    return x, n % x.ndim


def _along(f: Callable[[Any, int], Any]) -> Callable[[Any, Any, int], Any]:
    return lambda x, y, n: f(*_some_axis(x, n))


def _both(f: Callable[[Any, Any], Any]) -> Callable[[Any, Any, int], Any]:
    return lambda x, y, n: f(*_compatible(x, y))


def _gathered(x: Any, axis: int) -> Any:
    moved = jnp.moveaxis(x, axis, -1)
    index = jnp.sort(moved, -1)[..., :1] % x.shape[axis]
    return jnp.take_along_axis(moved, index, axis=-1)


OPERATIONS: dict[str, Callable[[Any, Any, int], Any]] = {
    "add": _both(lambda x, y: (x + y) % MODULUS),
    "multiply": _both(lambda x, y: (x * y) % MODULUS),
    "where": _both(lambda x, y: jnp.where(x > 2, x, y)),
    "look up": lambda x, y, n: TABLE[n][x % MODULUS],
    "look up rows": lambda x, y, n: TABLE[x % MODULUS, :2] if x.ndim < 3 else x,
    "look up columns": lambda x, y, n: TABLE[:2, x % MODULUS] if x.ndim < 3 else x,
    "look up both": _both(lambda x, y: TABLE[x % MODULUS, y % MODULUS]),
    "look up in turn": lambda x, y, n: TABLE[x % MODULUS][..., n] if x.ndim < 3 else x,
    "index": lambda x, y, n: x[y.ravel()[0] % x.shape[0]] if x.ndim else x,
    "take along axis": _along(_gathered),
    "sum": _along(lambda x, axis: x.sum(axis) % MODULUS),
    "max": _along(lambda x, axis: x.max(axis)),
    "argmax": _along(lambda x, axis: jnp.argmax(x, axis).astype(jnp.int32)),
    "accumulate": _along(lambda x, axis: jnp.cumsum(x, axis) % MODULUS),
    "sort": _along(lambda x, axis: jnp.sort(x, axis)),
    "reverse": _along(lambda x, axis: jnp.flip(x, axis)),
    "slice": _along(lambda x, axis: lax.slice_in_dim(x, 0, 1, axis=axis)),
    "transpose": lambda x, y, n: x.T,
    "ravel": lambda x, y, n: x.ravel(),
    "split an axis": lambda x, y, n: x.reshape(x.shape[0], 1, -1) if x.ndim else x,
    "new axis": lambda x, y, n: jnp.expand_dims(x, n % (x.ndim + 1)) if x.ndim < 3 else x,
    "join": _along(lambda x, axis: jnp.concatenate([x, x + 1], axis) if x.size < 20 else x),
    "stack": lambda x, y, n: jnp.stack([x, x + n]) if x.ndim < 3 else x,
    "tile": _along(lambda x, axis: jnp.tile(x, 2) if x.size < 20 else x),
    "pad": lambda x, y, n: (
        jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((1, 0),)) if x.ndim and x.size < 20 else x
    ),
    "product": lambda x, y, n: jnp.tensordot(x, x.T, 1) % MODULUS if 0 < x.ndim < 3 else x,
    "branch": lambda x, y, n: lax.cond(y.sum() % 2 == 0, lambda z: z + 1, lambda z: 2 * z, x),
    "loop over": lambda x, y, n: (
        lax.scan(lambda c, r: ((c + r) % MODULUS, c * r % 5), x[0], x)[1] if x.ndim else x
    ),
    "carry": lambda x, y, n: (
        lax.scan(lambda c, r: ((c + r) % MODULUS, None), x[0], x)[0] if x.ndim else x
    ),
    "count": lambda x, y, n: lax.fori_loop(0, y.sum() % 3, lambda i, c: (c + i) % MODULUS, x),
    "jit": _both(jax.jit(lambda x, y: (x + 2 * y) % MODULUS)),
    "custom derivative": lambda x, y, n: squared(x),
    "set": lambda x, y, n: x.at[..., 0].set(n) if x.ndim else x,
    "forget": lambda x, y, n: jnp.full_like(x, n),
}

Step = tuple[str, int, int, int]
"""An operation, which two earlier values it takes, and a number."""

STEP = st.tuples(
    st.sampled_from(sorted(OPERATIONS)), st.integers(0, 9), st.integers(0, 9), st.integers(0, 4)
)


def program(steps: Sequence[Step]) -> Callable[..., list[Any]]:
    """A function of its inputs that applies the steps, each to two of the values so far."""

    def fn(*inputs: Any) -> list[Any]:
        values = [*inputs, jnp.arange(3, dtype=jnp.int32)]
        for name, i, j, n in steps:
            # Counted from the back, so that steps tend to build on one another.
            x, y = values[-1 - i % len(values)], values[-1 - j % len(values)]
            values.append(OPERATIONS[name](x, y, n))
        return values[len(inputs) + 1 :]

    return fn
