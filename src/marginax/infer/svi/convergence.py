"""When a run may stop: the loss has stopped falling.

Two windows are compared: the last quarter of the steps so far, and the quarter before it. The run has
converged when their average losses differ by less than a tolerance. Its unit is that of the loss, a
natural logarithm: at 1e-4 nats the densities before and after differ by one part in ten thousand. Because
the windows grow with the run, what is left to gain is of the order of what the last quarter gained, if the
loss falls by a constant factor or faster. Steps that are far too small for the way to go look the same.

A noisy loss cannot be told to that precision. Two standard errors of the difference are added to the
tolerance; a run then stops when no change can be seen any more above the noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

TOLERANCE = 1e-4
"""In nats, for a deterministic loss where nothing is said."""

SHORTEST, SHORTEST_SEARCHED, SHORTEST_NOISY = 50, 5, 250
"""Steps in a window at least; of an optimiser that searches along lines; of a noisy loss."""


def criterion(tolerance: float | None, is_noisy: bool, searches: bool) -> tuple[int, float]:
    """The shortest window and the tolerance (zero: never) for what the user has said, or not.

    Parameters
    ----------
    tolerance : float, optional
        In nats.
    is_noisy : bool
        Whether the loss is random.
    searches : bool
        Whether the optimiser searches along lines.
    """
    if tolerance is None:
        tolerance = 0.0 if is_noisy else TOLERANCE
    if searches:
        return SHORTEST_SEARCHED, tolerance
    return SHORTEST_NOISY if is_noisy else SHORTEST, tolerance


def check_points(window: int) -> Iterator[int]:
    """After which numbers of steps to look: the first when two windows are full, then a tenth further."""
    steps = 2 * window
    while True:
        yield steps
        steps += max(window, steps // 10)


def has_converged(losses: np.ndarray, window: int, tolerance: float, is_noisy: bool) -> bool:
    """Whether all runs have, of those that are still finite.

    Parameters
    ----------
    losses : array, shape (runs, steps)
        All losses so far.
    window : int
        The shortest window.
    tolerance : float
        In nats.
    is_noisy : bool
        Whether the loss is random.
    """
    length = max(losses.shape[1] // 4, window)
    alive = losses[np.isfinite(losses[:, -2 * length :]).all(axis=1)]
    if not len(alive):
        return False
    before, after = alive[:, -2 * length : -length], alive[:, -length:]
    # The rounding of losses as large as these, averaged as they are.
    allowed = tolerance + np.finfo(losses.dtype).eps * np.abs(after).max(axis=1)
    if is_noisy:
        allowed = allowed + 2 * np.sqrt((before.var(axis=1) + after.var(axis=1)) / length)
    change = np.abs(after.mean(axis=1, dtype=float) - before.mean(axis=1, dtype=float))
    return bool((change < allowed).all())
