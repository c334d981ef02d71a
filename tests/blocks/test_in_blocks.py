"""A function in blocks is the same function: values, derivatives of any order, batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.scipy.special import logsumexp

from marginax.blocks.blocked import in_blocks
from marginax.blocks.demand import Tiling, tiling
from marginax.blocks.program import flat_program

N = 23  # a prime: the last block is never whole
RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=N)
PAIRS = RNG.normal(size=(N, 3))
OF_TIME = RNG.normal(size=(4, N))
WHICH = RNG.integers(0, 3, N)
THETA = np.array([0.3, -1.2, 0.8])

Fn = Callable[[Array], Any]


# An array of NumPy that is closed over keeps the precision in which JAX saw it first.
def x() -> Array:
    return jnp.array(NUMBERS)


def xs() -> Array:
    return jnp.array(PAIRS)


def mixture(theta: Array) -> Array:
    return logsumexp(theta - (x()[:, None] - theta) ** 2, axis=1).sum()


def posterior(theta: Array) -> Array:
    return jax.nn.softmax(theta - (x()[:, None] - theta) ** 2, axis=1)


def standardised(theta: Array) -> Array:
    """A sum that needs another sum over all rows, and that another."""
    y = x() * theta[0] + theta[1]
    y = y - y.mean()
    return jnp.tanh(y / jnp.sqrt((y**2).mean())).sum() * theta[2]


def centred(theta: Array) -> Array:
    """The same, and curved in all directions."""
    y = x() * theta[0] + theta[1]
    y = y - y.mean() * theta[2]
    return jnp.tanh(y / jnp.sqrt(1 + (y**2).mean())).sum()


def global_given_rows(theta: Array) -> Array:
    """As for a variable outside of the plate: a sum over rows for each of its values."""
    each = -((x()[:, None] - theta) ** 2).sum(0)
    return logsumexp(each)


def products(theta: Array) -> Array:
    return (jnp.exp(xs() * theta).T @ jnp.cos(xs() * theta[0])).sum()


def looked_up(theta: Array) -> Array:
    """Its gradient scatters rows into theta."""
    return (jnp.sin(theta[WHICH]) * x()).sum()


def extremes(theta: Array) -> Array:
    y = jnp.sin(x() * theta[0])
    return jnp.max(y) - 2 * jnp.min(y) + jnp.where(jnp.all(y < 2), theta[1], 0.0)


def mixed_by_cumsum(theta: Array) -> Array:
    return jnp.cumsum(jnp.exp(x() * theta[0])).sum() + mixture(theta)


def numbered(theta: Array) -> Array:
    return (jnp.sin(jnp.arange(N) * theta[0]) + theta[1]).sum()


def series(theta: Array) -> Array:
    """A recurrence along time in every row."""

    def step(state: Array, now: Array) -> tuple[Array, Array]:
        state = jnp.tanh(theta[0] * state + now)
        return state, state**2

    last, squares = jax.lax.scan(step, jnp.zeros(N), jnp.array(OF_TIME))
    return last.sum() * theta[1] + jnp.log1p(squares).sum()


def as_long_as_needed(theta: Array) -> Array:
    """A loop whose length is not known before, which JAX differentiates forwards alone."""

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        return state[0] + 1, jnp.tanh(state[1] * theta[1] + theta[2])

    start = jnp.zeros((), int), jnp.sin(x() * theta[0])
    return jax.lax.while_loop(lambda state: state[0] < 2 + (theta[0] > 0), step, start)[1]


def branches(theta: Array) -> Array:
    y = jnp.sin(x() * theta[0])
    return jax.lax.cond(theta[1] > 0, jnp.exp, lambda y: y * theta[2], y).sum()


def with_its_own_derivative(theta: Array) -> Array:
    return jax.nn.relu(x() * theta[0]).sum() + jnp.logaddexp(x() * theta[1], theta[2]).sum()


def several_results(theta: Array) -> Any:
    y = jnp.exp(x() * theta[0])
    return {
        "total": y.sum(),
        "rows": (y[:, None] * theta).T,
        "argmax": jnp.argmax(y),
        "none": x()[0],
    }


def plain_parameters(theta: Array) -> Array:
    return (theta**2).sum()


FUNCTIONS = [
    mixture,
    posterior,
    standardised,
    global_given_rows,
    products,
    looked_up,
    extremes,
    mixed_by_cumsum,
    numbered,
    series,
    branches,
    with_its_own_derivative,
    several_results,
    plain_parameters,
]


@pytest.fixture(autouse=True, params=[False, True], ids=["single", "double"])
def precision(request: pytest.FixtureRequest) -> Any:
    with jax.enable_x64(request.param):
        yield


def check_equal(found: Any, expected: Any) -> None:
    """Up to some roundings of sums of N terms of order ten."""
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=200 * eps, atol=200 * eps * N)


@pytest.mark.parametrize("block_size", [1, 4, N, 2 * N])
@pytest.mark.parametrize("fn", FUNCTIONS)
def test_values_do_not_change(fn: Fn, block_size: int) -> None:
    theta = jnp.array(THETA)
    check_equal(jax.jit(in_blocks(fn, {N: block_size}))(theta), fn(theta))


def total(fn: Fn) -> Callable[[Array], Array]:
    """All results of a function as one number, smooth ones weighed."""

    def number(theta: Array) -> Array:
        leaves = [x for x in jax.tree.leaves(fn(theta)) if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum((jnp.sum(x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)) for x in leaves), 0.0)  # pyright: ignore

    return number


@pytest.mark.parametrize("fn", FUNCTIONS)
def test_derivatives_do_not_change(fn: Fn) -> None:
    """Backwards and forwards, through the function and with the function inside of another one."""
    theta = jnp.array(THETA)
    blocked = in_blocks(fn, {N: 4})
    check_equal(jax.jit(jax.grad(total(blocked)))(theta), jax.grad(total(fn))(theta))
    found = jax.jit(lambda t: jax.jvp(total(blocked), (t,), (jnp.ones(3),)))(theta)
    check_equal(found, jax.jvp(total(fn), (theta,), (jnp.ones(3),)))


@pytest.mark.parametrize("fn", [mixture, centred, series, looked_up, with_its_own_derivative])
def test_second_derivatives_do_not_change(fn: Fn) -> None:
    theta, blocked = jnp.array(THETA), in_blocks(fn, {N: 4})
    check_equal(jax.jit(jax.hessian(blocked))(theta), jax.hessian(fn)(theta))
    check_equal(jax.jit(jax.jacrev(jax.grad(blocked)))(theta), jax.hessian(fn)(theta))


def test_third_derivatives_do_not_change() -> None:
    theta, blocked = jnp.array(THETA), in_blocks(centred, {N: 4})
    found = jax.jit(jax.jacfwd(jax.jacrev(jax.grad(blocked))))(theta)
    check_equal(found, jax.jacfwd(jax.jacfwd(jax.grad(centred)))(theta))


def test_second_derivatives_forwards_do_not_change() -> None:
    theta, blocked = jnp.array(THETA), in_blocks(as_long_as_needed, {N: 4})
    found = jax.jit(jax.jacfwd(jax.jacfwd(blocked)))(theta)
    check_equal(found, jax.jacfwd(jax.jacfwd(as_long_as_needed))(theta))


@pytest.mark.parametrize("fn", [mixture, posterior, standardised, series, looked_up])
def test_a_batch_is_mapped_over(fn: Fn) -> None:
    thetas, blocked = jnp.stack([jnp.array(THETA), jnp.zeros(3)]), in_blocks(fn, {N: 4})
    check_equal(jax.jit(jax.vmap(blocked))(thetas), jax.vmap(fn)(thetas))
    gradient = jax.vmap(jax.grad(total(fn)))(thetas)
    check_equal(jax.jit(jax.vmap(jax.grad(total(blocked))))(thetas), gradient)


def test_derivatives_of_rows_are_rows() -> None:
    def fn(rows: Array) -> Array:
        return logsumexp(rows[:, None] * jnp.array(THETA), axis=1).sum()

    rows = x()
    check_equal(jax.jit(jax.grad(in_blocks(fn, {N: 4})))(rows), jax.grad(fn)(rows))


def test_what_is_closed_over_can_be_differentiated() -> None:
    def outer(run: Callable[[Fn], Fn], scale: Array) -> Array:
        return run(lambda theta: mixture(theta * scale))(jnp.array(THETA))

    found = jax.jit(jax.grad(lambda s: outer(lambda fn: in_blocks(fn, {N: 4}), s)))(2.0)
    check_equal(found, jax.grad(lambda s: outer(lambda fn: fn, s))(2.0))


def test_two_large_axes() -> None:
    ys = np.arange(11.0)

    def fn(theta: Array) -> Array:
        each = jnp.sin(x()[:, None] * theta[0] + ys * theta[1])
        return each.sum() + jnp.exp(ys * theta[2] / 10).sum()

    blocked = in_blocks(fn, {N: 4, 11: 3})
    check_equal(jax.jit(jax.value_and_grad(blocked))(THETA), jax.value_and_grad(fn)(THETA))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", [0, N - 5, N - 4, N - 1])
def test_a_row_that_is_not_finite_counts_once(bad: float, where: int) -> None:
    """Also where the last block has it a second time."""
    rows = x().at[where].set(bad)

    def fn(rows: Array) -> Array:
        return jnp.stack([(2 * rows).sum(), jnp.max(2 * rows), (2 * rows) @ jnp.cos(x())])

    check_equal(jax.jit(in_blocks(fn, {N: 4}))(rows), fn(rows))


def test_impossible_rows_have_no_gradient() -> None:
    def fn(theta: Array) -> Array:
        return logsumexp(jnp.where(WHICH[:, None] > 0, -jnp.inf, theta) + theta, axis=0).sum()

    check_equal(jax.jit(jax.grad(in_blocks(fn, {N: 4})))(THETA), jax.grad(fn)(THETA))


def test_many_small_terms_keep_their_digits() -> None:
    """A hundred thousand blocks of one row, each adding 0.1: summed one by one, single precision loses 1e-4 of it."""
    rows = jnp.full(100_000, 0.1)
    found = jax.jit(in_blocks(lambda rows: jnp.exp(jnp.log(rows)).sum(), {100_000: 1}))(rows)
    eps = float(jnp.finfo(rows.dtype).eps)
    np.testing.assert_allclose(found, 10_000.0, rtol=8 * eps)


def plan_of(fn: Callable[..., Any], *args: Any) -> Tiling:
    found = tiling(flat_program(jax.make_jaxpr(fn)(*args)), N)
    assert found is not None
    return found


def test_value_and_gradient_of_a_sum_over_rows_are_one_loop() -> None:
    plan = plan_of(jax.value_and_grad(mixture), jnp.array(THETA))
    assert len(plan.loops) == 1
    assert not plan.needed_whole
    assert plan.width == 3  # components for each row


def test_what_needs_a_sum_first_is_another_loop() -> None:
    assert len(plan_of(standardised, jnp.array(THETA)).loops) == 3


def test_a_step_that_mixes_rows_is_named() -> None:
    plan = plan_of(mixed_by_cumsum, jnp.array(THETA))
    assert set(plan.needed_whole.values()) <= {"cumsum"}


def test_nothing_is_done_where_nothing_has_rows() -> None:
    assert tiling(flat_program(jax.make_jaxpr(plain_parameters)(THETA)), N) is None


@pytest.mark.parametrize("fn", [mixture, posterior, standardised])
def test_no_array_of_all_rows_is_made_on_the_way(fn: Fn) -> None:
    """All whole steps are small; what has rows is a result or lives in a loop."""
    plan = plan_of(fn, jnp.array(THETA))
    made = [v.shape for stage in plan.stages for step in stage for v in step.outputs]
    assert all(N not in shape for shape in made)


def test_memory_does_not_grow_with_the_rows() -> None:
    def temporary(rows: int) -> int:
        def fn(theta: Array, x: Array) -> Array:
            return logsumexp(theta - (x[:, None] - theta) ** 2, axis=1).sum()

        x = jax.ShapeDtypeStruct((rows,), jnp.result_type(float))
        theta = jax.ShapeDtypeStruct((50,), jnp.result_type(float))
        program = jax.jit(jax.value_and_grad(in_blocks(fn, {rows: 1_000})))
        analysis = program.lower(theta, x).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert temporary(1_000_000) <= 1.1 * temporary(10_000)


def test_small_arrays_are_left_as_they_are() -> None:
    traced = str(jax.make_jaxpr(in_blocks(mixture, {N: None}))(jnp.array(THETA)))
    assert "scan" not in traced
    assert "scan" in str(jax.make_jaxpr(in_blocks(mixture, {N: 4}))(jnp.array(THETA)))


def test_large_arrays_are_cut_into_equal_blocks_of_the_size_of_the_cache() -> None:
    rows = jax.ShapeDtypeStruct((1_000_000,), jnp.float32)
    fn = in_blocks(lambda x: jnp.exp(x[:, None] * jnp.arange(10)).sum(), {1_000_000: None})
    assert "100000" in str(jax.make_jaxpr(fn)(rows))


def test_more_rows_than_can_be_counted_are_not_cut() -> None:
    with jax.enable_x64(False):
        rows = jax.ShapeDtypeStruct((3_000_000_000,), jnp.float32)
        fn = in_blocks(lambda x: jnp.exp(x).sum(), {3_000_000_000: None})
        assert "scan" not in str(jax.make_jaxpr(fn)(rows))
