"""The score-function gradient of drawn discrete sites, with as little noise as the graph allows.

A draw has no derivative, but its probability has one: for a site z of the guide

    d E_q[c] = E_q[ dc + sum over elements n of  d log q(z_n) * (c_n - b_n) ]

(REINFORCE). What this estimate is worth depends on how little it varies.

*c_n, what costs depend on element n.* A cost that does not depend on z_n adds nothing but noise, and
the dependence analysis of the captured program knows which those are. A drawn value is made a
variable with one value, that is never eliminated: an axis of size one on every factor that depends
on it, directly or through sites drawn later. Elimination of the other variables carries these axes
along, and keeps a cost apart in each plate that the variable lives in; in the end a cost says by its
axes what it is downstream of. Where a factor depends on all elements of a plate at once, the proof
for that plate fails (`check_plates`), and its axis stands for the site as a whole there.

*b_n, the baseline.* Any number that does not depend on z_n may be taken off. Here it is the average of
the same cost over the other particles, which are independent draws (Salimans and Knowles, 2014,
"On using control variates with stochastic approximation for variational Bayes"; Kool et al., 2019,
"Buy 4 REINFORCE samples, get a baseline for free!"). So there are at least two particles.

*dc, without that of log q(z) itself*, which is zero on average (`bound` leaves it out). Then a guide that
is the exact posterior has gradient zero whatever is drawn: all costs of all particles are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from marginax.elimination.axes import Axis, Name
from marginax.elimination.factor import Factor
from marginax.errors import ModelError
from marginax.graph.capture import check_plates
from marginax.graph.factors import FactorGraph, several
from marginax.graph.sites import Site

Along = Mapping[str, frozenset[str]]
"""For drawn sites that something depends on, the plates along which it does element by element."""


class Score(NamedTuple):
    """What a drawn site adds to the gradient, for each element of its plates."""

    log_q: Array
    cost: Array


@dataclass(frozen=True)
class Tracked:
    """The axes of size one that follow drawn sites through an elimination."""

    of_factor: Mapping[Name, Along]
    owners: Mapping[Axis, str]
    """The site of each axis."""
    home: Mapping[Axis, frozenset[Axis]]
    """The plates of each axis."""

    def mark(self, factor: Factor) -> Factor:
        """A factor with an axis for each drawn site that it depends on."""
        axes = [_axis(site, plates) for site, plates in self.of_factor[factor.name].items()]
        last = tuple(range(-len(axes), 0))
        array = jnp.expand_dims(factor.array, last) if axes else factor.array
        return replace(factor, variables=(*factor.variables, *axes), array=array)

    def whole(self, array: Array, sites: Iterable[str]) -> Factor:
        """A number as a factor that depends on some sites as a whole."""
        axes = tuple(_axis(site, frozenset()) for site in sites)
        return Factor("whole", (), axes, jnp.reshape(array, (1,) * len(axes)))

    def along(self, factor: Factor, site: str) -> frozenset[str] | None:
        """The plates in which a cost is that of a site's elements; None where it depends on none."""
        homes = [self.home[v] for v in factor.variables if self.owners.get(v) == site]
        return frozenset.intersection(*homes) if homes else None


def _axis(site: str, plates: frozenset[str]) -> str:
    return f"{site} drawn in {', '.join(sorted(plates)) or 'all'}"


def track(
    graph: FactorGraph, drawn: Mapping[str, Site], in_guide: str, as_a_whole: bool = False
) -> Tracked:
    """Which factors depend on which drawn sites.

    Parameters
    ----------
    graph : FactorGraph
        Of a program whose inputs the drawn values are.
    drawn : mapping of Site
        The drawn sites, in the order of the guide.
    in_guide : str
        What follows a site's name in that of its factor in the guide.
    as_a_whole : bool
        Follow sites as a whole, whatever their plates.
    """
    direct = {name: _directly(graph, name, drawn) for name in graph.places}
    if as_a_whole:
        direct = {name: dict.fromkeys(found, frozenset[str]()) for name, found in direct.items()}
    above: dict[str, Along] = {}
    for site in drawn:
        given = {s: plates for s, plates in direct[site + in_guide].items() if s != site}
        above[site] = _with_ancestors(given, above)
    of_factor = {name: _with_ancestors(found, above) for name, found in direct.items()}
    axes = {_axis(site, frozenset()): (site, frozenset[str]()) for site in drawn}
    for found in of_factor.values():
        axes |= {_axis(site, plates): (site, plates) for site, plates in found.items()}
    owners: dict[Axis, str] = {axis: site for axis, (site, _) in axes.items()}
    return Tracked(of_factor, owners, {axis: plates for axis, (_, plates) in axes.items()})


