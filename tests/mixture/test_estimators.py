"""Estimators of mixtures against SciPy and closed forms: what they predict, score, draw, refuse and remember."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import marginax.distributions as dist
from marginax.mixture import GaussianMixture, MixtureModel, Normal
from marginax.mixture.mixture_model import FAMILIES, groups_of

FEW: Any = {"n_init": 2, "max_iter": 200, "random_state": 0}


def two_clusters(count: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    low = rng.multivariate_normal([2.0, 50.0], [[0.1, 1.0], [1.0, 30.0]], count)
    high = rng.multivariate_normal([4.5, 80.0], [[0.2, 1.0], [1.0, 40.0]], 2 * count)
    return np.concatenate([low, high])


X = two_clusters()


@pytest.fixture(scope="module")
def fitted() -> GaussianMixture:
    return GaussianMixture(2, **FEW).fit(X)


@pytest.fixture(scope="module")
def sampled() -> GaussianMixture:
    options = {"method": "nuts", "n_draws": 60, "n_warmup": 150, "n_chains": 2}
    return GaussianMixture(2, **FEW, **options).fit(X)


def by_scipy(cells: np.ndarray, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the components, and log density, of rows with missing cells."""
    joint = np.empty((len(cells), len(parameters["weights"])))
    for n, cell in enumerate(cells):
        there = ~np.isnan(cell)
        for k, weight in enumerate(parameters["weights"]):
            joint[n, k] = np.log(weight)
            if there.any():
                block = parameters["covariances"][k][np.ix_(there, there)]
                near = stats.multivariate_normal(parameters["means"][k, there], block)
                joint[n, k] += near.logpdf(cell[there])
    total = np.logaddexp.reduce(joint, axis=1)
    return np.exp(joint - total[:, None]), total


NEW = np.array([[2.0, 50.0], [3.2, 66.0], [np.nan, 70.0], [4.0, np.nan], [np.nan, np.nan]])


