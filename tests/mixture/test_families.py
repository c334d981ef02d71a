"""A row's density given its component is SciPy's; missing cells are left out; draws are from that density."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from marginax.mixture import (
    Bernoulli,
    Beta,
    Categorical,
    Family,
    Gamma,
    Gaussian,
    LogNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)
from marginax.mixture.columns import Columns
from marginax.mixture.members import Members
from marginax.mixture.model import Group, Row

LOCS = np.array([[0.5, -1.0], [3.0, 2.0]])
SCALES = np.array([[1.0, 0.5], [2.0, 1.5]])
MATRICES = np.array([[[1.0, 0.3], [0.3, 0.5]], [[2.0, -0.8], [-0.8, 1.0]]])

# Family, parameters of two components, SciPy's distribution of column j of component k, some rows.
COLUMNWISE: list[tuple[Family, dict[str, np.ndarray], Any, np.ndarray]] = [
    (
        Normal(),
        {"means": LOCS, "precisions": SCALES**-2.0},
        lambda k, j: stats.norm(LOCS[k, j], SCALES[k, j]),
        np.array([[0.3, -2.0], [4.0, 1.0], [-7.0, 0.0]]),
    ),
    (
        Normal(spherical=True),
        {"means": LOCS, "precisions": np.array([4.0, 0.25])},
        lambda k, j: stats.norm(LOCS[k, j], [0.5, 2.0][k]),
        np.array([[0.3, -2.0], [4.0, 1.0], [-7.0, 0.0]]),
    ),
    (
        StudentT(),
        {"means": LOCS, "scales": SCALES, "df": np.array([2.5, 9.0])},
        lambda k, j: stats.t([2.5, 9.0][k], LOCS[k, j], SCALES[k, j]),
        np.array([[0.3, -2.0], [4.0, 1.0], [-50.0, 0.0]]),
    ),
    (
        LogNormal(),
        {"locs": LOCS, "scales": SCALES / 2},
        lambda k, j: stats.lognorm(SCALES[k, j] / 2, scale=np.exp(LOCS[k, j])),
        np.array([[0.3, 2.0], [4.0, 1.0], [0.01, 30.0]]),
    ),
    (
        Gamma(),
        {"means": SCALES, "concentrations": 2 * SCALES},
        lambda k, j: stats.gamma(2 * SCALES[k, j], scale=0.5),
        np.array([[0.3, 2.0], [4.0, 1.0], [0.01, 3.0]]),
    ),
    (
        Poisson(),
        {"rates": SCALES},
        lambda k, j: stats.poisson(SCALES[k, j]),
        np.array([[0.0, 2.0], [4.0, 1.0], [1.0, 9.0]]),
    ),
    (
        NegativeBinomial(),
        {"means": SCALES, "concentrations": 3 * SCALES},
        lambda k, j: stats.nbinom(3 * SCALES[k, j], 0.75),
        np.array([[0.0, 2.0], [4.0, 1.0], [1.0, 9.0]]),
    ),
    (
        Beta(),
        {"means": SCALES / 4, "concentrations": 2 * SCALES},
        lambda k, j: stats.beta(SCALES[k, j] ** 2 / 2, (1 - SCALES[k, j] / 4) * 2 * SCALES[k, j]),
        np.array([[0.3, 0.9], [0.01, 0.5], [0.7, 0.2]]),
    ),
    (
        Bernoulli(),
        {"probs": SCALES / 4},
        lambda k, j: stats.bernoulli(SCALES[k, j] / 4),
        np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]),
    ),
]
DIGITS = {"NegativeBinomial": 1e-6}
"""JAX's logarithm of the beta function has no more."""


def log_density(of: Any, x: float) -> float:
    return of.logpmf(x) if hasattr(of.dist, "pmf") else of.logpdf(x)


def columns_of(cells: np.ndarray, categories: tuple[int, ...] = (0, 0)) -> Columns:
    return Columns(("a", "b"), cells.mean(0), cells.std(0) + 0.1, categories, 2)


