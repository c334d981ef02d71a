"""What can be wrong with draws, in words that say what to do.

Divergences and trajectories that were cut off are counted. Whether chains agree is R-hat, and how much their
draws are worth the effective sample size (Vehtari et al., 2021, "Rank-normalization, folding, and
localization"); how well momenta serve to explore the tails is E-BFMI (Betancourt, 2016). These are ArviZ's.

Chains that disagree are sorted into groups that agree among themselves. Several groups of several
chains are several modes, which the chains do not change between: then no summary over all chains means
anything, and the message says where each group is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marginax.infer.draws.summary import LEAST_OF_R_HAT, disagreement_from
from marginax.infer.mcmc.draws import SAMPLES, Stored
from marginax.infer.mcmc.kernels import NUTS, Kernel

Arrays = Mapping[str, np.ndarray]

APART = 1.5
"""R-hat of two chains from which on they are in different places."""
LOW_BFMI = 0.3
FEW = 100
"""Effective draws per chain that make an estimate of an interval's end trustworthy (Vehtari et al., 2021)."""
CUT_OFF = 0.01
"""Part of the trajectories that may be cut off at the greatest depth without a warning."""
LEAST_DRAWS = 100
"""Of fewer draws of each chain than this effective sizes and E-BFMI are not judged: they would say little."""
MOST_SCALARS = 1000
MOST_NUMBERS = 2**24
"""Of more scalars, or more draws of them than this, only some scalars are looked at, evenly spread."""


@dataclass(frozen=True)
class Diagnostics:
    """What was found."""

    counts: str
    """Divergences and E-BFMI, in one line."""
    warnings: tuple[str, ...]
    """What is amiss and what to do."""

    def lines(self) -> list[str]:
        """To be printed."""
        return [self.counts, *(f"warning: {warning}" for warning in self.warnings)]


def nothing_of_labels() -> str:
    """Where it is not known whether labels can be exchanged."""
    return ""


def diagnostics(
    stored: Stored,
    latent: Sequence[str],
    divergences: int,
    kernel: Kernel,
    of_labels: Callable[[], str] = nothing_of_labels,
) -> Diagnostics:
    """Look at draws.

    Parameters
    ----------
    stored : Stored
        The draws, and what the sampler reported.
    latent : sequence of str
        The continuous latent sites.
    divergences : int
        Of all transitions after warm-up, also those that were thinned out.
    kernel : Kernel
        The sampler.
    of_labels : callable, optional
        A sentence on whether chains in different places may differ in the labels of components; asked for if there are
        such.
    """
    fields = stored.fields()
    found = _counted(fields, divergences, kernel)
    energy = np.asarray(fields["energy"], np.float64)
    chains, draws = energy.shape
    counts = f"divergences: {divergences}"
    if draws >= 4:
        fractions = _bfmi(energy)
        counts += f", E-BFMI: {', '.join(f'{value:.2f}' for value in fractions)}"
        low = [str(chain) for chain in np.flatnonzero(fractions < LOW_BFMI)]
        if low and draws >= LEAST_DRAWS:
            found.append(
                f"E-BFMI is below {LOW_BFMI} in chain {', '.join(low)}: the chain explores the tails slowly. "
                "Reparameterise sites whose scale depends on another site, or draw for longer."
            )
    if chains > 1 and draws >= LEAST_OF_R_HAT:
        found += _agreement(stored, latent, fields, of_labels)
    return Diagnostics(counts, tuple(found))


def warn_after(
    stored: Stored,
    latent: Sequence[str],
    divergences: int,
    kernel: Kernel,
    of_labels: Callable[[], str] = nothing_of_labels,
) -> None:
    """Warn of what is amiss after a run: of one chain, what can be counted; of several, whether they agree."""
    fields = stored.fields()
    if fields["energy"].shape[0] > 1:
        found = diagnostics(stored, latent, divergences, kernel, of_labels).warnings
    else:
        # ArviZ is not asked: to import it would take as long as a short run.
        found = _counted(fields, divergences, kernel)
    for warning in found:
        warnings.warn(warning, RuntimeWarning, stacklevel=3)


def _counted(fields: Arrays, divergences: int, kernel: Kernel) -> list[str]:
    found = []
    if divergences:
        plural = "s" if divergences > 1 else ""
        found.append(
            f"{divergences} transition{plural} after warm-up diverged: the draws may miss part of the posterior. "
            f"Raise target_accept_prob of {type(kernel).__name__} (now {kernel.target_accept_prob}), warm up for "
            "longer, or reparameterise the model."
        )
    if isinstance(kernel, NUTS):
        cut_off = float((np.asarray(fields["tree_depth"]) >= kernel.max_tree_depth).mean())
        if cut_off > CUT_OFF:
            found.append(
                f"{cut_off:.0%} of the trajectories were cut off at max_tree_depth={kernel.max_tree_depth}: the "
                "draws are right, but each moves less than it could. Warm up for longer, try "
                "dense_mass=True, or raise max_tree_depth."
            )
    return found


