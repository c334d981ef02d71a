"""A function that closes over large data compiles without a copy of them in the program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marginax.compiled import hoisted_jit, remembered_jit

DATA = jnp.arange(1000.0)


def shifted(tree: Any, scale: Any) -> Any:
    return {"sum": tree["x"] + jnp.sum(DATA) * scale, "data": DATA + tree["x"]}


def test_the_result_is_the_functions_own():
    example = ({"x": jnp.array(1.0)}, 2.0)
    compiled = hoisted_jit(shifted, *example)
    for arguments in (example, ({"x": jnp.array(-3.0)}, 0.5)):
        jax.tree.map(np.testing.assert_allclose, compiled(*arguments), shifted(*arguments))


def test_shapes_are_example_enough():
    compiled = hoisted_jit(lambda x: jnp.sum(x * DATA), jax.ShapeDtypeStruct((1000,), jnp.float32))
    np.testing.assert_allclose(compiled(jnp.ones(1000)), jnp.sum(DATA))


def test_it_can_be_mapped_differentiated_and_compiled_again():
    compiled = hoisted_jit(lambda x: jnp.sum(DATA[:3] * x**2), jnp.array(1.0))
    np.testing.assert_allclose(jax.grad(compiled)(2.0), 2 * 2.0 * 3.0)
    np.testing.assert_allclose(jax.jit(jax.vmap(compiled))(jnp.arange(2.0)), [0.0, 3.0])


def test_the_function_is_traced_once_however_often_it_is_called():
    traces = []

    def count(x: Any) -> Any:
        traces.append(x)
        return x + 1

    compiled = hoisted_jit(count, 0)
    assert [int(compiled(i)) for i in range(3)] == [1, 2, 3]
    assert len(traces) == 1


def test_data_are_arguments_of_the_program_not_constants_in_it():
    compiled = hoisted_jit(lambda x: x + DATA, jnp.array(1.0))
    program = jax.make_jaxpr(compiled)(1.0)
    assert [const.shape for const in program.consts] == [DATA.shape]
    (call,) = program.jaxpr.eqns
    assert not call.params["jaxpr"].consts


def test_options_that_xla_does_not_have_are_left_out():
    options = {"xla_backend_optimization_level": 0, "xla_of_another_age": True}
    double = remembered_jit(lambda x: 2 * x, 1.0, options=options)
    assert float(double(3.0)) == 6.0


def test_a_value_that_an_option_does_not_take_is_an_error():
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_backend_optimization_level"):
        remembered_jit(lambda x: 3 * x, 1.0, options={"xla_backend_optimization_level": "fast"})
