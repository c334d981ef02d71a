"""A run that states what an earlier one did is recognised, and no other is."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenarios import SCENARIOS, oracle
from scipy import stats
from scipy.special import logsumexp

import marginax as mx
import marginax.distributions as dist
from marginax.elimination.execute import ScaleError
from marginax.graph import log_density, recognition
from marginax.graph.recognition import recognised

EXACT = 1e-10


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    for store in (recognition._called, recognition._known):
        while list(store):
            store.forget()


@pytest.fixture
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


NEVER = {"vectors_as_values"}
"""Scenarios with distributions of the user's own."""


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_recognised_run_and_one_that_is_recorded_from_what_it_states_answer_as_brute_force(
    name: str,
) -> None:
    s, m = SCENARIOS[name], mx.marginalize(SCENARIOS[name].model)
    params = {k: jnp.asarray(v, float) for k, v in s.params.items()}
    expected = oracle(name).log_density
    assert not recognised(s.model, (), {}, params).is_recognised
    assert recognised(s.model, (), {}, params).is_recognised == (name not in NEVER)
    np.testing.assert_allclose(m.log_density(params), expected, rtol=EXACT, atol=EXACT)
    while list(recognition._known):
        recognition._known.forget()
    assert not recognised(s.model, (), {}, params).is_recognised
    np.testing.assert_allclose(m.log_density(params), expected, rtol=EXACT, atol=EXACT)
    marginals = m.posterior(params) if oracle(name).posterior else {}
    for site, expected in oracle(name).posterior.items():
        np.testing.assert_allclose(marginals[site], expected, rtol=1e-7, atol=1e-12)


def test_nothing_but_what_is_stated_is_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[str] = []

    def counted(msg: Any) -> Any:
        traced.append(msg["name"])
        return by_formula(msg)

    by_formula = log_density.log_prob
    monkeypatch.setattr(log_density, "log_prob", counted)
    m, world = mx.marginalize(world_model), World()
    for _ in range(3):
        m.log_density({"p": 0.3}, DATA, world)
        m.posterior({"p": 0.3}, DATA, world)
    assert sorted(traced) == ["p", "x", "z"]


class World:
    """What a model reads beside its arguments."""

    def __init__(self) -> None:
        self.a: Any = 2.0
        self.prior: Any = 0.4
        self.locs: Any = jnp.array([-1.0, 2.0])
        self.table: Any = np.array([0.5, 1.5])
        self.scale: Any = 1.0
        self.keep: Any = None
        self.shift: Any = 0.0
        self.family: Any = dist.Normal
        self.fixed: Any = None

    def __repr__(self) -> str:  # by it a call is taken for the same
        return "World"


DATA = np.array([0.3, -1.0, 2.5], np.float32)


def world_model(x: Any, world: World) -> None:
    p = mx.sample("p", dist.Beta(world.a, 1.0))
    with mx.plate("rows", len(x)), mx.handlers.scale(scale=world.scale):
        z = mx.sample("z", dist.Bernoulli(world.prior * p), obs=world.fixed)
        mask = True if world.keep is None else world.keep
        with mx.handlers.mask(mask=mask):
            sigma = jnp.asarray(world.table)[z]
            mx.sample("x", world.family(world.locs[z], sigma), obs=x + world.shift)


def by_hand(world: World, p: float = 0.3) -> float:
    family = {dist.Normal: stats.norm, dist.Laplace: stats.laplace}[world.family]
    x = np.asarray(DATA + world.shift, float)[:, None]
    each = family.logpdf(x, np.asarray(world.locs), np.asarray(world.table))
    if world.keep is not None:
        each = np.where(np.asarray(world.keep)[:, None], each, 0.0)
    each = each + np.log([1 - world.prior * p, world.prior * p])
    rows = logsumexp(each, axis=1)
    if world.fixed is not None:
        rows = each[np.arange(len(x)), np.asarray(world.fixed)]
    return float(stats.beta.logpdf(p, world.a, 1.0) + world.scale * rows.sum())


