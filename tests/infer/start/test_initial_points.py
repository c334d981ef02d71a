"""Components begin at rows of the data: different ones, with the probabilities of k-means++."""

import itertools
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.infer.start.initial_points import init_to_kmeans_plusplus, init_to_random_points
from marginax.infer.start.initial_run import initial_values
from marginax.infer.start.initialization import init_to_feasible, init_to_median
from marginax.language.stack import statement

KEY = jax.random.key(0)
DRAWS = 4000
STRATEGIES = {"random": init_to_random_points, "kmeans++": init_to_kmeans_plusplus}
LINE = np.array([0.0, 1.0, 1.5, 4.0, 10.0])
both = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)


def scalars(count: int, fn: Any = None) -> Any:
    """A model with a scalar for each component."""

    def model() -> None:
        with mx.plate("components", count):
            mx.sample("locs", dist.Normal(0.0, 10.0) if fn is None else fn)

    return model


def vectors(count: int, size: int) -> Any:
    def model() -> None:
        with mx.plate("components", count):
            mx.sample("locs", dist.Normal(jnp.zeros(size), 10.0).to_event(1))

    return model


def many(model: Any, strategy: Any, count: int, seed: int = 0) -> np.ndarray:
    """Initial values for many keys, shape (count, K, ...)."""
    draw = jax.jit(jax.vmap(lambda key: initial_values(model, strategy, key)["locs"]))
    return np.asarray(draw(jax.random.split(jax.random.key(seed), count)))


def kmeans_plusplus_probabilities(data: np.ndarray, count: int) -> dict[tuple[int, ...], float]:
    """Of every sequence of rows, by the definition."""
    data = data.reshape(len(data), -1)
    squared = ((data[:, None] - data[None]) ** 2).sum(-1)
    found = {}
    for rows in itertools.product(range(len(data)), repeat=count):
        probability = 1 / len(data)
        for i in range(1, count):
            nearest = squared[:, list(rows[:i])].min(axis=1)
            probability *= nearest[rows[i]] / nearest.sum()
        found[rows] = probability
    return found


