"""What is remembered is bounded: by a number of programs, and by the memory maps that a process may have."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from marginax.jaxpr import remembered
from marginax.jaxpr.remembered import LIMIT, Remembered, make_room, share_taken

EACH_OF_ITS_OWN = """
import ctypes
import jax
import jax.numpy as jnp
import marginax as mx
from marginax import distributions as dist
from marginax.marginal import answers
from marginax.jaxpr.remembered import LIMIT, share_taken

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

def fill(share):
    count = int(share * int(LIMIT.read_text()))
    start = libc.mmap(None, 4096 * count, 3, 0x22, -1, 0)  # read and write; private and of no file
    for page in range(0, count, 2):  # each second page differs from its neighbours, so that each is a map
        assert libc.mprotect(start + 4096 * page, 4096, 1) == 0

fill(0.7 - share_taken())
for size in range(1, 41):
    def model(x, size=size):
        with mx.plate("rows", size):
            z = mx.sample("z", dist.Categorical(jnp.full(3, 1 / 3)))
            mx.sample("x", dist.Normal(jnp.arange(3.0)[z], 1.0), obs=x)
    mx.marginalize(model).log_density({}, jnp.zeros(size))
print(len(list(answers._remembered)))
"""


def test_the_programs_used_longest_ago_are_forgotten_first():
    store: Remembered[str] = Remembered(most=3)
    for name in "abc":
        store.add(name, name)
    assert store.find("a") == "a"
    store.add("d", "d")
    assert list(store) == ["c", "a", "d"]
    store.forget()
    assert list(store) == ["d"]
    store.forget()
    assert list(store) == []
    assert store.find("d") is None


def test_the_first_of_two_equal_programs_is_kept():
    store: Remembered[list[int]] = Remembered()
    first = store.add("key", [1])
    assert store.add("key", [2]) is first


@pytest.mark.parametrize(
    ("shares", "ours_go", "all_go"),
    [([0.4], False, False), ([0.6, 0.3], True, False), ([0.9, 0.8], True, True)],
)
def test_programs_go_where_maps_are_short(
    shares: list[float], ours_go: bool, all_go: bool, monkeypatch: pytest.MonkeyPatch
):
    cleared = []
    store: Remembered[str] = Remembered()
    monkeypatch.setattr(remembered, "_stores", [store])
    monkeypatch.setattr(remembered, "share_taken", iter(shares).__next__)
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(True))
    store.add("a", "a")
    make_room()
    assert (list(store) == []) == ours_go
    assert bool(cleared) == all_go


def test_a_system_that_counts_no_maps_has_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(remembered, "LIMIT", tmp_path / "none")
    assert share_taken() == 0


@pytest.mark.skipif(not LIMIT.exists(), reason="the system does not bound the maps")
def test_a_process_with_few_maps_left_keeps_few_programs():
    """Of forty; with maps to spare it keeps them all."""
    process = subprocess.run(
        [sys.executable, "-c", EACH_OF_ITS_OWN], capture_output=True, text=True, timeout=240
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 20
