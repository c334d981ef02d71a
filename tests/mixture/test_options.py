"""Options that make no sense are refused with words, and what makes sense in another form is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marginax.mixture import GaussianMixture, HiddenMarkov, MixtureModel, load, save
from marginax.mixture.mixture_model import groups_of

NAMES = ["a", "b"]


@pytest.mark.parametrize("columns", [[], (), np.array([], int)])
def test_a_group_without_columns_is_refused_by_its_name(columns: Any):
    groups = [("size", "normal", [0, 1]), ("visits", "poisson", columns)]
    for estimator in (MixtureModel(1, components=groups), HiddenMarkov(1, components=groups)):
        with pytest.raises(ValueError, match="group 'visits' has no columns; give it some"):
            estimator.fit(np.ones((9, 2)))


@pytest.mark.parametrize("columns", [np.int64(1), np.array([1]), [np.int32(-1)], range(1, 2), 1])
def test_columns_may_be_numbers_of_numpy(columns: Any):
    groups = [("x", "normal", "a"), ("y", "normal", columns)]
    ((_, _, _), (_, _, where)) = groups_of(groups, NAMES)
    assert where == (1,)
    assert type(where[0]) is int


@pytest.mark.parametrize("column", [True, 1.0, np.float64(1), np.int64(2), None])
def test_what_is_no_column_is_not_taken_for_a_number(column: Any):
    with pytest.raises(ValueError, match="which the table does not have"):
        groups_of([("x", "normal", [0, column])], NAMES)


@pytest.mark.parametrize("kind", [["full"], {"full"}, None, 3, "round"])
def test_a_covariance_type_that_is_none_is_refused_with_those_there_are(kind: Any):
    with pytest.raises(ValueError, match="covariance_type must be one of .*'full'"):
        GaussianMixture(1, covariance_type=kind).fit(np.ones((9, 2)))


def test_numbers_of_numpy_are_written_into_a_file(tmp_path: Path):
    X = np.random.default_rng(0).normal(size=(20, 2))
    groups = [("x", "normal", [np.int64(0)]), ("y", "normal", np.int64(1))]
    model = MixtureModel(1, components=groups, n_init=1, random_state=np.int64(0)).fit(X)
    save(tmp_path / "model.mx", model)
    np.testing.assert_array_equal(
        load(tmp_path / "model.mx").score_samples(X), model.score_samples(X)
    )
