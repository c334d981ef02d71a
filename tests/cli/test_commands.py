"""The commands, from a CSV file to predictions: what they print, write, refuse, and which status they end with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from marginax.cli import main
from marginax.mixture import load

COMMAND = (sys.executable, "-m", "marginax.cli")
# The same model of the same table again and again: its programs are compiled once.
TWO_COLUMNS = ("--columns", "my length,visits", "--poisson", "visits")
FEW = ("--starts", "2", "--quiet")
FEW_DRAWS = ("--draws", "40", "--warmup", "60", "--chains", "1")


def data(count: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    z = np.repeat([0, 1], [count // 3, count - count // 3])
    frame = pd.DataFrame({"my length": rng.normal(6.0 * z, 1.0), "visits": rng.poisson(2 + 20 * z)})
    frame["city"] = np.where(z, "Rome", "Oslo")
    frame.loc[4, "my length"] = np.nan
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a table, and models that the command has fitted to it."""
    found = tmp_path_factory.mktemp("files")
    data().to_csv(found / "data.csv", index=False)
    command = ["fit", str(found / "data.csv"), "-k", "2", *FEW, *TWO_COLUMNS]
    assert main([*command, "-o", str(found / "model.mx")]) == 0
    return found


def run(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    """Status, output, and what was said."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_several_numbers_of_components_are_compared(folder: Path, capsys: Any):
    out, plot = folder / "chosen.mx", folder / "comparison.png"
    status, text, _ = run(
        capsys, "fit", folder / "data.csv", "-k", "1..2", "-o", out, "--columns", "my length", *FEW, "--json",
        "--plot", plot,
    )  # fmt: skip
    assert status == 0
    found = json.loads(text)
    model = load(out)
    cells = data()[["my length"]]
    assert found["log_likelihood"] == pytest.approx(model.score(cells) * 60)
    assert found["bic"] == pytest.approx(model.bic(cells))
    assert found["n_parameters"] == model.n_parameters_ == 5
    assert [row["components"] for row in found["comparison"]] == [1, 2]
    assert found["components"] == 2 == load(out).n_components
    assert found["criterion"] == "bic"
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_list_may_be_given_in_parts(folder: Path, capsys: Any):
    command = ("fit", folder / "data.csv", "-k", "1", "-o", folder / "parts.mx", *FEW)
    status, _, said = run(capsys, *command, "--drop", "city", "--drop", "visits,my length")
    assert status == 1
    assert "no column is left to fit" in said


def test_the_result_of_a_fit_is_said_in_words(folder: Path, capsys: Any):
    status, text, said = run(
        capsys,
        "fit",
        folder / "data.csv",
        "-k",
        "1",
        "-o",
        folder / "words.mx",
        "--drop",
        "city",
        *FEW,
    )
    assert status == 0
    assert "GaussianMixture, 1 component, 60 rows, columns my length, visits" in text
    assert "5 parameters, log likelihood -" in text
    assert "means[my length]" in text
    assert "covariances[visits, my length]" in text
    assert "next: marginax report" in text
    assert said == ""


def test_predictions_are_those_of_the_model(folder: Path, capsys: Any):
    model = load(folder / "model.mx")
    expected = model.predict_proba(data()[["my length", "visits"]])
    for name in ("out.csv", "out.parquet"):
        status, text, said = run(
            capsys, "predict", folder / "model.mx", folder / "data.csv", "-o", folder / name
        )
        assert (status, text) == (0, "")
        assert "60 rows: 40 in component 0, 20 in component 1" in said
        found = (
            pd.read_csv(folder / name) if name.endswith("csv") else pd.read_parquet(folder / name)
        )
        assert list(found.columns[:3]) == ["my length", "visits", "city"]
        np.testing.assert_allclose(found[["probability_0", "probability_1"]], expected, atol=1e-9)
        np.testing.assert_array_equal(found["component"], expected.argmax(1))
    again = ("predict", folder / "model.mx", folder / "out.csv", "-o", folder / "again.csv")
    status, _, said = run(capsys, *again)
    assert status == 1
    assert "has the columns 'component'" in said
    assert "--only" in said
    assert run(capsys, *again, "--only")[0] == 0
    assert pd.read_csv(folder / "again.csv").columns[0] == "component"


def started(*arguments: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def test_predictions_go_to_standard_output_and_a_reader_may_stop(folder: Path):
    """As `head` does."""
    table = pd.concat([data()] * 300)  # more than a pipe holds
    table.to_csv(folder / "long.csv", index=False)
    with started("predict", folder / "model.mx", folder / "long.csv") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"my length,visits,city,component")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_standard_output_that_is_closed_is_said(folder: Path, capsys: Any, monkeypatch: Any):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["predict", str(folder / "model.mx"), str(folder / "data.csv")]) == 1
    assert "standard output is closed; say with -o" in capsys.readouterr().err


def test_what_the_model_does_not_use_is_passed_on_unchanged(folder: Path, capsys: Any):
    table = (
        data(10).astype({"visits": object}).assign(zip="007", note="NA", big="12345678901234567890")
    )
    late = pd.concat([table] * 30_000, ignore_index=True)
    late.loc[len(late) - 1, "big"] = 'a "late" word, and more'
    late.to_csv(folder / "late.csv", index=False)
    out = folder / "late out.csv"
    assert run(capsys, "predict", folder / "model.mx", folder / "late.csv", "-o", out)[0] == 0
    before = (folder / "late.csv").read_text().splitlines()
    after = out.read_text().splitlines()
    assert len(before) == len(after)
    assert all(a.startswith(f"{b},") for a, b in zip(after, before, strict=True))


def test_columns_of_a_parquet_file_keep_their_types(folder: Path, capsys: Any):
    table = pa.table(
        {
            "visits": [1, 20],
            "other": [[1], None],
            "my length": [0.5, None],
            "big": [2**62 + 1, None],
        }
    )
    pyarrow.parquet.write_table(table, folder / "typed.parquet")
    command = ("predict", folder / "model.mx", folder / "typed.parquet", "-o")
    assert run(capsys, *command, folder / "typed out.parquet")[0] == 0
    found = pyarrow.parquet.read_table(folder / "typed out.parquet")
    assert found.select(table.column_names).equals(table)
    status, _, said = run(capsys, *command, folder / "typed.csv")
    assert status == 1
    assert "'other' has cells of type list" in said


def test_categories_that_look_like_numbers_stay_words(folder: Path, capsys: Any):
    table = data().assign(zip=np.where(data()["visits"] > 10, "007", "7"))
    table.to_csv(folder / "zip.csv", index=False)
    out = folder / "zip.mx"
    fit = ("fit", folder / "zip.csv", "-k", "2", "--columns", "visits,zip", *FEW)
    families = ("--poisson", "visits", "--categorical", "zip")
    status, text, _ = run(capsys, *fit, *families, "-o", out)
    assert status == 0
    assert load(out).categories_ == {1: ("007", "7")}
    assert "[zip=007]" in text
    assert "poisson.rates[visits]" in text
    answers = folder / "zip answers.csv"
    status, _, said = run(capsys, "predict", out, folder / "zip.csv", "-o", answers)
    assert (status, said) == (
        0,
        "60 rows: 40 in component 0, 20 in component 1; mean log density "
        + said.partition("density ")[2],
    )
    (folder / "other.csv").write_text("visits,zip\n3,7\n3,8\n")
    status, _, said = run(capsys, "predict", out, folder / "other.csv")
    assert status == 1
    assert "column 'zip': its cell in line 3 is '8', a category that the fit has not seen" in said


def test_columns_that_are_true_or_false_are_fitted_and_predicted_alike(folder: Path, capsys: Any):
    table = pd.DataFrame({"ok": [True, False] * 10, "a": np.arange(20.0) ** 2})
    out = folder / "truth.mx"
    for name in ("truth.csv", "truth.parquet"):
        path = folder / name
        table.to_csv(path, index=False) if name.endswith("csv") else table.to_parquet(path)
        assert run(capsys, "fit", path, "-k", "1", "--bernoulli", "ok", *FEW, "-o", out)[0] == 0
        assert run(capsys, "predict", out, path, "--quiet")[0] == 0


def test_columns_that_number_the_rows_or_never_change_are_doubted(folder: Path, capsys: Any):
    rng = np.random.default_rng(0)
    values = {
        "key": range(7, 57),
        "same": 3,
        "visits": rng.poisson(9.0, 50),
        "a": rng.normal(size=50),
    }
    pd.DataFrame(values).to_csv(folder / "doubtful.csv", index=False)
    fit = ("fit", folder / "doubtful.csv", "-k", "1", "-o", folder / "doubtful.mx", *FEW)
    status, text, said = run(capsys, *fit, "--json")
    assert status == 0
    assert "column 'key' numbers the rows" in said
    assert "--drop key" in said
    assert "column 'same' is 3 in every row" in said
    assert said.count("warning") == 2
    assert len(json.loads(text)["warnings"]) == 2


def test_the_posterior_of_a_fit_is_told_as_that_of_a_model(folder: Path, capsys: Any):
    fit = ("fit", folder / "data.csv", "-k", "2", *TWO_COLUMNS)
    for method in (("nuts", *FEW_DRAWS), ("vi", "--draws", "40")):
        command = (*fit, *FEW, "--method", *method, "-o", folder / "sure.mx")
        status, text, _ = run(capsys, *command)
        assert status == 0
        assert "5.0%" in text
        assert "means[component 1, my length]" in text
        assert load(folder / "sure.mx").n_draws == 40
    for option in ("--draws", "--warmup", "--chains"):
        status, _, said = run(capsys, *fit, option, "7", "-o", folder / "sure.mx")
        assert status == 1
        assert f"{option} needs --method" in said


def test_advice_names_options_of_the_command(folder: Path, capsys: Any):
    command = ("fit", folder / "data.csv", "-k", "12", "--columns", "visits", "-o", folder / "a.mx")
    status, text, said = run(capsys, *command, "--starts", "6", "--json")
    assert status == 0
    assert "raise --starts" in said
    assert "max_iter" not in text + said
    status, _, said = run(capsys, *command, "--criterion", "loo")
    assert status == 1
    assert "give --method nuts or vi, or take --criterion bic" in said


def test_numbers_of_components_that_are_named_twice_are_fitted_once(folder: Path, capsys: Any):
    """And a model without its table needs it."""
    bare = folder / "bare.mx"
    command = ("fit", folder / "data.csv", "-k", "2,1,2", "--columns", "my length", "--starts", "2")
    status, text, said = run(capsys, *command, "-o", bare, "--without-data")
    assert status == 0
    assert said.count("fitting") == 2
    assert "fitting 1 component to 60 rows" in said
    assert "components  parameters" in text
    status, _, said = run(capsys, "posterior", bare, "-o", folder / "x.mx")
    assert status == 1
    assert "--data FILE" in said


def test_a_summary_as_json(folder: Path, capsys: Any):
    command = ("predict", folder / "model.mx", folder / "data.csv", "--json")
    status, _, said = run(capsys, *command)
    assert status == 1
    assert "--json needs -o" in said
    status, text, _ = run(capsys, *command, "-o", folder / "out.csv")
    assert json.loads(text)["rows"] == 60
    assert json.loads(text)["components"] == [40, 20]


def test_the_posterior_of_a_fitted_model(folder: Path, capsys: Any):
    out = folder / "posterior.mx"
    command = ("posterior", folder / "model.mx", "-o", out, *FEW_DRAWS)
    status, text, _ = run(capsys, *command, "--quiet", "--json")
    assert status == 0
    found = json.loads(text)
    assert found["method"] == "nuts"
    assert found["summary"]["weights[0]"]["r_hat"] is None  # of one short chain
    assert load(out).posterior_["weights"].shape == (40, 2)
    status, _, _ = run(capsys, "predict", out, folder / "data.csv", "-o", folder / "p.csv")
    assert status == 0
    assert "std_0" in pd.read_csv(folder / "p.csv").columns


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit", "data.csv", "-k", "2"], ["column 'city' has words", "'Oslo'", "--drop city", "--categorical city"]),
        (["fit", "none.csv", "-k", "2"], ["there is no file"]),
        (["fit", "data.csv", "-k", "2", "--columns", "lenght"], ["has no column 'lenght'", "my length, visits, city"]),
        (["fit", "data.csv", "-k", "2", "--drop", "city", "--poisson", "counts"], ["--poisson names column 'counts'"]),
        (["fit", "data.csv", "-k", "2", "--drop", "city", "--poisson", "my length"], ["'my length'", "whole numbers"]),
        (["fit", "data.csv", "-k", "99", "--drop", "city"], ["needs at least 99 rows"]),
        (["predict", "data.csv", "data.csv"], ["the file is damaged, or no file of Marginax"]),
        (["predict", "none.mx", "data.csv"], ["there is no file", "marginax fit"]),
        (["predict", "model.mx", "short.csv"], ["lacks the column 'visits'", "'my length'"]),
        (["predict", "model.mx", "words.csv"], ["words.csv", "column 'my length'", "'long' in line 12"]),
        (["predict", "model.mx", "halves.csv"], ["column 'visits'", "line 3 is 1.5", "whole numbers"]),
        (["predict", "model.mx", "data.csv", "-o", "x.xlsx"], [".csv and .parquet", "not x.xlsx"]),
        (["fit", "data.csv", "-k", "2", "--poisson", "visits", "--gamma", "visits"], ["both name column 'visits'"]),
        (["posterior", "none.mx", "-o", "x.mx"], ["there is no file"]),
        (["report", "none.mx", "-o", "x.html"], ["there is no file"]),
        (["serve", "none.mx"], ["there is no file"]),
        (["check", "none.py:model"], ["there is no file"]),
        (["check", "model"], ["FILE:NAME"]),
    ],
)  # fmt: skip
def test_what_cannot_be_done_says_what_to_do(
    arguments: list[str], said: list[str], folder: Path, capsys: Any, monkeypatch: Any
):
    monkeypatch.chdir(folder)
    data()[["my length"]].to_csv("short.csv", index=False)
    words = [*np.arange(10) / 4, "long"]
    pd.DataFrame({"my length": words, "visits": 1}).to_csv("words.csv", index=False)
    pd.DataFrame({"my length": 1.0, "visits": [1, 1.5]}).to_csv("halves.csv", index=False)
    more = ["-o", "x.mx", "--quiet"] if arguments[0] == "fit" else []
    status, text, message = run(capsys, *arguments, *more)
    assert (status, text) == (1, "")
    assert all(words in message for words in said), message
    assert "Traceback" not in message
    assert not (folder / "x.mx").exists()


def test_the_input_is_not_overwritten(folder: Path, capsys: Any):
    before = (folder / "data.csv").read_bytes()
    status, _, said = run(
        capsys, "predict", folder / "model.mx", folder / "data.csv", "-o", folder / "data.csv"
    )
    assert status == 1
    assert "would overwrite" in said
    assert (folder / "data.csv").read_bytes() == before


def test_neither_what_is_read_nor_what_is_no_file_is_overwritten(
    folder: Path, tmp_path: Path, capsys: Any
):
    model = tmp_path / "model.mx"
    model.write_bytes((folder / "model.mx").read_bytes())
    before = model.read_bytes()
    table = folder / "data.csv"
    for command in (["report", model], ["predict", model, table], ["fit", model, "-k", "2"]):
        status, _, said = run(capsys, *command, "-o", model)
        assert status == 1
        assert "would overwrite" in said
    os.mkfifo(tmp_path / "pipe")
    status, _, said = run(capsys, "predict", model, table, "-o", tmp_path / "pipe")
    assert status == 1
    assert "no ordinary file" in said
    assert model.read_bytes() == before


def test_of_a_file_that_ends_badly_nothing_is_written(folder: Path, tmp_path: Path, capsys: Any):
    """Neither half of the predictions, nor over what was there."""
    bad, out = tmp_path / "bad.csv", tmp_path / "out.csv"
    good = data()[["my length", "visits"]]
    lines = good.to_csv(index=False).splitlines()
    bad.write_text("\n".join([lines[0], *lines[1:] * 9000, "1.0,-3"]))
    out.write_text("")
    status, _, said = run(capsys, "predict", folder / "model.mx", bad, "-o", out)
    assert status == 1
    assert "visits" in said
    assert out.read_text() == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "data.csv", "-k", "0", "-o", "m"],
        ["fit", "data.csv", "-k", "3..1", "-o", "m"],
        ["fit", "data.csv", "-k", "x", "-o", "m"],
        ["fit", "data.csv", "-o", "m"],
        ["fit", "data.csv", "-k", "2", "-o", "m", "--method", "em"],
        ["fit", "data.csv", "-k", "2", "-o", "m", "--columns", "age,age"],
        ["posterior", "m", "-o", "n", "--draws", "0"],
        ["serve", "m", "--port", "99999"],
    ],
)
def test_wrong_usage_ends_with_two(arguments: list[str], capsys: Any):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: marginax" in capsys.readouterr().err


@pytest.mark.parametrize(
    "job", ["fit", "predict", "posterior", "report", "serve", "check", "tutorial"]
)
def test_every_job_has_help_with_an_example(job: str, capsys: Any):
    with pytest.raises(SystemExit) as stopped:
        main([job, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert f"marginax {job}" in text


MODELS = """
import jax.numpy as jnp
import numpyro
import marginax as mx
import marginax.distributions as dist

def good(data, components=2):
    with mx.plate("components", components):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(data)):
        z = mx.sample("z", dist.Categorical(jnp.ones(components) / components))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=data)

