"""Where the components begin: at clusters of the rows.

Every start divides the rows among the components and takes each component's moments. Half of the starts divide by
k-means (Lloyd's algorithm from k-means++ seeds, as scikit-learn's mixtures do by default), half by the nearest
k-means++ seed alone, which is less alike from start to start. Seeds and k-means are scikit-learn's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus

from marginax.mixture.model import INITIAL, TRANSITIONS, WEIGHTS, Design

JITTER = 1e-3
"""In standard deviations: rows that are equal must be able to go to different components."""
STAY = 0.8
"""How likely a state begins to be followed by itself."""


def starting_values(
    design: Design, cells: np.ndarray, observed: np.ndarray | None, count: int, seed: int
) -> dict[str, np.ndarray]:
    """Values of all parameters to begin at.

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
    dict of array, shape (count, *site_shape)
    """
    rng = np.random.RandomState(seed)  # what scikit-learn takes
    places = _places(design, cells, observed)
    places += JITTER * rng.normal(size=places.shape)
    found = [
        _start(design, cells, _divided(places, design.components, n, rng)) for n in range(count)
    ]
    return {name: np.stack([start[name] for start in found]) for name in found[0]}


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


def _start(design: Design, cells: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    count = design.components
    members = [np.flatnonzero(labels == k) for k in range(count)]
    members = [rows if len(rows) else np.arange(len(cells)) for rows in members]
    shares = (np.bincount(labels, minlength=count) + 1) / (len(labels) + count)
    found: dict[str, np.ndarray] = {}
    if design.is_chain:
        off = (1 - STAY) / max(count - 1, 1)
        stay = STAY if count > 1 else 1.0
        found[INITIAL] = shares
        found[TRANSITIONS] = np.full((count, count), off) + (stay - off) * np.eye(count)
    else:
        found[WEIGHTS] = shares
    for group in design.groups:
        own = [group.family.start(cells[rows][:, group.where], group.columns) for rows in members]
        for name, parameter in group.parameters.items():
            values = np.stack([start[name] for start in own])
            found[group.site(name)] = values.mean(0) if parameter.is_shared else values
    return found
