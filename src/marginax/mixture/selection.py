"""How many components: the same estimator fitted with several numbers of them, compared.

By PSIS-LOO (Vehtari, Gelman and Gabry, 2017): the expected log density of new rows, estimated from the posterior draws
by leaving out one row after the other, with the memberships summed out; the weights are ArviZ's. Or by BIC, for
point estimates.

The alternative is one fit with more components than needed and a sparse Dirichlet prior on their
weights, which leaves empty what is not needed (Rousseau and Mengersen, 2011); `occupied` counts what is left.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from marginax.mixture.estimator import Estimator
from marginax.mixture.sampling import agreement

SHARED = 10**5
"""Cells of a table; of a smaller one it takes longer to compile a program for each number of components than to run one
that has room for all of them."""
CRITERIA = ("loo", "bic")
RELIABLE = 0.7
"""Pareto k beyond which the weights of a left-out row are not reliable."""
FEW = 0.01
"""Of the rows: a component with a smaller share counts as empty."""


@dataclass(frozen=True)
class Selection:
    """What a comparison has found. ``str`` is its table."""

    criterion: str
    rows: tuple[dict[str, Any], ...]
    """For each number of components what was found."""
    estimators: tuple[Any, ...]
    """Fitted, in the same order."""
    chosen: int
    """Which of them is chosen, counted from 0."""

    @property
    def best(self) -> Any:
        """The fitted estimator that is chosen."""
        return self.estimators[self.chosen]

    @property
    def n_components(self) -> int:
        """How many components it has."""
        return self.rows[self.chosen]["components"]

    def __str__(self) -> str:
        """The table, the chosen row marked."""
        names = [name for name in self.rows[0] if name != "warnings"]
        rows = [names, *([shown(name, row[name]) for name in names] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
            for row in rows
        ]
        marked = self.chosen + 1
        lines = [("* " if n == marked else "  ") + line for n, line in enumerate(lines)]
        lines += [
            f"{row['components']} components: {message}"
            for row in self.rows
            for message in row["warnings"]
        ]
        return "\n".join(lines)

    def plot(self) -> Any:
        """The comparison as a figure.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.add_subplot()
        x = [row["components"] for row in self.rows]
        y = [row[self.criterion] for row in self.rows]
        if self.criterion == "loo":
            axes.errorbar(
                x,
                y,
                [row["loo_difference_se"] for row in self.rows],
                fmt="o-",
                capsize=3,
                color="#1d4ed8",
            )
            axes.set_ylabel("expected log density of new rows (nats)\nhigher is better")
        else:
            axes.plot(x, y, "o-", color="#1d4ed8")
            axes.set_ylabel("BIC, lower is better")
        axes.plot(
            x[self.chosen], y[self.chosen], "o", markersize=14, fillstyle="none", color="#c2410c"
        )
        axes.annotate(
            "chosen",
            (x[self.chosen], y[self.chosen]),
            xytext=(0, 14),
            textcoords="offset points",
            ha="center",
        )
        axes.margins(y=0.2)
        axes.set_xlabel("components")
        axes.set_xticks(x)
        axes.spines[["top", "right"]].set_visible(False)
        return figure


