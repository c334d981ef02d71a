"""After inference: did a range that a site states for an infinite support cut off what matters?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from marginax.graph.sites import collect_sites
from marginax.marginal import marginalize, warn_of_cuts

DRAWS = 20


def check_cuts(model: Callable[..., Any], draws: Mapping[str, Any], args: Any, kwargs: Any) -> None:
    """Warn if it did at some of the draws.

    Parameters
    ----------
    model : callable
        The model, with its parameters substituted and under a seed if it subsamples.
    draws : mapping of arrays, each with one leading dimension
        Values of its continuous sites, and perhaps others; twenty of them are looked at.
    args, kwargs
        The model's arguments.
    """
    sites = collect_sites(model, *args, **kwargs)
    if not any(any(site.cut) for site in sites.values()):
        return
    wanted = {n: np.asarray(v) for n, v in draws.items() if n in sites and not sites[n].is_discrete}
    count = len(next(iter(wanted.values()))) if wanted else 1
    some = np.unique(np.linspace(0, count - 1, DRAWS).astype(int))
    chosen = {name: value[some] for name, value in wanted.items()}
    warn_of_cuts(marginalize(model).beyond_cuts(chosen, *args, **kwargs), sites)
