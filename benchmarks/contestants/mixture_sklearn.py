"""scikit-learn's log-likelihood of the same mixture: the value alone, without priors or gradient."""

from __future__ import annotations

import argparse
import time

import numpy as np
from measured import parameters, peak_bytes, report, rows, seconds
from sklearn.mixture import GaussianMixture


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--components", type=int, default=10)
    options = parser.parse_args()
    x, (weights, locs, scale) = rows(options.points)[:, None], parameters(options.components)
    mixture = GaussianMixture(options.components, covariance_type="spherical")
    mixture.weights_, mixture.means_ = weights, locs[:, None]
    mixture.covariances_ = np.full(options.components, scale**2, np.float32)
    mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
    before, start = peak_bytes(), time.perf_counter()
    mixture.score_samples(x)
    first = time.perf_counter() - start
    report(
        "scikit-learn (value alone)",
        "mixture",
        points=options.points,
        components=options.components,
        seconds=seconds(lambda: mixture.score_samples(x).sum()),
        first_seconds=first,
        bytes_beside_data=peak_bytes() - before,
    )


if __name__ == "__main__":
    main()
