"""What a fit is asked, and what it has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

METHODS = ("map", "vi", "nuts")


@dataclass(frozen=True)
class Settings:
    """How to fit."""

    method: str = "map"
    starts: int = 10
    max_iter: int = 1000
    draws: int = 1000
    warmup: int = 500
    chains: int = 4
    seed: int = 0
    progress: bool = False


@dataclass(frozen=True)
class Fit:
    """What a fit has found. Parameters are those of standardised columns, by site."""

    point: Mapping[str, np.ndarray]
    """The most probable ones."""
    draws: Mapping[str, np.ndarray]
    """Shape (draws, ...): of the posterior; one, the point, where only that was asked for."""
    losses: np.ndarray
    """The loss (negative log density of parameters and rows) of the best start after each iteration of L-BFGS."""
    gradient_norms: Mapping[str, np.ndarray]
    restarts: str
    """What the starts say together, in words."""
    chains: int = 1
    """Of the draws, which follow each other chain by chain."""
    warnings: tuple[str, ...] = ()
    """What is amiss, in words."""
    relabelled: str = ""
    """What was done about draws that number the components differently."""
