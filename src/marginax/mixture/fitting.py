"""Fit a design to a table: the most probable parameters, and then perhaps their posterior.

Whatever is asked for, the first step is the MAP, from several starts, by expectation-maximisation and then L-BFGS.
Variational inference and NUTS begin there. Everything is computed in double precision, as users of scikit-learn expect,
on whatever setting JAX has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from marginax.infer import SVI, TraceEnum_ELBO
from marginax.infer.autoguide import AutoDelta
from marginax.infer.svi.components import component_use
from marginax.infer.svi.restarts import Restarts, ranked
from marginax.mixture.conditioning import conditioned
from marginax.mixture.fitted import Fit, Settings
from marginax.mixture.maximization import improved
from marginax.mixture.model import Design, Rows
from marginax.mixture.modes import unbounded, with_modes
from marginax.mixture.numbering import numbered
from marginax.mixture.sampling import heard, refuse_half_done, sampled, variational
from marginax.mixture.starts import starting_labels

TOLERANCE, TOLERANCE_OF_A_ROW = 1e-3, 1e-5
"""In nats, whichever of them is more: less than this does the loss change where starts have converged."""
NEARLY = 0.05
"""In nats: less than this over the last twentieth of its steps is no reason for a warning, if other starts go on."""
EMPTY = 0.5
"""Expected rows of a component that has none."""
MANY, MOST = 10**6, 5 * 10**7
"""Numbers that L-BFGS and EM handle for all starts at once at most; of more, L-BFGS goes on from the best start alone,
and EM takes some of the rows."""
LEAST_ROWS = 2000
"""That EM takes."""


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
        rows = jax.tree.map(jnp.asarray, rows)
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
    searched = with_modes(design)
    number, columns = rows.cells.shape
    of_a_row = columns * settings.starts * design.components
    some = rows if design.is_chain else rows.some(max(MOST // of_a_row, LEAST_ROWS))
    labels = starting_labels(
        design,
        np.asarray(some.cells),
        None if some.observed is None else np.asarray(some.observed),
        settings.starts,
        settings.seed,
    )
    near = improved(searched, some, labels, settings.progress)
    ends, values = ranked(near.losses), near.values
    last = settings.starts if number * of_a_row <= MANY else 1
    if last == 1:
        values = {name: value[ends.best] for name, value in values.items()}
    guide = AutoDelta(searched.model)
    optimiser = conditioned(optax.lbfgs(), searched, rows, last, "_auto_loc")
    with heard():  # what it would say is said below, in this package's words
        result = SVI(searched.model, guide, optimiser, TraceEnum_ELBO()).run(
            jax.random.key(settings.seed),
            settings.max_iter,
            rows,
            num_restarts=last,
            init_params={f"{name}_auto_loc": value for name, value in values.items()},
            progress_bar=settings.progress,
            tolerance=max(TOLERANCE, TOLERANCE_OF_A_ROW * number),
        )
    refuse_half_done(result)
    point = {n: np.asarray(v) for n, v in guide.median(result.params).items()}
    norms = {n.removesuffix("_auto_loc"): v for n, v in result.gradient_norms.items()}
    if result.restarts is not None:
        ends = result.restarts
    used = result.component_use or component_use(
        searched.model, guide, result.params, jax.random.key(settings.seed), (rows,), {}
    )
    said = [*_doubts(result, ends, used, settings), *_changed_priors(design, settings)]
    restarts = str(ends) if settings.starts > 1 else ""
    if restarts and len(some.cells) < number:
        restarts += f" They were compared on {len(some.cells):,} of the {number:,} rows."
    return Fit(point, _as_one_draw(point), result.losses, norms, restarts, warnings=tuple(said))


def _doubts(
    result: Any, ends: Restarts, used: Mapping[str, Any], settings: Settings
) -> Iterator[str]:
    """What may be wrong with an optimum, in words."""
    late = result.losses[-max(len(result.losses) // 20, 2) :]
    if result.stopped == "num_steps" and late[0] - late[-1] > NEARLY:
        yield f"the fit has not converged in {settings.max_iter} iterations; raise max_iter."
    if 2 * ends.num_reached_best < len(ends.final):
        yield (
            f"only {ends.num_reached_best} of {len(ends.final)} starts reached the best optimum found, so that "
            "there may be a better one; raise n_init, or take fewer components."
        )
    for counts in used.values():
        if (empty := int((np.asarray(counts) < EMPTY).sum())) > 0:
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
