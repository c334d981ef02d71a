"""`HiddenMarkov`: rows in order, whose component depends on that of the row before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpyro import distributions as dist

from marginax.mixture.estimator import Estimator
from marginax.mixture.family import Family, Parameter
from marginax.mixture.mixture_model import groups_of
from marginax.mixture.model import INITIAL, TRANSITIONS
from marginax.mixture.prediction import Membership


class HiddenMarkov(Estimator):
    """A hidden Markov model of a table: rows are steps in time, components are states.

    Parameters
    ----------
    n_components : int
        How many states.
    components : str, Family or list of (str, str or Family, columns)
        What a row looks like in a state, as of `MixtureModel`.
    method : {"map", "vi", "nuts"}
        As of `GaussianMixture`.
    priors : None, "flat" or dict of str to Distribution
        In place of the defaults: ``initial``, ``transitions`` (rows: from; columns: to), and the families' parameters,
        on the scales that `MixtureModel` says.
    stay_prior : float
        Default prior of each row of the transitions: Dirichlet, 1 for every state and so much more for
        staying where one is.
    n_init, max_iter, n_draws, n_warmup, n_chains, random_state, verbose
        As of `GaussianMixture`.

    Attributes
    ----------
    parameters_, posterior_ : dict of array
        The most probable parameters; the posterior draws, shape (draws, ...).
    lengths_ : tuple of int or None
        How long the series were that it was fitted to; None for one.
    fit_, warnings_, categories_
        As of `MixtureModel`.

    Notes
    -----
    A table is one series, or several one after the other with their ``lengths``, as in hmmlearn. ``predict``
    gives the most probable path of states (Viterbi) for a point estimate, and with a posterior each row's most probable
    state; ``predict_proba`` each state's probability given the whole series; ``score_samples`` the
    log density of each row given those before, which add up to the series'.

    Examples
    --------
    >>> import numpy as np
    >>> from marginax.mixture import HiddenMarkov
    >>> rng = np.random.default_rng(0)
    >>> states = np.repeat([0, 1, 0, 1], 40)
    >>> X = (6.0 * states + rng.normal(size=160))[:, None]
    >>> model = HiddenMarkov(2, random_state=0).fit(X)
    >>> bool((np.diff(model.predict(X)) != 0).sum() == 3)
    True
    """

    _is_chain = True

    def __init__(
        self,
        n_components: int = 1,
        *,
        components: Any = "gaussian",
        method: str = "map",
        priors: Any = None,
        stay_prior: float = 1.0,
        n_init: int = 10,
        max_iter: int = 1000,
        n_draws: int = 1000,
        n_warmup: int = 500,
        n_chains: int = 4,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_components = n_components
        self.components = components
        self.method = method
        self.priors = priors
        self.stay_prior = stay_prior
        self.n_init = n_init
        self.max_iter = max_iter
        self.n_draws = n_draws
        self.n_warmup = n_warmup
        self.n_chains = n_chains
        self.random_state = random_state
        self.verbose = verbose

    def _families(self, names: Sequence[str]) -> list[tuple[str, Family, tuple[int, ...]]]:
        return groups_of(self.components, names)

    def _own_priors(self) -> dict[str, Parameter]:
        stay = self.stay_prior
        if not isinstance(stay, int | float | np.number) or not 0 <= stay < np.inf:
            raise ValueError(f"stay_prior must be a number >= 0, not {stay!r}.")
        count = self.n_components
        rows = np.ones((count, count)) + float(stay) * np.eye(count)
        return {
            INITIAL: Parameter(dist.Dirichlet(np.ones(count))),
            TRANSITIONS: Parameter(dist.Dirichlet(rows).to_event(1)),
        }

    def fit(self, X: Any, y: Any = None, *, lengths: Any = None) -> Any:
        """Fit to one series, or to several one after the other.

        Parameters
        ----------
        X : array or frame, shape (rows, columns)
            Steps in order. Missing cells are summed out.
        y : ignored
        lengths : sequence of int, optional
            How long each series is; they add up to the number of rows.

        Returns
        -------
        self
        """
        del y
        return self._fit(X, lengths)

    def predict(self, X: Any, *, lengths: Any = None) -> np.ndarray:
        """The states of rows: the most probable path, or with a posterior each row's most probable state.

        Parameters
        ----------
        X : array or frame, shape (rows, columns)
        lengths : sequence of int, optional
            As for `fit`.

        Returns
        -------
        array of int, shape (rows,)
        """
        return self._components(X, lengths)

    def fit_predict(self, X: Any, y: Any = None, *, lengths: Any = None) -> np.ndarray:
        """Fit, and the states of rows, as `predict` gives them."""
        return self.fit(X, y, lengths=lengths).predict(X, lengths=lengths)

    def membership(self, X: Any, *, lengths: Any = None) -> Membership:
        """As `GaussianMixture.membership`, of series."""
        return self._membership(X, lengths=lengths)

    def transform(self, X: Any, *, lengths: Any = None) -> np.ndarray:
        """`predict_proba`, for pipelines."""
        return self._membership(X, lengths=lengths).probabilities

    def log_densities(self, X: Any, *, lengths: Any = None) -> np.ndarray:
        """The log density of each row given the rows of its series before it, at each draw, shape (draws, rows)."""
        return self._log_densities(X, lengths)

    def predict_proba(
        self, X: Any, *, lengths: Any = None, return_std: bool = False, as_frame: bool = False
    ) -> Any:
        """The probability of each state at each row, given the whole series; as `GaussianMixture.predict_proba`."""
        return self._probabilities(X, lengths, return_std, as_frame)

    def score_samples(self, X: Any, *, lengths: Any = None) -> np.ndarray:
        """The log density of each row given the rows of its series before it.

        With a posterior it is averaged over the draws, each of which weighs as much as the rows before are likely under
        it; so the sum over a series is the log of the average density of the whole series.

        Parameters
        ----------
        X : array or frame, shape (rows, columns)
        lengths : sequence of int, optional
            As for `fit`.

        Returns
        -------
        array, shape (rows,)
            In nats, in the units of the table.
        """
        return self._membership(X, lengths=lengths).log_density

    def score(self, X: Any, y: Any = None, *, lengths: Any = None) -> float:
        """The mean of `score_samples`."""
        del y
        return float(self.score_samples(X, lengths=lengths).mean())

    def bic(self, X: Any, *, lengths: Any = None) -> float:
        """Bayesian information criterion at the most probable parameters; lower is better."""
        return self._criterion(X, np.log(len(X)), lengths)

    def aic(self, X: Any, *, lengths: Any = None) -> float:
        """Akaike's information criterion at the most probable parameters; lower is better."""
        return self._criterion(X, 2.0, lengths)
