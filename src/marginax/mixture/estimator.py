"""What all estimators share: scikit-learn's conventions around a design, a fit and a predictor."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

import marginax.mixture.tables as tables
from marginax.mixture.families import Categorical
from marginax.mixture.family import Family, Parameter, number_of_values
from marginax.mixture.fitted import METHODS, Fit, Settings
from marginax.mixture.fitting import fit
from marginax.mixture.learned import Learned, check_cells, kept_of, learned
from marginax.mixture.prediction import Membership, Predictor
from marginax.mixture.priors import FLAT


class Estimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """The base of `GaussianMixture`, `MixtureModel` and `HiddenMarkov`; not used alone."""

    n_components: int
    n_features_in_: int
    feature_names_in_: np.ndarray
    table_: np.ndarray
    learned_: Learned
    method: str
    priors: Any
    n_init: int
    max_iter: int
    n_draws: int
    n_warmup: int
    n_chains: int
    random_state: Any
    verbose: bool

    # -- what an estimator says of itself

    def _families(self, names: Sequence[str]) -> list[tuple[str, Family, tuple[int, ...]]]:
        """Name, family and columns of every group, for a table with these columns."""
        raise NotImplementedError

    def _own_priors(self) -> dict[str, Parameter]:
        """Default priors of what says which component."""
        raise NotImplementedError

    _is_chain = False
    _room = 0
    """For how many components its programs are made, see `select`; 0: for those that there are."""

    def __sklearn_tags__(self) -> Any:
        found = super().__sklearn_tags__()
        found.input_tags.allow_nan = True
        return found

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    # -- fit

    def fit(self, X: Any, y: Any = None) -> Any:
        """Fit to a table.

        Parameters
        ----------
        X : array or frame, shape (rows, columns)
            The table; NaN, None, pandas' NA and what is masked are missing cells, which are summed out.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For an option, a cell or a prior that makes no sense; the message names the column.

        Warns
        -----
        ConvergenceWarning
            When the optimum, or the sample, is in doubt; also in ``warnings_``.
        """
        del y
        return self._fit(X)

    def _fit(self, X: Any, lengths: Any = None) -> Any:
        settings = self._settings()
        cells = self._read(X, learn=True)
        self._learn(*kept_of(cells, self.column_names_))
        self.fit_: Fit = fit(self.learned_.design, self.learned_.rows(cells, lengths), settings)
        self.n_rows_ = len(cells)
        self.lengths_ = None if lengths is None else tuple(int(n) for n in lengths)
        self.n_iter_ = len(self.fit_.losses)
        self.warnings_ = self.fit_.warnings
        for message in self.warnings_:
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        return self

    def _settings(self) -> Settings:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, not {self.method!r}.")
        for name, least in (
            ("n_components", 1),
            ("n_init", 1),
            ("max_iter", 1),
            ("n_draws", 1),
            ("n_warmup", 0),
            ("n_chains", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, not {value!r}.")
        if self.method != "map" and isinstance(self.priors, str) and self.priors == FLAT:
            raise ValueError(
                f"method={self.method!r} needs priors: without them a mixture has no posterior. Leave out "
                "priors='flat'."
            )
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        return Settings(
            self.method,
            self.n_init,
            self.max_iter,
            self.n_draws,
            self.n_warmup,
            self.n_chains,
            int(seed),
            bool(self.verbose),
        )

    # -- tables

    def _read(self, X: Any, learn: bool = False) -> np.ndarray:
        """A table as numbers, checked, NaN where a cell is missing."""
        if not learn:
            check_is_fitted(self)
        X = tables.without_masks(X)
        names = tables.column_names(X)
        if not learn:
            groups: Any = [(g.name, g.family, g.where) for g in self.learned_.design.groups]
        else:  # what is no table has no columns, and is refused below
            groups = self._families(names) if names else []
        categorical = {j for _, family, where in groups if _is_categorical(family) for j in where}
        if not categorical and not tables.has_words(X):
            checked: Any = validate_data(
                self,
                X,
                reset=learn,
                dtype=np.float64,
                ensure_all_finite="allow-nan",
                ensure_min_samples=1,
            )
            cells = np.asarray(checked)
        else:
            X = X if tables.is_frame(X) else tables.cell_by_cell(X)
            validate_data(self, X, reset=learn, skip_check_array=True)
            if learn:
                self.categories_ = {
                    j: tables.categories_of(tables.column(X, j), names[j])
                    for j in sorted(categorical)
                }
            cells = tables.cells(X, names, self.categories_)
        if learn:
            if not categorical:
                self.categories_ = {}
            self.column_names_ = (
                tuple(names)
                if len(names) == cells.shape[1]
                else tuple(f"x{j}" for j in range(cells.shape[1]))
            )
            if len(cells) < max(self.n_components, 2):
                raise ValueError(
                    f"{type(self).__name__} with {self.n_components} components needs at least "
                    f"{max(self.n_components, 2)} rows; n_samples = {len(cells)}."
                )
        check_cells(cells, groups, self.column_names_)
        return cells

    def _learn(self, moments: np.ndarray, fill: np.ndarray) -> None:
        """Keep what is known of the table, and the design that follows from it."""
        self._predictors: dict[str, Predictor] = {}
        self.learned_ = learned(
            self.column_names_,
            self.categories_,
            moments,
            fill,
            self._families(self.column_names_),
            self._own_priors,
            self.priors,
            self.n_components,
            self._is_chain,
            self._room,
        )

    # -- answers

    def _predictor(self, kind: str = "posterior") -> Predictor:
        """At the posterior's draws, or at the most probable parameters."""
        if kind not in self._predictors:
            point = {name: value[None] for name, value in self.fit_.point.items()}
            draws = self.fit_.draws if kind == "posterior" else point
            self._predictors[kind] = Predictor(self.learned_.design, draws)
        return self._predictors[kind]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(vars(self))
        if "_predictors" in state:  # compiled programs are made again where they are needed
            state["_predictors"] = {}
        return state

    def membership(self, X: Any) -> Membership:
        """Everything that is said of rows, in one pass.

        Parameters
        ----------
        X : array or frame, shape (rows, columns)

        Returns
        -------
        Membership
            Probabilities, their standard deviation over the posterior, log density.
        """
        return self._membership(X)

    def warm_up(self, sizes: Sequence[int]) -> None:
        """Compile for tables of these numbers of rows, so that no later prediction waits; other tables are padded."""
        check_is_fitted(self)
        self._predictors["posterior"] = Predictor(
            self.learned_.design, self.fit_.draws, tuple(sorted(sizes))
        )
        self._predictors["posterior"].compile()

    def _membership(self, X: Any, kind: str = "posterior", lengths: Any = None) -> Membership:
        cells = self._read(X)
        found = self._predictor(kind).membership(self.learned_.rows(cells, lengths))
        lost = np.isnan(found.probabilities).any(1)
        if lost.any():
            raise ValueError(
                f"row {int(np.argmax(lost))} is so far from all that the fit has seen that its density cannot be "
                "computed; leave it out, or look at its numbers."
            )
        return found._replace(log_density=found.log_density - self.learned_.log_units(cells))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable component of each row.

        Parameters
        ----------
        X : array or frame, shape (rows, columns)

        Returns
        -------
        array of int, shape (rows,)
            Components are numbered by falling weight.
        """
        return self._components(X)

    def _components(self, X: Any, lengths: Any = None) -> np.ndarray:
        check_is_fitted(self)
        predictor = self._predictor()
        if predictor.gives_paths:
            return predictor.path(self.learned_.rows(self._read(X), lengths))
        return self._membership(X, lengths=lengths).probabilities.argmax(1)

    def predict_proba(self, X: Any, *, return_std: bool = False, as_frame: bool = False) -> Any:
        """The probability of each component for each row, exactly, averaged over the posterior draws.

        Parameters
        ----------
        X : array or frame, shape (rows, columns)
        return_std : bool
            Return also how sure each probability is: its standard deviation over the posterior draws. For
            ``method="vi"`` and ``"nuts"``.
        as_frame : bool
            Return frames of the library that ``X`` is a frame of, with a column for each component.

        Returns
        -------
        array or frame, shape (rows, components); two of them with ``return_std``
        """
        return self._probabilities(X, None, return_std, as_frame)

    def _probabilities(self, X: Any, lengths: Any, return_std: bool, as_frame: bool) -> Any:
        if return_std:
            check_is_fitted(self)
            if len(next(iter(self.fit_.draws.values()))) < 2:
                raise ValueError(
                    "predict_proba: return_std=True needs a posterior, and this is a point estimate. Fit with "
                    "method='nuts' or method='vi'."
                )
        found = self._membership(X, lengths=lengths)
        parts = [found.probabilities] + ([found.spread] if return_std else [])
        if as_frame:
            names = self.get_feature_names_out()
            parts = [tables.frame_like(X, dict(zip(names, part.T, strict=True))) for part in parts]
        return tuple(parts) if return_std else parts[0]

    def transform(self, X: Any) -> np.ndarray:
        """`predict_proba`, for pipelines; with ``set_output(transform="pandas")`` or ``"polars"`` a frame."""
        return self._membership(X).probabilities

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and the most probable component of each row."""
        return self.fit(X, y).predict(X)

    def score_samples(self, X: Any) -> np.ndarray:
        """The log density of each row, averaged over the posterior draws; missing cells are summed out.

        Returns
        -------
        array, shape (rows,)
            In nats, in the units of the table.
        """
        return self._membership(X).log_density

    def score(self, X: Any, y: Any = None) -> float:
        """The mean log density of a row."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """New rows from the fitted model, over the posterior draws.

        Parameters
        ----------
        n_samples : int
            How many.
        random_state : int, RandomState, optional

        Returns
        -------
        array, shape (n_samples, columns), and array of int, shape (n_samples,)
            Rows (categories by their numbers if there are words; see ``categories_``) and their components.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, int | np.integer) or n_samples < 1:
            raise ValueError(f"sample: n_samples must be an integer >= 1, not {n_samples!r}.")
        seed = check_random_state(random_state).randint(2**31 - 1)
        cells, components = self._predictor().sample(int(n_samples), int(seed))
        return self.learned_.told(cells), components

    def bic(self, X: Any) -> float:
        """Bayesian information criterion at the most probable parameters; lower is better (Schwarz, 1978)."""
        return self._criterion(X, np.log(len(X)))

    def aic(self, X: Any) -> float:
        """Akaike's information criterion at the most probable parameters; lower is better (Akaike, 1974)."""
        return self._criterion(X, 2.0)

    def _criterion(self, X: Any, price: float, lengths: Any = None) -> float:
        total = self._membership(X, "point", lengths).log_density.sum()
        return float(price * self.n_parameters_ - 2 * total)

    def log_densities(self, X: Any) -> np.ndarray:
        """The log density of each row at each posterior draw.

        Returns
        -------
        array, shape (draws, rows)
            In nats, in the units of the table.
        """
        return self._log_densities(X)

    def _log_densities(self, X: Any, lengths: Any = None) -> np.ndarray:
        cells = self._read(X)
        found = self._predictor().log_densities(self.learned_.rows(cells, lengths))
        return found - self.learned_.log_units(cells)

    # -- what was found

    @property
    def n_parameters_(self) -> int:
        """How many free numbers the model has."""
        check_is_fitted(self)
        found = 0
        for name, parameter in self.learned_.design.priors.items():
            is_one = parameter.is_shared or name in self.learned_.design.outer
            found += number_of_values(parameter) * (1 if is_one else self.n_components)
        return found

    @property
    def parameters_(self) -> dict[str, np.ndarray]:
        """The most probable parameters by name, in the units of the table."""
        check_is_fitted(self)
        return self.learned_.in_units(self.fit_.point)

    @property
    def posterior_(self) -> dict[str, np.ndarray]:
        """The posterior draws by parameter, shape (draws, ...), in the units of the table."""
        check_is_fitted(self)
        return self.learned_.in_units(self.fit_.draws)

    def summary(self, prob: float = 0.9) -> dict[str, dict[str, float]]:
        """Mean, spread, interval, effective draws and R-hat of every parameter, in the units of the table.

        Parameters
        ----------
        prob : float
            Probability of the interval.
        """
        from marginax.infer.draws.summary import summary_table

        chains = self.fit_.chains
        return summary_table(
            {n: v.reshape(chains, -1, *v.shape[1:]) for n, v in self.posterior_.items()}, prob
        )


def _is_categorical(family: Family) -> bool:
    return isinstance(family, Categorical)
