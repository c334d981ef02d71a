"""Begin the components of a mixture at rows of the data.

A mixture's posterior has many local optima, and where its components begin decides which one is found:
drawn from the prior, several may begin in one cluster and none in another, or all far from the data.
Rows of the data are always where there are data. Two components at the same point would get the same
gradient and never part, so that the rows must differ.

**k-means++** (Arthur and Vassilvitskii, 2007, "k-means++: the advantages of careful seeding") draws one
row after the other, each with probability proportional to its squared distance D² to the nearest row
drawn before. The greedy variant draws several candidates at every step and keeps the one that leaves
the smallest sum of D². D² alone could fail: it can round to zero for rows that differ, so what has
equal numbers is excluded apart from it. It is written in JAX, because restarts are mapped over keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marginax.density.validate import describe, is_fixed, satisfies
from marginax.errors import ModelError
from marginax.infer.start.initialization import InitStrategy, init_to_median, site_key, site_shape
from marginax.jaxpr.concrete import is_concrete
from marginax.language.primitives import as_numbers
from marginax.language.stack import Message


def init_to_random_points(
    site: Message | None = None,
    values: Mapping[str, Any] | None = None,
    fallback: InitStrategy = init_to_median,
) -> Any:
    """Components at different rows of the data, every row as likely as every other.

    Rows are taken in random order, and those equal to one taken before are passed over.

    Parameters
    ----------
    site : dict, optional
        The site; without it, a strategy with these options.
    values : mapping
        Data by site name: for a site of shape (K, ...), K components along its first axis, rows of
        shape (N, ...). They are checked unless they are traced.
    fallback : callable
        The strategy for sites that have no data.

    Returns
    -------
    array of the site's shape, or a strategy

    Raises
    ------
    ModelError
        For data that do not have the site's shape, are not finite, lie outside of the site's
        support, or have fewer different rows than there are components.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> from marginax.infer.start.initial_points import init_to_random_points
    >>> from marginax.infer.start.initial_run import initial_values
    >>> def model(x):
    ...     with mx.plate("components", 2):
    ...         locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    ...     with mx.plate("n", len(x)):
    ...         z = mx.sample("z", dist.Categorical(jnp.ones(2) / 2))
    ...         mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)
    >>> x = jnp.array([1.0, 7.0])
    >>> strategy = init_to_random_points(values={"locs": x})
    >>> sorted(initial_values(model, strategy, jax.random.key(0), x)["locs"].tolist())
    [1.0, 7.0]
    """
    if site is None:
        return partial(init_to_random_points, values=dict(values or {}), fallback=fallback)
    if site["name"] not in (values or {}):
        return fallback(site)
    rows, shape = _rows_for(site, values)
    return rows[_random_points(site_key(site), rows, shape[0])].reshape(shape)


def init_to_kmeans_plusplus(
    site: Message | None = None,
    values: Mapping[str, Any] | None = None,
    fallback: InitStrategy = init_to_median,
    num_candidates: int | None = None,
) -> Any:
    """Components at rows of the data that lie far apart: k-means++ (Arthur and Vassilvitskii, 2007).

    Distances are Euclidean in the data as they are; bring columns of different units to one scale.

    Parameters
    ----------
    site : dict, optional
        The site; without it, a strategy with these options.
    values : mapping
        Data by site name: for a site of shape (K, ...), K components along its first axis, rows of
        shape (N, ...). They are checked unless they are traced.
    fallback : callable
        The strategy for sites that have no data.
    num_candidates : int, optional
        How many rows are drawn at each step, to keep the best; 1 is the original algorithm, and the
        default is 2 + log(K), rounded down. Memory is N times this number.

    Returns
    -------
    array of the site's shape, or a strategy

    Raises
    ------
    ModelError
        For data that do not have the site's shape, are not finite, lie outside of the site's
        support, or have fewer different rows than there are components.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> from marginax.infer.start.initial_points import init_to_kmeans_plusplus
    >>> from marginax.infer.start.initial_run import initial_values
    >>> def model(x):
    ...     with mx.plate("components", 2):
    ...         locs = mx.sample("locs", dist.Normal(jnp.zeros(2), 10.0).to_event(1))
    ...     with mx.plate("n", len(x)):
    ...         z = mx.sample("z", dist.Categorical(jnp.ones(2) / 2))
    ...         mx.sample("x", dist.Normal(locs[z], 1.0).to_event(1), obs=x)
    >>> x = jnp.array([[0.0, 0.0], [0.0, 0.0], [9.0, 9.0]])
    >>> strategy = init_to_kmeans_plusplus(values={"locs": x})
    >>> sorted(initial_values(model, strategy, jax.random.key(0), x)["locs"].tolist())
    [[0.0, 0.0], [9.0, 9.0]]
    """
    if num_candidates is not None and (
        not isinstance(num_candidates, int | np.integer) or num_candidates < 1
    ):
        raise ValueError(
            f"init_to_kmeans_plusplus: num_candidates must be an integer >= 1, not {num_candidates!r}."
        )
    if site is None:
        options = {"fallback": fallback, "num_candidates": num_candidates}
        return partial(init_to_kmeans_plusplus, values=dict(values or {}), **options)
    if site["name"] not in (values or {}):
        return fallback(site)
    rows, shape = _rows_for(site, values)
    candidates = 2 + int(math.log(shape[0])) if num_candidates is None else int(num_candidates)
    return rows[_kmeans_plusplus(site_key(site), rows, shape[0], candidates)].reshape(shape)


def _random_points(key: Any, rows: Array, count: int) -> Array:
    """Indices of rows."""
    # A random order: the scores are never negative.
    score = (jax.random.bits(key, (len(rows),), jnp.uint32) >> 1).astype(jnp.int32)

    def step(fresh: Array, _: None) -> tuple[Array, Array]:
        index = jnp.argmax(jnp.where(fresh, score, -1))
        return fresh & _differs(rows, index), index

    return jax.lax.scan(step, jnp.ones(len(rows), bool), length=count)[1]


def _kmeans_plusplus(key: Any, rows: Array, count: int, num_candidates: int) -> Array:
    """Indices of rows."""
    span = jnp.max(rows) - jnp.min(rows)
    scale = jnp.where(span > 0, 1 / span, 1.0)
    # All at once, as every call of a generator takes long to compile.
    noise = jax.random.gumbel(
        key, (count, num_candidates, sum(_table_shape(len(rows)))), rows.dtype
    )

    def squared_distances(index: Array) -> Array:
        # In units of the span: there the squares neither overflow nor all underflow.
        return jnp.sum(((rows - rows[index]) * scale) ** 2, axis=1)

    def step(carry: tuple[Array, Array], noise: Array) -> tuple[tuple[Array, Array], Array]:
        nearest, fresh = carry
        weights = jnp.where(fresh, nearest, 0.0)
        # Where all that is left is too close for its squared distance: any of it.
        weights = jnp.where(jnp.any(weights > 0), weights, fresh.astype(weights.dtype))
        drawn = _draw(noise, weights)
        after = jnp.minimum(nearest, jax.vmap(squared_distances)(drawn))
        best = jnp.argmin(jnp.sum(after, axis=1))
        index = drawn[best]
        return (after[best], fresh & _differs(rows, index)), index

    first = _draw(noise[0, :1], jnp.ones(len(rows), rows.dtype))[0]
    carry = squared_distances(first), _differs(rows, first)
    return jnp.append(first, jax.lax.scan(step, carry, noise[1:])[1])


def _table_shape(count: int) -> tuple[int, int]:
    block = math.isqrt(count) or 1
    return -(-count // block), block


def _draw(noise: Array, weights: Array) -> Array:
    """Indices drawn in proportion to weights, by the Gumbel-max trick; never one of weight zero.

    First a block of them, then one of the block: that takes 2 sqrt(N) random numbers for a draw, not N,
    and no cumulative sum, whose rounding in single precision could give zeros a part.
    """
    blocks, block = _table_shape(len(weights))
    table = jnp.pad(weights, (0, blocks * block - len(weights))).reshape(blocks, block)
    row = jnp.argmax(noise[:, :blocks] + jnp.log(jnp.sum(table, axis=1)), axis=1)
    return row * block + jnp.argmax(noise[:, blocks:] + jnp.log(table[row]), axis=1)


def _differs(rows: Array, index: Array) -> Array:
    return jnp.any(rows != rows[index], axis=1)


def _rows_for(site: Message, values: Any) -> tuple[Array, tuple[int, ...]]:
    """The site's data as a matrix, checked as far as they are known, and the site's shape."""
    name, shape = site["name"], site_shape(site)
    given = as_numbers(name, values[name])
    if not shape or np.ndim(given) != len(shape) or np.shape(given)[1:] != shape[1:]:
        what = f"({', '.join(['N', *map(str, shape[1:])])}{',' * (len(shape) == 1)})"
        raise ModelError(
            f"it has shape {shape}, and the rows given for it have shape {np.shape(given)}.",
            site=name,
            advice=(
                f"Components are along the first axis, so that the rows must have shape {what}; where "
                "another plate comes first, give the components' plate the leftmost dim=."
                if shape
                else "It has no components; put it into a plate, or leave it to another strategy."
            ),
        )
    dtype = jnp.result_type(float)
    if is_concrete(given):
        given = np.asarray(given).astype(dtype)
        _check_rows(site, given, shape[0])
    # The barrier keeps the compiler from computing with a million constants while it compiles.
    rows = jax.lax.optimization_barrier(jnp.asarray(given, dtype))
    return rows.reshape(len(rows), -1), shape


def _check_rows(site: Message, rows: np.ndarray, count: int) -> None:
    name = site["name"]
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim))))
    if len(bad):
        raise ModelError(
            f"of the rows given for it {len(bad)} are not finite, the first is row {bad[0]}; leave them out.",
            site=name,
        )
    support = site["fn"].support
    by_component = rows[:, None]  # as the components may have supports of their own
    if is_fixed(support) and rows.size and not satisfies(support, by_component):
        raise ModelError(
            f"the rows given for it, numbers from {rows.min():.4g} to {rows.max():.4g}, lie in part outside "
            f"of its support: a value there is {describe(support)}. Shift or clip them, for example "
            "np.clip(rows, 0.1, None) for rates.",
            site=name,
        )
    different = _count_different(rows, count)
    if different < count:
        raise ModelError(
            f"it has {count} components, and the rows given for it have only {different} different values; "
            "components that begin at the same point stay equal.",
            site=name,
            advice="Use fewer components, or add a little noise to the rows.",
        )


def _count_different(rows: np.ndarray, enough: int) -> int:
    """How many rows differ, counted up to a number: most often the first rows decide."""
    rows = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    looked_at = 4 * enough
    while True:
        different = len(np.unique(rows[:looked_at], axis=0))
        if different >= enough or looked_at >= len(rows):
            return different
        looked_at *= 8
