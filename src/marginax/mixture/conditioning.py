"""L-BFGS in coordinates in which the rows know all parameters about equally well.

A component that is a hundred times thinner in one direction than in another has means and covariances that the rows
know a hundred times better there. In a table's own coordinates such a density is a narrow, crooked valley: EM
does not mind, for it solves for a component's parameters, but gradients run from wall to wall, and L-BFGS needs a
thousand iterations where EM needs ten. The remedy is a change of coordinates. If F is the Fisher information of a
component's parameters and F = R R' its Cholesky factorisation, then in the coordinates u = R' x the information is the
identity, whatever the units, the correlations of the columns and the family.

The information is estimated as in the method of Berndt, Hall, Hall and Hausman (1974, "Estimation and inference in
nonlinear structural models", Annals of Economic and Social Measurement 3): by the products of the rows' own gradients,
each row weighted by the probability that it belongs to the component. That is of one component at a time; what
is known of two at once is left to L-BFGS, and so is how the information changes along the way. It is taken where a
start begins, once, which is where components have about their size. Missing cells stand at the filled value here,
for coordinates need only be about right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import distributions as dist

from marginax.mixture.model import INITIAL, WEIGHTS, Design, Group, Rows
from marginax.mixture.triangular import cholesky, inverse_of_lower

LARGEST = 300
"""Up to so many parameters a component has an information matrix; beyond, its diagonal alone."""
MOST_NUMBERS = 4 * 10**6
"""Gradients are taken of so many rows that there are not more numbers than these."""
OWN = 0.01
"""Part of its diagonal that is added to an information, which may be of few rows."""
TINY_SHARE = 1e-6
"""A share that is less has the information of this one."""
Free = Mapping[str, Array]
"""Unconstrained parameters, by site."""


class Block(NamedTuple):
    """The factor R of an information F = R R', and its inverse; where F is diagonal, their diagonals."""

    factor: Array
    """Shape (count, n, n), or (count, n)."""
    inverse: Array


