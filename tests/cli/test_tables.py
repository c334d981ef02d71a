"""Files as people have them: found out and said aloud, or refused with what to do."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import marginax.cli.tables as tables
from marginax.cli.common import Failure


def options(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**({"sep": None, "no_header": False, "decimal": "."} | given))


def written(folder: Path, text: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "given", "columns", "said"),
    [
        ("a,b\n1,2\n3,4\n", {}, {"a": [1, 3], "b": [2, 4]}, ""),
        ("a;b\n1;2\n3;4\n", {}, {"a": [1, 3], "b": [2, 4]}, "semicolons between columns"),
        ("a\tb\n1\t2\n3\t4\n", {}, {"a": [1, 3], "b": [2, 4]}, "tabs between columns"),
        ("a|b\n1|2\n", {}, {"a": [1], "b": [2]}, "bars between columns"),
        ("a;b\n1,5;2,25\n", {"decimal": ","}, {"a": [1.5], "b": [2.25]}, "semicolons"),
        ("1,2\n3,4\n", {}, {"x0": [1, 3], "x1": [2, 4]}, "called x0, x1"),
        ("1,2\n3,4\n", {"no_header": True}, {"x0": [1, 3], "x1": [2, 4]}, ""),
        ("a\n1\n2\n", {}, {"a": [1, 2]}, ""),
        ("\ufeffa,b\r\n1,2\r\n", {}, {"a": [1], "b": [2]}, ""),
        ('"a,c",b\n1,2\n', {}, {"a,c": [1], "b": [2]}, ""),
        ("a,b\n1,NA\n?,4\n", {}, {"a": [1, np.nan], "b": [np.nan, 4]}, ""),
        ("a,b\n1,\n2,\n", {}, {"a": [1, 2], "b": [np.nan, np.nan]}, ""),
        ("a,,b\n1,2,3\n", {}, {"a": [1], "x1": [2], "b": [3]}, ""),
    ],
)
def test_a_text_file_is_read_as_it_was_meant(
    text: str, given: Any, columns: Any, said: str, tmp_path: Path, capsys: Any
):
    frame = tables.read(written(tmp_path, text), options(**given))
    assert list(frame.columns) == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(frame[name].astype(float), np.array(values, float))
    message = capsys.readouterr().err
    assert said in message
    assert bool(message) == bool(said)


def test_words_stay_words(tmp_path: Path):
    frame = tables.read(written(tmp_path, "a,b\n1,Rome\n2,\n"), options())
    assert frame["b"].tolist()[0] == "Rome"
    assert frame["b"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("content", "given", "words"),
    [
        (b"", {}, "is empty"),
        (b"\n\n", {}, "is empty"),
        (b"a,b\n", {}, "has no rows"),
        (b"a,b\n1,2\n3,4,5\n", {}, "line 3 has 3 columns and the first line 2.*--sep"),
        (b"\x00\x01\x02", {}, "is no text"),
        ("größe\n1\n".encode("latin-1"), {}, "not UTF-8.*save it as UTF-8"),
        (b"a,a\n1,2\n", {}, "several columns are called 'a'"),
        (b"a,b\n1,2\n", {"sep": ";;"}, "--sep must be one character"),
        (b"PAR1 and then nothing", {}, "data.csv: "),
    ],
)
def test_a_file_that_cannot_be_read_says_what_to_do(
    content: bytes, given: Any, words: str, tmp_path: Path
):
    with pytest.raises(Failure, match=words):
        tables.read(written(tmp_path, content), options(**given))


def test_a_line_far_down_that_has_other_columns_is_an_error(tmp_path: Path):
    text = "a,b\n" + "1,2\n" * 50_000 + "1,2,3\n"
    with pytest.raises(Failure, match="Say with --sep"):
        tables.read(written(tmp_path, text), options())


def test_no_file_and_a_folder(tmp_path: Path):
    with pytest.raises(Failure, match="there is no file"):
        tables.read(tmp_path / "none.csv", options())
    with pytest.raises(Failure, match="is a folder"):
        tables.read(tmp_path, options())


def test_pieces_add_up_to_the_table(tmp_path: Path):
    count = 700_000  # more than one piece
    frame = pd.DataFrame({"a": np.arange(count), "b": "w"})
    for name in ("data.csv", "data.parquet"):
        path = tmp_path / name
        frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path)
        found = list(tables.pieces(path, options(), ["b"], ["a"]))
        assert len(found) > 1
        whole = pd.concat(found)
        np.testing.assert_array_equal(whole["a"], frame["a"])
        assert set(whole["b"]) == {"w"}


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_what_is_appended_is_what_is_read(name: str, tmp_path: Path):
    first = pd.DataFrame({"a": [1.5, np.nan], "b": ["x", None], "k": [0, 1]})
    with tables.writing(tmp_path / name) as write:
        write(first)
        write(first)
    found = tables.read(tmp_path / name, options())
    assert found["a"].tolist()[0::2] == [1.5, 1.5]
    assert found["k"].tolist() == [0, 1, 0, 1]
    assert found["b"].isna().tolist() == [False, True, False, True]
