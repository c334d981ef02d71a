"""Files as people have them: found out and said aloud, or refused with what to do; what is not used stays as it is."""

import argparse
import os
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

import marginax.cli.tables as tables
from marginax.cli.cells import categories
from marginax.cli.common import Failure
from marginax.cli.layout import refuse_double
from marginax.cli.writing import writing


def options(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**({"sep": None, "no_header": False, "decimal": "."} | given))


def written(folder: Path, text: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path, categorical: Any = (), **given: Any) -> pd.DataFrame:
    """A file as it is fitted to."""
    file = tables.opened(path, options(**given))
    return tables.for_fit(file, file.names, categorical, quote)


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
        ("a,b\n true,1\nFALSE, 2 \n", {}, {"a": [1, 0], "b": [1, 2]}, ""),
        ("\n\na,b\n\n1,2\n", {}, {"a": [1], "b": [2]}, ""),
        ("a\n1\n\n3\n", {}, {"a": [1, np.nan, 3]}, ""),
        ("a\r\n\r\n2\r\n\r\n4", {}, {"a": [np.nan, 2, np.nan, 4]}, ""),
        ('a\n1\n""\n  \n\n', {}, {"a": [1, np.nan, np.nan, np.nan]}, ""),
        ("\n\na\n1\n", {}, {"a": [1]}, ""),
        ("\n2\n\n", {"no_header": True}, {"x0": [np.nan, 2, np.nan]}, ""),
        ("a,b\n1,2\n\n3,4\n\n", {}, {"a": [1, 3], "b": [2, 4]}, ""),
        ("#a,b\n1,2\n", {}, {"#a": [1], "b": [2]}, ""),
        ("a b\n1 2\n", {"sep": " "}, {"a": [1], "b": [2]}, ""),
    ],
)
def test_a_text_file_is_read_as_it_was_meant(
    text: str, given: Any, columns: Any, said: str, tmp_path: Path, capsys: Any
):
    frame = read(written(tmp_path, text), **given)
    assert list(frame.columns) == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(frame[name].astype(float), np.array(values, float))
    message = capsys.readouterr().err
    assert said in message
    assert bool(message) == bool(said)


def test_a_heading_may_be_long(tmp_path: Path):
    names = [f"column number {j} of many" for j in range(5000)]
    text = ",".join(names) + "\n" + 2 * (",".join(["1"] * 5000) + "\n")
    file = tables.opened(written(tmp_path, text), options())
    assert len(text.splitlines()[0]) > 2**16
    assert list(file.names) == names
    assert file.whole().num_rows == 2


def test_categories_are_texts_whatever_they_look_like(tmp_path: Path):
    path = written(tmp_path, "zip,b\n007,Rome\n7,\n7.0,NA\n")
    frame = read(path, ["zip", "b"])
    assert frame["zip"].tolist() == ["007", "7", "7.0"]
    assert frame["b"].tolist() == ["Rome", None, None]


def test_categories_of_a_parquet_file_are_those_of_a_text_file():
    found = {
        "number": pa.chunked_array([[7, None]]),
        "real": pa.chunked_array([[7.0, float("nan")]]),
        "text": pa.chunked_array([pa.array(["7", ""]).dictionary_encode()]),
    }
    for column in found.values():
        assert categories(column, "a", Path("a.parquet")).tolist() == ["7", None]


@pytest.mark.parametrize(
    ("known", "cells", "meant"),
    [
        ((1, 2), ["1", "2.0", "x"], [1, 2, "x"]),
        ((False, True), ["true", "False"], [True, False]),
        (("7",), ["007", "7", "7.0"], ["007", "7", "7.0"]),
        (("NA", "b"), ["NA", "", "b"], ["NA", None, "b"]),
    ],
)
def test_a_text_is_the_category_that_the_model_knows(known: Any, cells: Any, meant: Any):
    assert categories(pa.chunked_array([cells]), "a", Path("a"), known).tolist() == meant


def test_categories_that_a_file_cannot_tell_apart_are_refused():
    with pytest.raises(Failure, match="knows 1 and '1', which a file cannot tell apart"):
        categories(pa.chunked_array([["1"]]), "a", Path("a"), (1, "1"))


