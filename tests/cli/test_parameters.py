"""Parameters as they are printed: each number has the column, the category and the component that it belongs to."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marginax.cli.parameters import columns, point_table, summary_text
from marginax.mixture import GaussianMixture, HiddenMarkov, MixtureModel

QUICK: Any = {"n_init": 1, "max_iter": 20, "random_state": 0}


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    z = np.repeat([0, 1], 20)
    return pd.DataFrame(
        {"a": rng.normal(5.0 * z), "b": rng.normal(9.0 * z), "c": np.where(z, "x", "y")}
    )


def labels(text: str) -> list[str]:
    return [line.split("  ")[0] for line in text.splitlines()[1:]]


@pytest.mark.parametrize(
    ("covariance", "expected"),
    [
        ("full", ["covariances[a, a]", "covariances[b, a]", "covariances[b, b]"]),
        ("tied", ["covariances[a, a]", "covariances[b, a]", "covariances[b, b]"]),
        ("diag", ["covariances[a]", "covariances[b]"]),
        ("spherical", ["covariances"]),
    ],
)
def test_every_number_has_its_columns(covariance: str, expected: list[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a short fit
        fitted = GaussianMixture(2, covariance_type=covariance, **QUICK).fit(table()[["a", "b"]])
    text = point_table(fitted)
    assert labels(text) == ["weights", "means[a]", "means[b]", *expected]
    last = text.splitlines()[-1].split()
    assert (last[-1] == last[-2]) == (covariance == "tied")


def test_categories_and_groups_are_named():
    groups = [("size", "normal", ["a", "b"]), ("kind", "categorical", ["c"])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = MixtureModel(2, components=groups, **QUICK).fit(table())
    found = labels(point_table(fitted))
    assert found[-2:] == ["kind.probs[c=x]", "kind.probs[c=y]"]
    assert "size.means[b]" in found


def test_a_summary_has_the_same_names_and_transitions_say_where_to():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = HiddenMarkov(2, **QUICK).fit(table()[["a", "b"]])
    # As if there were a posterior: only the names matter.
    draws = {name: np.repeat(value, 20, 0) for name, value in fitted.fit_.draws.items()}
    fitted.fit_ = replace(fitted.fit_, draws=draws)
    found = labels(summary_text(fitted, fitted.summary()))
    assert "transitions[component 0, to 1]" in found
    assert "means[component 1, b]" in found
    assert "covariances[component 0, b, a]" in found
    assert "covariances[component 0, a, b]" not in found
    assert "transitions[to 1]" in labels(point_table(fitted))


def test_columns_have_space_between_them():
    text = columns([["", "loo_difference", "loo_difference_se"], ["*", "1.0", "2.0"]])
    assert text.splitlines()[0].split() == ["loo_difference", "loo_difference_se"]
