"""Expectation-maximisation: from where a start begins to near its optimum.

A round takes the exact probability of every row's component at the present parameters, and then the parameters that
rows so divided suggest. It solves for each component anew, whatever its shape and the units, so that ten rounds
lead from rough clusters to near an optimum, a way on which gradients are slow; close to the optimum it is the other way
round, and L-BFGS takes over. Two things make it the same for all designs (Dempster, Laird and Rubin, 1977, "Maximum
likelihood from incomplete data via the EM algorithm", Journal of the Royal Statistical Society B 39):

The probabilities are the marginalisation engine's, of a mixture or of a chain.

How often each value of a probability vector is expected to be used, and with a Dirichlet prior what that adds, follows
from the derivative of the log density by the vector. The density is that of the vector divided by its sum, so its
derivative is the uses over the vector, less the number of draws from it. So weights, first states and transitions
need no formulas of their own but that number.

Families say what rows suggest (`Family.start`): for most of them what is most probable, for others moments. With
moments, or a prior of the user's, a round may lose; what is kept of each start is the best of its rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from marginax.compiled import QUICK, remembered_jit
from marginax.infer.progress import progress
from marginax.marginal import marginalize
from marginax.mixture.members import Members
from marginax.mixture.model import COMPONENT, INITIAL, TRANSITIONS, WEIGHTS, Design, Rows

ROUNDS = 100
"""At most."""
GAIN, GAIN_OF_A_ROW = 0.05, 1e-4
"""In nats, whichever is more: when no start gained as much in a round, that was the last."""
STAY = 0.8
"""How likely a state begins to be followed by itself."""
ONE_OF = 1e-3
"""Uses that every value of a probability vector has beside those expected, so that none is lost for ever."""
SMALL = 10**6
"""Numbers of a program; one that handles fewer takes longer to optimise than to run."""


class Improved(NamedTuple):
    """Where the rounds have led."""

    values: dict[str, np.ndarray]
    """Shape (starts, *site_shape): the best parameters of each start."""
    losses: np.ndarray
    """Shape (starts, rounds): the least loss (negative log density of parameters and rows) so far."""


def improved(design: Design, rows: Rows, labels: np.ndarray, show: bool = False) -> Improved:
    """Rounds of expectation-maximisation, of all starts at once.

    Parameters
    ----------
    design : Design
        What is fitted.
    rows : Rows
        The table.
    labels : array of int, shape (starts, rows)
        The component of each row at each start.
    show : bool
        Whether to show progress.
    """
    options = QUICK if labels.size * design.components * rows.cells.shape[1] < SMALL else {}

    def begin(labels: Any) -> Any:
        return jax.vmap(lambda own: beginning(design, rows, own))(labels)

    def round_(values: Any) -> Any:
        return jax.vmap(lambda own: _round(design, rows, own))(values)

    values = remembered_jit(begin, labels, options=QUICK)(labels)
    program = remembered_jit(round_, values, options=options)
    best, losses = values, [np.full(len(labels), np.inf)]
    enough = max(GAIN, GAIN_OF_A_ROW * len(rows.cells))
    with progress("EM", ROUNDS, show) as bar:
        for number in range(ROUNDS):
            following, loss = program(values)
            better = np.asarray(loss) < losses[-1]
            best = {n: _where(better, values[n], v) for n, v in best.items()}
            losses.append(np.where(better, loss, losses[-1]))
            bar.advance(number + 1, f"best loss {losses[-1].min():.6g}")
            # Infinite losses, of starts that never were anywhere, count as standing still.
            if number > 0 and (losses[-1] >= losses[-2] - enough).all():
                break
            values = following
    return Improved({n: np.asarray(v) for n, v in best.items()}, np.stack(losses[1:], axis=1))


def _where(which: np.ndarray, yes: Any, no: Any) -> np.ndarray:
    return np.where(which.reshape(-1, *[1] * (np.ndim(yes) - 1)), yes, no)


def beginning(design: Design, rows: Rows, labels: Any) -> dict[str, Any]:
    """Parameters that rows suggest, shape (rows,) of labels saying which component each belongs to."""
    count = design.components
    shares = jax.nn.one_hot(labels, count)
    found: dict[str, Any] = {}
    evenly = (jnp.sum(shares, 0) + 1) / (len(labels) + count)
    if design.is_chain:
        off = (1 - STAY) / max(count - 1, 1)
        stay = STAY if count > 1 else 1.0
        found[INITIAL] = evenly
        found[TRANSITIONS] = jnp.full((count, count), off) + (stay - off) * jnp.eye(count)
    else:
        found[WEIGHTS] = evenly
    return _supported(design, found | _suggested(design, rows, shares))


def _round(design: Design, rows: Rows, values: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The parameters after a round, and the loss before it."""
    marginal = marginalize(design.model)
    outer = {site: values[site] for site in design.outer}

    def loss(outer: Any) -> Any:
        return -marginal.log_density({**values, **outer}, rows)

    now, slopes = jax.value_and_grad(loss)(outer)
    shares = marginal.posterior(values, rows)[COMPONENT]
    draws = _draws(design, rows, shares)
    found: dict[str, Any] = {}
    for site, value in outer.items():
        used = jnp.maximum(value * (draws[site] - slopes[site]), 0.0) + ONE_OF
        found[site] = used / jnp.sum(used, -1, keepdims=True)
    return _supported(design, found | _suggested(design, rows, shares)), now


def _draws(design: Design, rows: Rows, shares: Any) -> dict[str, Any]:
    """How many components are drawn from each probability vector, as is expected."""
    if not design.is_chain:
        return {WEIGHTS: len(rows.cells)}
    begins = jnp.asarray(rows.begins, shares.dtype).at[0].set(1)
    follows = (1 - begins[1:]) @ shares[:-1]
    return {INITIAL: jnp.sum(begins), TRANSITIONS: follows[:, None]}


def _suggested(design: Design, rows: Rows, shares: Any) -> dict[str, Any]:
    """What rows that belong to the components in part say of the families' parameters."""
    cells = jnp.asarray(rows.cells)
    observed = rows.observed
    present = jnp.ones_like(cells) if observed is None else jnp.asarray(observed, cells.dtype)
    members, found = Members(cells, present, shares), {}
    for group in design.groups:
        own = group.family.start(members.of(np.asarray(group.where)), group.columns)
        found |= {group.site(name): value for name, value in own.items()}
    return found


def _supported(design: Design, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values inside of the supports of priors that the user has stated; a draw of the prior stands for others."""
    found = {}
    for site, value in values.items():
        parameter = design.priors[site]
        if parameter.is_stated:
            support = parameter.prior.support
            while isinstance(support, dist.constraints.independent):
                support = support.base_constraint
            draw = parameter.prior.sample(jax.random.key(0))
            inside = jnp.asarray(support(value))
            more = jnp.ndim(value) - jnp.ndim(inside)
            value = jnp.where(inside.reshape(*jnp.shape(inside), *[1] * more), value, draw)
        found[site] = value
    return found
