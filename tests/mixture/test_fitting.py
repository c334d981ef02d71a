"""The most probable parameters: what EM and L-BFGS find, how fast, and of which density."""

import subprocess
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Theirs

import marginax.distributions as dist
from marginax.jaxpr.remembered import Remembered
from marginax.mixture import GaussianMixture, HiddenMarkov, MixtureModel
from marginax.mixture.conditioning import (
    information,
    inward,
    outward,
    slope_inward,
    unconstrained,
)
from marginax.mixture.learned import kept_of
from marginax.mixture.maximization import ROUNDS, beginning
from marginax.mixture.model import WEIGHTS, Design, Rows
from marginax.mixture.modes import FactorOfWishart
from marginax.mixture.numbering import is_exchangeable
from marginax.mixture.padding import filled_up
from marginax.mixture.programs import Programs, programs


def clusters(seed: int, rows: int, columns: int, components: int) -> np.ndarray:
    """Rows of normal clusters that are thin in some direction."""
    rng = np.random.default_rng(seed)
    means = 4 * rng.normal(size=(components, columns))
    roots = 0.5 * rng.normal(size=(components, columns, columns)) + np.eye(columns)
    which = rng.integers(components, size=rows)
    noise = rng.normal(size=(rows, columns))
    return means[which] + np.einsum("nij,nj->ni", roots[which], noise)


def design_of(model: Any, X: np.ndarray) -> Design:
    """What a model would fit."""
    cells = model._read(X, learn=True)
    model._learn(*kept_of(cells, model.column_names_))
    return model.learned_.design


# -- expectation-maximisation


def searched_by(model: Any, X: np.ndarray) -> tuple[Design, Rows, Any, Programs]:
    """A design, the table as it is fitted, the design's numbers and the programs."""
    design = design_of(model, X)
    rows = filled_up(model.learned_.rows(X))
    return design, rows, *programs(design, rows, 100, True)


