"""``marginax posterior``: NUTS on the model that a file holds."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import marginax.cli.tables as tables
from marginax.cli.common import (
    add_common,
    add_job,
    check_writable,
    counted,
    explained,
    model_fits,
    read_model,
    say,
    show,
    stored_table,
)
from marginax.cli.fitting import add_fitting, fitting, say_warnings
from marginax.cli.parameters import summary_text


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_job(
        commands,
        "posterior",
        run,
        help="draw from the posterior of a fitted model by NUTS",
        description="Draw the parameters of a fitted model from their posterior, by NUTS with the memberships summed "
        "out, and write a model that knows how sure it is.",
        epilog="example: marginax posterior model.mx -o posterior.mx --draws 1000 --chains 4",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="what marginax fit wrote")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="MODEL", help="where the new one goes"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="the table, if the model file has none"
    )
    add_fitting(parser, of_model=True)
    tables.add_reading(parser)
    add_common(parser)


def run(given: argparse.Namespace) -> int:
    """Run it."""
    model = read_model(given.model)
    check_writable(given.out, given.data)
    place = None
    if given.data is None:
        table = stored_table(model, given.model)
    else:
        with explained():
            table, file = tables.table_of(model, given.data, given)
        place = file.place
    from sklearn.base import clone

    from marginax.mixture import save

    with explained(place), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are in the result, and said below
        drawn: Any = clone(model)
        drawn.set_params(**fitting(given, "nuts"))
        if not given.quiet:
            say(
                f"NUTS: {counted(drawn.n_chains, 'chain')} of {drawn.n_warmup} + {drawn.n_draws} steps on "
                f"{counted(len(table), 'row')} ..."
            )
        series = {"lengths": model.lengths_} if model._is_chain else {}
        drawn.fit(table, **series)
        given.interrupts.stop_if_asked()
        save(given.out, drawn, table if hasattr(model, "table_") else None)
        summary = drawn.summary()
    data = model_fits(drawn) | {"summary": summary, "model": str(given.out)}
    text = (
        f"{summary_text(drawn, summary)}\n"
        f"posterior written to {given.out}; next: marginax report {given.out} -o report.html"
    )
    show(given, text, data)
    say_warnings(drawn)
    return 0
