"""A masked cell is a missing cell, whatever stands under the mask."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

from marginax.mixture import GaussianMixture, HiddenMarkov, MixtureModel, select
from marginax.mixture.tables import without_masks

ROWS = 40
RNG = np.random.default_rng(0)
CLEAN = np.repeat([[0.0, 0.0], [8.0, 8.0]], ROWS // 2, axis=0) + RNG.normal(size=(ROWS, 2)).round(3)
MASK = np.zeros((ROWS, 2), bool)
MASK[[3, 25], [0, 1]] = True
LAST = [[False], [False], [True]]
LAST_FIELD: Any = [(True,), (False,), (False,)]
WITH_NAN = np.where(MASK, np.nan, CLEAN)
MASKED = np.ma.array(np.where(MASK, -9999.0, CLEAN), mask=MASK)
CELLS = [
    [np.ma.masked if m else x for x, m in zip(*r, strict=True)]
    for r in zip(CLEAN, MASK, strict=True)
]
FORMS = {
    "array": MASKED,
    "list of rows": [MASKED[i] for i in range(ROWS)],
    "list of lists": CELLS,
    "tuple of tuples": tuple(map(tuple, CELLS)),
    "objects": np.array(CELLS, object),
    "masked objects": np.ma.array(MASKED.data.astype(object), mask=MASK),
    "frame of objects": pd.DataFrame(CELLS, columns=["x0", "x1"]).rename(columns=str).to_numpy(),
    "numpy's own fill": np.ma.masked_values(MASKED.data, -9999.0),
}


@pytest.fixture(scope="module")
def fitted() -> Any:
    return GaussianMixture(2, random_state=0, n_init=1).fit(WITH_NAN)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_masked_table_is_the_table_with_nan(form: str, fitted: Any):
    np.testing.assert_array_equal(np.asarray(without_masks(FORMS[form]), float), WITH_NAN)
    np.testing.assert_array_equal(fitted.score_samples(FORMS[form]), fitted.score_samples(WITH_NAN))


def test_every_answer_to_a_masked_table_is_that_to_nan(fitted: Any):
    again = GaussianMixture(2, random_state=0, n_init=1).fit(MASKED)
    np.testing.assert_array_equal(again.means_, fitted.means_)
    for method in ("predict", "predict_proba", "transform", "membership", "log_densities", "score"):
        got, expected = (getattr(fitted, method)(X) for X in (MASKED, WITH_NAN))
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert fitted.bic(MASKED) == fitted.bic(WITH_NAN)
    assert fitted.aic(MASKED) == fitted.aic(WITH_NAN)
    assert select(MASKED, [2], again).rows == select(WITH_NAN, [2], again).rows


def test_a_masked_step_of_a_series_is_a_step_without_a_value():
    model = HiddenMarkov(2, random_state=0, n_init=1, max_iter=5)
    cells = [model._read(X, learn=True) for X in (MASKED, WITH_NAN)]
    np.testing.assert_array_equal(cells[0], cells[1])


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (np.ma.array([[1], [2], [9]], mask=LAST), (1, 2)),
        (np.ma.array([["a"], ["b"], ["??"]], mask=LAST), ("a", "b")),
        (np.ma.array([[True], [False], [True]], mask=LAST), (False, True)),
        ([["a"], ["b"], [np.ma.masked]], ("a", "b")),
        (pd.DataFrame({"x0": ["a", "b", np.ma.masked]}, dtype=object), ("a", "b")),
    ],
)
def test_what_is_under_a_mask_is_no_category(table: Any, values: Any):
    model = MixtureModel(1, components="categorical", random_state=0, n_init=1).fit(table)
    assert model.categories_[0] == values
    assert np.isfinite(model.score_samples(table)[:2]).all()
    assert model.score_samples(table)[2] == pytest.approx(0.0, abs=1e-6)  # nothing is known of it


@pytest.mark.parametrize(
    "table",
    [
        np.ma.masked,
        np.ma.array([1.0, 2.0], mask=[True, False]),
        np.ma.array(np.zeros(3, [("a", float)]), mask=LAST_FIELD),
    ],
)
def test_what_is_no_table_is_refused(table: Any, fitted: Any):
    with pytest.raises((TypeError, ValueError)):
        fitted.score_samples(table)
