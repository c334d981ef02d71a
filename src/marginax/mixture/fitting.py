"""Fit a design to a table: the most probable parameters, and then perhaps their posterior.

Whatever is asked for, the first step is the MAP, from several starts, by expectation-maximisation and then L-BFGS.
Variational inference and NUTS begin there. Everything is computed in double precision, as users of scikit-learn expect,
on whatever setting JAX has.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro import distributions as dist
from scipy.optimize import linear_sum_assignment

from marginax.infer import SVI, TraceEnum_ELBO, init_to_value
from marginax.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from marginax.infer.summary import summary_table
from marginax.infer.svi.components import component_use
from marginax.infer.svi.restarts import Restarts, ranked
from marginax.mixture.conditioning import conditioned
from marginax.mixture.maximization import improved
from marginax.mixture.model import (
    INITIAL,
    TRANSITIONS,
    WEIGHTS,
    Design,
    Rows,
    in_the_long_run,
)
from marginax.mixture.modes import unbounded, with_modes
from marginax.mixture.starts import starting_labels

METHODS = ("map", "vi", "nuts")
MANY = 10**6
"""Numbers that L-BFGS handles for all starts at once at most; for more, the best start alone."""
MOST_CORRELATED = 150
"""Up to so many numbers the variational posterior is a normal with any covariance; beyond, they are independent."""
STEPS_OF_VI = 3000
TOLERANCE, TOLERANCE_OF_A_ROW = 1e-3, 1e-5
"""In nats, whichever of them is more: less than this does the loss change where starts have converged."""
NEARLY = 0.05
"""In nats: less than this over the last twentieth of its steps is no reason for a warning, if other starts go on."""
EMPTY = 0.5
"""Expected rows of a component that has none."""
DISAGREE = 1.05
"""R-hat from which on chains do not agree."""
FEW = 100
"""Effective draws of each chain that make the end of an interval trustworthy (Vehtari et al., 2021)."""
LEAST_DRAWS = 100
"""Fewer draws of each chain than this say too little about it."""
DEEPEST = 2**10 - 1
"""Steps after which NUTS ends a trajectory."""
CUT_OFF = 0.01
"""Part of the trajectories that may end so without a word."""
FEW_DRAWS = 8
"""Of a prior, to see whether it has a preference."""
LEAST_SHARE = 0.01
"""Of all components together, at least, where sampling begins."""
APART = 0.1
"""How far from the MAP the chains of NUTS begin, in unconstrained numbers."""


@dataclass(frozen=True)
class Settings:
    """How to fit."""

    method: str = "map"
    starts: int = 10
    max_iter: int = 1000
    draws: int = 1000
    warmup: int = 500
    chains: int = 4
    seed: int = 0
    progress: bool = False


@dataclass(frozen=True)
class Fit:
    """What a fit has found. Parameters are those of standardised columns, by site."""

    point: Mapping[str, np.ndarray]
    """The most probable ones."""
    draws: Mapping[str, np.ndarray]
    """Shape (draws, ...): of the posterior; one, the point, where only that was asked for."""
    losses: np.ndarray
    """The loss (negative log density of parameters and rows) of the best start at each step."""
    gradient_norms: Mapping[str, np.ndarray]
    restarts: str
    """What the starts say together, in words."""
    chains: int = 1
    """Of the draws, which follow each other chain by chain."""
    warnings: tuple[str, ...] = ()
    """What is amiss, in words."""
    relabelled: str = ""
    """What was done about draws that number the components differently."""


def fit(design: Design, rows: Rows, settings: Settings) -> Fit:
    """Fit.

    Parameters
    ----------
    design : Design
        What is fitted.
    rows : Rows
        The table.
    settings : Settings
        How.

    Returns
    -------
    Fit
        Its warnings have not been shown.
    """
    with jax.enable_x64(True):
        rows = jax.tree.map(jnp.asarray, rows)
        found = _most_probable(design, rows, settings)
        if settings.method == "vi":
            found = _variational(design, rows, settings, found)
        elif settings.method == "nuts":
            found = _sampled(design, rows, settings, found)
        return _numbered(design, found)


@contextmanager
def _heard() -> Iterator[list[Any]]:
    """Collect the library's warnings, which go into the result."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("ignore")
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("always", category)
        yield heard


