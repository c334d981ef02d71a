"""Batches: every row once an epoch, an order that can be resumed, one reader that ends when told."""

import itertools
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from marginax.infer.batches import as_arguments, epochs, minibatches, prefetched, rows


@pytest.fixture
def small_windows(monkeypatch: Any) -> None:
    """Blocks of 4 rows and windows of 16, for rows of 8 bytes."""
    monkeypatch.setattr(epochs, "BLOCK_BYTES", 4 * 8)
    monkeypatch.setattr(epochs, "WINDOW_BYTES", 16 * 8)


class Watched:
    """An array that remembers which ranges of rows were read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.ranges: list[tuple[int, int]] = []

    def __getitem__(self, part: slice) -> np.ndarray:
        assert isinstance(part, slice)
        self.ranges.append((part.start, part.stop))
        return self.array[part]


# An order of the rows


@pytest.mark.parametrize("num_rows", [1, 3, 4, 17, 50, 97])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 30])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.usefixtures("small_windows")
def test_every_row_comes_once_an_epoch(num_rows: int, batch_size: int, shuffle: bool):
    data = np.arange(num_rows)
    batches = minibatches(data, batch_size, shuffle=shuffle)
    for _ in range(2):
        found = list(batches)
        assert len(found) == len(batches) == -(-num_rows // batch_size)
        assert [len(batch) for batch in found[:-1]] == [batch_size] * (len(found) - 1)
        np.testing.assert_array_equal(np.sort(np.concatenate(found)), data)
        if not shuffle:
            np.testing.assert_array_equal(np.concatenate(found), data)


@pytest.mark.usefixtures("small_windows")
def test_the_last_batch_may_be_left_out():
    batches = minibatches(np.arange(50), 8, drop_last=True)
    found = list(batches)
    assert [len(batch) for batch in found] == [8] * 6
    assert len(batches) == 6
    assert len(np.unique(np.concatenate(found))) == 48
    assert len(minibatches(np.arange(48), 8, drop_last=True)) == 6


@pytest.mark.usefixtures("small_windows")
def test_the_order_is_a_function_of_seed_and_epoch():
    def epoch(number: int, seed: int = 3) -> list[int]:
        return np.concatenate(list(minibatches(np.arange(90), 7, seed=seed).epoch(number))).tolist()

    batches = minibatches(np.arange(90), 7, seed=3)
    iterated = [np.concatenate(list(batches)).tolist() for _ in range(3)]
    assert iterated == [epoch(0), epoch(1), epoch(2)]
    assert len({tuple(order) for order in [*iterated, epoch(0, seed=4)]}) == 4


@pytest.mark.parametrize("first", range(14))
@pytest.mark.usefixtures("small_windows")
def test_an_epoch_can_begin_at_any_batch(first: int):
    batches = minibatches(np.arange(90), 7)
    whole = list(batches.epoch(2))
    rest = list(batches.epoch(2, first))
    assert len(rest) == len(whole) - first
    for found, expected in zip(rest, whole[first:], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_small_data_are_in_uniformly_random_order():
    batches = minibatches(np.arange(4), 4)
    epochs_seen = 2400
    orders = [tuple(next(batches.epoch(i))) for i in range(epochs_seen)]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.usefixtures("small_windows")
def test_of_large_data_blocks_and_then_the_rows_of_a_window_are_shuffled():
    data = Watched(np.arange(100))
    found = list(minibatches(data, 8))
    assert {stop - start for start, stop in data.ranges} == {4}  # 25 blocks of 4 rows
    starts = [start for start, _ in data.ranges]
    assert starts != sorted(starts)
    for window in range(6):  # two batches each
        read = np.concatenate([np.arange(*r) for r in data.ranges[4 * window : 4 * window + 4]])
        given = np.concatenate(found[2 * window : 2 * window + 2])
        np.testing.assert_array_equal(np.sort(given), np.sort(read))
        assert given.tolist() != read.tolist()


@pytest.mark.usefixtures("small_windows")
def test_every_row_is_equally_likely_to_come_at_any_time():
    batches = minibatches(np.arange(23), 5)  # the last block is shorter than the others
    firsts = np.array([next(batches.epoch(i))[0] for i in range(4600)])
    assert stats.chisquare(np.bincount(firsts, minlength=23)).pvalue > 1e-4


def test_a_memory_map_is_read_a_window_at_a_time(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(epochs, "WINDOW_BYTES", 1000 * 8)
    np.save(tmp_path / "x.npy", np.arange(100_000.0))
    data = Watched(np.load(tmp_path / "x.npy", mmap_mode="r"))
    iterator = iter(minibatches(data, 100))
    next(iterator)
    assert sum(stop - start for start, stop in data.ranges) == 1000
    assert len(list(iterator)) == 999


def test_jumping_reads_nothing_before():
    data = Watched(np.arange(1000))
    next(minibatches(data, 10, shuffle=False).epoch(0, first=50))
    assert data.ranges == [(500, 510)]


@pytest.mark.usefixtures("small_windows")
def test_batches_have_the_structure_of_the_data():
    x, y = np.arange(60).reshape(20, 3), jnp.arange(20.0)
    for batch in minibatches((x, y), 6):
        assert isinstance(batch, tuple)
        np.testing.assert_array_equal(batch[0][:, 0], 3 * batch[1])
    for batch in minibatches({"x": x, "y": y}, 6):
        np.testing.assert_array_equal(batch["x"][:, 2], 3 * batch["y"] + 2)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.usefixtures("small_windows")
def test_an_arrow_table_gives_arrow_tables(shuffle: bool):
    table = pa.table({"x": np.arange(50.0), "y": np.arange(50) ** 2})
    table = pa.concat_tables([table.slice(0, 13), table.slice(13)])  # in chunks
    found = []
    for batch in minibatches(table, 7, shuffle=shuffle):
        assert isinstance(batch, pa.Table)
        _, kwargs = as_arguments(batch)
        np.testing.assert_array_equal(kwargs["x"] ** 2, kwargs["y"])
        found += kwargs["x"].tolist()
    assert sorted(found) == list(range(50))
    assert (found == list(range(50))) is not shuffle


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (np.arange(3), {"batch_size": 0}, "batch_size.*>= 1, not 0"),
        (np.arange(3), {"batch_size": 2.0}, r"batch_size.*not 2\.0"),
        (np.arange(3), {"batch_size": 2, "seed": -1}, "seed.*-1"),
        (np.zeros((0, 2)), {"batch_size": 2}, "0 rows"),
        (np.arange(3), {"batch_size": 4, "drop_last": True}, "3 rows.*no batch of 4"),
        ((np.ones(3), np.ones(4)), {"batch_size": 2}, r"equally many rows.*\[3, 4\]"),
        ((), {"batch_size": 2}, "equally many rows.*none"),
        (np.float64(3.0), {"batch_size": 2}, "no rows"),
        ([1.0, 2.0], {"batch_size": 2}, "float has no rows"),
        (pa.record_batch({"x": [1.0]}), {"batch_size": 1}, "pyarrow.Table.*from_batches"),
    ],
)
def test_data_that_make_no_batches_are_refused(data: Any, options: Any, reason: str):
    with pytest.raises((TypeError, ValueError), match=reason):
        minibatches(data, **options)


# A batch as arguments


def test_what_a_batch_may_be():
    x, y = np.ones(3), np.zeros(3)
    assert as_arguments(x) == ((x,), {})
    assert as_arguments((x, y)) == ((x, y), {})
    assert as_arguments([x, 3]) == ((x, 3), {})
    assert as_arguments({"x": x, "K": 3}) == ((), {"x": x, "K": 3})
    for table in (pa.table({"a": x, "b": [1, 2, 3]}), pa.record_batch({"a": x, "b": [1, 2, 3]})):
        args, kwargs = as_arguments(table)
        assert args == ()
        np.testing.assert_array_equal(kwargs["a"], x)
        np.testing.assert_array_equal(kwargs["b"], [1, 2, 3])


class Column:
    """What a column of a pandas frame offers."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def isna(self) -> np.ndarray:
        return np.array([value is None or value != value for value in self.values])

    def to_numpy(self) -> np.ndarray:
        return self.values