def enough_rows(design: Design, starts: int) -> int:
    """So many rows have gradients that fit in memory, for so many starts at once."""
    numbers = max(part.size for part in _parts(design)) * design.components * starts
    return max(MOST_NUMBERS // max(numbers, 1), 1)


def information(design: Design, free: Free, some: Rows, number: Any) -> tuple[Block, ...]:
    """The information that rows have of each part of the parameters, where a start begins.

    Parameters
    ----------
    design : Design
        Whose parameters are fitted.
    free : mapping
        Where.
    some : Rows
        Rows of the table, see `enough_rows`.
    number : int
        How many the table has.
    """
    return _blocks(design, _parts(design), free, some, number)


# With x the numbers outside and u = R' x those inside; g is a gradient.


def inward(design: Design, free: Free, blocks: tuple[Block, ...]) -> Array:
    """The place inside, as one vector: u = R' x."""
    return _joined(design, free, [_transposed(block.factor) for block in blocks])


def slope_inward(design: Design, slopes: Free, blocks: tuple[Block, ...]) -> Array:
    """The gradient by u: R^-1 g."""
    return _joined(design, slopes, [block.inverse for block in blocks])


def outward(design: Design, inside: Array, blocks: tuple[Block, ...]) -> dict[str, Array]:
    """The unconstrained parameters: x = R'^-1 u."""
    parts, found = _parts(design), {}
    pieces = jnp.split(inside, np.cumsum([part.count * part.size for part in parts])[:-1])
    for part, block, piece in zip(parts, blocks, pieces, strict=True):
        numbers = _times(_transposed(block.inverse), piece.reshape(part.count, part.size))
        found |= part.split(numbers)
    return found


def _joined(design: Design, free: Free, factors: list[Array]) -> Array:
    parts = zip(_parts(design), factors, strict=True)
    return jnp.concatenate([_times(factor, part.join(free)).ravel() for part, factor in parts])


def constrained(design: Design, free: Free) -> dict[str, Any]:
    """Parameters, of unconstrained ones."""
    return {s: dist.biject_to(design.priors[s].prior.support)(x) for s, x in free.items()}


def unconstrained(design: Design, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as unconstrained numbers."""
    return {s: dist.biject_to(design.priors[s].prior.support).inv(v) for s, v in values.items()}


@dataclass(frozen=True)
class _Part:
    """Parameters whose information is one matrix, or one for each component."""

    sites: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Of their unconstrained values, of one component."""
    count: int
    """How many there are of them: as many as components, or one where it is shared."""
    whole: tuple[tuple[int, ...], ...]
    """Of their unconstrained values, of all components."""
    group: Group | None = None
    """None: they say which component."""

    @property
    def size(self) -> int:
        """How many numbers they are, of one component."""
        return sum(math.prod(shape) for shape in self.shapes)

    def join(self, free: Free) -> Array:
        """Their values, shape (count, size)."""
        return jnp.concatenate([free[s].reshape(self.count, -1) for s in self.sites], -1)

    def split(self, numbers: Array) -> dict[str, Array]:
        """The way back, for numbers in shape (count, size)."""
        named = zip(self.sites, self._pieces(numbers), self.whole, strict=True)
        return {s: piece.reshape(shape) for s, piece, shape in named}

    def values(self, numbers: Array, design: Design) -> dict[str, Any]:
        """Constrained values of one component, of numbers in shape (size,)."""
        found = {}
        for site, shape, piece in zip(self.sites, self.shapes, self._pieces(numbers), strict=True):
            found[site] = dist.biject_to(design.priors[site].prior.support)(piece.reshape(shape))
        return found

    def _pieces(self, numbers: Array) -> list[Array]:
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        return jnp.split(numbers, ends, axis=-1)


def _parts(design: Design) -> tuple[_Part, ...]:
    def shape(site: str) -> tuple[int, ...]:
        prior = design.priors[site].prior
        whole = (*prior.batch_shape, *prior.event_shape)
        return tuple(dist.biject_to(prior.support).inverse_shape(whole))

    # A probability vector is a part; those of a chain's transitions are as many as there are states.
    parts = [
        _Part((site,), (shape(site)[-1:],), math.prod(shape(site)[:-1]), (shape(site),))
        for site in design.outer
    ]
    for group in design.groups:
        for is_shared in (False, True):
            sites = [group.site(n) for n, p in group.parameters.items() if p.is_shared == is_shared]
            if sites:
                shapes = tuple(map(shape, sites))
                count = 1 if is_shared else design.components
                whole = shapes if is_shared else tuple((count, *own) for own in shapes)
                parts.append(_Part(tuple(sites), shapes, count, whole, group))
    return tuple(parts)


def _blocks(
    design: Design, parts: tuple[_Part, ...], free: Free, some: Rows, number: Any
) -> tuple[Block, ...]:
    """The information of each part, of a number of rows, from some of them."""
    everyone = np.arange(design.components)
    values: dict[str, Any] = {}
    for part in parts:
        own = jax.vmap(lambda x, part=part: part.values(x, design))(part.join(free))
        is_shared = part.group is not None and part.count < design.components
        values |= {s: v[np.zeros_like(everyone)] if is_shared else v for s, v in own.items()}
    responsible = _responsible(design, values, some) * some.is_real[:, None]
    found = []
    for part in parts:
        if part.group is None:
            (site,) = part.sites
            vectors = values[site].reshape(part.count, -1)
            uses = _uses(site, responsible, number)
            known = _information_of_vectors(design, part, part.join(free), vectors, uses)
        else:
            gradients = _gradients(design, part, part.group, values, part.join(free), some)
            gradients = jnp.where(jnp.isfinite(gradients), gradients, 0.0)
            gradients = (
                gradients * jnp.sqrt(responsible * number / jnp.sum(some.is_real))[..., None]
            )
            known = _information(gradients, part)
        found.append(_factored(known))
    return tuple(found)


def _uses(site: str, responsible: Array, number: Any) -> Array:
    """How often each vector of probabilities is drawn from, shape (vectors,)."""
    if site == WEIGHTS:
        return jnp.full(1, 1.0) * number
    if site == INITIAL:  # once in a series, and most tables are one
        return jnp.ones(1)
    return jnp.sum(responsible, 0) / jnp.sum(responsible) * number


def _information_of_vectors(
    design: Design, part: _Part, numbers: Array, vectors: Array, uses: Array
) -> Array:
    """Of vectors of probabilities that are drawn from so often: multinomial, and one draw more."""

    def vector(numbers: Array) -> Array:
        (value,) = part.values(numbers, design).values()
        return value.reshape(-1)

    slopes = jax.vmap(jax.jacfwd(vector))(numbers)
    weights = (uses[:, None] + 1) / jnp.maximum(vectors, TINY_SHARE)
    return jnp.einsum("kai,ka,kaj->kij", slopes, weights, slopes) + OWN * jnp.eye(part.size)


def _responsible(design: Design, values: Mapping[str, Any], some: Rows) -> Array:
    """The probability of each component for each row, shape (rows, components); in a chain, without its neighbours."""
    total = 0.0 if design.is_chain else jnp.log(values[WEIGHTS][0])
    for group in design.groups:
        where, family = np.asarray(group.where), group.family
        prepared = family.prepare({n: values[group.site(n)] for n in group.parameters}, None)
        of_each = family.of(prepared, np.arange(design.components), 0)
        observed = None if some.observed is None else some.observed[:, None, where]
        total += family.log_prob(of_each, some.cells[:, None, where], observed)
    return jax.nn.softmax(total, -1)


def _gradients(
    design: Design,
    part: _Part,
    group: Group,
    values: Mapping[str, Any],
    numbers: Array,
    some: Rows,
) -> Array:
    """Of the log density of each row in each component, shape (rows, components, size)."""
    where, family = np.asarray(group.where), group.family

    def log_density(numbers: Array, component: Any, row: Any, observed: Any) -> Array:
        own = part.values(numbers, design)
        of_one = {
            n: own[s][None] if (s := group.site(n)) in own else values[s][component][None]
            for n in group.parameters
        }
        return family.log_prob(family.of(family.prepare(of_one, None), 0, 0), row, observed)

    each = jax.vmap(jax.grad(log_density), (0, 0, None, None))
    each = jax.vmap(each, (None, None, 0, None if some.observed is None else 0))
    everyone = np.arange(design.components)
    numbers = jnp.broadcast_to(numbers, (design.components, part.size))
    observed = None if some.observed is None else some.observed[:, where]
    return each(numbers, everyone, some.cells[:, where], observed)


def _information(gradients: Array, part: _Part) -> Array:
    """The sum of products of gradients, or its diagonal; and that of a prior of about one."""
    if part.size > LARGEST:
        diagonal = jnp.sum(gradients**2, 0)
        return 1.0 + (diagonal if part.count > 1 else jnp.sum(diagonal, 0, keepdims=True))
    rows = gradients if part.count > 1 else gradients.reshape(-1, 1, part.size)
    matrix = jnp.einsum("rki,rkj->kij", rows, rows)
    more = 1.0 + OWN * jnp.diagonal(matrix, axis1=-2, axis2=-1)
    return matrix + more[..., None] * jnp.eye(part.size)


def _factored(known: Array) -> Block:
    if known.ndim == 2 or known.shape[-1] == 0:
        known = known.reshape(known.shape[:2])
        return Block(jnp.sqrt(known), 1 / jnp.sqrt(known))
    factor = cholesky(known)
    return Block(factor, inverse_of_lower(factor))


def _times(factor: Array, numbers: Array) -> Array:
    return factor * numbers if factor.ndim == 2 else jnp.einsum("kij,kj->ki", factor, numbers)


def _transposed(factor: Array) -> Array:
    return factor if factor.ndim == 2 else jnp.swapaxes(factor, -1, -2)