def assert_sequences(values: np.ndarray, data: np.ndarray, probabilities: Any) -> None:
    """Sequences of rows, told by their values, have these probabilities (chi-square)."""
    cells = {tuple(data[list(rows)].ravel()): p for rows, p in probabilities.items() if p > 0}
    counts = Counter(tuple(v.ravel().tolist()) for v in values)
    assert set(counts) <= set(cells)  # nothing of probability zero
    found = np.array([counts[cell] for cell in cells])
    expected = len(values) * np.array(list(cells.values()))
    rare = expected < 5  # counted as one
    if rare.any():
        found = np.append(found[~rare], found[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    assert stats.chisquare(found, expected).pvalue > 1e-4


def test_without_candidates_to_choose_from_it_is_kmeans_plusplus():
    data = np.array([[0, 0], [1, 0], [0, 3], [2, 2], [5, 1], [6, 6], [-1, 4]], float)
    strategy = init_to_kmeans_plusplus(values={"locs": data}, num_candidates=1)
    values = many(vectors(3, 2), strategy, DRAWS)
    assert_sequences(values, data, kmeans_plusplus_probabilities(data, 3))


def test_of_several_candidates_the_one_that_leaves_the_least_is_kept():
    def probabilities(candidates: int) -> dict[tuple[int, ...], float]:
        squared = (LINE[:, None] - LINE[None]) ** 2
        found = dict.fromkeys(itertools.product(range(5), repeat=2), 0.0)
        for first in range(5):
            p = squared[first] / squared[first].sum()
            left = np.minimum(squared[first], squared).sum(axis=1)
            for drawn in itertools.product(range(5), repeat=candidates):
                best = min(drawn, key=lambda row: left[row])
                found[first, best] += np.prod(p[list(drawn)]) / 5
        return found

    strategy = init_to_kmeans_plusplus(values={"locs": LINE}, num_candidates=2)
    assert_sequences(many(scalars(2), strategy, DRAWS), LINE, probabilities(2))


def test_random_points_are_uniform_without_replacement():
    values = many(scalars(3), init_to_random_points(values={"locs": LINE}), DRAWS)
    assert_sequences(values, LINE, dict.fromkeys(itertools.permutations(range(5), 3), 1 / 60))


def test_values_that_come_often_are_drawn_often_but_once():
    data = np.array([0.0, 0.0, 0.0, 1.0, 2.0])
    values = many(scalars(2), init_to_random_points(values={"locs": data}), DRAWS)
    expected = {(0, 3): 0.3, (0, 4): 0.3, (3, 0): 0.15, (3, 4): 0.05, (4, 0): 0.15, (4, 3): 0.05}
    assert_sequences(values, data, expected)


@both
@pytest.mark.parametrize("double", [False, True])
def test_points_are_different_rows_of_the_data(strategy: Any, double: bool):
    with jax.enable_x64(double):
        data = np.random.default_rng(0).normal(size=(50, 3)).astype(float if double else np.float32)
        data[10:40] = data[10]
        values = many(vectors(7, 3), strategy(values={"locs": data}), 40)
        assert values.dtype == data.dtype
        rows = {tuple(row) for row in data}
        for points in values:
            found = {tuple(point) for point in points}
            assert len(found) == 7
            assert found <= rows


@both
def test_all_different_rows_are_found_when_there_are_no_more(strategy: Any):
    data = np.repeat([3.0, -1.0, 8.0], 5)
    for points in many(scalars(3), strategy(values={"locs": data}), 20):
        assert sorted(points) == [-1.0, 3.0, 8.0]
    assert (many(scalars(1), strategy(values={"locs": np.full(4, 2.0)}), 2) == 2.0).all()


def test_distances_of_any_size_can_be_squared():
    data = np.array([0.0, 1e-25, 1.0, 2.0])  # the first two are too close for a square

    @jax.jit
    def draw(data: Any, keys: Any) -> Any:
        strategy = init_to_kmeans_plusplus(values={"locs": data})
        return jax.vmap(lambda key: initial_values(scalars(4), strategy, key)["locs"])(keys)

    for factor in (1e-12, 1.0, 1e30):
        rows = (data * factor).astype(np.float32)
        for points in draw(rows, jax.random.split(KEY, 20)):
            assert sorted(points.tolist()) == sorted(rows.tolist())


def test_clusters_that_lie_far_apart_are_always_found():
    rng = np.random.default_rng(1)
    centres = 1000.0 * np.array([[i, j] for i in range(4) for j in range(3)])
    data = centres[rng.integers(12, size=600)] + rng.normal(size=(600, 2))
    # A row within one cluster has a part of about 1e-6 in the sum of squares while one is missing.
    for points in many(vectors(12, 2), init_to_kmeans_plusplus(values={"locs": data}), 200):
        assert len({tuple(point) for point in np.round(points / 1000)}) == 12


@both
def test_alone_mapped_or_with_traced_data_a_key_gives_the_same(strategy: Any):
    @jax.jit
    def draw(data: Any, key: Any) -> Any:
        return initial_values(scalars(3), strategy(values={"locs": data}), key)["locs"]

    keys = jax.random.split(jax.random.key(0), 5)
    together = many(scalars(3), strategy(values={"locs": LINE}), 5)
    for key, points in zip(keys, together, strict=True):
        np.testing.assert_array_equal(draw(LINE, key), points)
    assert len({tuple(points) for points in together}) > 1
    repeated = draw(np.array([1.0, 1.0, 1.0, 2.0, 2.0]), KEY)  # not refused: it is not known
    assert set(repeated.tolist()) == {1.0, 2.0}


@both
def test_components_may_be_in_the_event_have_their_own_supports_and_other_sites_beside(
    strategy: Any,
):
    data = np.arange(12.0).reshape(4, 3)

    def model() -> None:
        mx.sample("matrix", dist.Normal(0.0, 1.0).expand([2, 3]).to_event(2))
        above = dist.TruncatedNormal(0.0, 1.0, low=jnp.array([-1.0, -2.0]))
        with mx.plate("components", 2):
            mx.sample("above", above)
        mx.sample("other", dist.LogNormal(0.3, 1.0))

    begin = strategy(values={"matrix": data, "above": LINE}, fallback=init_to_feasible)
    values = jax.jit(lambda key: initial_values(model, begin, key))(KEY)
    rows = {tuple(row) for row in data}
    assert len({tuple(row) for row in values["matrix"].tolist()} & rows) == 2
    assert len(set(values["above"].tolist()) & set(LINE)) == 2
    assert values["other"] == 1.0


@both
def test_a_site_without_data_begins_at_its_median_unless_told_otherwise(strategy: Any):
    fn = dist.Normal(3.0, 1.0).expand([2])
    site = statement("sample", "locs", fn, kwargs={"rng_key": KEY})
    np.testing.assert_array_equal(strategy(site), init_to_median(site))


@both
@pytest.mark.parametrize(
    ("model", "data", "reason"),
    [
        (scalars(2), np.array([1.0, np.nan, np.inf]), "'locs'.*2 are not finite.*row 1"),
        (scalars(4), np.array([1.0, 2.0, 1.0, 3.0]), "'locs'.*4 components.*only 3 different"),
        (scalars(2), np.zeros((0,)), "'locs'.*2 components.*only 0"),
        (scalars(2), np.ones((5, 2)), r"'locs'.*\(2,\).*\(5, 2\).*must have shape \(N,\)"),
        (vectors(2, 3), np.ones((5, 2)), r"'locs'.*\(2, 3\).*\(5, 2\).*must have shape \(N, 3\)"),
        (scalars(2), np.array(["a", "b"]), "'locs'.*numbers"),
        (
            scalars(2, dist.TruncatedNormal(0.0, 1.0, low=jnp.array([-1.0, 0.5]))),
            LINE,
            "'locs'.*from 0 to 10.*outside of its support",
        ),
        (lambda: mx.sample("locs", dist.Normal(0.0, 1.0)), LINE, "'locs'.*no components.*plate"),
        (
            scalars(2, dist.Gamma(1.0, 1.0)),
            np.array([3, 0, 1]),
            r"'locs'.*from 0 to 3.*outside of its support.*positive.*[Ss]hift or clip.*np\.clip",
        ),
    ],
)
def test_data_that_do_not_serve_are_refused_with_the_sites_name(
    strategy: Any, model: Any, data: Any, reason: str
):
    with pytest.raises(mx.ModelError, match=reason):
        jax.jit(lambda key: initial_values(model, strategy(values={"locs": data}), key))(KEY)


def test_bad_options_are_refused():
    counts: list[Any] = [0, 1.5]
    for count in counts:
        with pytest.raises(ValueError, match=rf"num_candidates.*>= 1, not {count}"):
            init_to_kmeans_plusplus(values={"locs": LINE}, num_candidates=count)


@both
def test_without_a_key_it_is_refused(strategy: Any):
    site = {"name": "locs", "fn": dist.Normal(jnp.zeros(2), 1.0), "kwargs": {}}
    with pytest.raises(mx.ModelError, match="'locs'.*no key"):
        strategy(site, values={"locs": LINE})
