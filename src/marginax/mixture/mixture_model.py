"""`MixtureModel`: a mixture of any families, one for each group of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marginax.mixture.estimator import Estimator
from marginax.mixture.families import (
    Bernoulli,
    Beta,
    Categorical,
    Gamma,
    LogNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)
from marginax.mixture.family import Family, Parameter
from marginax.mixture.gaussian import Gaussian
from marginax.mixture.gaussian_mixture import weights_prior

FAMILIES: dict[str, Family] = {
    "gaussian": Gaussian(),
    "normal": Normal(),
    "student_t": StudentT(),
    "log_normal": LogNormal(),
    "gamma": Gamma(),
    "poisson": Poisson(),
    "negative_binomial": NegativeBinomial(),
    "beta": Beta(),
    "bernoulli": Bernoulli(),
    "categorical": Categorical(),
}


class MixtureModel(Estimator):
    """A mixture whose components are of any family, or of one family for each group of columns.

    Inside of a component groups are independent of each other.

    Parameters
    ----------
    n_components : int
        How many components.
    components : str, Family or list of (str, str or Family, columns)
        The family of all columns: ``"gaussian"`` (any covariance), ``"normal"`` (independent columns),
        ``"student_t"``, ``"log_normal"``, ``"gamma"``, ``"poisson"``, ``"negative_binomial"``, ``"beta"``,
        ``"bernoulli"``, ``"categorical"``, or an instance such as ``Gaussian(tied=True)``. Or, as in scikit-learn's
        ColumnTransformer, a list of groups: a name, a family, and columns by name (of a frame) or number; every
        column is in one group.
    method : {"map", "vi", "nuts"}
        As of `GaussianMixture`.
    priors : None, "flat" or dict of str to Distribution
        In place of the defaults: ``weights``, and the families' parameters of one component, with the group's name
        before them (``"visits.rates"``) where there are groups. Those of ``"gaussian"``, ``"normal"`` and
        ``"student_t"`` are for columns brought to mean 0 and standard deviation 1, the others in the units of the
        table; the names are those that the families' documentation has (``precisions``, where ``parameters_`` has
        ``covariances``).
    weight_concentration_prior, n_init, max_iter, n_draws, n_warmup, n_chains, random_state, verbose
        As of `GaussianMixture`.

    Attributes
    ----------
    parameters_, posterior_ : dict of array
        The most probable parameters; the posterior draws, shape (draws, ...).
    categories_ : dict of int to tuple
        Of columns of categories, by number, what they are.
    fit_, warnings_
        As of `GaussianMixture`.

    Examples
    --------
    >>> import numpy as np
    >>> from marginax.mixture import MixtureModel
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([np.repeat([0.0, 9.0], 50) + rng.normal(size=100), rng.poisson(np.repeat([2, 30], 50))])
    >>> groups = [("size", "normal", [0]), ("visits", "poisson", [1])]
    >>> mixture = MixtureModel(2, components=groups, random_state=0).fit(X)
    >>> sorted(mixture.parameters_)
    ['size.covariances', 'size.means', 'visits.rates', 'weights']
    >>> len(set(mixture.predict(X[:50]))), len(set(mixture.predict(X[50:])))
    (1, 1)
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        components: Any = "gaussian",
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
        self.components = components
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
        return groups_of(self.components, names)

    def _own_priors(self) -> dict[str, Parameter]:
        return weights_prior(self.n_components, self.weight_concentration_prior)


def groups_of(components: Any, names: Sequence[str]) -> list[tuple[str, Family, tuple[int, ...]]]:
    """Name, family and columns of every group.

    Raises
    ------
    ValueError, TypeError
        When a family or a column does not exist, or a column is in no group, or in several.
    """
    if isinstance(components, str | Family):
        return [("", _family(components), tuple(range(len(names))))]
    if not isinstance(components, Sequence) or not components:
        raise TypeError(
            "components must be a family, or a list of (name, family, columns), such as "
            f"[('visits', 'poisson', ['visits'])], not {components!r}."
        )
    found: list[tuple[str, Family, tuple[int, ...]]] = []
    owner: dict[int, str] = {}
    places: dict[Any, int] = {}
    for j, column_name in enumerate(names):
        places.setdefault(column_name, j)
    for entry in components:
        if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 3:
            raise TypeError(
                f"components: each group must be (name, family, columns), not {entry!r}."
            )
        name, family, columns = entry
        if not isinstance(name, str) or not name or name in [group[0] for group in found]:
            raise ValueError(
                f"components: each group needs a name of its own; {name!r} is none, or was taken before."
            )
        columns = [columns] if isinstance(columns, str | int | np.integer) else list(columns)
        where = tuple(_number(column, names, places, name) for column in columns)
        if not where:
            raise ValueError(
                f"components: group {name!r} has no columns; give it some, such as [{names[0]!r}], or leave it out."
            )
        for j in where:
            if j in owner:
                raise ValueError(
                    f"components: column '{names[j]}' is in the groups {owner[j]!r} and {name!r}; it can be in one."
                )
            owner[j] = name
        found.append((name, _family(family), where))
    left = [names[j] for j in range(len(names)) if j not in owner]
    if left:
        raise ValueError(
            f"components: no group has the columns {', '.join(map(repr, left))}; give them a family, or leave them out "
            "of the table."
        )
    return found


def _family(family: Any) -> Family:
    if isinstance(family, Family):
        return family
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(
            f"components: there is no family {family!r}; there are {', '.join(map(repr, FAMILIES))}, and the classes "
            "of marginax.mixture."
        )
    return FAMILIES[family]


def _number(column: Any, names: Sequence[str], places: Mapping[Any, int], group: str) -> int:
    if isinstance(column, str) and column in places:
        return places[column]
    if isinstance(column, int | np.integer) and not isinstance(column, bool):
        number = int(column)
        if -len(names) <= number < len(names):
            return number % len(names)
    raise ValueError(
        f"components: group {group!r} names column {column!r}, which the table does not have; its columns are "
        f"{', '.join(map(repr, names))}."
    )
