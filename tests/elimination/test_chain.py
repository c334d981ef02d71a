"""Elimination along time against the forward-backward and Viterbi algorithms, written in NumPy."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marginax.elimination import loops, numbers
from marginax.elimination.axes import Axis
from marginax.elimination.contract import contract
from marginax.elimination.execute import ScaleError
from marginax.elimination.factor import Factor, Scale
from marginax.elimination.plan import Advance, Chain, Plan, Term, term_of
from marginax.elimination.planner import make_plan
from marginax.elimination.semiring import MAX, SUM, Semiring

WAYS = ("sequential", "blocked", "associative")
EPS32 = float(np.finfo(np.float32).eps)


# --- by hand -------------------------------------------------------------------------------------


def logsumexp(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return np.squeeze(top, axis) + np.log(np.exp(x - top).sum(axis))


def forward_backward(start: Any, table: Any, seen: Any) -> tuple[float, np.ndarray, np.ndarray]:
    """Log density, marginals (steps, states), and the expected numbers of transitions."""
    steps, states = seen.shape
    alpha, beta = np.zeros((2, steps, states))
    alpha[0] = start + seen[0]
    for t in range(1, steps):
        alpha[t] = logsumexp(alpha[t - 1][:, None] + table, 0) + seen[t]
    for t in range(steps - 2, -1, -1):
        beta[t] = logsumexp(table + seen[t + 1] + beta[t + 1], 1)
    total = float(logsumexp(alpha[-1], 0))
    joint = alpha[:-1, :, None] + table + (seen[1:] + beta[1:])[:, None, :]
    return total, np.exp(alpha + beta - total), np.exp(joint - total).sum(0)


def viterbi(start: Any, table: Any, seen: Any) -> tuple[float, np.ndarray]:
    best, come_from = start + seen[0], []
    for now in seen[1:]:
        through = best[:, None] + table
        come_from.append(through.argmax(0))
        best = through.max(0) + now
    path = [int(best.argmax())]
    for before in reversed(come_from):
        path.append(int(before[path[-1]]))
    return float(best.max()), np.array(path[::-1])


# --- the same as a chain -------------------------------------------------------------------------


def logs(steps: int, states: int, spread: float = 1.0, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    start = np.log(rng.dirichlet(np.ones(states)))
    table = np.log(rng.dirichlet(np.ones(states), states))
    return start, table, spread * rng.normal(size=(steps, states))


def chain_of(arrays: Any, way: str = "auto") -> tuple[Plan, list[Factor], dict[Axis, int]]:
    start, table, seen = map(jnp.asarray, arrays)
    steps, states = seen.shape
    factors = [
        Factor("start", (), ("z0",), start),
        Factor("seen first", (), ("z0",), seen[0]),
        Factor("table", ("t",), ("before", "z"), table.reshape((-1, states, states))),
        Factor("seen", ("t",), ("z",), seen[1:]),
    ]
    chain = Chain("t", steps - 1, {"z": "before"}, {"before": "z0"}, {"before": "end"}, way)
    t = frozenset({"t"})
    home: dict[Axis, frozenset[Axis]]
    home = {"z": t, "before": t, "z0": frozenset(), "end": frozenset()}
    sizes, plates = dict.fromkeys(home, states), dict[Axis, int]({"t": steps - 1})
    terms = [Term(f.name, f.variables, frozenset(f.plates)) for f in factors]
    return make_plan(terms, sizes, plates, home, (), [chain]), factors, plates


def log_total(arrays: Any, semiring: Semiring = SUM, way: str = "auto") -> Any:
    plan, factors, plates = chain_of(arrays, way)
    return contract(plan, factors, semiring, plates).log_total


def value_and_gradient(arrays: Any, semiring: Semiring = SUM, way: str = "auto") -> Any:
    fn = jax.jit(jax.value_and_grad(lambda a: log_total(a, semiring, way)))
    return jax.device_get(fn(tuple(map(jnp.asarray, arrays))))


@pytest.mark.parametrize("way", ["sequential", "blocked"])
def test_ten_thousand_steps_against_forward_backward(way: str):
    arrays = logs(10_000, 4)
    total, marginals, transitions = forward_backward(*arrays)
    with jax.enable_x64(True):
        value, (start, table, seen) = value_and_gradient(arrays, way=way)
    np.testing.assert_allclose(value, total, rtol=1e-12)
    np.testing.assert_allclose(seen, marginals, atol=1e-10)
    np.testing.assert_allclose(start, marginals[0], atol=1e-10)
    np.testing.assert_allclose(table, transitions, rtol=1e-9)


@pytest.mark.parametrize("way", ["sequential", "blocked"])
def test_ten_thousand_steps_against_viterbi(way: str):
    arrays = logs(10_000, 4, seed=1)
    best, path = viterbi(*arrays)
    with jax.enable_x64(True):
        value, (_, _, seen) = value_and_gradient(arrays, MAX, way)
    np.testing.assert_allclose(value, best, rtol=1e-12)
    np.testing.assert_array_equal(seen.argmax(1), path)
    np.testing.assert_array_equal(seen.sum(1), 1.0)


def test_single_precision_is_right_at_a_hundred_thousand_steps():
    arrays = logs(100_000, 3)
    total, marginals, transitions = forward_backward(*arrays)
    value, (_, table, seen) = value_and_gradient([a.astype(np.float32) for a in arrays])
    # Each step rounds a few times, independently: errors grow with the root of their number.
    rounding = 4 * EPS32 * np.sqrt(100_000)
    assert abs(value - total) < rounding * np.abs(arrays[2]).mean() + 2 * EPS32 * abs(total)
    rounding = EPS32 * np.sqrt(100_000)
    np.testing.assert_allclose(seen, marginals, atol=rounding)
    np.testing.assert_allclose(table, transitions, rtol=rounding)


def test_the_gradient_is_that_of_finite_differences():
    arrays = logs(200, 3)
    rng = np.random.default_rng(2)
    directions = [rng.normal(size=a.shape) for a in arrays]
    step = 1e-5
    with jax.enable_x64(True):
        _, gradient = value_and_gradient(arrays)
        ahead, back = (
            float(
                log_total([jnp.asarray(a + s * d) for a, d in zip(arrays, directions, strict=True)])
            )
            for s in (step, -step)
        )
    slope = sum(float((g * d).sum()) for g, d in zip(gradient, directions, strict=True))
    np.testing.assert_allclose((ahead - back) / (2 * step), slope, rtol=1e-7)


def test_second_derivatives():
    arrays = logs(6, 3)
    rng = np.random.default_rng(2)
    step = 1e-5
    with jax.enable_x64(True):
        at = tuple(map(jnp.asarray, arrays))
        along = tuple(jnp.asarray(rng.normal(size=a.shape)) for a in arrays)
        gradient = jax.jit(jax.grad(log_total))
        exact = jax.jit(lambda at: jax.jvp(jax.grad(log_total), (at,), (along,))[1])(at)
        ahead, back = (
            gradient(jax.tree.map(lambda a, d, s=s: a + s * d, at, along)) for s in (step, -step)
        )
    for a, b, found in zip(*jax.device_get((ahead, back, exact)), strict=True):
        np.testing.assert_allclose(found, (a - b) / (2 * step), rtol=1e-6, atol=1e-8)


# --- numbers instead of logarithms ---------------------------------------------------------------


def left_to_right(steps: int, states: int) -> tuple[Any, Any, Any]:
    """States can only be left for the next one, with a small probability, and the evidence is extreme."""
    table = np.full((states, states), -np.inf)
    for i in range(states):
        table[i, i] = np.log1p(-np.exp(-60.0)) if i + 1 < states else 0.0
        if i + 1 < states:
            table[i, i + 1] = -60.0
    start = np.where(np.arange(states) == 0, 0.0, -np.inf)
    rng = np.random.default_rng(3)
    seen = rng.normal(size=(steps, states))
    seen[-1] = np.where(np.arange(states) == states - 1, 0.0, -3000.0)
    return start, table, seen


def test_numbers_too_small_to_be_held_do_not_change_the_result():
    """In single precision exp(-120) is zero, but the last observation needs the path that has it."""
    arrays = left_to_right(12, 4)
    total, marginals, _ = forward_backward(*arrays)
    value, (_, table, seen) = value_and_gradient([a.astype(np.float32) for a in arrays])
    np.testing.assert_allclose(value, total, rtol=1e-5)
    np.testing.assert_allclose(seen, marginals, atol=1e-4)
    assert np.isfinite(table).all()


def advanced_in_numbers(arrays: Any) -> tuple[Any, bool]:
    """The chain on numbers alone, and whether that was found to be good enough."""
    plan, factors, _ = chain_of([np.asarray(a, np.float32) for a in arrays])
    (advance,) = (s for s in plan.steps if isinstance(s, Advance))
    start = factors[0].array + factors[1].array
    found, fine = numbers.advance_in_numbers(advance, [start], factors[2:])
    return jax.nn.logsumexp(found.arrays[0]) + found.constants[0].sum(), bool(fine)


def test_numbers_alone_are_fine_where_nothing_is_lost_and_known_not_to_be_where_something_is():
    ordinary, extreme = logs(12, 4), left_to_right(12, 4)
    value, fine = advanced_in_numbers(ordinary)
    assert fine
    np.testing.assert_allclose(value, forward_backward(*ordinary)[0], rtol=1e-5)
    value, fine = advanced_in_numbers(extreme)
    assert not fine
    assert not np.isclose(value, forward_backward(*extreme)[0], rtol=1e-5)


def test_impossible_states_alone_do_not_take_logarithms():
    start, table, seen = logs(30, 4)
    table[np.tril_indices(4, -1)] = -np.inf
    start[1:] = -np.inf
    assert advanced_in_numbers((start, table, seen))[1]


@pytest.mark.parametrize("way", WAYS)
def test_a_state_that_cannot_be_reached_but_would_fit_best(way: str):
    """Its adjoint grows with every step; nothing may come of it."""
    with np.errstate(divide="ignore"):
        table = np.log(np.array([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.0, 0.1, 0.9]]))
    start = np.array([-np.inf, 0.0, -np.inf])
    seen = np.broadcast_to(-0.5 * np.array([0.0, 2.0, 2.0]) ** 2, (1000, 3)).copy()
    total, marginals, transitions = forward_backward(start, table, seen)
    value, (_, slope, now) = value_and_gradient((start, table, seen), way=way)
    np.testing.assert_allclose(value, total, rtol=1e-5)
    np.testing.assert_allclose(now, marginals, atol=1e-4)
    np.testing.assert_allclose(slope, transitions, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("t", [0, 3, 8])
def test_nan_stays_nan(t: int):
    start, table, seen = logs(9, 3)
    seen[t, 1] = np.nan
    assert np.isnan(value_and_gradient((start, table, seen))[0])


def test_half_precision_takes_logarithms():
    arrays = [jnp.asarray(a, jnp.float16) for a in logs(9, 3)]
    assert abs(float(log_total(arrays)) - forward_backward(*logs(9, 3))[0]) < 0.05


def test_a_batch_of_batches_keeps_the_choice():
    """Otherwise both ways would be computed for all of it."""
    arrays = tuple(jnp.asarray(np.stack([np.stack([a, a])] * 2)) for a in logs(9, 3))
    both = jax.vmap(jax.vmap(log_total))
    jaxpr = str(jax.make_jaxpr(both)(arrays))
    assert (
        jaxpr.count("cond[")
        == str(jax.make_jaxpr(jax.vmap(log_total))(tuple(a[0] for a in arrays))).count("cond[")
        == 2
    )


@pytest.mark.parametrize("clash", [50.0, 500.0])
def test_two_observations_that_contradict_each_other(clash: float):
    """Each rules out what the other says; together they are improbable, but not impossible."""
    start, table, seen = logs(20, 3)
    first, second = np.zeros(seen.shape), np.zeros(seen.shape)
    first[:, 0], second[:, 1] = clash, clash
    total, marginals, _ = forward_backward(start, table, seen + first + second)
    plan, factors, plates = chain_of((start, table, (seen + first).astype(np.float32)))
    more = Factor(
        "second", ("t",), ("before", "z"), jnp.asarray(second[1:, None].astype(np.float32))
    )
    terms = (*plan.terms, Term("second", ("before", "z"), frozenset({"t"})))
    chain = next(s.chain for s in plan.steps if isinstance(s, Advance))
    t, nowhere = frozenset({"t"}), frozenset[str]()
    home: dict[Axis, frozenset[Axis]]
    home = {"z": t, "before": t, "z0": nowhere, "end": nowhere}
    plan = make_plan(terms, dict.fromkeys(home, 3), plates, home, (), [chain])
    factors[1] = replace(factors[1], array=factors[1].array + second[0].astype(np.float32))

    def density(tilt: Any) -> Any:
        tilted = [*factors[:3], replace(factors[3], array=factors[3].array + tilt), more]
        return contract(plan, tilted, SUM, plates).log_total

    value, slope = jax.value_and_grad(density)(jnp.zeros((19, 3)))
    np.testing.assert_allclose(value, total, rtol=1e-5)
    np.testing.assert_allclose(slope, marginals[1:], atol=1e-4)


def test_a_batch_takes_one_way_together():
    """One series of a batch needs logarithms; the others get the same result as alone."""
    batch = [logs(12, 4, seed=seed) for seed in range(3)] + [left_to_right(12, 4)]
    stacked = tuple(jnp.asarray(np.stack(parts), jnp.float32) for parts in zip(*batch, strict=True))
    values, gradients = jax.vmap(jax.value_and_grad(log_total))(stacked)
    for i, arrays in enumerate(batch):
        total, marginals, _ = forward_backward(*arrays)
        np.testing.assert_allclose(values[i], total, rtol=1e-5)
        np.testing.assert_allclose(gradients[2][i], marginals, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("semiring", [SUM, MAX], ids=["sum", "max"])
def test_an_impossible_series_has_density_zero_and_no_gradient(way: str, semiring: Semiring):
    start, table, seen = logs(9, 3)
    seen[4] = -np.inf
    value, gradient = value_and_gradient((start, table, seen), semiring, way)
    assert value == -np.inf
    for slope in gradient:
        np.testing.assert_array_equal(np.isfinite(slope), True)


@pytest.mark.parametrize("way", WAYS)
def test_impossible_transitions_have_finite_gradients(way: str):
    start, table, seen = logs(9, 4)
    table[np.tril_indices(4, -1)] = -np.inf
    total, marginals, transitions = forward_backward(start, table, seen)
    value, (_, slope, now) = value_and_gradient((start, table, seen), way=way)
    np.testing.assert_allclose(value, total, rtol=1e-5)
    np.testing.assert_allclose(now, marginals, atol=1e-5)
    np.testing.assert_allclose(slope, transitions, atol=1e-4)


# --- ways along ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 8, 9, 17])
@pytest.mark.parametrize("way", WAYS)
def test_every_length_goes_into_blocks(steps: int, way: str):
    arrays = logs(steps, 2)
    total, marginals, _ = forward_backward(*arrays)
    with jax.enable_x64(True):
        value, (_, _, seen) = value_and_gradient(arrays, way=way)
    np.testing.assert_allclose(value, total, rtol=1e-12)
    np.testing.assert_allclose(seen, marginals, atol=1e-12)


@pytest.mark.parametrize("semiring", [SUM, MAX], ids=["sum", "max"])
def test_a_long_series_is_computed_twice_rather_than_kept(
    semiring: Semiring, monkeypatch: pytest.MonkeyPatch
):
    arrays = logs(103, 3)
    with jax.enable_x64(True):
        expected = value_and_gradient(arrays, semiring)
        monkeypatch.setattr(loops, "KEPT_AT_ONCE", 50)
        found = value_and_gradient(arrays, semiring)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)


def test_sums_of_many_steps_keep_their_digits():
    numbers_ = np.random.default_rng(0).normal(size=100_003).astype(np.float32) + 1.0
    exact = numbers_.astype(np.float64).sum()
    found = float(loops.sum_in_time(jnp.asarray(numbers_)))
    assert abs(found - exact) < 2 * np.sqrt(317) * EPS32 * exact


def test_tables_that_change_with_time():
    start, _, seen = logs(8, 3)
    tables = np.log(np.random.default_rng(5).dirichlet(np.ones(3), (7, 3)))
    total = -np.inf
    for path in itertools.product(range(3), repeat=8):
        steps = sum(tables[t, path[t], path[t + 1]] for t in range(7))
        total = np.logaddexp(total, start[path[0]] + steps + seen[np.arange(8), path].sum())
    with jax.enable_x64(True):
        for way in WAYS:
            np.testing.assert_allclose(log_total((start, tables, seen), way=way), total, rtol=1e-12)


def of_scales(plan: Plan, factors: list[Factor]) -> Plan:
    """The same plan for factors in scales, which change nothing in its order."""
    return replace(plan, terms=tuple(term_of(f) for f in factors))


def test_a_scale_around_a_chain_multiplies_its_total():
    arrays = logs(6, 3)
    total, _, _ = forward_backward(*arrays)
    plan, factors, plates = chain_of(arrays)
    scale = (Scale("s", 2.5),)
    scaled = [replace(f, scales=scale) for f in factors]
    names: dict[Axis, tuple[Scale, ...]] = {"z": scale, "before": scale, "z0": scale, "end": scale}
    found = contract(of_scales(plan, scaled), scaled, SUM, plates, {}, names).log_total
    np.testing.assert_allclose(found, 2.5 * total, rtol=1e-5)


def test_a_scale_on_observations_alone_multiplies_before_the_sum():
    start, table, seen = logs(6, 3)
    total, _, _ = forward_backward(start, table, 2.5 * seen)
    plan, factors, plates = chain_of((start, table, seen))
    scaled = [
        replace(f, scales=(Scale("s", 2.5),)) if "seen" in str(f.name) else f for f in factors
    ]
    found = contract(of_scales(plan, scaled), scaled, SUM, plates).log_total
    np.testing.assert_allclose(found, total, rtol=1e-5)


def test_chains_in_different_scales_that_share_their_steps_are_refused():
    arrays = logs(6, 3)
    plan, factors, plates = chain_of(arrays)
    names: dict[Axis, tuple[Scale, ...]] = {name: (Scale("s", 2.0),) for name in ("z", "before")}
    with pytest.raises(ScaleError, match="scale"):
        contract(plan, factors, SUM, plates, {}, names)


def test_numbers_are_used_where_a_step_is_a_sum_of_products():
    """Otherwise the tests of what they lose would test nothing."""
    plan, factors, _ = chain_of(logs(6, 3))
    (advance,) = (s for s in plan.steps if isinstance(s, Advance))
    assert numbers.are_numbers_enough(advance, factors[2:], ())
