"""What a model costs, in words: the factor graph, the plan and the time spent, as tables a person can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from marginax.elimination.axes import Axis, Name
from marginax.elimination.plan import Plan
from marginax.graph.factors import FactorGraph
from marginax.graph.sites import Site
from marginax.marginal.plate_axes import PlateAxis, plate_axes


@dataclass(frozen=True)
class Variable:
    """A discrete latent variable that is summed out."""

    name: str
    distribution: str
    size: int
    """Number of its values."""
    plates: tuple[str, ...]
    parents: tuple[str, ...]
    """Latent sites that its distribution depends on."""


@dataclass(frozen=True)
class FactorRow:
    """A site's log density."""

    name: str
    parents: tuple[str, ...]
    """Latent sites that it depends on, itself among them if it is latent."""
    variables: tuple[str, ...]
    """Those of them that are summed out."""
    plates: tuple[str, ...]
    is_observed: bool


@dataclass(frozen=True)
class Spent:
    """Time that went into a model before its answers could be computed.

    Attributes
    ----------
    tracing : float
        Seconds in which `explain` ran the model and traced it, and an evaluation of it.
    planning : float
        Seconds in which it found out what depends on what, and in which order to sum out.
    compiling : float
        Seconds in which programs were compiled for queries that were asked before, or found on disk. Not among them
        is what you compile: a `jax.jit` around a query, and the backward pass of a derivative.
    programs : int
        How many they are. A query takes one or two, and small ones that are shared by all models.

    Examples
    --------
    >>> print(Spent(tracing=0.12, planning=0.01, compiling=0.4, programs=3))
    0.12 s running and tracing the model, 0.01 s planning, 0.40 s compiling 3 programs
    """

    tracing: float
    planning: float
    compiling: float
    programs: int

    def __str__(self) -> str:
        programs = "1 program" if self.programs == 1 else f"{self.programs:,} programs"
        compiling = f"{self.compiling:.2f} s compiling {programs}"
        return (
            f"{self.tracing:.2f} s running and tracing the model, {self.planning:.2f} s planning, "
            f"{compiling if self.programs else 'nothing compiled yet'}"
        )


@dataclass(frozen=True)
class Explanation:
    """A model's factor graph, elimination order and cost. Print it, or read the fields.

    Attributes
    ----------
    variables : tuple of Variable
        What is summed out.
    factors : tuple of FactorRow
        The log densities.
    plates : dict
        Plate sizes by name; of a series, the number of its steps that are alike.
    plan : Plan
        The steps; ``plan.order``, ``plan.flops``, ``plan.largest``.
    flops : int
        Additions and exponentials of the elimination, roughly, for one evaluation of the value.
    peak_bytes : int
        The largest array of the evaluation, in bytes, if nothing is fused away.
    series : dict
        Numbers of all steps of a series, by the name of its time axis.
    not_marginalized : dict
        Every other latent site, and why it is not summed out.
    blocks : dict
        How many elements are evaluated at once, of plates that are evaluated in blocks.
    plate_axes : tuple of PlateAxis
        For each factor and plate, what has an element for each of the plate's, and what mixes them, if anything does.
    spent : Spent or None
        The time that went into it so far. It is another in each call, so two explanations are equal whatever it is.
        None where no time was taken; then the table has no line of it.
    """

    variables: tuple[Variable, ...]
    factors: tuple[FactorRow, ...]
    plates: Mapping[str, int]
    plan: Plan
    flops: int
    peak_bytes: int
    series: Mapping[str, int]
    not_marginalized: Mapping[str, str]
    blocks: Mapping[str, int]
    plate_axes: tuple[PlateAxis, ...]
    spent: Spent | None = field(default=None, compare=False)

    def __str__(self) -> str:
        parts = [
            _table(
                "Summed out",
                ("variable", "distribution", "values", "plates", "parents"),
                [
                    (v.name, v.distribution, str(v.size), _names(v.plates), _names(v.parents))
                    for v in self.variables
                ],
            ),
            _table(
                "Factors",
                ("site", "over", "plates", "depends on", ""),
                [
                    (
                        f.name,
                        _names(f.variables),
                        _names(f.plates),
                        _names(tuple(p for p in f.parents if p != f.name)),
                        "observed" if f.is_observed else "",
                    )
                    for f in self.factors
                ],
            ),
            _table(
                "Plates",
                ("plate", "size", "at once"),
                [
                    (n, f"{s:,}", f"{self.blocks.get(n, s):,}")
                    for n, s in self.plates.items()
                    if n not in self.series
                ],
            ),
            _table(
                "Along plates",
                ("site", "plate", "an element each of", "steps on the way"),
                [
                    (
                        a.factor,
                        a.plate,
                        "; ".join(a.fed_by) or "-",
                        f"mixed by {', '.join(a.mixed_by)}" if a.mixed_by else "pointwise",
                    )
                    for a in self.plate_axes
                ],
            ),
            _table(
                "Series",
                ("series", "steps", "that stand apart", "that are alike"),
                [
                    (n, f"{s:,}", f"{s - self.plates[n]:,}", f"{self.plates[n]:,}")
                    for n, s in self.series.items()
                ],
            ),
            "Elimination\n" + "\n".join("  " + line for line in str(self.plan).splitlines()),
            f"Cost\n  {self.flops:,} FLOPs; largest array {_bytes(self.peak_bytes)}",
            _table("Not summed out", ("site", "why"), list(self.not_marginalized.items())),
            f"Spent\n  {self.spent}" if self.spent else "",
        ]
        return "\n\n".join(part for part in parts if part)


