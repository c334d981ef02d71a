"""Whether the parameters of all distributions are valid, of guide and model, at the parameters of SVI.

It is asked at the start of a run and at its end, beside the loop. A loss that is finite does not show
it: probabilities that do not add up to one are normalised in a compiled program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import Array

from marginax.elimination.plan import IntractableError
from marginax.graph.parameters import Parameter, checks, validity
from marginax.infer.elbo.guide_paths import guide_paths
from marginax.infer.svi.given import given_guide, record, seeded
from marginax.language import handlers
from marginax.language.errors import ModelError
from marginax.prepared import prepare_model

Validity = dict[str, dict[Parameter, Array]]
"""By site and parameter, whether it is valid."""


def valid_parameters(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    params: Mapping[str, Any],
    key: Any,
    args: Any,
    kwargs: Any,
) -> list[Validity]:
    """Of the guide and of the model, on each of the guide's paths.

    Parameters
    ----------
    model, guide : callable
        As SVI has them.
    params : mapping
        Of both, traced.
    key : PRNG key
        For what the guide draws.
    args, kwargs
        Arguments of both.
    """
    found: list[Validity] = []
    for path in guide_paths(handlers.substitute(guide, data=dict(params)), args, kwargs):
        branch = handlers.substitute(guide, data=path.chosen)
        trace = record(seeded(branch, params, jax.random.split(key)[0]), args, kwargs)
        stated = {n: m for n, m in trace.items() if m["type"] == "sample" and not m.get("series")}
        found.append({name: validity(checks(msg["fn"])) for name, msg in stated.items()})
        for sum_out in (True, False):
            try:
                found.append(_of_model(model, branch, params, key, args, kwargs, sum_out))
                break
            except (IntractableError, ModelError):
                continue  # the loss draws them; what is wrong with the model it says itself
    return found


def _of_model(
    model: Any, guide: Any, params: Any, key: Any, args: Any, kwargs: Any, sum_out: bool
) -> Validity:
    given, sites = given_guide(model, guide, params, key, args, kwargs, sum_out)
    prepared = prepare_model(given, sites, {}, args, kwargs)
    return prepared.ask(lambda prepared: prepared.graph.validity(prepared.values))
