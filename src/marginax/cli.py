"""The command ``marginax``: one subcommand a job."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from marginax import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="marginax",
        description="Probabilistic models whose discrete latent variables are summed out exactly.",
    )
    parser.add_argument("--version", action="version", version=f"marginax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    tutorial = commands.add_parser(
        "tutorial",
        help="fit, serve and explore a Gaussian mixture, with figures and a report",
        description="Fit a two-component Gaussian mixture to five points, serve it as a classifier, and "
        "explore its posterior with collapsed NUTS.",
        epilog="example: marginax tutorial --out results --seed 1",
    )
    tutorial.add_argument(
        "--out",
        type=Path,
        default=Path("tutorial-results"),
        metavar="DIR",
        help="where figures, results.json and index.html go (default: %(default)s)",
    )
    tutorial.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="random seed (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    return _tutorial(given.out, given.seed)


def _seed(text: str) -> int:
    """A whole number of 32 bits: with more, different seeds would give the same random numbers."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"it must be a whole number from 0 to {2**32 - 1}, not {text!r}"
        )
    return int(text)


def _tutorial(out: Path, seed: int) -> int:
    from marginax.tutorial.job import run_tutorial

    try:
        run_tutorial(out, seed)
    except OSError as error:
        print(
            f"marginax tutorial: cannot write to {out}: {error.strerror or error}", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
