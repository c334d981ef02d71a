"""More zeros than a distribution has of its own, whether it is one of counts or of real numbers."""

from __future__ import annotations

from typing import Any

import numpyro.distributions as numpyro_distributions
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, HurdleDistribution


def ZeroInflatedDistribution(
    base_dist: Distribution,
    *,
    gate: ArrayLike | None = None,
    gate_logits: ArrayLike | None = None,
    validate_args: bool | None = None,
) -> Any:
    """Zero with a certain probability, otherwise drawn from another distribution.

    A continuous distribution has no zeros of its own, so that this is a hurdle (`HurdleDistribution`).

    Parameters
    ----------
    base_dist : Distribution
        Of single numbers.
    gate : array, optional
        The probability of a zero that does not come from ``base_dist``.
    gate_logits : array, optional
        Instead of ``gate``, its logit.

    Examples
    --------
    >>> import marginax.distributions as dist
    >>> share = dist.ZeroInflatedDistribution(dist.Beta(2.0, 3.0), gate=0.25)
    >>> round(float(share.log_prob(0.0)), 3)
    -1.386
    """
    support = base_dist.support
    is_discrete = support is not None and support.is_discrete
    kind = numpyro_distributions.ZeroInflatedDistribution if is_discrete else HurdleDistribution
    return kind(base_dist, gate=gate, gate_logits=gate_logits, validate_args=validate_args)
