"""Models whose latent sites are all discrete: their posterior is known, and draws from it are independent."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import marginax.marginal.queries as queries
from marginax.density.parameters import invalid
from marginax.infer.draws.cuts import check_cuts
from marginax.infer.known import KnownModel
from marginax.infer.mcmc.draws import chunk_size
from marginax.jaxpr.compiled import hoisted_jit
from marginax.marginal.prepared import Prepared, diagnose


def exact_draws(
    known: KnownModel, key: Any, num_chains: int, num_draws: int
) -> dict[str, np.ndarray]:
    """Independent joint draws of all discrete sites from their exact posterior.

    Returns
    -------
    dict of array, shape (num_chains, num_draws, *site_shape)

    Raises
    ------
    ModelError
        When the data are impossible, or a site cannot be summed out.
    """
    prepared = known.prepare({})

    def draw(key: Any) -> tuple[dict[str, Any], Any]:
        return prepared.ask(lambda prepared: queries.draw(prepared, key))

    first = jax.eval_shape(draw, key)[0]
    size = sum(value.size * value.dtype.itemsize for value in first.values())
    count = num_chains * num_draws
    chunk = chunk_size(size, count)
    keys = [jax.random.split(jax.random.fold_in(key, n), chunk) for n in range(-(-count // chunk))]
    compiled = hoisted_jit(jax.vmap(draw), keys[0])
    chunks, totals = zip(*map(compiled, keys), strict=True)
    _check(prepared, np.asarray(totals[0])[0])
    if known.has_cuts:
        check_cuts(known, {})
    return {
        name: np.concatenate([np.asarray(part[name]) for part in chunks])[:count].reshape(
            (num_chains, num_draws, *value.shape)
        )
        for name, value in first.items()
    }


def _check(prepared: Prepared, total: Any) -> None:
    """Is there a posterior, given the log of the sum over all sites?"""
    fault = invalid(prepared.ask(lambda prepared: prepared.graph.validity(prepared.values)))
    if fault is None and not np.isfinite(total):
        fault = diagnose(prepared, prepared.evaluate_for_variables())
    if fault is not None:
        raise fault
