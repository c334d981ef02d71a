"""Run every contestant in a fresh process, each library in an environment of its own; write a table and plots.

    python benchmarks/run.py [mixture] [hmm] [nuts] [size] [--runs 3]

Environments are made in `benchmarks/environments/` from `benchmarks/peers/*.txt` the first time. Contestants take
turns in every run, and what is written are medians over the runs, with ratios to Marginax: `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENTS, RESULTS = HERE / "environments", HERE / "results"
Result = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """A script in `contestants/`, and where it runs."""

    script: str
    environment: str = ""
    """The file in `peers/` that says what it needs; this interpreter's if empty."""
    options: tuple[str, ...] = ()
    one_core: bool = False


JOBS: dict[str, list[Contestant]] = {
    "mixture": [
        Contestant("mixture_marginax"),
        Contestant("mixture_marginax", options=("--name", "marginax, one core"), one_core=True),
        Contestant("mixture_marginax", options=("--name", "marginax, 2 devices", "--devices", "2")),
        Contestant("mixture_numba", "numba"),
        Contestant("mixture_numpyro", "numpyro"),
        Contestant("mixture_pyro", "pyro"),
        Contestant("mixture_pymc", "pymc"),
        Contestant("mixture_sklearn", "sklearn"),
    ],
    "hmm": [Contestant("hmm_marginax"), Contestant("hmm_dynamax", "numpyro")],
    "nuts": [Contestant("nuts_marginax"), Contestant("nuts_nutpie", "pymc")],
    "size": [
        Contestant(
            "mixture_marginax",
            options=("--points", *(str(10**e) for e in range(2, 9)), "--components", "10"),
        ),
        Contestant(
            "mixture_marginax",
            options=("--points", "100000", "--components", "2", "5", "10", "20", "50", "100"),
        ),
    ],
}


def interpreter(environment: str) -> str:
    """The Python of an environment, which is made if it is not there."""
    if not environment:
        return sys.executable
    folder = ENVIRONMENTS / environment
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        needs = HERE / "peers" / f"{environment}.txt"
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(needs)], check=True)
        (folder / "made").touch()
    return str(python)


def run(contestant: Contestant) -> list[Result]:
    """The results of a contestant in a fresh process."""
    script = HERE / "contestants" / f"{contestant.script}.py"
    command = [interpreter(contestant.environment), str(script), *contestant.options]
    if contestant.one_core:
        command = ["taskset", "-c", "0", *command]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"  {contestant.script} failed: {done.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def medians(results: Sequence[Result]) -> list[Result]:
    """One result for each contestant and size: medians of its numbers."""
    groups: dict[Any, list[Result]] = defaultdict(list)
    for result in results:
        key = (result["job"], result["points"], result["components"], result["contestant"])
        groups[key].append(result)
    return [
        {
            name: statistics.median(r[name] for r in group)
            if isinstance(value, float | int)
            else value
            for name, value in group[0].items()
        }
        for group in groups.values()
    ]


def table(results: Sequence[Result]) -> str:
    """As Markdown, times as they are and as multiples of Marginax's."""
    lines = []
    for job in dict.fromkeys(r["job"] for r in results):
        rows = [r for r in results if r["job"] == job]
        ours = next((r for r in rows if r["contestant"] == "marginax"), None)
        what = f"{job}, {int(rows[0]['points']):,} points, {int(rows[0]['components'])} components"
        if ours is None or any(r["points"] != ours["points"] for r in rows):
            continue
        lines += [
            f"### {what}",
            "",
            "| | seconds | times Marginax | first call | memory beside the data |",
        ]
        lines += ["|---|---|---|---|---|"]
        for r in rows:
            ratio, first = r["seconds"] / ours["seconds"], r.get("first_seconds")
            if "initialize_seconds" in r:
                first = f"{first:.2f}, initialize_model {r['initialize_seconds']:.1f}"
            elif first is not None:
                first = f"{first:.2f}"
            memory = r.get("bytes_beside_data")
            effective = (
                f", {r['effective'] / r['seconds']:.0f} effective/s" if "effective" in r else ""
            )
            lines.append(
                f"| {r['contestant']} | {r['seconds']:.4g}{effective} | {ratio:.2f} | {first or '-'} | "
                f"{'-' if memory is None else f'{memory / 2**20:,.0f} MiB'} |"
            )
        lines.append("")
    return "\n".join(lines)


def disagreement(results: Sequence[Result]) -> list[str]:
    """Contestants whose value is another one than Marginax's."""

    def place(result: Result) -> tuple[Any, ...]:
        return result["job"], result["points"], result["components"]

    ours = {place(r): r["value"] for r in results if r["contestant"] == "marginax" and "value" in r}
    return [
        f"{r['contestant']}: {r['value']}, not {ours[place(r)]}"
        for r in results
        if "value" in r and place(r) in ours
        if abs(r["value"] - ours[place(r)]) > 1e-4 * abs(ours[place(r)])
    ]


def plot(results: Sequence[Result], path: Path) -> None:
    """Cost and memory against points and components, with slopes on logarithmic axes."""
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    by_points = sorted((r for r in results if r["components"] == 10), key=lambda r: r["points"])
    by_points = [r for i, r in enumerate(by_points) if r["points"] != by_points[i - 1]["points"]]
    by_components = sorted(
        (r for r in results if r["points"] == 100_000), key=lambda r: r["components"]
    )
    for axis, rows, name in (
        (axes[0], by_points, "points"),
        (axes[1], by_components, "components"),
    ):
        x = np.array([r[name] for r in rows], float)
        y = np.array([r["seconds"] for r in rows])
        large = x >= (1e5 if name == "points" else 5)
        slope = np.polyfit(np.log(x[large]), np.log(y[large]), 1)[0]
        axis.loglog(x, y, "o-", color="#2b6cb0")
        axis.set_xlabel(name)
        axis.set_title(f"slope {slope:.2f} from {x[large][0]:,.0f} {name} on")
        print(f"slope over {name}: {slope:.3f}")
    axes[0].set_ylabel("seconds, value and gradient")
    x = [r["points"] for r in by_points]
    axes[2].loglog(
        x,
        [r["temporary_bytes"] / 2**20 for r in by_points],
        "o-",
        color="#2b6cb0",
        label="Marginax",
    )
    axes[2].loglog(x, [4 * n / 2**20 for n in x], "--", color="#888888", label="the data")
    axes[2].loglog(
        x, [40 * n / 2**20 for n in x], ":", color="#888888", label="points x components"
    )
    axes[2].set_xlabel("points")
    axes[2].set_title("memory beside the data, MiB")
    axes[2].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("jobs", nargs="*", default=list(JOBS), help=", ".join(JOBS))
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for job in options.jobs:
        results: list[Result] = []
        for number in range(options.runs):
            for contestant in JOBS[job]:
                print(f"{job}, run {number + 1} of {options.runs}: {contestant.script}", flush=True)
                results += run(contestant)
        found = medians(results)
        for line in disagreement(found):
            print(f"  DISAGREES  {line}")
        (RESULTS / f"{job}.json").write_text(json.dumps(found, indent=1))
        if job == "size":
            plot(found, RESULTS / "size.png")
        else:
            (RESULTS / f"{job}.md").write_text(table(found))
            print(table(found))


if __name__ == "__main__":
    main()
