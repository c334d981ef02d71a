"""A compiled program serves another function only if that computes the same, whatever it closes over and where."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import marginax.jaxpr.compiled as compiled
from marginax.errors import ModelError
from marginax.infer.running.fingerprint import program_fingerprint
from marginax.jaxpr.compiled import QUICK, remembered, remembered_jit
from marginax.jaxpr.same_program import program_key

Function = Callable[[Any], Any]


def with_rules(kind: str, f: Function) -> Function:
    """A function with a derivative, or a way to be mapped, of its own."""
    if kind == "jvp":
        jvp = jax.custom_jvp(f)
        jvp.defjvp(lambda primals, tangents: (f(*primals), 3 * tangents[0]))
        return jvp
    if kind == "vjp":
        vjp = jax.custom_vjp(f)
        vjp.defvjp(lambda x: (f(x), None), lambda _, g: (3 * g,))
        return vjp
    mapped = jax.custom_batching.custom_vmap(f)
    mapped.def_vmap(lambda size, batched, x: (jax.vmap(f)(x), batched[0]))
    return mapped


def sharded(f: Function) -> Function:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("a",))
    return jax.shard_map(f, mesh=mesh, in_specs=jax.P(), out_specs=jax.P())


ROWS = np.arange(1.0, 3.0, dtype=np.float32)

# Where JAX can hold an array: of a function that closes over one, a function of a number.
PLACES: dict[str, Callable[[Function], Function]] = {
    "jit": lambda f: f,
    "jit in jit": lambda f: jax.jit(lambda x: f(x) + 1),
    "scan": lambda f: lambda x: lax.scan(lambda c, _: (c + f(x), None), 0.0, None, length=2)[0],
    "cond": lambda f: lambda x: lax.cond(x > 0, f, lambda x: -x, x),
    "switch": lambda f: lambda x: lax.switch(x.astype(int), [f, f, lambda x: x], x),
    "while, test": lambda f: lambda x: lax.while_loop(lambda c: c < f(x), lambda c: c + 1, 0.0),
    "while, body": lambda f: lambda x: lax.while_loop(lambda c: c < 9.0, lambda c: c + f(x), 0.0),
    "fori": lambda f: lambda x: lax.fori_loop(0, 2, lambda i, c: c + f(x), 0.0),
    "map": lambda f: lambda x: lax.map(f, x * ROWS).sum(),
    "checkpoint": lambda f: jax.checkpoint(f),
    "jvp": lambda f: with_rules("jvp", f),
    "vjp": lambda f: with_rules("vjp", f),
    "vmap": lambda f: with_rules("vmap", f),
    "shard_map": sharded,
    "linear solve": lambda f: (
        lambda x: lax.custom_linear_solve(
            lambda v: v * f(1.0), x, lambda mv, b: b / f(1.0), symmetric=True
        )
    ),
    "associative": lambda f: lambda x: lax.associative_scan(lambda a, b: a * b + f(1.0), x * ROWS),
    "gradient": lambda f: jax.grad(lambda x: f(x) ** 2),
    "vmap of scan": lambda f: lambda x: jax.vmap(PLACES["scan"](f))(x * ROWS),
}


def times(table: Any) -> Function:
    return jax.jit(lambda x: jnp.asarray(table)[0] * x)


def tables(kind: str) -> list[Any]:
    found: list[Any] = [np.array([scale, 7.0], np.float32) for scale in (1.0, 10.0)]
    return [jnp.asarray(table) for table in found] if kind == "JAX" else found


def test_functions_that_differ_in_an_array_they_close_over_have_their_own_programs():
    for i, (name, place) in enumerate(PLACES.items()):
        for table in tables("JAX" if i % 2 else "NumPy"):
            function = place(times(table))
            got = remembered_jit(function, 1.0, options=QUICK)(jnp.float32(1.0))
            np.testing.assert_allclose(got, function(jnp.float32(1.0)), rtol=1e-6, err_msg=name)


def test_functions_that_are_equal_share_a_program():
    for name, place in PLACES.items():
        first, again = (
            program_key(jax.make_jaxpr(place(times(tables("JAX")[1])))(1.0).jaxpr) for _ in "ab"
        )
        assert {first: "the same"}[again], name
        assert not first.unproven, name
        assert not first.untold, name


OPERATIONS: dict[str, Callable[[Any], Function]] = {
    "nonzero": lambda size: lambda x: jnp.nonzero(x > jnp.arange(4.0), size=2 if size else 3)[0],
    "searchsorted": lambda left: (
        lambda x: jnp.searchsorted(jnp.arange(4.0), x, side="left" if left else "right")
    ),
    "einsum": lambda row: (
        lambda x: jnp.einsum("ij,j->i" if row else "ji,j->i", x * jnp.ones((2, 2)), jnp.ones(2))
    ),
    "sort": lambda stable: lambda x: jnp.sort(x * jnp.arange(3.0), stable=stable),
}
"""Functions of JAX, of which newer versions are objects with parameters."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_functions_of_jax_are_known_by_their_parameters(name: str):
    one, again, other = (
        program_key(jax.make_jaxpr(OPERATIONS[name](option))(1.0).jaxpr)
        for option in (True, True, False)
    )
    assert one == again != other
    assert not one.unproven
    assert not one.untold


