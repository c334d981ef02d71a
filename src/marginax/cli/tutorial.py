"""``marginax tutorial``: the Gaussian mixture of the tutorial, with figures and a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from marginax.cli.common import Failure, add_job, seed


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_job(
        commands,
        "tutorial",
        run,
        help="fit, serve and explore a Gaussian mixture, with figures and a report",
        description="Fit a two-component Gaussian mixture to five points, serve it as a classifier, and "
        "explore its posterior with collapsed NUTS.",
        epilog="example: marginax tutorial --out results --seed 1",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("tutorial-results"),
        metavar="DIR",
        help="where figures, results.json and index.html go (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="random seed (default: %(default)s)"
    )


def run(given: argparse.Namespace) -> int:
    """Run it."""
    from marginax.tutorial.job import run_tutorial

    try:
        run_tutorial(given.out, given.seed)
    except OSError as error:
        raise Failure(f"cannot write to {given.out}: {error.strerror or error}") from error
    return 0
