"""The posterior around the most probable parameters: a normal approximation, or draws by NUTS.

NUTS wants a mass matrix near the inverse of the posterior's covariance. With many rows for each parameter the posterior
is nearly normal (Bernstein and von Mises), with a covariance that is known beforehand: the inverse of the curvature
at the most probable parameters, which a component that is thin in some direction has at very different scales in
different directions. Then that matrix is given, and warm-up finds the step size alone; a diagonal one would need
hundreds of steps for each draw. With fewer rows the posterior has a shape of its own, and warm-up learns it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from numpyro import distributions as dist
from numpyro.distributions import constraints

from marginax.infer import MCMC, NUTS, SVI, TraceEnum_ELBO, init_to_value, relabel
from marginax.infer.autoguide import AutoMultivariateNormal, AutoNormal
from marginax.infer.draws.summary import LEAST_OF_R_HAT, disagreement_from, summary_table
from marginax.infer.target import make_target
from marginax.jaxpr.compiled import remembered_jit
from marginax.jaxpr.program_cache import ignore_faults
from marginax.mixture.fitted import Fit, Settings
from marginax.mixture.model import Design, Rows
from marginax.mixture.numbering import is_exchangeable, numbered_axes

STEPS_OF_VI = 1500
FEW = 100
"""Effective draws of each chain that make the end of an interval trustworthy (Vehtari et al., 2021)."""
LEAST_DRAWS = 100
"""Fewer draws of each chain than this say too little about what they are worth."""
CUT_OFF = 0.01
"""Part of the trajectories that may end so without a word."""
LEAST_SHARE = 0.01
"""Of all components together, at least, where sampling begins."""
NEARLY_NORMAL = 20
"""Rows for each parameter from which on the posterior is nearly normal ..."""
MOST_TOGETHER = 500
"""... if there are not more parameters than this: a matrix of them is factored at every draw. Of more, the
variational posterior has independent parameters."""
DIRECTIONS = 8
"""In which a curvature is taken at once."""
LEAST_CURVED = 0.25
"""Of a log posterior, in an unconstrained number: that of a standard deviation of two."""
APART, APART_IN_SPREADS = 0.1, 2.0
"""How far from the MAP the chains of NUTS begin: in unconstrained numbers, or in posterior standard deviations."""


@contextmanager
def heard() -> Iterator[list[Any]]:
    """Collect the library's warnings, which go into the result."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("ignore")
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("always", category)
        ignore_faults()
        yield heard


def inside(point: Mapping[str, np.ndarray], design: Design) -> dict[str, np.ndarray]:
    """Where sampling begins: at the optimum, but for shares of zero, which a sampler could not leave."""
    found = {}
    for site, value in point.items():
        support = design.priors[site].prior.support
        if isinstance(support, constraints.independent):
            support = support.base_constraint
        if support is constraints.simplex:
            value = (value + LEAST_SHARE / value.shape[-1]) / (1 + LEAST_SHARE)
        found[site] = value
    return found


def refuse_half_done(result: Any) -> None:
    """`SVI.run` keeps what it has when it is interrupted; an estimator that looks fitted and is not would be a lie."""
    if result.stopped == "interrupted":
        raise KeyboardInterrupt


class AroundTheMode(AutoMultivariateNormal):
    """A normal with any covariance, whose location and scale are counted from a mode in units of the curvature there.

    Where it begins, at a location of zero and a scale of one, it is Laplace's approximation.

    Parameters
    ----------
    model : callable
        The model.
    mode : array, shape (size,)
        In unconstrained numbers, the sites in the model's order.
    root : array, shape (size, size)
        The Cholesky factor of the covariance there.
    """

    def __init__(self, model: Callable[..., Any], mode: np.ndarray, root: np.ndarray) -> None:
        super().__init__(model, init_scale=1.0)
        self.mode, self.root = mode, root

    def distribution(self, loc: Any, scale_tril: Any) -> Any:
        root = jnp.asarray(self.root)
        return dist.MultivariateNormal(self.mode + root @ loc, scale_tril=root @ scale_tril)


