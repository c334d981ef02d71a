"""Pairing: what becomes of each site of a guide and a model, and whether the two fit together.

A latent site of the guide is *summed* over (discrete, with a list of values), *drawn* with a score
function (discrete, without one), or *reparameterised* (continuous, or a point mass). A latent site
of the model that the guide does not state is *eliminated*, which only discrete ones can be. Where
the guide has sequential sites there is one such pairing for each of its paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from marginax.errors import ModelError
from marginax.graph.sites import Site, collect_sites_once
from marginax.infer.elbo.guide_paths import GuidePath, guide_paths, possible_values
from marginax.language.stack import Message, Messenger


@dataclass(frozen=True)
class Pairing:
    """The latent sites of guide and model on one path of the guide."""

    chosen: Mapping[str, Any]
    """The values of the guide's sequential sites."""
    counts: Mapping[str, int]
    """How many values each of those can have."""
    summed: Mapping[str, Site]
    drawn: Mapping[str, Site]
    reparameterised: Mapping[str, Site]
    eliminated: Mapping[str, Site]
    in_guide: Mapping[str, Site]
    """All sites of the guide."""
    in_model: Mapping[str, Site]


class _Chosen(Messenger):
    """Gives sequential sites their values in the model, and notes which it allows."""

    def __init__(self, fn: Callable[..., Any], chosen: Mapping[str, Any]) -> None:
        super().__init__(fn)
        self.chosen = chosen

    def __enter__(self) -> Any:
        self.allowed: dict[str, list[Any] | None] = {}
        return super().__enter__()

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "sample" and msg["name"] in self.chosen and msg["value"] is None:
            self.allowed[msg["name"]] = possible_values(msg) if msg["fn"].is_discrete else None
            msg["value"] = self.chosen[msg["name"]]


@dataclass(frozen=True)
class BothPath:
    """A path of the guide, and the model on it."""

    path: GuidePath
    in_model: Mapping[str, Site]
    allowed: Mapping[str, list[Any] | None]
    """The values that the model allows each sequential site, where there is a list."""


def both_paths(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: Any,
    kwargs: Any,
    known: Callable[[], Mapping[str, Site]] | None = None,
) -> Iterator[BothPath]:
    """Every path of a guide, with the model's sites.

    Parameters
    ----------
    model, guide : callable
        With their parameters substituted.
    args, kwargs
        Their arguments.
    known : callable, optional
        What knows the model's sites with nothing chosen for it.
    """
    for path in guide_paths(guide, args, kwargs):
        if known is not None and not path.chosen:
            yield BothPath(path, known(), {})
            continue
        modelled = _Chosen(model, path.chosen)
        sites = collect_sites_once(modelled, *args, **kwargs)
        yield BothPath(path, sites, modelled.allowed)


def pairings(paths: Iterable[BothPath]) -> Iterator[Pairing]:
    """The pairing on each path of the guide, with discrete sites summed out where they can be.

    Raises
    ------
    ModelError
        When model and guide do not fit together.
    """
    for both in paths:
        path, sites = both.path, both.in_model
        latent = _latent(path.sites)
        for name in (*path.chosen, *latent):
            _check_pair(path.sites[name], sites.get(name))
        for name, value in path.chosen.items():
            allowed = both.allowed.get(name)
            if allowed is not None and not any((value == other).all() for other in allowed):
                raise _not_allowed(name, value.tolist(), len(allowed))
        summed = {n: s for n, s in latent.items() if s.support is not None}
        drawn = {n: s for n, s in latent.items() if _is_random(s) and s.support is None}
        _check_discrete(summed, drawn, path)
        rest = {n: s for n, s in latent.items() if not _is_random(s)}
        eliminated = {}
        for name, site in _latent(sites).items():
            if name in latent or site.is_point_mass:
                continue
            if site.support is None:
                why = site.not_enumerated_because or f"{site.distribution} is continuous"
                raise ModelError(
                    f"it is latent in the model and cannot be summed out ({why}), but the guide does not "
                    "state it; add it to the guide, or observe it.",
                    site=name,
                )
            eliminated[name] = site
        yield Pairing(path.chosen, path.counts, summed, drawn, rest, eliminated, path.sites, sites)


