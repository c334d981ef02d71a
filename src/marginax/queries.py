"""What can be asked of a marginalised model: pure functions of a `Prepared` and a random key.

One elimination serves all. The marginal, the mode and a draw are derivatives of the log total with
respect to *tilts*, zeros added to the variables' own factors (see `elimination.semiring`); a tilt of
two variables gives their joint marginal. The entropy is a forward derivative of the same total, and the
pointwise log-likelihood comes from the outside messages of the same plan (`elimination.outside`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

from marginax.elimination.contract import contract
from marginax.elimination.factor import Factor
from marginax.elimination.outside import outside_messages
from marginax.elimination.plan import Plan, Term, make_plan
from marginax.elimination.semiring import ENTROPY, MAX, SUM, Semiring, sample_semiring
from marginax.graph.factors import Evaluated, several
from marginax.graph.sites import Site
from marginax.graph.supports import beyond_the_cut
from marginax.language.errors import ModelError
from marginax.prepared import Prepared

Query = Callable[[Prepared, Any], Any]
"""From a prepared model and a random key (or None) to arrays."""


def log_density(prepared: Prepared, key: Any = None) -> Array:
    """The log of the sum over all variables."""
    return log_total(prepared, SUM, prepared.evaluate())


def log_total(
    prepared: Prepared,
    semiring: Semiring,
    evaluated: Evaluated,
    tilts: Sequence[Factor] = (),
) -> Array:
    """The log of the sum over all variables, with more factors than the model's."""
    graph = prepared.graph
    return contract(
        _plan(prepared, tilts),
        [*evaluated.factors, *tilts],
        semiring,
        graph.plate_sizes,
        graph.plate_scales,
        evaluated.variable_scales,
    ).log_total


def _plan(prepared: Prepared, extra: Sequence[Factor]) -> Plan:
    if not extra:
        return prepared.plan
    graph = prepared.graph
    terms = [Term(f.name, f.variables, frozenset(f.plates)) for f in extra]
    return make_plan([*graph.terms(), *terms], graph.sizes, graph.plate_sizes, graph.home)


def weights(
    prepared: Prepared, semiring: Semiring, scopes: Sequence[tuple[str, ...]]
) -> tuple[list[Array], Array]:
    """For each group of variables the weights of their joint values; and the log total.

    Parameters
    ----------
    prepared : Prepared
        The model.
    semiring : Semiring
        It decides what the weights are: marginals, or ones at the mode or at a draw.
    scopes : sequence of tuples of str
        The groups.

    Returns
    -------
    list of array, array
        Each has an axis for each plate of the group, leftmost first, then one for each variable.
    """
    evaluated = prepared.evaluate()
    dtype = jnp.result_type(float, *[factor.array.dtype for factor in evaluated.factors])
    tilts = [_tilt(prepared, evaluated, scope, dtype) for scope in scopes]

    def total(arrays: list[Array]) -> Array:
        tilted = [replace(t, array=array) for t, array in zip(tilts, arrays, strict=True)]
        return log_total(prepared, semiring, evaluated, tilted)

    value, gradients = jax.value_and_grad(total)([tilt.array for tilt in tilts])
    # A scale multiplies the logarithm and with it the gradient: take it out again.
    shares = [
        g / jnp.sum(g, tuple(range(len(tilt.plates), g.ndim)), keepdims=True)
        for tilt, g in zip(tilts, gradients, strict=True)
    ]
    return shares, value


def _tilt(prepared: Prepared, evaluated: Evaluated, scope: tuple[str, ...], dtype: Any) -> Factor:
    sites = [prepared.graph.variables[name] for name in scope]
    frames = {frame.name: frame for site in sites for frame in several(site.plates)}
    plates = sorted(frames.values(), key=lambda frame: frame.dim)
    sizes = [len(_values(site)) for site in sites]
    # A factor of two variables stands where the one that is further inside stands.
    scales = max((evaluated.variable_scales.get(name, ()) for name in scope), key=len)
    return Factor(
        f"tilt of {' and '.join(scope)}",
        tuple(frame.name for frame in plates),
        scope,
        jnp.zeros((*(frame.size for frame in plates), *sizes), dtype),
        scales,
    )


def _values(site: Site) -> Any:
    assert site.support is not None
    return site.support


def posterior(prepared: Prepared, key: Any = None) -> tuple[dict[str, Array], Array]:
    """Marginal probabilities of every variable, shape (*batch_shape, K); and the log total."""
    variables = prepared.graph.variables
    shares, total = weights(prepared, SUM, [(name,) for name in variables])
    return {
        name: share.reshape((*_batch_shape(site), share.shape[-1]))
        for (name, site), share in zip(variables.items(), shares, strict=True)
    }, total


