"""Products and triangular systems in a plate whose matrix is the same in all elements.

Traced in a plate, ``tril[z]`` applied to a point is one small product (or one small triangular system)
for each element. While one value of ``z`` is enumerated, though, the matrix is the same in all of them.
Then the plate's axis is no batch of that side: it belongs to the free axes of the other one, and the
elements together are one large product. A matrix that solves many systems is inverted once; where it is triangular,
the error of the solutions has a bound like that of substitution (Higham, 2002, *Accuracy and Stability of
Numerical Algorithms*, chapter 14).

Otherwise the matrix would have to be copied for every element, which for a mixture of Gaussians with
full covariances takes more memory and time than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.extend import core as jex_core

from marginax.jaxpr.axis_flow import shape_of

Labels = tuple[list[int], list[int], list[int]]
"""Names of the axes of both operands and of the result; a name that the result lacks is summed over."""


def shared_axes(
    eqn: jex_core.JaxprEqn, constant: Sequence[frozenset[int]]
) -> tuple[frozenset[int], ...] | None:
    """For each operand, the batch axes along which it alone stays the same, if it has any.

    Parameters
    ----------
    eqn : JaxprEqn
        Any equation.
    constant : sequence of frozenset of int
        For each operand, the axes along which it repeats itself.
    """
    labels = _labels(eqn)
    if labels is None:
        return None
    left, right, out = labels
    batch = set(left) & set(right) & set(out)
    same = [{own[a] for a in axes} for own, axes in zip((left, right), constant, strict=True)]
    alone = (batch & (same[0] - same[1]), batch & (same[1] - same[0]))
    if eqn.primitive.name == "triangular_solve":
        alone = (alone[0], set[int]())  # with a matrix for each element, nothing is gained
    if not any(alone):
        return None
    return tuple(
        frozenset(a for a, label in enumerate(own) if label in chosen)
        for own, chosen in zip((left, right), alone, strict=True)
    )


def with_shared(
    eqn: jex_core.JaxprEqn, shared: Sequence[frozenset[int]]
) -> Callable[[Array, Array], Array]:
    """The equation as a function of operands that have size one along their shared axes."""
    labels = _labels(eqn)
    assert labels is not None
    params, solves = eqn.params, eqn.primitive.name == "triangular_solve"

    def call(left: Array, right: Array) -> Array:
        if solves:
            identity = jnp.broadcast_to(jnp.eye(left.shape[-1], dtype=left.dtype), left.shape)
            options = {k: params[k] for k in _SYSTEM}
            left = lax.linalg.triangular_solve(left, identity, left_side=True, **options)
        operands: list[Any] = []
        for array, own, axes in zip((left, right), labels, shared, strict=False):
            operands += [jnp.squeeze(array, tuple(axes))]
            operands += [[label for a, label in enumerate(own) if a not in axes]]
        return jnp.einsum(
            *operands,
            labels[2],
            # A system is solved in full precision, also where products by default are not.
            precision=lax.Precision.HIGHEST if solves else params.get("precision"),
            preferred_element_type=params.get("preferred_element_type"),
        )

    return call


_SYSTEM = ("lower", "transpose_a", "conjugate_a", "unit_diagonal")


def _labels(eqn: jex_core.JaxprEqn) -> Labels | None:
    name = eqn.primitive.name
    if name == "triangular_solve":
        ndim = len(shape_of(eqn.invars[0]))
        batch, (row, column, free) = list(range(ndim - 2)), (ndim - 2, ndim - 1, ndim)
        if eqn.params["left_side"]:
            return [*batch, row, column], [*batch, column, free], [*batch, row, free]
        return [*batch, row, column], [*batch, free, row], [*batch, free, column]
    if name != "dot_general":
        return None
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    ndim = [len(shape_of(atom)) for atom in eqn.invars]
    left = list(range(ndim[0]))
    right = [ndim[0] + a for a in range(ndim[1])]
    for a, b in (
        *zip(left_sum, right_sum, strict=True),
        *zip(left_batch, right_batch, strict=True),
    ):
        right[b] = left[a]
    used_left, used_right = {*left_sum, *left_batch}, {*right_sum, *right_batch}
    out = [left[a] for a in left_batch]
    out += [left[a] for a in range(ndim[0]) if a not in used_left]
    out += [right[b] for b in range(ndim[1]) if b not in used_right]
    return left, right, out
