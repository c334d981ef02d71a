"""One file holds named arrays: bit for bit, whole at any moment, and nothing in it is trusted."""

import io
import json
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from marginax import storage
from marginax.storage import StorageError
from marginax.storage.atomic import replacing

NAN_WITH_PAYLOAD = np.array([0x7FC0BEEF, 0xFFC00001, 0x7F800001], np.uint32).view(np.float32)
ARRAYS: dict[str, Any] = {
    "bool": np.array([True, False]),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 3), np.int8),
    "uint32": np.array([0, 2**32 - 1], np.uint32),
    "float16": np.array([[1.5, -0.0], [np.inf, np.nan]], np.float16),
    "float32": NAN_WITH_PAYLOAD,
    "float64": np.array([np.pi, 5e-324]),
    "complex": np.array([1 + 2j]),
    "bfloat16": jnp.array([1.0, -2.5, jnp.nan], jnp.bfloat16),
    "bfloat16 scalar": jnp.array(7, jnp.bfloat16),
    "float8": jnp.array([0.5, -1.0], jnp.float8_e5m2),
    "int4": jnp.array([-8, 7], jnp.int4),
    "jax": jnp.arange(6.0).reshape(2, 3),
    "['odd']/../naïve\n": np.ones(2),
    "": np.zeros(1),
}


def rewritten(path: Path, **entries: bytes | None) -> Path:
    """The archive with some entries replaced, added or (None) left out."""
    with zipfile.ZipFile(path) as archive:
        content: dict[str, bytes | None] = {n: archive.read(n) for n in archive.namelist()}
    content.update(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def header_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("about.json"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that holds one array."""
    storage.write(tmp_path / "run.npz", {"x": np.arange(3.0)}, {"step": 1})
    return tmp_path / "run.npz"


def test_arrays_come_back_bit_for_bit(path: Path):
    storage.write(path, ARRAYS, {})
    arrays, _ = storage.read(path)
    assert list(arrays) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        expected = np.asarray(expected)
        assert (arrays[name].shape, arrays[name].dtype) == (expected.shape, expected.dtype), name
        assert arrays[name].tobytes() == expected.tobytes(), name
        assert arrays[name].flags.writeable, name


def test_values_survive_another_memory_layout_and_byte_order(path: Path):
    expected = np.arange(6.0).reshape(2, 3)
    layouts = {"f": np.asfortranarray(expected), "big": expected.astype(">f8"), "t": expected.T}
    storage.write(path, layouts, {})
    arrays, _ = storage.read(path)
    np.testing.assert_array_equal(arrays["f"], expected)
    np.testing.assert_array_equal(arrays["big"], expected)
    np.testing.assert_array_equal(arrays["t"], expected.T)


def test_the_header_comes_back(path: Path):
    about = {"step": 3, "nested": [{"a": None, "b": True}], "text": "naïve 🙂", "x": 0.1}
    storage.write(path, {}, about)
    assert storage.read(path) == ({}, about)


def test_numpy_alone_can_read_the_file(path: Path):
    with np.load(path) as archive:
        np.testing.assert_array_equal(archive["x"], np.arange(3.0))


def test_the_same_content_makes_the_same_bytes(path: Path):
    before = path.read_bytes()
    storage.write(path, {"x": np.arange(3.0)}, {"step": 1})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arrays", "about", "reason"),
    [
        ({"x": np.array([None])}, {}, "'x'.*object"),
        ({"x": "text"}, {}, "'x'.*<U4"),
        ({"x": jax.random.key(0)}, {}, "'x'.*random key.*flatten"),
        ({3: np.ones(2)}, {}, "name.*3"),
        ({"a\0b": np.ones(2)}, {}, "name.*NUL"),
        ({}, {"x": np.ones(2)}, "header is not JSON.*arrays"),
        ({}, {"x": float("nan")}, "header is not JSON.*nan"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_the_old_file_stays(
    path: Path, arrays: Any, about: Any, reason: str
):
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError), match=reason):
        storage.write(path, arrays, about)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["run.npz"]


def test_a_disk_that_fails_leaves_the_old_file_alone(path: Path, monkeypatch: Any):
    def fail(descriptor: int) -> None:
        raise OSError("no space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        storage.write(path, {"x": np.zeros(5)}, {})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["run.npz"]


def test_a_symbolic_link_stays_one_and_permissions_are_the_users(path: Path):
    link = path.with_name("latest")
    link.symlink_to(path)
    storage.write(link, {}, {"step": 2})
    assert link.is_symlink()
    assert storage.read(path)[1] == {"step": 2}
    plain = path.with_name("plain")
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_missing_file_is_a_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        storage.read(tmp_path / "none")


def test_a_newer_version_is_told_from_damage(path: Path):
    header = header_of(path) | {"version": 2}
    with pytest.raises(StorageError, match=r"run.npz: .*version 2.*up to 1.*newer"):
        storage.read(rewritten(path, **{"about.json": json.dumps(header).encode()}))


@pytest.mark.parametrize("content", [b"", b"PK", b"text", pickle.dumps({"x": 1}), b"\0" * 100])
def test_foreign_files_are_refused(path: Path, content: bytes):
    path.write_bytes(content)
    with pytest.raises(StorageError, match="run.npz: .*damaged, or no file of Marginax"):
        storage.read(path)


def test_an_archive_of_someone_else_is_refused(path: Path):
    np.savez(path, x=np.ones(2))
    with pytest.raises(StorageError, match=r"no file of Marginax.*no about.json"):
        storage.read(path)
    storage.write(path, {}, {})
    with pytest.raises(StorageError, match="no file of Marginax"):
        storage.read(rewritten(path, **{"about.json": b'{"format": "other"}'}))


def test_every_truncation_is_noticed(path: Path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StorageError):
            storage.read(path)


class Bomb:
    """Unpickling it would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def test_a_pickle_in_the_file_is_not_executed(path: Path):
    trace = path.with_name("executed")
    rewritten(path, **{"x.npy": npy(np.array([Bomb(trace)], object))})
    with pytest.raises(StorageError, match="'x'"):
        storage.read(path)
    header = header_of(path)
    header["arrays"]["x"] = {"dtype": "object", "shape": [1]}
    rewritten(path, **{"about.json": json.dumps(header).encode()})
    with pytest.raises(StorageError):
        storage.read(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "float64", "shape": [10**15]},
        {"dtype": "float64", "shape": [2**62, 4]},
        {"dtype": "float64", "shape": [-1, -3]},
        {"dtype": "float64", "shape": [True, 3]},
        {"dtype": "float64", "shape": 3},
        {"dtype": "float32", "shape": [3]},
        {"dtype": ["float64"], "shape": [3]},
        {"dtype": "float64,float64", "shape": [3]},
        {},
        None,
    ],
)
def test_a_list_of_arrays_that_lies_is_refused(path: Path, entry: Any):
    header = header_of(path)
    header["arrays"]["x"] = entry
    with pytest.raises(StorageError):
        storage.read(rewritten(path, **{"about.json": json.dumps(header).encode()}))


