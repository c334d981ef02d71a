"""Compiled programs on disk: found again by later processes, never wrong, within a bound."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marginax.cli import main
from marginax.jaxpr.program_cache import chosen, cut

SCRIPT = Path(__file__).with_name("program_cache_script.py")


def started(*arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment | {"JAX_PLATFORMS": "cpu"}, text=True
    )


def answered(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return json.loads(out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Two processes at once that begin with the same empty folder, and then one more."""
    folder = tmp_path_factory.mktemp("programs")
    together = [started(folder, 2), started(folder, 3)]
    return [*map(answered, together), answered(started(folder, 5, "damage"))]


def test_a_later_process_takes_its_programs_from_disk(runs: list[dict[str, Any]]):
    assert runs[2]["first hits"] >= 4
    assert runs[2]["hits again"] >= 4


def test_programs_that_call_python_call_that_of_their_own_process(runs: list[dict[str, Any]]):
    for run, factor in zip(runs, (2, 3, 5), strict=True):
        assert run["answers"] == [1, factor + 1, 2 * factor + 1]


def test_a_damaged_entry_is_compiled_again(runs: list[dict[str, Any]]):
    """With a warning, if it is asked for; the script compares the numbers."""
    assert len(runs[2]["warnings"]) >= 4
    assert all(len(one) <= 1 for one in runs[2]["warnings"])
    heard = [message for one in runs[2]["warnings"] for message in one]
    assert heard
    assert all(message.startswith("Error reading persistent") for message in heard)


def test_the_programs_used_longest_ago_are_deleted(tmp_path: Path):
    for age, name in enumerate("abcd"):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(b"x" * 10)
        os.utime(path, (1000 - age, 500))
    (tmp_path / "notes.txt").write_bytes(b"x" * 1000)
    cut(tmp_path, 40)
    assert len(list(tmp_path.iterdir())) == 5
    cut(tmp_path, 29)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-cache", "b-cache", "notes.txt"]


def test_an_environment_names_the_folder_or_none():
    assert chosen({"MARGINAX_CACHE_DIR": "/some/where"}) == Path("/some/where")
    assert chosen({"MARGINAX_CACHE_DIR": "off"}) is None
    assert chosen({"MARGINAX_CACHE_DIR": ""}) is None
    default = chosen({})
    assert default is not None
    assert default.parts[-2:] == ("marginax", "programs")


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_a_folder_that_cannot_be_used_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    taken = tmp_path / "taken"
    taken.write_text("")
    monkeypatch.setattr("marginax.jaxpr.program_cache.of_jax", lambda: None)
    monkeypatch.setenv("MARGINAX_CACHE_DIR", str(taken if kind == "file" else taken / "programs"))
    status = main(["predict", str(tmp_path / "no.mx"), str(tmp_path / "no.csv")])
    first, second = capsys.readouterr().err.splitlines()
    assert status == 1
    assert first.startswith("marginax: compiled programs are not kept for the next time: ")
    assert "MARGINAX_CACHE_DIR=off" in first
    assert "there is no file" in second


@pytest.mark.parametrize("asked", [None, "off"])
def test_commands_keep_programs_unless_told_not_to(asked: str | None, tmp_path: Path):
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_CACHE_DIR")}
    environment |= {} if asked is None else {"MARGINAX_CACHE_DIR": asked}
    command = [Path(sys.executable).with_name("marginax"), "predict", "no.mx", "no.csv"]
    subprocess.run(
        command, check=False, cwd=tmp_path, env=environment | {"XDG_CACHE_HOME": str(tmp_path)}
    )
    assert (tmp_path / "marginax" / "programs").exists() == (asked is None)
