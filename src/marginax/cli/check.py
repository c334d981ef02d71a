"""``marginax check``: what a model of one's own sums out, in which order, at what cost, and what is wrong with it."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from marginax.cli.common import Failure, add_job, show

EXAMPLES = """
examples:
  marginax check model.py:model --with "jnp.zeros(10)"
  marginax check model.py:model --with "data, components=3"     names of the file may be used

The file is run, as python would run it.
"""


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_job(
        commands,
        "check",
        run,
        help="explain a model written in Python: what is summed out, at what cost, what is wrong",
        description="Read a model from a Python file, and say which variables are summed out and in which order, what "
        "that costs, and whether its density and gradient are finite where a fit would begin.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "model", metavar="FILE:NAME", help="a Python file and the name of the model in it"
    )
    parser.add_argument(
        "--with",
        dest="arguments",
        default="",
        metavar="ARGUMENTS",
        help="what to call the model with, as in Python, with the names of the file and jnp, np, jax",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(given: argparse.Namespace) -> int:
    """Run it."""
    import marginax as mx
    from marginax.errors import ModelError

    model, namespace = _model(given.model)
    args, kwargs = _arguments(given.arguments, namespace, model)
    try:
        found = mx.marginalize(model).explain(*args, show=False, **kwargs)
        found = replace(found, spent=None)  # what is said of a model is the same each time
        density = _begin(model, args, kwargs)
    except (ModelError, mx.IntractableError) as error:
        raise Failure(f"this model cannot be used: {error}") from error
    except Exception as error:  # whatever a person's own code raises; it is shown where it happened
        raise Failure(f"the model raised {_where(error, given.model)}") from error
    text = (
        f"{found}\n\nWhere a fit would begin\n  log density {density:.6g}; its gradient is finite"
    )
    show(given, text, {"explanation": str(found), "log_density": density, "usable": True})
    return 0


def _model(where: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The model, and the names of its file."""
    file, _, name = where.rpartition(":")
    if not file or not name:
        raise Failure(
            f"say where the model is as FILE:NAME, for example model.py:model, not {where!r}."
        )
    path = Path(file)
    if not path.is_file():
        raise Failure(f"there is no file {path}.")
    spec = importlib.util.spec_from_file_location("marginax_checked_model", path.resolve())
    if spec is None or spec.loader is None:
        raise Failure(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a person's own code, as above
        raise Failure(f"{path} raised {_where(error, where)}") from error
    namespace = vars(module)
    if not callable(namespace.get(name)):
        functions = [n for n, v in namespace.items() if inspect.isfunction(v)]
        raise Failure(f"{path} has no function '{name}'; it has: {', '.join(functions) or 'none'}.")
    return namespace[name], namespace


def _where(error: Exception, model: str) -> str:
    """An error, and the lines of the person's file that it went through."""
    file = Path(model.rpartition(":")[0]).resolve()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == file]
    lines = [f"\n  line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames]
    return f"{type(error).__name__}: {error}{''.join(lines)}"


def _arguments(text: str, namespace: dict[str, Any], model: Any) -> tuple[Any, Any]:
    """What to call it with."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    def call(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return args, kwargs

    known = {"jax": jax, "jnp": jnp, "np": np} | namespace | {"__call": call}
    try:
        # It is the person's own Python, as the file is.
        args, kwargs = eval(f"__call({text})", known)
    except Exception as error:
        raise Failure(f"--with {text!r} raised {type(error).__name__}: {error}") from error
    try:
        inspect.signature(model).bind(*args, **kwargs)
    except TypeError as error:
        raise Failure(
            f"the model is called as {model.__name__}{inspect.signature(model)}: {error}. Say what to call it with: "
            '--with "jnp.zeros(10)"'
        ) from error
    return args, kwargs


def _begin(model: Any, args: Any, kwargs: Any) -> float:
    """The log density where a fit would begin; what makes it, or its gradient, not finite is an error."""
    import jax

    from marginax.graph.sites import collect_sites
    from marginax.infer import SVI, TraceEnum_ELBO
    from marginax.infer.autoguide import AutoDelta
    from marginax.marginal.facade import marginalize

    free = [
        s for s in collect_sites(model, *args, **kwargs).values() if s.is_free and s.support is None
    ]
    if not free:
        return float(marginalize(model).log_density({}, *args, **kwargs))
    svi = SVI(model, AutoDelta(model), "lbfgs", TraceEnum_ELBO(), **kwargs)
    return -float(svi.run(jax.random.key(0), 1, *args, progress_bar=False).losses[0])
