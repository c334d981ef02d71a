"""Fitted estimators in files: the same after reading, and nothing but an error from a file that was made up."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import marginax.distributions as dist
import marginax.storage as storage
from marginax.mixture import GaussianMixture, HiddenMarkov, MixtureModel, load, save
from marginax.storage import StorageError

FEW: Any = {"n_init": 1, "max_iter": 50, "random_state": 0}


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 60)
    frame = pd.DataFrame({"size": rng.normal(6.0 * z, 1.0), "kind": np.where(z, "a", "b")})
    frame.loc[3, "size"] = np.nan
    return frame


@pytest.fixture(scope="module")
def estimators() -> dict[str, Any]:
    numbers = table()[["size"]].to_numpy()
    groups = [("s", "normal", ["size"]), ("k", "categorical", ["kind"])]
    priors = {
        "means": dist.Normal(0.0, np.full(1, 2.0)).to_event(1),
        "weights": dist.Dirichlet(np.ones(2)),
    }
    return {
        "gaussian": GaussianMixture(2, priors=priors, **FEW).fit(numbers),
        "flat": GaussianMixture(2, covariance_type="diag", priors="flat", **FEW).fit(numbers),
        "mixed": MixtureModel(2, components=groups, **FEW).fit(table()),
        "chain": HiddenMarkov(2, components="normal", **FEW).fit(numbers, lengths=[20, 40]),
    }


def data_for(name: str) -> Any:
    return table() if name == "mixed" else table()[["size"]].to_numpy()


@pytest.mark.parametrize("name", ["gaussian", "flat", "mixed", "chain"])
def test_what_is_read_is_what_was_written(name: str, estimators: Any, tmp_path: Path):
    estimator, cells = estimators[name], data_for(name)
    path = tmp_path / "model.mx"
    save(path, estimator, cells)
    again = load(path)
    assert type(again) is type(estimator)
    np.testing.assert_array_equal(again.predict_proba(cells), estimator.predict_proba(cells))
    np.testing.assert_array_equal(again.score_samples(cells), estimator.score_samples(cells))
    assert again.bic(cells) == estimator.bic(cells)
    assert again.warnings_ == estimator.warnings_
    assert again.lengths_ == estimator.lengths_
    assert again.table_.shape == (60, len(estimator.column_names_))
    save(tmp_path / "again.mx", again, cells)
    assert (tmp_path / "again.mx").read_bytes() == path.read_bytes()


def test_the_table_stays_out_unless_it_is_given(estimators: Any, tmp_path: Path):
    save(tmp_path / "model.mx", estimators["mixed"])
    arrays, _ = storage.read(tmp_path / "model.mx")
    assert "table" not in arrays
    assert not hasattr(load(tmp_path / "model.mx"), "table_")
    with pytest.raises(ValueError, match="another number of rows"):
        save(tmp_path / "model.mx", estimators["mixed"], table().head(10))


def rewritten(path: Path, change: Any) -> None:
    arrays, about = storage.read(path)
    change(arrays, about)
    storage.write(path, arrays, about)


CHANGES: dict[str, Any] = {
    "kind": lambda a, b: b.update(kind="svi result"),
    "version": lambda a, b: b.update(version=99),
    "no version": lambda a, b: b.pop("version"),
    "estimator": lambda a, b: b.update(estimator="Popen"),
    "option": lambda a, b: b["options"].update(shell=True),
    "components": lambda a, b: b["options"].update(n_components=3),
    "many components": lambda a, b: b["options"].update(n_components=10**9),
    "text components": lambda a, b: b["options"].update(n_components="2"),
    "method": lambda a, b: b["options"].update(method="__import__"),
    "prior": lambda a, b: b["options"].update(
        priors={"means": {"distribution": "Delta", "arguments": {}}}
    ),
    "prior text": lambda a, b: b["options"].update(priors=["x"]),
    "families": lambda a, b: b["options"].update(components={"family": "object", "options": {}}),
    "columns": lambda a, b: b.update(columns=["a"] * 5),
    "column types": lambda a, b: b.update(columns=[1, 2]),
    "categories": lambda a, b: b.update(categories={"x": [1]}),
    "chains": lambda a, b: b.update(chains=7),
    "no chains": lambda a, b: b.update(chains=0),
    "warnings": lambda a, b: b.update(warnings=[1]),
    "rows": lambda a, b: b.update(rows="many"),
    "lengths": lambda a, b: b.update(lengths=[59]),
    "lengths in words": lambda a, b: b.update(lengths=["59", 1]),
    "point gone": lambda a, b: a.pop("point:weights"),
    "point more": lambda a, b: a.update({"point:x": np.ones(2)}),
    "point shape": lambda a, b: a.update({"point:weights": np.ones(3) / 3}),
    "point nan": lambda a, b: a.update({"point:weights": np.array([np.nan, 1.0])}),
    "point type": lambda a, b: a.update({"point:weights": np.array([True, False])}),
    "no simplex": lambda a, b: a.update({"point:weights": np.array([2.0, 3.0])}),
    "negative precision": lambda a, b: a.update({"draws:s.precisions": -a["draws:s.precisions"]}),
    "no draws": lambda a, b: a.update({"draws:weights": np.ones((0, 2))}),
    "fewer draws": lambda a, b: a.update({"draws:weights": np.ones((3, 2)) / 2}),
    "moments": lambda a, b: a.update({"column moments": np.ones((2, 9))}),
    "moments inf": lambda a, b: a.update({"column moments": np.full((2, 2), np.inf)}),
    "table shape": lambda a, b: a.update({"table": np.ones((4, 7))}),
    "table cell": lambda a, b: a.update({"table": np.full((4, 2), 0.5)}),
    "losses": lambda a, b: a.update({"losses": np.ones((3, 3))}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_contradicts_itself_gives_an_error(
    change: str, estimators: Any, tmp_path: Path
):
    path = tmp_path / "model.mx"
    save(path, estimators["mixed"], table())
    rewritten(path, CHANGES[change])
    with pytest.raises(StorageError, match="model.mx"):
        load(path)


def test_a_file_cut_short_or_changed_anywhere_gives_an_error_or_the_same_model(
    estimators: Any, tmp_path: Path
):
    path = tmp_path / "model.mx"
    save(path, estimators["gaussian"])
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            again = load(path)
        except StorageError:
            continue
        # What does not matter to a zip archive (a date, a flag) may change.
        np.testing.assert_array_equal(again.weights_, estimators["gaussian"].weights_)
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(StorageError):
            load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.mx")


def test_the_file_is_json_and_arrays(estimators: Any, tmp_path: Path):
    path = tmp_path / "model.mx"
    save(path, estimators["mixed"])
    with zipfile.ZipFile(path) as archive:
        about = json.loads(archive.read("about.json"))["about"]
        for entry in archive.namelist():
            assert entry == "about.json" or archive.read(entry).startswith(b"\x93NUMPY")
    assert about["estimator"] == "MixtureModel"
    assert about["version"] == 1
    assert about["categories"] == {"1": ["a", "b"]}


def test_what_a_file_cannot_hold_is_refused(estimators: Any, tmp_path: Path):
    odd = {"weights": dist.Dirichlet(np.ones(2)), "means": dist.Normal(0.0, 1.0).expand([1])}
    estimator = GaussianMixture(2, priors=odd, **FEW).fit(data_for("gaussian"))
    with pytest.raises(
        ValueError, match=r"priors\['means'\] is expanded, which a model file cannot hold"
    ):
        save(tmp_path / "model.mx", estimator)
    other: Any = LinearRegression().fit(np.eye(2), np.ones(2))
    with pytest.raises(TypeError, match="it takes an estimator of marginax.mixture"):
        save(tmp_path / "model.mx", other)


@pytest.mark.parametrize(
    "categories", [{}, {"1": ["a"]}, {"0": ["x"], "1": ["a", "b"]}, {"1": [["a"], ["b"]]}]
)
def test_categories_that_contradict_the_model_are_damage(
    categories: Any, estimators: dict[str, Any], tmp_path: Path
):
    name = next(n for n, e in estimators.items() if e.categories_)
    save(tmp_path / "model.mx", estimators[name])
    arrays, about = storage.read(tmp_path / "model.mx")
    storage.write(tmp_path / "other.mx", arrays, {**about, "categories": categories})
    with pytest.raises(storage.StorageError, match="damaged"):
        load(tmp_path / "other.mx")


def test_a_file_without_draws_is_damaged(estimators: dict[str, Any], tmp_path: Path):
    save(tmp_path / "model.mx", next(iter(estimators.values())))
    arrays, about = storage.read(tmp_path / "model.mx")
    kept = {n: a for n, a in arrays.items() if not n.startswith("draws:")}
    storage.write(tmp_path / "other.mx", kept, about)
    with pytest.raises(storage.StorageError, match="no draws"):
        load(tmp_path / "other.mx")