def variational(design: Design, rows: Rows, settings: Settings, found: Fit) -> Fit:
    """A normal approximation in unconstrained numbers, and draws from it."""
    point = inside(found.point, design)
    if sum(value.size for value in point.values()) <= MOST_TOGETHER:
        free = _free(design, point)
        names = tuple(AutoMultivariateNormal(design.model).continuous_sites(rows))
        covariance = covariance_at(design, rows, free, names)
        mode = np.concatenate([free[name].ravel() for name in names])
        guide = AroundTheMode(design.model, mode, np.linalg.cholesky(covariance))
        begin = {"auto_loc": np.zeros(len(mode))}
    else:
        start = init_to_value(values=point)
        guide, begin = AutoNormal(design.model, init_loc_fn=start, init_scale=0.05), None
    optim = optax.adam(optax.cosine_decay_schedule(0.02, STEPS_OF_VI))
    svi = SVI(design.model, guide, optim, TraceEnum_ELBO(num_particles=4))
    key, draw_key = jax.random.split(jax.random.key(settings.seed))
    result = svi.run(key, STEPS_OF_VI, rows, init_params=begin, progress_bar=settings.progress)
    refuse_half_done(result)
    draws = guide.sample_posterior(draw_key, result.params, rows, sample_shape=(settings.draws,))
    kept = {name: np.asarray(draws[name]) for name in found.point}
    return replace(found, draws=kept)


def sampled(design: Design, rows: Rows, settings: Settings, found: Fit) -> Fit:
    """Draws by NUTS, the components summed out; chains number the components alike."""
    kernel, begin = _kernel_and_starts(design, rows, settings, found)
    mcmc = MCMC(
        kernel,
        num_warmup=settings.warmup,
        num_samples=settings.draws,
        num_chains=settings.chains,
        progress_bar=settings.progress,
    )
    init_params = begin if settings.chains > 1 else {n: v[0] for n, v in begin.items()}
    with heard() as messages:
        mcmc.run(jax.random.key(settings.seed), rows, init_params=init_params)
    # What advises options that there are not here is said in other words.
    known = ("R-hat", "max_tree_depth", "diverge", "effective draws")
    said = [m for m in (str(w.message) for w in messages) if not any(word in m for word in known)]
    said += _troubles(mcmc.get_extra_fields(), kernel.most_leapfrogs)
    relabelled = ""
    by_chain = {n: np.asarray(v) for n, v in mcmc.get_samples(group_by_chain=True).items()}
    if next(iter(by_chain.values())).shape[1] < settings.draws:  # `MCMC` keeps what it has
        raise KeyboardInterrupt
    if design.components > 1 and is_exchangeable(design):
        renamed = relabel(
            design.model,
            by_chain,
            rows,
            plate="components",
            axes=numbered_axes(design),
            batch_ndims=2,
        )
        by_chain, relabelled = renamed.samples, str(renamed)
    said += _disagreement(by_chain)
    return replace(
        found,
        draws={n: v.reshape(-1, *v.shape[2:]) for n, v in by_chain.items()},
        chains=settings.chains,
        warnings=(*found.warnings, *said),
        relabelled=relabelled,
    )


def _kernel_and_starts(
    design: Design, rows: Rows, settings: Settings, found: Fit
) -> tuple[NUTS, dict[str, np.ndarray]]:
    """See the module's top; starts in unconstrained numbers, shape (chains, ...), around the MAP."""
    point = inside(found.point, design)
    free = _free(design, point)
    names = sorted(free)
    size = sum(value.size for value in free.values())
    noise = np.random.default_rng(settings.seed).normal(size=(settings.chains, size))
    if NEARLY_NORMAL * size <= len(rows.cells) and size <= MOST_TOGETHER:
        matrix = covariance_at(design, rows, free, names)
        kernel = NUTS(
            design.model, dense_mass=True, inverse_mass_matrix=matrix, adapt_mass_matrix=False
        )
        away = APART_IN_SPREADS * noise @ np.linalg.cholesky(matrix).T
    else:
        kernel, away = NUTS(design.model), APART * noise
    parts = np.split(away, np.cumsum([free[n].size for n in names])[:-1], axis=1)
    begin = {
        n: free[n] + part.reshape(len(part), *free[n].shape)
        for n, part in zip(names, parts, strict=True)
    }
    return kernel, begin