def mixed_up(data):
    with mx.plate("data", len(data)):
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(jnp.cumsum(z), 1.0), obs=data)

def theirs(data):
    with numpyro.plate("data", len(data)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=data)

def broken(data):
    return data.nothing

data = jnp.arange(4.0)
"""


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["good", "--with", "data"], 0, ["Summed out", "z         Categorical   2", "gradient is finite"]),
        (["good", "--with", "jnp.zeros(3), components=5"], 0, ["Categorical   5"]),
        (["theirs", "--with", "data"], 0, ["Bernoulli"]),
        (["mixed_up", "--with", "data"], 1, ["this model cannot be used", "cumsum"]),
        (["broken", "--with", "data"], 1, ["AttributeError", "line 25, in broken: return data.nothing"]),
        (["good"], 1, ["good(data, components=2)", "--with"]),
        (["good", "--with", "data["], 1, ["SyntaxError"]),
        (["nothing"], 1, ["has no function 'nothing'; it has: good, mixed_up, theirs, broken"]),
    ],
)  # fmt: skip
def test_a_model_of_ones_own_is_explained(
    arguments: list[str], status: int, words: list[str], tmp_path: Path, capsys: Any
):
    (tmp_path / "models.py").write_text(MODELS)
    name, *options = arguments
    found, text, said = run(capsys, "check", f"{tmp_path / 'models.py'}:{name}", *options)
    assert found == status
    assert all(w in text + said for w in words), text + said
    assert "Spent" not in text  # what is said of a model is the same each time
    assert "Traceback" not in said
