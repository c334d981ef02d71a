"""Evaluation over supports: the numbers of `jax.vmap`, without paying for what does not vary."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings, strategies as st
from jax import lax
from random_programs import OPERATIONS, STEP, Step, program, squared

from marginax.jaxpr.dependence import dependences
from marginax.jaxpr.enumerated import Enumerated, materialise, support_input
from marginax.jaxpr.evaluate import evaluate


@dataclass(frozen=True)
class Variable:
    """A discrete variable: how many values it has, and its plates."""

    size: int
    plates: tuple[int, ...]

    @property
    def support(self) -> np.ndarray:
        return np.arange(self.size, dtype=np.int32)

    def filled(self, value: int) -> np.ndarray:
        return np.full(self.plates, value, np.int32)


def evaluated(
    fn: Callable[..., Sequence[Any]], variables: dict[str, Variable]
) -> tuple[list[Enumerated], list[set[str]]]:
    """A function's outputs over the supports, and which variables each must depend on."""
    example = [v.filled(0) for v in variables.values()]
    closed = jax.make_jaxpr(fn)(*example)
    order = {name: i for i, name in enumerate(variables)}
    shapes: list[tuple[Any, Any]] = []

    def run() -> list[Any]:
        inputs = [
            support_input(jnp.asarray(v.support), len(v.plates), name, v.plates)
            for name, v in variables.items()
        ]
        outputs = evaluate(closed.jaxpr, closed.consts, inputs, order)
        shapes[:] = [(o.variables, o.constant) for o in outputs]
        return [o.array for o in outputs]

    arrays = jax.jit(run)()
    paths = [{name: tuple(range(len(v.plates)))} for name, v in variables.items()]
    found = dependences(closed.jaxpr, paths)
    outputs = [Enumerated(a, *shape) for a, shape in zip(arrays, shapes, strict=True)]
    return outputs, [set(f) for f in found]


def assert_equals_every_assignment(
    fn: Callable[..., Sequence[Any]], variables: dict[str, Variable]
) -> None:
    outputs, dependence = evaluated(fn, variables)
    plain = jax.jit(fn)
    for choice in itertools.product(*(range(v.size) for v in variables.values())):
        value: dict[Any, int] = dict(zip(variables, choice, strict=True))
        expected = plain(*(v.filled(value[name]) for name, v in variables.items()))
        for out, wanted, depends in zip(outputs, expected, dependence, strict=True):
            assert set(out.variables) == depends
            whole = materialise(out, jnp.shape(wanted), out.constant).array
            at = tuple(value[name] for name in out.variables)
            np.testing.assert_array_equal(np.asarray(whole)[(..., *at)], wanted)


# --- random programs -------------------------------------------------------------------------

VARIABLE = st.builds(
    Variable, st.integers(1, 3), st.sampled_from([(), (2,), (3,), (2, 3), (3, 1), (1, 2)])
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(VARIABLE, min_size=1, max_size=3), st.lists(STEP, min_size=1, max_size=7))
def test_a_random_program_takes_the_value_that_it_has_for_each_assignment(
    variables: list[Variable], steps: list[Step]
) -> None:
    assert_equals_every_assignment(
        program(steps), {f"z{i}": variable for i, variable in enumerate(variables)}
    )


def test_every_operation_alone_takes_the_value_that_it_has_for_each_assignment() -> None:
    """One program with all operations on three variables, so that none is missed by chance."""
    variables = {"a": Variable(2, (3,)), "b": Variable(3, ()), "c": Variable(2, (2, 3))}
    for which in (0, 1, 2):
        steps = [
            (name, k + 1 + which, k + 1 + (which + 1) % 3, 1) for k, name in enumerate(OPERATIONS)
        ]
        assert_equals_every_assignment(program(steps), variables)


# --- what it costs ---------------------------------------------------------------------------

N = 1000
PLATE = {"z": Variable(3, (N,))}
LOCS = jnp.array([-1.0, 0.0, 2.0])
DATA = jnp.linspace(-2.0, 2.0, N)


def sizes(fn: Callable[..., Sequence[Any]], variables: dict[str, Variable]) -> list[int]:
    """Elements of everything that the evaluation computes."""
    jaxpr = jax.make_jaxpr(lambda: [o.array for o in evaluated_lazily(fn, variables)])()
    return [v.aval.size for eqn in computations(jaxpr) for v in eqn.outvars]


def computations(jaxpr: Any) -> list[Any]:
    """Equations other than those that only arrange an array anew, which a compiler does for nothing."""
    free = ("broadcast_in_dim", "reshape")
    return [eqn for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name not in free]


def evaluated_lazily(
    fn: Callable[..., Sequence[Any]], variables: dict[str, Variable]
) -> list[Enumerated]:
    closed = jax.make_jaxpr(fn)(*(v.filled(0) for v in variables.values()))
    inputs = [
        support_input(jnp.asarray(v.support), len(v.plates), name, v.plates)
        for name, v in variables.items()
    ]
    order = {name: i for i, name in enumerate(variables)}
    return evaluate(closed.jaxpr, closed.consts, inputs, order)


def test_what_depends_on_nothing_is_computed_once() -> None:
    (out,) = evaluated_lazily(lambda z: [DATA**2], PLATE)
    assert out.variables == ()
    assert out.array.shape == (N,)


