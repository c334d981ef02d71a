"""Laplace's approximation: a normal with the curvature of the log density at its mode.

Fitting moves a point on the unconstrained scale to the mode of the posterior density there, Jacobians
included. The precision of the approximation is minus the second derivative at that point, with discrete
sites summed out exactly. It is a property of the fitted point and of the data, not a
parameter, so it is computed when it is asked for, and needs the model's arguments for that.

A precision must be positive definite. Whether it is can be told from rounding noise only on a scale where
all coordinates count alike, so each is first divided by the square root of its own curvature. What is
left has ones on its diagonal, and its smallest eigenvalue is compared with the rounding of a
matrix of that size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from marginax.errors import ModelError
from marginax.infer.autoguide.joint import AutoContinuous, Start, unpack
from marginax.infer.autoguide.latents import LatentSite
from marginax.infer.start.initialization import InitStrategy, init_to_uniform
from marginax.infer.target import make_target
from marginax.jaxpr.compiled import hoisted_jit, remembered_jit
from marginax.jaxpr.concrete import is_concrete
from marginax.language import handlers

HessianFn = Callable[[Callable[[Array], Array], Array], Array]


@dataclass(frozen=True)
class _Arguments:
    args: Any
    kwargs: Any


class AutoLaplaceApproximation(AutoContinuous):
    """A normal around the mode of the posterior density, on the unconstrained scale.

    SVI finds the mode; the covariance is the inverse of the curvature there.

    Parameters
    ----------
    model : callable
        The model; its continuous sites may not stand in subsampled plates.
    prefix : str
        The parameter is named ``{prefix}_loc``.
    init_loc_fn : callable
        A function of a site that returns its initial value; see `infer.initialization`.
    hessian_fn : callable, optional
        A function of the negative log density and a vector that returns the Hessian there, in place of
        ``jax.hessian(f)(x)``.

    Notes
    -----
    The guide remembers the arguments of its last run, unless they were being traced (it ran inside a
    function of your own under `jax.jit`). It then asks for them.

    References
    ----------
    Tierney and Kadane (1986). Accurate Approximations for Posterior Moments and Marginal
    Densities. JASA 81.

    Examples
    --------
    >>> import jax, optax
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(data):
    ...     loc = mx.sample("loc", dist.Normal(0.0, 1.0))
    ...     with mx.plate("data", len(data)):
    ...         mx.sample("obs", dist.Normal(loc, 1.0), obs=data)
    >>> guide = mx.infer.autoguide.AutoLaplaceApproximation(model)
    >>> svi = mx.infer.SVI(model, guide, optax.adam(0.1), mx.infer.TraceEnum_ELBO())
    >>> data = jnp.array([1.0, 2.0, 3.0])
    >>> result = svi.run(jax.random.key(0), 300, data, progress_bar=False)
    >>> guide.get_posterior(result.params).variance
    Array([0.25], dtype=float32)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        prefix: str = "auto",
        init_loc_fn: InitStrategy = init_to_uniform,
        hessian_fn: HessianFn | None = None,
    ) -> None:
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)
        self.hessian_fn = hessian_fn
        self._arguments: _Arguments | None = None

    def shape_parameters(self, size: int) -> dict[str, Start]:
        return {}

    def distribution(self, loc: Array) -> dist.Distribution:
        return dist.Delta(loc, event_dim=1)

    def _look(self, args: Any, kwargs: Any) -> Mapping[str, LatentSite]:
        # A traced array must not be kept: it means nothing once its trace is over.
        self._arguments = _Arguments(args, kwargs) if is_concrete((args, kwargs)) else None
        return super()._look(args, kwargs)

    def get_posterior(
        self, params: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> dist.Distribution:
        """The normal approximation of the unconstrained vector.

        Parameters
        ----------
        params : mapping
            The parameters by name: the result's ``params``, the model's own among them.
        *args, **kwargs
            The model's arguments; without them, those of the guide's last run.

        Returns
        -------
        MultivariateNormal
            Of the sites' unconstrained values one after the other, in the model's order.

        Raises
        ------
        ModelError
            When the curvature is not that of a maximum in some direction, when the arguments are not
            known, or when called with traced parameters.
        """
        sites = self._known_sites(args, kwargs)
        loc = self._fitted_loc(params, sites)
        given = _Arguments(args, kwargs) if args or kwargs else self._arguments
        if given is None:
            raise ModelError(
                "AutoLaplaceApproximation: its last run was traced (inside jax.jit, say), so it could not "
                "keep the data, which its curvature depends on.",
                advice=(
                    "Give the model's arguments after the parameters: guide.sample_posterior(key, params, data)."
                ),
            )
        if not is_concrete((params, given.args, given.kwargs)):
            raise ModelError(
                "AutoLaplaceApproximation: whether its curvature is that of a maximum can only be checked "
                "with numbers, but it is asked inside jax.jit, jax.vmap or another transformation.",
                advice="Call get_posterior outside, and use the normal that it returns inside.",
            )
        covariance = _inverse(self._precision(params, loc, sites, given), sites)
        tril = np.linalg.cholesky(covariance)
        return dist.MultivariateNormal(loc, scale_tril=jnp.asarray(tril, loc.dtype))

    def _precision(
        self,
        params: Mapping[str, Any],
        loc: Array,
        sites: Mapping[str, LatentSite],
        given: _Arguments,
    ) -> np.ndarray:
        model = handlers.substitute(_unblocked(self.model), data=params)
        target = make_target(model, given.args, given.kwargs)
        for name in target.sites:
            if name not in sites:
                raise ModelError(
                    "it is continuous and hidden from AutoLaplaceApproximation, whose curvature is that of "
                    "the density of all continuous sites.",
                    site=name,
                    advice="Leave it in, or use another guide for the others, AutoMultivariateNormal say.",
                )

        def negative(vector: Array) -> Array:
            return -target.log_density(unpack(sites, vector))

        if self.hessian_fn is None:
            hessian = remembered_jit(lambda x: jax.hessian(negative)(x), loc)(loc)
        else:
            hessian = self.hessian_fn(hoisted_jit(negative, loc), loc)
        if jnp.shape(hessian) != (loc.size, loc.size):
            raise ValueError(
                f"AutoLaplaceApproximation: hessian_fn must return a matrix of shape {(loc.size, loc.size)}, "
                f"not {jnp.shape(hessian)}."
            )
        return np.asarray(hessian)


def _unblocked(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model without the blocks around it: its density is that of all its sites."""
    while isinstance(model, handlers.block) and model.fn is not None:
        model = model.fn
    return model


def _inverse(precision: np.ndarray, sites: Mapping[str, LatentSite]) -> np.ndarray:
    """The covariance, in double precision; an error names the direction that has none."""
    rounding = 8 * len(precision) * np.finfo(precision.dtype).eps
    precision = precision.astype(np.float64)
    names = _coordinates(sites)
    bad = ~np.isfinite(precision).all(axis=1)
    if bad.any():
        raise ModelError(
            f"AutoLaplaceApproximation: the second derivative of the log density in {names[np.argmax(bad)]} "
            "(unconstrained) is not finite at the fitted point.",
            advice="Look for a function with an infinite derivative, such as sqrt or abs at zero.",
        )
    precision = (precision + precision.T) / 2
    own = np.diag(precision)
    if not (own > 0).all():
        lowest = int(np.argmin(own))
        raise _wrongly_curved(f"in {names[lowest]}", own[lowest], own[lowest] == 0)
    each = 1 / np.sqrt(own)
    values, vectors = np.linalg.eigh(precision * np.outer(each, each))
    if values[0] <= rounding:
        direction = vectors[:, 0] * each
        direction /= np.linalg.norm(direction) * np.sign(direction[np.argmax(np.abs(direction))])
        curvature = float(direction @ precision @ direction)
        raise _wrongly_curved(
            f"along {_sum_of(direction, names)}", curvature, abs(values[0]) <= rounding
        )
    return np.outer(each, each) * ((vectors / values) @ vectors.T)


def _wrongly_curved(where: str, curvature: float, is_flat: bool) -> ModelError:
    how = "flat" if is_flat else f"curved upwards (second derivative {-curvature:.3g})"
    return ModelError(
        f"AutoLaplaceApproximation: at the fitted point the log density is {how} {where} (unconstrained), so "
        "no normal approximates it there. If the fit has not converged, take more steps or begin "
        "elsewhere; if nothing determines this direction, give it a proper prior; or use AutoNormal."
    )


def _coordinates(sites: Mapping[str, LatentSite]) -> list[str]:
    """A name for each number of the vector."""
    return [
        f"'{name}'" + (f"[{', '.join(map(str, index))}]" if index else "")
        for name, site in sites.items()
        for index in np.ndindex(site.free_shape)
    ]


def _sum_of(direction: np.ndarray, names: list[str]) -> str:
    """The largest parts of a direction, at most three, as a sum."""
    largest = sorted(np.argsort(-np.abs(direction))[:3])
    shown = [i for i in largest if abs(direction[i]) > 0.05]
    terms = "".join(
        f" {'-' if direction[i] < 0 else '+'} {abs(direction[i]):.2f} {names[i]}" for i in shown
    )
    return terms.removeprefix(" + ").removeprefix(" ") + (
        " + ..." if len(names) > len(shown) else ""
    )