class Frame(dict[str, Column]):
    """What a pandas frame offers, as far as it is used."""

    dtypes = None

    @property
    def columns(self) -> list[str]:
        return list(self)

    def to_numpy(self) -> Any:
        raise AssertionError("a frame is read by columns")


def test_the_columns_of_a_data_frame_become_keyword_arguments():
    args, kwargs = as_arguments(Frame(x=Column(np.ones(2)), y=Column(np.arange(2))))
    assert args == ()
    np.testing.assert_array_equal(kwargs["x"], [1.0, 1.0])
    np.testing.assert_array_equal(kwargs["y"], [0, 1])
    with pytest.raises(ValueError, match="column 'x' has 1 missing"):
        as_arguments(Frame(x=Column(np.array([1.0, np.nan]))))
    with pytest.raises(TypeError, match="column 'name' .*no numbers"):
        as_arguments(Frame(name=Column(np.array(["a", "b"], object))))


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (pa.table({"x": [1.0, None]}), "column 'x' has 1 missing values"),
        (pa.table({"name": ["a", "b"]}), "column 'name' .*no numbers but object"),
        (pa.table({"when": pa.array([0, 1], pa.timestamp("s"))}), "column 'when'.*datetime64"),
        ({"x": np.array(["a"])}, "entry 'x'.*no numbers but <U1"),
        ((np.ones(1), np.array([None])), "element 1.*object"),
        ({1: np.ones(1)}, "name 1 is not a string"),
        (3.0, "not float"),
        ("text", "not str"),
    ],
)
def test_what_a_model_cannot_take_is_refused_by_name(batch: Any, reason: str):
    with pytest.raises((TypeError, ValueError), match=reason):
        as_arguments(batch)


