"""A warning where the range that a site states cuts off probability that matters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from marginax.graph.sites import Site

MATTERS = 1e-4
"""Posterior probability beyond a cut that is worth a warning."""


class TruncationWarning(UserWarning):
    """The range that a site states cuts off probability that matters."""


def warn_of_cuts(beyond: Mapping[str, Any], sites: Mapping[str, Site]) -> None:
    """Warn where probability beyond a stated range matters."""
    for name, mass in beyond.items():
        worst = float(np.max(mass)) if np.size(mass) else 0.0
        support = sites[name].support
        if worst > MATTERS and support is not None:
            warnings.warn(
                f"site '{name}': its range, infer={{'support': ({support.min()}, {support.max()})}}, cuts off "
                f"about {worst:.2g} of its posterior probability in the worst place; widen it.",
                TruncationWarning,
                stacklevel=4,
            )
