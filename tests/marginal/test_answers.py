"""A query runs its model once, compiles once, and never takes an answer for another model's."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import marginax as mx
import marginax.distributions as dist
from marginax.errors import ModelError

X = np.array([0.3, -1.2, 2.5, 0.1])
LOC = np.array([-1.0, 2.0])

QUERIES: dict[str, Callable[..., Any]] = {
    "log_density": lambda m, *a: m.log_density(*a),
    "posterior": lambda m, *a: m.posterior(*a),
    "mode": lambda m, *a: m.mode(*a),
    "draw": lambda m, *a: m.draw(jax.random.key(0), *a),
    "entropy": lambda m, *a: m.entropy(*a),
    "pointwise": lambda m, *a: m.pointwise(*a),
    "beyond_cuts": lambda m, *a: m.beyond_cuts(*a),
    "pairwise": lambda m, *a: m.pairwise("z", "sure", *a),
    "explain": lambda m, params, *a: m.explain(*a, show=False),
    "supports": lambda m, params, *a: m.supports(*a),
}


class Mixture:
    """A model that counts how often it is run."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, x: Any) -> None:
        self.runs += 1
        loc = mx.sample("loc", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
        mx.sample("sure", dist.Bernoulli(0.5))
        mx.sample("count", dist.Poisson(1.0), infer={"support": (0, 12)})
        with mx.plate("rows", len(x)):
            z = mx.sample("z", dist.Bernoulli(0.25))
            mx.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def log_density(loc: Any, x: Any) -> float:
    each = norm.logpdf(np.asarray(x)[:, None], loc) + np.log([0.75, 0.25])
    return float(norm.logpdf(loc, 0, 3).sum() + np.asarray(logsumexp(each, axis=1)).sum())


def slope(loc: Any, x: Any, step: float = 1e-5) -> np.ndarray:
    sides = [
        log_density(loc + step * e, x) - log_density(loc - step * e, x) for e in np.eye(len(loc))
    ]
    return np.array(sides) / (2 * step)


@contextmanager
def counting_compilations() -> Iterator[list[str]]:
    found: list[str] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_runs_the_model_once(name: str) -> None:
    model = Mixture()
    QUERIES[name](mx.marginalize(model), {"loc": LOC}, X)
    assert model.runs == 1
    QUERIES[name](mx.marginalize(model), {"loc": LOC}, X)
    assert model.runs == 2


def test_a_query_with_bounds_that_follow_from_constants_runs_the_model_once() -> None:
    runs = []

    def model() -> None:
        runs.append(1)
        n = mx.sample("n", dist.Binomial(jnp.sum(jnp.array([2, 3])), 0.5))
        mx.sample("x", dist.Normal(n, 1.0), obs=1.0)

    assert mx.marginalize(model).posterior({})["n"].shape == (6,)
    assert len(runs) == 1


def test_a_second_call_compiles_nothing_and_sees_other_numbers() -> None:
    m = mx.marginalize(Mixture())
    gradient = jax.grad(lambda loc, x: m.log_density({"loc": loc}, x))
    for x in (X, X[::-1] + 1.0):
        with counting_compilations() as found:
            value = m.log_density({"loc": jnp.asarray(LOC)}, jnp.asarray(x))
            by = gradient(jnp.asarray(LOC), jnp.asarray(x))
        np.testing.assert_allclose(value, log_density(LOC, x), rtol=1e-5)
        np.testing.assert_allclose(by, slope(LOC, x), rtol=1e-4, atol=1e-4)
        if x is not X:
            assert not found


def test_derivatives_outside_of_jit_are_those_inside() -> None:
    m = mx.marginalize(Mixture())

    def by_all(loc: Any, x: Any) -> Any:
        return m.log_density({"loc": loc}, x)

    loc, x = jnp.asarray(LOC), jnp.asarray(X)
    for derivative in (jax.hessian(by_all), jax.grad(by_all, argnums=1), jax.jacfwd(by_all)):
        np.testing.assert_allclose(
            derivative(loc, x), jax.jit(derivative)(loc, x), rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(
        jax.vmap(by_all, (0, None))(jnp.stack([loc, loc + 1]), x),
        [log_density(LOC, X), log_density(LOC + 1, X)],
        rtol=1e-5,
    )


def test_rules_of_derivatives_tell_models_apart_where_they_are_used() -> None:
    """Two functions with the same values, of which one says that its slope is another."""

    def with_slope(factor: float) -> Callable[[Any], Any]:
        @jax.custom_jvp
        def fn(x: Any) -> Any:
            return x * 2.0

        fn.defjvp(lambda primals, tangents: (primals[0] * 2.0, factor * tangents[0]))
        return fn

    def marginal(factor: float) -> Any:
        fn = with_slope(factor)

        def model(loc: Any) -> None:
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.factor("f", fn(loc) + 0.0 * z)

        return mx.marginalize(model)

    for factor in (2.0, 5.0, -1.0):
        m = marginal(factor)
        np.testing.assert_allclose(m.log_density({}, 1.5), 3.0, rtol=1e-6)
        by = jax.grad(lambda x, m=m: m.log_density({}, x))(1.5)
        np.testing.assert_allclose(by, factor, rtol=1e-6)


def test_a_table_that_has_become_too_short_is_refused_although_the_program_is_known() -> None:
    def marginal(rows: Any) -> Any:
        def model() -> None:
            z = mx.sample("z", dist.Categorical(jnp.ones(2) / 2))
            table = jnp.array([0.0, 1.0, 2.0])
            mx.sample("x", dist.Normal(table[rows[z]], 1.0), obs=0.0)

        return mx.marginalize(model)

    marginal(jnp.array([0, 2])).log_density({})
    with pytest.raises(ModelError, match="index that is computed from 'z' is 3"):
        marginal(jnp.array([0, 3])).log_density({})


def test_what_is_remembered_does_not_keep_the_data() -> None:
    m = mx.marginalize(Mixture())
    data = jnp.asarray(X) + 7.0
    m.log_density({"loc": LOC}, data)
    alive = weakref.ref(data)
    del data
    gc.collect()
    assert alive() is None


def test_a_site_of_a_scan_is_an_input_outside_of_it() -> None:
    def model(y: Any) -> None:
        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Bernoulli(0.2 + 0.6 * z))
            level = mx.sample("level", dist.Normal(2.0 * z, 1.0))
            mx.sample("y", dist.Normal(level, 1.0), obs=y)
            return z, None

        mx.scan(step, 0, y)

    y, level = np.array([0.5, 2.5, 1.0]), np.array([0.1, 1.9, 1.2])
    p, total = np.array([1.0, 0.0]), norm.logpdf(y, level).sum()
    for now in level:  # the forward algorithm
        p = np.array([[0.8, 0.2], [0.2, 0.8]]).T @ p * norm.pdf(now, [0.0, 2.0])
        total, p = total + np.log(p.sum()), p / p.sum()
    m = mx.marginalize(model)
    np.testing.assert_allclose(m.log_density({"level": level}, y), total, rtol=1e-5)
    by = jax.grad(lambda v: m.log_density({"level": v}, y))(jnp.asarray(level))
    np.testing.assert_allclose(
        by, jax.jit(jax.grad(lambda v: m.log_density({"level": v}, y)))(level), rtol=1e-5
    )
