"""`GaussianMixture`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpyro import distributions as dist

from marginax.mixture.estimator import Estimator
from marginax.mixture.families import Normal
from marginax.mixture.family import Family, Parameter
from marginax.mixture.gaussian import Gaussian
from marginax.mixture.model import WEIGHTS

COVARIANCES: dict[str, Family] = {
    "full": Gaussian(),
    "tied": Gaussian(tied=True),
    "diag": Normal(),
    "spherical": Normal(spherical=True),
}


class GaussianMixture(Estimator):
    """A mixture of normal distributions, with or without its posterior.

    Parameters
    ----------
    n_components : int
        How many components.
    covariance_type : {"full", "tied", "diag", "spherical"}
        A covariance matrix for each component, one for all, variances alone, one variance.
    method : {"map", "vi", "nuts"}
        Only the most probable parameters; or also their posterior, approximated by a normal distribution of the
        unconstrained parameters (in seconds), or drawn by NUTS with the memberships summed out.
    priors : None, "flat" or dict of str to Distribution
        In place of the defaults, by parameter: ``weights``, of all components; ``means`` and ``precisions``
        (``precision_factors``, the Cholesky factors of the precision matrices, for "full" and "tied"), of one
        component, for columns brought to mean 0 and standard deviation 1. (``parameters_`` has ``covariances``
        instead, in the units of the table.) ``"flat"``: maximum likelihood, as scikit-learn's. Defaults: see
        `Gaussian` and `Normal`. Priors that treat the components alike leave their numbers free: they fall with the
        weights. A prior that tells them apart, such as ``Dirichlet([50.0, 1.0])`` of the weights, keeps its own
        numbers. For ``method="map"`` a prior that is infinite at the edge of its range is taken as flat there.
    weight_concentration_prior : float
        Of the Dirichlet prior of the weights; 1 is flat. Less than 1, with ``method="nuts"`` or ``"vi"``
        and more components than needed, leaves those empty that are not needed (see `select`).
    n_init : int
        How many starts; they run at once, and the best is kept.
    max_iter : int
        Iterations of L-BFGS at most, after expectation-maximisation.
    n_draws, n_warmup, n_chains : int
        Of NUTS, for each chain; of "vi", ``n_draws`` alone.
    random_state : int, RandomState, optional
        With an integer, the same result every time.
    verbose : bool
        Show progress.

    Attributes
    ----------
    weights_ : array, shape (components,)
    means_ : array, shape (components, columns)
    covariances_, precisions_ : array
        As scikit-learn's: (components, columns, columns), (columns, columns), (components, columns) or (components,),
        by ``covariance_type``.
    parameters_, posterior_ : dict of array
        The most probable parameters; the posterior draws, shape (draws, ...).
    fit_ : Fit
        Losses, gradient norms, what the starts said, summary of the draws.
    warnings_ : tuple of str
        What is amiss.

    Examples
    --------
    >>> import numpy as np
    >>> from marginax.mixture import GaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal(8, 1, (40, 2))])
    >>> mixture = GaussianMixture(2, random_state=0).fit(X)
    >>> mixture.weights_.round(2).tolist()
    [0.6, 0.4]
    >>> mixture.predict([[0.0, 0.0], [8.0, np.nan]]).tolist()
    [0, 1]
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        method: str = "map",
        priors: Any = None,
        weight_concentration_prior: float = 1.0,
        n_init: int = 10,
        max_iter: int = 1000,
        n_draws: int = 1000,
        n_warmup: int = 500,
        n_chains: int = 4,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.method = method
        self.priors = priors
        self.weight_concentration_prior = weight_concentration_prior
        self.n_init = n_init
        self.max_iter = max_iter
        self.n_draws = n_draws
        self.n_warmup = n_warmup
        self.n_chains = n_chains
        self.random_state = random_state
        self.verbose = verbose

    def _families(self, names: Sequence[str]) -> list[tuple[str, Family, tuple[int, ...]]]:
        kind = self.covariance_type
        if not isinstance(kind, str) or kind not in COVARIANCES:
            raise ValueError(f"covariance_type must be one of {tuple(COVARIANCES)}, not {kind!r}.")
        return [("", COVARIANCES[kind], tuple(range(len(names))))]

    def _own_priors(self) -> dict[str, Parameter]:
        return weights_prior(self.n_components, self.weight_concentration_prior)

    @property
    def weights_(self) -> np.ndarray:
        return self.parameters_["weights"]

    @property
    def means_(self) -> np.ndarray:
        return self.parameters_["means"]

    @property
    def covariances_(self) -> np.ndarray:
        return self.parameters_["covariances"]

    @property
    def precisions_(self) -> np.ndarray:
        is_matrix = self.covariance_type in ("full", "tied")
        return np.linalg.inv(self.covariances_) if is_matrix else 1 / self.covariances_


def weights_prior(components: int, concentration: Any) -> dict[str, Parameter]:
    """Of a mixture's weights."""
    if not isinstance(concentration, int | float | np.number) or not 0 < concentration < np.inf:
        raise ValueError(
            f"weight_concentration_prior must be a number above 0, not {concentration!r}."
        )
    return {WEIGHTS: Parameter(dist.Dirichlet(np.full(components, float(concentration))))}
