"""Eliminations done as one give what they give one by one, and the program does not grow with their number."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marginax.elimination import batches
from marginax.elimination.axes import Axis
from marginax.elimination.contract import contract
from marginax.elimination.factor import Factor
from marginax.elimination.outside import outside_messages
from marginax.elimination.plan import term_of
from marginax.elimination.planner import make_plan
from marginax.elimination.semiring import ENTROPY, MAX, SUM, Semiring

K = 3


def tree(count: int, seed: int = 0, branches: int = 2) -> list[Factor]:
    """A tree of variables; every other edge has its names the other way round, some tables are the same array."""
    rng = np.random.default_rng(seed)
    shared = jnp.asarray(rng.normal(size=(K, K)), jnp.float32)
    factors = []
    for i in range(count):
        own = jnp.asarray(rng.normal(size=K), jnp.float32).at[i % K].add(-jnp.inf * (i % 5 == 0))
        factors.append(Factor(f"own {i}", (), (f"z{i}",), own))
        if i:
            up = f"z{(i - 1) // branches}"
            table = shared if i % 3 else jnp.asarray(rng.normal(size=(K, K)), jnp.float32)
            names = (up, f"z{i}") if i % 4 else (f"z{i}", up)
            factors.append(Factor(f"edge {i}", (), names, table))
    return factors


def total(factors: list[Factor], semiring: Semiring) -> Any:
    names = list(dict.fromkeys(v for f in factors for v in f.variables))
    plan = make_plan(
        [term_of(f) for f in factors],
        dict.fromkeys(names, K),
        {},
        dict.fromkeys(names, frozenset[str]()),
    )

    def run(arrays: list[Any]) -> Any:
        changed = [
            Factor(f.name, f.plates, f.variables, a) for f, a in zip(factors, arrays, strict=True)
        ]
        return contract(plan, changed, semiring, {}).log_total

    arrays = [f.array for f in factors]
    value, gradient = jax.jit(jax.value_and_grad(run))(arrays)
    messages = jax.jit(
        lambda: [m.array for _, m in sorted(outside_messages(plan, factors, {}).items())]
    )
    return value, gradient, messages()


def by_hand(factors: list[Factor], count: int, branches: int, reduce: Any) -> Any:
    """The messages of a tree from its leaves to its root, in NumPy."""
    own = {f.variables[0]: np.asarray(f.array, float) for f in factors if len(f.variables) == 1}
    for i in reversed(range(1, count)):
        edge = next(f for f in factors if f.name == f"edge {i}")
        table = np.asarray(edge.array, float)
        table = table if edge.variables[1] == f"z{i}" else table.T
        own[f"z{(i - 1) // branches}"] = own[f"z{(i - 1) // branches}"] + reduce(
            table + own[f"z{i}"], 1
        )
    return reduce(own["z0"], 0)


def logsumexp(x: Any, axis: int) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.logaddexp.reduce(x, axis)


@pytest.mark.parametrize("branches", [2, 5])
@pytest.mark.parametrize("semiring", [SUM, MAX, ENTROPY], ids=lambda s: s.name)
def test_together_or_one_by_one_is_the_same(
    semiring: Semiring, branches: int, monkeypatch: pytest.MonkeyPatch
):
    factors = tree(21, branches=branches)
    together = total(factors, semiring)
    monkeypatch.setattr(batches, "LARGEST", 0)
    alone = total(factors, semiring)
    for found, expected in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    reduce = np.max if semiring is MAX else logsumexp
    np.testing.assert_allclose(together[0], by_hand(factors, 21, branches, reduce), rtol=1e-5)


def test_the_program_grows_with_the_depth_of_a_tree_and_not_with_its_leaves():
    def star(count: int) -> int:
        table = np.ones((K, K), np.float32)
        factors = [Factor("hub", (), ("hub",), jnp.zeros(K))]
        for i in range(count):
            factors.append(Factor(f"edge {i}", (), ("hub", f"z{i}"), table * i))  # pyright: ignore[reportArgumentType]
        sizes: dict[Axis, int] = {"hub": K, **{f"z{i}": K for i in range(count)}}
        plan = make_plan(
            [term_of(f) for f in factors], sizes, {}, dict.fromkeys(sizes, frozenset[str]())
        )
        return len(list(batches.in_batches(plan, batches.Slots(factors))))

    assert star(10) == star(40) == 2  # all leaves, then the hub


def test_draws_of_steps_that_are_done_as_one_are_independent():
    from marginax.elimination.semiring import sample_semiring

    count = 8
    factors = [Factor(f"own {i}", (), (f"z{i}",), jnp.zeros(2)) for i in range(count)]
    names = [f"z{i}" for i in range(count)]
    plan = make_plan(
        [term_of(f) for f in factors],
        dict.fromkeys(names, 2),
        {},
        dict.fromkeys(names, frozenset[str]()),
    )

    def draw(key: Any) -> Any:
        def run(arrays: list[Any]) -> Any:
            changed = [
                Factor(f.name, (), f.variables, a) for f, a in zip(factors, arrays, strict=True)
            ]
            return contract(plan, changed, sample_semiring(key), {}).log_total

        return jnp.stack(jax.grad(run)([f.array for f in factors]))[:, 1]

    draws = jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(np.corrcoef(np.asarray(draws).T), np.eye(count), atol=0.08)
    np.testing.assert_allclose(draws.mean(0), 0.5, atol=0.04)
