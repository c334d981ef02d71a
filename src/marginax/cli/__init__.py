"""The command ``marginax``: one subcommand a job, one file a subcommand.

What a person should know goes to standard error, results to standard output; with ``--json`` these are one
JSON object. Exit status: 0 done, 1 failed, with a sentence that says what to do, 2 wrong usage, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import warnings
from collections.abc import Sequence

from marginax import __version__
from marginax.cli import check, fit, posterior, predict, report, serve, tutorial
from marginax.cli.common import Failure, say
from marginax.cli.interrupts import Interrupts
from marginax.jaxpr.program_cache import VARIABLE, ignore_faults, keep_programs, not_kept

JOBS = (fit, predict, posterior, report, serve, check, tutorial)


OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""Tracing a model makes objects by the hundred thousand. To look for garbage after each 700, as Python does, takes a
sixth of a fit."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="marginax",
        description="Mixtures and hidden Markov models of tables: fit, predict, report, serve; and models whose "
        "discrete latent variables are summed out exactly.",
        epilog="example: marginax fit data.csv -k 1..5 -o model.mx && marginax report model.mx -o report.html",
    )
    parser.add_argument("--version", action="version", version=f"marginax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for job in JOBS:
        job.add(commands)
    given = parser.parse_args(arguments)
    if arguments is None:  # the process is this command's alone
        gc.freeze()
        gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    try:
        with Interrupts() as given.interrupts, warnings.catch_warnings():
            ignore_faults()
            _keep_programs()
            status = given.run(given)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where it is known what to do if nobody reads it
            given.interrupts.stop_if_asked()
            return status
    except Failure as failure:
        say(f"marginax {given.command}: {failure}")
        return 1
    except BrokenPipeError:  # whoever read the results has had enough, as `head` has
        _nowhere()
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"marginax {given.command}: {where}{error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        say(f"marginax {given.command}: stopped.")
        return 130


def _keep_programs() -> None:
    try:
        keep_programs()
    except OSError as error:
        # Who has not asked for it does not want to hear of it at every command.
        if VARIABLE in os.environ:
            say(f"marginax: {not_kept(error)}")


def _nowhere() -> None:
    """What is still to be written to standard output goes nowhere, instead of failing when Python ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
