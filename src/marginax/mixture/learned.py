"""What is learned of a table before the fit: its columns, categories and units, and the design that follows from them.

Also the way from cells to what the models take (`Learned.rows`), and from fitted parameters back to the units of the
table (`Learned.in_units`). A model file holds what a `Learned` is made of, and nothing else of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from marginax.mixture.columns import Columns
from marginax.mixture.family import Family, Parameter
from marginax.mixture.model import Design, Group, Rows
from marginax.mixture.priors import with_priors
from marginax.mixture.room import can_have_room

NO_SPREAD = 1e-12
"""A standard deviation that is smaller, relative to the mean, is rounding."""

Groups = Sequence[tuple[str, Family, tuple[int, ...]]]
"""Name, family and columns of every group."""


@dataclass(frozen=True, eq=False)
class Learned:
    """See the module's top."""

    names: tuple[str, ...]
    """Of the columns."""
    categories: Mapping[int, tuple[Any, ...]]
    """Of columns of categories, by number, what they are."""
    moments: np.ndarray
    """Shape (2, columns): mean and standard deviation of each, missing cells left out."""
    fill: np.ndarray
    """Shape (columns,): a value that each column has, for cells that have none."""
    centre: np.ndarray
    """Shape (columns,): what is taken off for the fit ..."""
    spread: np.ndarray
    """... and what is divided by."""
    design: Design
    """What is fitted."""

    def rows(self, cells: np.ndarray, lengths: Any = None) -> Rows:
        """A checked table as the models take it."""
        observed = ~np.isnan(cells)
        filled = (np.where(observed, cells, self.fill) - self.centre) / self.spread
        begins = _begins(lengths, len(cells)) if self.design.is_chain else None
        rows = Rows(filled, begins=begins)
        return rows if observed.all() else with_patterns(rows, observed)

    def log_units(self, cells: np.ndarray) -> np.ndarray:
        """What standardising columns does to the log density of each row, shape (rows,)."""
        return (~np.isnan(cells)) @ np.log(self.spread)

    def told(self, cells: np.ndarray) -> np.ndarray:
        """Rows that a model has drawn as a table would have them: in its units, with its categories."""
        cells = cells * self.spread + self.centre
        values = [value for categories in self.categories.values() for value in categories]
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            cells = cells.astype(object)
        for j, categories in self.categories.items():
            cells[:, j] = [categories[int(code)] for code in cells[:, j]]
        return cells

    def in_units(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Parameters as they are shown, in the units of the table; leading dimensions are kept."""
        found = {name: np.asarray(values[name]) for name in self.design.outer}
        for group in self.design.groups:
            own = {n: values[group.site(n)] for n in group.parameters}
            where = list(group.where)
            shown = group.family.in_units(own, self.centre[where], self.spread[where])
            found |= {group.site(n): np.asarray(v) for n, v in shown.items()}
        return found


def learned(
    names: tuple[str, ...],
    categories: Mapping[int, tuple[Any, ...]],
    moments: np.ndarray,
    fill: np.ndarray,
    groups: Groups,
    outer: Any,
    stated: Any,
    components: int,
    is_chain: bool,
    room: int = 0,
) -> Learned:
    """The design, from what is kept of a table and what the estimator says.

    Parameters
    ----------
    names, categories, moments, fill
        Of `Learned`.
    groups : sequence
        The families.
    outer : callable
        Gives the default priors of what says which component.
    stated : None, "flat" or mapping
        The user's priors.
    components : int
        How many.
    is_chain : bool
        Whether it is a hidden Markov model.
    room : int
        For how many components its programs are made; 0: for those that there are.
    """
    centre, spread = np.zeros(len(names)), np.ones(len(names))
    made = []
    with jax.enable_x64(True):
        for name, family, where in groups:
            own = list(where)
            mean, deviation = moments[:, own]
            deviation = np.where(deviation > NO_SPREAD * (np.abs(mean) + 1e-300), deviation, 1.0)
            if family.has_one_scale:
                deviation = np.full(len(own), np.sqrt(np.mean(deviation**2)))
            if family.is_standardized:
                centre[own], spread[own] = mean, deviation
                mean, deviation = np.zeros(len(own)), np.ones(len(own))
            counts = tuple(len(categories.get(j, ())) for j in where)
            columns = Columns(tuple(names[j] for j in where), mean, deviation, counts, components)
            made.append(Group(name, family, where, columns, family.parameters(columns)))
        defaults: dict[str, Parameter] = outer()
        for group in made:
            defaults |= {group.site(n): p for n, p in group.parameters.items()}
        design = Design(components, tuple(made), with_priors(defaults, stated), is_chain)
        if room and can_have_room(design):
            design = replace(design, room=room)
    return Learned(names, categories, moments, fill, centre, spread, design)


def kept_of(cells: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Moments, and values to fill in, of a table's columns.

    Raises
    ------
    ValueError
        When a column has no value, or values too large to compute with.
    """
    for name, values in zip(names, cells.T, strict=True):
        if np.isnan(values).all():
            raise ValueError(f"column '{name}': all its cells are missing; leave it out.")
    with np.errstate(over="ignore", invalid="ignore"):
        moments = np.stack([np.nanmean(cells, 0), np.nanstd(cells, 0)])
    wild_columns: Any = ~np.isfinite(moments).all(0)
    for name, wild in zip(names, wild_columns, strict=True):
        if wild:
            raise ValueError(
                f"column '{name}': its numbers are too large to be squared in double precision; divide them by a unit "
                "that suits them."
            )
    return moments, np.array([_middle(values) for values in cells.T])


def check_cells(cells: np.ndarray, groups: Groups, names: Sequence[str]) -> None:
    """Raise a ValueError for a cell that its column's family does not take."""
    for _, family, where in groups:
        for j in where:
            values = cells[:, j]
            wrong = ~np.isnan(values) & ~family.allows(values)
            if wrong.any():
                row = int(np.argmax(wrong))
                raise ValueError(
                    f"column '{names[j]}': its cell in row {row} is {values[row]:g}, but the family "
                    f"{type(family).__name__} takes {family.wants}."
                )


def with_patterns(rows: Rows, observed: np.ndarray) -> Rows:
    """Rows with what the models want to know of missing cells."""
    patterns, which = np.unique(observed, axis=0, return_inverse=True)
    return rows._replace(observed=observed, patterns=patterns, pattern=which.reshape(-1))


def _middle(values: np.ndarray) -> float:
    there = np.sort(values[~np.isnan(values)])
    return float(there[len(there) // 2])


def _begins(lengths: Any, rows: int) -> np.ndarray:
    """Where series begin, shape (rows,)."""
    if lengths is None:
        return np.arange(rows) == 0
    given = np.asarray(lengths)
    if given.ndim != 1 or given.dtype.kind not in "iu" or (given < 1).any() or given.sum() != rows:
        raise ValueError(
            f"lengths must be whole numbers from 1 that add up to the table's {rows} rows, not {lengths!r}."
        )
    begins = np.zeros(rows, bool)
    begins[np.cumsum(given)[:-1]] = True
    begins[0] = True
    return begins
