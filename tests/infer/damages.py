"""What happens to files: random damages to a folder, each kind by its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np


def damage(folder: Path, kind: str, rng: np.random.Generator) -> list[Path]:
    """Damage a random file of a folder, or several; returns those that are not what they were."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    one, other = (files[number] for number in rng.choice(len(files), 2, replace=False))
    return DAMAGES[kind](one, other, rng)


def _flipped(one: Path, other: Path, rng: np.random.Generator) -> list[Path]:
    content = bytearray(one.read_bytes())
    bit = int(rng.integers(8 * len(content)))
    content[bit // 8] ^= 1 << bit % 8
    one.write_bytes(content)
    return [one]


def _cut(one: Path, other: Path, rng: np.random.Generator) -> list[Path]:
    content = one.read_bytes()
    one.write_bytes(content[: int(rng.integers(len(content)))])
    return [one]


def _emptied(one: Path, other: Path, rng: np.random.Generator) -> list[Path]:
    one.write_bytes(b"")
    return [one]


def _zeroed(one: Path, other: Path, rng: np.random.Generator) -> list[Path]:
    """A part of it, as of a sector that was never written."""
    content = bytearray(one.read_bytes())
    begin, end = sorted(int(n) for n in rng.integers(len(content) + 1, size=2))
    content[begin:end] = bytes(end - begin)
    one.write_bytes(content)
    return [one]


def _deleted(one: Path, other: Path, rng: np.random.Generator) -> list[Path]:
    one.unlink()
    return [one]


def _folder_deleted(one: Path, other: Path, rng: np.random.Generator) -> list[Path]:
    """The one that the file is in, unless that is all."""
    if "state" in {path.name for path in one.parent.iterdir()}:
        return _deleted(one, other, rng)
    gone = sorted(path for path in one.parent.rglob("*") if path.is_file())
    shutil.rmtree(one.parent)
    return gone


def _renamed(one: Path, other: Path, rng: np.random.Generator) -> list[Path]:
    one.rename(one.with_name(f"{one.name}.moved"))
    return [one]


def _swapped(one: Path, other: Path, rng: np.random.Generator) -> list[Path]:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return [one, other]


def _swapped_with_its_like(one: Path, other: Path, rng: np.random.Generator) -> list[Path]:
    """A file of the same name elsewhere, or beside it: a chunk of another array, or another chunk of the same."""
    root = one
    while not (root / "state").exists():
        root = root.parent
    alike = [p for p in root.rglob("*") if p.is_file() and p != one]
    alike = [p for p in alike if p.name == one.name or p.parent == one.parent] or [other]
    return _swapped(one, sorted(alike)[int(rng.integers(len(alike)))], rng)


def _replaced(one: Path, other: Path, rng: np.random.Generator) -> list[Path]:
    shutil.copy(other, one)
    return [one]


DAMAGES: dict[str, Callable[[Path, Path, np.random.Generator], list[Path]]] = {
    "flipped": _flipped,
    "cut": _cut,
    "emptied": _emptied,
    "zeroed": _zeroed,
    "deleted": _deleted,
    "folder deleted": _folder_deleted,
    "renamed": _renamed,
    "swapped": _swapped,
    "swapped with its like": _swapped_with_its_like,
    "replaced": _replaced,
}
