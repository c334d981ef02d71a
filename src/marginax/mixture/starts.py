"""Where the components begin: at clusters of the rows.

Every start divides the rows among the components. Half of the starts divide by
k-means (Lloyd's algorithm from k-means++ seeds, as scikit-learn's mixtures do by default), half by the nearest
k-means++ seed alone, which is less alike from start to start. Seeds and k-means are scikit-learn's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus

from marginax.mixture.model import Design

JITTER = 1e-3
"""In standard deviations: rows that are equal must be able to go to different components."""


def starting_labels(
    design: Design, cells: np.ndarray, observed: np.ndarray | None, count: int, seed: int
) -> np.ndarray:
    """Who belongs to which component at each start.

    Parameters
    ----------
    design : Design
        What is fitted.
    cells : array, shape (rows, columns)
        The table, missing cells filled.
    observed : array, shape (rows, columns), optional
        Which cells are there.
    count : int
        How many starts.
    seed : int
        For everything random.

    Returns
    -------
    array of int, shape (count, rows)
        The component of each row.
    """
    rng = np.random.RandomState(seed)  # what scikit-learn takes
    places = _places(design, cells, observed)
    places += JITTER * rng.normal(size=places.shape)
    return np.stack([_divided(places, design.components, n, rng) for n in range(count)])


def _places(design: Design, cells: np.ndarray, observed: np.ndarray | None) -> np.ndarray:
    """Rows as points in a space where distances mean something: standardised columns, a dimension for each category."""
    columns = []
    for group in design.groups:
        for j, categories in zip(group.where, group.columns.categories, strict=True):
            cell = cells[:, j]
            if categories:
                columns += [(cell == c) - np.mean(cell == c) for c in range(categories)]
                continue
            there = slice(None) if observed is None else observed[:, j]
            centred = cell - cell[there].mean()
            if observed is not None:
                centred = np.where(observed[:, j], centred, 0.0)
            columns.append(centred / (centred.std() or 1.0))
    return np.stack(columns, axis=1)


def _divided(
    places: np.ndarray, components: int, start: int, rng: np.random.RandomState
) -> np.ndarray:
    """The component of every row."""
    if start % 2 == 0:
        options: Any = {"n_init": 1, "random_state": rng}
        return np.asarray(KMeans(components, **options).fit_predict(places))
    seeds, _ = kmeans_plusplus(places, components, random_state=rng)
    distances = ((places[:, None, :] - seeds) ** 2).sum(-1) if places.size < 1e6 else None
    if distances is None:
        distances = np.stack([((places - seed) ** 2).sum(-1) for seed in seeds], axis=1)
    return distances.argmin(1)
