"""What factors and their axes go by.

A variable or a plate of a model goes by its name, a string. Where it has several axes, each of them is
a value that says which it is. Axes are only ever compared with one another; strings are made of them to
be printed, and nothing is read from a string.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Role(Enum):
    """What of a variable, or of a series, an axis is; its value is what is printed after the name."""

    ALIKE = ""
    """The steps of a series that are alike."""
    WHOLE = " (whole)"
    """All steps of a series, as a plate."""
    BLOCKS = " (blocks)"
    """A time axis that was cut: one element for each piece."""
    ENTRY = " at entry"
    """What is remembered where such a piece begins."""
    EXIT = " at exit"
    """What is remembered where it ends."""


@dataclass(frozen=True)
class Part:
    """One of several axes of a variable or a series."""

    of: Axis
    role: Role

    def __str__(self) -> str:
        return f"{self.of}{self.role.value}"


@dataclass(frozen=True)
class At:
    """A variable, or a factor, at a step that has a number."""

    variable: Axis
    step: int

    def __str__(self) -> str:
        return f"{self.variable}[{self.step}]"


@dataclass(frozen=True)
class Back:
    """A variable some steps back from the step that stands for all."""

    variable: Axis
    lag: int

    def __str__(self) -> str:
        return f"{self.variable}[t-{self.lag}]" if self.lag else f"{self.variable}[t]"


Axis: TypeAlias = str | Part | At | Back
Name: TypeAlias = str | At
"""Of a factor."""


def sorted_axes(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """Axes by how they print, and those that print the same by what they are: in the same order every time."""
    return tuple(sorted(axes, key=_name))


def by_name(axes: Iterable[Axis]) -> list[tuple[str, str]]:
    """What groups of axes are sorted by, in that order."""
    return sorted(map(_name, axes))


def _name(axis: Axis) -> tuple[str, str]:
    return str(axis), repr(axis)
