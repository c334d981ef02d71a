"""Small fitted models, and applications of them, made once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marginax.mixture import GaussianMixture
from marginax.serve import make_app

NAMES = ["length", "<b>width</b>"]
DRAWS = 5


def two_clusters(count: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    low = rng.multivariate_normal([2.0, 50.0], [[0.1, 1.0], [1.0, 30.0]], count)
    high = rng.multivariate_normal([4.5, 80.0], [[0.2, 1.0], [1.0, 40.0]], 2 * count)
    return pd.DataFrame(np.concatenate([low, high]), columns=NAMES)


@pytest.fixture(scope="session")
def gaussian() -> Any:
    """Two components, and something like a posterior around them."""
    table = two_clusters()
    found = GaussianMixture(2, n_init=1, max_iter=100, random_state=0).fit(table)
    rng = np.random.default_rng(1)
    point = found.fit_.point
    factors = rng.lognormal(0, 0.05, (DRAWS, 2, 1, 1))
    draws = {
        "weights": rng.dirichlet(100 * point["weights"], DRAWS),
        "means": point["means"] + 0.1 * rng.normal(size=(DRAWS, 2, 2)),
        "precision_factors": point["precision_factors"] * factors,
    }
    found.fit_ = replace(found.fit_, draws=draws)
    found.table_ = table.to_numpy()
    return found


@pytest.fixture(scope="session")
def app(gaussian: Any) -> Any:
    return make_app(gaussian, name="clusters", sizes=(1, 8))