def mode(prepared: Prepared, key: Any = None) -> tuple[dict[str, Array], Array]:
    """The joint mode; and the log of its joint density."""
    return _chosen(prepared, MAX)


def draw(prepared: Prepared, key: Any) -> tuple[dict[str, Array], Array]:
    """One joint draw; and the log total."""
    return _chosen(prepared, sample_semiring(key))


def _chosen(prepared: Prepared, semiring: Semiring) -> tuple[dict[str, Array], Array]:
    """The values that one-hot weights point at."""
    variables = prepared.graph.variables
    shares, total = weights(prepared, semiring, [(name,) for name in variables])
    values = {}
    for (name, site), share in zip(variables.items(), shares, strict=True):
        support = jnp.asarray(site.support, site.dtype)
        values[name] = support[jnp.argmax(share, -1)].reshape(site.shape)
    return values, total


@dataclass(frozen=True)
class Pairwise:
    """The query for the joint marginal of two variables."""

    first: str
    second: str

    def __call__(self, prepared: Prepared, key: Any = None) -> tuple[Array, Array]:
        variables = prepared.graph.variables
        for name in (self.first, self.second):
            if name not in variables:
                known = ", ".join(map(repr, variables)) or "none"
                raise ModelError(
                    f"pairwise: '{name}' is no variable that is summed out; those are {known}."
                )
        if self.first == self.second:
            raise ModelError(
                f"pairwise: both names are '{self.first}'; use posterior for one variable."
            )
        (share,), total = weights(prepared, SUM, [(self.first, self.second)])
        return share, total


def entropy(prepared: Prepared, key: Any = None) -> tuple[Array, Array]:
    """The entropy of the joint posterior of all variables; and the log total."""
    evaluated = prepared.evaluate()

    def total(arrays: list[Array]) -> Array:
        factors = [
            replace(f, array=array) for f, array in zip(evaluated.factors, arrays, strict=True)
        ]
        return log_total(prepared, ENTROPY, replace(evaluated, factors=factors))

    arrays = [factor.array for factor in evaluated.factors]
    if not arrays:
        return jnp.zeros(()), jnp.zeros(())
    value, change = jax.jvp(total, (arrays,), ([jnp.zeros_like(a) for a in arrays],))
    return jnp.where(jnp.isfinite(value), change, jnp.nan), value


def pointwise(prepared: Prepared, key: Any = None) -> dict[str, Array]:
    """For every observed site, each element's log-likelihood given all others."""
    graph = prepared.graph
    evaluated = prepared.evaluate()
    messages = outside_messages(prepared.plan, evaluated.factors, graph.plate_sizes)
    found = {}
    for factor, message in zip(evaluated.factors, messages, strict=True):
        site = prepared.sites.get(factor.name)
        if site is None or not site.is_observed or site.is_auxiliary:
            continue
        if not factor.variables:
            found[factor.name] = graph.elementwise(factor.name, prepared.values)
            continue
        axes = tuple(range(len(factor.plates), len(factor.plates) + len(factor.variables)))
        without = logsumexp(message.array, axes)
        value = logsumexp(message.array + factor.array, axes) - without
        sizes = {frame.dim: frame.size for frame in several(site.plates)}
        shape = [sizes.get(dim, 1) for dim in range(-len(site.batch_shape), 0)]
        full = [size for dim, size in sorted(sizes.items())]
        found[factor.name] = jnp.broadcast_to(value, full).reshape(shape)
    return found


@dataclass(frozen=True)
class Checked:
    """A query, and beside its answer whether the probabilities that the model computes are some."""

    query: Query

    def __call__(self, prepared: Prepared, key: Any = None) -> tuple[Any, Any]:
        return self.query(prepared, key), prepared.graph.validity(prepared.values)


def beyond_cuts(prepared: Prepared, key: Any = None) -> dict[str, Array]:
    """For every variable whose support is cut, the estimated probability beyond the cut."""
    variables = {n: s for n, s in prepared.graph.variables.items() if any(s.cut)}
    shares, _ = weights(prepared, SUM, [(name,) for name in variables])
    return {
        name: beyond_the_cut(_values(site), site.cut, share).reshape(_batch_shape(site))
        for (name, site), share in zip(variables.items(), shares, strict=True)
    }


def _batch_shape(site: Site) -> tuple[int, ...]:
    return site.shape[: len(site.shape) - site.event_dim]
