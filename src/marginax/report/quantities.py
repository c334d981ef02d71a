"""Parameters as people say them: mean and standard deviation, rate, probability of a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from marginax.mixture.families import (
    Bernoulli,
    Beta,
    Categorical,
    Gamma,
    LogNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)
from marginax.mixture.gaussian import Gaussian
from marginax.mixture.model import INITIAL, TRANSITIONS, WEIGHTS, Group, in_the_long_run
from marginax.report.drawing import drawable, listed, shortened
from marginax.report.facts import Facts

MEAN, SD = "mean", "standard deviation"
MOST_CATEGORIES = 12
"""Of a column: the most frequent ones are shown."""

Values = Mapping[str, np.ndarray]


class Quantity(NamedTuple):
    """Something that each component has."""

    what: str
    """Such as ``"mean"``."""
    of: str
    """Of which column, or columns; empty for what belongs to none."""
    values: np.ndarray
    """Shape (draws, components)."""

    @property
    def title(self) -> str:
        """Both."""
        return f"{self.of}: {self.what}" if self.of else self.what

    @property
    def drawable(self) -> str:
        """Both, above a plot."""
        what = drawable(self.what, 34)
        return f"{drawable(self.of, 20)}: {what}" if self.of else what

    @property
    def is_share(self) -> bool:
        """Whether it lies between zero and one."""
        return self.what.startswith(("probability", "weight", "share"))


def outside(facts: Facts) -> list[Quantity]:
    """What says which component: weights, or where a series begins and stays."""
    if not facts.is_chain:
        return [Quantity("weight", "", facts.values[WEIGHTS])]
    to = facts.values[TRANSITIONS]
    return [
        Quantity("share in the long run", "", in_the_long_run(to)),
        Quantity("probability to begin here", "", facts.values[INITIAL]),
        Quantity("probability to stay", "", np.diagonal(to, axis1=-2, axis2=-1)),
    ]


def quantities(facts: Facts) -> list[Quantity]:
    """What each component has besides, column by column."""
    by_column: dict[int, list[Quantity]] = {}
    for group in facts.design.groups:
        values = own_values(group, facts.values)
        for place, column in enumerate(group.where):
            by_column[column] = [
                Quantity(what, facts.names[column], np.asarray(v))
                for what, v in _of_column(group, values, place, facts.categories(column))
            ]
        if isinstance(group.family, StudentT):
            df = Quantity("degrees of freedom", listed(group.columns.names, 3), values["df"])
            by_column[group.where[-1]].append(df)
    return [quantity for column in sorted(by_column) for quantity in by_column[column]]


def own_values(group: Group, values: Values) -> dict[str, np.ndarray]:
    """A group's parameters, without its name before them."""
    own = {own_name(group, site): np.asarray(value) for site, value in values.items()}
    return {name: value for name, value in own.items() if name}


def own_name(group: Group, site: str) -> str:
    """The name of a group's parameter, without the group's before it; nothing for what is not its own."""
    if not group.name:
        return "" if site in (WEIGHTS, INITIAL, TRANSITIONS) else site
    # Groups may have points in their names ("a" and "a.b"), parameters have none.
    owner, _, name = site.rpartition(".")
    return name if owner == group.name else ""


def covariances(group: Group, values: Values) -> np.ndarray:
    """Of a normal family, shape (draws, components, columns, columns), whatever it keeps of them."""
    means, found = values["means"], values["covariances"]
    draws, components, columns = means.shape
    if isinstance(group.family, Normal):
        spherical = group.family.spherical
        diagonal = np.broadcast_to(found[..., None] if spherical else found, means.shape)
        return diagonal[..., None] * np.eye(columns)
    if found.ndim == 3:  # one for all components
        found = found[:, None]
    return np.broadcast_to(found, (draws, components, columns, columns))


def _of_column(
    group: Group, values: Values, place: int, categories: tuple[Any, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    family = group.family
    if isinstance(family, Categorical):
        name = f"probs_{place}" if f"probs_{place}" in values else "probs"
        for code in most_frequent(values[name]):
            yield f"probability of {shortened(categories[code])}", values[name][..., code]
        return
    at: dict[str, np.ndarray] = {
        name: value[..., place]
        for name, value in values.items()
        if value.ndim == 3 and name != "covariances"
    }
    mean, concentration = at.get("means", np.zeros(())), at.get("concentrations", np.ones(()))
    match family:
        case Gaussian() | Normal():
            yield MEAN, mean
            yield SD, np.sqrt(covariances(group, values)[..., place, place])
        case StudentT():
            yield "centre", mean
            yield "scale", at["scales"]
        case LogNormal():
            yield "median", np.exp(at["locs"])
            yield "sd of the logarithm", at["scales"]
        case Poisson():
            yield "rate", at["rates"]
        case Bernoulli():
            yield "probability of 1", at["probs"]
        case Gamma():
            yield MEAN, mean
            yield SD, mean / np.sqrt(concentration)
        case NegativeBinomial():
            yield MEAN, mean
            yield SD, np.sqrt(mean + mean**2 / concentration)
        case Beta():
            yield MEAN, mean
            yield SD, np.sqrt(mean * (1 - mean) / (1 + concentration))
        case _:
            yield from at.items()


def most_frequent(probabilities: np.ndarray) -> list[int]:
    """Numbers of the categories that are most probable in some component, in their own order."""
    most = probabilities.mean(0).max(0)
    return sorted(np.argsort(-most, kind="stable")[:MOST_CATEGORIES].tolist())
