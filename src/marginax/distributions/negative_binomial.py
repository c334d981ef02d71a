"""Negative binomial counts by their mean, which may be zero: all that is known of it is kept."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln
from jax.typing import ArrayLike
from numpyro.distributions import (
    HurdleDistribution,
    NegativeBinomial2 as _NegativeBinomial2,
    ZeroInflatedDistribution,
    constraints,
)
from numpyro.distributions.util import promote_shapes


class NegativeBinomial2(_NegativeBinomial2):
    """Counts with a mean and a concentration; as NumPyro's, but exact and smooth at a mean of zero.

    NumPyro's keeps the quotient of the two alone, which is infinite at a mean of zero, so that no
    derivative in the mean comes out of it (`mean * occupied`, say).

    Parameters
    ----------
    mean : array
        The mean, zero or positive.
    concentration : array
        The variance is ``mean + mean**2 / concentration``.

    Examples
    --------
    >>> import jax
    >>> import marginax.distributions as dist
    >>> float(jax.grad(lambda mean: dist.NegativeBinomial2(mean, 3.0).log_prob(0))(0.0))
    -1.0
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "expected": constraints.nonnegative,
        "concentration": constraints.positive,
    }
    pytree_data_fields: ClassVar[tuple[str, ...]] = ("concentration", "expected")

    def __init__(
        self, mean: ArrayLike, concentration: ArrayLike, *, validate_args: bool | None = None
    ) -> None:
        promoted: Any = promote_shapes(mean, concentration)
        self.expected: Any = promoted[0]
        super().__init__(mean, concentration, validate_args=validate_args)

    @property
    def mean(self) -> Array:
        return jnp.broadcast_to(self.expected, self.batch_shape)

    def log_prob(self, value: ArrayLike) -> Array:
        dtype = jnp.result_type(float)
        value, n, mean = (jnp.asarray(x, dtype) for x in (value, self.concentration, self.expected))
        counts, possible = value > 0, mean > 0
        logarithm = jnp.log(jnp.where(counts & possible, mean / (n + mean), 1.0))
        ways = gammaln(value + n) - gammaln(n) - gammaln(value + 1)
        found = ways + value * logarithm - n * jnp.log1p(mean / n)
        return jnp.where(counts & jnp.logical_not(possible), -jnp.inf, found)


def ZeroInflatedNegativeBinomial2(
    mean: ArrayLike,
    concentration: ArrayLike,
    *,
    gate: ArrayLike | None = None,
    gate_logits: ArrayLike | None = None,
    validate_args: bool | None = None,
) -> Any:
    """A `NegativeBinomial2` with more zeros: give either ``gate``, their probability, or its logit."""
    counts = NegativeBinomial2(mean, concentration, validate_args=validate_args)
    return ZeroInflatedDistribution(
        counts, gate=gate, gate_logits=gate_logits, validate_args=validate_args
    )


def HurdleNegativeBinomial2(
    gate: ArrayLike,
    mean: ArrayLike,
    concentration: ArrayLike,
    *,
    validate_args: bool | None = None,
) -> Any:
    """Zero with probability ``gate``, otherwise a `NegativeBinomial2` count above zero."""
    counts = NegativeBinomial2(mean, concentration, validate_args=validate_args)
    return HurdleDistribution(counts, gate=gate, validate_args=validate_args)