def explanation(
    graph: FactorGraph,
    plan: Plan,
    sites: Mapping[str, Site],
    peak_bytes: int,
    blocks: Mapping[str, int] = MappingProxyType({}),
) -> Explanation:
    """Put a factor graph and its plan into words."""

    def parents_of(name: str) -> tuple[str, ...]:
        return tuple(p for p in graph.parents(name) if p != name)

    variables = tuple(
        Variable(
            name,
            site.distribution,
            0 if site.support is None else len(site.support),
            (*(series.name for series in site.series), *(frame.name for frame in site.plates)),
            parents_of(name) if name in graph.places else (),
        )
        for name, site in graph.variables.items()
    )
    factors = tuple(
        FactorRow(
            str(term.name),
            _names_at(graph, term.name),
            _printed(term.variables),
            _printed(graph.places[term.name].axes),
            (site := sites.get(graph.places[term.name].density)) is not None and site.is_observed,
        )
        for term in graph.terms()
    )
    others = {
        name: site.not_enumerated_because or _why_not(site)
        for name, site in sites.items()
        if site.is_free and name not in graph.variables
    }
    series = {str(r.time): r.series.length for r in graph.captured.recurrences}
    return Explanation(
        variables,
        factors,
        {str(plate): size for plate, size in graph.plate_sizes.items()},
        plan,
        plan.flops,
        peak_bytes,
        series,
        others,
        dict(blocks),
        plate_axes(graph),
    )


def _names_at(graph: FactorGraph, factor: Name) -> tuple[str, ...]:
    """The latents that a factor depends on, those of its scan by the names that they have at its steps."""
    place = graph.places[factor]
    outside = [p for p in graph.parents(factor) if p not in graph.variables]
    return (*outside, *_printed(v for v in place.variables if v != place.own or place.time is None))


def _printed(axes: Iterable[Axis]) -> tuple[str, ...]:
    return tuple(map(str, axes))


def _why_not(site: Site) -> str:
    return "its value is given" if site.is_discrete else f"{site.distribution} is continuous"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "-"


def _bytes(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:,.4g} TiB"


def _table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, tuple("-" * width for width in widths), *rows]
    ]
    return "\n".join([title, *lines])