def select(
    X: Any,
    n_components: Iterable[int],
    estimator: Estimator | None = None,
    *,
    criterion: str | None = None,
    progress: Any = None,
    **fit_params: Any,
) -> Selection:
    """Fit with several numbers of components, and choose.

    Parameters
    ----------
    X : array or frame, shape (rows, columns)
        The table.
    n_components : iterable of int
        Such as ``range(1, 11)``.
    estimator : GaussianMixture, MixtureModel or HiddenMarkov, optional
        What is fitted, apart from its number of components; ``GaussianMixture()`` when nothing is said. Its ``n_init``
        is the number of starts of each.
    criterion : {"loo", "bic"}, optional
        PSIS-LOO needs ``method="nuts"`` or ``"vi"``, and is the default there; for point estimates there is BIC.
        By LOO the smallest number is chosen whose difference to the best is within its standard error. Of draws by
        NUTS the table has the largest R-hat of each number, and a posterior that has not converged is not chosen
        without a ``ConvergenceWarning``.
    progress : callable, optional
        Called with the number of components before each fit.
    **fit_params
        For ``fit``: ``lengths``.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        For a criterion that does not fit the estimator's method.

    Examples
    --------
    >>> import numpy as np
    >>> from marginax.mixture import GaussianMixture, select
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(m, 1.0, (50, 1)) for m in (0.0, 8.0)])
    >>> select(X, [1, 2, 3], GaussianMixture(random_state=0)).n_components
    2
    """
    if estimator is None:
        from marginax.mixture.gaussian_mixture import GaussianMixture

        estimator = GaussianMixture()
    numbers = list(n_components)
    if not numbers:
        raise ValueError("select: n_components is empty; give for example range(1, 11).")
    has_draws = estimator.method != "map"
    criterion = criterion or ("loo" if has_draws and not estimator._is_chain else "bic")
    if criterion not in CRITERIA:
        raise ValueError(f"select: criterion must be one of {CRITERIA}, not {criterion!r}.")
    if criterion == "loo" and not has_draws:
        raise ValueError(
            "select: PSIS-LOO needs posterior draws; give the estimator method='nuts' or 'vi', or take criterion='bic'."
        )
    if criterion == "loo" and estimator._is_chain:
        raise ValueError(
            "select: the rows of a hidden Markov model are not left out one by one, as each depends on those before; "
            "take criterion='bic'."
        )
    rows, fitted, pointwise, agreements = [], [], [], []
    for number in numbers:
        if progress is not None:
            progress(number)
        one: Any = clone(estimator)
        one.set_params(n_components=number)
        if np.size(X) < SHARED:
            one._room = max(numbers)
        one.fit(X, **fit_params)
        found: dict[str, Any] = {"components": number, "parameters": one.n_parameters_}
        if criterion == "loo":
            each, pareto = leave_one_out(one, X)
            pointwise.append(each)
            found |= {"loo": float(each.sum()), "unreliable_rows": int((pareto > RELIABLE).sum())}
            if one.method == "nuts":
                agreements.append(agreement(one.fit_))
                found["r_hat"] = agreements[-1].r_hat
        found["bic"] = one.bic(X, **fit_params)
        rows.append(found | {"warnings": one.warnings_})
        fitted.append(one)
    if criterion == "bic":
        chosen = int(np.argmin([row["bic"] for row in rows]))
    else:
        chosen = _parsimonious(rows, np.stack(pointwise))
    if agreements and not agreements[chosen].is_fine:
        worst = agreements[chosen]
        warnings.warn(
            f"the posterior of the {numbers[chosen]} components that LOO chooses has not converged: R-hat of "
            f"{worst.label} is {worst.r_hat:.2f}. Its draws are not those of the posterior, and the comparison may be "
            "another with more of them. Raise n_warmup and n_draws.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return Selection(criterion, tuple(rows), tuple(fitted), chosen)


def leave_one_out(estimator: Estimator, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log density of each row, left out of the fit (PSIS-LOO), and its Pareto k, both of shape (rows,).

    The draws of ``method="vi"`` are taken for draws from the posterior.
    """
    from arviz_stats.base.array import array_stats

    stats: Any = array_stats
    log_density = estimator.log_densities(X)
    each, pareto, _ = stats.loo(log_density.T, chain_axis=None, draw_axis=-1)
    return np.asarray(each), np.asarray(pareto)


def occupied(estimator: Estimator, X: Any, share: float = FEW, **series: Any) -> int:
    """How many components have rows, for a fit with a sparse prior and more components than needed.

    Parameters
    ----------
    estimator : Estimator
        Fitted, say ``GaussianMixture(10, method="nuts", weight_concentration_prior=0.1)``.
    X : array or frame, shape (rows, columns)
        The table.
    share : float
        Components whose expected share of the rows is smaller are empty.
    **series
        Of a hidden Markov model: ``lengths``.
    """
    return int((estimator.membership(X, **series).probabilities.mean(0) >= share).sum())


def _parsimonious(rows: list[dict[str, Any]], pointwise: np.ndarray) -> int:
    """The smallest number whose difference to the best is within a standard error of that difference."""
    totals = pointwise.sum(1)
    best = int(totals.argmax())
    difference = pointwise[best] - pointwise
    errors = np.sqrt(difference.shape[1] * difference.var(axis=1))
    for row, off, error in zip(rows, difference.sum(1), errors, strict=True):
        row["loo_difference"], row["loo_difference_se"] = float(off), float(error)
    allowed = [n for n in range(len(rows)) if totals[best] - totals[n] <= errors[n]]
    return min(allowed, key=lambda n: rows[n]["components"])


def shown(name: str, value: Any) -> str:
    """An entry of the table in print."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if name == "r_hat" else f"{value:.1f}"
