"""What a model file says, held against what a fit could have found; a file may come from anyone.

Sizes are checked before anything of that size is made. Numbers that are each possible may still be nonsense together (a
scale of 1e-200, beside a mean of 1e100): whether they are is asked of the families themselves, by the density of
a row that must have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.jaxpr.compiled import QUICK, remembered_jit
from marginax.mixture.families import Categorical
from marginax.mixture.gaussian import Gaussian
from marginax.mixture.learned import Groups, Learned

MOST = 10**6
"""Of components, starts, iterations and draws."""
LARGEST_SEED = 2**63 - 1
ROUNDING = 1e-9
"""Of a mean, relative to it."""
COUNTS = ("n_components", "n_init", "max_iter", "n_draws", "n_warmup", "n_chains")

Arrays = Mapping[str, np.ndarray]


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a ValueError for options that no fit could have had; what else they must be the estimators say."""
    for name in COUNTS:
        value = options.get(name, 0)
        if isinstance(value, int) and value > MOST:
            raise ValueError(f"{name} is {value:.3g}, and a model file holds {MOST:,} at most.")
    seed = options.get("random_state")
    if seed is not None and not (type(seed) is int and 0 <= seed <= LARGEST_SEED):
        raise ValueError(f"random_state is {seed!r}, which is no whole number from 0.")
    for name in ("weight_concentration_prior", "stay_prior"):
        if isinstance(options.get(name), bool):
            raise ValueError(f"{name} is {options[name]!r}, which is no number.")
    if type(options.get("verbose", False)) is not bool:
        raise ValueError(f"verbose is {options['verbose']!r}, which is neither true nor false.")


def check_priors(data: Any, most: int) -> None:
    """Raise a ValueError for stated priors, as data, that have something else than numbers, or more than ``most``."""
    if not isinstance(data, dict):
        return
    for name, entry in data.items():
        arguments = [np.asarray(value) for value in entry["arguments"].values()]
        if any(a.dtype.kind not in "fi" or not np.isfinite(a).all() for a in arguments):
            raise ValueError(f"its prior of {name!r} has arguments that are no finite numbers.")
        # Small arguments may be broadcast to something large.
        if prod(np.broadcast_shapes(*(a.shape for a in arguments))) > most:
            raise ValueError(f"its prior of {name!r} has more numbers than there are parameters.")
        if type(entry["event_dim"]) is not int or entry["event_dim"] < 0:
            raise ValueError(f"its prior of {name!r} has {entry['event_dim']!r} dimensions.")


def check_columns(columns: Any) -> None:
    """Raise a ValueError for names of columns that are not different words."""
    if not isinstance(columns, list) or not columns:
        raise ValueError("its columns are no list of names.")
    if not all(isinstance(name, str) for name in columns):
        raise ValueError("its columns are not named by words.")
    if len(set(columns)) < len(columns):
        twice = next(name for j, name in enumerate(columns) if name in columns[:j])
        raise ValueError(f"two of its columns are named {twice!r}.")


def check_counts(point: Arrays, components: Any, is_chain: bool) -> None:
    """Raise a ValueError unless what says which component is there, and is of so many."""
    shapes: dict[str, tuple[Any, ...]] = {"weights": (components,)}
    if is_chain:
        shapes = {"initial": (components,), "transitions": (components, components)}
    for name, shape in shapes.items():
        if name not in point or point[name].shape != shape:
            found = point[name].shape if name in point else "none"
            raise ValueError(f"its {name} should have the shape {shape}, and have {found}.")


def check_matrices(point: Arrays, groups: Groups) -> None:
    """Raise a ValueError unless a matrix of so many columns is there: the design makes another of its size."""
    for name, family, where in groups:
        if isinstance(family, Gaussian):
            site = f"{name}.precision_factors" if name else "precision_factors"
            if site not in point or point[site].shape[-2:] != 2 * (len(where),):
                raise ValueError(f"its {site!r} are no matrices of {len(where)} columns.")


def check_moments(moments: np.ndarray, fill: np.ndarray, rows: int) -> None:
    """Raise a ValueError for numbers that are no column's mean, standard deviation and value, of so many rows."""
    mean, spread = moments
    with np.errstate(over="ignore"):
        squares = np.concatenate([moments, fill[None]]) ** 2
    if not np.isfinite(squares).all() or (spread < 0).any():
        raise ValueError("its means and standard deviations of the columns are those of no table.")
    # No value of a table is farther from the mean (Samuelson, 1968).
    farthest = spread * np.sqrt(rows) + ROUNDING * np.abs(mean)
    if (np.abs(fill - mean) > farthest).any():
        raise ValueError("its columns have values that are too far from their means.")


def check_densities(learned: Learned, draws: Arrays) -> None:
    """Raise a ValueError unless the parameters, shape (draws, ...), give densities to rows that a table might have."""
    design = learned.design
    rows = learned.rows(_likely(learned)).cells
    count = len(next(iter(draws.values())))
    which = np.arange(count * design.components)

    def densities(draws: Any, row: Any) -> Any:
        """Every component of every draw is one to the family."""
        total: Any = 0.0
        for group in design.groups:
            values = {}
            for name, parameter in group.parameters.items():
                drawn = draws[group.site(name)]
                if parameter.is_shared:
                    values[name] = jnp.repeat(drawn, design.components, 0)
                else:
                    values[name] = drawn.reshape(-1, *drawn.shape[2:])
            # As rows with missing cells need it: a matrix may be one that cannot be inverted.
            prepared = group.family.prepare(values, np.ones((1, len(group.where)), bool))
            prepared = group.family.of(prepared, which, 0)
            total += group.family.log_prob(prepared, row[np.asarray(group.where)], None)
        return total

    with jax.enable_x64(True):
        asked = dict(draws), jnp.asarray(rows)
        each = remembered_jit(jax.vmap(densities, (None, 0)), *asked, options=QUICK)(*asked)
    found = np.asarray(each).reshape(len(rows), count, design.components)
    if np.isnan(found).any() or not np.isfinite(found.max(-1)).all():
        raise ValueError("its parameters give no density to a row in the middle of its table.")


def _likely(learned: Learned) -> np.ndarray:
    """Three rows in the middle of a table, shape (3, columns)."""
    mean, spread = learned.moments
    rows = np.stack([learned.fill, mean - spread, mean + spread])
    for group in learned.design.groups:
        for j in group.where:
            if isinstance(group.family, Categorical):
                rows[:, j] = learned.fill[j]
            rows[:, j] = np.where(group.family.allows(rows[:, j]), rows[:, j], learned.fill[j])
    return rows


def check_lengths(lengths: Any, rows: Any) -> None:
    """Raise a ValueError for numbers of rows that are none, or series that do not add up to them."""
    if type(rows) is not int or not 1 <= rows <= LARGEST_SEED:
        raise ValueError(f"it says that it was fitted to {rows!r} rows.")
    if lengths is not None and (
        not isinstance(lengths, Sequence)
        or not all(type(n) is int and n > 0 for n in lengths)
        or sum(lengths) != rows
    ):
        raise ValueError(f"its series do not have lengths that add up to {rows} rows.")
