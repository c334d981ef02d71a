"""The same written by hand for this one model, fused and on all cores: numba.

Points are taken 64 at a time, so that the loops over points inside the one over components are
vectorised; nothing but the sums is ever stored.
"""

from __future__ import annotations

import argparse
import math
import os
import time

import numba  # pyright: ignore[reportMissingImports]
import numpy as np
from measured import parameters, report, rows, seconds

LANES = 64


@numba.njit(parallel=True, fastmath=True)
def likelihood(x, log_weights, locs, inverse, sums):  # pyright: ignore
    """For each share of the points: the value, and sums for the gradients of weights, locations and scale."""
    n, k = len(x), len(locs)
    shares = len(sums)
    for share in numba.prange(shares):
        begin, end = share * n // shares, (share + 1) * n // shares
        joint = np.empty((k, LANES), np.float32)
        z = np.empty((k, LANES), np.float32)
        top, total = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
        found = np.zeros(2 + 2 * k, np.float64)
        for first in range(begin, end, LANES):
            m = min(LANES, end - first)
            top[:] = np.float32(-1e30)
            total[:] = np.float32(0)
            for j in range(k):
                for i in range(m):
                    z[j, i] = (x[first + i] - locs[j]) * inverse
                    joint[j, i] = log_weights[j] - np.float32(0.5) * z[j, i] * z[j, i]
                    top[i] = max(top[i], joint[j, i])
            for j in range(k):
                for i in range(m):
                    joint[j, i] = math.exp(joint[j, i] - top[i])
                    total[i] += joint[j, i]
            value = np.float32(0)
            for i in range(m):
                value += top[i] + math.log(total[i])
                total[i] = np.float32(1) / total[i]
            found[0] += value
            for j in range(k):
                one, first_moment, second = np.float32(0), np.float32(0), np.float32(0)
                for i in range(m):
                    share_of = joint[j, i] * total[i]
                    one += share_of
                    first_moment += share_of * z[j, i]
                    second += share_of * z[j, i] * z[j, i]
                found[1] += second
                found[2 + j] += one
                found[2 + k + j] += first_moment
        sums[share] = found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--components", type=int, default=10)
    options = parser.parse_args()
    x, (weights, locs, scale) = rows(options.points), parameters(options.components)
    k, shares = options.components, 4 * (os.cpu_count() or 1)

    def value_and_gradient() -> float:
        sums = np.empty((shares, 2 + 2 * k))
        inverse = np.float32(1 / scale)
        likelihood(x, np.log(weights), locs, inverse, sums)
        found = sums.sum(0)
        constant = len(x) * (math.log(scale) + 0.5 * math.log(2 * math.pi))
        log_scale = math.log(scale)
        prior = (
            math.lgamma(k)
            - 0.5 * (log_scale / 2) ** 2
            - math.log(2)
            - log_scale
            - 0.5 * math.log(2 * math.pi)
            - float((0.5 * (locs / 10) ** 2).sum())
            - k * (math.log(10) + 0.5 * math.log(2 * math.pi))
        )
        return float(found[0]) - constant + prior

    start = time.perf_counter()
    value = value_and_gradient()
    first = time.perf_counter() - start
    report(
        "numba",
        "mixture",
        points=options.points,
        components=k,
        seconds=seconds(value_and_gradient),
        first_seconds=first,
        value=value,
    )


if __name__ == "__main__":
    main()
