"""A function that closes over large data compiles without a copy of them in the program."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import marginax as mx
from marginax.jaxpr.compiled import QUICK, compiler_options, hoisted_jit, remembered_jit

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


FUSION = "xla_cpu_experimental_ynn_fusion_type"
"""Where XLA has it, it must be off: some samplers never finish compiling with it."""


def test_programs_on_a_cpu_are_asked_for_without_the_fusion_that_never_ends():
    try:
        jax.jit(lambda: 0, compiler_options={FUSION: ""}).lower().compile()
        has_it = jax.default_backend() == "cpu"
    except jax.errors.JaxRuntimeError:
        has_it = False
    for asked in ({}, QUICK):
        found = compiler_options(asked)
        assert found.get(FUSION) == ("" if has_it else None)
        assert (FUSION in found) == has_it


def test_nothing_of_the_library_is_compiled_without_these_options():
    """What the tour shows, on five points, is written as its readers write it."""
    source = Path(mx.__file__).parent
    for path in source.rglob("*.py"):
        found = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "jax.jit"
        ]
        assert not found or path.name == "compiled.py" or path.parent.name == "tutorial", path


@pytest.mark.parametrize("make", [hoisted_jit, remembered_jit])
def test_a_program_may_become_part_of_another_one(make: Any):
    """JAX refuses options of a program inside of another one, also where it is called with numbers."""
    add = make(lambda x: x + jnp.sum(DATA[:3]), 1.0)
    np.testing.assert_allclose(jax.jit(lambda x: 2 * add(x))(1.0), 8.0)
    np.testing.assert_allclose(jax.jit(lambda x: x * add(2.0))(2.0), 10.0)
    np.testing.assert_allclose(jax.vmap(add)(jnp.arange(2.0)), [3.0, 4.0])

    def closes_over_a_tracer(x: Any) -> Any:
        return make(lambda y: x * y, 1.0)(3.0)

    np.testing.assert_allclose(jax.jit(jax.grad(closes_over_a_tracer))(2.0), 3.0)


SAMPLE_OCCUPANCY = """
import jax, jax.numpy as jnp, numpy as np
import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS

rng = np.random.default_rng(0)
x, w = jnp.array(rng.normal(size=100)), jnp.array(rng.normal(size=(100, 52)))
seen = jnp.array(rng.random((100, 52)) < 0.3 * (rng.random((100, 1)) < 0.6), jnp.float32)

def model(seen, x, w):
    a = mx.sample("a", dist.Normal(0, 2).expand([2]).to_event(1))
    b = mx.sample("b", dist.Normal(0, 2).expand([2]).to_event(1))
    with mx.plate("sites", 100, dim=-2):
        present = mx.sample("present", dist.Bernoulli(logits=(a[0] + a[1] * x)[:, None]))
        with mx.plate("visits", 52, dim=-1):
            p = jax.nn.sigmoid(b[0] + b[1] * w)
            mx.sample("seen", dist.Bernoulli(probs=present * p), obs=seen)

mcmc = MCMC(NUTS(model), num_warmup=20, num_samples=20, progress_bar=False)
mcmc.run(jax.random.key(0), seen, x, w)
"""


def test_a_sampler_of_thousands_of_visits_is_compiled_in_seconds():
    """It took seconds, or for ever; in a process of its own, for it cannot be interrupted."""
    otherwise = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in otherwise}
    command = [sys.executable, "-c", SAMPLE_OCCUPANCY]
    subprocess.run(command, env=environment, check=True, timeout=240)
