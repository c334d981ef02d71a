"""An index beyond a table is refused where its value would be used, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.graph.record import record_model
from marginax.marginal.prepared import prepare_record

T2, T3 = np.array([0.0, 3.0]), np.array([0.0, 3.0, 5.0])
THREE = np.array([0.3, 0.3, 0.4])
GROUP = np.array([0, 2, 1, 2])


def capture(model: Callable[[], Any]) -> None:
    """Trace and analyse a model; nothing is compiled."""
    prepare_record(record_model(model, (), {}), {})


def seen(loc: Any) -> None:
    mx.sample("x", dist.Normal(loc, 1.0), obs=0.5)


def of_three(loc: Callable[[Any], Any]) -> Callable[[], None]:
    """A model of one variable with values 0, 1, 2."""
    return lambda: seen(loc(mx.sample("z", dist.Categorical(THREE))))


def in_plate(loc: Callable[[Any], Any]) -> Callable[[], None]:
    def model() -> None:
        with mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(THREE))
            mx.sample("x", dist.Normal(loc(z), 1.0), obs=np.zeros(4))

    return model


def in_scan(loc: Callable[[Any, Any, Any], Any]) -> Callable[[], None]:
    def model() -> None:
        def step(before: Any, group: Any) -> Any:
            z = mx.sample("z", dist.Categorical(THREE))
            mx.sample("x", dist.Normal(loc(before, z, group), 1.0), obs=0.5)
            return z, None

        mx.scan(step, 0, jnp.asarray(GROUP))

    return model


def two(loc: Callable[[Any, Any], Any]) -> Callable[[], None]:
    def model() -> None:
        a = mx.sample("a", dist.Bernoulli(0.5))
        seen(loc(a, mx.sample("z", dist.Categorical(THREE))))

    return model


def grouped(loc: Callable[[Any], Any]) -> Callable[[], None]:
    def model() -> None:
        theta = mx.sample("theta", dist.Bernoulli(0.5))
        with mx.plate("n", 4):
            mx.sample("x", dist.Normal(theta + loc(jnp.asarray(GROUP)), 1.0), obs=np.zeros(4))

    return model


pairs = jnp.array([[0, 1, 0], [1, 2, 1]])
t2, t3, square = jnp.asarray(T2), jnp.asarray(T3), jnp.ones((2, 2))

BEYOND: dict[str, Callable[[], None]] = {
    "T[z]": of_three(lambda z: t2[z]),
    "T[z + 1]": of_three(lambda z: t3[z + 1]),
    "T[z - 4]": of_three(lambda z: t3[z - 4]),
    "T[2 * z + 1]": of_three(lambda z: t3[2 * z + 1]),
    "T[a, z]": two(lambda a, z: square[a, z]),
    "T[a][z]": two(lambda a, z: square[a][z]),
    "T[a + z]": two(lambda a, z: t3[a + z]),
    "dynamic_slice": of_three(lambda z: jax.lax.dynamic_slice(t3, (z,), (2,))[0]),
    "switch": of_three(lambda z: jax.lax.switch(z, [lambda: 0.0, lambda: 1.0])),
    "select_n": of_three(lambda z: jax.lax.select_n(z, *map(jnp.float32, (1.0, 2.0)))),
    "where the other way": of_three(lambda z: jnp.where(z < 2, 9.0, t2[z])),
    "jit": of_three(jax.jit(lambda z: t2[z])),
    "checkpoint": of_three(jax.checkpoint(lambda z: t2[z])),
    "cond": of_three(lambda z: jax.lax.cond(z > 0, lambda: t2[z], lambda: 0.0)),
    "a plate": in_plate(lambda z: t2[z]),
    "T[z, z] in a plate": in_plate(lambda z: square[z, z]),
    "a step's own": in_scan(lambda before, z, group: t2[z]),
    "carried": in_scan(lambda before, z, group: t2[before]),
    "carried and own": in_scan(lambda before, z, group: square[before, z]),
    "T[group[z]]": of_three(lambda z: t2[jnp.asarray(GROUP)[z]]),
    "T[group[z]] in a plate": in_plate(lambda z: t2[jnp.asarray(GROUP)[z]]),
    "T[group[a, z]]": two(lambda a, z: t2[pairs[a, z]]),
    "T[group[z]] in a scan": in_scan(lambda before, z, group: t2[jnp.asarray(GROUP)[before]]),
    "data": grouped(lambda group: t2[group]),
    "data in a scan": in_scan(lambda before, z, group: t2[group]),
}


@pytest.mark.parametrize("model", BEYOND.values(), ids=list(BEYOND))
def test_an_index_beyond_a_table_is_refused(model: Callable[[], None]) -> None:
    with pytest.raises(mx.ModelError, match=r"site 'x': an index .* rows"):
        capture(model)


WITHIN: dict[str, Callable[[], None]] = {
    "T[z]": of_three(lambda z: t3[z]),
    "a longer table": of_three(lambda z: jnp.arange(9.0)[z]),
    "T[z - 1] wraps": of_three(lambda z: t3[z - 1]),
    "T[z - 3] wraps": of_three(lambda z: t3[z - 3]),
    "where": of_three(lambda z: jnp.where(z < 2, t2[z], 9.0)),
    "where - 1": of_three(lambda z: jnp.where(z > 0, t2[z - 1], 0.0)),
    "minimum": of_three(lambda z: t2[jnp.minimum(z, 1)]),
    "clip": of_three(lambda z: t2[jnp.clip(z, 0, 1)]),
    "mode=clip": in_plate(lambda z: t2.at[z].get(mode="clip")),
    "take, mode=clip": of_three(lambda z: jnp.take(t2, z, mode="clip")),
    "take, mode=wrap": of_three(lambda z: jnp.take(t2, z, mode="wrap")),
    "fill": of_three(lambda z: t2.at[z].get(mode="fill", fill_value=0.0)),
    "% 2": of_three(lambda z: t2[z % 2]),
    "// 2": of_three(lambda z: t2[z // 2]),
    "cond": of_three(lambda z: jax.lax.cond(z < 2, lambda: t2[z], lambda: 0.0)),
    "switch": of_three(lambda z: jax.lax.switch(z, [lambda: 0.0] * 3)),
    "T[a, z]": two(lambda a, z: jnp.ones((2, 3))[a, z]),
    "a plate": in_plate(lambda z: t3[z]),
    "a guarded plate": in_plate(lambda z: jnp.where(z < 2, t2[z], 9.0)),
    "a scan": in_scan(lambda before, z, group: jnp.ones((3, 3, 3))[before, z, group]),
    "T[group[z]]": of_three(lambda z: t3[jnp.asarray(GROUP)[z]]),
    "T[group[z]] in a plate": in_plate(lambda z: t3[jnp.asarray(GROUP)[z]]),
    "T[group[a, z]]": two(lambda a, z: t3[pairs[a, z]]),
    "rows of groups": in_plate(lambda z: t3[jnp.stack([jnp.asarray(GROUP)] * 2)[:, z]].sum(0)),
    "data": grouped(lambda group: t3[group]),
    "data, negative": grouped(lambda group: t3[group - 3]),
}


@pytest.mark.parametrize("model", WITHIN.values(), ids=list(WITHIN))
def test_what_is_within_or_not_used_is_accepted(model: Callable[[], None]) -> None:
    capture(model)


def test_a_take_beyond_a_table_is_nan_and_refused_in_numbers() -> None:
    model = of_three(lambda z: jnp.take(t2, z))
    with pytest.raises(mx.ModelError, match="site 'x': the parameter 'loc' of Normal"):
        mx.marginalize(model).log_density({})


def test_a_counter_that_is_carried_is_not_followed_for_ever() -> None:
    def model() -> None:
        def step(t: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Categorical(THREE))
            mx.sample("y", dist.Normal(t3[z] + jnp.arange(50.0)[t], 1.0), obs=y)
            return t + 1, None

        mx.scan(step, 0, jnp.zeros(50))

    capture(model)


def test_steps_that_are_not_elementwise_are_passed_over() -> None:
    """Whole numbers that are data go through products, sums and sorts of all kinds."""
    counts = np.arange(6).reshape(3, 2)

    def model(counts: Any) -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mixed = counts @ jnp.array([[1], [2]]) + jnp.sort(counts[:, 0])[:, None] + counts.sum()
        mx.sample("x", dist.Normal(1.0 * mixed[z].sum(), 1.0), obs=20.0)

    mixed = counts @ [[1], [2]] + counts[:, :1] + 15
    density = stats.norm.logpdf(20.0, mixed[:2, 0])
    expected = np.log(0.5 * np.exp(density).sum())
    np.testing.assert_allclose(mx.marginalize(model).log_density({}, counts), expected, rtol=1e-5)