def test_what_is_the_same_in_all_elements_of_a_plate_is_computed_for_one() -> None:
    (out,) = evaluated_lazily(lambda z: [jnp.log(jnp.exp(LOCS[z] + 1.0)) * 2], PLATE)
    assert (out.variables, out.constant, out.array.shape) == (("z",), frozenset({0}), (1, 3))


def test_data_meet_the_constant_part_as_late_as_possible() -> None:
    """Only the last two steps, a difference and its square, are as large as the data."""
    counts = sizes(lambda z: [(DATA - jnp.exp(LOCS[z])) ** 2], PLATE)
    assert sum(size == 3 * N for size in counts) == 2
    assert all(size <= 3 for size in counts if size != 3 * N)


def test_two_variables_meet_only_where_both_are_used() -> None:
    variables = {"a": Variable(3, (N,)), "b": Variable(2, ())}
    counts = sizes(lambda a, b: [jnp.exp(DATA * LOCS[a]), jnp.sin(LOCS[b]), LOCS[a] * b], variables)
    assert max(counts) == 3 * N
    assert counts.count(6) == 1


def test_what_no_output_needs_is_not_computed() -> None:
    counts = sizes(lambda z: [jnp.outer(jnp.sin(DATA), DATA * z) * 0 + 1.0, LOCS[z]][1:], PLATE)
    assert max(counts) <= 3


def test_only_the_wanted_outputs_are_computed() -> None:
    closed = jax.make_jaxpr(lambda x: (jnp.sin(x), jnp.cos(x), jnp.tan(x)))(1.0)
    run = jax.make_jaxpr(
        lambda x: [o.array for o in evaluate(closed.jaxpr, [], [Enumerated(x)], {}, [1])]
    )(1.0)
    assert [eqn.primitive.name for eqn in computations(run)] == ["cos"]


def test_the_variables_axes_stand_in_the_given_order_whatever_the_order_of_use() -> None:
    variables = {"a": Variable(2, ()), "b": Variable(3, ())}
    (out,) = evaluated_lazily(lambda a, b: [b * 10 + a], variables)
    assert out.variables == ("a", "b")
    np.testing.assert_array_equal(out.array, [[0, 10, 20], [1, 11, 21]])


# --- functions inside -------------------------------------------------------------------------


def test_custom_derivatives_survive_evaluation() -> None:
    """The rule of `squared` says that its derivative is one, wherever it is."""
    closed = jax.make_jaxpr(lambda z, p: squared(z * p) + jnp.square(p))(0, 0.5)
    z = support_input(jnp.arange(3), 0, "z", ())

    def total(p: Any) -> Any:
        (out,) = evaluate(closed.jaxpr, closed.consts, [z, Enumerated(p)], {"z": 0})
        return out.array.sum()

    assert jax.grad(total)(0.5) == (0 + 1 + 2) + 3 * 2 * 0.5


def test_an_unused_result_of_a_loop_is_no_obstacle() -> None:
    variables = {"z": Variable(3, (2,))}
    (out,) = evaluated_lazily(
        lambda z: [lax.scan(lambda c, x: (c + x * z, c), jnp.zeros(2), jnp.arange(3.0))[0]],
        variables,
    )
    whole = materialise(out, (2,), out.constant).array
    np.testing.assert_array_equal(whole, [[0, 3, 6], [0, 3, 6]])


def test_a_callback_sees_the_value() -> None:
    seen: list[int] = []

    def fn(z: Any) -> list[Any]:
        jax.debug.callback(lambda x: seen.append(int(x)), z)
        return [z + 1]

    (out,) = evaluated_lazily(fn, {"z": Variable(3, ())})
    jax.effects_barrier()
    np.testing.assert_array_equal(out.array, [1, 2, 3])
    assert sorted(seen) == [0, 1, 2]


def test_types_stay_what_they_are() -> None:
    (half, number, flag) = evaluated_lazily(
        lambda z: [z.astype(jnp.float16) * 2, z * 2, z > 1], {"z": Variable(3, (2,))}
    )
    assert (half.array.dtype, number.array.dtype, flag.array.dtype) == (
        jnp.float16,
        jnp.int32,
        jnp.bool_,
    )


def test_what_every_site_of_a_loop_computes_from_one_table_is_computed_once() -> None:
    def equations(sites: int) -> int:
        def rows(table: Any, *zs: Any) -> list[Any]:
            return [jnp.log(table[z]) * 2 for z in zs]

        example = np.full((), 0, np.int32)
        closed = jax.make_jaxpr(rows)(jnp.ones((3, 3)), *[example] * sites)
        names = [f"z{i}" for i in range(sites)]
        order = {name: i for i, name in enumerate(names)}
        inputs = [support_input(np.arange(3, dtype=np.int32), 0, name, ()) for name in names]

        def run(table: Any) -> list[Any]:
            outputs = evaluate(closed.jaxpr, closed.consts, [Enumerated(table), *inputs], order)
            assert [o.variables for o in outputs] == [(name,) for name in names]
            return [o.array for o in outputs]

        table = jnp.arange(1.0, 10.0).reshape(3, 3)
        for found in run(table):
            np.testing.assert_allclose(found, (jnp.log(table) * 2).T, rtol=1e-6)
        return len(jax.make_jaxpr(run)(table).jaxpr.eqns)

    assert equations(2) == equations(8) == 5  # rename (three steps), logarithm, product