@pytest.mark.parametrize(
    ("content", "given", "words"),
    [
        (b"", {}, "is empty"),
        (b"\n\n", {}, "is empty"),
        (b"a,b\n", {}, "has no rows"),
        (b"a,b\n1,2\n3,4,5\n", {}, "line 3 has 3 columns and the first line 2.*--sep"),
        (b"\x00\x01\x02", {}, "is no text"),
        ("größe\n1\n".encode("latin-1"), {}, "not UTF-8.*save it as UTF-8"),
        (b"a\n" + b"1\n" * 99 + b"\xe4\n", {}, "not UTF-8"),
        (b"a\n" + b"1\n" * 50_000 + b"\xe4\n", {}, "not UTF-8"),
        (b"a,a\n1,2\n", {}, "several columns are called 'a'"),
        (b"a,b\n1,2\n", {"sep": ";;"}, "--sep must be one ASCII character"),
        (b"a,b\n1,2\n", {"sep": "€"}, "--sep must be one ASCII character"),
        (b"PAR1 and then nothing", {}, "data.csv: "),
        (b"a b\n1 2\n3 4\n", {}, "spaces between its columns.*sed"),
        (b"# made today\na,b\n1,2\n", {}, "line 1 is a comment.*grep"),
        (b"# made today, by me\n# with care\na,b\n1,2\n", {}, "line 1 is a comment"),
        (b'a,b\n1,"two\nlines"\n', {}, "quoted cell begins in line 2 and does not end"),
        (b'a,b\n"1,234.5",2\n', {}, "'a' has words.*'1,234.5' in line 2.*thousands"),
        (b"a;b\n1,5;2\n", {}, "'a' has words.*'1,5' in line 2.*--decimal ,"),
        (b"a;b\n1.500;2\n", {"decimal": ","}, "'a' has words.*'1.500' in line 2"),
        (b"a\n48.294\n" + b"\n" + b"1\n" * 6 + b"oops\nmore\n", {}, "'oops' in line 10.*--drop a"),
    ],
)
def test_a_file_that_cannot_be_read_says_what_to_do(
    content: bytes, given: Any, words: str, tmp_path: Path
):
    with pytest.raises(Failure, match=words):
        read(written(tmp_path, content), **given)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("1,2,3", "line 50002 has 3 columns, and there should be 2.*--sep"),
        ('1,"2', "quoted cell begins in line 50002"),
    ],
)
def test_a_line_far_down_that_is_unlike_the_others_is_named(last: str, words: str, tmp_path: Path):
    with pytest.raises(Failure, match=words):
        read(written(tmp_path, "a,b\n" + "1,2\n" * 50_000 + last + "\n1,2\n"))