def test_rows_are_counted_along_the_first_array():
    assert rows((np.ones((5, 2)),), {}) == 5
    assert rows((3, None), {"x": jnp.ones(4)}) == 4
    assert rows((3,), {}) == 1


# The reader


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("marginax-batches")]


def taken(batches: Any, count: int, **options: Any) -> list[Any]:
    with prefetched(batches, **options) as stream:
        return [args[0].tolist() for args, _ in itertools.islice(stream, count)]


def test_batches_arrive_on_the_device_in_order():
    with prefetched([(np.arange(3), 7), {"x": np.ones(2)}]) as stream:
        (array, number), kwargs = next(stream)
        assert isinstance(array, jax.Array)
        assert type(number) is int
        assert kwargs == {}
        args, kwargs = next(stream)
        assert args == ()
        assert isinstance(kwargs["x"], jax.Array)


def test_what_can_be_iterated_again_begins_again():
    class Twice:
        def __iter__(self) -> Iterator[np.ndarray]:
            return iter([np.zeros(1), np.ones(1)])

    for batches in (Twice(), list(Twice()), tuple(Twice())):
        assert taken(batches, 5) == [[0.0], [1.0], [0.0], [1.0], [0.0]]
        assert taken(batches, 3, skip=3) == [[1.0], [0.0], [1.0]]


def test_minibatches_go_on_with_the_next_epoch_from_wherever_a_run_stopped():
    batches = minibatches(np.arange(10), 4)
    next(iter(batches))  # epochs begun elsewhere change nothing
    expected = [b.tolist() for epoch in range(4) for b in batches.epoch(epoch)]
    assert taken(batches, 12) == expected
    for skip in range(11):
        assert taken(batches, 2, skip=skip) == expected[skip : skip + 2]


def test_a_generator_ends_the_stream():
    assert taken((np.full(1, i) for i in range(3)), 10) == [[0], [1], [2]]
    assert taken((np.full(1, i) for i in range(3)), 10, skip=2) == [[2]]
    assert taken((np.full(1, i) for i in range(3)), 10, ahead=5) == [[0], [1], [2]]


def test_skipped_batches_are_jumped_over_or_at_least_not_converted():
    data = Watched(np.arange(40))
    assert taken(minibatches(data, 4, shuffle=False), 1, skip=25, ahead=1) == [[20, 21, 22, 23]]
    assert data.ranges[0] == (20, 24)
    unconvertible = iter(["text", np.ones(1)])
    assert taken(unconvertible, 1, skip=1) == [[1.0]]


