"""How many components: criteria against hand-made formulas, and choices where the truth is known."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from marginax.mixture import GaussianMixture, HiddenMarkov, Selection, select
from marginax.mixture.sampling import Agreement, agreement
from marginax.mixture.selection import leave_one_out, occupied

FEW: Any = {"n_init": 4, "random_state": 0}


def clusters() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(m, 1.0, (40, 1)) for m in (0.0, 7.0)])


@pytest.fixture(scope="module")
def by_bic() -> Selection:
    return select(clusters(), [1, 2, 3], GaussianMixture(**FEW))


def test_bic_finds_the_clusters_and_says_so_in_a_table(by_bic: Selection):
    assert by_bic.n_components == 2
    assert by_bic.best is by_bic.estimators[1]
    assert [row["bic"] for row in by_bic.rows] == [e.bic(clusters()) for e in by_bic.estimators]
    lines = str(by_bic).splitlines()
    assert lines[0].split()[:2] == ["components", "parameters"]
    assert [line.startswith("*") for line in lines[1:4]] == [False, True, False]


def test_the_comparison_is_drawn(by_bic: Selection):
    (axes,) = by_bic.plot().axes
    assert axes.get_lines()[0].get_xdata().tolist() == [1, 2, 3]
    assert axes.get_xlabel() == "components"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # three are too many
def test_psis_loo_finds_the_clusters_and_prefers_few_of_equals():
    options: Any = {"method": "nuts", "n_draws": 200, "n_warmup": 200, "n_chains": 2}
    found = select(clusters(), [1, 2, 3], GaussianMixture(**FEW, **options))
    assert found.criterion == "loo"
    assert found.n_components == 2
    assert found.rows[1]["loo_difference"] <= found.rows[1]["loo_difference_se"] + 1e-9


def test_psis_loo_is_the_density_of_rows_left_out():
    """Of one normal component the posterior is a surface over mean and precision, and is summed on a grid."""
    rng = np.random.default_rng(0)
    cells = rng.normal(3.0, 2.0, (60, 1))
    options: Any = {"method": "nuts", "n_draws": 500, "n_warmup": 200, "n_chains": 1}
    found = GaussianMixture(1, n_init=1, random_state=0, **options).fit(cells)
    each, pareto = leave_one_out(found, cells)
    assert (pareto < 0.7).all()
    x = (cells[:, 0] - cells.mean()) / cells.std()
    means, precisions = np.meshgrid(np.linspace(-1, 1, 201), np.linspace(0.2, 3, 281))
    prior = stats.norm.logpdf(means, 0.0, 3.0) + stats.gamma.logpdf(precisions, 1.5, scale=10.0)
    rows = stats.norm.logpdf(x[:, None, None], means, precisions**-0.5)
    everything = prior + rows.sum(0)
    total = np.logaddexp.reduce(everything, axis=None)
    rest = np.array([np.logaddexp.reduce(everything - row, axis=None) for row in rows])
    squares = np.array([np.logaddexp.reduce(everything - 2 * row, axis=None) for row in rows])
    expected = total - rest - np.log(cells.std())
    # The estimate is a mean of weights, of which this is the relative variance; half of the draws count as independent.
    error = np.sqrt((np.exp(squares + total - 2 * rest) - 1) / (500 / 2))
    assert (np.abs(each - expected) < 5 * error + 0.01).all()
    assert error.max() < 0.1


@pytest.mark.slow
def test_a_sparse_prior_leaves_components_empty_that_are_not_needed():
    options: Any = {"method": "nuts", "n_draws": 200, "n_warmup": 300, "n_chains": 1}
    sparse = GaussianMixture(5, weight_concentration_prior=0.05, **FEW, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty components wander, and it says so
        sparse.fit(clusters())
    assert occupied(sparse, clusters(), share=0.1) == 2


@pytest.mark.parametrize(
    ("estimator", "options", "words"),
    [
        (GaussianMixture(), {"criterion": "loo"}, "PSIS-LOO needs posterior draws"),
        (GaussianMixture(), {"criterion": "dic"}, "criterion must be one of"),
        (HiddenMarkov(method="nuts"), {"criterion": "loo"}, "not left out one by one"),
    ],
)
def test_criteria_that_do_not_fit_are_refused(estimator: Any, options: Any, words: str):
    with pytest.raises(ValueError, match=words):
        select(clusters(), [1, 2], estimator, **options)
    with pytest.raises(ValueError, match="n_components is empty"):
        select(clusters(), [], estimator)


def test_a_posterior_that_has_not_converged_is_not_chosen_without_a_warning(monkeypatch: Any):
    options: Any = {"method": "nuts", "n_draws": 60, "n_warmup": 60, "n_chains": 2}
    estimator = GaussianMixture(n_init=1, random_state=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sound = select(clusters(), [1], estimator)
    assert "r_hat" in sound.rows[0]
    assert f"{sound.rows[0]['r_hat']:.2f}" in str(sound)
    one = sound.best.fit_
    assert agreement(one).is_fine
    half = np.arange(120) >= 60
    apart = {n: v + 5.0 * half.reshape(-1, *[1] * (v.ndim - 1)) for n, v in one.draws.items()}
    assert not agreement(replace(one, draws=apart)).is_fine
    assert not agreement(replace(one, draws=apart, chains=1)).is_fine  # its halves differ
    monkeypatch.setattr(
        "marginax.mixture.selection.agreement", lambda fit: Agreement("means[0]", 1.8, False)
    )
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        select(clusters(), [1], estimator)
    said = [str(w.message) for w in heard if issubclass(w.category, ConvergenceWarning)]
    assert any("LOO chooses has not converged: R-hat of means[0] is 1.80" in m for m in said)