def test_predictions_and_scores_are_those_of_its_parameters(fitted: GaussianMixture):
    expected, density = by_scipy(NEW, fitted.parameters_)
    np.testing.assert_allclose(fitted.predict_proba(NEW), expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(fitted.score_samples(NEW), density, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(fitted.predict(NEW), expected.argmax(1))
    assert fitted.score(X) == pytest.approx(by_scipy(X, fitted.parameters_)[1].mean())
    assert fitted.score_samples(NEW)[-1] == pytest.approx(0.0)  # nothing known, nothing to explain


def test_components_are_numbered_by_falling_weight(fitted: GaussianMixture):
    np.testing.assert_allclose(fitted.weights_, [2 / 3, 1 / 3], atol=0.01)
    np.testing.assert_allclose(fitted.means_, [[4.5, 80.0], [2.0, 50.0]], rtol=0.1)


def test_information_criteria_count_the_free_numbers(fitted: GaussianMixture):
    assert fitted.n_parameters_ == 1 + 2 * 2 + 2 * 3
    total = by_scipy(X, fitted.parameters_)[1].sum()
    assert fitted.bic(X) == pytest.approx(11 * np.log(len(X)) - 2 * total)
    assert fitted.aic(X) == pytest.approx(2 * 11 - 2 * total)


def test_units_do_not_matter(fitted: GaussianMixture):
    factor, shift = np.array([1e6, 1e-4]), np.array([1e7, -3.0])
    moved = GaussianMixture(2, **FEW).fit(X * factor + shift)
    np.testing.assert_allclose(moved.means_, fitted.means_ * factor + shift, rtol=1e-4)
    expected = fitted.score_samples(NEW[:4]) - np.log(factor[0]) * np.array([1, 1, 0, 1])
    expected = expected - np.log(factor[1]) * np.array([1, 1, 1, 0])
    np.testing.assert_allclose(moved.score_samples(NEW[:4] * factor + shift), expected, atol=1e-3)


def test_draws_look_like_the_mixture(fitted: GaussianMixture):
    count = 3000
    rows, components = fitted.sample(count, random_state=0)
    assert rows.shape == (count, 2)
    error = 5 * np.sqrt(2 / 9 / count)
    assert np.mean(components == 0) == pytest.approx(fitted.weights_[0], abs=error)
    for k in range(2):
        own = rows[components == k]
        spread = np.sqrt(np.diagonal(fitted.covariances_[k]))
        assert (np.abs(own.mean(0) - fitted.means_[k]) < 5 * spread / np.sqrt(len(own))).all()
    again, _ = fitted.sample(count, random_state=0)
    np.testing.assert_array_equal(rows, again)
    with pytest.raises(ValueError, match="n_samples must be an integer >= 1"):
        fitted.sample(0)


@pytest.mark.parametrize("size", [1, 3, 8, 9, 100])
def test_how_many_rows_come_at_once_changes_nothing(fitted: GaussianMixture, size: int):
    cells = np.tile(X, (2, 1))[:size]
    expected, density = by_scipy(cells, fitted.parameters_)
    np.testing.assert_allclose(fitted.predict_proba(cells), expected, atol=1e-9)
    np.testing.assert_allclose(fitted.score_samples(cells), density, rtol=1e-9)


def test_a_table_longer_than_the_largest_program_is_cut_up(fitted: GaussianMixture):
    rng = np.random.default_rng(1)
    cells = rng.normal([3.0, 65.0], [1.5, 15.0], (9000, 2))
    cells[rng.random(cells.shape) < 0.1] = np.nan
    some = rng.choice(9000, 40)
    expected, _ = by_scipy(cells[some], fitted.parameters_)
    np.testing.assert_allclose(fitted.predict_proba(cells)[some], expected, atol=1e-9)


def test_memberships_are_averaged_over_the_posterior(sampled: GaussianMixture):
    draws = sampled.posterior_
    count = len(draws["weights"])
    assert count == 2 * 60
    every = [by_scipy(NEW, {n: v[s] for n, v in draws.items()}) for s in range(count)]
    probabilities = np.stack([p for p, _ in every])
    density = np.stack([d for _, d in every])
    mean, std = sampled.predict_proba(NEW, return_std=True)
    np.testing.assert_allclose(mean, probabilities.mean(0), atol=1e-8)
    np.testing.assert_allclose(std, probabilities.std(0), atol=1e-7)
    expected = np.logaddexp.reduce(density, axis=0) - np.log(count)
    np.testing.assert_allclose(sampled.score_samples(NEW), expected, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(sampled.log_densities(NEW), density, rtol=1e-7, atol=1e-8)
    rows, _ = sampled.sample(50, random_state=0)
    assert rows.shape == (50, 2)


def test_the_posterior_is_around_the_optimum_and_summarised(sampled: GaussianMixture):
    summary = sampled.summary()
    for k in range(2):
        for j in range(2):
            row = summary[f"means[{k},{j}]"]
            assert abs(row["mean"] - sampled.means_[k, j]) < 4 * row["std"]
    assert sampled.fit_.relabelled
    # A mean's posterior spread is near that of a mean of its rows.
    expected = np.sqrt(sampled.covariances_[0][0, 0] / (sampled.weights_[0] * len(X)))
    assert summary["means[0,0]"]["std"] == pytest.approx(expected, rel=0.5)


def test_the_variational_posterior_is_near_a_closed_form():
    rng = np.random.default_rng(0)
    x = rng.normal(5.0, 2.0, (50, 1))
    found = GaussianMixture(1, method="vi", n_draws=2000, **FEW).fit(x)
    means = found.posterior_["means"][:, 0, 0]
    # Of one component: a flat mean has a t posterior, nearly normal with the standard error for its spread.
    error = x.std() / np.sqrt(50)
    assert means.mean() == pytest.approx(x.mean(), abs=0.25 * error)
    assert means.std() == pytest.approx(error, rel=0.2)


def test_one_component_is_a_normal_distribution():
    found = GaussianMixture(1, priors="flat", **FEW).fit(X)
    np.testing.assert_allclose(found.means_[0], X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.covariances_[0], np.cov(X.T, bias=True), rtol=1e-3)
    assert found.predict_proba(X[:2]).tolist() == [[1.0], [1.0]]


def test_stated_priors_are_used():
    tight = {"means": dist.Normal(np.array([2.0, -2.0]), 1e-3)}
    found = GaussianMixture(1, priors=tight, **FEW).fit(X)
    np.testing.assert_allclose(found.fit_.point["means"][0], [2.0, -2.0], atol=0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "em"}, "method must be one of"),
        ({"covariance_type": "round"}, "covariance_type must be one of"),
        ({"n_components": 0}, "n_components must be an integer >= 1"),
        ({"n_init": 2.5}, "n_init must be an integer >= 1"),
        ({"n_components": 500}, "needs at least 500 rows"),
        ({"weight_concentration_prior": -1.0}, "must be a number above 0"),
        (
            {"priors": {"mean": dist.Normal(0.0, 1.0)}},
            "'mean', which is no parameter; there are: 'weights'",
        ),
        ({"priors": {"means": dist.Normal(np.zeros(3), 1.0)}}, r"has the shape \(3,\).*has \(2,\)"),
        ({"priors": {"precision_factors": dist.Normal(0.0, 1.0)}}, "whose values need not be"),
        ({"priors": {"means": 3.0}}, "must be a distribution"),
        ({"priors": "none"}, "priors must be None, 'flat', or a dictionary"),
        ({"priors": "flat", "method": "nuts"}, "needs priors"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, words: str):
    estimator = GaussianMixture(2, **FEW).set_params(**options)
    with pytest.raises((ValueError, TypeError), match=words):
        estimator.fit(X)


def test_a_point_estimate_does_not_pretend_to_know_its_spread(fitted: GaussianMixture):
    with pytest.raises(ValueError, match="needs a posterior.*method='nuts'"):
        fitted.predict_proba(NEW, return_std=True)


def test_before_the_fit_nothing_is_predicted():
    for ask in ("predict", "predict_proba", "score_samples"):
        with pytest.raises(NotFittedError):
            getattr(GaussianMixture(), ask)(X)
    with pytest.raises(NotFittedError):
        _ = GaussianMixture().parameters_


def test_frames_go_in_and_come_out(fitted: GaussianMixture):
    frame = pd.DataFrame(X, columns=["length", "mass"], index=np.arange(len(X)) + 100)
    mixture: Any = clone(fitted)
    mixture.fit(frame)
    assert mixture.feature_names_in_.tolist() == ["length", "mass"]
    found = mixture.predict_proba(frame, as_frame=True)
    assert isinstance(found, pd.DataFrame)
    assert found.index.equals(frame.index)
    np.testing.assert_allclose(found.to_numpy(), mixture.predict_proba(frame))
    there = pl.DataFrame({"length": X[:, 0], "mass": X[:, 1]})
    assert isinstance(mixture.predict_proba(there, as_frame=True), pl.DataFrame)
    mixture.set_output(transform="polars")
    assert mixture.transform(there).columns == ["gaussianmixture0", "gaussianmixture1"]
    with pytest.raises(ValueError, match="feature names"):
        mixture.predict(frame.rename(columns={"mass": "weight"}))
    with pytest.raises(TypeError, match="not a pandas or polars frame"):
        fitted.predict_proba(X, as_frame=True)


def test_it_is_a_step_of_a_pipeline_and_survives_pickling(fitted: GaussianMixture):
    pipeline = make_pipeline(StandardScaler(), clone(fitted)).fit(X)
    assert (pipeline.predict(X) == fitted.predict(X)).all()
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(NEW), fitted.predict_proba(NEW))


# -- other families


def mixed(count: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    z = rng.integers(0, 2, count)
    frame = pd.DataFrame(
        {
            "size": rng.normal(5.0 * z, 1.0),
            "visits": rng.poisson(2 + 15 * z).astype(float),
            "city": np.where(rng.random(count) < 0.15 + 0.7 * z, "Rome", "Oslo").astype(object),
        }
    )
    frame.loc[3, "city"] = None
    frame.loc[5, "size"] = np.nan
    frame.loc[7, "visits"] = np.nan
    return frame


GROUPS = [
    ("body", Normal(), ["size"]),
    ("shop", "poisson", ["visits"]),
    ("home", "categorical", ["city"]),
]


@pytest.fixture(scope="module")
def of_columns() -> MixtureModel:
    return MixtureModel(2, components=GROUPS, **FEW).fit(mixed())


def test_groups_of_columns_have_families_of_their_own(of_columns: MixtureModel):
    frame, found = mixed(), of_columns.parameters_
    joint = np.tile(np.log(found["weights"]), (len(frame), 1))
    for k in range(2):
        shares = dict(zip(["Oslo", "Rome"], found["home.probs"][k], strict=True))
        scale = np.sqrt(found["body.covariances"][k, 0])
        parts = [
            stats.norm.logpdf(frame["size"], found["body.means"][k, 0], scale),
            stats.poisson.logpmf(frame["visits"], found["shop.rates"][k, 0]),
            np.log([shares.get(c, np.nan) for c in frame["city"]]),
        ]
        joint[:, k] += sum(np.nan_to_num(np.asarray(part, float)) for part in parts)
    total = np.logaddexp.reduce(joint, axis=1)
    np.testing.assert_allclose(of_columns.score_samples(frame), total, rtol=1e-8)
    np.testing.assert_allclose(
        of_columns.predict_proba(frame), np.exp(joint - total[:, None]), atol=1e-9
    )


def test_words_are_drawn_as_words(of_columns: MixtureModel):
    rows, _ = of_columns.sample(20, random_state=0)
    assert set(rows[:, 2]) <= {"Oslo", "Rome"}
    assert all(float(visits).is_integer() for visits in rows[:, 1])


def test_cells_that_a_family_does_not_take_are_named(of_columns: MixtureModel):
    frame = mixed()
    frame.loc[11, "city"] = "Bonn"
    with pytest.raises(
        ValueError, match="column 'city': its cell in row 11 is 'Bonn'.*has not seen"
    ):
        of_columns.predict(frame)
    frame = mixed()
    frame.loc[4, "visits"] = -2.0
    with pytest.raises(ValueError, match="column 'visits': its cell in row 4 is -2.*whole numbers"):
        of_columns.predict(frame)
    frame = mixed().astype({"visits": object})
    frame.loc[9, "visits"] = "many"
    with pytest.raises(
        ValueError, match="column 'visits': its cell in row 9 is 'many', which is no number"
    ):
        of_columns.predict(frame)


@pytest.mark.parametrize(
    ("components", "words"),
    [
        ("gausian", "there is no family 'gausian'; there are 'gaussian'"),
        (3, "components must be a family, or a list"),
        ([("a", "poisson")], r"each group must be \(name, family, columns\)"),
        ([("a", "poisson", ["x"])], "names column 'x', which the table does not have"),
        ([("a", "poisson", [0])], "no group has the columns 'b'"),
        (
            [("a", "poisson", [0, 1]), ("b", "normal", ["b"])],
            "column 'b' is in the groups 'a' and 'b'",
        ),
        ([("a", "poisson", [0]), ("a", "normal", [1])], "needs a name of its own"),
    ],
)
def test_groups_that_make_no_sense_are_refused(components: Any, words: str):
    with pytest.raises((ValueError, TypeError), match=words):
        groups_of(components, ["a", "b"])


@pytest.mark.parametrize(
    "family",
    [
        "student_t",
        *(
            pytest.param(f, marks=pytest.mark.slow)
            for f in ("gamma", "negative_binomial", "bernoulli")
        ),
    ],
)
def test_a_family_separates_what_differs(family: str):
    rng = np.random.default_rng(0)
    z = np.repeat([0, 1], 60)
    cells = {
        "student_t": rng.standard_t(3, (120, 2)) + 12.0 * z[:, None],
        "gamma": rng.gamma(4.0, np.where(z, 9.0, 0.5)[:, None], (120, 2)),
        "negative_binomial": rng.negative_binomial(4, np.where(z, 0.1, 0.8)[:, None], (120, 2)),
        "bernoulli": rng.binomial(1, np.where(z, 0.95, 0.05)[:, None], (120, 6)),
    }[family]
    found = MixtureModel(2, components=family, **FEW).fit_predict(cells)
    agree = np.mean(found == z)
    assert max(agree, 1 - agree) > 0.9


def test_every_family_has_a_name():
    assert {type(f).__name__ for f in FAMILIES.values()} == {
        "Gaussian", "Normal", "StudentT", "LogNormal", "Gamma", "Poisson", "NegativeBinomial", "Beta",
        "Bernoulli", "Categorical",
    }  # fmt: skip


def test_a_column_without_values_or_without_spread():
    cells = X.copy()
    cells[:, 1] = np.nan
    with pytest.raises(ValueError, match="column 'x1': all its cells are missing"):
        GaussianMixture(2, **FEW).fit(cells)
    cells[:, 1] = 7.0
    found = GaussianMixture(2, covariance_type="diag", **FEW).fit(cells)
    np.testing.assert_allclose(found.means_[:, 1], 7.0, atol=0.05)
    assert np.isfinite(found.score(cells))


@pytest.mark.parametrize(
    ("method", "loop"),
    [("map", "marginax.mixture.fitting"), ("vi", "marginax.infer.svi.training")],
)
def test_a_fit_that_is_interrupted_is_no_fit(
    method: str, loop: str, monkeypatch: pytest.MonkeyPatch
):
    """Training keeps what it has on Ctrl-C; an estimator must not pass for fitted."""
    from contextlib import contextmanager

    @contextmanager
    def at_once():
        yield lambda: True

    monkeypatch.setattr(f"{loop}.interruptible", at_once)
    model = GaussianMixture(2, method=method, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(np.arange(20.0)[:, None])
    assert not hasattr(model, "fit_")


def test_a_sample_that_is_interrupted_is_no_sample(monkeypatch: pytest.MonkeyPatch):
    from contextlib import contextmanager
    from itertools import count

    @contextmanager
    def after_some_draws():
        asked = count()
        yield lambda: next(asked) > 8

    monkeypatch.setattr("marginax.infer.mcmc.sampling.interruptible", after_some_draws)
    model = GaussianMixture(
        1, method="nuts", n_draws=50_000, n_warmup=20, n_chains=1, random_state=0
    )
    with pytest.raises(KeyboardInterrupt):
        model.fit(np.arange(20.0)[:, None])
    assert not hasattr(model, "fit_")


def test_numbers_too_large_to_compute_with_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="column 'x1'.*too large"):
        GaussianMixture(2).fit(rng.normal(size=(30, 2)) * [1.0, 1e300])
