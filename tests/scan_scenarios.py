"""Models with scans, small enough to be summed by brute force, of every structure that is promised to work.

Each is a function of the number of steps, so that what is known after some of them can be asked of a shorter one,
and of whether sites that depend on the end are stated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from scenarios import OneHot, real, simplex

import marginax as mx
import marginax.distributions as dist

RNG = np.random.default_rng(1)

P3, T22, T33, T222, T23 = simplex(3), simplex(2, 2), simplex(3, 3), simplex(2, 2, 2), simplex(2, 3)
LOCS = np.array([-1.0, 0.5, 2.0])
DATA = np.array([0.3, -1.2, 0.7, 2.2, 1.1, -0.4, 0.9])
PAIRS = RNG.normal(size=(7, 2))
METHODS = ("sequential", "blocked", "associative")


def first_order(steps: int, ends: bool, **how: Any) -> None:
    stay = mx.sample("stay", dist.Beta(2.0, 2.0))
    table = jnp.full((3, 3), (1 - stay) / 2) + (1.5 * stay - 0.5) * jnp.eye(3)

    def step(z: Any, y: Any) -> Any:
        z = mx.sample("z", dist.Categorical(table[z]))
        mx.sample("y", dist.Normal(real(LOCS)[z], 1.0), obs=y)
        return z, None

    if steps:
        mx.scan(step, 0, real(DATA[:steps]), **how)


def from_a_variable_to_the_end(steps: int, ends: bool) -> None:
    shift = mx.sample("shift", dist.Normal(0.0, 1.0))
    before = mx.sample("before", dist.Bernoulli(0.3))

    def step(z: Any, y: Any) -> Any:
        z = mx.sample("z", dist.Categorical(real(T33)[z]))
        mx.sample("y", dist.Normal(real(LOCS)[z] + shift, 1.0), obs=y)
        return z, None

    if steps:
        z, _ = mx.scan(step, 2 * before, real(DATA[:steps]))
        if ends:
            after = mx.sample("after", dist.Categorical(real(T33)[z]))
            mx.sample("end", dist.Normal(1.0 * after, 1.0), obs=0.2)


def second_order(steps: int, ends: bool, **how: Any) -> None:
    shift = mx.sample("shift", dist.Normal(0.0, 1.0))

    def step(carry: Any, y: Any) -> Any:
        older, old = carry
        z = mx.sample("z", dist.Categorical(real(T222)[older, old]))
        mx.sample("y", dist.Normal(shift + z, 1.0), obs=y)
        return (old, z), None

    if steps:
        mx.scan(step, (0, 1), real(DATA[:steps]), **how)


def every_other_step(steps: int, ends: bool) -> None:
    """The state before last matters, the last does not."""

    def step(carry: Any, y: Any) -> Any:
        older, old = carry
        z = mx.sample("z", dist.Categorical(real(T22)[older]))
        mx.sample("y", dist.Normal(1.5 * z, 1.0), obs=y)
        return (old, z), None

    if steps:
        (a, b), _ = mx.scan(step, (0, 1), real(DATA[:steps]))
        if ends:
            mx.sample("end", dist.Normal(a - 2.0 * b, 1.0), obs=0.2)


def factorial(steps: int, ends: bool, **how: Any) -> None:
    weight = mx.sample("weight", dist.Normal(0.0, 1.0))

    def step(carry: Any, y: Any) -> Any:
        a, b = carry
        a = mx.sample("a", dist.Categorical(real(T33)[a]))
        b = mx.sample("b", dist.Bernoulli(0.2 + 0.5 * b))
        mx.sample("y", dist.Normal(real(LOCS)[a] + weight * b, 1.0), obs=y)
        return (a, b), None

    if steps:
        mx.scan(step, (0, 0), real(DATA[:steps]), **how)


def independent_chains(steps: int, ends: bool) -> None:
    def step(carry: Any, ys: Any) -> Any:
        a = mx.sample("a", dist.Categorical(real(T33)[carry["a"]]))
        b = mx.sample("b", dist.Bernoulli(0.2 + 0.5 * carry["b"]))
        mx.sample("y", dist.Normal(real(LOCS)[a], 1.0), obs=ys[0])
        mx.sample("x", dist.Normal(2.0 * b, 1.0), obs=ys[1])
        return {"a": a, "b": b}, None

    if steps:
        mx.scan(step, {"a": 1, "b": 0}, (real(DATA[:steps]), real(DATA[:steps] ** 2)))


def coupled(steps: int, ends: bool) -> None:
    def step(carry: Any, y: Any) -> Any:
        a, b = carry
        a = mx.sample("a", dist.Bernoulli(0.2 + 0.3 * a + 0.3 * b))
        b = mx.sample("b", dist.Bernoulli(0.1 + 0.4 * a + 0.3 * b))
        mx.sample("y", dist.Normal(a + 2.0 * b, 1.0), obs=y)
        return (a, b), None

    if steps:
        mx.scan(step, (0, 1), real(DATA[:steps]))


def beside_continuous_values(steps: int, ends: bool) -> None:
    """A counter, a continuous latent state, the observation before."""
    scale = mx.sample("scale", dist.HalfNormal(1.0))

    def step(carry: Any, y: Any) -> Any:
        z, x, last, t = carry
        z = mx.sample("z", dist.Bernoulli(0.3 + 0.4 * z))
        x = mx.sample("x", dist.Normal(0.8 * x, 1.0))
        mx.deterministic("trend", x + 0.1 * t)
        mx.sample("y", dist.Normal(x + z + 0.3 * last + 0.1 * t, scale), obs=y)
        return (z, x, y, t + 1), x

    if steps:
        (z, x, _, _), xs = mx.scan(step, (0, 0.0, 0.5, 0), real(DATA[:steps]))
        if ends:
            mx.sample("end", dist.Normal(x + z + jnp.sum(xs), 1.0), obs=0.2)


def covariates(steps: int, ends: bool) -> None:
    slope = mx.sample("slope", dist.Normal(0.0, 1.0))

    def step(z: Any, now: Any) -> Any:
        u, y = now
        z = mx.sample("z", dist.Bernoulli(logits=slope * u + 1.5 * z - 0.5))
        mx.sample("y", dist.Normal(z + slope * u * z, 1.0), obs=y)
        return z, None

    if steps:
        mx.scan(step, 1, (real(PAIRS[:steps, 0]), real(DATA[:steps])))


def the_state_before_is_seen_too(steps: int, ends: bool) -> None:
    def step(carry: Any, y: Any) -> Any:
        old, last = carry
        z = mx.sample("z", dist.Categorical(real(T33)[old]))
        mx.sample("y", dist.Normal(real(LOCS)[z] - real(LOCS)[old] + 0.5 * last, 1.0), obs=y)
        return (z, y), None

    if steps:
        mx.scan(step, (1, 0.0), real(DATA[:steps]))


def in_a_plate(steps: int, ends: bool, **how: Any) -> None:
    with mx.plate("series", 2):
        level = mx.sample("level", dist.Normal(0.0, 1.0))
        before = mx.sample("before", dist.Bernoulli(0.4))

        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Bernoulli(0.2 + 0.6 * z))
            mx.sample("y", dist.Normal(level + 2.0 * z, 1.0), obs=y)
            return z, None

        if steps:
            z, _ = mx.scan(step, before, real(PAIRS[:steps]), **how)
            if ends:
                mx.sample("end", dist.Normal(1.0 * z, 1.0), obs=real(DATA[:2]))


def of_different_length(steps: int, ends: bool) -> None:
    with mx.plate("series", 2):

        def step(z: Any, now: Any) -> Any:
            is_there, y = now
            with mx.handlers.mask(mask=is_there):
                z = mx.sample("z", dist.Bernoulli(0.2 + 0.6 * z))
                mx.sample("y", dist.Normal(2.0 * z, 1.0), obs=y)
            return z, None

        if steps:
            is_there = np.arange(steps)[:, None] < np.array([2, 4])
            mx.scan(step, jnp.zeros(2, int), (jnp.asarray(is_there), real(PAIRS[:steps])))


def with_missing_observations(steps: int, ends: bool) -> None:
    def step(z: Any, now: Any) -> Any:
        is_there, y = now
        z = mx.sample("z", dist.Categorical(real(T33)[z]))
        with mx.handlers.mask(mask=is_there):
            mx.sample("y", dist.Normal(real(LOCS)[z], 1.0), obs=y)
        return z, None

    if steps:
        is_there = np.array([True, False, True, False, False, True, True])[:steps]
        y = np.where(is_there, DATA[:steps], np.nan)
        mx.scan(step, 0, (jnp.asarray(is_there), real(y)))


def a_plate_inside(steps: int, ends: bool) -> None:
    """At each step a state that all elements share, and one that each has for itself."""
    shift = mx.sample("shift", dist.Normal(0.0, 1.0))

    def step(w: Any, ys: Any) -> Any:
        w = mx.sample("w", dist.Bernoulli(0.3 + 0.4 * w))
        with mx.plate("elements", 2):
            z = mx.sample("z", dist.Bernoulli(0.2 + 0.5 * w))
            mx.sample("y", dist.Normal(shift + 2.0 * z, 1.0), obs=ys)
        return w, None

    if steps:
        mx.scan(step, 0, real(PAIRS[:steps]))


def chains_in_a_plate_inside(steps: int, ends: bool) -> None:
    def step(z: Any, ys: Any) -> Any:
        with mx.plate("elements", 2):
            z = mx.sample("z", dist.Categorical(real(T33)[z]))
            mx.sample("y", dist.Normal(real(LOCS)[z], 1.0), obs=ys)
        return z, None

    if steps:
        mx.scan(step, jnp.array([0, 1]), real(PAIRS[:steps]))


def one_after_the_other(steps: int, ends: bool) -> None:
    def first(z: Any, y: Any) -> Any:
        z = mx.sample("z", dist.Categorical(real(T33)[z]))
        mx.sample("y", dist.Normal(real(LOCS)[z], 1.0), obs=y)
        return z, None

    def second(w: Any, x: Any) -> Any:
        w = mx.sample("w", dist.Bernoulli(real([0.2, 0.5, 0.7])[w]))
        mx.sample("x", dist.Normal(1.0 * w, 1.0), obs=x)
        return w, None

    z, _ = mx.scan(first, 0, real(DATA[:3]))
    if steps:
        mx.scan(second, z, real(DATA[:steps]))


def durations_as_states(steps: int, ends: bool, **how: Any) -> None:
    """A semi-Markov model: states count down how long they last; most transitions are impossible."""
    move = np.zeros((4, 4))
    move[0] = [0.0, 0.5, 0.3, 0.2]  # chooses how long
    move[1, 0] = move[2, 1] = move[3, 2] = 1.0
    with np.errstate(divide="ignore"):
        table = np.log(move)
    rate = mx.sample("rate", dist.Exponential(1.0))

    def step(z: Any, y: Any) -> Any:
        z = mx.sample("z", dist.Categorical(logits=real(table)[z]))
        mx.sample("y", dist.Normal(rate * (z > 0), 1.0), obs=y)
        return z, None

    if steps:
        mx.scan(step, 0, real(DATA[:steps]), **how)


def under_a_variable(steps: int, ends: bool) -> None:
    """A variable outside of the scan that every step sees, carried along or not."""
    regime = mx.sample("regime", dist.Categorical(real(P3)))

    def step(carry: Any, y: Any) -> Any:
        z, kept = carry
        z = mx.sample("z", dist.Bernoulli(real([0.2, 0.5, 0.7])[regime] * (0.5 + 0.5 * z)))
        mx.sample("y", dist.Normal(z + real(LOCS)[kept], 1.0), obs=y)
        return (z, kept), None

    if steps:
        mx.scan(step, (0, regime), real(DATA[:steps]))


def steps_that_are_not_linked(steps: int, ends: bool) -> None:
    weight = mx.sample("weight", dist.Beta(2.0, 2.0))

    def step(t: Any, y: Any) -> Any:
        z = mx.sample("z", dist.Bernoulli(weight))
        mx.sample("y", dist.Normal(2.0 * z + 0.1 * t, 1.0), obs=y)
        return t + 1, None

    if steps:
        mx.scan(step, 0, real(DATA[:steps]))


def mixtures_at_each_step(steps: int, ends: bool) -> None:
    """A variable that is not carried, of one that is."""

    def step(z: Any, y: Any) -> Any:
        z = mx.sample("z", dist.Bernoulli(0.2 + 0.6 * z))
        part = mx.sample("part", dist.Categorical(real(T23)[z]))
        mx.sample("y", dist.Normal(real(LOCS)[part], 1.0), obs=y)
        return z, None

    if steps:
        mx.scan(step, 0, real(DATA[:steps]))


def values_of_other_kinds(steps: int, ends: bool) -> None:
    def step(carry: Any, y: Any) -> Any:
        n, v = carry
        n = mx.sample("n", dist.DiscreteUniform(3, 5))
        v = mx.sample("v", OneHot(v @ real(T33)))
        mx.sample("y", dist.Normal(0.3 * n + v @ real(LOCS), 1.0), obs=y)
        return (n, v), None

    if steps:
        mx.scan(step, (3, jnp.array([0, 1, 0])), real(DATA[:steps]))


def values_handed_round(steps: int, ends: bool) -> None:
    """Two values that change places at every step."""
    a = mx.sample("a", dist.Bernoulli(0.3))

    def step(carry: Any, y: Any) -> Any:
        one, other = carry
        z = mx.sample("z", dist.Bernoulli(0.2 + 0.6 * one))
        mx.sample("y", dist.Normal(z + one, 1.0), obs=y)
        return (other, one), None

    if steps:
        mx.scan(step, (a, 1 - 0 * a), real(DATA[:steps]))


def observations_further_back(steps: int, ends: bool) -> None:
    """What is carried reaches further back than the variables do."""

    def step(carry: Any, y: Any) -> Any:
        older, old = carry
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("y", dist.Normal(z + 0.5 * old - 0.3 * older, 1.0), obs=y)
        return (old, y), None

    if steps:
        mx.scan(step, (0.2, -0.4), real(DATA[:steps]))


def observations_further_back_than_states(steps: int, ends: bool) -> None:
    def step(carry: Any, y: Any) -> Any:
        z, oldest, older, old = carry
        z = mx.sample("z", dist.Bernoulli(jnp.where(z == 1, 0.8, 0.3) - 0.05 * jnp.tanh(oldest)))
        mx.sample("y", dist.Normal(z + 0.5 * old - 0.3 * older, 1.0), obs=y)
        return (z, older, old, y), z * y

    if steps:
        mx.scan(step, (0, 0.1, 0.2, -0.4), real(DATA[:steps]))


def backwards(steps: int, ends: bool) -> None:
    def step(z: Any, y: Any) -> Any:
        z = mx.sample("z", dist.Categorical(real(T33)[z]))
        mx.sample("y", dist.Normal(real(LOCS)[z], 1.0), obs=y)
        return z, z

    if steps:
        mx.scan(step, 0, real(DATA[:steps]), reverse=True)


def without_data(steps: int, ends: bool) -> None:
    def step(z: Any, _: Any) -> Any:
        return mx.sample("z", dist.Categorical(real(T33)[z])), None

    if steps:
        z, _ = mx.scan(step, 0, None, length=steps)
        if ends:
            mx.sample("end", dist.Normal(1.0 * z, 1.0), obs=0.2)


def switched_off(steps: int, ends: bool) -> None:
    def step(z: Any, y: Any) -> Any:
        with mx.handlers.mask(mask=False):
            z = mx.sample("z", dist.Categorical(real(T33)[z]))
        mx.sample("y", dist.Normal(real(LOCS)[z], 1.0), obs=y)
        return z, None

    if steps:
        mx.scan(step, 0, real(DATA[:steps]))


@dataclass(frozen=True)
class ScanScenario:
    model: Callable[..., Any]
    steps: int = 5
    params: dict[str, Any] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)
    chain_rule: bool = True
    """Whether observations, one step ahead, add up to the whole: one element a step, all in the scan."""

    @property
    def name(self) -> str:
        parts = [
            self.model.__name__,
            *self.how.values(),
            *([str(self.steps)] if self.steps < 3 else []),
        ]
        return " ".join(parts)


def _scenarios() -> list[ScanScenario]:
    S = ScanScenario
    found = [
        S(from_a_variable_to_the_end, params={"shift": 0.3}),
        S(every_other_step),
        S(independent_chains, 4),
        S(coupled),
        S(beside_continuous_values, 4, {"scale": 0.8, "x": DATA[1:5]}),
        S(covariates, params={"slope": -0.7}),
        S(the_state_before_is_seen_too),
        S(of_different_length, chain_rule=False),
        S(with_missing_observations),
        S(a_plate_inside, 3, {"shift": 0.2}, chain_rule=False),
        S(chains_in_a_plate_inside, 3, chain_rule=False),
        S(one_after_the_other, 3),
        S(under_a_variable, params={}),
        S(steps_that_are_not_linked, params={"weight": 0.4}),
        S(mixtures_at_each_step, 4),
        S(values_of_other_kinds, 3),
        S(values_handed_round),
        S(observations_further_back),
        S(observations_further_back_than_states),
        S(backwards),
        S(without_data, chain_rule=False),
        S(switched_off, 4),
        S(first_order, 1, {"stay": 0.7}),
        S(second_order, 1, {"shift": -0.2}),
        S(second_order, 2, {"shift": -0.2}),
        S(from_a_variable_to_the_end, 1, {"shift": 0.3}),
    ]
    for method in METHODS:
        how = {"elimination": method}
        found += [
            S(first_order, 6, {"stay": 0.7}, how),
            S(second_order, 7, {"shift": -0.2}, how),
            S(factorial, 4, {"weight": 1.3}, how),
            S(in_a_plate, 5, {"level": np.array([0.2, -0.5])}, how, chain_rule=False),
            S(durations_as_states, 6, {"rate": 1.2}, how),
        ]
    return found


SCAN_SCENARIOS = {s.name: s for s in _scenarios()}
