"""Label switching undone: exchangeable components get the same names in all draws.

A mixture does not change if its components are renumbered, and so a sampler that works well visits every
numbering. Averages over draws "of component 0" then mean nothing. Stephens (2000, "Dealing with label
switching in mixture models", Journal of the Royal Statistical Society B 62, algorithm 2) gives every draw the
numbering under which its membership probabilities come closest, in Kullback-Leibler divergence, to their
average over all draws; average and numberings are improved in turn until nothing changes. Here the membership
probabilities are exact, for each draw.

The one hard question is what a renumbering moves. Sites in the components' plate, along it; but the
weights of a mixture, or the columns of a transition matrix, are numbered by component as well and live in no
plate. Of two components there may be one number for both, the weight of one of them, which becomes that of the other: a
probability p becomes 1 - p, a logit x becomes -x. (Neither changes volumes, so densities before and after compare.) The
model itself tells: right is what leaves its density as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints
from scipy.optimize import linear_sum_assignment

from marginax.errors import ModelError
from marginax.graph.sites import Site, as_jax_arrays, collect_sites
from marginax.marginal.facade import Marginal, marginalize

PROBES = 3
"""Draws at which the density is compared."""
MOST_TRIED = 100
"""Ways to mirror sites, the fewest sites first."""
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
    mirrored: dict[str, float]
    """The sites whose value was mirrored at a point, by that point, where two components changed their numbers."""

    def __str__(self) -> str:
        flat = self.permutations.reshape(-1, self.permutations.shape[-1])
        kinds, counts = np.unique(flat, axis=0, return_counts=True)
        every = [f"'{n}' (axis {', '.join(map(str, a))})" for n, a in self.axes.items()]
        every += [f"'{n}' (mirrored at {point:g})" for n, point in self.mirrored.items()]
        moved = ", ".join(every)
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
        nothing is said they are found, and of two components also sites that stand for both: a probability p that
        becomes 1 - p, a number x that becomes -x.
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
        density changes whatever is moved with them.

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

    moves = _moves(sites, flat, given, plate, count, axes, log_density)
    shares = _memberships(marginal, given, variables, args, kwargs, batch_size)
    best = int(np.argmax(log_density(given)))
    permutations = _stephens(shares, best, max_iterations)
    renamed = {name: moves.of(name, value, permutations) for name, value in flat.items()}
    inverse = np.argsort(permutations, axis=1)
    for name in variables:
        if name in renamed:
            old = renamed[name].reshape(len(inverse), -1)
            renamed[name] = np.take_along_axis(inverse, old, 1).reshape(renamed[name].shape)
    shaped = {name: value.reshape((*leading, *value.shape[1:])) for name, value in renamed.items()}
    numbers = permutations.reshape((*leading, count))
    return Relabelled(shaped, numbers, moves.axes, moves.mirrored)


def on_labels(model: Callable[..., Any], samples: Mapping[str, Any], args: Any, kwargs: Any) -> str:
    """What to say of chains in different places: whether `relabel` could make one place of them.

    Parameters
    ----------
    model : callable
        The model.
    samples : mapping of array, shape (chains, draws, *site_shape)
        Draws of its continuous latent sites.
    args, kwargs
        The model's arguments.

    Returns
    -------
    str
        A sentence, or nothing where no plate is one of components.
    """
    args, kwargs = as_jax_arrays((args, kwargs))
    sites = collect_sites(model, *args, **kwargs)
    last = {name: np.asarray(value)[:, -1] for name, value in samples.items()}
    given = {n: v for n, v in last.items() if n in sites and sites[n].is_free}
    marginal = marginalize(model)

    def log_density(draws: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(marginal.log_density(draws, *args, **kwargs), np.float64)

    can, cannot = [], []
    for plate, site in sites.items():
        in_it = [n for n in given for f in sites[n].plates if f.name == plate]
        if site.kind != "plate" or not in_it or site.shape[0] < 2:
            continue
        try:
            _variables(sites, site.shape[0], plate, None)
        except ModelError:
            continue
        try:
            _moves(sites, last, given, plate, site.shape[0], None, log_density)
        except ModelError as error:
            cannot.append(str(error).removeprefix("relabel: "))
        else:
            can.append(plate)
    if can:
        calls = " or ".join(f"mcmc.relabel('{plate}')" for plate in can)
        return (
            "If these are the same components with their labels exchanged, "
            f"{calls} gives them the same names. "
        )
    return "".join(f"Exchanged labels are not the reason: {reason} " for reason in cannot)


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


@dataclass(frozen=True)
class Moves:
    """What a renumbering does to each site."""

    axes: dict[str, tuple[int, ...]]
    """Axes that are numbered by component, counted from the end."""
    mirrored: dict[str, float]
    """Sites, not numbered themselves, whose value v becomes 2 c - v if two components are exchanged, by c."""

    def of(self, name: str, value: np.ndarray, permutations: np.ndarray) -> np.ndarray:
        """A site's values, each renumbered by its permutation."""
        value = _renumbered(value, self.axes.get(name, ()), permutations)
        if name not in self.mirrored:
            return value
        exchanged = permutations[:, 0] != 0
        exchanged = exchanged.reshape(-1, *[1] * (value.ndim - 1))
        return np.where(exchanged, 2 * self.mirrored[name] - value, value).astype(value.dtype)


