"""The steps of the tutorial, each a function from what came before to a record of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from marginax.infer import SVI, SVIRunResult, TraceEnum_ELBO, infer_discrete
from marginax.infer.autoguide import AutoDelta
from marginax.infer.draws.summary import summary_table
from marginax.infer.mcmc import MCMC, NUTS
from marginax.language import handlers
from marginax.marginal.facade import marginalize
from marginax.tutorial.mixture import DATA, membership_guide, model, plausible_start

RESTARTS, STEPS = 100, 200
WARMUP, DRAWS = 50, 250
CERTAIN = 0.99  # a point is in a component if that is at least so probable
GRID = np.arange(-3.0, 15.0, 0.1)

MODES = {
    "low first": "component 0 has the points 0 and 1, component 1 the others",
    "high first": "component 1 has the points 0 and 1, component 0 the others",
    "one cluster": "one wide component has all five points, the other is free",
    "in between": "some point could be in either component",
}


@dataclass(frozen=True)
class Fit:
    """Training a MAP estimate."""

    guide: AutoDelta
    result: SVIRunResult
    estimates: dict[str, np.ndarray]
    initial_loss: float
    loss: float


@dataclass(frozen=True)
class Served:
    """The trained model as a classifier."""

    assignment: np.ndarray
    """MAP assignment of the data, shape (5,)."""
    membership: np.ndarray
    """Exact membership probabilities of the data, shape (5, 2)."""
    grid_assignment: np.ndarray
    """MAP assignment of the grid, shape (180,)."""
    random_assignment: np.ndarray
    """One random posterior assignment of the data, shape (5,)."""
    boundary: float
    """Where the two components are equally likely."""
    zoom: np.ndarray
    """Points around the boundary, shape (100,)."""
    zoom_assignment: np.ndarray
    """A random posterior assignment of those, shape (100,)."""
    zoom_membership: np.ndarray
    """Exact probability of component 1 there, shape (100,)."""


@dataclass(frozen=True)
class Guided:
    """The second guide, which enumerates the assignment."""

    result: SVIRunResult
    probs: np.ndarray
    """``assignment_probs``, shape (5, 2)."""
    loss: float


@dataclass(frozen=True)
class Explored:
    """Collapsed NUTS."""

    draws: dict[str, np.ndarray]
    """Draws by site, each of shape (250, ...)."""
    mode_of_draw: np.ndarray
    """Which of `MODES` each draw is in, shape (250,)."""
    shares: dict[str, float]
    """Share of the draws in each mode."""
    locs_mean: np.ndarray
    """Mean centres over the draws with two clusters, the low one first, shape (2,)."""
    scale_mean: float
    """Mean scale over the same draws."""
    divergences: int
    summary: dict[str, dict[str, float]]


def train(seed: int) -> Fit:
    """Choose the best of 100 random initialisations, then take 200 Adam steps."""
    guide = AutoDelta(model, init_loc_fn=plausible_start)
    svi = SVI(model, guide, optax.adam(0.1, b1=0.8, b2=0.99), TraceEnum_ELBO())
    result = svi.run(
        jax.random.key(seed),
        STEPS,
        DATA,
        num_restarts=RESTARTS,
        select="initial",
        tolerance=0,
    )
    estimates = {name: np.asarray(v) for name, v in guide.median(result.params).items()}
    loss = float(jax.jit(svi.evaluate)(result.state, DATA))
    return Fit(guide, result, estimates, float(result.losses[0]), loss)


def serve(fit: Fit, seed: int) -> Served:
    """Predict memberships with `infer_discrete`, on the data and on new points."""
    with handlers.trace() as recorded, handlers.substitute(data=fit.result.params):
        fit.guide(DATA)
    trained = handlers.replay(model, trace=recorded)
    keys = jax.random.split(jax.random.key(seed + 1), 2)

    def classify(data: Array, temperature: int = 0, key: Any = None) -> np.ndarray:
        inferred = infer_discrete(trained, temperature=temperature, rng_key=key)
        return np.asarray(handlers.trace(inferred).get_trace(data)["assignment"]["value"])

    marginal = marginalize(model)
    estimates: Mapping[str, Any] = fit.estimates
    boundary = _boundary(fit.estimates)
    zoom = boundary + np.arange(-0.25, 0.25, 0.005)
    return Served(
        assignment=classify(DATA),
        membership=np.asarray(marginal.posterior(estimates, DATA)["assignment"]),
        grid_assignment=classify(jnp.asarray(GRID)),
        random_assignment=classify(DATA, temperature=1, key=keys[0]),
        boundary=boundary,
        zoom=zoom,
        zoom_assignment=classify(jnp.asarray(zoom), temperature=1, key=keys[1]),
        zoom_membership=np.asarray(
            marginal.posterior(estimates, jnp.asarray(zoom))["assignment"][:, 1]
        ),
    )


def _boundary(estimates: Mapping[str, np.ndarray]) -> float:
    """Two Gaussians of one scale, weighted: log odds are linear, and zero at one point."""
    (w0, w1), (m0, m1) = estimates["weights"], estimates["locs"]
    odds = np.log(w0 / w1) * estimates["scale"] ** 2
    return float((m0 + m1) / 2 + odds / (m1 - m0))


def train_membership(fit: Fit, seed: int) -> Guided:
    """Fit a guide that enumerates ``assignment``, with the global parameters held fast."""
    guide = membership_guide(fit.guide, fit.result.params)
    svi = SVI(model, guide, optax.adam(0.2, b1=0.8, b2=0.99), TraceEnum_ELBO())
    result = svi.run(jax.random.key(seed + 2), STEPS, DATA, tolerance=0)
    loss = float(jax.jit(svi.evaluate)(result.state, DATA))
    return Guided(result, np.asarray(result.params["assignment_probs"]), loss)


def explore(seed: int) -> Explored:
    """Sample the global parameters with NUTS, the assignment summed out."""
    mcmc = MCMC(NUTS(model), num_warmup=WARMUP, num_samples=DRAWS)
    mcmc.run(jax.random.key(seed + 3), DATA)
    draws = {name: np.asarray(v) for name, v in mcmc.get_samples().items()}
    by_chain = {name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()}
    modes = _modes(draws)
    shares = {mode: float(np.mean(modes == mode)) for mode in MODES}
    split = np.isin(modes, ["low first", "high first"])
    # A chain that never finds two clusters has nothing to average there; JSON says null.
    locs = np.sort(draws["locs"][split], axis=1)
    return Explored(
        draws,
        modes,
        shares,
        locs.mean(axis=0) if split.any() else np.full(2, np.nan),
        float(draws["scale"][split].mean()) if split.any() else float("nan"),
        int(mcmc.get_extra_fields()["diverging"].sum()),
        summary_table(by_chain),
    )


def _modes(draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which mode each draw is in, told by its own membership probabilities of the five points."""
    memberships = jax.jit(
        jax.vmap(lambda params: marginalize(model).posterior(params, DATA)["assignment"])
    )
    probs = np.asarray(memberships({name: jnp.asarray(v) for name, v in draws.items()}))
    best, certain = probs.argmax(-1), (probs.max(-1) >= CERTAIN).all(-1)
    low_first = (best == [0, 0, 1, 1, 1]).all(-1) & certain
    high_first = (best == [1, 1, 0, 0, 0]).all(-1) & certain
    alone = (best == best[:, :1]).all(-1)
    return np.select(
        [low_first, high_first, alone], ["low first", "high first", "one cluster"], "in between"
    )
