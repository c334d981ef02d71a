"""After training a mixture: how much of the data does each component have?

A component that no point belongs to is a common way to be stuck. The expected number of plate elements (or
steps of a scan) in each value of a variable is the sum of its exact posterior marginals.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from marginax.elimination.semiring import SUM
from marginax.graph.record import record_model
from marginax.graph.sites import Site
from marginax.infer.elbo.pairing import BothPath, both_paths
from marginax.infer.svi.given import given_guide
from marginax.jaxpr.compiled import QUICK, remembered_jit
from marginax.language import handlers
from marginax.marginal.prepared import prepare_record
from marginax.marginal.queries import weights

EMPTY = 0.5
"""Expected elements; a component with fewer is empty."""


def component_use(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    params: Mapping[str, Any],
    key: Any,
    args: Any,
    kwargs: Any,
    known: BothPath | None = None,
) -> dict[str, np.ndarray]:
    """Expected numbers of elements in each value, of all categorical variables in plates or scans.

    Of variables that the guide leaves out, given what it draws (once, on its first branch).

    Parameters
    ----------
    model, guide : callable
        As SVI has them.
    params : mapping
        Of the guide and the model.
    key : PRNG key
        For a guide that draws.
    args, kwargs
        Arguments of both.
    known : BothPath, optional
        The guide's first path, if it is known.

    Returns
    -------
    dict of array, shape (number of values,)
        Empty if a plate is subsampled, for then nothing is known of the other elements.
    """
    names: list[str] = []

    def counts(params: dict[str, Any], key: Any) -> list[Any]:
        first = known
        if first is None:
            fixed = handlers.substitute(model, data=params)
            stated = handlers.substitute(guide, data=params)
            first = next(both_paths(fixed, stated, args, kwargs))
        branch = handlers.substitute(guide, data=first.path.chosen)
        given, sites = given_guide(
            model, branch, params, key, args, kwargs, sum_out=False, sites=first.in_model
        )
        frames = [frame for site in sites.values() for frame in site.plates]
        if any(frame.size != frame.full_size for frame in frames):
            return []
        names[:] = [name for name, site in sites.items() if _is_component(site)]
        if not names:
            return []
        prepared = prepare_record(record_model(given, args, kwargs), {})
        marginals, _ = weights(prepared, SUM, [(name,) for name in names])
        return [jnp.sum(m, axis=tuple(range(m.ndim - 1))) for m in marginals]

    found = remembered_jit(counts, dict(params), key, options=QUICK)
    return dict(zip(names, map(np.asarray, found(dict(params), key)), strict=True))


def _is_component(site: Site) -> bool:
    return bool(
        site.is_free
        and site.support is not None
        and len(site.support) > 1
        and site.distribution.startswith("Categorical")
        and (site.plates or site.series)
    )


def warn_if_empty(use: Mapping[str, np.ndarray]) -> None:
    """Warn of values that no element is expected to have."""
    for name, counts in use.items():
        empty = np.flatnonzero(counts < EMPTY)
        if len(empty):
            which = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
            warnings.warn(
                f"SVI.run: site '{name}': {len(empty)} of its {len(counts)} components are empty at the best "
                f"optimum found (number {which}; expected elements {counts[empty[0]]:.2g} of "
                f"{counts.sum():.6g}). Take fewer components, more restarts, or better starts "
                "(init_to_kmeans_plusplus).",
                stacklevel=5,
            )