def _moves(
    sites: Mapping[str, Site],
    flat: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
    plate: str,
    count: int,
    axes: Mapping[str, int | tuple[int, ...]] | None,
    log_density: Callable[[Mapping[str, Any]], np.ndarray],
) -> Moves:
    """What to renumber, and what to mirror."""
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
        candidates: Iterable[Moves] = [_together(in_plate | further, {})]
    else:
        candidates = _candidates(sites, given, in_plate, count)
    for moves in candidates:
        if check(moves):
            return moves
    raise ModelError(
        f"relabel: the components of plate '{plate}' are not exchangeable: whichever sites are renumbered with "
        "them, the density of draws and data changes. If their priors differ, or an order is imposed, labels "
        f"have a meaning already, and there is nothing to undo.{_on_the_first_state(sites, count)}"
    )


def _candidates(
    sites: Mapping[str, Site],
    given: Mapping[str, np.ndarray],
    in_plate: set[tuple[str, int]],
    count: int,
) -> Iterator[Moves]:
    """What may be moved with the sites in the plate: axes of that size first; of two components then mirrored sites."""
    others = [
        (name, axis)
        for name, value in given.items()
        for axis in range(1 - value.ndim, 0)
        if value.shape[axis] == count and (name, axis) not in in_plate
    ]
    for number in range(len(others) + 1):
        for chosen in itertools.combinations(others, number):
            yield _together(in_plate | set(chosen), {})
    moved = {name for name, _ in in_plate}
    middles = {n: _middle(sites[n].constraint) for n in given if n not in moved}
    mirrors = [(name, middle) for name, middle in middles.items() if middle is not None]
    if count != 2:
        return
    ways = (
        (mirrored, chosen)
        for number in range(1, len(mirrors) + len(others) + 1)
        for n_axes in range(number)
        for chosen in itertools.combinations(others, n_axes)
        for mirrored in itertools.combinations(mirrors, number - n_axes)
    )
    for mirrored, chosen in itertools.islice(ways, MOST_TRIED):
        yield _together(in_plate | set(chosen), dict(mirrored))


def _together(axes: Iterable[tuple[str, int]], mirrored: dict[str, float]) -> Moves:
    by_site: dict[str, tuple[int, ...]] = {}
    for name, axis in sorted(axes):
        by_site[name] = (*by_site.get(name, ()), axis)
    return Moves(by_site, mirrored)


def _middle(constraint: Any) -> float | None:
    """The point at which the values of a constraint can be mirrored."""
    while isinstance(constraint, type(constraints.independent(constraints.real, 1))):
        constraint = constraint.base_constraint
    if constraint is constraints.real or constraint is constraints.real_vector:
        return 0.0
    if isinstance(constraint, type(constraints.interval(0.0, 1.0))):
        middle = (np.asarray(constraint.lower_bound) + np.asarray(constraint.upper_bound)) / 2
        return float(middle) if middle.ndim == 0 else None
    return None


def _on_the_first_state(sites: Mapping[str, Site], count: int) -> str:
    """Of a chain, what most often tells its states apart."""
    chains = [
        n
        for n, s in sites.items()
        if s.series and s.is_free and s.support is not None and len(s.support) == count
    ]
    if not chains:
        return ""
    return (
        f" The states '{chains[0]}' form a chain: where the scan begins in a fixed state, as in "
        "mx.scan(step, 0, ...), that state is told apart from the others by being the first, and two fits whose "
        "states are exchanged are two different ones. To make them exchangeable draw the first state too, with equal "
        "probabilities or with parameters for them."
    )


@dataclass(frozen=True)
class _Invariance:
    """Does the density stay as it is under moves?"""

    given: Mapping[str, np.ndarray]
    count: int
    log_density: Callable[[Mapping[str, Any]], np.ndarray]

    def __call__(self, moves: Moves) -> bool:
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
        moved = {name: moves.of(name, value, renumberings) for name, value in draws.items()}
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
