"""Parameters as tables: each number with the column, the category and the component that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]


def point_table(model: Any) -> str:
    """The most probable parameters, a column a component."""
    count = model.n_components
    rows = [["", *(f"component {k}" for k in range(count))]]
    for name, value in model.parameters_.items():
        has_components, axes = _axes(model, name, value.ndim)
        each = value if has_components else np.broadcast_to(value, (count, *value.shape))
        for index in np.ndindex(each.shape[1:]):
            if _is_repeated(index, axes):
                continue
            label = _label(name, _words(axes, index))
            rows.append([label, *map(_number, each[(slice(None), *index)])])
    return columns(rows)


def summary_text(model: Any, summary: Mapping[str, Mapping[str, float]]) -> str:
    """A summary of the posterior, a row a parameter."""
    labels = _labels(model)
    heading = list(next(iter(summary.values())))
    rows = [["", *heading]]
    rows += [
        [labels[name], *(_number(row[column]) for column in heading)]
        for name, row in summary.items()
        if name in labels
    ]
    return columns(rows)


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "-"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """A table of texts: the first column to the left, the others to the right, with space between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)


def _labels(model: Any) -> dict[str, str]:
    """For each number of the summary (``means[0,1]``) what to call it, but for those that are there twice."""
    found = {}
    for name, value in model.parameters_.items():
        has_components, axes = _axes(model, name, value.ndim)
        for index in np.ndindex(value.shape):
            component, own = (index[:1], index[1:]) if has_components else ((), index)
            if _is_repeated(own, axes):
                continue
            words = [f"component {k}" for k in component] + _words(axes, own)
            key = f"{name}[{','.join(map(str, index))}]" if index else name
            found[key] = _label(name, words)
    return found


def _label(name: str, words: Sequence[str]) -> str:
    return f"{name}[{', '.join(words)}]" if words else name


def _words(axes: Sequence[Sequence[str]], index: Index) -> list[str]:
    """What a number belongs to, along these axes."""
    return [axis[i] for axis, i in zip(axes, index, strict=True)]


def _is_repeated(index: Index, axes: Sequence[Sequence[str]]) -> bool:
    """Whether it is above the diagonal of a matrix of columns, which is symmetric."""
    return len(axes) == 2 and axes[0] is axes[1] and index[0] < index[1]


def _axes(model: Any, name: str, dimensions: int) -> tuple[bool, list[Sequence[str]]]:
    """Whether a parameter's first axis is the components, and what the numbers along its other axes belong to."""
    from marginax.mixture.families import Categorical

    design = model.learned_.design
    if name in design.outer:
        states = [f"to {k}" for k in range(design.components)]
        return True, [states] * (dimensions - 1)
    prefix, _, own = name.rpartition(".")
    group = next(g for g in design.groups if g.name == prefix)
    parameters = group.parameters
    # Covariances are told in place of what is fitted, which all components may share.
    shown = [parameters[own]] if own in parameters else list(parameters.values())
    has_components = not any(parameter.is_shared for parameter in shown)
    names = group.columns.names
    if isinstance(group.family, Categorical):
        place = int(own.partition("_")[2] or 0)
        categories = model.categories_[group.where[place]]
        return has_components, [[f"{names[place]}={category}" for category in categories]]
    return has_components, [names] * (dimensions - has_components)
