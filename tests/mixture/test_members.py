"""Moments of rows that belong to components in part are NumPy's weighted ones; missing cells are left out."""

import jax
import numpy as np
import pytest

from marginax.mixture.columns import Columns, prior_width
from marginax.mixture.members import Members

RNG = np.random.default_rng(0)
CELLS = RNG.normal(size=(40, 3)) * [1.0, 5.0, 0.1] + [0.0, 100.0, -3.0]
SHARES = RNG.dirichlet([1.0, 1.0], size=40)
COLUMNS = Columns(("a", "b", "c"), CELLS.mean(0), CELLS.std(0), (0, 0, 0), 2)


@pytest.fixture(autouse=True)
def in_double_precision():
    with jax.enable_x64(True):
        yield


def test_moments_are_weighted_by_shares():
    members = Members(CELLS, np.ones_like(CELLS), SHARES)
    around = COLUMNS.spread**2 * prior_width(COLUMNS)
    for k, weights in enumerate(SHARES.T):
        mean = np.average(CELLS, axis=0, weights=weights)
        np.testing.assert_allclose(members.mean()[k], mean, rtol=1e-6)
        scatter = np.cov(CELLS.T, aweights=weights, ddof=0) * weights.sum()
        np.testing.assert_allclose(members.squares()[k], np.diag(scatter), rtol=1e-6)
        covariance = (scatter + np.diag(around)) / (weights.sum() + 1)
        np.testing.assert_allclose(members.covariance(COLUMNS)[k], covariance, atol=1e-5)
        np.testing.assert_allclose(members.variance(COLUMNS)[k], np.diag(covariance), rtol=1e-5)


def test_the_median_has_half_of_the_weight_on_each_side():
    members = Members(CELLS, np.ones_like(CELLS), SHARES)
    for k, weights in enumerate(SHARES.T):
        for j, median in enumerate(np.asarray(members.median()[k])):
            below, upto = weights[CELLS[:, j] < median].sum(), weights[CELLS[:, j] <= median].sum()
            assert below <= weights.sum() / 2 <= upto + 1e-12


def test_missing_cells_are_left_out_of_their_column():
    present = (RNG.random(CELLS.shape) < 0.7).astype(float)
    hidden = np.where(present == 1, CELLS, 1e6)  # whatever stands there
    members = Members(hidden, present, SHARES)
    for k, weights in enumerate(SHARES.T):
        for j in range(3):
            there = present[:, j] == 1
            mean = np.average(CELLS[there, j], weights=weights[there])
            np.testing.assert_allclose(members.mean()[k, j], mean, rtol=1e-5)
            squares = weights[there] @ (CELLS[there, j] - mean) ** 2
            np.testing.assert_allclose(members.squares()[k, j], squares, rtol=1e-5)
    eigenvalues = np.linalg.eigvalsh(np.asarray(members.covariance(COLUMNS)))
    assert (eigenvalues > 0).all()


def test_a_component_without_rows_has_the_moments_of_all():
    shares = np.stack([np.ones(40), np.zeros(40)], axis=1)
    members = Members(CELLS, np.ones_like(CELLS), shares)
    np.testing.assert_allclose(members.mean()[1], CELLS.mean(0), rtol=1e-6)
    assert np.isfinite(np.asarray(members.covariance(COLUMNS))).all()
