"""Label switching undone: exchangeable components get the same names in all draws.

A mixture does not change if its components are renumbered, and so a sampler that works well visits every
numbering. Averages over draws "of component 0" then mean nothing. Stephens (2000, "Dealing with label
switching in mixture models", Journal of the Royal Statistical Society B 62, algorithm 2) gives every draw the
numbering under which its membership probabilities come closest, in Kullback-Leibler divergence, to their
average over all draws; average and numberings are improved in turn until nothing changes. Here the membership
probabilities are exact, for each draw.

The one hard question is what a renumbering moves. Sites in the components' plate, along it; but the
weights of a mixture, or the columns of a transition matrix, are numbered by component as well and live in no
plate. The model itself tells: the right axes are those whose renumbering leaves its density as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from marginax.graph.sites import Site, as_jax_arrays, collect_sites
from marginax.language.errors import ModelError
from marginax.marginal import Marginal, marginalize

PROBES = 3
"""Draws at which the density is compared."""
LEAST_PROBABILITY = 1e-10
"""In logarithms, in place of zero."""


class Relabelled(NamedTuple):
    """Draws with consistent labels. ``str`` says what was done."""

    samples: dict[str, np.ndarray]
    """As they were given, renumbered."""
    permutations: np.ndarray
    """Shape (*draws, K): the old number of the component that is now number k."""
    axes: dict[str, tuple[int, ...]]
    """Which axes of each site's own shape were renumbered, counted from the end."""

    def __str__(self) -> str:
        flat = self.permutations.reshape(-1, self.permutations.shape[-1])
        kinds, counts = np.unique(flat, axis=0, return_counts=True)
        moved = ", ".join(f"'{n}' (axis {', '.join(map(str, a))})" for n, a in self.axes.items())
        return (
            f"{len(kinds)} numbering{'s' if len(kinds) > 1 else ''} of {flat.shape[1]} components among {len(flat)} "
            f"draws; {len(flat) - counts.max()} draws differ from the most common one. Renumbered: {moved}."
        )


def relabel(
    model: Callable[..., Any],
    samples: Mapping[str, Any],
    *args: Any,
    plate: str,
    variable: str | None = None,
    axes: Mapping[str, int | tuple[int, ...]] | None = None,
    batch_ndims: int = 1,
    batch_size: int | None = None,
    max_iterations: int = 100,
    **kwargs: Any,
) -> Relabelled:
    """Renumber exchangeable components so that they are the same in all draws.

    Parameters
    ----------
    model : callable
        The model.
    samples : mapping of array, shape (*draws, *site_shape)
        Draws of its continuous latent sites. Deterministic sites in the plate, and draws of the
        discrete variables, are renumbered with them.
    *args, **kwargs
        The model's arguments.
    plate : str
        The components' plate.
    variable : str, optional
        The discrete variable that says which component; needed only if several have as many values and not
        all of them number these components.
    axes : mapping, optional
        By site, further axes (negative, of the site's own shape) that are numbered by component. When
        nothing is said they are found.
    batch_ndims : int
        Leading dimensions of the draws; 2 for draws by chain.
    batch_size : int, optional
        How many draws are evaluated at once; as many as fit when nothing is said.
    max_iterations : int
        Rounds at most; a few are enough.

    Returns
    -------
    Relabelled
        Components are numbered by falling weight: the expected number of members, on average.

    Raises
    ------
    ModelError
        When the model has no such plate or variable, or when the components are not exchangeable: its
        density changes whichever axes are renumbered.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(x):
    ...     with mx.plate("components", 2):
    ...         locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    ...     with mx.plate("data", len(x)):
    ...         z = mx.sample("z", dist.Categorical(jnp.ones(2) / 2))
    ...         mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)
    >>> draws = {"locs": jnp.array([[0.1, 5.0], [5.1, 0.0]])}
    >>> found = mx.infer.relabel(model, draws, jnp.array([0.0, 5.0, 5.2]), plate="components")
    >>> found.samples["locs"].tolist()
    [[5.0, 0.10000000149011612], [5.099999904632568, 0.0]]
    """
    args, kwargs = as_jax_arrays((args, kwargs))
    sites = collect_sites(model, *args, **kwargs)
    count = _components(sites, plate)
    variables = _variables(sites, count, plate, variable)
    flat, leading = _flattened(samples, batch_ndims)
    given = {
        n: v for n, v in flat.items() if n in sites and sites[n].is_free and n not in variables
    }
    marginal = marginalize(model)

    def log_density(draws: Mapping[str, Any]) -> np.ndarray:
        found = marginal.log_density(draws, *args, batch_size=batch_size, **kwargs)
        return np.asarray(found, np.float64)

    moved = _moved(sites, flat, given, plate, count, axes, log_density)
    shares = _memberships(marginal, given, variables, args, kwargs, batch_size)
    best = int(np.argmax(log_density(given)))
    permutations = _stephens(shares, best, max_iterations)
    renamed = {
        name: _renumbered(value, moved.get(name, ()), permutations) for name, value in flat.items()
    }
    inverse = np.argsort(permutations, axis=1)
    for name in variables:
        if name in renamed:
            old = renamed[name].reshape(len(inverse), -1)
            renamed[name] = np.take_along_axis(inverse, old, 1).reshape(renamed[name].shape)
    shaped = {name: value.reshape((*leading, *value.shape[1:])) for name, value in renamed.items()}
    return Relabelled(shaped, permutations.reshape((*leading, count)), moved)


