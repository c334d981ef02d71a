"""``marginax serve``: a fitted model as an HTTP service with a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from marginax.cli.common import Failure, add_job, explained


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_job(
        commands,
        "serve",
        run,
        help="serve a fitted model over HTTP, with a page to try it on",
        description="Serve a fitted model: POST /predict, /predict_proba and /sample, GET /healthz and /openapi.json, "
        "and a page at / that shows the mixture and says of points where they belong. Without --host, this machine "
        "alone can reach it.",
        epilog="examples:\n  marginax serve model.mx\n"
        "  curl -X POST localhost:8000/predict -H 'content-type: application/json' -d '{\"rows\": [[5.1, 3.5]]}'",
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="what marginax fit or posterior wrote"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=_port, default=8000, help="port (default: %(default)s; 0: any that is free)"
    )


def run(given: argparse.Namespace) -> int:
    """Run it."""
    from marginax.serve.server import serve

    if not given.model.exists():
        raise Failure(
            f"there is no file {given.model}; make one with: marginax fit data.csv -k 1..5 -o {given.model}"
        )
    with explained():
        serve(given.model, host=given.host, port=given.port)
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"it must be a whole number from 0 to 65535, not {text!r}")
    return int(text)
