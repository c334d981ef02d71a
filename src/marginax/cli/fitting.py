"""What ``fit`` and ``posterior`` share: the options of a fit, and how its result is told."""

from __future__ import annotations

import argparse
from typing import Any

from marginax.cli.common import Failure, count, say, shows_progress
from marginax.cli.wording import in_options

STARTING = {
    "starts": ("n_init", 10, "starts of the search for the most probable parameters"),
    "max_iter": ("max_iter", 1000, "steps of each start, at most"),
}
DRAWING = {
    "draws": ("n_draws", 1000, "draws from the posterior, of each chain"),
    "warmup": ("n_warmup", 500, "steps of each chain that tune it (NUTS)"),
    "chains": ("n_chains", 4, "chains (NUTS)"),
}
NEED = {"draws": ("vi", "nuts"), "warmup": ("nuts",), "chains": ("nuts",)}
"""Options that make sense for some methods."""


def add_fitting(parser: argparse.ArgumentParser, of_model: bool = False) -> None:
    """Options of a fit; of one that goes on from a model, the model's own are the defaults."""
    for option, (_, default, what) in (STARTING | DRAWING).items():
        otherwise = "the model's" if of_model else f"{default}"
        parser.add_argument(
            f"--{option.replace('_', '-')}",
            type=count,
            metavar="N",
            help=f"{what} (default: {otherwise})",
        )


def fitting(given: argparse.Namespace, method: str) -> dict[str, Any]:
    """Arguments of an estimator.

    Raises
    ------
    Failure
        For an option that does not belong to the method.
    """
    for option, methods in NEED.items():
        if getattr(given, option) is not None and method not in methods:
            raise Failure(f"--{option} needs --method {' or '.join(methods)}.")
    found = {
        argument: getattr(given, option)
        for option, (argument, _, _) in (STARTING | DRAWING).items()
        if getattr(given, option) is not None
    }
    return found | {
        "method": method,
        "random_state": given.seed,
        "verbose": shows_progress(given),
    }


def say_warnings(model: Any) -> None:
    """What the fit doubts."""
    for message in model.warnings_:
        say(f"warning: {in_options(message)}")