def _inside(point: Mapping[str, np.ndarray], design: Design) -> dict[str, np.ndarray]:
    """Where sampling begins: at the optimum, but for shares of zero, which a sampler could not leave."""
    found = {}
    for site, value in point.items():
        if _support(design, site).event_dim == 1 and np.allclose(value.sum(-1), 1.0):
            value = (value + LEAST_SHARE / value.shape[-1]) / (1 + LEAST_SHARE)
        found[site] = value
    return found


def _most_probable(design: Design, rows: Rows, settings: Settings) -> Fit:
    """Starts by k-means, brought near their optima by expectation-maximisation, there by L-BFGS.

    Of a large table only the best of them goes the last part of the way.
    """
    searched = with_modes(design)
    cells, observed = np.asarray(rows.cells), rows.observed
    labels = starting_labels(
        design,
        cells,
        None if observed is None else np.asarray(observed),
        settings.starts,
        settings.seed,
    )
    near = improved(searched, rows, labels, settings.progress)
    ends, values = ranked(near.losses), near.values
    last = settings.starts if cells.size * settings.starts * design.components <= MANY else 1
    if last == 1:
        values = {name: value[ends.best] for name, value in values.items()}
    guide = AutoDelta(searched.model)
    optimiser = conditioned(optax.lbfgs(), searched, rows, last, "_auto_loc")
    with _heard():  # what it would say is said below, in this package's words
        result = SVI(searched.model, guide, optimiser, TraceEnum_ELBO()).run(
            jax.random.key(settings.seed),
            settings.max_iter,
            rows,
            num_restarts=last,
            init_params={f"{name}_auto_loc": value for name, value in values.items()},
            progress_bar=settings.progress,
            tolerance=max(TOLERANCE, TOLERANCE_OF_A_ROW * len(cells)),
        )
    _refuse_half_done(result)
    point = {n: np.asarray(v) for n, v in guide.median(result.params).items()}
    norms = {n.removesuffix("_auto_loc"): v for n, v in result.gradient_norms.items()}
    if result.restarts is not None:
        ends = result.restarts
    used = result.component_use or component_use(
        searched.model, guide, result.params, jax.random.key(settings.seed), (rows,), {}
    )
    said = [*_doubts(result, ends, used, settings), *_changed_priors(design, settings)]
    restarts = str(ends) if settings.starts > 1 else ""
    return Fit(point, _as_one_draw(point), result.losses, norms, restarts, warnings=tuple(said))


def _refuse_half_done(result: Any) -> None:
    """`SVI.run` keeps what it has when it is interrupted; an estimator that looks fitted and is not would be a lie."""
    if result.stopped == "interrupted":
        raise KeyboardInterrupt


