"""How much a program computes, counted by hand."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from marginax.jaxpr.compiled import QUICK, compiler_options, jitted_as_it_pays
from marginax.jaxpr.work import LITTLE, is_little, work


@pytest.mark.parametrize(
    ("function", "shape", "count"),
    [
        (jnp.sin, (3, 4), 12),
        (lambda x: x @ x, (5, 5), 125),
        (lambda x: lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=7)[0], (3,), 21),
        (jax.jit(lambda x: jnp.sin(x)), (4,), 4),
        (lambda x: lax.while_loop(lambda c: c.sum() < 9, jnp.exp, x), (2,), math.inf),
    ],
)
def test_numbers_are_counted(function: Callable[[Any], Any], shape: tuple[int, ...], count: float):
    assert work(jax.make_jaxpr(function)(jnp.ones(shape)).jaxpr) == count


def test_what_is_large_is_compiled_well(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(
        "marginax.jaxpr.compiled.compiler_options",
        lambda options: asked.append(options) or compiler_options(options),
    )
    for size in (10, LITTLE + 1):
        x = jnp.full(size, 2.0)
        assert is_little(jax.make_jaxpr(jnp.sin)(x).jaxpr) == (size <= LITTLE)
        np.testing.assert_allclose(jitted_as_it_pays(jnp.sin)(x), np.sin(2.0), rtol=1e-6)
    assert asked == [QUICK, {}]