def _free(design: Design, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters as unconstrained numbers."""
    return {
        n: np.asarray(dist.biject_to(design.priors[n].prior.support).inv(v))
        for n, v in point.items()
    }


def covariance_at(
    design: Design, rows: Rows, free: Mapping[str, Any], names: Sequence[str]
) -> np.ndarray:
    """The covariance of the normal distribution that is nearest to the posterior around its mode (Laplace's).

    Parameters
    ----------
    design : Design
        The model.
    rows : Rows
        The table.
    free : mapping
        Where, in unconstrained numbers.
    names : sequence of str
        The order of the sites.

    Returns
    -------
    array, shape (size, size)
        Where the posterior is hardly curved, or the wrong way, that of a standard deviation of two.
    """
    target = make_target(design.model, (rows,), {})
    position, unravel = ravel_pytree([jnp.asarray(free[name]) for name in names])

    def slope(position: Any) -> Any:
        def log_density(x: Any) -> Any:
            return target.log_density(dict(zip(names, unravel(x), strict=True)))

        return -jax.grad(log_density)(position)

    def curvature(position: Any) -> Any:
        def along(direction: Any) -> Any:
            return jax.jvp(slope, (position,), (direction,))[1]

        return jax.lax.map(along, jnp.eye(len(position)), batch_size=DIRECTIONS)

    matrix = np.asarray(remembered_jit(curvature, position)(position))
    curved, directions = np.linalg.eigh((matrix + matrix.T) / 2)
    return (directions / np.maximum(curved, LEAST_CURVED)) @ directions.T


def _troubles(fields: Mapping[str, Any], deepest: int) -> list[str]:
    """What went wrong on the way, in words; ``deepest``: steps after which a trajectory is ended."""
    found = []
    diverging, steps = np.asarray(fields["diverging"]), np.asarray(fields["num_steps"])
    if diverging.sum():
        found.append(
            f"{int(diverging.sum())} of {diverging.size} trajectories diverged: the posterior has corners that were "
            "not reached. Raise n_warmup, take fewer components, or a prior that says more."
        )
    if (cut := float((steps >= deepest).mean())) > CUT_OFF:
        found.append(
            f"{cut:.0%} of the trajectories were cut off at {deepest} steps: the draws are right, but each moves less "
            "than it could. Raise n_warmup and n_draws."
        )
    return found


class Agreement(NamedTuple):
    """Of the number on which chains agree least."""

    label: str
    r_hat: float
    is_fine: bool


def worst_agreement(rows: Mapping[str, Mapping[str, float]], chains: int, draws: int) -> Agreement:
    """The largest R-hat of a summary, and whether it is one of chains that agree; none is NaN, and fine."""
    r_hats = {label: row["r_hat"] for label, row in rows.items() if np.isfinite(row["r_hat"])}
    if not r_hats:
        return Agreement("", float("nan"), True)
    worst = max(r_hats, key=lambda label: r_hats[label])
    limit = disagreement_from(chains, draws, len(r_hats))
    return Agreement(worst, r_hats[worst], r_hats[worst] <= limit)


def agreement(found: Fit) -> Agreement:
    """How far the chains of a fit by NUTS agree; of one chain, its two halves."""
    chains = max(found.chains, 2)
    total = len(next(iter(found.draws.values()))) // chains
    if total < LEAST_OF_R_HAT:
        return Agreement("", float("nan"), True)
    by_chain = {
        n: v[: chains * total].reshape(chains, total, *v.shape[1:]) for n, v in found.draws.items()
    }
    return worst_agreement(summary_table(by_chain), chains, total)


def _disagreement(by_chain: Mapping[str, np.ndarray]) -> list[str]:
    """Do the chains agree, now that they number the components alike, and what are the draws worth?"""
    chains, draws = next(iter(by_chain.values())).shape[:2]
    if chains < 2 or draws < LEAST_OF_R_HAT:
        return []
    rows = summary_table(by_chain)
    found = []
    worst = worst_agreement(rows, chains, draws)
    if not worst.is_fine:
        found.append(
            f"the chains do not agree: R-hat of {worst.label} is {worst.r_hat:.2f}. There may be several modes, whose "
            "weights the averages do not know: take fewer components, a prior that says more, or more draws (n_warmup, "
            "n_draws)."
        )
    few = min(rows, key=lambda label: rows[label]["ess_bulk"])
    if draws >= LEAST_DRAWS and (worth := rows[few]["ess_bulk"]) < FEW * chains:
        found.append(
            f"the draws of {few} are worth {worth:.0f} independent ones; {FEW * chains} are a good minimum for "
            "intervals. Raise n_draws and n_warmup."
        )
    return found
