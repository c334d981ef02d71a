"""Functions of JAX that newer versions write as one equation with an object are followed like all others."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core as jex_core
from scipy.stats import norm

import marginax as mx
import marginax.distributions as dist
from marginax.jaxpr.objects import OBJECT, written_out

EDGES = jnp.array([0.5, 1.5])
PROBS = np.array([0.2, 0.3, 0.5])
X = np.array([0.7, 0.1, 2.0, 1.0])

PLACES: dict[str, Callable[[Any], Any]] = {
    "searchsorted": lambda z: jnp.searchsorted(EDGES, z),
    "digitize": lambda z: jnp.digitize(z, EDGES),
    "interpolation": lambda z: jnp.interp(z, jnp.arange(3.0), jnp.arange(3.0)),
    "in jit": jax.jit(lambda z: jnp.searchsorted(EDGES, z)),
    "in a scan": lambda z: lax.scan(
        lambda total, _: (total + jnp.searchsorted(EDGES, z), None),
        jnp.zeros(z.shape, int),
        None,
        length=1,
    )[0],
    "in a branch": lambda z: lax.cond(
        True, lambda z: jnp.searchsorted(EDGES, z), lambda z: jnp.zeros(z.shape, int), z
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_variable_goes_through_it(name: str):
    def model(scale: Any) -> None:
        with mx.plate("rows", len(X)):
            z = mx.sample("z", dist.Categorical(jnp.asarray(PROBS)))
            which = PLACES[name](jnp.asarray(z, float))
            mx.sample("x", dist.Normal(which * 1.0, scale), obs=jnp.asarray(X))

    def by_hand(scale: float) -> float:
        each = np.log(PROBS) + norm.logpdf(X[:, None], np.arange(3.0), scale)
        return np.logaddexp.reduce(each, axis=1).sum()

    value, slope = jax.value_and_grad(lambda scale: mx.marginalize(model).log_density({}, scale))(
        1.3
    )
    np.testing.assert_allclose(value, by_hand(1.3), rtol=1e-5)
    difference = (by_hand(1.3 + 1e-5) - by_hand(1.3 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-4)


def names(jaxpr: jex_core.Jaxpr) -> Iterator[str]:
    """Of all primitives at any depth."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for leaf in jax.tree.leaves(list(eqn.params.values())):
            inner = getattr(leaf, "jaxpr", leaf)
            if isinstance(inner, jex_core.Jaxpr):
                yield from names(inner)


@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="here they are no objects")
def test_there_are_such_functions():
    assert OBJECT in set(names(jax.make_jaxpr(PLACES["in a branch"])(jnp.zeros(4)).jaxpr))


def test_programs_without_one_stay_what_they_are():
    program = jax.make_jaxpr(lambda x: lax.scan(lambda c, y: (c + y, c), 0.0, x))(jnp.ones(3))
    assert written_out(program) is program


@pytest.mark.parametrize("name", PLACES)
def test_none_is_left_at_any_depth(name: str):
    program = written_out(jax.make_jaxpr(PLACES[name])(jnp.zeros(4)))
    assert OBJECT not in set(names(program.jaxpr))
    (found,) = jex_core.jaxpr_as_fun(program)(jnp.array([0.0, 2.0, 1.0, 0.0]))
    np.testing.assert_array_equal(found, [0, 2, 1, 0])