def _doubts(
    result: Any, ends: Restarts, used: Mapping[str, Any], settings: Settings
) -> Iterator[str]:
    """What may be wrong with an optimum, in words."""
    late = result.losses[-max(len(result.losses) // 20, 2) :]
    if result.stopped == "num_steps" and late[0] - late[-1] > NEARLY:
        yield f"the fit has not converged in {settings.max_iter} iterations; raise max_iter."
    if 2 * ends.num_reached_best < len(ends.final):
        yield (
            f"only {ends.num_reached_best} of {len(ends.final)} starts reached the best optimum found, so that "
            "there may be a better one; raise n_init, or take fewer components."
        )
    for counts in used.values():
        if (empty := int((np.asarray(counts) < EMPTY).sum())) > 0:
            yield f"{empty} of the {len(counts)} components have no rows; take fewer components."


def _changed_priors(design: Design, settings: Settings) -> Iterator[str]:
    """The most probable parameters are the result only of the method that has no posterior."""
    if settings.method == "map" and (sites := unbounded(design)):
        yield (
            f"the prior of {' and '.join(sites)} is infinite at the edge of its range, where the most probable value "
            "would always be; its concentrations below 1 were taken as 1. Methods 'vi' and 'nuts' use the prior as it "
            "is."
        )


def _as_one_draw(point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value[None] for name, value in point.items()}


def _variational(design: Design, rows: Rows, settings: Settings, found: Fit) -> Fit:
    size = sum(value.size for value in found.point.values())
    kind = AutoMultivariateNormal if size <= MOST_CORRELATED else AutoNormal
    guide = kind(
        design.model,
        init_loc_fn=init_to_value(values=_inside(found.point, design)),
        init_scale=0.05,
    )
    optim = optax.adam(optax.cosine_decay_schedule(0.02, STEPS_OF_VI))
    svi = SVI(design.model, guide, optim, TraceEnum_ELBO(num_particles=4))
    key, draw_key = jax.random.split(jax.random.key(settings.seed))
    result = svi.run(key, STEPS_OF_VI, rows, progress_bar=settings.progress)
    _refuse_half_done(result)
    draws = guide.sample_posterior(draw_key, result.params, rows, sample_shape=(settings.draws,))
    kept = {name: np.asarray(draws[name]) for name in found.point}
    return replace(found, draws=kept)


def _sampled(design: Design, rows: Rows, settings: Settings, found: Fit) -> Fit:
    from marginax.infer import MCMC, NUTS

    rng = np.random.default_rng(settings.seed)
    begin = {}
    for name, value in _inside(found.point, design).items():
        free = np.asarray(dist.biject_to(_support(design, name)).inv(jnp.asarray(value)))
        begin[name] = free + APART * rng.normal(size=(settings.chains, *free.shape))
    mcmc = MCMC(
        NUTS(design.model),
        num_warmup=settings.warmup,
        num_samples=settings.draws,
        num_chains=settings.chains,
        progress_bar=settings.progress,
    )
    init_params = begin if settings.chains > 1 else {n: v[0] for n, v in begin.items()}
    with _heard() as heard:
        mcmc.run(jax.random.key(settings.seed), rows, init_params=init_params)
    # What advises options that there are not here is said in other words.
    known = ("R-hat", "max_tree_depth", "diverge", "effective draws")
    said = [m for m in (str(w.message) for w in heard) if not any(word in m for word in known)]
    said += _troubles(mcmc.get_extra_fields())
    relabelled = ""
    by_chain = {n: np.asarray(v) for n, v in mcmc.get_samples(group_by_chain=True).items()}
    if design.components > 1 and is_exchangeable(design):
        from marginax.infer import relabel

        renamed = relabel(
            design.model,
            by_chain,
            rows,
            plate="components",
            axes=_numbered_axes(design),
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


def _troubles(fields: Mapping[str, Any]) -> list[str]:
    """What went wrong on the way, in words."""
    found = []
    diverging, steps = np.asarray(fields["diverging"]), np.asarray(fields["num_steps"])
    if diverging.sum():
        found.append(
            f"{int(diverging.sum())} of {diverging.size} trajectories diverged: the posterior has corners that were "
            "not reached. Raise n_warmup, take fewer components, or a prior that says more."
        )
    if (cut := float((steps >= DEEPEST).mean())) > CUT_OFF:
        found.append(
            f"{cut:.0%} of the trajectories were cut off at {DEEPEST} steps: the draws are right, but each moves less "
            "than it could. Raise n_warmup and n_draws."
        )
    return found


def _disagreement(by_chain: Mapping[str, np.ndarray]) -> list[str]:
    """Do the chains agree, now that they number the components alike, and what are the draws worth?"""
    chains, draws = next(iter(by_chain.values())).shape[:2]
    if chains < 2 or draws < LEAST_DRAWS:
        return []
    rows = summary_table(by_chain)
    found = []
    r_hats = {label: row["r_hat"] for label, row in rows.items() if np.isfinite(row["r_hat"])}
    worst = max(r_hats, key=lambda label: r_hats[label], default=None)
    if worst is not None and r_hats[worst] > DISAGREE:
        found.append(
            f"the chains do not agree: R-hat of {worst} is {r_hats[worst]:.2f}. There may be several modes, whose "
            "weights the averages do not know: take fewer components, a prior that says more, or more draws (n_warmup, "
            "n_draws)."
        )
    few = min(rows, key=lambda label: rows[label]["ess_bulk"])
    if (worth := rows[few]["ess_bulk"]) < FEW * chains:
        found.append(
            f"the draws of {few} are worth {worth:.0f} independent ones; {FEW * chains} are a good minimum for "
            "intervals. Raise n_draws and n_warmup."
        )
    return found


def _support(design: Design, name: str) -> Any:
    return design.priors[name].prior.support


def _numbered_axes(design: Design) -> dict[str, int | tuple[int, ...]]:
    """Of sites outside of the components' plate, the axes that are numbered by component."""
    if design.is_chain:
        return {INITIAL: -1, TRANSITIONS: (-2, -1)}
    return {WEIGHTS: -1}


def _numbered(design: Design, found: Fit) -> Fit:
    """Components numbered by falling weight, alike at the point and in the draws; not if priors tell them apart."""
    if not is_exchangeable(design):
        return found
    order = np.argsort(-_shares(design, found.draws).mean(0), kind="stable")
    found = replace(found, draws=renumbered(design, found.draws, order, 1))
    order = _matched(design, found) if found.relabelled else order
    return replace(found, point=renumbered(design, found.point, order, 0))


def _shares(design: Design, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """How much of the rows each component has, of a chain in the long run."""
    return in_the_long_run(values[TRANSITIONS]) if design.is_chain else values[WEIGHTS]


def is_exchangeable(design: Design) -> bool:
    """Whether the components may be numbered in any way, as far as the priors know.

    Parameters of one component have one prior for all; what says which component may prefer some of them. A swap of two
    and a shift of all generate every renumbering.
    """
    if design.components == 1:
        return True
    count = np.arange(design.components)
    swap = np.concatenate([[1, 0], count[2:]])
    for site in design.outer:
        prior = design.priors[site].prior
        if isinstance(prior, dist.ImproperUniform):
            continue
        draws = {site: np.asarray(prior.sample(jax.random.key(0), (FEW_DRAWS,)))}
        before = prior.log_prob(draws[site])
        for order in (swap, np.roll(count, 1)):
            after = prior.log_prob(renumbered(design, draws, order, 1)[site])
            if not np.allclose(before, after, rtol=1e-5, atol=1e-5):
                return False
    return True


def _matched(design: Design, found: Fit) -> np.ndarray:
    """For each component of the draws, the one of the point that is nearest, each taken once."""
    count = design.components
    distances = np.zeros((count, count))
    for name, draws in found.draws.items():
        if name in design.outer or design.priors[name].is_shared:
            continue
        mean, spread = draws.mean(0), draws.std(0)
        off = (mean[:, None] - found.point[name][None]) / np.where(spread > 0, spread, 1.0)[:, None]
        distances += (off**2).reshape(count, count, -1).sum(-1)
    return linear_sum_assignment(distances)[1]


def renumbered(
    design: Design, values: Mapping[str, np.ndarray], order: np.ndarray, leading: int
) -> dict[str, np.ndarray]:
    """Parameters with component ``order[k]`` as number k; ``leading`` dimensions go before."""
    found = {}
    for name, value in values.items():
        axes = _numbered_axes(design).get(name, ())
        for axis in (axes,) if isinstance(axes, int) else axes:
            value = np.take(value, order, axis)
        if name not in _numbered_axes(design) and not design.priors[name].is_shared:
            value = np.take(value, order, leading)
        found[name] = value
    return found
