"""One minus a probability near one: what single precision gives, beside what it is in double."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex_core
from scipy import special

import marginax as mx
import marginax.distributions as dist
from marginax.jaxpr.complement import with_complements

ETAS = np.array([5.0, 12.0, 18.0, 30.0, 80.0, 0.3, -0.3, -5.0, -12.0, -18.0, -30.0, -80.0])


def improved(fn: Callable[..., Any], *arguments: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values and derivatives of an elementwise function, once its program has complements."""
    arrays = [jnp.asarray(a, jnp.float32) for a in arguments]
    closed = with_complements(jax.make_jaxpr(fn)(*arrays))
    program = jax.jit(lambda *a: jex_core.jaxpr_as_fun(closed)(*a)[0])
    by = jax.jit(jax.grad(lambda *a: program(*a).sum()))
    return np.asarray(program(*arrays), float), np.asarray(by(*arrays), float)


def sigmoid_by_hand(x: Any) -> Any:
    return jax.jit(jax.nn.sigmoid)(x)  # a call inside of a program


STEPS: dict[str, tuple[Callable[[Any], Any], float]] = {
    # A probability made of sigmoid(x), and which part of it that is.
    "alone": (sigmoid_by_hand, 1.0),
    "times one": (lambda x: jnp.ones(x.shape) * jax.nn.sigmoid(x), 1.0),
    "times a half": (lambda x: jax.nn.sigmoid(x) * 0.5, 0.5),
    "times an integer": (lambda x: jnp.ones(x.shape, int) * jax.nn.sigmoid(x), 1.0),
    "chosen": (lambda x: jnp.where(x < 100, jax.nn.sigmoid(x), 0.25), 1.0),
    "moved": (lambda x: jnp.stack([jax.nn.sigmoid(x), 0 * x])[0][::-1].reshape(-1)[::-1], 1.0),
    "indexed": (
        lambda x: jnp.concatenate([x[:1], jax.nn.sigmoid(x)])[jnp.arange(1, len(x) + 1)],
        1.0,
    ),
    "a complement twice": (lambda x: 1 - (1 - jax.nn.sigmoid(x)), 1.0),
    "the other side": (lambda x: 1 - jax.nn.sigmoid(-x), 1.0),
}


@pytest.mark.parametrize(("made", "part"), STEPS.values(), ids=STEPS)
def test_the_logarithm_of_a_complement_is_exact_to_rounding(
    made: Callable[[Any], Any], part: float
) -> None:
    found, by = improved(lambda x: jnp.log1p(-made(x)), ETAS)
    p, rest = special.expit(ETAS), special.expit(-ETAS)
    left = (1 - part) + part * rest
    wanted = np.where(p < 0.5, np.log1p(-part * np.minimum(p, 0.5)), np.log(left))
    np.testing.assert_allclose(found, wanted, rtol=2e-6)
    np.testing.assert_allclose(by, -part * p * rest / left, rtol=2e-6, atol=6e-8)


def test_what_asks_in_other_ways_gets_the_same() -> None:
    rest, by = improved(lambda x: 1 - jax.nn.sigmoid(x), ETAS)
    np.testing.assert_allclose(rest, special.expit(-ETAS), rtol=1e-6)
    np.testing.assert_allclose(by, -special.expit(-ETAS) * special.expit(ETAS), rtol=1e-6)
    below, _ = improved(lambda x: jnp.where(jax.nn.sigmoid(x) < 1, x, 0 * x), ETAS)
    np.testing.assert_allclose(below, ETAS, rtol=1e-6)
    rates = np.array([1e-12, 1e-3, 2.0, 50.0])
    seen, _ = improved(lambda r: 1 - jnp.exp(-r), rates)
    np.testing.assert_allclose(seen, -np.expm1(-rates), rtol=1e-6)


def test_what_is_no_probability_loses_nothing() -> None:
    large, x = np.full(3, 1e8), np.log([1e-8, 2e-8, 0.5])
    found, _ = improved(lambda x, b: 1 - b * jnp.exp(x), x, large)
    single = np.asarray(x, np.float32).astype(float)
    np.testing.assert_allclose(found, 1 - 1e8 * np.exp(single), rtol=1e-5, atol=1e-6)


def test_a_program_that_asks_for_no_complement_stays_as_it_is() -> None:
    for fn in (jax.nn.sigmoid, lambda x: 1 - x, lambda x: jnp.log1p(jnp.abs(x))):
        closed = jax.make_jaxpr(fn)(1.0)
        assert with_complements(closed) is closed


def test_numbers_that_are_not_real_are_left_alone() -> None:
    closed = with_complements(jax.make_jaxpr(lambda x: (1 - jnp.exp(1j * x)).real)(1.0))
    (found,) = jex_core.jaxpr_as_fun(closed)(2.0)
    np.testing.assert_allclose(found, 1 - np.cos(2.0), rtol=1e-6)


def test_the_steps_of_a_scan_have_complements() -> None:
    def fn(x: Any) -> Any:
        return jax.lax.scan(lambda c, x: (c, jnp.log1p(-jax.nn.sigmoid(x))), 0.0, x)[1]

    found, _ = improved(fn, ETAS)
    np.testing.assert_allclose(found, special.log_expit(-ETAS), rtol=2e-6)


def test_the_steps_of_a_scan_know_complements_from_outside() -> None:
    def fn(x: Any) -> Any:
        p, shared = jax.nn.sigmoid(x), jax.nn.sigmoid(20.0 + 0 * x[0])

        def step(total: Any, p: Any) -> Any:
            return total + p, jnp.log1p(-p) + jnp.log1p(-shared)

        return jax.lax.scan(step, 0.0, p)[1]

    found, _ = improved(fn, ETAS)
    wanted = special.log_expit(-ETAS) + special.log_expit(-20.0)
    np.testing.assert_allclose(found, wanted, rtol=2e-6)


@pytest.mark.parametrize("seen", [0, 1])
@pytest.mark.parametrize("form", ["bernoulli", "binomial", "table"])
def test_detection_with_a_probability_near_one(form: str, seen: int) -> None:
    """Occupancy: what is present is seen with a probability near one."""

    def model(eta: Any) -> None:
        present = mx.sample("present", dist.Bernoulli(0.5))
        probability = present * jax.nn.sigmoid(eta)
        if form == "bernoulli":
            mx.sample("seen", dist.Bernoulli(probability), obs=seen)
        elif form == "binomial":
            mx.sample("seen", dist.Binomial(1, probability), obs=seen)
        else:
            table = jnp.stack([1 - probability, probability], -1)
            mx.sample("seen", dist.Categorical(table), obs=seen)

    marginal = mx.marginalize(model)

    @jax.jit
    @jax.vmap
    def both(eta: Any) -> Any:
        each = {"present": jnp.asarray(1)}
        joint = jax.value_and_grad(lambda e: marginal.log_density(each, e))
        return *joint(eta), marginal.posterior({}, eta)["present"][1]

    value, by, posterior = both(jnp.asarray(ETAS, jnp.float32))
    p, rest = special.expit(ETAS), special.expit(-ETAS)
    log_p, log_rest = special.log_expit(ETAS), special.log_expit(-ETAS)
    wanted = np.log(0.5) + (log_p if seen else log_rest)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_allclose(by, rest if seen else -p, rtol=1e-5, atol=1e-6)
    present = np.ones_like(p) if seen else rest / (1 + rest)
    np.testing.assert_allclose(posterior, present, rtol=1e-5)