def pairing_without_sums(in_guide: Mapping[str, Site], in_model: Mapping[str, Site]) -> Pairing:
    """The pairing where every site of the guide is drawn, and the guide states all latent sites.

    What is raised is that of `pairings`.
    """
    latent = _latent(in_guide)
    for name, site in latent.items():
        _check_pair(site, in_model.get(name))
        if _is_random(site) and site.series:
            raise _in_a_scan(name)
    for name, site in _latent(in_model).items():
        if name in latent or site.is_point_mass:
            continue
        advice = (
            "state it in the guide, or use TraceEnum_ELBO, which sums it out"
            if site.support is not None
            else "state it in the guide, or observe it"
        )
        raise ModelError(
            "it is latent in the model, but the guide does not state it, and this ELBO sums nothing out; "
            f"{advice}.",
            site=name,
        )
    drawn = {n: s for n, s in latent.items() if _is_random(s)}
    rest = {n: s for n, s in latent.items() if n not in drawn}
    return Pairing({}, {}, {}, drawn, rest, {}, in_guide, in_model)


def _latent(sites: Mapping[str, Site]) -> dict[str, Site]:
    return {n: s for n, s in sites.items() if s.is_free or s.is_point_mass}


def _is_random(site: Site) -> bool:
    """Whether a site of the guide is discrete and has more than one value."""
    return site.is_free and site.is_discrete


def _in_a_scan(name: str) -> ModelError:
    return ModelError(
        "it is discrete and stated in a scan of the guide; an expectation over a chain of the guide is not "
        "computed yet.",
        site=name,
        advice="Leave it out of the guide, so that the model sums it out.",
    )


def _check_discrete(summed: Mapping[str, Site], drawn: Mapping[str, Site], path: GuidePath) -> None:
    for name, site in {**summed, **drawn}.items():
        if site.series:
            raise _in_a_scan(name)
    for name, site in drawn.items():
        if name not in path.may_be_drawn:
            raise ModelError(
                f"it is discrete in the guide and cannot be enumerated ({site.not_enumerated_because}). To "
                "have it drawn, and its gradient estimated, say so: infer={'enumerate': None}. Or leave it "
                "out of the guide, so that the model sums it out.",
                site=name,
            )


def _check_pair(site: Site, other: Site | None) -> None:
    """Can what the guide states be a distribution of the model's site?"""
    name = site.name
    if other is None and site.is_auxiliary:
        return
    if other is None or other.kind != "sample":
        raise ModelError(
            "the guide states it, but the model has no such latent site; rename it, hide it with "
            "handlers.block, or mark it infer={'is_auxiliary': True}.",
            site=name,
        )
    if other.is_observed:
        raise ModelError("the guide states it, but in the model it is observed.", site=name)
    if other.shape != site.shape:
        raise ModelError(
            f"it has shape {site.shape} in the guide and {other.shape} in the model.", site=name
        )
    if site.is_discrete != other.is_discrete and site.distribution != "Delta":
        raise ModelError(
            f"it is a {site.distribution} in the guide and a {other.distribution} in the model; both must be "
            "discrete, or both continuous.",
            site=name,
        )
    if site.support is None:
        return
    here, there = ([frame.name for frame in s.plates] for s in (site, other))
    if set(here) != set(there):
        raise ModelError(
            f"it stands in the plates {here} in the guide and {there} in the model; a discrete site must "
            "stand in the same plates in both.",
            site=name,
        )
    if other.support is not None:
        possible = other.support.tolist()
        for value in site.support.tolist():
            if value not in possible:
                raise _not_allowed(name, value, len(possible))


def _not_allowed(name: str, value: Any, count: int) -> ModelError:
    return ModelError(
        f"the guide allows it the value {value}, which is none of the {count} that it can have in the model.",
        site=name,
    )
