"""Where draws go: gathered as rows, turned into sites' values in chunks, kept in memory or streamed to disk.

A chunk is a number of draws of all chains, some megabytes at most. Rows wait until one is full; then they
are constrained (in one compiled call of fixed shape) and handed to a *sink*. On disk each chunk is one
file of a Zarr array, written once it is complete and never touched again. So whatever moment a process
is killed at, no draw that a checkpoint counts is lost: complete chunks are on disk, and the rows that
wait are in the checkpoint itself. It also has a digest of every chunk that it counts (`OnDisk`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np

import marginax.storage as storage
from marginax.infer.mcmc.block import Layout

Arrays = Mapping[str, np.ndarray]
"""By name, each of shape (chains, draws, ...)."""

CHUNK_BYTES = 2**24
MOST_ROWS = 1024

SAMPLES, FIELDS = "samples", "sample_stats"
DESCRIPTION = "zarr.json"
"""What Zarr calls the file that describes an array or a group."""
ADVICE = (
    "The draws of the checkpoint are not complete without it: put back a copy of the whole folder, or remove the "
    "folder to begin anew."
)


class Sink(Protocol):
    """Keeps chunks of two groups of arrays: the sites' draws, and what the sampler reported."""

    def write(self, first: int, groups: Mapping[str, Arrays]) -> None:
        """Keep draws, the first of which has a number. They may be written again, if they are the same."""
        ...

    def names(self, group: str) -> list[str]:
        """The arrays of a group."""
        ...

    def array(self, group: str, name: str) -> Any:
        """Something with a shape and slices like a NumPy array's, (chains, draws, ...); perhaps on disk, and with
        more draws than there are so far.
        """
        ...


class Memory:
    """A sink that keeps chunks in memory."""

    def __init__(self) -> None:
        self._chunks: dict[int, Mapping[str, Arrays]] = {}

    def write(self, first: int, groups: Mapping[str, Arrays]) -> None:
        """See `Sink`."""
        self._chunks[first] = groups

    def names(self, group: str) -> list[str]:
        """See `Sink`."""
        return list(self._chunks[0][group]) if self._chunks else []

    def array(self, group: str, name: str) -> np.ndarray:
        """See `Sink`."""
        if len(self._chunks) > 1:  # one chunk from now on: arrays are asked for element by element
            chunks = [chunk for _, chunk in sorted(self._chunks.items())]
            self._chunks = {
                0: {
                    of: {n: np.concatenate([c[of][n] for c in chunks], axis=1) for n in arrays}
                    for of, arrays in chunks[0].items()
                }
            }
        return self._chunks[0][group][name]


@dataclass(frozen=True)
class Written:
    """What a checkpoint knows of an array on disk, so that nothing is read back that was not written."""

    group: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    """Of one draw."""
    digests: tuple[bytes, ...]
    """Of the files of its complete chunks, in order."""


