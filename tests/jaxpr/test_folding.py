"""What is computed in NumPy while tracing is what the program would have computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from marginax.jaxpr.enumerated import Enumerated, materialise
from marginax.jaxpr.evaluate import evaluate
from marginax.jaxpr.folding import LARGEST, is_known, operand

RNG = np.random.default_rng(0)
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e30, 0.5], np.float32)
X = np.concatenate([SPECIAL, RNG.normal(size=9).astype(np.float32)]).reshape(3, 6)
Y = np.roll(X, 5, axis=1)
WHOLE = np.arange(-9, 9, dtype=np.int32).reshape(3, 6)
TRUTH = X > 0
TABLE = RNG.normal(size=(4, 3, 5)).astype(np.float32)
INDEX = np.array([[0, 2], [3, -7], [9, 1]], np.int32)

CASES: dict[str, Callable[[], Any]] = {
    **{
        name: lambda f=f: f(X)
        for name, f in {
            "abs": lax.abs,
            "ceil": lax.ceil,
            "exp": lax.exp,
            "expm1": lax.expm1,
            "floor": lax.floor,
            "is_finite": lax.is_finite,
            "log": lax.log,
            "log1p": lax.log1p,
            "logistic": lax.logistic,
            "neg": lax.neg,
            "sign": lax.sign,
            "sqrt": lax.sqrt,
            "square": lax.square,
            "tanh": lax.tanh,
            "stop gradient": lax.stop_gradient,
            "power": lambda x: lax.integer_pow(x, -2),
            "to int of truth": lambda x: lax.convert_element_type(x > 0, np.int32),
            "sum": lambda x: jnp.sum(x, 1),
            "max": lambda x: jnp.max(x, 0),
            "min": lambda x: jnp.min(x),
            "cumulated": lambda x: lax.cumsum(x, 1, reverse=True),
            "turned": lambda x: x[::-1, ::2],
            "transposed": lambda x: x.T.reshape(2, 9),
            "beside": lambda x: jnp.concatenate([x, x + 1], 1),
            "clamped": lambda x: lax.clamp(np.float32(-1), x, np.float32(2)),
        }.items()
    },
    **{
        name: lambda f=f: f(X, Y)
        for name, f in {
            "add": lax.add,
            "sub": lax.sub,
            "mul": lax.mul,
            "div": lax.div,
            "max of two": lax.max,
            "min of two": lax.min,
            "eq": lax.eq,
            "ne": lax.ne,
            "lt": lax.lt,
            "le": lax.le,
            "gt": lax.gt,
            "ge": lax.ge,
            "where": lambda x, y: jnp.where(x > y, x, y),
        }.items()
    },
    "integers": lambda: (WHOLE * 3 - 2) % 4 + jnp.where(WHOLE == 0, 7, WHOLE),
    "truths": lambda: (jnp.logical_not(TRUTH) | (WHOLE > 2)) & jnp.logical_xor(TRUTH, WHOLE < 0),
    "all and any": lambda: [jnp.all(TRUTH, 1), jnp.any(TRUTH, 0)],
    "rows": lambda: jnp.asarray(TABLE)[np.array([0, 2, 1])],
    "elements": lambda: jnp.asarray(TABLE)[np.array([0, 3]), np.array([2, 1])],
    "filled": lambda: jnp.asarray(TABLE).at[INDEX].get(mode="fill"),
    "filled with": lambda: jnp.asarray(WHOLE).at[INDEX].get(mode="fill", fill_value=-3),
    "clipped": lambda: jnp.asarray(TABLE).at[:, INDEX].get(mode="clip"),
    "along": lambda: jnp.take_along_axis(TABLE, np.array([[[1], [0], [4]]] * 4), 2),
    "a window": lambda: lax.slice(TABLE, (1, 0, 1), (3, 3, 5), (1, 2, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_known_is_computed_to_the_same_and_leaves_no_equation(name: str):
    fn = CASES[name]
    closed = jax.make_jaxpr(fn)()

    def run() -> list[Any]:
        outputs = evaluate(closed.jaxpr, closed.consts, [], {})
        whole = [
            materialise(o, v.aval.shape, o.constant)  # pyright: ignore[reportAttributeAccessIssue]
            for o, v in zip(outputs, closed.jaxpr.outvars, strict=True)
        ]
        return [output.array for output in whole]

    left = jax.make_jaxpr(run)()
    assert not left.jaxpr.eqns
    for found, expected in zip(run(), jax.tree.leaves(jax.jit(fn)()), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert found.dtype == expected.dtype
        # Of two zeros either may be the larger.
        if expected.dtype.kind == "f" and not name.endswith("of two"):
            some = ~np.isnan(expected)
            np.testing.assert_array_equal(np.signbit(found)[some], np.signbit(expected)[some])


def test_what_is_large_traced_or_no_number_is_not_known():
    assert all(map(is_known, [np.arange(3), jnp.arange(3.0), np.float32(1)]))
    assert not is_known(np.zeros(LARGEST + 1))
    assert not is_known(jax.random.key(0))
    assert not is_known(jnp.zeros(3, jnp.bfloat16))
    seen: list[bool] = []
    jax.make_jaxpr(lambda x: seen.append(is_known(x)))(1.0)
    assert seen == [False]


def test_a_number_from_data_is_no_literal_of_the_program():
    """Otherwise the program would be another one for other data, and be compiled again."""
    data = jnp.array([1.0, 2.0])
    closed = jax.make_jaxpr(lambda x: x + jnp.log(data)[1])(1.0)

    def run(x: Any) -> Any:
        return evaluate(closed.jaxpr, closed.consts, [Enumerated(x)], {})[0].array

    left = jax.make_jaxpr(run)(1.0)
    *_, eqn = left.jaxpr.eqns
    assert eqn.primitive.name == "add"
    assert not any(hasattr(atom, "val") for atom in eqn.invars)
    np.testing.assert_allclose(operand(np.asarray(2.0, np.float32)), 2.0)
