"""Checkpoints of MCMC: a folder with where the chains are, and with the draws so far.

``state`` is one file, replaced in a single step: the chains, the rows that wait for their chunk to be
complete, and what tells this run from others. ``draws.zarr`` holds the complete chunks. They are written
first, so that the file never counts a draw that is not there; and it has their digests, so that none is
taken for a draw that was not one. The first ``state`` is written before there are draws: if there are draws
without one, it was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import marginax.storage as storage
from marginax.infer.mcmc.block import Chain
from marginax.infer.mcmc.draws import Written

KIND = "mcmc run"
STATE, DRAWS = "state", "draws.zarr"


@dataclass(frozen=True)
class SavedRun:
    """Where a run stood."""

    folder: Path
    about: Mapping[str, Any]
    """What tells it from others."""
    done: int
    """Iterations, warm-up included."""
    divergences: int
    """After warm-up."""
    flushed: int
    """Draws in complete chunks."""
    chunk: int
    pending: np.ndarray
    """Rows that wait, shape (chains, rows, width)."""
    written: Sequence[Written]
    """The arrays of the complete chunks."""
    leaves: Mapping[str, np.ndarray]

    def chains(self, template: Chain) -> Chain:
        """The chains, in the structure of others of the same program."""
        return storage.fill(template, self.leaves)


def write_run(saved: SavedRun, chains: Chain) -> None:
    """Write where a run stands; its complete chunks are on disk already."""
    arrays = storage.prefixed("chain:", storage.flatten(chains))
    digests = [np.frombuffer(b"".join(one.digests), np.uint8) for one in saved.written]
    arrays |= storage.prefixed("digests:", {str(n): array for n, array in enumerate(digests)})
    header = {
        "kind": KIND,
        "run": dict(saved.about),
        "written": [[one.group, one.name, one.dtype, one.shape] for one in saved.written],
        **{name: getattr(saved, name) for name in _NUMBERS},
    }
    storage.write(saved.folder / STATE, arrays | {"pending": saved.pending}, header)


def read_run(folder: Path) -> SavedRun | None:
    """Read where a run stood; None if there is none.

    Raises
    ------
    StorageError
        When the file is damaged, or no checkpoint of MCMC, or there are draws without it.
    """
    path = folder / STATE
    if not path.exists():
        if (folder / DRAWS).exists():
            raise storage.StorageError(
                f"{path}: this file is gone, without which the draws in {folder / DRAWS} are none of a run. Put it "
                "back, or remove the whole folder to begin anew."
            )
        return None
    arrays, header = storage.read(path)
    if header.get("kind") != KIND:
        raise storage.StorageError(f"{path}: it holds '{header.get('kind')}', not '{KIND}'.")
    leaves = storage.group("chain:", arrays)
    try:
        numbers = {name: int(header[name]) for name in _NUMBERS}
        written = [
            Written(group, name, dtype, tuple(shape), _digests(arrays[f"digests:{n}"]))
            for n, (group, name, dtype, shape) in enumerate(header["written"])
        ]
        return SavedRun(
            folder,
            header["run"],
            pending=arrays["pending"],
            written=written,
            leaves=leaves,
            **numbers,
        )
    except KeyError as error:
        raise storage.StorageError(f"{path}: it lacks its {error}.") from error


def _digests(together: np.ndarray) -> tuple[bytes, ...]:
    return tuple(each.tobytes() for each in together.reshape(-1, storage.DIGEST_SIZE))


_NUMBERS = ("done", "divergences", "flushed", "chunk")
