"""What `import marginax` costs, beside what it stands on: `jax` and `numpyro.distributions`.

Every import is timed in a fresh process, in turn, and the median is shown.

    python benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

RUNS = 7
IMPORTS = {
    "jax": "import jax",
    "jax + numpyro.distributions": "import jax, numpyro.distributions",
    "marginax": "import marginax",
}


def seconds(statement: str) -> float:
    program = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def main() -> None:
    for statement in IMPORTS.values():
        seconds(statement)  # fill the file cache
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(RUNS):
        for name, statement in IMPORTS.items():
            times[name].append(seconds(statement))
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"import time, median of {RUNS} fresh processes")
    for name, value in median.items():
        print(f"  {name:<28} {value:.2f} s")
    own = median["marginax"] - median["jax + numpyro.distributions"]
    print(f"  marginax itself              {own:.2f} s")


if __name__ == "__main__":
    main()
