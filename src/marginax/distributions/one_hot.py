"""`OneHotCategorical`: a category as a vector of zeros and a single one. NumPyro has none."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Categorical, Distribution, constraints


class _OneHot(constraints.Constraint):
    is_discrete = True
    event_dim = 1

    def __call__(self, x: Any) -> Any:
        return jnp.all((x == 0) | (x == 1), -1) & (jnp.sum(x, -1) == 1)

    def feasible_like(self, prototype: Any) -> Any:
        size = jnp.shape(prototype)[-1]
        return jnp.broadcast_to(jax.nn.one_hot(0, size, dtype=int), jnp.shape(prototype))

    def tree_flatten(self) -> Any:
        return (), ((), {})


one_hot = _OneHot()
"""Vectors of zeros and a single one."""


class OneHotCategorical(Distribution):
    """One of K categories, as a vector with a one at its place.

    Parameters
    ----------
    probs : array, shape (*batch_shape, K), optional
        Probabilities.
    logits : array, shape (*batch_shape, K), optional
        Instead of ``probs``: logarithms of probabilities, up to a constant.

    Raises
    ------
    ValueError
        When not exactly one of the two is given, or it is a scalar.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import marginax.distributions as dist
    >>> round(float(dist.OneHotCategorical(probs=jnp.array([0.25, 0.75])).log_prob(jnp.array([0, 1]))), 3)
    -0.288
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # its categorical's are checked
    support: Any = one_hot
    has_enumerate_support = True
    pytree_data_fields = ("categorical",)

    def __init__(
        self,
        probs: ArrayLike | None = None,
        logits: ArrayLike | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if (probs is None) == (logits is None):
            raise ValueError("OneHotCategorical: give either probs= or logits=.")
        self.categorical: Any = Categorical(probs, logits, validate_args=validate_args)
        size = self.categorical.support.upper_bound + 1
        super().__init__(self.categorical.batch_shape, (size,), validate_args=validate_args)

    def _log_probs(self) -> Array:
        """Of every category, shape (*batch_shape, K)."""
        size = self.event_shape[0]
        categories = jnp.arange(size).reshape((size, *(1,) * len(self.batch_shape)))
        found = jnp.moveaxis(self.categorical.log_prob(categories), 0, -1)
        return found - jax.nn.logsumexp(found, -1, keepdims=True)  # probs may not add up to one

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        index = self.categorical.sample(key, sample_shape)
        return jax.nn.one_hot(index, self.event_shape[0], dtype=int)

    def log_prob(self, value: ArrayLike) -> Array:
        # Chosen, not multiplied: zero times the logarithm of an impossible category is NaN.
        return jnp.sum(jnp.where(jnp.asarray(value) == 1, self._log_probs(), 0.0), -1)

    @property
    def mean(self) -> Array:
        return self.categorical.probs

    @property
    def variance(self) -> Array:
        return self.mean * (1 - self.mean)

    def enumerate_support(self, expand: bool = True) -> Array:
        size = self.event_shape[0]
        values = jnp.eye(size, dtype=int).reshape((size, *(1,) * len(self.batch_shape), size))
        return jnp.broadcast_to(values, (size, *self.batch_shape, size)) if expand else values