class OnDisk:
    """A sink that is a Zarr group in a folder; other programs can read it.

    What the checkpoint says is believed, and not what is found here: of chunks that it counts every byte is held
    against their digests, before a run goes on and when draws are read; what describes the arrays is written anew;
    all else here is none of its draws.

    Parameters
    ----------
    path : path
        The folder.
    chains : int
        How many chains there are.
    total : int
        How many draws of each chain there will be.
    chunk : int
        How many of them make a chunk.
    written : sequence of Written
        What a checkpoint says is there. If nothing, what is there is removed.

    Raises
    ------
    StorageError
        When a chunk is gone or damaged; the message names its file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        chains: int,
        total: int,
        chunk: int,
        written: Sequence[Written] = (),
    ) -> None:
        import zarr

        self._path = Path(path)
        self._chains, self._total, self._chunk = chains, total, chunk
        self._arrays: dict[tuple[str, str], _Array] = {}
        self._checked: dict[Path, tuple[int, ...]] = {}
        for one in written:
            for number, digest in enumerate(one.digests):
                self._check(self._file(one.group, one.name, len(one.shape), number), digest)
        if written:
            for folder in (self._path, self._path / SAMPLES, self._path / FIELDS):
                (folder / DESCRIPTION).unlink(missing_ok=True)
        self._root = zarr.open_group(str(self._path), mode="a" if written else "w")
        for one in written:
            array = self._make(one.group, one.name, one.shape, np.dtype(one.dtype))
            array.digests.extend(one.digests)

    def write(self, first: int, groups: Mapping[str, Arrays]) -> None:
        """See `Sink`."""
        number = first // self._chunk
        for group, arrays in groups.items():
            for name, values in arrays.items():
                shape = values.shape[2:]
                array = self._arrays.get((group, name)) or self._make(
                    group, name, shape, values.dtype
                )
                file = self._file(group, name, len(shape), number)
                # Of a chunk that is not complete Zarr would read the rest.
                file.unlink(missing_ok=True)
                array.values[:, first : first + values.shape[1]] = values
                array.digests[number:] = [storage.file_digest(file)]

    def written(self, count: int) -> list[Written]:
        """What a checkpoint is to know, of so many draws in complete chunks."""
        complete = count // self._chunk
        return [
            Written(
                group,
                name,
                one.values.dtype.name,
                one.values.shape[2:],
                tuple(one.digests[:complete]),
            )
            for (group, name), one in self._arrays.items()
            if complete
        ]

    def names(self, group: str) -> list[str]:
        """See `Sink`."""
        return [name for of, name in self._arrays if of == group]

    def array(self, group: str, name: str) -> _Checked:
        """See `Sink`."""
        array = self._arrays[group, name]
        ndim = len(array.values.shape) - 2

        def check(draws: range) -> None:
            for number in range(draws[0] // self._chunk, draws[-1] // self._chunk + 1):
                if number < len(array.digests):
                    self._check(self._file(group, name, ndim, number), array.digests[number])

        return _Checked(array.values, check)

    def _make(self, group: str, name: str, shape: tuple[int, ...], dtype: np.dtype) -> _Array:
        from zarr.codecs import ZstdCodec

        path = _path(group, name)
        (self._path / path / DESCRIPTION).unlink(missing_ok=True)
        values = self._root.create_array(
            path,
            shape=(self._chains, self._total, *shape),
            dtype=dtype,
            chunks=(self._chains, self._chunk, *(max(n, 1) for n in shape)),
            compressors=ZstdCodec(checksum=True),  # for other programs, which know of no digests
            fill_value=np.nan if dtype.kind == "f" else None,  # no draw yet, or lost: not 0
            attributes={"name": name},
            config={"write_empty_chunks": True},  # otherwise a chunk of nothing else is no file
        )
        array = self._arrays[group, name] = _Array(values, [])
        return array

    def _file(self, group: str, name: str, ndim: int, number: int) -> Path:
        """Where Zarr has a chunk."""
        return self._path.joinpath(_path(group, name), "c", "0", str(number), *["0"] * ndim)

    def _check(self, file: Path, digest: bytes) -> None:
        """Every byte, the first time and whenever the file was touched since."""
        now = _touched(file)
        if not now or self._checked.get(file) != now:
            storage.check_file(file, digest, ADVICE)
            self._checked[file] = now


@dataclass(frozen=True)
class _Array:
    values: Any
    """Zarr's array."""
    digests: list[bytes]
    """Of the files of its chunks, in order."""


@dataclass(frozen=True)
class _Checked:
    """An array on disk of which every file is looked at before it is read."""

    values: Any
    check: Callable[[range], None]

    @property
    def shape(self) -> tuple[int, ...]:
        """With room for draws that there are not yet."""
        return self.values.shape

    def __getitem__(self, index: tuple[Any, ...]) -> np.ndarray:
        """What Zarr has at an index, whose second entry says which draws."""
        which = range(self.shape[1])[index[1]]
        self.check(which if isinstance(which, range) else range(which, which + 1))
        return np.asarray(self.values[index])


def _path(group: str, name: str) -> str:
    return f"{group}/{quote(name, safe='')}"


