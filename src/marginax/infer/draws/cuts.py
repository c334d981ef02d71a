"""After inference: did a range that a site states for an infinite support cut off what matters?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from marginax.infer.known import KnownModel
from marginax.marginal.cuts import warn_of_cuts
from marginax.marginal.facade import marginalize

DRAWS = 20


def check_cuts(known: KnownModel, draws: Mapping[str, Any]) -> None:
    """Warn if it did at some of the draws.

    Parameters
    ----------
    known : KnownModel
        The model, with its parameters substituted and under a seed if it subsamples.
    draws : mapping of arrays, each with one leading dimension
        Values of its continuous sites, and perhaps others; twenty of them are looked at.
    """
    sites = known.sites
    wanted = {n: np.asarray(v) for n, v in draws.items() if n in sites and not sites[n].is_discrete}
    count = len(next(iter(wanted.values()))) if wanted else 1
    some = np.unique(np.linspace(0, count - 1, DRAWS).astype(int))
    chosen = {name: value[some] for name, value in wanted.items()}
    beyond = marginalize(known.model).beyond_cuts(chosen, *known.args, **known.kwargs)
    warn_of_cuts(beyond, sites)