CHANGES: dict[str, Callable[[World], None]] = {
    "a Python number": lambda w: setattr(w, "a", 3.0),
    "a number in an expression": lambda w: setattr(w, "prior", 0.7),
    "an array of JAX": lambda w: setattr(w, "locs", jnp.array([-1.0, 3.0])),
    "an array of NumPy": lambda w: setattr(w, "table", np.array([0.5, 2.5])),
    "a NumPy array in its place": lambda w: w.table.__setitem__(0, 0.8),
    "a scale": lambda w: setattr(w, "scale", 2.0),
    "a mask": lambda w: setattr(w, "keep", np.array([True, False, True])),
    "observed values": lambda w: setattr(w, "shift", 0.5),
    "the family": lambda w: setattr(w, "family", dist.Laplace),
    "a value for a variable": lambda w: setattr(w, "fixed", np.array([0, 1, 1])),
}


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_what_a_model_reads_is_seen(change: Any, x64: bool) -> None:
    with jax.enable_x64(x64):
        m, world, runs = mx.marginalize(world_model), World(), 3
        rtol = 1e-6 if not x64 else 1e-7  # the data are of single precision
        for _ in range(runs):
            value = m.log_density({"p": 0.3}, DATA, world)
            np.testing.assert_allclose(value, by_hand(world), rtol=rtol)
        change(world)
        for _ in range(runs):
            value, slope = jax.value_and_grad(lambda p: m.log_density({"p": p}, DATA, world))(0.3)
            np.testing.assert_allclose(value, by_hand(world), rtol=rtol)
            ends = [by_hand(world, 0.3 + step) for step in (1e-5, -1e-5)]
            np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-4)
            np.testing.assert_allclose(
                m.log_density({"p": 0.3}, DATA, world), by_hand(world), rtol=rtol
            )


def test_a_wrong_number_is_refused_though_the_call_was_right_before() -> None:
    m, world = mx.marginalize(world_model), World()
    for _ in range(2):
        m.log_density({"p": 0.3}, DATA, world)
    world.a = -1.0
    for _ in range(2):
        with pytest.raises(mx.ModelError, match="site 'p': the parameter 'concentration1'"):
            m.log_density({"p": 0.3}, DATA, world)
    world.a, world.locs = 2.0, jnp.array([np.nan, 1.0])
    for _ in range(2):
        with pytest.raises(mx.ModelError, match="site 'x': the parameter 'loc'|its log density"):
            m.log_density({"p": 0.3}, DATA, world)


def test_a_range_that_follows_from_numbers_is_that_of_the_numbers() -> None:
    counts = {"n": np.array([2, 3])}

    def model() -> None:
        with mx.plate("rows", 2):
            n = mx.sample("n", dist.Binomial(jnp.asarray(counts["n"]), 0.5))
            mx.sample("x", dist.Normal(n, 1.0), obs=jnp.zeros(2))

    m = mx.marginalize(model)
    for most in ([2, 3], [2, 3], [2, 5], [2, 5], [1, 1]):
        counts["n"] = np.array(most)
        found = m.posterior({})["n"]
        assert found.shape == (2, max(most) + 1)
        ks = np.arange(max(most) + 1)
        for row, n in zip(found, most, strict=True):
            weights = stats.binom.pmf(ks, n, 0.5) * stats.norm.pdf(ks)
            np.testing.assert_allclose(row, weights / weights.sum(), rtol=1e-5, atol=1e-7)


def test_a_model_that_changes_is_run_once_a_query() -> None:
    runs: list[int] = []

    def model() -> None:
        runs.append(len(runs))
        mx.sample("x", dist.Normal(float(len(runs)), 1.0), obs=0.0)

    m = mx.marginalize(model)
    for n in range(1, 6):
        np.testing.assert_allclose(m.log_density({}), stats.norm.logpdf(n), rtol=1e-6)
        assert len(runs) == n


