"""Whatever is sent, the answer is a 4xx with words, soon, and the next request is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asking import JSON, ask, faults, post
from conftest import NAMES

GOOD = [2.0, 50.0]


def body(*rows: Any) -> bytes:
    return json.dumps({"rows": rows}).encode()


def text(rows: str) -> bytes:
    return f'{{"rows": {rows}}}'.encode()


NOT_JSON = {
    "nothing": b"",
    "a blank": b" ",
    "a word": b"hello",
    "half an object": b'{"rows": [[2.0, 50.0]',
    "two objects": b'{"rows": [[2.0, 50.0]]}{"rows": []}',
    "a comma too many": b'{"rows": [[2.0, 50.0],]}',
    "no comma": b'{"rows": [[2.0 50.0]]}',
    "single quotes": b"{'rows': [[2.0, 50.0]]}",
    "no quotes": b"{rows: [[2.0, 50.0]]}",
    "a comment": b'{"rows": [[2.0, 50.0]]} // points',
    "hexadecimal": b'{"rows": [[0x10, 50.0]]}',
    "a zero in front": b'{"rows": [[02.0, 50.0]]}',
    "a plus in front": b'{"rows": [[+2.0, 50.0]]}',
    "half a number": b'{"rows": [[2., 50.0]]}',
    "half an exponent": b'{"rows": [[2e, 50.0]]}',
    "nan in small letters": b'{"rows": [[nan, 50.0]]}',
    "undefined": b'{"rows": [[undefined, 50.0]]}',
    "None": b'{"rows": [[None, 50.0]]}',
    "True": b'{"rows": [[True, 50.0]]}',
    "a tab in a text": b'{"rows": [["\t", 50.0]]}',
    "half an escape": b'{"rows": [["\\u12", 50.0]]}',
    "half a surrogate": b'{"rows": [["\\ud800", 50.0]]}',
    "not UTF-8": b'{"rows": [["\xff\xfe", 50.0]]}',
    "not UTF-8, outside": b'\xff{"rows": [[2.0, 50.0]]}',
    "UTF-16": '{"rows": [[2.0, 50.0]]}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"rows": [[2.0, 50.0]]}',
    "zero bytes": b"\0" * 100,
    "too deep": b"[" * 100_000,
    "too deep, closed": text("[" * 5000 + "]" * 5000),
    "objects too deep": b'{"rows":' * 5000 + b"1" + b"}" * 5000,
    "a million digits": text("[[" + "9" * 1_000_000 + ", 1]]"),
    "a form": b"rows=2.0&rows=50.0",
    "XML": b"<rows><row>2.0</row></rows>",
    "CSV": b"length,width\n2.0,50.0\n",
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00]\x94.",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
}

WRONG_SHAPE = {
    "null": b"null",
    "a number": b"1",
    "a text": b'"rows"',
    "a list": b"[[2.0, 50.0]]",
    "an empty object": b"{}",
    "another key": b'{"row": [[2.0, 50.0]]}',
    "capitals": b'{"Rows": [[2.0, 50.0]]}',
    "a key too many": b'{"rows": [[2.0, 50.0]], "lengths": [1]}',
    "prototype": b'{"rows": [[2.0, 50.0]], "__proto__": {}}',
    "rows null": text("null"),
    "rows a number": text("5"),
    "rows a text": text('"2.0, 50.0"'),
    "rows true": text("true"),
    "rows an object": text('{"0": [2.0, 50.0]}'),
    "rows empty": text("[]"),
    "rows twice, the last empty": b'{"rows": [[2.0, 50.0]], "rows": []}',
    "too many rows": text("[" + "[2.0, 50.0]," * 10_000 + "[2.0, 50.0]]"),
    "a million rows": text("[" + "1," * 1_000_000 + "1]"),
}

WRONG_ROW = {
    "null": None,
    "a number": 5,
    "a text": "2.0, 50.0",
    "true": True,
    "no cells": [],
    "one cell": [2.0],
    "three cells": [2.0, 50.0, 1.0],
    "many cells": [1.0] * 5000,
    "a list in it": [[2.0, 50.0]],
    "a column that is not there": {"colour": 1.0},
    "one that is, one that is not": {"length": 2.0, "colour": 1.0},
    "an empty name": {"": 1.0},
    "a name in capitals": {"Length": 2.0},
    "a name with a blank": {"length ": 2.0},
    "a name in other letters": {"lеngth": 2.0},  # noqa: RUF001
    "a zero byte in the name": {"length\0": 2.0},
    "numbers as names": {"0": 2.0, "1": 50.0},
    "prototype": {"__proto__": 1.0},
    "class": {"__class__": 1.0},
    "many names": {f"x{j}": 1.0 for j in range(5000)},
    "a long name": {"x" * 100_000: 1.0},
}

WRONG_CELL = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "minus Infinity": "-Infinity",
    "too large": "1e999",
    "too large, negative": "-1e400",
    "400 digits": "9" * 400,
    "4,300 digits": "9" * 4300,
    "400 digits, negative": "-" + "9" * 400,
    "a text": '"2.0"',
    "an empty text": '""',
    "a blank": '" "',
    "nan as a text": '"nan"',
    "NA": '"NA"',
    "true": "true",
    "false": "false",
    "a list": "[2.0]",
    "an empty list": "[]",
    "an object": '{"value": 2.0}',
    "an empty object": "{}",
    "lists in lists": "[" * 100 + "]" * 100,
    "a long text": '"' + "x" * 100_000 + '"',
    "HTML": '"<script>alert(1)</script>"',
    "a line separator": '"\u2028"',
    "SQL": '"1\'; drop table rows; --"',
    "a date": '"2024-01-01"',
    "a decimal comma": '"2,5"',
    "an Arabic digit": '"٢"',
    "a complex number": '"1+2j"',
    "beyond all measure": "1e300",
}

PATHS = ("/predict", "/predict_proba")


@pytest.mark.parametrize("what", NOT_JSON)
def test_what_is_not_json(app: Any, what: str):
    for path in (*PATHS, "/sample"):
        response = post(app, path, NOT_JSON[what])
        assert response.status_code == 400, path
        assert faults(response)[0]["field"] == "body"


@pytest.mark.parametrize("what", WRONG_SHAPE)
def test_what_is_not_rows(app: Any, what: str):
    for path in PATHS:
        response = post(app, path, WRONG_SHAPE[what])
        assert response.status_code == 422, path
        faults(response)


@pytest.mark.parametrize("what", WRONG_ROW)
def test_what_is_not_a_row(app: Any, what: str):
    response = post(app, "/predict_proba", body(GOOD, GOOD, WRONG_ROW[what]))
    assert response.status_code == 422
    assert all(fault["row"] == 2 for fault in faults(response)[:5])
    assert len(response.content) < 10_000 or what == "a long name"


@pytest.mark.parametrize("what", WRONG_CELL)
def test_what_is_not_a_cell(app: Any, what: str):
    for form in (
        f"[[2.0, 50.0], [{WRONG_CELL[what]}, 50.0]]",
        f'[{{}}, {{"length": {WRONG_CELL[what]}}}]',
    ):
        response = post(app, "/predict_proba", text(form))
        assert response.status_code == 422
        (fault,) = faults(response)
        assert fault["row"] == 1
        if what != "beyond all measure":
            assert (fault["field"], fault["column"]) == ("rows[1].length", "length")
        assert len(response.content) < 1000


def test_every_fault_is_named_up_to_some(app: Any):
    rows = [GOOD, ["a", True], GOOD, [None, "b"]]
    found = faults(post(app, "/predict", {"rows": rows}))
    where = ["rows[1].length", f"rows[1].{NAMES[1]}", f"rows[3].{NAMES[1]}"]
    assert [fault["field"] for fault in found] == where
    found = faults(post(app, "/predict", {"rows": [["a", "b"]] * 1000}))
    assert len(found) == 21
    assert "1980 more" in found[-1]["msg"]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"count": 0},
        {"count": -1},
        {"count": 1.5},
        {"count": "3"},
        {"count": True},
        {"count": None},
        {"count": [3]},
        {"count": 10_001},
        {"count": 10**30},
        {"count": 1, "seed": -1},
        {"count": 1, "seed": 2**32},
        {"count": 1, "seed": "0"},
        {"count": 1, "seed": 0.5},
        {"count": 1, "seed": True},
        {"count": 1, "rows": []},
        [],
        None,
    ],
)
def test_what_is_no_wish_for_samples(app: Any, asked: Any):
    response = post(app, "/sample", asked)
    assert response.status_code == 422
    faults(response)


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/octet-stream",
        ";application/json",
        "application/json,text/plain",
        "\xff",
    ],
)
def test_a_content_type_that_is_not_json(app: Any, kind: str | None):
    headers = {} if kind is None else {"content-type": kind.encode("latin-1")}
    response = ask(app, "POST", "/predict", content=body(GOOD), headers=headers)
    assert response.status_code == 415
    assert faults(response)[0]["field"] == "content-type"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_a_content_type_that_is(app: Any, kind: str):
    response = ask(app, "POST", "/predict", content=body(GOOD), headers={"content-type": kind})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"]
)
@pytest.mark.parametrize("path", ["/predict", "/sample"])
def test_another_method(app: Any, method: str, path: str):
    response = ask(app, method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    if method != "HEAD":
        assert "POST" in faults(response)[0]["msg"]


@pytest.mark.parametrize("path", ["/", "/healthz", "/model", "/openapi.json", "/page/main.js"])
def test_nothing_is_posted_to_what_is_read(app: Any, path: str):
    assert ask(app, "POST", path, content=body(GOOD), headers=JSON).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/predict/extra",
        "/predict_probability",
        "/page",
        "/page/",
        "/page/nothing.js",
        "/page/__init__.py",
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
        "/page/main.js/../../app.py",
        "/..%5c..%5capp.py",
        "/%00",
        "/page/%ff",
        "/" + "x" * 5000,
    ],
)
def test_what_is_not_there(app: Any, path: str):
    response = ask(app, "GET", path)
    assert response.status_code == 404
    assert "/openapi.json" in faults(response)[0]["msg"]


@pytest.mark.parametrize(
    "query",
    [
        "x=-1",
        "x=2",
        "x=a",
        "x=",
        "x=1.5",
        "x=0&y=2",
        "y=9",
        "x=1e999",
        "x=" + "9" * 400,
        "x=0&y=-1",
    ],
)
def test_columns_that_are_not_there(app: Any, query: str):
    response = ask(app, "GET", f"/model?{query}")
    assert response.status_code == 422
    assert faults(response)[0]["field"] in ("x", "y")


def test_after_all_that_it_answers(app: Any):
    assert post(app, "/predict", {"rows": [GOOD]}).status_code == 200
    assert ask(app, "GET", "/healthz").json()["status"] == "ok"
