"""Where draws go: gathered as rows, turned into sites' values in chunks, kept in memory or streamed to disk.

A chunk is a number of draws of all chains, some megabytes at most. Rows wait until one is full; then they
are constrained (in one compiled call of fixed shape) and handed to a *sink*. On disk each chunk is one
file of a Zarr array, written once it is complete and never touched again. So whatever moment a process
is killed at, no draw that a checkpoint counts is lost: complete chunks are on disk, and the rows that
wait are in the checkpoint itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np

from marginax.infer.mcmc.block import Layout
from marginax.storage import StorageError

Arrays = Mapping[str, np.ndarray]
"""By name, each of shape (chains, draws, ...)."""

CHUNK_BYTES = 2**24
MOST_ROWS = 1024

SAMPLES, FIELDS = "samples", "sample_stats"


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


class OnDisk:
    """A sink that is a Zarr group in a folder; other programs can read it.

    Parameters
    ----------
    path : path
        The folder.
    total : int
        How many draws of each chain there will be.
    chunk : int
        How many of them make a chunk.
    written : int
        How many draws a checkpoint says are there. If none, what is there is of a run that was killed
        before its first checkpoint, and is removed.
    """

    def __init__(
        self, path: str | os.PathLike[str], total: int, chunk: int, written: int = 0
    ) -> None:
        import zarr

        self._path = os.fspath(path)
        self._root = zarr.open_group(self._path, mode="a" if written else "w")
        self._total, self._chunk = total, chunk
        for group in (SAMPLES, FIELDS) if written else ():
            if not self.names(group):
                raise StorageError(
                    f"{self._path}: the checkpoint counts {written} draws of each chain, but there are no "
                    f"{group} here. Remove the whole folder of the checkpoint to begin anew."
                )

    def write(self, first: int, groups: Mapping[str, Arrays]) -> None:
        """See `Sink`."""
        for group, arrays in groups.items():
            for name, array in arrays.items():
                stop = first + array.shape[1]
                self._array(group, name, array)[:, first:stop] = array

    def _array(self, group: str, name: str, like: np.ndarray) -> Any:
        path = f"{group}/{quote(name, safe='')}"
        shape = (like.shape[0], self._total, *like.shape[2:])
        if path not in self._root:
            return self._root.create_array(
                path,
                shape=shape,
                dtype=like.dtype,
                chunks=(like.shape[0], self._chunk, *(max(n, 1) for n in like.shape[2:])),
                attributes={"name": name},
            )
        array: Any = self._root[path]
        if array.shape[1] < self._total:  # more draws are wanted than when it was made
            array.resize(shape)
        return array

    def names(self, group: str) -> list[str]:
        """See `Sink`."""
        if group not in self._root:
            return []
        members: Any = self._root[group]
        return [str(array.attrs["name"]) for _, array in members.arrays()]

    def array(self, group: str, name: str) -> Any:
        """See `Sink`."""
        return self._root[f"{group}/{quote(name, safe='')}"]


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