def _components(sites: Mapping[str, Site], plate: str) -> int:
    site = sites.get(plate)
    if site is None or site.kind != "plate":
        known = ", ".join(repr(n) for n, s in sites.items() if s.kind == "plate") or "none"
        raise ModelError(f"relabel: the model has no plate '{plate}'; its plates are {known}.")
    (count,) = site.shape
    if count < 2:
        raise ModelError(f"relabel: plate '{plate}' has one element; there is nothing to renumber.")
    return count


def _variables(
    sites: Mapping[str, Site], count: int, plate: str, wanted: str | None
) -> tuple[str, ...]:
    """The discrete variables whose values are numbers of components."""

    def fits(site: Site) -> bool:
        support = site.support
        return (
            site.is_free
            and support is not None
            and support.shape == (count,)
            and bool((support == np.arange(count)).all())
        )

    found = tuple(name for name, site in sites.items() if fits(site))
    if wanted is not None and wanted not in found:
        raise ModelError(
            f"relabel: '{wanted}' is no discrete variable with the values 0 to {count - 1}, the numbers of the "
            f"elements of plate '{plate}'; such are {', '.join(map(repr, found)) or 'none'}."
        )
    if not found:
        raise ModelError(
            f"relabel: no discrete variable has the values 0 to {count - 1}, the numbers of the elements of plate "
            f"'{plate}'. Is it the components' plate?"
        )
    return found if wanted is None else (wanted,)


def _flattened(
    samples: Mapping[str, Any], batch_ndims: int
) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    arrays = {name: np.asarray(value) for name, value in samples.items()}
    if not arrays:
        raise ValueError("relabel: there are no draws.")
    leading = next(iter(arrays.values())).shape[:batch_ndims]
    for name, value in arrays.items():
        if value.shape[:batch_ndims] != leading or len(leading) != batch_ndims:
            raise ValueError(
                f"relabel: the draws of '{name}' have shape {value.shape}, others have the leading dimensions "
                f"{leading}, and batch_ndims is {batch_ndims}."
            )
    flat = {name: value.reshape((-1, *value.shape[batch_ndims:])) for name, value in arrays.items()}
    return flat, leading


def _renumbered(value: np.ndarray, axes: Iterable[int], permutations: np.ndarray) -> np.ndarray:
    """Element k of an axis is the one that was number ``permutations[draw, k]``."""
    for axis in axes:
        shape = [1] * value.ndim
        shape[0], shape[axis] = permutations.shape
        value = np.take_along_axis(value, permutations.reshape(shape), axis)
    return value


# -- what a renumbering moves