@pytest.mark.parametrize(
    "header", [b"not JSON", b"[" * 10**5, b"[]", b"\xff\xfe", b'{"format": "marginax arrays"}']
)
def test_a_header_that_is_none_is_refused(path: Path, header: bytes):
    with pytest.raises(StorageError):
        storage.read(rewritten(path, **{"about.json": header}))


def test_entries_beside_the_listed_ones_are_refused_and_never_unpacked(path: Path):
    with pytest.raises(StorageError, match="other entries"):
        storage.read(rewritten(path, **{"../escaped": b"x"}))
    with pytest.raises(StorageError, match="other entries"):
        storage.read(rewritten(path, **{"../escaped": None, "x.npy": None}))
    assert not (path.parent.parent / "escaped").exists()


def test_a_zip_bomb_is_refused_before_it_grows(path: Path):
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("y.npy", bytes(10**7))
    with pytest.raises(StorageError, match="compressed"):
        storage.read(path)


def test_entries_that_share_their_bytes_are_refused(path: Path):
    storage.write(path, {"x": np.zeros(1000), "y": np.zeros(1000)}, {})
    with zipfile.ZipFile(path, "a") as archive:
        archive.getinfo("y.npy").header_offset = archive.getinfo("x.npy").header_offset
        archive.getinfo("about.json").file_size = 10**12
        archive.getinfo("about.json").compress_size = 10**12
        archive.writestr("z.npy", b"")  # so that the directory is written anew
    with pytest.raises(StorageError, match="larger than the file"):
        storage.read(path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_byte_is_an_error_or_does_no_harm(path: Path, data: Any):
    storage.write(path, {"x": np.arange(20.0), "y": jnp.ones(3, jnp.bfloat16)}, {"step": 1})
    expected, about = storage.read(path)
    content = bytearray(path.read_bytes())
    places = data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4))
    for place in places:
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        arrays, found = storage.read(path)
    except StorageError:
        return
    assert found == about
    assert {n: a.tobytes() for n, a in arrays.items()} == {
        n: a.tobytes() for n, a in expected.items()
    }