def test_no_file_a_folder_and_a_pipe(tmp_path: Path):
    with pytest.raises(Failure, match="there is no file"):
        read(tmp_path / "none.csv")
    with pytest.raises(Failure, match="is a folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Failure, match="is no ordinary file.*save what comes from there"):
        read(tmp_path / "pipe")


def parquet(folder: Path, **columns: Any) -> Path:
    path = folder / "data.parquet"
    pyarrow.parquet.write_table(pa.table(list(columns.values()), list(columns)), path)
    return path


def test_columns_of_a_parquet_file_that_are_no_numbers_are_named(tmp_path: Path):
    for kind, column in {
        "list": [[1.0], [2.0]],
        "struct": [{"a": 1.0}, {"a": 2.0}],
        "timestamp": pd.to_datetime(["2020-01-01"] * 2),
    }.items():
        path = parquet(tmp_path, x=pa.array(column))
        with pytest.raises(Failure, match=f"column 'x' has cells of type {kind}.*--drop x"):
            read(path)
    path = parquet(tmp_path, x=pa.array([[1.0], [2.0]]))
    with pytest.raises(Failure, match="column 'x' has cells of type list.*no categories"):
        read(path, ["x"])
    table = pa.table([pa.array([1.0]), pa.array([2.0])], ["x", "x"])
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(Failure, match="several columns are called 'x'"):
        read(path)


def test_numbers_of_a_parquet_file_may_be_of_any_kind(tmp_path: Path):
    frame = read(
        parquet(
            tmp_path,
            whole=pa.array([1, None]),
            truth=pa.array([True, False]),
            text=pa.array(["1.5", "NA"], pa.large_string()),
            decimal=pa.array([1, 2], pa.decimal128(5, 2)),
        )
    )
    expected = [[1, 1, 1.5, 1], [np.nan, 0, np.nan, 2]]
    np.testing.assert_array_equal(frame.to_numpy(float), expected)


def test_the_index_of_a_pandas_frame_is_no_column(tmp_path: Path):
    path = tmp_path / "data.parquet"
    pd.DataFrame({"a": [1.0, 2.0]}, index=["x", "y"]).to_parquet(path)
    file = tables.opened(path, options())
    assert file.index == ("__index_level_0__",)


def test_pieces_add_up_to_the_table(tmp_path: Path):
    count = 700_000  # more than one piece
    frame = pd.DataFrame({"a": np.arange(count), "b": "w"})
    for name in ("data.csv", "data.parquet"):
        path = tmp_path / name
        frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path)
        found = list(tables.opened(path, options()).pieces())
        assert len(found) > 1
        whole = pa.concat_tables(found)
        np.testing.assert_array_equal(whole["a"].cast(pa.int64()).to_numpy(), frame["a"])
        assert set(whole["b"].to_pylist()) == {"w"}


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_what_is_appended_is_what_is_read(name: str, tmp_path: Path):
    first = pa.table({"a": [1.5, None], "b": ["x", None], "k": [0, 1]})
    with writing(tmp_path / name) as write:
        write(first)
        write(first)
    found = read(tmp_path / name, ["b"])
    assert found["a"].tolist()[0::2] == [1.5, 1.5]
    assert found["k"].tolist() == [0, 1, 0, 1]
    assert found["b"].tolist() == ["x", None, "x", None]


def test_texts_are_written_as_they_were_read(tmp_path: Path):
    text = 'a,"b,c"\n007,"one ""two"""\nNA,1e999\n12345678901234567890, x\n'
    path = written(tmp_path, text)
    with writing(tmp_path / "out.csv") as write:
        write(tables.opened(path, options()).whole())
    assert (tmp_path / "out.csv").read_text() == text


def test_what_has_no_text_is_refused_by_its_name(tmp_path: Path):
    table = pa.table({"x": pa.array([[1.0], [2.0]])})
    with (
        pytest.raises(Failure, match="'x' has cells of type list.*-o out.parquet"),
        writing(tmp_path / "out.csv") as write,
    ):
        write(table)


@pytest.mark.parametrize("size", [50, 64, 4096])
def test_empty_lines_of_one_column_are_rows_wherever_a_piece_ends(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cells = ["" if t % 3 == 1 else f"{t}.5" for t in range(500)]
    path = written(tmp_path, "v\n" + "".join(f"{cell}\n" for cell in cells))
    monkeypatch.setattr(tables, "PIECE", size)
    file = tables.opened(path, options())
    assert file.whole()["v"].to_pylist() == cells
    assert file.place(3) == "line 5"


def test_an_empty_line_between_steps_of_several_columns_is_named(tmp_path: Path):
    for text, line in (("a,b\n1,2\n\n\n3,4\n", "line 3"), ("a,b\r\n\r\n1,2\r\n", "line 2")):
        with pytest.raises(Failure, match=f"{line} is empty"):
            tables.opened(written(tmp_path, text), options()).refuse_gaps()
    for text in ("\na,b\n1,2\n3,4\n\n\n", "a,b\n1,2\n,\n", "a\n1\n\n2\n"):
        tables.opened(written(tmp_path, text), options()).refuse_gaps()


def test_many_columns_are_told_apart_in_time_that_grows_with_their_number(tmp_path: Path):
    """By the square it would be ten minutes."""
    names = [f"gene{j}" for j in range(200_000)]
    refuse_double(tmp_path, names)
    with pytest.raises(Failure, match="several columns are called 'gene7'"):
        refuse_double(tmp_path, [*names, "gene7"])
