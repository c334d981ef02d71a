"""Axes: how they print, and in which order they stand."""

from __future__ import annotations

import itertools

import pytest

from marginax.elimination.axes import At, Axis, Back, Part, Role, by_name, sorted_axes


@pytest.mark.parametrize(
    ("axis", "printed"),
    [
        (At("z", 3), "z[3]"),
        (Back("z", 0), "z[t]"),
        (Back("z", 2), "z[t-2]"),
        (Part("steps of z", Role.ALIKE), "steps of z"),
        (Part("steps of z", Role.WHOLE), "steps of z (whole)"),
        (Back(At("w", 4), 1), "w[4][t-1]"),
    ],
)
def test_an_axis_prints_as_people_read_it(axis: Axis, printed: str):
    assert str(axis) == printed


def test_axes_that_print_the_same_are_different_and_have_one_order():
    axes: list[Axis] = ["z[0]", At("z", 0), "a", Part("z[0]", Role.ALIKE), Back("z", 0)]
    assert len(set(axes)) == 5
    found = {sorted_axes(some) for some in itertools.permutations(axes)}
    assert len(found) == 1
    assert [str(axis) for axis in found.pop()] == ["a", "z[0]", "z[0]", "z[0]", "z[t]"]
    assert by_name(axes[:2]) == by_name(axes[1::-1])