def _directly(graph: FactorGraph, factor: Name, drawn: Mapping[str, Site]) -> Along:
    place = graph.places[factor]
    key = ("log_density", place.density)
    dependence, ndim = graph.captured.dependence[key], len(graph.captured.output_shapes[key])
    found = {}
    for name, site in drawn.items():
        if name not in dependence:
            continue
        plates = set()
        for frame in several(site.plates):
            alone = {name: replace(site, plates=(frame,))}
            try:
                check_plates(place.density, place.plates, ndim, dependence, alone)
            except ModelError:  # that it does not depend element by element is the answer here
                continue
            plates.add(frame.name)
        found[name] = frozenset(plates)
    return found


def _with_ancestors(direct: Along, above: Mapping[str, Along]) -> Along:
    """What depends on a site depends on all that it was drawn given."""
    found = dict(direct)
    for site, plates in direct.items():
        for ancestor, shared in above[site].items():
            found[ancestor] = found.get(ancestor, plates) & plates & shared
    return found


def summed_to(factor: Factor, plates: tuple[Axis, ...], plate_sizes: Mapping[Axis, int]) -> Array:
    """The sum over all plates but some, which become the axes (of size one where it is the same)."""
    gone = tuple(i for i, plate in enumerate(factor.plates) if plate not in plates)
    repeats = 1
    for i in gone:
        if factor.array.shape[i] == 1:
            repeats *= plate_sizes[factor.plates[i]]
    last = tuple(range(len(factor.plates), factor.array.ndim))
    array = jnp.sum(factor.array, (*gone, *last)) * repeats
    left = tuple(plate for plate in factor.plates if plate in plates)
    return Factor(factor.name, left, (), array).aligned(plates, ())


def scores(
    drawn: Mapping[str, Site],
    log_q: Mapping[str, Factor],
    costs: Sequence[Factor],
    tracked: Tracked,
    plate_sizes: Mapping[Axis, int],
) -> dict[str, Score]:
    """The score of each drawn site.

    Parameters
    ----------
    drawn : mapping of Site
        The drawn sites.
    log_q : mapping of Factor
        Their log probabilities.
    costs : sequence of Factor
        What is to be maximised in expectation, with the axes of `Tracked`.
    tracked : Tracked
        Whose axes these are.
    plate_sizes : mapping from plate to int
        Elements present in each plate.
    """
    found = {}
    for site in drawn:
        factor = log_q[site]
        shape = tuple(plate_sizes[plate] for plate in factor.plates)
        cost = jnp.zeros(shape, factor.array.dtype)
        for c in costs:
            along = tracked.along(c, site)
            if along is not None:
                kept = tuple(plate for plate in factor.plates if plate in along)
                part = Factor(c.name, kept, (), summed_to(c, kept, plate_sizes))
                cost = cost + part.aligned(factor.plates, ())
        found[site] = Score(jnp.broadcast_to(factor.array, shape), jax.lax.stop_gradient(cost))
    return found


def surrogate(score: Score) -> Array:
    """Something whose gradient is that of the expected cost with respect to a site's probabilities.

    Parameters
    ----------
    score : Score
        Of several particles, on the first axis.

    Returns
    -------
    array, shape ()
        Averaged over particles.
    """
    count = score.cost.shape[0]
    # With the average of the others taken off: c - (sum - c) / (n - 1).
    excess = (score.cost - jnp.mean(score.cost, 0)) * (count / (count - 1))
    # An infinite cost makes the loss infinite, which says enough.
    excess = jax.lax.stop_gradient(jnp.where(jnp.isfinite(excess), excess, 0))
    return jnp.sum(jnp.where(excess == 0, 0, score.log_q) * excess) / count
