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
    columns_of,
    count,
    explained,
    model_fits,
    read_model,
    say,
    show,
    shows_progress,
    stored_table,
)


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
    parser.add_argument(
        "--draws", type=count, default=1000, metavar="N", help="of each chain (default: 1000)"
    )
    parser.add_argument(
        "--warmup",
        type=count,
        default=500,
        metavar="N",
        help="steps of each chain that tune it (default: 500)",
    )
    parser.add_argument("--chains", type=count, default=4, metavar="N", help="(default: 4)")
    tables.add_reading(parser)
    add_common(parser)


def run(given: argparse.Namespace) -> int:
    """Run it."""
    model = read_model(given.model)
    check_writable(given.out, given.data)
    if given.data is None:
        table = stored_table(model, given.model)
    else:
        table = columns_of(model, tables.read(given.data, given), given.data)
    from sklearn.base import clone

    from marginax.infer.summary import print_table
    from marginax.mixture import save

    options = {
        "method": "nuts",
        "n_draws": given.draws,
        "n_warmup": given.warmup,
        "n_chains": given.chains,
        "random_state": given.seed,
        "verbose": shows_progress(given),
    }
    with explained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are in the result, and said below
        if not given.quiet:
            say(
                f"NUTS: {given.chains} chains of {given.warmup} + {given.draws} steps on {len(table)} rows ..."
            )
        drawn: Any = clone(model)
        drawn.set_params(**options)
        series = {"lengths": model.lengths_} if model._is_chain else {}
        drawn.fit(table if hasattr(model, "feature_names_in_") else table.to_numpy(), **series)
        save(given.out, drawn, table if hasattr(model, "table_") else None)
        summary = drawn.summary()
    data = model_fits(drawn) | {"summary": summary, "model": str(given.out)}
    if given.json:
        show(given, "", data)
    else:
        print_table(summary)
        print(f"posterior written to {given.out}; next: marginax report {given.out} -o report.html")
    for message in drawn.warnings_:
        say(f"warning: {message}")
    return 0