def rounds(model: Any, X: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The losses of the starts, shape (starts, rounds)."""
    with jax.enable_x64(True):
        _, rows, numbers, search = searched_by(model, X)
        more = np.full((len(labels), len(rows.cells) - len(X)), -1)
        state = search.begin(numbers, rows, np.concatenate([labels, more], 1))
        state = search.rounds(numbers, rows, state, 0.05, ROUNDS)
        return np.asarray(state.losses)[:, : int(state.number)]


@pytest.mark.parametrize(
    "model",
    [
        GaussianMixture(
            3, covariance_type="diag", priors={"means": dist.Normal(jnp.zeros(2), 1e3).to_event(1)}
        ),
        HiddenMarkov(2, components="normal"),
    ],
)
def test_rounds_of_em_come_near_the_optimum_from_anywhere(model: Any):
    X = clusters(1, 300, 2, 3)
    (losses,) = rounds(model, X, np.arange(len(X))[None] % model.n_components)
    assert losses[-1] < losses[0] - 50
    assert (np.diff(losses) <= 0).all()  # what is kept is the best so far


def test_em_of_weights_alone_is_the_closed_form():
    """With components that cannot move, a round is the average of the memberships."""
    X = clusters(2, 50, 1, 2)
    with jax.enable_x64(True):
        model = GaussianMixture(2, weight_concentration_prior=3.0)
        _, rows, numbers, search = searched_by(model, X)
        state = search.begin(numbers, rows, np.arange(len(rows.cells))[None] % 2)
        state.values[WEIGHTS] = np.array([[0.3, 0.7]])
        after = np.asarray(search.rounds(numbers, rows, state, 0.0, 1).values[WEIGHTS])[0]
    point = {name: np.asarray(value)[0] for name, value in state.values.items()}
    sd = point["precision_factors"][:, 0, 0] ** -1
    cells, means = rows.cells[:50], point["means"][:, 0]
    joint = np.array([0.3, 0.7]) * stats.norm.pdf(cells, means, sd)
    used = (joint / joint.sum(1, keepdims=True)).sum(0) + 2.0 + 1e-3
    np.testing.assert_allclose(after, used / used.sum(), rtol=1e-9)


# -- L-BFGS in coordinates of equal information


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_thin_components_are_found_in_few_iterations(kind: str):
    X = clusters(0, 1000, 4, 3)
    fitted = GaussianMixture(3, covariance_type=kind, priors="flat", n_init=3, random_state=0).fit(
        X
    )
    theirs = Theirs(3, covariance_type=kind, n_init=3, random_state=0, tol=1e-9, max_iter=5000).fit(
        X
    )
    # Their covariances have 1e-6 more on the diagonal.
    assert fitted.score(X) >= theirs.score(X) - 1e-4
    assert fitted.n_iter_ < 100


@pytest.mark.parametrize("with_holes", [False, True])
def test_the_optimum_is_where_the_gradient_is_zero(with_holes: bool):
    rng = np.random.default_rng(0)
    X = np.column_stack([clusters(3, 120, 2, 2), rng.poisson(5, 120)])
    if with_holes:
        X[rng.random(X.shape) < 0.2] = np.nan
    model = MixtureModel(
        2, components=[("a", "gaussian", [0, 1]), ("b", "poisson", [2])], random_state=0
    )
    fitted = model.fit(X)
    for site, norms in fitted.fit_.gradient_norms.items():
        assert norms[-1] < 0.1, site  # in nats per unit of an unconstrained number, of 120 rows


def test_coordinates_lead_back_to_where_they_came_from():
    """And slopes in them are those of the chain rule."""
    X = clusters(4, 60, 2, 2)
    with jax.enable_x64(True):
        design, rows, numbers, search = searched_by(GaussianMixture(2), X)
        point = search.begin(numbers, rows, np.arange(len(rows.cells))[None] % 2).values
        free = {n: v[0] for n, v in unconstrained(design, point).items()}
        blocks = information(design, free, rows, 60)
        place = inward(design, free, blocks)
        for name, value in outward(design, place, blocks).items():
            np.testing.assert_allclose(value, free[name], atol=1e-9)
        slopes = {n: np.random.default_rng(0).normal(size=v.shape) for n, v in free.items()}

        def total(place: Any) -> Any:
            return sum(jnp.sum(slopes[n] * v) for n, v in outward(design, place, blocks).items())

        found = slope_inward(design, slopes, blocks)
        np.testing.assert_allclose(found, jax.grad(total)(place), atol=1e-9)


# -- which density has its maximum there


def test_the_mode_of_a_covariance_does_not_depend_on_the_order_of_the_columns():
    X = clusters(5, 40, 3, 2)
    order = [2, 0, 1]
    one = GaussianMixture(2, random_state=0).fit(X)
    other = GaussianMixture(2, random_state=0).fit(X[:, order])
    np.testing.assert_allclose(
        one.covariances_[:, order][:, :, order], other.covariances_, rtol=1e-3
    )


@pytest.mark.slow
def test_of_one_column_all_kinds_of_covariance_are_the_same():
    X = clusters(6, 30, 1, 2)
    full = GaussianMixture(2, random_state=0).fit(X)
    diag = GaussianMixture(2, covariance_type="diag", random_state=0).fit(X)
    spherical = GaussianMixture(2, covariance_type="spherical", random_state=0).fit(X)
    np.testing.assert_allclose(full.covariances_[:, 0], diag.covariances_, rtol=1e-3)
    np.testing.assert_allclose(diag.covariances_[:, 0], spherical.covariances_, rtol=1e-3)


def test_the_density_of_a_factor_is_that_of_the_wishart_matrix():
    scale = np.array([[2.0, 0.0], [0.5, 1.0]])
    factors = np.array([[[1.0, 0.0], [0.3, 0.7]], [[0.2, 0.0], [-1.0, 3.0]]])
    ours = FactorOfWishart(5.0, scale_tril=jnp.asarray(scale)).log_prob(jnp.asarray(factors))
    theirs = [stats.wishart(5, scale @ scale.T).logpdf(f @ f.T) for f in factors]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_single_normals_covariance_has_the_wishart_mode_in_closed_form():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2)) @ [[1.0, 0.0], [0.8, 0.3]]
    Z = (X - X.mean(0)) / X.std(0)
    fitted = GaussianMixture(1, random_state=0).fit(X)
    # Means first: the prior Normal(0, 3) is around the mean itself, which is the mode. Then
    # |P|^((n + v - d - 1) / 2) exp(-tr P (S + V) / 2), v = d + 2, is largest at P^-1 = (S + V) / (n + 1).
    expected = (Z.T @ Z + 0.2 * np.eye(2)) / (30 + 1)
    units = np.outer(X.std(0), X.std(0))
    np.testing.assert_allclose(fitted.covariances_[0] / units, expected, rtol=1e-4)


def test_a_prior_that_is_infinite_at_its_edge_is_taken_as_flat_there_and_that_is_said():
    X = clusters(7, 60, 1, 2)
    flat = GaussianMixture(2, covariance_type="diag", random_state=0).fit(X)
    with pytest.warns(ConvergenceWarning, match="prior of weights is infinite at the edge"):
        sparse = GaussianMixture(
            2, covariance_type="diag", weight_concentration_prior=0.1, random_state=0
        ).fit(X)
    np.testing.assert_allclose(sparse.weights_, flat.weights_, atol=1e-4)
    counts = np.random.default_rng(0).binomial(1, [0.5, 1.0], size=(60, 2)).astype(float)
    prior = {"probs": dist.Beta(jnp.full(2, 0.5), jnp.full(2, 0.5)).to_event(1)}
    with pytest.warns(ConvergenceWarning, match="prior of probs is infinite"):
        edge = MixtureModel(1, components="bernoulli", priors=prior, random_state=0).fit(counts)
    np.testing.assert_allclose(edge.parameters_["probs"][0], counts.mean(0), atol=1e-3)


def test_a_sparse_chain_does_not_run_into_a_corner():
    rng = np.random.default_rng(0)
    X = (5.0 * np.repeat([0, 1, 0, 1], 25) + rng.normal(size=100))[:, None]
    rows = dist.Dirichlet(jnp.full((2, 2), 0.2)).to_event(1)
    with pytest.warns(ConvergenceWarning, match="prior of transitions"):
        fitted = HiddenMarkov(
            2, components="normal", priors={"transitions": rows}, random_state=0
        ).fit(X)
    stay = np.diag(fitted.parameters_["transitions"])
    # 49 of 50 and 48 of 49 steps stay, if the states are those that were drawn.
    assert ((stay > 0.9) & (stay < 0.999)).all()


# -- priors of one's own


def test_means_are_kept_inside_of_a_priors_range():
    X = clusters(8, 80, 2, 2)
    prior = dist.Uniform(jnp.zeros(2), jnp.full(2, 10.0)).to_event(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = GaussianMixture(2, priors={"means": prior}, random_state=0).fit(X)
    standardised = (fitted.means_ - X.mean(0)) / X.std(0)
    assert (standardised >= -1e-9).all()


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        ({"precisions": dist.Uniform(jnp.full(2, -5.0), jnp.full(2, 100.0))}, "need not be"),
        ({"precisions": dist.Normal(jnp.zeros(2), 1.0)}, "need not be"),
        ({"means": dist.Delta(jnp.zeros(2))}, "is a Delta, but the parameter is continuous"),
        ({"means": dist.Poisson(jnp.ones(2))}, "is a Poisson, but the parameter is continuous"),
    ],
)
def test_priors_that_a_parameter_cannot_have_are_refused(priors: Any, words: str):
    with pytest.raises(ValueError, match=words):
        GaussianMixture(2, covariance_type="diag", priors=priors).fit(clusters(0, 20, 2, 2))


def test_the_optimum_with_a_prior_of_ones_own_is_scipys():
    rng = np.random.default_rng(1)
    X = rng.poisson(4.0, size=(25, 1)).astype(float)
    prior = dist.LogNormal(jnp.zeros(1), 0.1).to_event(1)
    fitted = MixtureModel(1, components="poisson", priors={"rates": prior}, random_state=0).fit(X)

    likelihood, density = stats.poisson, stats.lognorm

    def loss(rate: float) -> float:
        return float(-likelihood.logpmf(X, rate).sum() - density.logpdf(rate, 0.1))

    best: Any = optimize.minimize_scalar(loss, bounds=(0.1, 10), method="bounded")
    np.testing.assert_allclose(fitted.parameters_["rates"], [[best.x]], rtol=1e-4)


# -- numbers of components


def test_components_are_numbered_by_falling_weight_whatever_the_method():
    X = np.concatenate([np.zeros((30, 1)), np.full((60, 1), 9.0)]) + np.random.default_rng(
        0
    ).normal(size=(90, 1))
    for method in ("map", "vi"):
        fitted = GaussianMixture(2, covariance_type="diag", method=method, random_state=0).fit(X)
        assert fitted.predict([[9.0], [0.0]]).tolist() == [0, 1]
        assert (np.diff(fitted.posterior_["weights"].mean(0)) < 0).all()


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (None, True),
        (dist.Dirichlet(jnp.array([2.0, 2.0, 2.0])), True),
        (dist.Dirichlet(jnp.array([50.0, 1.0, 1.0])), False),
        (dist.Dirichlet(jnp.array([1.0, 1.0, 2.0])), False),
    ],
)
def test_priors_that_tell_components_apart_are_noticed(prior: Any, expected: bool):
    X = clusters(9, 60, 1, 3)
    priors = None if prior is None else {"weights": prior}
    assert is_exchangeable(design_of(GaussianMixture(3, priors=priors), X)) == expected


@pytest.mark.parametrize(("diagonal", "expected"), [([2.0, 2.0], True), ([9.0, 2.0], False)])
def test_transitions_may_prefer_states(diagonal: list[float], expected: bool):
    X = clusters(9, 60, 1, 2)
    rows = dist.Dirichlet(jnp.ones((2, 2)) + jnp.diag(jnp.array(diagonal))).to_event(1)
    assert is_exchangeable(design_of(HiddenMarkov(2, priors={"transitions": rows}), X)) == expected


def test_where_priors_tell_components_apart_their_numbers_stay():
    X = np.concatenate([np.zeros((80, 1)), np.full((20, 1), 9.0)]) + np.random.default_rng(
        0
    ).normal(size=(100, 1))
    prior = dist.Dirichlet(jnp.array([1.0, 300.0]))
    options = {
        "priors": {"weights": prior},
        "n_draws": 100,
        "n_warmup": 100,
        "n_chains": 2,
        "random_state": 0,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = GaussianMixture(2, method="nuts", **options).fit(X)
    assert fitted.weights_[1] > 0.7
    assert fitted.posterior_["weights"].mean(0)[1] > 0.7
    assert fitted.fit_.relabelled == ""


# -- programs that must come to an end


@pytest.mark.slow
def test_many_patterns_of_missing_cells_do_not_make_threads_wait_for_each_other():
    """LAPACK's batched calls did, at random, without end; in a process of its own that can be given up."""
    program = """
import warnings
import numpy as np
from marginax.mixture import GaussianMixture
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.normal(size=(600, 12))
X[300:] += 2
X[rng.random(X.shape) < 0.15] = np.nan
assert len(np.unique(np.isnan(X), axis=0)) > 150
print(np.isfinite(GaussianMixture(2, n_init=10, random_state=0).fit(X).score(X)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.strip() == "True"


# -- large tables


def test_of_a_very_large_table_some_rows_find_the_best_start(monkeypatch: pytest.MonkeyPatch):
    """Rows by chance: every second one would be of one component here."""
    rng = np.random.default_rng(0)
    X = (6.0 * (np.arange(2000) % 2) + rng.normal(size=2000))[:, None]
    monkeypatch.setattr("marginax.mixture.fitting.MOST", 1000)
    monkeypatch.setattr("marginax.mixture.fitting.LEAST_ROWS", 300)
    monkeypatch.setattr("marginax.mixture.fitting.MANY", 1000)
    fitted = GaussianMixture(2, n_init=3, random_state=0).fit(X)
    assert "compared on 300 of the 2,000 rows" in fitted.fit_.restarts
    monkeypatch.undo()
    whole = GaussianMixture(2, n_init=3, random_state=0).fit(X)
    assert "compared on" not in whole.fit_.restarts
    np.testing.assert_allclose(fitted.fit_.losses[-1], whole.fit_.losses[-1], rtol=1e-6)
    np.testing.assert_allclose(fitted.means_, whole.means_, rtol=1e-3)


def test_some_rows_keep_what_belongs_to_them():
    rows = Rows(np.arange(20.0).reshape(10, 2), np.eye(10, 2) > 0, np.eye(2) > 0, np.arange(10) % 2)
    some = rows.some(4)
    which = (some.cells[:, 0] / 2).astype(int)
    assert len(set(which)) == 4
    np.testing.assert_array_equal(some.observed, rows.observed[which])
    np.testing.assert_array_equal(some.pattern, rows.pattern[which])
    assert rows.some(10) is rows


def test_a_start_that_is_nowhere_does_not_hold_the_others_up(monkeypatch: pytest.MonkeyPatch):
    """Its loss is not finite in any round."""
    X = clusters(1, 60, 1, 2)
    labels = np.stack([np.arange(60) % 2, np.full(60, -1)])  # of no component at all
    first = beginning

    def nowhere(design: Any, rows: Any, own: Any) -> Any:
        found = first(design, rows, own)
        return {n: jnp.where((own < 0).all(), jnp.nan, v) for n, v in found.items()}

    # Programs that are remembered have begun with the other.
    monkeypatch.setattr("marginax.mixture.programs._remembered", Remembered())
    monkeypatch.setattr("marginax.mixture.maximization.beginning", nowhere)
    losses = rounds(GaussianMixture(2, covariance_type="diag"), X, labels)
    assert np.isinf(losses[1]).all()
    assert np.isfinite(losses[0]).all()
    assert losses.shape[1] < 100
