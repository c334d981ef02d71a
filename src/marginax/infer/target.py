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
from marginax.density.validate import numpyro_checks
from marginax.errors import ModelError
from marginax.graph.known_data import with_data_known
from marginax.graph.log_density import LogDensity, density_trace
from marginax.graph.same_sites import refuse_changes, seen_of
from marginax.graph.sites import Site, seen_in
from marginax.infer.known import KnownModel, know
from marginax.infer.start.initialization import (
    BESIDE,
    InitStrategy,
    initial_trace,
    site_shape,
    state,
)
from marginax.jaxpr.compiled import hoisted_jit
from marginax.language import handlers
from marginax.language.stack import Message, element, isolated
from marginax.marginal.prepared import Prepared, diagnose, prepare, split_trace
from marginax.marginal.queries import log_density

JACOBIAN = " (Jacobian)"

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
                        f"site '{name}': the log density is {value:.6g}, but its derivative in this "
                        "site is not finite. Look for a function with an infinite derivative, such "
                        "as sqrt or abs at zero."
                    )
        return diagnose(replace(self.prepared, values=position))


def make_target(
    model: Callable[..., Any], args: Any, kwargs: Any, memory_limit: int | None = None
) -> Target:
    """Trace a model into its target density: `target_of` a model of which nothing is known yet."""
    return target_of(know(model, args, kwargs), memory_limit)


def target_of(known: KnownModel, memory_limit: int | None = None) -> Target:
    """Trace a model into its target density.

    Parameters
    ----------
    known : KnownModel
        The model.
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
                f"site '{name}': it is a latent {site.distribution} that cannot be summed out "
                f"({site.not_enumerated_because}), and gradient-based MCMC cannot move it. Give it a "
                "finite support, or observe it."
            )
    if not continuous:
        raise ModelError(
            "the model has no continuous latent site, so there is nothing to sample by MCMC"
            f"{_summed_out(sites)}. The exact answers are marginalize(model).posterior({{}}, ...), "
            ".mode and .draw."
        )
    shapes = _unconstrained_shapes(known)
    dtype = jnp.result_type(float)
    moved = {n: replace(s, shape=shapes[n], dtype=dtype) for n, s in continuous.items()}

    def program(values: dict[str, Any]) -> tuple[dict[str, LogDensity], dict[str, Any]]:
        def place(site: Message) -> Any:
            name = site["name"]
            if site["type"] != "sample" or name not in values:
                return None
            value = element(site, values[name])
            if name not in continuous:
                return value
            transform = biject_to(site["fn"].support)
            constrained = transform(value)
            jacobian = jnp.sum(transform.log_abs_det_jacobian(value, constrained))
            # Outside of all plates and scales: it belongs to the change of variables alone.
            state(name + JACOBIAN, jacobian, placed)
            return constrained

        placed = handlers.substitute(known.model, substitute_fn=place)
        with isolated(), numpyro_checks(False):  # `know` has checked
            trace = density_trace(placed).get_trace(*known.args, **known.kwargs)
        beside = {n: trace.pop(n) for n in list(trace) if n.endswith(JACOBIAN)}
        refuse_changes(seen_in(sites), seen_of(trace))
        jacobians = {n: LogDensity(beside[n + JACOBIAN]["value"]) for n in continuous}
        densities, recorded = split_trace(trace)
        densities |= {name + JACOBIAN: jacobian for name, jacobian in jacobians.items()}
        return densities, {name: trace[name]["value"] for name in continuous} | recorded

    prepared = prepare(program, {**sites, **moved}, dict.fromkeys(continuous), memory_limit)
    for name in continuous:
        for variable in prepared.graph.captured.dependence["value", name]:
            if variable in prepared.graph.variables:
                raise ModelError(
                    f"site '{name}': its support depends on the discrete variable '{variable}', which "
                    "is summed out. Write it as a fixed support that is then moved and stretched."
                )
    return Target(prepared, continuous)


def _summed_out(sites: Mapping[str, Site]) -> str:
    names = ", ".join(repr(n) for n, s in sites.items() if s.is_free)
    return f" ({names} summed out)" if names else ""


def _unconstrained_shapes(known: KnownModel) -> dict[str, tuple[int, ...]]:
    shapes = {name: _shape_in_fixed_support(site) for name, site in known.continuous.items()}
    found = {name: shape for name, shape in shapes.items() if shape is not None}
    if len(found) == len(shapes):
        return found

    def run(key: Any, number: Array) -> None:
        def look(site: Message) -> Any:
            if site["type"] != "sample" or site["name"] not in shapes:
                return None
            lengths = tuple(steps.length for steps in reversed(site.get("steps", ())))
            own = biject_to(site["fn"].support).inverse_shape(site_shape(site))
            found[site["name"]] = (*lengths, *own)
            # Only its shape counts (an improper site could not be drawn), and a model that
            # branches on it must not get an answer.
            return jnp.full(site_shape(site), number)

        seeded = handlers.seed(known.model, rng_seed=key)
        handlers.substitute(seeded, substitute_fn=look)(*known.args, **known.kwargs)

    with isolated():
        with_data_known(lambda: jax.eval_shape(run, jax.random.key(0), 0.0))
    return found


def _shape_in_fixed_support(site: Site) -> tuple[int, ...] | None:
    """The shape of a site's unconstrained value; None where only a run of the model can tell."""
    if site.constraint is None:
        return None
    try:
        return tuple(biject_to(site.constraint).inverse_shape(site.shape))
    except (
        NotImplementedError
    ):  # of a compound distribution, which may declare one that has a bijection
        return None


def initial_position(known: KnownModel, strategy: InitStrategy, key: Any) -> Position:
    """Where a strategy begins, on the unconstrained scale."""

    def unconstrained(site: Message, value: Array) -> Array:
        return biject_to(site["fn"].support).inv(value)

    trace, names = initial_trace(known, strategy, key, unconstrained)
    return {name: trace[name + BESIDE]["value"] for name in names}
