"""The command, as a user runs it: in a process of its own."""

import base64
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

import marginax as mx
from marginax.cli import main

COMMAND = Path(sys.executable).with_name("marginax")
FIGURES = [
    "svi_loss",
    "svi_gradient_norms",
    "mixture_density",
    "map_assignment",
    "random_assignment",
    "guide_loss",
    "guide_gradient_norms",
    "membership",
    "nuts_histogram",
    "nuts_trace",
]


def run(*arguments: str, program: tuple[str, ...] = (str(COMMAND),)) -> Any:
    return subprocess.run(
        [*program, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        timeout=300,
    )


# -- the tutorial


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One run, in a folder that is not there yet."""
    out = tmp_path_factory.mktemp("work") / "a" / "new folder"
    return run("tutorial", "--out", str(out), "--seed", "7"), out


@pytest.fixture(scope="module")
def results(tutorial: Any) -> Any:
    _, out = tutorial
    return json.loads((out / "results.json").read_text())


def test_the_tutorial_says_what_it_does_and_where_the_results_are(tutorial: Any):
    process, out = tutorial
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    for said in ("assignment", "1. MAP", "2. Serving", "3. A guide", "4. Collapsed NUTS"):
        assert said in process.stdout
    assert f"{out / 'index.html'} (report)" in process.stdout


def test_the_fit_is_the_reference(results: Any):
    best = results["map"]
    assert best["initial_loss"] == pytest.approx(25.67, abs=0.01)
    assert best["loss"] == pytest.approx(17.443, abs=0.01)
    order = np.argsort(best["locs"])
    np.testing.assert_allclose(np.array(best["locs"])[order], [0.499, 10.984], atol=0.01)
    np.testing.assert_allclose(np.array(best["weights"])[order], [0.375, 0.625], atol=0.01)
    assert best["scale"] == pytest.approx(0.651, abs=0.01)
    assert len(results["losses"]) == 200
    assert {name: len(norms) for name, norms in results["gradient_norms"].items()} == {
        "weights_auto_loc": 200,
        "scale_auto_loc": 200,
        "locs_auto_loc": 200,
    }


def test_the_points_are_served_as_two_clusters(results: Any):
    low, high = np.argsort(results["map"]["locs"]).tolist()
    expected = [low, low, high, high, high]
    assert results["assignment"] == expected
    assert results["random_assignment"] == expected
    np.testing.assert_allclose(results["membership"], np.eye(2)[expected], atol=1e-6)
    locs, scale, weights = (np.array(results["map"][n]) for n in ("locs", "scale", "weights"))
    # Two Gaussians of one scale, weighted: equal where their log odds are zero.
    shift = scale**2 * np.log(weights[low] / weights[high]) / (locs[high] - locs[low])
    assert results["boundary"] == pytest.approx(locs.mean() + shift, abs=1e-4)


def test_the_guide_of_memberships_is_near_the_posterior(results: Any):
    guide = results["guide"]
    assert len(guide["losses"]) == 200
    np.testing.assert_allclose(guide["assignment_probs"], results["membership"], atol=0.01)
    assert results["map"]["loss"] - 1e-3 < guide["loss"] < results["map"]["loss"] + 1.0


def test_the_posterior_is_explored(results: Any):
    nuts = results["nuts"]
    assert {name: np.shape(draws) for name, draws in nuts["draws"].items()} == {
        "weights": (250, 2),
        "scale": (250,),
        "locs": (250, 2),
    }
    assert sum(nuts["mode_shares"].values()) == pytest.approx(1.0)
    # The clusters' means are 0.5 and 11; a chain of 250 draws of width 0.6 finds them to a tenth or two.
    np.testing.assert_allclose(nuts["locs_mean"], [0.5, 11.0], atol=0.5)
    assert 0.5 < nuts["scale_mean"] < 3.0
    assert nuts["summary"]["scale"].keys() >= {"mean", "std", "ess_bulk", "r_hat"}


def test_the_timings_are_those_of_the_steps(results: Any):
    assert list(results["timings"]) == ["map", "serve", "guide", "nuts", "figures"]
    assert all(seconds > 0 for seconds in results["timings"].values())
    assert results["seed"] == 7


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_something(tutorial: Any, name: str):
    _, out = tutorial
    image = imread(out / f"{name}.png")[..., :3]
    assert min(image.shape[:2]) > 200
    drawn = np.asarray((image < 0.99).any(axis=-1))
    assert drawn.mean() > 0.005
    # There is something in the middle, not only axes and labels around it.
    height, width = image.shape[:2]
    assert drawn[height // 4 : -height // 4, width // 4 : -width // 4].any()


class Page(HTMLParser):
    """The tags of a page, checked to be closed in the order in which they were opened."""

    VOID = frozenset({"meta", "img", "br", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_well_formed_page_that_needs_nothing_else(tutorial: Any):
    _, out = tutorial
    text = (out / "index.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    page = Page(text)
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == len(FIGURES)
    for name, image in zip(FIGURES, images, strict=True):
        kind, _, data = (image["src"] or "").partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == (out / f"{name}.png").read_bytes()
        assert image["alt"]
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe"})
    assert not [a for _, attrs in page.tags for a in attrs.values() if re.match("https?:", a or "")]
    assert "url(" not in text
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().split()


def test_the_folder_holds_the_results_and_nothing_else(tutorial: Any):
    _, out = tutorial
    assert {path.name for path in out.iterdir()} == {
        "index.html",
        "results.json",
        *(f"{name}.png" for name in FIGURES),
    }


# -- what goes wrong


def test_exit_codes_and_messages_of_the_process(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    unwritable = run("tutorial", "--out", str(tmp_path / "file"))
    assert unwritable.returncode == 1
    wrong = run("tutorial", "--seed", "one")
    assert wrong.returncode == 2
    for process, said in ((unwritable, "cannot write to"), (wrong, "--seed")):
        assert process.stdout == ""
        assert said in process.stderr
        assert "Traceback" not in process.stderr


def test_a_folder_that_cannot_be_written_to_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file" / "below", Path("/proc")):  # the second one is there
        assert main(["tutorial", "--out", str(out)]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert f"cannot write to {out}: " in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ["COMMAND"]),
        (("tutoriol",), ["tutoriol", "tutorial"]),
        (("tutorial", "--seed", "one"), ["--seed", "one"]),
        (("tutorial", "--seed", "-1"), ["--seed", "-1", "from 0"]),
        (("tutorial", "--seed", "99999999999999999999"), ["--seed", "99999999999999999999"]),
        (("tutorial", "--out"), ["--out"]),
        (("tutorial", "--colour", "red"), ["--colour"]),
        (("--nonsense",), ["usage"]),
    ],
)
def test_wrong_usage_is_explained(
    arguments: tuple[str, ...], said: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert all(words in message for words in said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--help",), ["tutorial", "--version"]),
        (("tutorial", "--help"), ["--out", "--seed", "default", "example: marginax tutorial"]),
    ],
)
def test_help_shows_an_example_and_every_option(
    arguments: tuple[str, ...], said: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(words in text for words in said)


def test_the_version_is_the_packages():
    process = run("--version")
    assert process.returncode == 0
    assert process.stdout == f"marginax {mx.__version__}\n"


def test_the_module_is_the_command():
    process = run("--version", program=(sys.executable, "-m", "marginax.cli"))
    assert process.stdout == f"marginax {mx.__version__}\n"


# -- what an import costs


def test_importing_the_package_leaves_the_heavy_parts_for_later():
    heavy = "blackjax", "matplotlib", "rich", "arviz_stats", "sklearn", "scipy.stats"
    script = "import sys, marginax; print(*(m for m in sys.argv[1:] if m in sys.modules))"
    process = run("-c", script, *heavy, program=(sys.executable,))
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == ""


def test_the_samplers_are_there_when_asked_for():
    script = (
        "import sys, marginax as mx; "
        "print(mx.infer.MCMC.__name__, mx.infer.NUTS.__name__, 'blackjax' in sys.modules)"
    )
    process = run("-c", script, program=(sys.executable,))
    assert process.stdout.split() == ["MCMC", "NUTS", "True"]
    with pytest.raises(AttributeError, match="no attribute 'HMCC'"):
        _ = mx.infer.HMCC
