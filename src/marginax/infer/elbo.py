"""The evidence lower bound, with discrete variables summed out in the model and in the guide.

For a guide q and a model p the bound is E_q[log p - log q]. Discrete variables come in two kinds:

*In the model only.* They are eliminated from p first, exactly, for every value of the guide's
variables that they meet. No Jensen's inequality is spent on them.

*In the guide.* Then the expectation over them is computed exactly, as a sum. It is not a new
algorithm, because an expectation is a derivative of a log partition function::

    E_q[c] = d/de  log sum_z q(z) exp(e c(z))   at e = 0

So the cost terms c (what is left of log p after elimination, and -log q) enter the very plan that
sums q to one, and one forward-mode derivative (`jax.jvp`) in their direction gives the expectation
of all of them. The weights on the way are q's own marginals, and a value of probability zero
contributes nothing, whatever its cost.

Continuous variables of the guide are drawn, reparameterised, as usual. The bound is unbiased, and
with point-estimate guides (`AutoDelta`) it is the log joint density itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from marginax.elimination.contract import contract
from marginax.elimination.factor import Factor
from marginax.elimination.plan import Term, make_plan, term_of
from marginax.elimination.semiring import SUM
from marginax.graph.factors import FactorGraph, LogDensity, density_trace, factor_graph
from marginax.graph.sites import Site, as_jax_arrays, collect_sites
from marginax.graph.validate import numpyro_checks
from marginax.language import handlers
from marginax.language.errors import ModelError
from marginax.language.stack import isolated

IN_GUIDE = " (in the guide)"


class TraceEnum_ELBO:
    """Evidence lower bound with exact sums over discrete variables.

    Parameters
    ----------
    num_particles : int
        How many times the guide's continuous variables are drawn; the bound is the average.
    max_plate_nesting : int, optional
        Accepted for NumPyro's and Pyro's sake; nothing here depends on it.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     z = mx.sample("z", dist.Bernoulli(0.5))
    ...     mx.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=1.0)
    >>> elbo = mx.infer.TraceEnum_ELBO()
    >>> round(float(elbo.loss(jax.random.key(0), {}, model, lambda: None)), 4)  # -log 0.5
    0.6931
    """

    def __init__(self, num_particles: int = 1, max_plate_nesting: int | None = None) -> None:
        if not isinstance(num_particles, int) or num_particles < 1:
            raise ValueError(f"num_particles must be an integer >= 1, not {num_particles!r}.")
        self.num_particles = num_particles

    def loss(
        self,
        rng_key: Any,
        param_map: Mapping[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Array:
        """The negative bound, differentiable in everything.

        Parameters
        ----------
        rng_key : PRNG key
            For the guide's continuous variables and for subsampled plates.
        param_map : mapping
            Values of the `param` sites of model and guide, constrained.
        model, guide : callable
            The guide states what the model's latent sites are distributed as; discrete sites that
            it leaves out are summed out of the model.
        *args, **kwargs
            Arguments of both.

        Returns
        -------
        array, shape ()

        Raises
        ------
        ModelError
            When the guide misses a continuous site, states one that the model does not have, or has a
            discrete one that cannot be enumerated.
        """
        args, kwargs = as_jax_arrays((args, kwargs))

        def particle(key: Any) -> Array:
            return _elbo(key, param_map, model, guide, args, kwargs)

        if self.num_particles == 1:
            return -particle(rng_key)
        return -jnp.mean(jax.vmap(particle)(jax.random.split(rng_key, self.num_particles)))


def _elbo(
    key: Any,
    params: Mapping[str, Any],
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: Any,
    kwargs: Any,
) -> Array:
    guide_key, model_key = jax.random.split(key)
    model = handlers.seed(handlers.substitute(model, data=params), rng_seed=model_key)
    guide = handlers.seed(handlers.substitute(guide, data=params), rng_seed=guide_key)
    in_guide, in_model = discrete_sites(model, guide, args, kwargs)
    latents = in_guide | in_model

    def program(values: dict[str, Any]) -> tuple[dict[str, LogDensity], dict[str, Any]]:
        with isolated(), numpyro_checks(False):  # `collect_sites` has checked
            guide_run = handlers.substitute(guide, data=_only(values, in_guide))
            guide_trace = density_trace(guide_run).get_trace(*args, **kwargs)
            model_run = handlers.substitute(model, data=_only(values, in_model))
            replayed = handlers.replay(model_run, trace=guide_trace)
            model_trace = density_trace(replayed).get_trace(*args, **kwargs)
        densities = {
            name: msg["density"] for name, msg in model_trace.items() if msg["type"] == "sample"
        }
        for name, msg in guide_trace.items():
            if msg["type"] == "sample" and not msg["is_observed"]:
                densities[name + IN_GUIDE] = replace(msg["density"], site=name)
        return densities, {}

    graph = factor_graph(program, latents, frozenset(latents))
    evaluated = graph.evaluate({})
    of_model = [f for f in evaluated.factors if not f.name.endswith(IN_GUIDE)]
    of_guide = [f for f in evaluated.factors if f.name.endswith(IN_GUIDE)]
    home = graph.home
    plan = make_plan(_terms(of_model), graph.sizes, graph.plate_sizes, home, in_guide, graph.chains)
    # A variable of the guide has two factors; the scales that count while summing are the model's.
    model_scales = {n: s for n, s in evaluated.variable_scales.items() if n in in_model}
    left = contract(plan, of_model, SUM, graph.plate_sizes, graph.plate_scales, model_scales)
    costs = [_scaled(f, graph) for f in left.kept]
    costs += [replace(f, array=-f.array) for f in (_scaled(f, graph) for f in of_guide)]
    weights = [replace(f, scales=()) for f in of_guide if graph.places[f.name].site in in_guide]
    return left.log_total + _expectation(weights, costs, graph)


def _only(values: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def _terms(factors: Sequence[Factor]) -> list[Term]:
    return [term_of(factor) for factor in factors]


def _scaled(factor: Factor, graph: FactorGraph) -> Factor:
    """A cost term with all its scales applied: an expectation is linear, so that may come first."""
    array = factor.with_scales_applied().array
    for plate in factor.plates:
        array = array * graph.plate_scales.get(plate, 1)
    return replace(factor, array=array, scales=())


def _expectation(weights: list[Factor], costs: list[Factor], graph: FactorGraph) -> Array:
    """The expected sum of the costs under the distribution whose factors are the weights."""
    plan = make_plan(_terms([*weights, *costs]), graph.sizes, graph.plate_sizes, graph.home)

    def log_partition(tilts: list[Array]) -> Array:
        tilted = [replace(c, array=tilt) for c, tilt in zip(costs, tilts, strict=True)]
        return contract(plan, [*weights, *tilted], SUM, graph.plate_sizes).log_total

    arrays = [c.array for c in costs]
    _, expected = jax.jvp(log_partition, ([jnp.zeros_like(a) for a in arrays],), (arrays,))
    return expected


def discrete_sites(
    model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[dict[str, Site], dict[str, Site]]:
    """The discrete sites that the guide enumerates, and those that are summed out of the model.

    Parameters
    ----------
    model, guide : callable
        With their parameters substituted.
    args, kwargs
        Their arguments.

    Raises
    ------
    ModelError
        When model and guide do not fit together.
    """
    guide_sites = _latent(collect_sites(guide, *args, **kwargs))
    all_model_sites = collect_sites(model, *args, **kwargs)
    model_sites = _latent(all_model_sites)
    in_guide, in_model = {}, {}
    for name, site in guide_sites.items():
        _check_pair(site, all_model_sites.get(name))
        if site.support is not None and site.series:
            raise ModelError(
                f"site '{name}': it is discrete and stated in a scan of the guide; an expectation over a chain of "
                "the guide is not computed yet. Leave it out of the guide, so that the model sums it out."
            )
        if site.support is not None:
            in_guide[name] = site
        elif site.is_discrete:
            raise ModelError(
                f"site '{name}': it is discrete in the guide and cannot be enumerated "
                f"({site.not_enumerated_because}); a sampled discrete site has no useful gradient. "
                "Leave it out of the guide, so that the model sums it out, or give it a finite support."
            )
    for name, site in model_sites.items():
        if name in guide_sites or site.is_point_mass:
            continue
        if site.support is None:
            why = site.not_enumerated_because or f"{site.distribution} is continuous"
            raise ModelError(
                f"site '{name}': it is latent in the model and cannot be summed out ({why}), but the "
                "guide does not state it; add it to the guide, or observe it."
            )
        in_model[name] = site
    return in_guide, in_model


def _check_pair(site: Site, other: Site | None) -> None:
    """Can what the guide states be a distribution of the model's site?"""
    name = site.name
    if other is None or other.kind != "sample":
        raise ModelError(
            f"site '{name}': the guide states it, but the model has no such latent site; rename "
            "it, or hide it with handlers.block."
        )
    if other.is_observed:
        raise ModelError(f"site '{name}': the guide states it, but in the model it is observed.")
    if other.shape != site.shape:
        raise ModelError(
            f"site '{name}': it has shape {site.shape} in the guide and {other.shape} in the model."
        )
    if site.is_discrete != other.is_discrete and site.distribution != "Delta":
        raise ModelError(
            f"site '{name}': it is a {site.distribution} in the guide and a {other.distribution} in "
            "the model; both must be discrete, or both continuous."
        )
    if site.support is None:
        return
    here, there = ([frame.name for frame in s.plates] for s in (site, other))
    if set(here) != set(there):
        raise ModelError(
            f"site '{name}': it stands in the plates {here} in the guide and {there} in the model; a "
            "discrete site must stand in the same plates in both."
        )
    if other.support is not None:
        possible = other.support.tolist()
        for value in site.support.tolist():
            if value not in possible:
                raise ModelError(
                    f"site '{name}': the guide allows it the value {value}, which is none of the "
                    f"{len(possible)} that it can have in the model."
                )


def _latent(sites: Mapping[str, Site]) -> dict[str, Site]:
    return {n: s for n, s in sites.items() if s.is_free or s.is_point_mass}
