"""After a loss that is not finite: which site is to blame, and with what value.

Guide and model are run once more at the last parameters, the discrete sites of the model summed out as
in the loss, and the log density of every site is looked at: NaN, or impossible for all values of what is
summed out. Compiled, as the loss was: numbers would be refused on the way, with no word of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.density.log_prob import log_prob
from marginax.elimination.planner import IntractableError
from marginax.errors import ModelError
from marginax.graph.factors import Place
from marginax.graph.record import record_model
from marginax.graph.sites import Site
from marginax.infer.elbo.guide_paths import guide_paths
from marginax.infer.svi.given import given_guide, record, seeded
from marginax.jaxpr.compiled import hoisted_jit
from marginax.language import handlers
from marginax.marginal.prepared import Prepared, prepare_record


@dataclass(frozen=True)
class _Suspect:
    """A site of the guide or the model."""

    name: str
    where: str
    place: Place | None = None
    """Where its log density has its axes, if that is a factor of the model."""
    event_dim: int = 0


def not_finite(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    params: Mapping[str, Any],
    key: Any,
    step: int,
    args: Any,
    kwargs: Any,
) -> ModelError:
    """Find the site whose log density is not finite.

    Parameters
    ----------
    model, guide : callable
        As SVI has them.
    params : mapping
        The parameters at which the loss is not finite.
    key : PRNG key
        Of the step.
    step : int
        For the message.
    args, kwargs
        The arguments of the step.

    Returns
    -------
    ModelError
        To raise.
    """
    suspects: list[_Suspect] = []

    def densities(params: dict[str, Any], key: Any) -> list[tuple[Any, Any]]:
        found = []
        for path in guide_paths(handlers.substitute(guide, data=params), args, kwargs):
            branch = handlers.substitute(guide, data=path.chosen)
            found += _of_guide(branch, params, key, args, kwargs, suspects)
            found += _of_model(model, branch, params, key, args, kwargs, suspects)
        return found

    there = f"Parameters there: {_brief(params)}."
    try:
        seen = hoisted_jit(densities, dict(params), key)(dict(params), key)
    except ModelError as error:  # of data that came with this step, say
        return error.found(f"the loss is not finite at step {step}")
    for suspect, found in zip(suspects, seen, strict=True):
        density, value = map(np.asarray, found)
        bad = ~np.isfinite(density)
        if not bad.any():
            continue
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        at = f" at index {index}" if index else ""
        # A factor has no value of its own.
        shown = f", where its value is {_value_at(value, index, suspect)}" if value.size else ""
        return ModelError(
            f"its log density in the {suspect.where} is {density[index]}{at} at step {step}{shown}, so the loss is "
            f"not finite. {there}",
            site=suspect.name,
            advice="Check the data and the initial values, or take smaller steps.",
        )
    return ModelError(
        f"the loss or its gradient is not finite at step {step}, though every site's own log density is. "
        f"{there}",
        advice="Take smaller steps, or look for a function with an infinite derivative (sqrt or log at zero).",
    )


def _of_guide(
    guide: Any, params: Any, key: Any, args: Any, kwargs: Any, suspects: list[_Suspect]
) -> list[tuple[Any, Any]]:
    found = []
    for name, msg in record(seeded(guide, params, jax.random.split(key)[0]), args, kwargs).items():
        if msg["type"] == "sample" and not msg.get("series"):
            suspects.append(_Suspect(name, "guide"))
            found.append((log_prob(msg), msg["value"]))
    return found


def _of_model(
    model: Any, guide: Any, params: Any, key: Any, args: Any, kwargs: Any, suspects: list[_Suspect]
) -> list[tuple[Any, Any]]:
    try:
        model, sites, prepared = _prepared(model, guide, params, key, args, kwargs, True)
    except (IntractableError, ModelError):
        # Perhaps the loss does not sum them out either, but draws them.
        model, sites, prepared = _prepared(model, guide, params, key, args, kwargs, False)
    values = record(handlers.seed(model, jax.random.split(key)[1]), args, kwargs)
    found = []
    for factor in prepared.evaluate().factors:
        place = prepared.graph.places[factor.name]
        variables = tuple(range(len(place.axes), factor.array.ndim))
        suspects.append(_Suspect(place.density, "model", place, sites[place.density].event_dim))
        best = jnp.max(factor.array, axis=variables) if variables else factor.array
        found.append((best, values[place.density]["value"]))
    return found


def _prepared(
    model: Any, guide: Any, params: Any, key: Any, args: Any, kwargs: Any, sum_out: bool
) -> tuple[Any, dict[str, Site], Prepared]:
    given, sites = given_guide(model, guide, params, key, args, kwargs, sum_out)
    return given, sites, prepare_record(record_model(given, args, kwargs), {})


def _value_at(value: np.ndarray, index: tuple[int, ...], suspect: _Suspect) -> str:
    """The site's value where its density is bad; the whole value where that cannot be told."""
    place = suspect.place
    if place is not None and place.time is None and place.head is None:
        ndim_batch = value.ndim - suspect.event_dim
        where: list[Any] = [slice(None)] * ndim_batch
        for frame, i in zip(place.plates, index, strict=True):
            if -frame.dim <= ndim_batch:
                where[frame.dim] = min(i, value.shape[ndim_batch + frame.dim] - 1)
        value = value[tuple(where)]
    elif place is None and index and value.shape[: len(index)] > index:
        value = value[index]
    with np.printoptions(threshold=6, precision=6, edgeitems=2):
        return str(value)


def _brief(params: Mapping[str, Any]) -> str:
    with np.printoptions(threshold=6, precision=4, edgeitems=2):
        return ", ".join(f"{name} = {np.asarray(value)}" for name, value in params.items())
