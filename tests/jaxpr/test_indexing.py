"""Indexing by a whole support renames an axis; the result is what indexing gives, and no gather is left."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.jaxpr.indexing import fold_elementwise, is_known

TABLE = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 2)), jnp.float32)

EXPRESSIONS = {
    "T[a, b]": lambda T, a, b: T[a, b],
    "T[a][b]": lambda T, a, b: T[a][b],
    "T[:, b][a]": lambda T, a, b: T[:, b][a],
    "T.swap[b, a]": lambda T, a, b: T.swapaxes(0, 1)[b, a],
    "T[a, :, 1][b]": lambda T, a, b: jnp.stack([T[a, :, 1][b], T[a, :, 0][b]]),
    "T[2 - a, b]": lambda T, a, b: T[2 - a, b],
    "T[a, b + 1]": lambda T, a, b: T[a, jnp.minimum(b + 1, 3)],
    "T[a - 3, b]": lambda T, a, b: T[a - 3, b],
    "T[a, a]": lambda T, a, b: T[a, a] * b,
    "take_along": lambda T, a, b: jnp.take_along_axis(T[a], b[None, None], axis=0)[0],
    "T[0, b]": lambda T, a, b: T[0, b] * a,
    "rows of more": lambda T, a, b: jnp.concatenate([T, T])[a, b],
}

IN_A_PLATE = {
    "T[a, b]": (lambda T, a, b: T[a, b], True),
    "T.swap[b, a]": (lambda T, a, b: T.swapaxes(0, 1)[b, a], True),
    "T[a - 3, b]": (lambda T, a, b: T[a - 3, b], True),
    "T[:, 1][a]": (lambda T, a, b: T[:, 1][a] * b[:, None], True),
    "T[2 - a, b]": (lambda T, a, b: T[2 - a, b], False),
    "T[a, a]": (lambda T, a, b: T[a, a] * b[:, None], False),
    "rows of more": (lambda T, a, b: jnp.concatenate([T, T])[a, b], False),
}


def model(name: str) -> Any:
    index = EXPRESSIONS[name]

    def run(table: Any) -> None:
        a = mx.sample("a", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
        b = mx.sample("b", dist.Categorical(jnp.array([0.1, 0.2, 0.3, 0.4])))
        row = index(table, a, b)
        mx.sample("x", dist.Normal(row, 1.0).to_event(row.ndim), obs=jnp.ones(row.shape))

    return run


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_indexing_by_enumerated_variables_means_what_it_means_in_numpy(name: str):
    exact = mx.marginalize(model(name))
    oracle = lambda table: mx.testing.brute_force(model(name), {}, table).log_density  # noqa: E731
    value, gradient = jax.value_and_grad(lambda table: exact.log_density({}, table))(TABLE)
    np.testing.assert_allclose(value, oracle(TABLE), rtol=1e-5)
    np.testing.assert_allclose(gradient, jax.grad(oracle)(TABLE), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", IN_A_PLATE)
def test_in_a_plate_a_whole_support_leaves_no_gather_behind_and_the_right_number(name: str):
    index, plain = IN_A_PLATE[name]

    def rows(table: Any) -> None:
        with mx.plate("n", 2):
            a = mx.sample("a", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
            b = mx.sample("b", dist.Categorical(jnp.array([0.1, 0.2, 0.3, 0.4])))
            mx.sample("x", dist.Normal(index(table, a, b), 1.0).to_event(1), obs=jnp.ones((2, 2)))

    exact = mx.marginalize(rows)
    density = lambda table: exact.log_density({}, table)  # noqa: E731
    oracle = lambda table: mx.testing.brute_force(rows, {}, table).log_density  # noqa: E731
    value, gradient = jax.value_and_grad(density)(TABLE)
    np.testing.assert_allclose(value, oracle(TABLE), rtol=1e-5)
    np.testing.assert_allclose(gradient, jax.grad(oracle)(TABLE), rtol=1e-4, atol=1e-6)
    assert ("gather" in str(jax.make_jaxpr(density)(TABLE))) != plain


def test_a_mixture_in_a_plate_has_neither_gather_nor_scatter():
    def mixture(data: Any) -> None:
        weights = mx.sample("weights", dist.Dirichlet(jnp.ones(3)))
        with mx.plate("components", 3):
            locs = mx.sample("locs", dist.Normal(0.0, 1.0))
        with mx.plate("data", len(data)):
            z = mx.sample("z", dist.Categorical(weights))
            mx.sample("obs", dist.Normal(locs[z], 1.0), obs=data)

    params = {"weights": jnp.ones(3) / 3, "locs": jnp.arange(3.0)}
    density = jax.value_and_grad(mx.marginalize(mixture).log_density)
    program = str(jax.make_jaxpr(density)(params, jnp.arange(7.0)))
    assert "gather" not in program
    assert "scatter" not in program


def test_an_enumerated_index_into_a_varying_axis_of_a_plate_picks_each_elements_own_row():
    table = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)

    def rows(table: Any) -> None:
        with mx.plate("rows", 5):
            z = mx.sample("z", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
            own = jnp.take_along_axis(table, z[:, None], axis=1)[:, 0]
            mx.sample("x", dist.Normal(own, 1.0), obs=jnp.zeros(5))

    exact = mx.marginalize(rows).log_density({}, table)
    log_normal = -0.5 * np.asarray(table) ** 2 - 0.5 * np.log(2 * np.pi)
    by_hand = np.log((np.array([0.2, 0.3, 0.5]) * np.exp(log_normal)).sum(1)).sum()
    np.testing.assert_allclose(exact, by_hand, rtol=1e-5)


@pytest.mark.parametrize(
    ("primitive", "operands"),
    [
        ("add", ([2147483647, 1], [1, 2])),
        ("sub", ([0, 1], [3, -2])),
        ("mul", ([3, -4], [5, 6])),
        ("lt", ([0, 5], [1, 5])),
        ("max", ([0, 5], [1, 4])),
    ],
)
def test_arithmetic_done_while_tracing_is_jaxs(primitive: str, operands: Any):
    arrays = [np.asarray(o, np.int32) for o in operands]
    function = getattr(jax.lax, primitive)
    folded = fold_elementwise(primitive, {}, arrays)
    assert folded is not None
    np.testing.assert_array_equal(folded, function(*map(jnp.asarray, arrays)))


def test_numbers_that_are_traced_or_real_or_many_are_left_to_the_program():
    assert is_known(np.arange(3))
    assert not is_known(jnp.arange(3))
    assert not is_known(np.arange(3.0))
    assert not is_known(np.zeros(100_000, int))
