"""Timing for all benchmarks: contestants in turn, medians, ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def medians(
    contestants: Mapping[str, Callable[[], Any]], runs: int, calls: int = 1
) -> dict[str, float]:
    """Median seconds of one call of each contestant.

    Contestants take turns within every run, so that a machine whose speed drifts is fair to all;
    within a turn ``calls`` calls are timed together, so that a short call is not lost in the clock.
    """
    for call in contestants.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, call in contestants.items():
            start = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(call())
            times[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, times: Mapping[str, float], reference: str) -> None:
    """Print a table: median time, and the ratio to the reference."""
    print(f"\n{title}")
    width = max(map(len, times))
    for name, seconds in times.items():
        ratio = seconds / times[reference]
        print(f"  {name:<{width}}  {_readable(seconds):>10}   {ratio:7.2f} x {reference}")


def _readable(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:.1f} {unit}"
    raise AssertionError
