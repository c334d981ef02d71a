"""An oracle to test exact marginalisation against: sum the joint over every assignment.

It knows the sites of a model (their shapes and supports) and the handlers, and nothing else of this
library: no jaxpr analysis, no factors, no elimination. Every *element* of every discrete variable takes
every value, in all combinations, so it is exact for any dependence and exponential in the number of
elements. Use it on small models: to check this library, or to check your own model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from numpyro.distributions import MaskedDistribution

from marginax.density.distribution_layers import layers, without_masks
from marginax.errors import ModelError
from marginax.graph.sites import Site, collect_sites
from marginax.jaxpr.compiled import hoisted_jit
from marginax.language import handlers

MAX_ASSIGNMENTS = 2**18


@dataclass(frozen=True)
class BruteForce:
    """A model's joint table over all assignments of its discrete variables.

    Attributes
    ----------
    log_joint : array, shape (A,)
        Log density of each assignment, with parameters and data. An element of a variable that a mask switches off
        counts with its own distribution over its values, which sums to one.
    assignments : dict of array, each of shape (A, *site_shape)
        The assignments.
    log_masked : array, shape (A,)
        Of the log density, the part of the masked elements.
    log_modal : array, shape (A,)
        The log density whose largest is the mode: masked elements count relative to their own mode.
    """

    log_joint: Array | np.ndarray
    assignments: Mapping[str, Array | np.ndarray]
    log_masked: Array | np.ndarray
    log_modal: Array | np.ndarray
    _indices: Mapping[str, np.ndarray]
    _sizes: Mapping[str, int]

    @property
    def log_density(self) -> Array:
        """Log of the sum over all assignments, shape ()."""
        return logsumexp(self.log_joint)

    @property
    def posterior(self) -> dict[str, np.ndarray]:
        """Marginal probabilities, each of shape (*batch_shape, K)."""
        weight = self._probabilities
        return {
            name: np.stack(
                [np.tensordot(weight, index == k, axes=1) for k in range(self._sizes[name])], -1
            )
            for name, index in self._indices.items()
        }

    @property
    def mode(self) -> dict[str, np.ndarray]:
        """The assignment of the largest joint density."""
        best = int(np.argmax(np.asarray(self.log_modal)))
        return {name: np.asarray(values[best]) for name, values in self.assignments.items()}

    @property
    def entropy(self) -> float:
        """Of the assignments, less the expected entropy that masked elements have of their own."""
        weight = self._probabilities
        some = weight > 0
        masked = np.asarray(self.log_masked, np.float64)
        return float(-np.sum(weight[some] * (np.log(weight[some]) - masked[some])))

    def probability(self, values: Mapping[str, Any]) -> float:
        """Posterior probability of one joint assignment."""
        match = np.ones(len(np.asarray(self.log_joint)), dtype=bool)
        for name, table in self.assignments.items():
            same = np.asarray(table) == np.asarray(values[name])
            match &= same.reshape(len(match), -1).all(axis=1)
        return float(self._probabilities[match].sum())

    @property
    def _probabilities(self) -> np.ndarray:
        """Of each assignment, given the data."""
        log_joint = np.asarray(self.log_joint, np.float64)
        return np.exp(log_joint - np.logaddexp.reduce(log_joint))

    def table_index(self, values: Mapping[str, Any]) -> np.ndarray:
        """For a batch of draws, the row of each in the table of assignments, shape (draws,)."""
        rows = {row.tobytes(): a for a, row in enumerate(self._flat(self.assignments))}
        return np.array([rows[row.tobytes()] for row in self._flat(values)])

    def _flat(self, values: Mapping[str, Any]) -> np.ndarray:
        """Each assignment as one row of numbers."""
        columns = [np.asarray(values[name], np.float64) for name in self.assignments]
        return np.concatenate([c.reshape(len(c), -1) for c in columns], axis=1)


def brute_force(
    model: Callable[..., Any], params: Mapping[str, Any], *args: Any, **kwargs: Any
) -> BruteForce:
    """Evaluate a model's joint density at every assignment of its discrete latent variables.

    Differentiable in ``params``, so ``jax.grad`` of its ``log_density`` is an oracle too.

    Parameters
    ----------
    model : callable
        The model.
    params : mapping
        Values of its other latent sites.
    *args, **kwargs
        The model's arguments.

    Returns
    -------
    BruteForce

    Raises
    ------
    ModelError
        For more than 2**18 assignments, or a model with scales, whose density is no sum of joint
        densities.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def coin():
    ...     z = mx.sample("z", dist.Bernoulli(0.5))
    ...     mx.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=1.0)
    >>> mx.testing.brute_force(coin, {}).posterior["z"].round(2)
    array([0.2, 0.8])
    """
    fixed = handlers.substitute(model, data={n: jnp.asarray(v) for n, v in params.items()})
    sites = collect_sites(fixed, *args, **kwargs)
    variables = {n: s for n, s in sites.items() if s.is_free and s.support is not None}
    assignments, indices = _all_assignments(variables)

    def log_joint(values: dict[str, Any]) -> tuple[Array, Array, Array]:
        trace = handlers.trace(handlers.substitute(fixed, data=values)).get_trace(*args, **kwargs)
        total = masked = heights = jnp.zeros(())
        for name, msg in trace.items():
            if msg["type"] == "sample":
                if msg["scale"] is not None:
                    raise ModelError(
                        "it is scaled, and the oracle knows no scales; they multiply after elimination, so "
                        "the density is no sum of joint densities.",
                        site=name,
                    )
                total = total + jnp.sum(_log_prob(msg["fn"], jnp.asarray(msg["value"])))
                if name in variables:
                    own, height = _of_masked(msg["fn"], msg["value"], variables[name].support)
                    masked, heights = masked + own, heights + height
        return total + masked, masked, total + masked - heights

    sizes = {n: len(s.support) for n, s in variables.items() if s.support is not None}
    rows = len(next(iter(assignments.values()))) if assignments else 1
    compute = hoisted_jit(jax.vmap(log_joint, axis_size=rows), assignments)
    table, masked, modal = compute(assignments)
    return BruteForce(table, assignments, masked, modal, indices, sizes)


def _log_prob(fn: Any, value: Array) -> Array:
    """NumPyro's own log density; -inf outside of the support, where its formula means nothing."""
    if value.size == 0:  # a factor, which has no value
        return fn.log_prob(value)
    return jnp.where(fn.support(value) | ~_kept(fn), fn.log_prob(value), -jnp.inf)