def _moved(
    sites: Mapping[str, Site],
    flat: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
    plate: str,
    count: int,
    axes: Mapping[str, int | tuple[int, ...]] | None,
    log_density: Callable[[Mapping[str, Any]], np.ndarray],
) -> dict[str, tuple[int, ...]]:
    """The axes of each site to renumber."""
    in_plate = {
        (name, frame.dim - site.event_dim)
        for name, site in sites.items()
        for frame in site.plates
        if name in flat and frame.name == plate and flat[name].ndim > site.event_dim - frame.dim
    }
    check = _Invariance(given, count, log_density)
    if axes is not None:
        further = {
            (name, axis)
            for name, of in axes.items()
            for axis in ((of,) if isinstance(of, int) else of)
        }
        for name, axis in further:
            own = flat[name].shape[1:] if name in flat else ()
            if axis >= 0 or -axis > len(own) or own[axis] != count:
                raise ModelError(
                    f"relabel: axes names axis {axis} of '{name}', whose shape is {own}; give a negative axis of "
                    f"length {count}."
                )
        candidates = [frozenset(in_plate | further)]
    else:
        others = [
            (name, axis)
            for name, value in given.items()
            for axis in range(1 - value.ndim, 0)
            if value.shape[axis] == count and (name, axis) not in in_plate
        ]
        candidates = [
            frozenset(in_plate | set(chosen))
            for number in range(len(others) + 1)
            for chosen in itertools.combinations(others, number)
        ]
    for chosen in candidates:
        if check(chosen):
            return {
                name: tuple(sorted(axis for n, axis in chosen if n == name))
                for name in flat
                if any(n == name for n, _ in chosen)
            }
    raise ModelError(
        f"relabel: the components of plate '{plate}' are not exchangeable: whichever sites are renumbered with "
        "them, the density of draws and data changes. If their priors differ, or an order is imposed, labels "
        "have a meaning already, and there is nothing to undo."
    )


@dataclass(frozen=True)
class _Invariance:
    """Does the density stay as it is when some axes are renumbered?"""

    given: Mapping[str, np.ndarray]
    count: int
    log_density: Callable[[Mapping[str, Any]], np.ndarray]

    def __call__(self, axes: Iterable[tuple[str, int]]) -> bool:
        total = len(next(iter(self.given.values())))
        probes = np.unique(np.linspace(0, total - 1, PROBES).astype(int))
        # Neighbours exchanged generate all renumberings.
        swaps = np.tile(np.arange(self.count), (self.count, 1))
        for k in range(self.count - 1):
            swaps[k, [k, k + 1]] = swaps[k, [k + 1, k]]
        renumberings = np.repeat(swaps, len(probes), axis=0)  # the last one leaves all as it is
        draws = {
            name: np.concatenate([value[probes]] * self.count) for name, value in self.given.items()
        }
        moved = {
            name: _renumbered(value, [a for n, a in axes if n == name], renumberings)
            for name, value in draws.items()
        }
        found = self.log_density(moved).reshape(self.count, len(probes))
        size = np.abs(found[-1]) + 1
        precision = float(np.sqrt(jnp.finfo(jnp.result_type(float)).eps))
        return bool((np.abs(found - found[-1]) <= precision * size).all())


# -- the numbering of each draw


def _memberships(
    marginal: Marginal,
    given: Mapping[str, np.ndarray],
    variables: tuple[str, ...],
    args: Any,
    kwargs: Any,
    batch_size: int | None,
) -> np.ndarray:
    """Probabilities of the components, shape (draws, elements, K)."""
    found = marginal.posterior(given, *args, batch_size=batch_size, **kwargs)
    shares = [np.asarray(found[name]) for name in variables]
    return np.concatenate([s.reshape(len(s), -1, s.shape[-1]) for s in shares], axis=1)


def _stephens(shares: np.ndarray, start: int, max_iterations: int) -> np.ndarray:
    """Numberings, shape (draws, K), that bring membership probabilities closest to their average."""
    draws, _, count = shares.shape
    average = shares[start]
    permutations = np.full((draws, count), -1)
    for _ in range(max_iterations):
        # Of the divergence from the average only this part depends on the numbering.
        logs = np.log(np.maximum(average, LEAST_PROBABILITY))
        agreement = np.einsum("snj,nk->skj", shares, logs)
        new = np.stack([linear_sum_assignment(-each)[1] for each in agreement])
        if (new == permutations).all():
            break
        permutations = new
        average = np.zeros_like(average)
        for share, permutation in zip(shares, permutations, strict=True):
            average += share[:, permutation] / draws
    return permutations[:, np.argsort(-average.sum(axis=0), kind="stable")]