class Mine(dist.Normal):
    """A distribution whose log density reads what is outside of it."""

    factor = 1.0

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return self.factor * super().log_prob(value)


def test_a_distribution_of_the_users_own_is_read_anew() -> None:
    m = mx.marginalize(lambda: mx.sample("x", Mine(0.0, 1.0), obs=1.0) and None)
    try:
        for factor in (1.0, 1.0, 2.0, 2.0):
            Mine.factor = factor
            expected = factor * stats.norm.logpdf(1.0)
            np.testing.assert_allclose(m.log_density({}), expected, rtol=1e-6)
    finally:
        Mine.factor = 1.0


def test_a_scale_that_is_one_array_in_two_places_is_another_than_two_equal_arrays() -> None:
    """Of two sites under one scale the sum of their product is scaled; under two that cannot be."""
    halves = [jnp.array(0.5), jnp.array(0.5)]

    def model() -> None:
        with mx.handlers.scale(scale=halves[0]):
            z = mx.sample("z", dist.Bernoulli(0.3))
        with mx.handlers.scale(scale=halves[1]):
            mx.sample("x", dist.Normal(z, 1.0), obs=1.0)

    m, last = mx.marginalize(model), halves[1]
    with pytest.raises(ScaleError, match="in the same handlers.scale"):
        m.log_density({})
    halves[1] = halves[0]
    expected = 0.5 * np.log(0.7 * stats.norm.pdf(1.0) + 0.3 * stats.norm.pdf(0.0))
    for _ in range(2):
        np.testing.assert_allclose(m.log_density({}), expected, rtol=1e-6)
    halves[1] = last
    with pytest.raises(ScaleError, match="in the same handlers.scale"):
        m.log_density({})


def test_what_is_remembered_does_not_keep_the_data() -> None:
    m, world = mx.marginalize(world_model), World()
    world.locs = jnp.array([-4.0, 4.0])
    for _ in range(2):
        m.log_density({"p": 0.3}, DATA, world)
    alive = weakref.ref(world.locs)
    world.locs = jnp.array([-4.0, 4.5])
    gc.collect()
    assert alive() is None


def test_much_data_is_not_compared() -> None:
    x = np.zeros(2**19, np.float32)  # 2 MiB
    m = mx.marginalize(lambda x: mx.sample("x", dist.Normal(0.0, 1.0).expand(x.shape), obs=x))
    for _ in range(2):
        np.testing.assert_allclose(m.log_density({}, x), x.size * stats.norm.logpdf(0), rtol=1e-5)
    assert not list(recognition._known)


def test_inside_of_a_trace_nothing_is_taken_for_known() -> None:
    m, world = mx.marginalize(world_model), World()

    @jax.jit
    def shifted(shift: Any) -> Any:
        other = World()
        other.shift = shift
        return m.log_density({"p": 0.3}, DATA, other)

    for _ in range(2):
        m.log_density({"p": 0.3}, DATA, world)
    for world.shift in (0.0, 0.25, 1.0):
        np.testing.assert_allclose(shifted(world.shift), by_hand(world), rtol=1e-5)


@pytest.mark.parametrize(
    ("fn", "value"),
    [
        (lambda: dist.Binomial(jnp.array(-1), 0.5), 0),
        (lambda: dist.Uniform(jnp.array(0.0), jnp.asarray(0.0)), 1.0),
        (lambda: dist.Delta(jnp.asarray(np.zeros(2))), np.ones(2)),
    ],
)
def test_a_constant_that_the_first_run_does_not_know_is_not_known_to_a_record_of_statements_either(
    fn: Callable[[], Any], value: Any
) -> None:
    def model() -> None:
        mx.sample("x", fn(), obs=value)

    m = mx.marginalize(model)
    assert np.all(m.log_density({}) == -np.inf)
    while list(recognition._known):
        recognition._known.forget()
    assert np.all(m.log_density({}) == -np.inf)
    assert np.all(m.log_density({}) == -np.inf)