def row(
    family: Family, cells: np.ndarray, values: Any, component: Any, observed: Any = None
) -> Row:
    """Rows of given components, as the models state them."""
    columns = columns_of(cells)
    group = Group("", family, (0, 1), columns, {})
    patterns, which = None, 0
    if observed is not None:
        patterns, which = np.unique(observed, axis=0, return_inverse=True)
    prepared = family.prepare(jax.tree.map(jnp.asarray, values), patterns)
    of = family.of(prepared, jnp.asarray(component), jnp.asarray(which))
    return Row((group,), (of,), observed, np.shape(component))


@pytest.mark.parametrize("case", COLUMNWISE, ids=lambda case: repr(case[0]))
def test_a_rows_density_is_scipys_and_a_missing_cell_leaves_its_factor_out(case: Any):
    family, values, of, cells = case
    digits = DIGITS.get(type(family).__name__, 1e-10)
    with jax.enable_x64(True):
        for k in range(2):
            each = np.array(
                [[log_density(of(k, j), cells[n, j]) for j in range(2)] for n in range(3)]
            )
            complete = row(family, cells, values, np.full(3, k)).log_prob(cells)
            np.testing.assert_allclose(complete, each.sum(1), rtol=digits)
            observed = np.array([[True, False], [False, True], [False, False]])
            partly = row(family, cells, values, np.full(3, k), observed).log_prob(cells)
            np.testing.assert_allclose(partly, [each[0, 0], each[1, 1], 0.0], rtol=digits)


@pytest.mark.parametrize("tied", [False, True])
def test_a_normal_row_with_missing_cells_has_the_density_of_the_block_that_is_there(tied: bool):
    rng = np.random.default_rng(0)
    count = 4
    means = rng.normal(size=(2, count))
    roots = rng.normal(size=(2, count, count))
    covariances = roots @ np.swapaxes(roots, 1, 2) + 0.2 * np.eye(count)
    factors = np.linalg.cholesky(np.linalg.inv(covariances))
    cells = rng.normal(size=(16, count))
    observed = np.array([[bool(n >> j & 1) for j in range(count)] for n in range(16)])
    family = Gaussian(tied=tied)
    with jax.enable_x64(True):
        group = Group("", family, tuple(range(count)), columns_of(cells), {})
        prepared = family.prepare({"means": means, "precision_factors": factors}, observed)
        for k in range(2):
            of = family.of(prepared, np.full(16, k), np.arange(16))
            found = Row((group,), (of,), observed, (16,)).log_prob(cells)
            for n in range(16):
                there = observed[n]
                expected = 0.0
                if there.any():
                    block = covariances[k][np.ix_(there, there)]
                    expected = stats.multivariate_normal(means[k, there], block).logpdf(
                        cells[n, there]
                    )
                assert found[n] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_gradients_are_finite_and_right_where_cells_are_missing():
    cells = np.array([[0.3, 1.0], [2.0, 0.1], [0.4, 0.8]])
    observed = np.array([[True, False], [False, True], [True, True]])
    family = Gaussian()
    factors = np.linalg.cholesky(np.linalg.inv(MATRICES))

    def total(values: Any) -> Any:
        return row(family, cells, values, np.array([0, 1, 1]), observed).log_prob(cells).sum()

    with jax.enable_x64(True):
        values = {"means": jnp.asarray(LOCS), "precision_factors": jnp.asarray(factors)}
        gradient = jax.grad(total)(values)
        for name, value in values.items():
            for index in np.ndindex(value.shape):
                if name == "precision_factors" and index[2] > index[1]:
                    continue  # of a triangle the other half is zero, and stays so
                step = 1e-6
                up = total({**values, name: value.at[index].add(step)})
                down = total({**values, name: value.at[index].add(-step)})
                slope = float(up - down) / (2 * step)
                assert gradient[name][index] == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_categories_are_looked_up():
    probs = {
        "probs_0": np.array([[0.2, 0.8], [0.6, 0.4]]),
        "probs_1": np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]),
    }
    cells = np.array([[0.0, 2.0], [1.0, 0.0]])
    with jax.enable_x64(True):
        found = row(Categorical(), cells, probs, np.array([0, 1])).log_prob(cells)
        np.testing.assert_allclose(found, np.log([0.2 * 0.7, 0.4 * 0.5]), rtol=1e-12)
        observed = np.array([[True, False], [False, False]])
        partly = row(Categorical(), cells, probs, np.array([0, 1]), observed).log_prob(cells)
        np.testing.assert_allclose(partly, [math.log(0.2), 0.0], rtol=1e-12)


