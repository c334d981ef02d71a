"""What the page draws is the model: shapes, densities, weights and points."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from asking import ask
from scipy import stats

from marginax.serve.picture import (
    GRID,
    MOST_DRAWS,
    Picture,
    component_log_densities,
    first_of,
    weights_of,
)


def test_densities_of_components_are_those_of_scipy(gaussian: Any):
    cells = np.array([[2.0, 50.0], [np.nan, 66.0], [4.0, np.nan], [np.nan, np.nan]])
    found = component_log_densities(gaussian, cells)
    parameters = gaussian.parameters_
    for n, cell in enumerate(cells):
        there = ~np.isnan(cell)
        for k in range(2):
            expected = 0.0
            if there.any():
                block = parameters["covariances"][k][np.ix_(there, there)]
                normal = stats.multivariate_normal(parameters["means"][k, there], block)
                expected = normal.logpdf(cell[there])
            assert found[n, k] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_picture_of_two_columns(app: Any, gaussian: Any):
    picture = ask(app, "GET", "/model").json()["picture"]
    assert (picture["x"], picture["y"], picture["is_normal"]) == (0, 1, True)
    np.testing.assert_allclose(picture["points"], gaussian.table_)
    assert np.bincount(picture["components"]).tolist() == [80, 40]
    likely, *draws = picture["shapes"]
    assert len(draws) == min(MOST_DRAWS, 5)
    for shapes, where, parameters in (
        (likely, ..., gaussian.parameters_),
        (draws[-1], -1, gaussian.posterior_),
    ):
        means, covariances = parameters["means"][where], parameters["covariances"][where]
        np.testing.assert_allclose([shape["mean"] for shape in shapes], means)
        np.testing.assert_allclose([shape["covariance"] for shape in shapes], covariances)
    turned = ask(app, "GET", "/model?x=1&y=0").json()["picture"]
    np.testing.assert_allclose(turned["points"], gaussian.table_[:, ::-1])
    twisted = np.array(turned["shapes"][0][0]["covariance"])
    np.testing.assert_allclose(twisted, np.array(likely[0]["covariance"])[::-1, ::-1])


def test_the_picture_of_one_column(app: Any, gaussian: Any):
    picture = ask(app, "GET", "/model?x=1").json()["picture"]
    grid, densities = np.array(picture["grid"]), np.array(picture["densities"])
    assert densities.shape == (2, GRID)
    parameters = gaussian.parameters_
    for k in range(2):
        scale = np.sqrt(parameters["covariances"][k, 1, 1])
        normal: Any = stats.norm(parameters["means"][k, 1], scale)
        np.testing.assert_allclose(densities[k], parameters["weights"][k] * normal.pdf(grid))
    np.testing.assert_allclose(np.ravel(picture["points"]), gaussian.table_[:, 1])
    assert picture["ranges"] == [[grid[0], grid[-1]]]
    assert grid[0] < gaussian.table_[:, 1].min() < gaussian.table_[:, 1].max() < grid[-1]


def test_a_large_table_is_thinned(app: Any, gaussian: Any):
    service = app.state.service
    large = np.repeat(gaussian.table_, 10, 0)
    large[::3, 0] = np.nan
    kept = gaussian.table_
    try:
        gaussian.table_ = large
        picture = Picture(service.answers, service.columns)
    finally:
        gaussian.table_ = kept
    assert len(picture.points) == 1000
    assert len(picture.of(0, 1)["points"]) == np.isfinite(picture.points).all(1).sum()
    assert len(picture.of(1, None)["points"]) == 1000


def test_weights_of_a_chain_are_those_that_stay():
    transitions = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.0, 0.5, 0.5]])
    estimator = SimpleNamespace(fit_=SimpleNamespace(point={"transitions": transitions}))
    weights = weights_of(estimator)
    np.testing.assert_allclose(weights @ transitions, weights, atol=1e-12)
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("lengths", "count", "expected"),
    [(None, 5, [5]), ([3, 4], 5, [3, 2]), ([3, 4], 3, [3]), ([3, 4], 7, [3, 4])],
)
def test_the_first_steps_of_several_series(lengths: Any, count: int, expected: list[int]):
    assert first_of(lengths, count) == expected
