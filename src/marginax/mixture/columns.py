"""What is known of some columns before the fit, from which priors and starts follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THINNER = 0.2
"""Components may well be thinner than their share of the space (it costs held-out likelihood to say otherwise)."""
SMALL, TINY = 1e-3, 1e-30


@dataclass(frozen=True, eq=False)
class Columns:
    """What is known of a family's columns before the fit."""

    names: tuple[str, ...]
    centre: np.ndarray
    """Shape (columns,): of each column the mean, without missing cells; zero where it was taken off."""
    spread: np.ndarray
    """Shape (columns,): of each the standard deviation; one where it was divided by."""
    categories: tuple[int, ...]
    """Of each the number of categories, where they are numbered."""
    components: int
    """How many components there are."""

    @property
    def count(self) -> int:
        """How many columns."""
        return len(self.names)


def prior_width(columns: Columns) -> float:
    """A priori a component's variance in those of its columns.

    K components share the space (Fraley and Raftery, 2007), and a fifth of that leaves room for thin ones.
    """
    return THINNER * columns.components ** (-2 / columns.count)
