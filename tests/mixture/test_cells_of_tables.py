"""Tables as people have them: what is told apart, and what is refused rather than guessed."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import marginax.mixture.tables as tables
from marginax.mixture import GaussianMixture, MixtureModel
from marginax.serve.columns import Column

NAN = float("nan")
GROUPS: Any = [("word", "categorical", [0]), ("number", "normal", [1])]


def mixture(**options: Any) -> Any:
    return MixtureModel(1, components=GROUPS, n_init=1, max_iter=30, random_state=0, **options)


def test_a_missing_cell_in_a_nested_list_is_no_category():
    fitted = mixture().fit([["a", 1.0], [NAN, 3.0], ["b", 2.0], ["a", None]])
    assert fitted.categories_ == {0: ("a", "b")}
    assert fitted.predict_proba([[NAN, 1.0], ["b", None]]).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("nothing", [NAN, None])
def test_an_array_of_texts_that_was_missing_cells_is_refused(nothing: Any):
    cells = np.array([["a", "1.0"], [str(nothing), "3.0"], ["b", "2.0"]])
    with pytest.raises(
        ValueError, match=f"'x0': its cell in row 1 is the text '{nothing}'.*object"
    ):
        mixture().fit(cells)


def test_true_and_one_and_its_text_are_three_categories():
    cells = np.array([True, 1, "1", 1.0, np.int64(1), np.True_, None], object)
    known = tables.categories_of(cells, "a")
    assert known == (True, 1, "1")
    assert known[0] is True
    expected = [0, 1, 2, 1, 1, 0, NAN]
    np.testing.assert_array_equal(tables.as_codes(cells, known, "a"), expected)
    served, faults = Column("a", "category", "Categorical", "", known, np.isfinite).cells(
        [True, 1, "1", 1.0, None]
    )
    assert faults == []
    np.testing.assert_array_equal(served, [0, 1, 2, 1, NAN])
    with pytest.raises(ValueError, match="is False, a category that the fit has not seen"):
        tables.as_codes(np.array([False], object), (0, 1), "a")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (np.array([1.0, 2.0, 3.0j]), "'when': its cells are complex numbers"),
        (pd.to_datetime(["2020-01-01"] * 3), "'when': its cells are dates"),
        (pd.to_timedelta([1, 2, 3]), "'when': its cells are durations"),
        (np.array([1.0, np.complex128(2.0), 3.0], object), "'when': its cell in row 1 .*no number"),
    ],
)
def test_what_is_neither_numbers_nor_categories_is_refused_by_its_name(cells: Any, words: str):
    frame = pd.DataFrame({"word": ["a", "b", "a"], "when": cells})
    with pytest.raises(ValueError, match=words):
        mixture().fit(frame)
    with pytest.raises(ValueError, match=words):
        GaussianMixture(1, n_init=1).fit(frame[["when"]])


def test_an_array_of_dates_is_no_array_of_numbers():
    with pytest.raises(ValueError, match="'x0': its cells are dates"):
        GaussianMixture(1, n_init=1).fit(np.array([["2020-01-01"]] * 3, "M8[D]"))
