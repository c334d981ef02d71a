"""The density that MCMC moves on: unconstrained, with the discrete variables summed out.

Each continuous latent site is moved by a vector without constraints; the site's bijection and the
logarithm of its Jacobian are applied inside the model's own run, so a support may depend on the
sites before it. The Jacobians are factors like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions.transforms import biject_to

from marginax.density.parameters import Parameter
from marginax.errors import ModelError
from marginax.graph.record import Latents, record_model
from marginax.graph.sites import Site, as_jax_arrays
from marginax.infer.known import KnownModel
from marginax.infer.start.initial_run import initial_trace
from marginax.infer.start.initialization import InitStrategy
from marginax.jaxpr.compiled import hoisted_jit
from marginax.language.stack import Message, element
from marginax.marginal.prepared import Prepared, diagnose
from marginax.marginal.queries import log_density

Position = dict[str, Array]
"""Unconstrained values by site name."""


@dataclass(frozen=True)
class Target:
    """A model's marginal posterior density on the unconstrained scale, up to a constant."""

    prepared: Prepared
    sites: Mapping[str, Site]
    """The continuous latent sites, in the model's order."""

    def log_density(self, position: Mapping[str, Any]) -> Array:
        """Log density of an unconstrained position, Jacobians included, shape ()."""
        return self.prepared.ask(log_density, position)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a site's unconstrained value."""
        return self.prepared.graph.latents[name].shape

    def compiled_log_density(self) -> Callable[[Mapping[str, Any]], Array]:
        """The same as a function that is traced once, however often a sampler's program calls it."""
        dtype = jnp.result_type(float)
        example = {name: jax.ShapeDtypeStruct(self.shape(name), dtype) for name in self.sites}
        return hoisted_jit(self.log_density, example)

    def validity(self, position: Mapping[str, Any]) -> dict[str, dict[Parameter, Array]]:
        """By site and parameter, whether the parameter is valid at an unconstrained position."""
        return self.prepared.ask(
            lambda prepared: prepared.graph.validity(prepared.values), position
        )

    def constrain(self, position: Mapping[str, Any]) -> dict[str, Array]:
        """Constrained values of the sites, and of the deterministic sites that nothing discrete enters."""
        return dict(self.prepared.graph.evaluate(position).values)

    def fault(self, position: Mapping[str, Any]) -> ModelError:
        """Which site makes the density, or its gradient, not finite at a position."""
        value, gradient = jax.value_and_grad(self.log_density)(position)
        if jnp.isfinite(value):
            for name, slope in gradient.items():
                if not jnp.isfinite(slope).all():
                    return ModelError(
                        f"the log density is {value:.6g}, but its derivative in this site is not finite.",
                        site=name,
                        advice=(
                            "Look for a function with an infinite derivative, such as sqrt or abs at zero."
                        ),
                    )
        return diagnose(replace(self.prepared, values=position))


class _Unconstrained(Latents):
    """Gives continuous sites a transform of an input without constraints, and states its Jacobian beside them."""

    def value_of(self, msg: Message, shape: tuple[int, ...]) -> Any:
        fn = msg["fn"]
        if fn.is_discrete:
            return super().value_of(msg, shape)
        transform = biject_to(fn.support)
        own = tuple(transform.inverse_shape(shape))
        value = element(msg, self.input_of(msg, own, jnp.result_type(float)))
        constrained = transform(value)
        msg["jacobian"] = jnp.sum(transform.log_abs_det_jacobian(value, constrained))
        return constrained


def know_unconstrained(model: Callable[..., Any], args: Any, kwargs: Any) -> KnownModel:
    """Run a model once, with its continuous latent sites on the unconstrained scale.

    Parameters
    ----------
    model : callable
        The model, under whatever handlers fix some of its values.
    args, kwargs
        Its arguments.

    Returns
    -------
    KnownModel
        With the record of the run, whose program takes unconstrained values.
    """
    args, kwargs = as_jax_arrays((args, kwargs))
    run = record_model(model, args, kwargs, (), _Unconstrained, is_compared=True)
    shapes = dict(zip(run.inputs, run.program.in_avals, strict=True))
    moved = {
        name: replace(site, shape=shapes[name].shape, dtype=shapes[name].dtype)
        for name, site in run.sites.items()
        if site.is_free and not site.is_discrete
    }
    record = replace(run, sites={**run.sites, **moved})
    return KnownModel(model, args, kwargs, run.sites, record)


def make_target(
    model: Callable[..., Any], args: Any, kwargs: Any, memory_limit: int | None = None
) -> Target:
    """Trace a model into its target density, see `target_of`."""
    return target_of(know_unconstrained(model, args, kwargs), memory_limit)


def target_of(known: KnownModel, memory_limit: int | None = None) -> Target:
    """The target density of a model.

    Parameters
    ----------
    known : KnownModel
        From `know_unconstrained`.
    memory_limit : int, optional
        In bytes, for the largest array.

    Raises
    ------
    ModelError
        When there is no continuous latent site, a discrete one cannot be summed out, or the
        support of a continuous site depends on a discrete one.
    """
    sites, continuous = known.sites, known.continuous
    for name, site in sites.items():
        if site.is_free and site.is_discrete and site.support is None:
            raise ModelError(
                f"it is a latent {site.distribution} that cannot be summed out "
                f"({site.not_enumerated_because}), and gradient-based MCMC cannot move it.",
                site=name,
                advice="Give it a finite support, or observe it.",
            )
    if not continuous:
        raise ModelError(
            "the model has no continuous latent site, so there is nothing to sample by MCMC"
            f"{_summed_out(sites)}. The exact answers are marginalize(model).posterior({{}}, ...), "
            ".mode and .draw."
        )
    prepared = known.prepare(dict.fromkeys(continuous), memory_limit)
    for name in continuous:
        for variable in prepared.graph.captured.dependence["value", name]:
            if variable in prepared.graph.variables:
                raise ModelError(
                    f"its support depends on the discrete variable '{variable}', which is summed out.",
                    site=name,
                    advice="Write it as a fixed support that is then moved and stretched.",
                )
    return Target(prepared, continuous)


def _summed_out(sites: Mapping[str, Site]) -> str:
    names = ", ".join(repr(n) for n, s in sites.items() if s.is_free)
    return f" ({names} summed out)" if names else ""


def initial_position(known: KnownModel, strategy: InitStrategy, key: Any) -> Position:
    """Where a strategy begins, on the unconstrained scale."""

    def unconstrained(site: Message, value: Array) -> Array:
        return biject_to(site["fn"].support).inv(value)

    trace, names = initial_trace(known, strategy, key, unconstrained)
    return {name: trace[name]["beside"] for name in names}
