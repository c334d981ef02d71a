"""Random models against brute force: plates, tables, impossible values, and what is intractable.

A model is made from a small description, so that a failure shrinks to something one can read. Sites
stand in any of three plates (nested, disjoint or crossed) and depend, through a table, on any
variables whose plates they can see. Some sites are observed, some are factors, and some tables have
zeros. Which models are intractable is decided here by a criterion that knows no elimination.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frequencies import assert_frequencies
from hypothesis import given, seed, settings, strategies as st
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.testing import BruteForce

PLATES = "ABC"  # of dimensions -1, -2 and -3
LARGEST = 4096  # assignments that brute force may have to sum


@dataclass(frozen=True)
class Statement:
    """A site: latent, observed or a factor, in some plates, given some of the variables before it."""

    kind: str
    plates: str
    parents: tuple[int, ...]
    size: int = 2
    """Number of values."""
    zeros: bool = False
    """Whether some of its table is impossible."""


@dataclass(frozen=True)
class Description:
    """A model: its statements, and the sizes of the three plates."""

    statements: tuple[Statement, ...]
    plate_sizes: tuple[int, int, int] = (2, 2, 2)

    def shape(self, plates: str) -> tuple[int, ...]:
        """Of a site in these plates."""
        depth = max((PLATES.index(p) + 1 for p in plates), default=0)
        return tuple(
            self.plate_sizes[i] if PLATES[i] in plates else 1 for i in reversed(range(depth))
        )


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    """From one to six variables, with their factors and observations; small enough for brute force."""
    plate_sizes = draw(st.tuples(*[st.sampled_from([2, 1, 3])] * 3))
    statements: list[Statement] = []
    assignments = 1
    latent = 0
    for _ in range(draw(st.integers(1, 9))):
        kinds = ["latent", "observed", "factor"] if latent < 6 else ["observed", "factor"]
        kind = draw(st.sampled_from(kinds))
        plates = "".join(sorted(draw(st.sets(st.sampled_from(PLATES)))))
        visible = [
            i
            for i, s in enumerate(statements)
            if s.kind == "latent" and set(s.plates) <= set(plates)
        ]
        parents = (
            draw(st.lists(st.sampled_from(visible), max_size=3, unique=True)) if visible else []
        )
        size = draw(st.sampled_from([2, 1, 3, 4]))
        if kind == "latent":
            elements = math.prod(plate_sizes[PLATES.index(p)] for p in plates)
            size = min(size, int((LARGEST / assignments) ** (1 / elements) + 1e-9))
            assignments *= size**elements
            latent += 1
        statements.append(Statement(kind, plates, tuple(parents), size, draw(st.booleans())))
    return Description(tuple(statements), plate_sizes)


def tables_of(d: Description) -> list[np.ndarray]:
    """Logarithms, one table for each statement; no row is impossible altogether."""
    tables = []
    for i, s in enumerate(d.statements):
        rng = np.random.default_rng(i)
        shape = [d.statements[p].size for p in s.parents]
        shape += [] if s.kind == "factor" else [s.size]
        table = rng.normal(size=shape)
        if s.zeros and s.kind == "factor":
            table = np.where(rng.random(shape) < 0.2, -np.inf, table)
        elif s.zeros:
            zero = (rng.random(shape) < 0.3) & (np.arange(s.size) > 0)
            table = np.where(zero, -np.inf, table)
        tables.append(table)
    return tables


def model_of(d: Description) -> Callable[..., None]:
    """A model whose parameters are the temperatures of its tables."""

    def model() -> None:
        heat = mx.sample("heat", dist.Normal(0.0, 1.0).expand([len(d.statements)]).to_event(1))
        plates = [mx.plate(p, d.plate_sizes[i], dim=-1 - i) for i, p in enumerate(PLATES)]
        values: list[Any] = []
        for i, (s, logs) in enumerate(zip(d.statements, tables_of(d), strict=True)):
            finite = jnp.asarray(np.where(np.isfinite(logs), logs, 0.0), heat.dtype)
            table = jnp.where(np.isfinite(logs), finite * heat[i], -jnp.inf)
            given = look_up(table, [values[p] for p in s.parents], by_index=i % 2 == 0)
            with ExitStack() as stack:
                for plate in plates:
                    if plate.name in s.plates:
                        stack.enter_context(plate)
                name = f"{s.kind}_{i}"
                if s.kind == "factor":
                    mx.factor(name, jnp.broadcast_to(given, d.shape(s.plates)))
                    values.append(None)
                else:
                    obs = np.zeros(d.shape(s.plates), int) if s.kind == "observed" else None
                    values.append(mx.sample(name, dist.Categorical(logits=given), obs=obs))

    return model


def look_up(table: Any, values: list[Any], by_index: bool) -> Any:
    """The entries of a table at some values, by indexing or by comparing with each value."""
    if not values:
        return table
    first, *rest = values
    if by_index or table.shape[0] == 1:
        return table[tuple(values)]
    extra = (1,) * (table.ndim - len(values))  # what is left of the table stands behind the plates
    out = look_up(table[0], rest, by_index)
    for k in range(1, table.shape[0]):
        chosen = jnp.reshape(first == k, first.shape + extra)
        out = jnp.where(chosen, look_up(table[k], rest, by_index), out)
    return out


def is_intractable(d: Description) -> bool:
    """Whether two variables, one in plate a but not b, one in b but not a, are joined inside of both.

    That is: by a chain of sites and variables that all stand in a and in b. Then all elements of one
    variable depend on all elements of the other, and the sum is exponential in the plates' sizes.
    """
    touches = {
        i: {*s.parents, *([i] if s.kind == "latent" else [])} for i, s in enumerate(d.statements)
    }
    several = [p for p, size in zip(PLATES, d.plate_sizes, strict=True) if size > 1]
    for a, b in permutations(several, 2):
        inside = {i for i, s in enumerate(d.statements) if {a, b} <= set(s.plates)}
        while inside:
            joined = {inside.pop()}
            frontier = set(joined)
            while frontier:
                reached = set[int]().union(*(touches[i] for i in frontier))
                frontier = {i for i in inside if touches[i] & reached & {*inside, *joined}}
                inside -= frontier
                joined |= frontier
            plates = [set(d.statements[v].plates) for i in joined for v in touches[i]]
            if any(a in p and b not in p for p in plates) and any(
                b in p and a not in p for p in plates
            ):
                return True
    return False


CROSSED = (Statement("latent", "A", ()), Statement("latent", "B", ()))
KNOWN: dict[str, tuple[tuple[Statement, ...], bool]] = {
    "crossed": ((*CROSSED, Statement("factor", "AB", (0, 1))), True),
    "crossed through a third": (
        (*CROSSED, Statement("latent", "AB", (0,)), Statement("factor", "AB", (1, 2))),
        True,
    ),
    "crossed through two that meet outside": (
        (*CROSSED, Statement("factor", "AB", (0,)), Statement("factor", "AB", (1,))),
        False,
    ),
    "crossed through a global one": (
        (
            Statement("latent", "", ()),
            Statement("latent", "A", (0,)),
            Statement("latent", "B", (0,)),
            Statement("factor", "AB", (1,)),
        ),
        False,
    ),
    "nested": (
        (
            Statement("latent", "", ()),
            Statement("latent", "A", (0,)),
            Statement("latent", "AB", (0, 1)),
            Statement("latent", "ABC", (0, 1, 2)),
        ),
        False,
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_criterion_on_known_graphs(name: str) -> None:
    statements, expected = KNOWN[name]
    assert is_intractable(Description(statements)) == expected
    check_tractability(Description(statements))


def check_tractability(d: Description) -> bool:
    """Whether a model is tractable; it is refused exactly if it is not."""
    m = mx.marginalize(model_of(d))
    if not is_intractable(d):
        m.explain(show=False)
        return True
    with pytest.raises(mx.IntractableError, match="cannot be summed out exactly"):
        m.explain(show=False)
    with pytest.raises(mx.IntractableError):
        m.log_density({"heat": np.ones(len(d.statements))})
    return False


def heat(d: Description) -> np.ndarray:
    """The parameters at which a model is looked at."""
    return np.linspace(0.5, 1.5, len(d.statements))


PARTS, EXAMPLES = 4, 24
"""The models are checked in parts, which may run side by side."""
DRAWS = 400


@settings(deadline=None, derandomize=True, max_examples=200)
@given(descriptions())
def test_exactly_the_intractable_is_refused(d: Description) -> None:
    check_tractability(d)


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, PARTS))]
)
def test_every_answer_equals_brute_force(part: int) -> None:
    @settings(deadline=None, max_examples=EXAMPLES, database=None)
    @seed(part)
    @given(descriptions())
    def check(d: Description) -> None:
        if not is_intractable(d):
            check_answers(d)

    check()


def check_answers(d: Description) -> None:
    """Value and gradient in double and single precision, marginals, mode, draws."""
    m = mx.marginalize(model_of(d))
    oracle, slopes = brute_force(d)
    expected = np.logaddexp.reduce(np.asarray(oracle.log_joint))
    with jax.enable_x64(True):
        value, gradient, answers = everything(m, d)
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9)
        if np.isfinite(expected):
            slope = slopes @ np.exp(np.asarray(oracle.log_joint) - expected)
            np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-9)
            check_discrete(oracle, *answers)
        else:
            np.testing.assert_array_equal(np.isfinite(gradient), True)
            with pytest.raises(mx.ModelError, match="no joint assignment|impossible"):
                m.posterior({"heat": heat(d)})
    single = m.log_density({"heat": heat(d)})
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-4)


def everything(m: mx.Marginal, d: Description) -> Any:
    """Log density, its gradient, and what is known of the discrete variables, in one program."""

    def answers(h: Any) -> Any:
        params = {"heat": h}
        keys = jax.random.split(jax.random.key(0), DRAWS)
        draws = jax.vmap(lambda key: m.draw(key, params))(keys)
        value, gradient = jax.value_and_grad(lambda h: m.log_density({"heat": h}))(h)
        return value, gradient, (m.posterior(params), m.mode(params), draws)

    return jax.device_get(jax.jit(answers)(heat(d)))


def check_discrete(oracle: BruteForce, posterior: Any, mode: Any, draws: Any) -> None:
    assert set(posterior) == set(mode) == set(draws) == set(oracle.assignments)
    if not oracle.assignments:
        return
    for name, probability in oracle.posterior.items():
        np.testing.assert_allclose(posterior[name], probability, rtol=1e-9, atol=1e-12)
    log_joint = np.asarray(oracle.log_joint)
    (row,) = oracle.table_index({name: value[None] for name, value in mode.items()})
    np.testing.assert_allclose(log_joint[row], log_joint.max(), rtol=1e-9, atol=1e-9)
    # One false alarm in ten thousand runs of all the models.
    weight = np.exp(log_joint - log_joint.max())
    assert_frequencies(oracle.table_index(draws), weight, 1e-4 / (PARTS * EXAMPLES))


def brute_force(d: Description) -> tuple[BruteForce, np.ndarray]:
    """The oracle in NumPy, straight from the description: no model is run for it.

    Beside it the derivatives of every assignment's log joint density by the temperatures, one row for
    each temperature. In here assignments are the last axis, so that plates meet as they do in models.
    """
    latent = {i: s for i, s in enumerate(d.statements) if s.kind == "latent"}
    ranges = [range(s.size) for s in latent.values() for _ in range(math.prod(d.shape(s.plates)))]
    table = np.array(list(zip(*product(*ranges), strict=True)), int)
    count = math.prod(len(r) for r in ranges)
    values, start = {}, 0
    for i, s in latent.items():
        shape = d.shape(s.plates)
        values[i] = table[start : start + math.prod(shape)].reshape(*shape, count)
        start += math.prod(shape)

    temperatures = heat(d)
    log_joint = np.full(count, stats.norm.logpdf(temperatures).sum())
    slopes = np.tile(-temperatures[:, None], count)
    for i, (s, logs) in enumerate(zip(d.statements, tables_of(d), strict=True)):
        slope = np.where(np.isfinite(logs), logs, 0.0)
        density = np.where(np.isfinite(logs), slope * temperatures[i], -np.inf)
        at = [values[p] for p in s.parents]
        if s.kind != "factor":
            density = density - np.logaddexp.reduce(density, axis=-1, keepdims=True)
            slope = slope - (np.exp(density) * slope).sum(axis=-1, keepdims=True)
            at.append(values.get(i, np.zeros(1, int)))  # the first value is observed
        index = tuple(np.broadcast_arrays(*at)) if at else ()
        elements = (*d.shape(s.plates), count)
        log_joint += np.broadcast_to(density[index], elements).reshape(-1, count).sum(axis=0)
        slopes[i] += np.broadcast_to(slope[index], elements).reshape(-1, count).sum(axis=0)

    assignments: dict[str, Any] = {f"latent_{i}": np.moveaxis(v, -1, 0) for i, v in values.items()}
    sizes = {f"latent_{i}": s.size for i, s in latent.items()}
    return BruteForce(
        log_joint, assignments, np.zeros(count), log_joint, assignments, sizes
    ), slopes