def test_data_are_no_part_of_the_key_and_a_program_for_other_data_is_not_compiled_again():
    shared = []
    for data in (jnp.arange(3.0), jnp.arange(1.0, 4.0)):
        program = remembered(lambda x, data=data: jnp.sum(data * jax.nn.relu(x)), 1.0)
        np.testing.assert_allclose(program.call(2.0), 2.0 * data.sum())
        shared.append(program_key(program.jaxpr))
    assert shared[0] == shared[1]
    assert (
        len([key for key in compiled._remembered if isinstance(key, tuple) and key[0] == shared[0]])
        == 1
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.float32(0.0), np.float32(-0.0)),
        (np.uint32(0x7FC00000).view(np.float32), np.uint32(0x7FC00001).view(np.float32)),
        (np.float32(1.0), np.float16(1.0)),
        (1.0, np.float32(1.0)),
        (np.zeros((1, 2), np.float32), np.zeros((2, 1), np.float32)),
        (np.zeros(2, np.int32), np.zeros(2, np.float32)),
        (np.zeros(0, np.float32), np.zeros(0, np.int32)),
    ],
)
def test_every_bit_of_a_constant_counts(one: Any, other: Any):
    def inner(constant: Any) -> Any:
        return jax.make_jaxpr(PLACES["scan"](jax.jit(lambda x: jnp.sum(x * constant))))(1.0).jaxpr

    assert program_key(inner(one)) == program_key(inner(one))
    assert program_key(inner(one)) != program_key(inner(other))


def test_the_settings_under_which_it_was_traced_count():
    def draw() -> Any:
        return jax.make_jaxpr(lambda: jax.random.normal(jax.random.key(0), (3,)))().jaxpr

    keys = []
    for partitionable in (True, False):
        with jax.threefry_partitionable(partitionable):
            keys.append(program_key(draw()))
    assert keys[0] != keys[1]
    product = jax.jit(lambda x: x @ x)
    precise = []
    for precision in ("float32", "bfloat16"):
        with jax.default_matmul_precision(precision):
            precise.append(program_key(jax.make_jaxpr(product)(jnp.ones((2, 2))).jaxpr))
    assert precise[0] != precise[1]


def test_a_program_that_calls_python_serves_no_other_and_has_no_fingerprint():
    for number in (1.0, 2.0):

        def call(x: Any, number: float = number) -> Any:
            return jax.pure_callback(
                lambda x: np.float32(number * x), jax.ShapeDtypeStruct((), jnp.float32), x
            )

        program = remembered(call, 1.0)
        assert float(program.call(3.0)) == number * 3.0
        with pytest.raises(ModelError, match="Python function that JAX calls back"):
            program_fingerprint(program)


def test_printing_does_not_stand_in_the_way_of_a_fingerprint():
    def printing(x: Any) -> Any:
        jax.debug.callback(lambda x: None, x)
        return 2 * x

    program_fingerprint(remembered(printing, 1.0))


def test_derivatives_are_those_of_the_function_itself():
    """Two functions share a program for their values; their derivatives are their own."""
    slopes = []
    for slope in (3.0, 5.0):
        function = jax.custom_jvp(lambda x: 2 * x)
        function.defjvp(lambda primals, tangents, s=slope: (2 * primals[0], s * tangents[0]))
        program = remembered_jit(function, 1.0)
        assert float(program(2.0)) == 4.0
        slopes.append(float(jax.grad(program)(1.0)))
    assert slopes == [3.0, 5.0]


FINGERPRINT = """
import jax, numpy as np
import test_same_program as t
from marginax.jaxpr.compiled import remembered
from marginax.infer.running.fingerprint import program_fingerprint

def all_places(x):
    key = jax.random.key(1)
    found = [jax.numpy.sum(p(t.times(t.tables("JAX")[0]))(x)) for p in t.PLACES.values()]
    return sum(found) + jax.random.gamma(key, x)

print(program_fingerprint(remembered(all_places, 1.0)))
"""


def test_a_fingerprint_is_the_same_in_every_process():
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "src")]
    found = [
        subprocess.Popen(
            [sys.executable, "-c", FINGERPRINT],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate(timeout=300)[0] for process in found)
    assert first == second
    assert len(first.strip()) == 32