def test_reading_runs_ahead_so_far_and_no_farther():
    read: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for i in itertools.count():
            read.append(i)
            yield np.full(1, i)

    with prefetched(source(), ahead=3) as stream:
        next(stream)
        deadline = time.monotonic() + 10
        while len(read) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert len(read) == 4  # one used, three in front
    assert readers() == []


def test_the_consumer_does_not_wait_for_what_is_read_in_the_meantime():
    pace = threading.Semaphore(2)

    def source() -> Iterator[np.ndarray]:
        for i in itertools.count():
            assert pace.acquire(timeout=10)
            yield np.full(1, i)

    with prefetched(source(), ahead=1) as stream:
        assert next(stream)[0][0] == 0  # the reader is stopped at the third batch now
        assert next(stream)[0][0] == 1
        pace.release()
        assert next(stream)[0][0] == 2
        pace.release()  # let it end


def test_leaving_early_stops_the_reader():
    before = time.monotonic()
    for batches in (itertools.repeat(np.ones(1)), minibatches(np.arange(9), 2), [np.ones(1)]):
        with prefetched(batches, ahead=4) as stream:
            next(stream)
        assert readers() == []
    with pytest.raises(KeyError), prefetched(itertools.repeat(np.ones(1))):
        raise KeyError
    assert readers() == []
    assert time.monotonic() - before < 10


def test_an_exception_of_the_reader_comes_where_its_batch_would():
    def breaks_here() -> Iterator[np.ndarray]:
        yield np.zeros(1)
        yield np.ones(1)
        raise OSError("disk is gone")

    with prefetched(breaks_here(), ahead=4) as stream:
        assert [next(stream)[0][0] for _ in range(2)] == [0.0, 1.0]
        with pytest.raises(OSError, match="disk is gone") as info:
            next(stream)
        assert "breaks_here" in "".join(traceback.format_tb(info.tb))
        with pytest.raises(StopIteration):
            next(stream)
    with (
        pytest.raises(ValueError, match="column 'x' has 1 missing"),
        prefetched([pa.table({"x": [None]})]) as stream,
    ):
        next(stream)
    assert readers() == []


def test_a_batch_is_a_copy_so_its_maker_may_use_the_memory_again():
    def source() -> Iterator[np.ndarray]:
        buffer = np.empty(2**16, np.float32)
        for i in range(20):
            buffer[:] = i
            yield buffer

    with prefetched(source(), ahead=5) as stream:
        for i, ((array,), _) in enumerate(stream):
            assert (array == i).all()


def test_precision_is_that_of_the_consumer():
    for double in (True, False):
        with jax.enable_x64(double), prefetched([np.ones(1)]) as stream:
            (array,), _ = next(stream)
            assert array.dtype == (np.float64 if double else np.float32)


class GoneAfterOnce:
    """Claims that it can be iterated again."""

    def __init__(self) -> None:
        self.batches = iter([np.ones(1)])

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from self.batches


@pytest.mark.parametrize(
    ("batches", "options", "reason"),
    [
        (np.ones((4, 2)), {}, r"one ndarray.*minibatches\(data, batch_size\)"),
        (jnp.ones((4, 2)), {}, r"minibatches\(data, batch_size\)"),
        ({"x": np.ones(3)}, {}, r"one dict.*minibatches\(data, batch_size\)"),
        (pa.table({"x": [1.0]}), {}, r"one Table.*minibatches\(data, batch_size\)"),
        (3, {}, "iterable of batches, not int"),
        ([], {}, "no batch at all"),
        (iter([]), {}, "no batch at all"),
        (GoneAfterOnce(), {}, "no batch when iterated again.*generator"),
        (iter([np.ones(1)]), {"skip": 3}, "ended after 1.*3 to skip"),
        ([np.ones(1)], {"skip": -1}, "skip.*-1"),
        ([np.ones(1)], {"ahead": 0}, "ahead.*0"),
    ],
)
def test_what_is_no_stream_of_batches_is_refused(batches: Any, options: Any, reason: str):
    with (
        pytest.raises((TypeError, ValueError), match=reason),
        prefetched(batches, **options) as stream,
    ):
        list(itertools.islice(stream, 5))
    assert readers() == []
