"""What every contestant shares: the data, the clock, and the one format of a result, a line of JSON.

It needs NumPy alone, because every peer runs in an environment of its own.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SCALE = 1.3


def rows(points: int) -> np.ndarray:
    """Data around no place in particular, single precision."""
    return (np.random.default_rng(0).standard_normal(points, np.float32) * 3).astype(np.float32)


def parameters(components: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights, locations and the scale of a mixture."""
    weights = np.full(components, 1 / components, np.float32)
    return weights, np.linspace(-4.0, 4.0, components).astype(np.float32), SCALE


def seconds(call: Callable[[], Any], at_least: float = 1.0, least_calls: int = 5) -> float:
    """The median time of a call that was made before."""
    times: list[float] = []
    while len(times) < least_calls or sum(times) < at_least:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def report(contestant: str, job: str, **numbers: Any) -> None:
    """Print one result."""
    print(json.dumps({"contestant": contestant, "job": job, **numbers}), flush=True)
