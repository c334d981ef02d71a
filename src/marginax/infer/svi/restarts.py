"""What several starts of one optimisation say together: which is the best, and how many agree with it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RELATIVE = 1e-4
"""Of the best loss, by which another may be larger and count as the same optimum ..."""
NATS = 0.5
"""... or this, if it is more; or what the noise of the losses allows."""


@dataclass(frozen=True)
class Restarts:
    """All restarts of a run.

    Attributes
    ----------
    losses : array, shape (num_restarts, steps)
        Their losses before each step.
    final : array, shape (num_restarts,)
        By what they are ranked: the loss averaged over the last twentieth of the steps.
    order : int array, shape (num_restarts,)
        The restarts, best first; those whose loss is not finite come last.
    reached_best : bool array, shape (num_restarts,)
        Which of them ended at the best optimum found: their final loss is within half a nat, one part in
        ten thousand, or three standard errors of a noisy loss of the best one.
    params : dict of array, each with a leading dimension num_restarts, or None
        The parameters of all, where ``keep_restarts`` asked for them.
    """

    losses: np.ndarray
    final: np.ndarray
    order: np.ndarray
    reached_best: np.ndarray
    params: Mapping[str, np.ndarray] | None = None

    @property
    def best(self) -> int:
        """Which one is the best."""
        return int(self.order[0])

    @property
    def num_reached_best(self) -> int:
        """How many ended at the best optimum found."""
        return int(self.reached_best.sum())

    def __str__(self) -> str:
        """In words."""
        count, best = len(self.final), self.final[self.best]
        text = f"{self.num_reached_best} of {count} restarts reached the best optimum found, loss {best:.6g}"
        rest = self.final[np.isfinite(self.final) & ~self.reached_best]
        if len(rest):
            text += f"; the others ended between {rest.min():.6g} and {rest.max():.6g}"
        if failed := int((~np.isfinite(self.final)).sum()):
            text += f"; {failed} ended in a loss that is not finite"
        return text + "."


def ranked(
    losses: np.ndarray, params: Mapping[str, np.ndarray] | None = None, stable: bool = False
) -> Restarts:
    """Rank restarts by their losses at the end.

    Parameters
    ----------
    losses : array, shape (num_restarts, steps)
        NaN where a step was not finite.
    params : mapping, optional
        To be kept with them.
    stable : bool
        Whether steps that are not finite were skipped; otherwise the first of them is the end of a restart.
    """
    end = losses[:, -max(losses.shape[1] // 20, 1) :].astype(float)
    finite = np.isfinite(end)
    counts = np.where(stable | finite[:, -1], finite.sum(axis=1), 0)
    seen = np.where(finite, end, 0.0)  # what was skipped does not count
    mean = seen.sum(axis=1) / np.maximum(counts, 1)
    spread = np.where(finite, end - mean[:, None], 0.0)
    error = np.sqrt((spread**2).sum(axis=1)) / np.maximum(counts, 1)
    order = np.argsort(np.where(counts > 0, mean, np.inf), kind="stable")
    best = order[0]
    allowed = np.maximum(NATS, RELATIVE * abs(mean[best]))
    near = mean - mean[best] <= np.maximum(allowed, 3 * np.hypot(error, error[best]))
    final = np.where(counts > 0, mean, np.inf)
    return Restarts(losses, final, order, near & (counts > 0), params)


def warn_if_stuck(restarts: Restarts) -> None:
    """Warn when fewer than half of the restarts reached the best optimum."""
    if 2 * restarts.num_reached_best >= len(restarts.final):
        return
    warnings.warn(
        f"SVI.run: {restarts} Most were stuck elsewhere or are still on their way, so that there may be a "
        "better optimum: take more restarts or steps, or better starts (init_to_kmeans_plusplus).",
        stacklevel=5,
    )


def first_finite(scores: Any) -> int:
    """The position of the lowest finite score."""
    scores = np.asarray(scores)
    return int(np.argmin(np.where(np.isfinite(scores), scores, np.inf)))
