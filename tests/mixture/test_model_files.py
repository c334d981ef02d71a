"""Fitted estimators in files: the same after reading, and nothing but an error from a file that was made up."""

import json
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

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


def prior(event_dim: int = 1, **arguments: Any) -> Any:
    entry = {"distribution": "Normal", "arguments": arguments, "event_dim": event_dim}
    return lambda a, b: b["options"].update(priors={"s.means": entry})


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
    "columns in one word": lambda a, b: b.update(columns="ab"),
    "two columns of one name": lambda a, b: b.update(columns=["a", "a"]),
    "rows": lambda a, b: b.update(rows="many"),
    "no rows": lambda a, b: b.update(rows=0, lengths=None),
    "half a row": lambda a, b: b.update(rows=60.5),
    "more rows than can be": lambda a, b: b.update(rows=10**30),
    "many starts": lambda a, b: b["options"].update(n_init=10**12),
    "many iterations": lambda a, b: b["options"].update(max_iter=10**400),
    "seed": lambda a, b: b["options"].update(random_state=-1),
    "seed in words": lambda a, b: b["options"].update(random_state="0"),
    "verbose": lambda a, b: b["options"].update(verbose="yes"),
    "concentration": lambda a, b: b["options"].update(weight_concentration_prior="1"),
    "no concentration": lambda a, b: b["options"].update(weight_concentration_prior=True),
    "prior in words": prior(loc="0", scale=[1.0]),
    "prior that grows": prior(loc=[[0.0]] * 3000, scale=[1.0] * 3000),
    "prior's dimensions": prior(-1, loc=0.0, scale=[1.0]),
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
    "moments beyond squares": lambda a, b: a.update({"column moments": np.full((2, 2), 1e308)}),
    "negative spread": lambda a, b: a.update({"column moments": -a["column moments"]}),
    "mean out of reach": lambda a, b: a["column moments"].__setitem__((0, 0), 1e150),
    "spread out of reach": lambda a, b: a["column moments"].__setitem__((1, 0), 1e-150),
    "whole means": lambda a, b: a.update({"column moments": np.ones((2, 2), int)}),
    "fill": lambda a, b: a["fill"].__setitem__(1, 0.5),
    "fill of a category that there is not": lambda a, b: a["fill"].__setitem__(1, 2.0),
    "whole weights": lambda a, b: a.update({"point:weights": np.array([1, 0])}),
    "means out of reach": lambda a, b: a.update({"draws:s.means": np.full((1, 2, 1), 1e200)}),
    "scales of nothing": lambda a, b: a.update(
        {
            "draws:s.means": np.full((1, 2, 1), 1e3),
            "draws:s.precisions": np.full((1, 2, 1), 1e306),
        }
    ),
    "norms": lambda a, b: a.update({"norms:other": a["losses"]}),
    "table beyond squares": lambda a, b: a["table"].__setitem__((0, 0), 1e300),
    "table of complex numbers": lambda a, b: a.update(table=a["table"] + 0j),
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


def peak_bytes(function: Any) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["gaussian", "chain"])
def test_a_small_file_that_says_it_is_large_takes_no_memory(
    name: str, estimators: Any, tmp_path: Path
):
    """Many columns would make a matrix of each two, many states a table of each two."""
    path, many = tmp_path / "model.mx", 20_000
    save(path, estimators[name])
    arrays, about = storage.read(path)
    about["columns"] = [f"x{j}" for j in range(many)]
    arrays |= {"column moments": np.ones((2, many)), "fill": np.ones(many)}
    if name == "chain":
        about["options"]["n_components"] = many
        arrays |= {"point:initial": np.full(many, 1 / many)}
        del arrays["point:transitions"]
    storage.write(path, arrays, about)

    def read() -> None:
        with pytest.raises(StorageError, match="precision_factors|transitions"):
            load(path)

    assert peak_bytes(read) < 50e6


def test_when_there_is_no_memory_it_is_the_file_that_is_damaged(estimators: Any, tmp_path: Path):
    save(tmp_path / "model.mx", estimators["gaussian"])
    with (
        patch.object(GaussianMixture, "_learn", side_effect=MemoryError("no memory")),
        pytest.raises(StorageError, match="no memory"),
    ):
        load(tmp_path / "model.mx")


def test_what_a_file_would_not_be_read_with_is_not_written(tmp_path: Path):
    estimator = GaussianMixture(2, **FEW).fit(data_for("gaussian"))
    with pytest.raises(ValueError, match="n_draws is 1e\\+09, and a model file holds 1,000,000"):
        save(tmp_path / "model.mx", estimator.set_params(n_draws=10**9))
    assert not (tmp_path / "model.mx").exists()


ODD: list[Any] = [None, True, -1, 0, 1, 2.5, 1e308, 10**12, 10**400, "x", "1", [], [[]], {}, [1, 2]]
ODD_NUMBERS = [0.0, -1.0, 5.0, 1e100, 1e200, 1e308, -1e308, 1e-200, 1e-320, np.nan, np.inf]
ODD_TYPES = ["int64", "bool", "complex128", "float32", "uint8"]


def places(data: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in JSON."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        yield (*before, key)
        yield from places(data[key], (*before, key))


def odd_header(about: Any, rng: np.random.Generator) -> None:
    *way, last = list(places(about))[rng.integers(len(list(places(about))))]
    for key in way:
        about = about[key]
    about[last] = ODD[rng.integers(len(ODD))]


def odd_array(arrays: Any, rng: np.random.Generator) -> None:
    name = str(rng.choice(list(arrays)))
    array, number = arrays[name].copy(), rng.choice(ODD_NUMBERS)
    one = array.copy()
    one.flat[rng.integers(one.size)] = number
    with np.errstate(all="ignore"):
        scaled, moved = array * number, array + number
    changed = [one, scaled, moved, np.full_like(array, number), array[:0], array[None]]
    changed += [np.concatenate([array, array]), array.astype(str(rng.choice(ODD_TYPES)))]
    arrays[name] = changed[rng.integers(len(changed))]
    if name.startswith("point:"):  # of a point estimate the one draw is the point
        arrays[f"draws:{name.removeprefix('point:')}"] = arrays[name][None]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # whole numbers of what is none
@pytest.mark.parametrize("change", [odd_header, odd_array])
@pytest.mark.parametrize("count", [30, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["gaussian", "mixed", "chain"])
def test_a_file_with_anything_in_it_gives_an_error_or_probabilities(
    name: str, count: int, change: Any, estimators: Any, tmp_path: Path
):
    path, rng = tmp_path / "model.mx", np.random.default_rng(count)
    save(path, estimators[name], data_for(name))
    content = path.read_bytes()
    for _ in range(count):
        path.write_bytes(content)
        arrays, about = storage.read(path)
        change(arrays if change is odd_array else about, rng)
        storage.write(path, arrays, about)
        try:
            found = load(path)
        except StorageError:
            continue
        rows = found.learned_.rows(found.table_, found.lengths_)
        probabilities = found._predictor().membership(rows).probabilities
        np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-9)


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
