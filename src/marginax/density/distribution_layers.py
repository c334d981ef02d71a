"""Looking through the wrappers that plates and masks put around a distribution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    GammaPoisson,
    Independent,
    MaskedDistribution,
    NegativeBinomial2,
)


def layers(fn: Any) -> list[Any]:
    """A distribution and those that it wraps, outermost first."""
    found = [fn]
    while isinstance(found[-1], ExpandedDistribution | Independent | MaskedDistribution):
        found.append(found[-1].base_dist)
    return found


def unwrapped(fn: Any) -> Any:
    """The distribution that the user named."""
    return layers(fn)[-1]


def distribution_name(fn: Any) -> str:
    """The name under which the user wrote it: `Categorical`, not `CategoricalProbs`."""
    return type(unwrapped(fn)).__name__.removesuffix("Probs").removesuffix("Logits")


def is_masked(fn: Any) -> bool:
    """Whether a mask may switch off some of its elements."""
    return any(isinstance(layer, MaskedDistribution) for layer in layers(fn))


def mask_of(fn: Any) -> Any:
    """Where no mask switches the distribution off: a truth value, or an array over its batch."""
    kept: Any = True
    for layer in layers(fn):
        if isinstance(layer, MaskedDistribution):
            kept = layer._mask if kept is True else kept & layer._mask
    return kept


def components(fn: Any) -> Iterator[Any]:
    """The distributions that one is directly made of: what it wraps, those of a mixture, ..."""
    if isinstance(fn, GammaPoisson) and type(fn) is not NegativeBinomial2:
        return  # the Gamma that it holds is made of its own parameters, and has no rate at a mean of zero
    inside = jax.tree.leaves(list(vars(fn).values()), is_leaf=is_distribution)
    yield from filter(is_distribution, inside)


def is_distribution(value: Any) -> bool:
    """Whether it is one; what `jax.tree` functions ask."""
    return isinstance(value, Distribution)


def without_masks(fn: Any) -> Any:
    """The distribution as it is where no mask switches it off."""
    if isinstance(fn, MaskedDistribution):
        return without_masks(fn.base_dist)
    if isinstance(fn, ExpandedDistribution):
        return without_masks(fn.base_dist).expand(fn.batch_shape)
    if isinstance(fn, Independent):
        return without_masks(fn.base_dist).to_event(fn.reinterpreted_batch_ndims)
    return fn
