"""Fit a design to a table: the most probable parameters, and then perhaps their posterior.

Whatever is asked for, the first step is the MAP, from several starts, by expectation-maximisation and then L-BFGS.
Variational inference and NUTS begin there. Everything is computed in double precision, as users of scikit-learn expect,
on whatever setting JAX has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NoReturn

import jax
import numpy as np

from marginax.infer.running.interruption import interruptible
from marginax.infer.running.progress import progress
from marginax.infer.svi.restarts import Restarts, ranked
from marginax.marginal.facade import marginalize
from marginax.mixture.climbing import Climb
from marginax.mixture.conditioning import enough_rows
from marginax.mixture.fitted import Fit, Settings
from marginax.mixture.maximization import ROUNDS
from marginax.mixture.model import Design, Rows
from marginax.mixture.modes import unbounded, with_modes
from marginax.mixture.numbering import numbered
from marginax.mixture.padding import filled_up
from marginax.mixture.programs import programs
from marginax.mixture.room import emptied
from marginax.mixture.sampling import sampled, variational
from marginax.mixture.starts import starting_labels

GAIN, GAIN_OF_A_ROW = 0.05, 1e-4
"""In nats, whichever is more: when no start gained as much in a round of EM, that was the last."""
TOLERANCE, TOLERANCE_OF_A_ROW = 1e-7, 1e-9
"""In nats, whichever of them is more: so much may be left to gain where a start has arrived."""
NEARLY = 0.05
"""In nats: less than this over the last twentieth of its steps is no reason for a warning, if other starts go on."""
EMPTY = 0.5
"""Expected rows of a component that has none."""
MANY, MOST = 10**6, 10**7
"""Numbers that L-BFGS and EM handle for all starts at once at most; of more, L-BFGS goes on from the best start alone,
and EM takes some of the rows."""
LEAST_ROWS = 2000
"""That EM takes."""
SMALL = 5 * 10**6
"""Numbers of a program; one that handles fewer takes longer to optimise than to run."""
STRETCH = 8
"""Iterations until it is asked whether to stop; then twice as many, if they were ..."""
QUICKLY = 0.25
"""... done in so many seconds."""


def fit(design: Design, rows: Rows, settings: Settings) -> Fit:
    """Fit.

    Parameters
    ----------
    design : Design
        What is fitted.
    rows : Rows
        The table.
    settings : Settings
        How.

    Returns
    -------
    Fit
        Its warnings have not been shown.
    """
    with jax.enable_x64(True):
        found = _most_probable(design, rows, settings)
        if settings.method == "vi":
            found = variational(design, rows, settings, found)
        elif settings.method == "nuts":
            found = sampled(design, rows, settings, found)
        return numbered(design, found)


def _most_probable(design: Design, rows: Rows, settings: Settings) -> Fit:
    """Starts by k-means, brought near their optima by expectation-maximisation, there by L-BFGS.

    Of a large table only the best of them goes the last part of the way; of a very large one some rows are enough to
    find it.
    """
    number, columns = rows.cells.shape
    of_a_row = columns * settings.starts * design.components
    some = rows if design.is_chain else rows.some(max(MOST // of_a_row, LEAST_ROWS))
    last = settings.starts if number * of_a_row <= MANY else 1
    whole, part = filled_up(rows), filled_up(some)
    is_small = number * of_a_row < SMALL
    numbers, search = programs(design, part, settings.max_iter, is_small)
    _, climb = programs(design, whole, settings.max_iter, is_small)

    labels = _labels(design, some, settings)
    fill = np.full((settings.starts, len(part.cells) - len(some.cells)), -1)
    state = search.begin(numbers, part, np.concatenate([labels, fill], 1))
    enough = max(GAIN, GAIN_OF_A_ROW * len(some.cells))
    state = _on("EM", ROUNDS, state, partial(search.rounds, numbers, part), enough, settings)
    ends = ranked(np.asarray(state.losses).min(1, keepdims=True))
    near = {n: np.asarray(v) for n, v in state.best.items()}
    if last == 1:
        near = {name: value[[ends.best]] for name, value in near.items()}

    few = filled_up(rows.some(enough_rows(design, last)))
    blocks, top = climb.coordinates(numbers, whole, few, near)
    enough = max(TOLERANCE, TOLERANCE_OF_A_ROW * number)
    go_on = partial(climb.climb, numbers, whole, blocks)
    top: Climb = _on("L-BFGS", settings.max_iter, top, go_on, enough, settings)
    if last > 1:
        ends = ranked(np.asarray(top.here.value)[:, None])
    best = ends.best if last > 1 else 0
    found = {site: np.asarray(top.here.more.values[site])[best] for site in design.priors}
    found = emptied(design, found)
    if not np.isfinite(np.asarray(top.here.value)[best]):
        _refuse(with_modes(design), rows, found)
    steps = int(np.asarray(top.evaluations)[best])
    losses = np.asarray(top.losses)[best, :steps]
    norms = dict(zip(design.priors, np.asarray(top.told)[best, :steps].T, strict=True))
    is_there, counts = (
        bool(np.asarray(top.is_over)[best]),
        np.asarray(top.here.more.counts)[best, : design.components],
    )
    said = [*_doubts(is_there, losses, ends, counts, settings), *_changed_priors(design, settings)]
    restarts = str(ends) if settings.starts > 1 else ""
    if restarts and len(some.cells) < number:
        restarts += f" They were compared on {len(some.cells):,} of the {number:,} rows."
    return Fit(found, _as_one_draw(found), losses, norms, restarts, warnings=tuple(said))


def _labels(design: Design, some: Rows, settings: Settings) -> np.ndarray:
    return starting_labels(design, some.cells, some.observed, settings.starts, settings.seed)


def _on(
    title: str,
    total: int,
    state: Any,
    go_on: Callable[[Any, float, int], Any],
    enough: float,
    settings: Settings,
) -> Any:
    """Stretches of a compiled loop until it is over, with time for an interrupt between them."""
    done, stretch = 0, STRETCH
    with interruptible() as asked, progress(title, total, settings.progress) as bar:
        while done < total and not np.asarray(state.is_over).all():
            began = time.monotonic()
            state = jax.block_until_ready(go_on(state, enough, done + stretch))
            if asked():  # an estimator that looks fitted and is not would be a lie
                raise KeyboardInterrupt
            best = float(np.asarray(state.losses).min())
            done = min(done + stretch, total)
            bar.advance(int(state.number), f"best loss {best:.6g}")
            stretch = 2 * stretch if time.monotonic() - began < QUICKLY else stretch
    return state


def _refuse(design: Design, rows: Rows, values: Mapping[str, np.ndarray]) -> NoReturn:
    """Where no start has a density: the error that says which site has none, and why."""
    marginalize(design.model).log_density(values, rows)
    raise ValueError(
        "the fit begins nowhere: at none of its starts is the density of the rows finite. Look at the table's numbers "
        "and the priors, or give another random_state."
    )


def _doubts(
    is_there: bool, losses: np.ndarray, ends: Restarts, counts: np.ndarray, settings: Settings
) -> Iterator[str]:
    """What may be wrong with an optimum, in words."""
    late = losses[-max(len(losses) // 20, 2) :]
    if not is_there and late[0] - late[-1] > NEARLY:
        yield f"the fit has not converged in {settings.max_iter} iterations; raise max_iter."
    if 2 * ends.num_reached_best < len(ends.final):
        yield (
            f"only {ends.num_reached_best} of {len(ends.final)} starts reached the best optimum found, so that "
            "there may be a better one; raise n_init, or take fewer components."
        )
    if len(counts) > 1 and (empty := int((counts < EMPTY).sum())) > 0:
        yield f"{empty} of the {len(counts)} components have no rows; take fewer components."


def _changed_priors(design: Design, settings: Settings) -> Iterator[str]:
    """The most probable parameters are the result only of the method that has no posterior."""
    if settings.method == "map" and (sites := unbounded(design)):
        yield (
            f"the prior of {' and '.join(sites)} is infinite at the edge of its range, where the most probable value "
            "would always be; its concentrations below 1 were taken as 1. Methods 'vi' and 'nuts' use the prior as it "
            "is."
        )


def _as_one_draw(point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value[None] for name, value in point.items()}