def _agreement(
    stored: Stored, latent: Sequence[str], fields: Arrays, of_labels: Callable[[], str]
) -> list[str]:
    labels, scalars = _scalars(stored, latent, chains=len(fields["energy"]))
    if not labels:
        return []
    r_hat, ess = _r_hat(scalars), _ess(scalars)
    chains, draws = scalars.shape[:2]
    found = []
    worst = int(np.nanargmax(r_hat)) if np.isfinite(r_hat).any() else 0
    if r_hat[worst] > disagreement_from(chains, draws, len(labels)):
        of_worst = scalars[..., worst]
        found.append(_disagreement(labels[worst], r_hat[worst], of_worst, fields, of_labels))
    few = int(np.nanargmin(ess)) if np.isfinite(ess).any() else 0
    if draws >= LEAST_DRAWS and ess[few] < FEW * chains and not found:
        found.append(
            f"{labels[few]} has {ess[few]:.0f} effective draws of {scalars[..., 0].size}; {FEW * chains} are a good "
            "minimum for intervals. Draw for longer, warm up for longer, or try dense_mass=True."
        )
    return found


def _disagreement(
    label: str, r_hat: float, draws: np.ndarray, fields: Arrays, of_labels: Callable[[], str]
) -> str:
    # Of a few draws two chains may seem apart by chance.
    groups = groups_of_chains(draws) if draws.shape[1] >= LEAST_DRAWS else [[*range(len(draws))]]
    beginning = f"the chains do not agree: R-hat of {label} is {r_hat:.2f}"
    if len(groups) == 1 or len(groups) == len(draws) > 2:
        return f"{beginning}. Warm up and draw for longer; if that does not help, look at the chains one by one."
    energy = np.asarray(fields["potential_energy"], np.float64)
    places = "; ".join(
        f"chain{'s' if len(group) > 1 else ''} {', '.join(map(str, group))} around {draws[group].mean():.3g} "
        f"(average log density {-energy[group].mean():.4g})"
        for group in groups
    )
    return (
        f"{beginning}, for they are in {len(groups)} different places (modes): {places}. Averages over all of "
        f"them mean nothing. {of_labels()}Modes that differ have unknown weights: begin all chains at a good fit "
        "(init_to_value), or make the prior say which is meant."
    )


def groups_of_chains(draws: np.ndarray) -> list[list[int]]:
    """Chains that are in the same place.

    Parameters
    ----------
    draws : array, shape (chains, draws)
        Of one scalar.

    Returns
    -------
    list of lists of int
        Two chains whose common R-hat is below `APART` are in one group, and so is whatever is linked by such.
    """
    groups: list[list[int]] = []
    for chain in range(len(draws)):
        near = [g for g in groups if any(_two(draws[[chain, other]]) < APART for other in g)]
        groups = [g for g in groups if g not in near]
        groups.append(sorted([chain, *(member for g in near for member in g)]))
    return sorted(groups)


def _two(pair: np.ndarray) -> float:
    return float(_r_hat(pair[..., None])[0])


def _scalars(stored: Stored, latent: Sequence[str], chains: int) -> tuple[list[str], np.ndarray]:
    """Labels and draws, shape (chains, draws, scalars), of scalars that vary."""
    every = [(name, index) for name in latent for index in np.ndindex(stored.shape(name))]
    most = max(1, min(MOST_SCALARS, MOST_NUMBERS // (chains * stored.count)))
    chosen = np.unique(np.linspace(0, len(every) - 1, most).astype(int)) if every else []
    labels, columns = [], []
    for name, index in (every[i] for i in chosen):
        column = np.asarray(stored.read(SAMPLES, name, index), np.float64)
        if column.std() > 0:
            labels.append(f"{name}[{','.join(map(str, index))}]" if index else name)
            columns.append(column)
    return labels, np.stack(columns, axis=-1) if columns else np.zeros((0, 0, 0))


def _statistics() -> Any:
    from arviz_stats.base.array import array_stats

    return array_stats


def _r_hat(draws: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.atleast_1d(_statistics().rhat(draws, chain_axis=0, draw_axis=1))


def _ess(draws: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.atleast_1d(_statistics().ess(draws, chain_axis=0, draw_axis=1, method="bulk"))


def _bfmi(energy: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.atleast_1d(_statistics().bfmi(energy, chain_axis=0, draw_axis=1))
