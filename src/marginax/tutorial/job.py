"""Run the tutorial in order, say what comes out, and write it all down."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import marginax.storage as storage
from marginax.marginal.facade import marginalize
from marginax.tutorial.figures import draw_all
from marginax.tutorial.mixture import DATA, model
from marginax.tutorial.report import mode_sentence, write_report
from marginax.tutorial.steps import (
    DRAWS,
    RESTARTS,
    STEPS,
    WARMUP,
    explore,
    serve,
    train,
    train_membership,
)


def run_tutorial(out: Path, seed: int = 0) -> dict[str, Any]:
    """Run everything; figures, ``results.json`` and ``index.html`` go to a folder.

    Parameters
    ----------
    out : Path
        The folder; made if it is not there.
    seed : int
        For every random choice.

    Returns
    -------
    dict
        What ``results.json`` holds.

    Raises
    ------
    OSError
        When the folder cannot be written to.
    """
    out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=out).close()  # to know before the work that its results can be kept
    timings: dict[str, float] = {}

    print("The model: five points, two Gaussians; `assignment` is summed out.\n")
    found = marginalize(model).explain(DATA, show=False)
    explanation = str(replace(found, spent=None))  # the page says the same each time
    print(explanation)

    print(f"\n1. MAP: the best of {RESTARTS} initialisations, then {STEPS} Adam steps")
    with _timed(timings, "map"):
        fit = train(seed)
    print(f"   initial loss {fit.initial_loss:.3f}, final loss {fit.loss:.3f}")
    for name in ("weights", "locs", "scale"):
        print(f"   {name} = {np.round(fit.estimates[name], 4)}")

    print("\n2. Serving: memberships from the exact posterior")
    with _timed(timings, "serve"):
        served = serve(fit, seed)
    print(f"   MAP assignment of the data     {served.assignment}")
    print(f"   a random posterior assignment  {served.random_assignment}")
    print(f"   the components meet at {served.boundary:.3f}")

    print(f"\n3. A guide that enumerates the assignment: {STEPS} Adam steps")
    with _timed(timings, "guide"):
        guided = train_membership(fit, seed)
    print(f"   final loss {guided.loss:.3f}")
    print("   assignment_probs = " + str(np.round(guided.probs, 4)).replace("\n", "\n" + " " * 22))

    print(f"\n4. Collapsed NUTS: {WARMUP} warm-up steps, {DRAWS} draws")
    with _timed(timings, "nuts"):
        explored = explore(seed)
    print("   " + mode_sentence(explored))
    print(
        f"   in those modes: locs {np.round(explored.locs_mean, 2)}, "
        f"scale {explored.scale_mean:.2f}; {explored.divergences} divergences"
    )

    with _timed(timings, "figures"):
        figures = draw_all(out, fit, served, guided, explored)
    results = _plain(
        {
            "data": DATA,
            "seed": seed,
            "map": fit.estimates | {"loss": fit.loss, "initial_loss": fit.initial_loss},
            "losses": fit.result.losses,
            "gradient_norms": fit.result.gradient_norms,
            "assignment": served.assignment,
            "membership": served.membership,
            "random_assignment": served.random_assignment,
            "boundary": served.boundary,
            "guide": {
                "loss": guided.loss,
                "assignment_probs": guided.probs,
                "losses": guided.result.losses,
                "gradient_norms": guided.result.gradient_norms,
            },
            "nuts": {
                "locs_mean": explored.locs_mean,
                "scale_mean": explored.scale_mean,
                "mode_shares": explored.shares,
                "divergences": explored.divergences,
                "summary": explored.summary,
                "draws": explored.draws,
            },
            "timings": timings,
        }
    )
    storage.replace_text(
        out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n"
    )
    page = write_report(out, results, explored, explanation, figures)
    print(f"\nResults: {page} (report), {out / 'results.json'} (numbers), {out}/*.png (figures)")
    return results


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = round(time.perf_counter() - start, 3)


def _plain(value: Any) -> Any:
    """Arrays as lists, and numbers that JSON does not know as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "shape"):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