def _kept(fn: Any) -> Array:
    """Which of a distribution's elements no mask switches off."""
    kept = jnp.asarray(True)
    for layer in layers(fn):
        if isinstance(layer, MaskedDistribution):
            kept = kept & layer._mask
    return jnp.broadcast_to(kept, fn.batch_shape)


def _of_masked(fn: Any, value: Any, support: Any) -> tuple[Array, Array]:
    """Of the elements that a mask switches off the log probability among the values, and that of the likeliest."""
    bare, kept = without_masks(fn), _kept(fn)
    each = jnp.stack(
        [_log_prob(bare, jnp.broadcast_to(v, jnp.shape(value))) for v in jnp.asarray(support)]
    )
    total = logsumexp(each, axis=0)
    own = _log_prob(bare, jnp.asarray(value)) - total
    return (
        jnp.sum(jnp.where(kept, 0, own)),
        jnp.sum(jnp.where(kept, 0, jnp.max(each, 0) - total)),
    )


def _all_assignments(
    variables: Mapping[str, Site],
) -> tuple[dict[str, Array], dict[str, np.ndarray]]:
    batch = {n: s.shape[: len(s.shape) - s.event_dim] for n, s in variables.items()}
    counts = {n: math.prod(shape) for n, shape in batch.items()}
    supports = {n: np.asarray(s.support) for n, s in variables.items()}
    log2 = sum(counts[n] * math.log2(max(len(supports[n]), 1)) for n in variables)
    if log2 > math.log2(MAX_ASSIGNMENTS):
        raise ModelError(
            f"brute force would need 2**{log2:.0f} assignments, more than {MAX_ASSIGNMENTS}; use a "
            "smaller model."
        )
    ranges = [range(len(supports[n])) for n in variables for _ in range(counts[n])]
    rows = math.prod(len(values) for values in ranges)
    table = np.array(list(itertools.product(*ranges)), dtype=int).reshape(rows, len(ranges))
    assignments, indices, start = {}, {}, 0
    for name, site in variables.items():
        index = table[:, start : start + counts[name]].reshape(len(table), *batch[name])
        start += counts[name]
        indices[name] = index
        assignments[name] = jnp.asarray(supports[name][index], site.dtype)
    return assignments, indices