WRITER = """
import os, sys
import numpy as np
from marginax import storage
print("ready", flush=True)
for line in sys.stdin:  # one writer to be killed for each line; forked, as importing takes long
    writer = os.fork()
    if writer == 0:
        for v in range(5000):  # far more than it lives for
            storage.write(sys.argv[1], {"x": np.full(200000, float(v)), "y": np.array(v)}, {"v": v})
        os._exit(1)
    print(writer, flush=True)
    os.waitpid(writer, 0)
    print("dead", flush=True)
"""


def assert_is_one_version(path: Path) -> int:
    arrays, about = storage.read(path)
    assert (arrays["x"] == about["v"]).all()
    assert arrays["x"].shape == (200000,)
    assert arrays["y"] == about["v"]
    return about["v"]


def test_a_killed_writer_leaves_one_whole_version(tmp_path: Path):
    path = tmp_path / "run.npz"
    storage.write(path, {"x": np.zeros(200000), "y": np.array(0)}, {"v": 0})
    command = [sys.executable, "-W", "ignore", "-c", WRITER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        for delay in np.random.default_rng(0).uniform(0.01, 0.3, 10):
            parent.stdin.write("another\n")
            writer = int(parent.stdout.readline())
            deadline = time.monotonic() + delay
            while time.monotonic() < deadline:
                assert_is_one_version(path)  # also while it is being written
            os.kill(writer, signal.SIGKILL)
            assert parent.stdout.readline() == "dead\n"
            assert_is_one_version(path)
    storage.write(path, {}, {})
    assert os.listdir(tmp_path) == ["run.npz"]  # what the killed left behind is gone


def test_a_writer_that_lives_keeps_its_unfinished_file(path: Path):
    with replacing(path) as file:
        file.write(b"slow")
        storage.write(path, {}, {"step": 2})
        assert storage.read(path)[1] == {"step": 2}
        assert len(os.listdir(path.parent)) == 2
    assert path.read_bytes() == b"slow"


def test_writers_at_the_same_time_do_not_mix(path: Path):
    def write(value: int) -> None:
        for _ in range(10):
            storage.write(path, {"x": np.full(10000, value)}, {"v": value})

    threads = [threading.Thread(target=write, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        arrays, about = storage.read(path)
        if "v" in about:
            assert (arrays["x"] == about["v"]).all()
    assert os.listdir(path.parent) == ["run.npz"]


class State(NamedTuple):
    """What a training loop might carry."""

    optimiser: Any
    key: Any
    step: int


def make_state(seed: int) -> State:
    params = {
        "w": jnp.full((2, 3), float(seed)),
        "b": [jnp.ones(2, jnp.bfloat16), jnp.arange(seed)],
    }
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.constant_schedule(0.1))
    )
    keys = {
        "typed": jax.random.split(jax.random.key(seed, impl="rbg"), 2),
        "old": jax.random.PRNGKey(1),
    }
    return State((params, optimiser.init({"w": params["w"]})), keys, seed)


def test_a_tree_comes_back_through_a_file(path: Path):
    state = make_state(5)
    storage.write(path, storage.flatten(state), {})
    arrays, _ = storage.read(path)
    template = jax.eval_shape(lambda: make_state(5))._replace(step=0)
    for like in (state, template):
        found = storage.fill(like, arrays)
        assert jax.tree.structure(found) == jax.tree.structure(state)
        assert type(found.step) is int
        assert found.key["typed"].dtype == state.key["typed"].dtype
        expected = storage.flatten(state)
        for name, leaf in storage.flatten(found).items():
            assert leaf.dtype == expected[name].dtype
            np.testing.assert_array_equal(leaf, expected[name])


def test_a_tree_may_be_a_leaf_or_have_none():
    assert storage.fill(1.5, storage.flatten(2.5)) == 2.5
    assert storage.fill({"a": None}, storage.flatten({"a": None})) == {"a": None}
    key = jax.random.key(3)
    restored = storage.fill(jax.random.key(0), storage.flatten(key))
    np.testing.assert_array_equal(jax.random.key_data(restored), jax.random.key_data(key))


def test_numpy_leaves_stay_numpys_and_keep_their_precision():
    tree = {"x": np.array([np.pi]), "flag": True}
    found = storage.fill({"x": np.zeros(1), "flag": False}, storage.flatten(tree))
    assert isinstance(found["x"], np.ndarray)
    assert found["x"][0] == np.pi
    assert found["flag"] is True


def test_double_precision_is_not_cut_in_silence():
    saved = storage.flatten({"x": np.array([np.pi])})
    template = {"x": jax.ShapeDtypeStruct((1,), np.float64)}
    with pytest.raises(StorageError, match=r"\['x'\].*float32.*float64.*jax_enable_x64"):
        storage.fill(template, saved)
    with jax.enable_x64(True):
        assert storage.fill(template, saved)["x"].dtype == np.float64


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ({"x": jnp.ones(3)}, r"\['x'\].*float32\[2\].*float32\[3\]"),
        ({"x": jnp.ones(2, int)}, r"\['x'\].*float32\[2\].*int32\[2\]"),
        ({"y": jnp.ones(2)}, r"\['y'\].*not saved"),
        ({}, r"\['x'\].*no place.*optimiser"),
        ({"x": jax.random.key(0)}, r"\['x'\].*random key.*none"),
    ],
)
def test_a_leaf_that_does_not_fit_is_named(template: Any, reason: str):
    with pytest.raises(StorageError, match=reason):
        storage.fill(template, storage.flatten({"x": jnp.ones(2)}))


