"""Mixtures of tables, fitted by `marginax.mixture.GaussianMixture` and by scikit-learn's, ten starts each.

Each contestant has a fresh process for each table and run, in turn, and fits twice: the first time includes
compilation. Without priors (`priors="flat"`) both maximise the same likelihood; its value is SciPy's for both.

    python benchmarks/estimators.py [--runs N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np

STARTS = 10
TABLES = {  # rows, columns, components; how far apart these are
    "like Old Faithful": (272, 2, 2, 3.0),
    "10,000 rows, thin components": (10_000, 5, 4, 2.0),
    "10,000 rows, overlapping": (10_000, 5, 4, 0.7),
    "60,000 rows of noise": (60_000, 2, 2, 0.0),
    "5,000 rows of 20 columns": (5_000, 20, 3, 1.0),
}
CONTESTANTS = ("marginax", "scikit-learn")


def rows_of(table: str) -> tuple[np.ndarray, int]:
    rows, columns, components, apart = TABLES[table]
    rng = np.random.default_rng(0)
    means = apart * rng.normal(size=(components, columns))
    roots = 0.5 * rng.normal(size=(components, columns, columns)) + np.eye(columns)
    if apart == 0:
        roots[:] = np.eye(columns)
    which = rng.integers(components, size=rows)
    noise = rng.normal(size=(rows, columns))
    return means[which] + np.einsum("nij,nj->ni", roots[which], noise), components


def fitted(contestant: str, X: np.ndarray, components: int) -> Any:
    if contestant == "marginax":
        from marginax.mixture import GaussianMixture

        model: Any = GaussianMixture(components, priors="flat", n_init=STARTS, random_state=0)
    else:
        from sklearn.mixture import GaussianMixture

        model = GaussianMixture(components, n_init=STARTS, max_iter=1000, random_state=0)
    return model.fit(X)


def log_likelihood(model: Any, X: np.ndarray) -> float:
    """Of a row."""
    from scipy.special import logsumexp
    from scipy.stats import multivariate_normal as normal

    parts = zip(model.weights_, model.means_, model.covariances_, strict=True)
    each = [np.log(w) + normal.logpdf(X, m, c) for w, m, c in parts]
    return float(np.asarray(logsumexp(each, axis=0)).mean())


def one(contestant: str, table: str) -> dict[str, float]:
    warnings.simplefilter("ignore")
    X, components = rows_of(table)
    seconds, model = [], None
    for _ in range(2):
        begin = time.perf_counter()
        model = fitted(contestant, X, components)
        seconds.append(time.perf_counter() - begin)
    return {"first": seconds[0], "second": seconds[1], "density": log_likelihood(model, X)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", nargs=2)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(*given.one)))
        return
    for table in TABLES:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
        for _ in range(given.runs):
            for name in CONTESTANTS:
                command = [sys.executable, __file__, "--one", name, table]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[name].append(json.loads(done.stdout))
        print(f"\n{table}")
        for name, runs in found.items():
            first, second, density = (
                statistics.median(run[key] for run in runs)
                for key in ("first", "second", "density")
            )
            print(
                f"  {name:<13} first {first:7.2f} s, again {second:7.2f} s, log density {density:.5f}"
            )


if __name__ == "__main__":
    main()
