"""The options of `SVI.run`, in one piece."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import marginax.storage as storage
from marginax.infer.batches import Minibatches
from marginax.infer.running.fingerprint import fingerprint, key_numbers
from marginax.infer.svi.checkpoint import SavedState
from marginax.infer.svi.training import SVIState


@dataclass(frozen=True)
class Options:
    """What `SVI.run` says of each."""

    num_steps: int
    progress_bar: bool
    stable_update: bool
    init_state: SVIState | SavedState | None
    init_params: Mapping[str, Any] | None
    num_restarts: int
    select: str
    keep_restarts: bool
    tolerance: float | None
    batches: Iterable[Any] | None
    checkpoint: str | os.PathLike[str] | None
    every: int

    def describe(self, rng_key: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        """What tells a run from others, in its checkpoint."""
        batches, state = self.batches, self.init_state
        return {
            "key": np.asarray(key_numbers(rng_key)).tolist(),
            "restarts": int(self.num_restarts),
            "selection": self.select,
            "stable_update": bool(self.stable_update),
            "tolerance": None if self.tolerance is None else float(self.tolerance),
            "data": fingerprint(args, kwargs),
            "batches": batches.description() if isinstance(batches, Minibatches) else None,
            "beginning": fingerprint(self.init_params, None if state is None else _leaves(state)),
        }


def _leaves(state: SVIState | SavedState) -> Any:
    """What a state to begin from consists of, however it is held."""
    return dict(state.leaves) if isinstance(state, SavedState) else storage.flatten(state)
