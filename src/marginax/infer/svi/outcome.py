"""What has become of a run of SVI: its best restart, what the others say, and what is wrong where they ended."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.density.parameters import InvalidParameterWarning
from marginax.errors import ModelError
from marginax.infer.draws.cuts import check_cuts
from marginax.infer.known import know
from marginax.infer.svi.components import component_use, warn_if_empty
from marginax.infer.svi.fault import not_finite
from marginax.infer.svi.given import record, seeded
from marginax.infer.svi.options import Options
from marginax.infer.svi.programs import pick
from marginax.infer.svi.restarts import ranked, warn_if_stuck
from marginax.infer.svi.results import SVIRunResult
from marginax.infer.svi.setup import Setup
from marginax.infer.svi.training import Trained


def outcome(
    setup: Setup,
    options: Options,
    now: Trained,
    initial_losses: np.ndarray | None,
    fault: ModelError | None,
    args: Any,
    kwargs: Any,
) -> SVIRunResult:
    """The result, of the best restart.

    Parameters
    ----------
    setup : Setup
        What is known of guide and model.
    options : Options
        Those of the run.
    now : Trained
        Where all restarts have ended.
    initial_losses : array, optional
        The losses by which the restart was selected at the beginning.
    fault : ModelError, optional
        What is invalid there.
    args, kwargs
        Arguments of the last step.

    Raises
    ------
    ModelError
        When the loss has not been finite; the message names the site and the step.
    """
    stable = options.stable_update
    history = now.history
    ends = ranked(history.losses, now.params if options.keep_restarts else None, stable)
    best = ends.best
    state, params = pick((now.states, dict(now.params)), best)
    losses = history.losses[best].copy()  # not a view of those of all restarts
    finite = np.isfinite(losses)
    if not finite.any() or not (stable or finite.all()):
        _, key = jax.random.split(state.rng_key)
        step = int(np.argmin(finite))
        raise not_finite(setup.model, setup.guide, params, key, step, args, kwargs)
    if fault is not None:
        warnings.warn(
            f"where SVI has ended: {fault} The losses of this run mean nothing.",
            InvalidParameterWarning,
            stacklevel=4,
        )
    elif setup.has_cuts:
        _check_cuts(setup, params, state.rng_key, args, kwargs)
    restarts, use = None, {}
    if len(history.losses) > 1:
        restarts = ends
        use = component_use(
            setup.model, setup.guide, params, state.rng_key, args, kwargs, setup.paths[0]
        )
        warn_if_stuck(restarts)
        warn_if_empty(use)
    norms = {name: norm[best].copy() for name, norm in history.gradient_norms.items()}
    evaluations = int(history.evaluations[best])
    return SVIRunResult(
        params, state, losses, norms, now.stopped, evaluations, restarts, initial_losses, use
    )


def _check_cuts(setup: Setup, params: Mapping[str, Any], key: Any, args: Any, kwargs: Any) -> None:
    """At what the guide says now."""
    model, guide = (seeded(fn, params, key) for fn in (setup.model, setup.guide))
    trace = record(guide, args, kwargs)
    drawn = [m for m in trace.values() if m["type"] == "sample" and not m["is_observed"]]
    draws = {m["name"]: jnp.asarray(m["value"])[None] for m in drawn}
    check_cuts(know(model, args, kwargs), draws)