def _touched(file: Path) -> tuple[int, ...]:
    """What changes when a file does; nothing if there is none."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


class DrawStore:
    """The draws of a run, growing.

    Parameters
    ----------
    layout : Layout
        How rows are to be read.
    constrain : callable
        From positions, shape (chains, chunk, size), to values by site, each (chains, chunk, ...).
    chunk : int
        How many draws of each chain are constrained at once.
    sink : Sink
        Where they go.
    pending : array, optional
        Rows that wait, of a run that goes on.
    flushed : int
        How many draws are in the sink already.
    """

    def __init__(
        self,
        layout: Layout,
        constrain: Callable[[np.ndarray], Mapping[str, Any]],
        chunk: int,
        sink: Sink,
        pending: np.ndarray,
        flushed: int = 0,
    ) -> None:
        self.sink = sink
        self.pending = pending
        """Rows that wait, shape (chains, rows, width)."""
        self.flushed = flushed
        """How many draws are in complete chunks."""
        self._layout, self._constrain, self._chunk = layout, constrain, chunk

    @property
    def count(self) -> int:
        """How many draws of each chain there are."""
        return self.flushed + self.pending.shape[1]

    def append(self, rows: np.ndarray) -> None:
        """Add rows, shape (chains, rows, width)."""
        self.pending = np.concatenate([self.pending, rows], axis=1)
        while self.pending.shape[1] >= self._chunk:
            self._write(self.pending[:, : self._chunk])
            self.flushed += self._chunk
            self.pending = self.pending[:, self._chunk :]

    def finish(self) -> None:
        """Hand what waits to the sink, too; more may be added afterwards."""
        if self.pending.shape[1]:
            self._write(self.pending)

    def _write(self, rows: np.ndarray) -> None:
        count = rows.shape[1]
        missing = self._chunk - count  # the compiled call is made for whole chunks
        full = np.concatenate([rows, np.repeat(rows[:, -1:], missing, axis=1)], axis=1)
        values = self._constrain(self._layout.positions(full))
        samples = {name: np.asarray(value)[:, :count] for name, value in values.items()}
        self.sink.write(self.flushed, {SAMPLES: samples, FIELDS: self._layout.fields(rows)})

    def stored(self) -> Stored:
        """What `finish` has handed over."""
        return Stored(self.sink, self.count)


@dataclass(frozen=True)
class Stored:
    """Draws that may be on disk, to be read as far as they are needed."""

    sink: Sink
    count: int
    """Of each chain; there may be room for more."""

    def samples(self) -> dict[str, np.ndarray]:
        """All draws by site, shape (chains, draws, ...)."""
        return {name: self.read(SAMPLES, name) for name in self.sink.names(SAMPLES)}

    def fields(self) -> dict[str, np.ndarray]:
        """All that was reported, by name, shape (chains, draws)."""
        return {name: self.read(FIELDS, name) for name in self.sink.names(FIELDS)}

    def read(self, group: str, name: str, index: tuple[int, ...] = ()) -> np.ndarray:
        """All draws of one array, or of one of its elements."""
        array = self.sink.array(group, name)
        return np.asarray(array[(slice(None), slice(0, self.count), *index)])

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one draw of a site."""
        return tuple(self.sink.array(SAMPLES, name).shape[2:])

    def some(self, number: int) -> dict[str, np.ndarray]:
        """So many draws of each chain, evenly spread, without reading the others."""
        chosen = np.unique(np.linspace(0, self.count - 1, number).astype(int))
        return {
            name: np.stack([self.sink.array(SAMPLES, name)[:, int(i)] for i in chosen], axis=1)
            for name in self.sink.names(SAMPLES)
        }


def in_memory(samples: Arrays, fields: Arrays) -> Stored:
    """Draws that were not sampled by a run of chains."""
    sink = Memory()
    sink.write(0, {SAMPLES: samples, FIELDS: fields})
    return Stored(sink, next(iter(samples.values())).shape[1])


def chunk_size(bytes_of_a_draw: int, total: int) -> int:
    """How many draws make a chunk, if those of all chains together take so many bytes."""
    return max(1, min(CHUNK_BYTES // max(bytes_of_a_draw, 1), MOST_ROWS, total))