@pytest.mark.parametrize("case", COLUMNWISE, ids=lambda case: repr(case[0]))
def test_draws_have_the_mean_of_the_distribution(case: Any):
    family, values, of, cells = case
    count, component = 4000, 1  # of the Student-t the one that has a variance
    with jax.enable_x64(True):
        one = row(family, cells, values, np.asarray(component))
        drawn = np.asarray(one.sample(jax.random.key(0), (count,)))
    assert drawn.shape == (count, 2)
    assert family.allows(drawn).all()
    for j in range(2):
        expected = of(component, j)
        error = 5 * expected.std() / np.sqrt(count)
        assert drawn[:, j].mean() == pytest.approx(expected.mean(), abs=error)
        # And as many lie below the median as should.
        share = expected.cdf(expected.median())
        assert np.mean(drawn[:, j] <= expected.median()) == pytest.approx(
            share, abs=5 * np.sqrt(share * (1 - share) / count) + 1e-12
        )


def test_normal_draws_have_their_covariance():
    factors = np.linalg.cholesky(np.linalg.inv(MATRICES))
    count = 20_000
    with jax.enable_x64(True):
        one = row(Gaussian(), LOCS, {"means": LOCS, "precision_factors": factors}, np.ones((), int))
        drawn = np.asarray(one.sample(jax.random.key(0), (count,)))
    # A covariance of normal draws has the variance (c_ij^2 + c_ii c_jj) / n; five of its roots.
    matrix = MATRICES[1]
    error = np.sqrt((matrix**2 + np.outer(np.diag(matrix), np.diag(matrix))) / count)
    assert (np.abs(np.cov(drawn.T) - matrix) < 5 * error).all()
    assert (np.abs(drawn.mean(0) - LOCS[1]) < 5 * np.sqrt(np.diag(matrix) / count)).all()


@pytest.mark.parametrize("case", COLUMNWISE, ids=lambda case: repr(case[0]))
def test_every_start_is_inside_of_its_priors_support(case: Any):
    family, _, _, cells = case
    columns = columns_of(cells)
    with jax.enable_x64(True):
        priors = family.parameters(columns)
        # A component may have one row, part of one, or none.
        shares = np.stack([np.eye(len(cells))[0], np.full(len(cells), 0.3), np.zeros(len(cells))])
        start = family.start(Members(cells, np.ones_like(cells), shares.T), columns)
        assert start.keys() == priors.keys()
        for name, value in start.items():
            prior = priors[name].prior
            shape = tuple(prior.batch_shape) + tuple(prior.event_shape)
            assert np.shape(value) == (len(shares), *shape)
            assert np.isfinite(np.asarray(prior.log_prob(value))).all()


@pytest.mark.parametrize(
    ("family", "good", "bad"),
    [
        (Poisson(), [0.0, 3.0], [-1.0, 0.5, np.inf]),
        (Gamma(), [0.1, 5.0], [0.0, -1.0, np.inf]),
        (LogNormal(), [0.1], [0.0]),
        (Beta(), [0.5], [0.0, 1.0, 2.0]),
        (Bernoulli(), [0.0, 1.0], [0.5, 2.0]),
        (Normal(), [-3.0, 0.0], [np.inf]),
    ],
)
def test_a_family_says_which_cells_it_takes(family: Family, good: list[float], bad: list[float]):
    assert family.allows(np.array(good)).all()
    assert not family.allows(np.array(bad)).any()
