"""Joint normal guides, by what their covariance may be: diagonal, of low rank, any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from marginax.infer.autoguide.base import check_init_scale
from marginax.infer.autoguide.joint import AutoContinuous, Start
from marginax.infer.start.initialization import InitStrategy, init_to_uniform


class _JointNormal(AutoContinuous):
    def __init__(
        self,
        model: Callable[..., Any],
        *,
        prefix: str = "auto",
        init_loc_fn: InitStrategy = init_to_uniform,
        init_scale: float = 0.1,
    ) -> None:
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)
        self.init_scale = check_init_scale(type(self).__name__, init_scale)

    def _scales(self, size: int) -> Start:
        return Start(jnp.full(size, self.init_scale), constraints.softplus_positive)


class AutoDiagonalNormal(_JointNormal):
    """Independent normals on the unconstrained scale, as one vector.

    What `AutoNormal` is, with two parameters in all instead of two for each site.

    Parameters
    ----------
    model : callable
        The model; its continuous sites may not stand in subsampled plates.
    prefix : str
        Parameters are named ``{prefix}_loc`` and ``{prefix}_scale``.
    init_loc_fn : callable
        A function of a site that returns its initial value; see `infer.initialization`.
    init_scale : float
        The standard deviation to begin with.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     mx.sample("x", dist.Normal(0.0, 1.0))
    ...     mx.sample("p", dist.Dirichlet(jnp.ones(3)))
    >>> guide = mx.infer.autoguide.AutoDiagonalNormal(model)
    >>> values = mx.handlers.seed(guide, rng_seed=0)()
    >>> params = {"auto_loc": jnp.zeros(3), "auto_scale": jnp.ones(3)}
    >>> [round(float(p), 2) for p in guide.median(params)["p"]]
    [0.33, 0.33, 0.33]
    """

    def shape_parameters(self, size: int) -> dict[str, Start]:
        return {"scale": self._scales(size)}

    def distribution(self, loc: Array, scale: Array) -> dist.Distribution:
        return dist.Normal(loc, scale)


class AutoMultivariateNormal(_JointNormal):
    """A normal with any covariance on the unconstrained scale.

    It has about half the square of the number of unconstrained values as parameters.

    Parameters
    ----------
    model : callable
        The model; its continuous sites may not stand in subsampled plates.
    prefix : str
        Parameters are named ``{prefix}_loc`` and ``{prefix}_scale_tril``, the Cholesky factor of the
        covariance.
    init_loc_fn : callable
        A function of a site that returns its initial value; see `infer.initialization`.
    init_scale : float
        The standard deviation to begin with.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     x = mx.sample("x", dist.Normal(0.0, 1.0))
    ...     mx.sample("y", dist.Normal(x, 1.0))
    >>> guide = mx.infer.autoguide.AutoMultivariateNormal(model)
    >>> values = mx.handlers.seed(guide, rng_seed=0)()
    >>> params = {"auto_loc": jnp.zeros(2), "auto_scale_tril": jnp.array([[1.0, 0.0], [1.0, 1.0]])}
    >>> guide.get_posterior(params).covariance_matrix
    Array([[1., 1.],
           [1., 2.]], dtype=float32)
    """

    def shape_parameters(self, size: int) -> dict[str, Start]:
        tril = self.init_scale * jnp.identity(size)
        return {"scale_tril": Start(tril, constraints.scaled_unit_lower_cholesky)}

    def distribution(self, loc: Array, scale_tril: Array) -> dist.Distribution:
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)


class AutoLowRankMultivariateNormal(_JointNormal):
    """A normal whose covariance is a diagonal and a matrix of low rank, on the unconstrained scale.

    With scales s and factor W the covariance is ``diag(s) (I + W W') diag(s)``.

    Parameters
    ----------
    model : callable
        The model; its continuous sites may not stand in subsampled plates.
    prefix : str
        Parameters are named ``{prefix}_loc``, ``{prefix}_cov_factor`` and ``{prefix}_scale``.
    init_loc_fn : callable
        A function of a site that returns its initial value; see `infer.initialization`.
    init_scale : float
        The standard deviation to begin with.
    rank : int, optional
        The rank; the square root of the number of unconstrained values when nothing is said.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     with mx.plate("n", 9):
    ...         mx.sample("x", dist.Normal(0.0, 1.0))
    >>> guide = mx.infer.autoguide.AutoLowRankMultivariateNormal(model)
    >>> trace = mx.handlers.trace(mx.handlers.seed(guide, rng_seed=0)).get_trace()
    >>> trace["auto_cov_factor"]["value"].shape
    (9, 3)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        prefix: str = "auto",
        init_loc_fn: InitStrategy = init_to_uniform,
        init_scale: float = 0.1,
        rank: int | None = None,
    ) -> None:
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn, init_scale=init_scale)
        if rank is not None and (not isinstance(rank, int) or rank < 1):
            raise ValueError(
                f"{type(self).__name__}: rank must be an integer >= 1 (or None for the square root of "
                f"the number of values), not {rank!r}."
            )
        self.rank = rank

    def shape_parameters(self, size: int) -> dict[str, Start]:
        rank = round(size**0.5) if self.rank is None else self.rank
        return {"cov_factor": Start(jnp.zeros((size, rank))), "scale": self._scales(size)}

    def distribution(self, loc: Array, cov_factor: Array, scale: Array) -> dist.Distribution:
        return dist.LowRankMultivariateNormal(loc, cov_factor * scale[:, None], scale**2)