def test_keys_that_do_not_fit_are_named():
    saved = storage.flatten({"k": jax.random.key(0)})
    for template in (jax.random.key(0, impl="rbg"), jax.random.split(jax.random.key(0))):
        with pytest.raises(StorageError, match=r"\['k'\].*key<"):
            storage.fill({"k": template}, saved)
    with pytest.raises(StorageError, match=r"\['k'\]@nonsense.*no random key"):
        storage.fill({"k": jax.random.key(0)}, {"['k']@nonsense": np.zeros(2, np.uint32)})


def test_a_leaf_that_is_no_number_is_named():
    with pytest.raises(TypeError, match=r"\['f'\]"):
        storage.flatten({"f": "text"})


# -- whoever replaces a file


def test_what_may_be_done_with_a_file_stays(path: Path):
    path.chmod(0o640)
    storage.write(path, {}, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_is_no_ordinary_file_is_written_to(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    reader.start()
    storage.replace_text(pipe, "a page")
    reader.join(10)
    assert heard == [b"a page"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path: Path):
    before = path.read_bytes()

    def write() -> None:
        with replacing(path) as file:
            file.write(b"half of it")
            full = os.open("/dev/full", os.O_WRONLY)  # where every byte fails
            os.dup2(full, file.fileno())
            os.close(full)

    with pytest.raises(OSError, match="No space left"):
        write()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["run.npz"]


TERMINATED = """
import sys, time
from marginax.storage import replacing
with replacing(sys.argv[1] + "/one") as one, replacing(sys.argv[1] + "/two") as two:
    one.write(b"half")
    one.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_writer_that_is_told_to_end_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "one").write_text("as it was")
    command = [sys.executable, "-c", TERMINATED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        assert len(os.listdir(tmp_path)) == 3
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
        assert process.stderr.read() == b""
    assert os.listdir(tmp_path) == ["one"]
    assert (tmp_path / "one").read_text() == "as it was"


def test_nothing_is_written_in_place():
    """Every file that the library writes goes through `replacing`, or is a bytes buffer or Zarr's."""
    source = Path(storage.__file__).parents[1]
    in_place = re.compile(
        r"\.write_(text|bytes)\(|\.to_(csv|parquet|netcdf|json)\(|np\.savez?\w*\(|[^.]open\([^)]*[\"'][wax]b?\+?[\"']"
    )
    found = {
        (file.name, line.strip())
        for file in source.rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if in_place.search(line) and not line.lstrip().startswith(("...", ">>>"))
    }
    assert {name for name, _ in found} == {"atomic.py"}, found
