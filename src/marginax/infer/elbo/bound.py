"""One estimate of the evidence lower bound.

For a guide q and a model p the bound is E_q[log p - log q]. It is estimated in this order:

1. Variables of the model alone are eliminated from p, exactly, for every value of the guide's variables
   that they meet. No Jensen's inequality is spent on them.
2. What is left of log p, and -log q, are costs. Over the variables that the guide enumerates in parallel
   their expectation is exact (`expectation`).
3. Sequential sites have one value each on a path of the guide (`guide_paths`). The probability of that
   value is a weight like any other, so that the weights sum to the probability of the path, which
   multiplies its expectation. Over all paths these contributions add up to the bound.
4. Drawn sites have a score beside the bound, for its gradient (`score`).

Continuous variables of the guide are drawn, reparameterised, as usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from marginax.blocks.blocked import in_blocks
from marginax.density.parameters import Parameter
from marginax.elimination.contract import contract
from marginax.elimination.factor import Factor
from marginax.elimination.plan import term_of
from marginax.elimination.planner import IntractableError, make_plan
from marginax.elimination.semiring import SUM
from marginax.errors import ModelError
from marginax.graph.build import factor_graph
from marginax.graph.factors import Evaluated, FactorGraph
from marginax.infer.elbo.expectation import Names, expectation, log_masses
from marginax.infer.elbo.mean_field import check_mean_field
from marginax.infer.elbo.pairing import Pairing
from marginax.infer.elbo.runs import CHOSEN, DIVERGENCE, IN_GUIDE, Run, densities
from marginax.infer.elbo.score import Score, Tracked, scores, summed_to, track
from marginax.marginal.plates_in_blocks import sizes_in_blocks

Validity = dict[str, dict[Parameter, Array]]
"""By site and parameter, whether it is valid."""


class Estimate(NamedTuple):
    """An unbiased estimate of a bound, and what drawn sites add to its gradient."""

    bound: Array
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True)
class Bound:
    """What one path of the guide contributes, traced."""

    graph: FactorGraph
    pairing: Pairing
    averaged: frozenset[str]
    drawn: Mapping[str, Any]
    """The values of drawn sites."""

    @staticmethod
    def of(run: Run, analytic: bool) -> Bound:
        """Trace guide and model.

        Parameters
        ----------
        run : Run
            The guide's path, and the model on it.
        analytic : bool
            Whether divergences that have a formula replace sampled differences.
        """
        pairing = run.pairing
        graph = factor_graph(
            lambda values: (densities(run, values, analytic), {}),
            {**pairing.summed, **pairing.drawn, **pairing.eliminated},
            frozenset([*pairing.summed, *pairing.eliminated]),
        )
        _refuse_unsuited_draws(graph, pairing)
        return Bound(graph, pairing, _averaged_analytically(graph, run), run.draw())

    def estimate(self) -> Estimate:
        """The bound."""
        graph, drawn = self.graph, self.pairing.drawn

        def of_values(values: dict[str, Any]) -> Estimate:
            evaluated = graph.evaluate(values)
            try:
                tracked = track(graph, drawn, IN_GUIDE)
                return _estimate(graph, evaluated, self.pairing, self.averaged, tracked)
            except IntractableError:
                if not drawn:
                    raise
                # A drawn site that is followed in its plates couples more than its known value does.
                tracked = track(graph, drawn, IN_GUIDE, as_a_whole=True)
                return _estimate(graph, evaluated, self.pairing, self.averaged, tracked)

        return in_blocks(of_values, sizes_in_blocks(graph))(dict(self.drawn))

    def validity(self) -> list[Validity]:
        """Whether the parameters of the guide's distributions are valid, and those of the model's."""
        found = in_blocks(self.graph.validity, sizes_in_blocks(self.graph))(dict(self.drawn))
        of_guide = {
            name.removesuffix(IN_GUIDE): valid
            for name, valid in found.items()
            if name.endswith(IN_GUIDE)
        }
        return [of_guide, {n: valid for n, valid in found.items() if not n.endswith(IN_GUIDE)}]


def _refuse_unsuited_draws(graph: FactorGraph, pairing: Pairing) -> None:
    for (kind, key), dependence in graph.captured.dependence.items():
        for name in pairing.drawn:
            if kind == "scale" and name in dependence:
                inside = [p.density for p in graph.places.values() if key in p.scales]
                raise ModelError(
                    f"its handlers.scale depends on the discrete variable '{name}', which the guide draws; a "
                    "scale must not depend on it.",
                    site=inside[0],
                )
    for name in pairing.drawn:
        for variable in graph.captured.dependence["log_density", name + IN_GUIDE]:
            if variable in pairing.summed:
                raise ModelError(
                    f"the guide draws it, given '{variable}', which is summed over all its values at once. "
                    f"Enumerate both, or give '{variable}' one value at a time: infer={{'enumerate': "
                    "'sequential'}.",
                    site=name,
                )


def _averaged_analytically(graph: FactorGraph, run: Run) -> frozenset[str]:
    """The sites whose divergence has a formula and is the same for all values of variables."""
    averaged = [
        place.density.removesuffix(DIVERGENCE)
        for place in graph.places.values()
        if place.density.endswith(DIVERGENCE) and not place.variables
    ]
    if averaged:
        pairing = run.pairing
        latents = {**pairing.summed, **pairing.drawn, **pairing.reparameterised}

        def arrays(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
            traces = run.traces(values, {})
            guide, model = (
                {n: m["density"].array for n, m in trace.items() if "density" in m}
                for trace in traces
            )
            return guide, model

        check_mean_field(averaged, latents, arrays)
    return frozenset(averaged)


def _estimate(
    graph: FactorGraph,
    evaluated: Evaluated,
    pairing: Pairing,
    averaged: frozenset[str],
    tracked: Tracked,
) -> Estimate:
    unmarked = {factor.name: factor for factor in evaluated.factors}
    of_model, of_guide, weights, divergence = _roles(graph, evaluated, pairing, averaged, tracked)
    if not pairing.chosen:  # else the probability of the path may weigh it, and it is not zero
        of_guide = [_without_zero_on_average(factor, graph, pairing) for factor in of_guide]
    sizes = {**graph.sizes, **dict.fromkeys(tracked.home, 1)}
    home = {**graph.home, **tracked.home}
    # A variable of the guide has two factors; the scales that count while summing are the model's.
    inside = {v: s for v, s in evaluated.variable_scales.items() if v not in pairing.summed}
    plan = make_plan(
        [term_of(factor) for factor in of_model],
        sizes,
        graph.plate_sizes,
        home,
        [*pairing.summed, *tracked.home],
        graph.chains,
    )
    left = contract(plan, of_model, SUM, graph.plate_sizes, graph.plate_scales, inside)
    costs = [_scaled(factor, graph) for factor in (*left.kept, *divergence)]
    costs += [replace(f, array=-f.array) for f in (_scaled(f, graph) for f in of_guide)]
    names = Names(sizes, graph.plate_sizes, home, frozenset(tracked.home))
    # A chain of steps keeps its messages normalised: what it took off follows no axis, though it may
    # depend on any drawn site.
    total = tracked.whole(left.log_total, pairing.drawn if graph.chains else ())
    expected = [*expectation(weights, costs, names), total]
    bound = _sum(expected, graph)
    log_q = {name: unmarked[name + IN_GUIDE] for name in pairing.drawn}
    if not pairing.chosen:
        found = scores(pairing.drawn, log_q, expected, tracked, graph.plate_sizes)
        return Estimate(bound, tuple(found.values()))
    masses = log_masses(weights, names)
    log_mass = _sum(masses, graph)
    possible = log_mass > -jnp.inf
    mass = jnp.where(possible, jnp.exp(jnp.where(possible, log_mass, 0)), 0)

    def weighted(array: Array) -> Array:
        return jnp.where(possible, mass * jnp.where(possible, array, 0), 0)

    bound = weighted(bound)
    expected = [replace(factor, array=weighted(factor.array)) for factor in expected]
    # What the probability of the path depends on has all the rest downstream.
    above = {
        name: site
        for name, site in pairing.drawn.items()
        if any(tracked.along(factor, name) is not None for factor in masses)
    }
    below = {name: site for name, site in pairing.drawn.items() if name not in above}
    found = scores(above, log_q, [tracked.whole(bound, above)], tracked, graph.plate_sizes)
    found |= scores(below, log_q, expected, tracked, graph.plate_sizes)
    return Estimate(bound, tuple(found.values()))


def _roles(
    graph: FactorGraph,
    evaluated: Evaluated,
    pairing: Pairing,
    averaged: frozenset[str],
    tracked: Tracked,
) -> tuple[list[Factor], list[Factor], list[Factor], list[Factor]]:
    """The factors of the model and of the guide, the weights among these, and the divergences."""
    of_model, of_guide, weights, divergence = [], [], [], []
    for each in evaluated.factors:
        factor, place = tracked.mark(each), graph.places[each.name]
        # What is expected under the guide is not summed out: masked elements cost nothing there.
        off = evaluated.masked.get(each.name, False)
        cost = tracked.mark(replace(each, array=jnp.where(off, 0, each.array)))
        if place.density.endswith(DIVERGENCE):
            if place.density.removesuffix(DIVERGENCE) in averaged:
                divergence.append(factor)
        elif place.density.endswith(CHOSEN):
            weights.append(factor)
        elif place.density.endswith(IN_GUIDE):
            if place.site in graph.variables:
                weights.append(replace(factor, scales=()))
            if place.site not in averaged:
                of_guide.append(cost)
        elif place.site not in averaged:
            of_model.append(cost if place.site in pairing.summed else factor)
    return of_model, of_guide, weights, divergence


def _without_zero_on_average(factor: Factor, graph: FactorGraph, pairing: Pairing) -> Factor:
    """The log probability of a drawn site without its derivative, whose expectation is zero."""
    if graph.places[factor.name].site not in pairing.drawn:
        return factor
    return replace(factor, array=jax.lax.stop_gradient(factor.array))


def _scaled(factor: Factor, graph: FactorGraph) -> Factor:
    """A cost term with all its scales applied: an expectation is linear, so that may come first."""
    array = factor.with_scales_applied().array
    for plate in factor.plates:
        array = array * graph.plate_scales.get(plate, 1)
    return replace(factor, array=array, scales=())


def _sum(factors: Sequence[Factor], graph: FactorGraph) -> Array:
    """The sum over all elements of all factors."""
    return sum((summed_to(factor, (), graph.plate_sizes) for factor in factors), jnp.zeros(()))
