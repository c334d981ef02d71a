"""``marginax report``: a page about a fitted model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import marginax.cli.tables as tables
from marginax.cli.common import add_job, check_writable, explained, read_model, say


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_job(
        commands,
        "report",
        run,
        help="write a page about a fitted model",
        description="Write one HTML file with everything about a fitted model: components, densities, how sure "
        "memberships are, convergence, the posterior, and what is amiss. It needs nothing but itself.",
        epilog="example: marginax report model.mx -o report.html",
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="what marginax fit or posterior wrote"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="HTML", help="where the page goes"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="the table, if the model file has none"
    )
    tables.add_reading(parser)


def run(given: argparse.Namespace) -> int:
    """Run it."""
    from marginax.report import write_report

    model = read_model(given.model)
    check_writable(given.out, given.model, given.data)
    table, place = None, None
    if given.data is not None:
        table, file = tables.table_of(model, given.data, given)
        place = file.place
    with explained(place):
        write_report(given.out, model, table)
    say(f"report written to {given.out}")
    return 0
