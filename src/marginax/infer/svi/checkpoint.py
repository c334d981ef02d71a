"""Checkpoints of SVI: where a run stands, in a file to go on from.

It holds arrays and JSON (`marginax.storage`), nothing that is executed. The structure of an optimiser's
state is not stored: whoever goes on from it makes it anew, with the same model, guide and optimiser, and
has the saved leaves put in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import marginax.storage as storage
from marginax.infer.running.fingerprint import refuse_another_run
from marginax.infer.svi.training import History, Trained

Path = str | os.PathLike[str]
Arrays = Mapping[str, np.ndarray]
KIND = "svi run"


@dataclass(frozen=True)
class SavedState:
    """The state of a loaded result: its leaves, without the structure that the optimiser gives it.

    ``SVI.run(..., init_state=result.state)`` goes on from it.
    """

    leaves: Arrays

    def fill(self, template: Any) -> Any:
        """The state, in the structure of another state of the same model, guide and optimiser."""
        return storage.fill(template, self.leaves)


def write_run(
    path: Path, about: Mapping[str, Any], now: Trained, initial_losses: np.ndarray | None
) -> None:
    """Write where a run stands; of several processes, which all stand there, the first does.

    Parameters
    ----------
    path : path
        The file; replaced in one step.
    about : mapping
        What tells this run from others.
    now : Trained
        Where it stands.
    initial_losses : array, optional
        The losses by which the restart was selected at the beginning.
    """
    if jax.process_index() > 0:
        return
    arrays = storage.prefixed("state:", storage.flatten(now.states)) | storage.prefixed(
        "params:", now.params
    )
    arrays |= storage.prefixed("norms:", now.history.gradient_norms)
    arrays |= {"losses": now.history.losses, "evaluations": now.history.evaluations}
    if initial_losses is not None:
        arrays["initial losses"] = initial_losses
    storage.write(path, arrays, {"kind": KIND, "stopped": now.stopped, "run": dict(about)})


@dataclass(frozen=True)
class SavedRun:
    """What `write_run` has written."""

    path: Path
    about: Mapping[str, Any]
    state: SavedState
    params: Arrays
    history: History
    stopped: str
    initial_losses: np.ndarray | None

    @property
    def restarts(self) -> int:
        """How many restarts were trained."""
        return self.history.losses.shape[0]

    def is_finished(self, num_steps: int) -> bool:
        """Whether nothing is left to do of a run of so many steps."""
        if self.history.steps > num_steps:
            raise ValueError(
                f"SVI.run: the checkpoint {os.fspath(self.path)} has {self.history.steps} steps already, more than "
                f"num_steps={num_steps}. Ask for as many or more, or name another file."
            )
        return self.stopped in ("converged", "no more batches") or self.history.steps == num_steps

    def check(self, about: Mapping[str, Any]) -> None:
        """Refuse a run of which something differs."""
        refuse_another_run(self.path, self.about, about)


def read_run(path: Path) -> SavedRun | None:
    """Read where a run stands; None if it has not begun.

    Raises
    ------
    StorageError
        When the file is damaged, or no checkpoint.
    """
    if not os.path.exists(path):
        return None
    arrays, found = storage.read(path)
    if found.get("kind") != KIND:
        raise storage.StorageError(
            f"{os.fspath(path)}: it holds '{found.get('kind')}', not '{KIND}'."
        )
    try:
        history = History(arrays["losses"], storage.group("norms:", arrays), arrays["evaluations"])
        return SavedRun(
            path,
            found["run"],
            SavedState(storage.group("state:", arrays)),
            storage.group("params:", arrays),
            history,
            found["stopped"],
            arrays.get("initial losses"),
        )
    except KeyError as error:
        raise storage.StorageError(f"{os.fspath(path)}: it lacks its {error}.") from error
