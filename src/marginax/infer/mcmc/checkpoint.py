"""Checkpoints of MCMC: a folder with where the chains are, and with the draws so far.

``state`` is one file, replaced in a single step: the chains, the rows that wait for their chunk to be
complete, and what tells this run from others. ``draws.zarr`` holds the complete chunks. They are written
first, so that the file never counts a draw that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import marginax.storage as storage
from marginax.infer.mcmc.block import Chain

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
    leaves: Mapping[str, np.ndarray]

    def chains(self, template: Chain) -> Chain:
        """The chains, in the structure of others of the same program."""
        return storage.fill(template, self.leaves)


def write_run(saved: SavedRun, chains: Chain) -> None:
    """Write where a run stands; its complete chunks are on disk already."""
    arrays = storage.prefixed("chain:", storage.flatten(chains))
    header = {
        "kind": KIND,
        "run": dict(saved.about),
        **{name: getattr(saved, name) for name in _NUMBERS},
    }
    storage.write(saved.folder / STATE, arrays | {"pending": saved.pending}, header)


def read_run(folder: Path) -> SavedRun | None:
    """Read where a run stood; None if there is none.

    Raises
    ------
    StorageError
        When the file is damaged, or no checkpoint of MCMC.
    """
    path = folder / STATE
    if not path.exists():
        return None
    arrays, header = storage.read(path)
    if header.get("kind") != KIND:
        raise storage.StorageError(f"{path}: it holds '{header.get('kind')}', not '{KIND}'.")
    leaves = storage.group("chain:", arrays)
    try:
        numbers = {name: int(header[name]) for name in _NUMBERS}
        return SavedRun(folder, header["run"], pending=arrays["pending"], leaves=leaves, **numbers)
    except KeyError as error:
        raise storage.StorageError(f"{path}: it lacks its {error}.") from error


_NUMBERS = ("done", "divergences", "flushed", "chunk")
