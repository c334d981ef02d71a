"""The data of the NUTS contest, and how much is drawn."""

import numpy as np

CHAINS, WARMUP, DRAWS = 4, 500, 1_000


def data() -> np.ndarray:
    """Two groups of points, a little apart."""
    generator = np.random.default_rng(0)
    return np.where(generator.random(1_000) < 0.4, -1.5, 1.5) + generator.normal(size=1_000)
