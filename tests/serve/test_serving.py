"""What is answered: against SciPy, in every form that rows may have, without compiling anything on the way."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from asking import ask, ask_all, faults, post
from conftest import NAMES, two_clusters
from scipy import stats
from sklearn.base import clone

from marginax import __version__
from marginax.mixture import HiddenMarkov, MixtureModel
from marginax.serve import Limits, make_app
from marginax.serve.picture import shapes_of
from marginax.serve.schemas import Health, Predicted, Probabilities, Sampled

ROWS = [[2.0, 50.0], [3.2, 66.0], [None, 70.0], [4.0, None], [None, None]]


def by_scipy(cells: np.ndarray, posterior: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, their standard deviations over the draws, and log densities."""
    each, densities = [], []
    for weights, means, covariances in zip(
        posterior["weights"], posterior["means"], posterior["covariances"], strict=True
    ):
        joint = np.empty((len(cells), len(weights)))
        for n, cell in enumerate(cells):
            there = ~np.isnan(cell)
            for k, weight in enumerate(weights):
                joint[n, k] = np.log(weight)
                if there.any():
                    block = covariances[k][np.ix_(there, there)]
                    normal = stats.multivariate_normal(means[k, there], block)
                    joint[n, k] += normal.logpdf(cell[there])
        densities.append(np.logaddexp.reduce(joint, axis=1))
        each.append(np.exp(joint - densities[-1][:, None]))
    average = np.logaddexp.reduce(densities) - np.log(len(densities))
    return np.mean(each, 0), np.std(each, 0), average


def test_probabilities_spread_and_density_are_exact(app: Any, gaussian: Any):
    answer = post(app, "/predict_proba", {"rows": ROWS}).json()
    cells = np.array(ROWS, float)
    probabilities, spread, density = by_scipy(cells, gaussian.posterior_)
    np.testing.assert_allclose(answer["probabilities"], probabilities, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(answer["std"], spread, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(answer["log_density"], density, rtol=1e-8, atol=1e-9)
    predicted = post(app, "/predict", {"rows": ROWS}).json()
    assert predicted["component"] == probabilities.argmax(1).tolist()
    np.testing.assert_allclose(predicted["probability"], probabilities.max(1), rtol=1e-8)


def test_it_says_what_the_estimator_says_of_many_rows(app: Any, gaussian: Any):
    rng = np.random.default_rng(0)
    cells = rng.normal([3, 60], [2, 20], (37, 2))
    cells[rng.random(cells.shape) < 0.3] = np.nan
    rows = [[None if np.isnan(cell) else cell for cell in row] for row in cells]
    answer = post(app, "/predict_proba", {"rows": rows}).json()
    expected = by_scipy(cells, gaussian.posterior_)
    np.testing.assert_allclose(answer["probabilities"], expected[0], rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(answer["log_density"], expected[2], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "row",
    [
        {"length": 3.2, NAMES[1]: 66.0},
        {NAMES[1]: 66, "length": 3.2},
        [3.2, 66],
    ],
)
def test_rows_are_lists_or_objects(app: Any, row: Any):
    expected = post(app, "/predict_proba", {"rows": [[3.2, 66.0]]}).content
    assert post(app, "/predict_proba", {"rows": [row]}).content == expected


@pytest.mark.parametrize("row", [{"length": 4.0}, {"length": 4.0, NAMES[1]: None}, [4.0, None]])
def test_what_is_left_out_is_missing(app: Any, row: Any):
    answer = post(app, "/predict_proba", {"rows": [[2.0, 50.0], row]}).json()
    alone = post(app, "/predict_proba", {"rows": [[4.0, None]]}).json()
    np.testing.assert_allclose(answer["probabilities"][1], alone["probabilities"][0], rtol=1e-10)


def test_a_row_without_any_cell_says_the_weights(app: Any, gaussian: Any):
    answer = post(app, "/predict_proba", {"rows": [{}]}).json()
    np.testing.assert_allclose(answer["probabilities"][0], gaussian.posterior_["weights"].mean(0))
    assert answer["log_density"][0] == pytest.approx(0, abs=1e-12)


def test_answers_are_as_documented(app: Any):
    for path, model in (("/predict", Predicted), ("/predict_proba", Probabilities)):
        model.model_validate_json(post(app, path, {"rows": ROWS}).content)
    Sampled.model_validate_json(post(app, "/sample", {"count": 2}).content)
    health = Health.model_validate_json(ask(app, "GET", "/healthz").content)
    assert (health.status, health.model, health.version) == ("ok", "clusters", __version__)
    assert (health.components, health.columns) == (2, NAMES)
    assert ask(app, "GET", "/healthz").json()["requests"] == health.requests + 1


def test_openapi_has_the_columns_and_loads_nothing(app: Any):
    described = ask(app, "GET", "/openapi.json").json()
    assert set(described["paths"]) == {
        "/predict",
        "/predict_proba",
        "/sample",
        "/healthz",
        "/model",
    }
    body = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    as_list, by_name = body["schema"]["properties"]["rows"]["items"]["anyOf"]
    assert list(by_name["properties"]) == NAMES
    assert as_list["minItems"] == as_list["maxItems"] == 2
    body = described["paths"]["/sample"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["schema"]["properties"]) == {"count", "seed"}
    assert all("rows" in one["description"] for one in body["schema"]["properties"].values())
    for example in body["schema"]["examples"]:
        assert post(app, "/sample", example).status_code == 200
    text = json.dumps(described)
    for reference in set(text.split('"$ref": "#/components/schemas/')[1:]):
        assert reference.split('"')[0] in described["components"]["schemas"]
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert ask(app, "GET", path).status_code == 404


def test_samples_come_again_with_their_seed(app: Any, gaussian: Any):
    first = post(app, "/sample", {"count": 3}).json()
    again = post(app, "/sample", {"count": 3, "seed": first["seed"]}).json()
    assert again == first
    assert post(app, "/sample", {"count": 3, "seed": first["seed"] + 1}).json() != first
    many = post(app, "/sample", {"count": 2000, "seed": 0}).json()
    rows, component = np.array(many["rows"]), np.array(many["component"])
    weights, means = gaussian.posterior_["weights"].mean(0), gaussian.posterior_["means"].mean(0)
    assert np.bincount(component) / 2000 == pytest.approx(weights, abs=0.06)
    for k in range(2):
        own = rows[component == k]
        error = own.std(0) / np.sqrt(len(own))
        assert np.all(np.abs(own.mean(0) - means[k]) < 5 * error)


def test_nothing_is_compiled_after_the_start(app: Any):
    compiled: list[str] = []

    def note(event: str, duration_secs: float, **_: Any) -> None:
        if "compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        rng = np.random.default_rng(3)
        for count in (1, 2, 3, 7, 8, 9, 20, 64):
            for missing in (0.0, 0.1, 0.5, 1.0):
                cells = rng.normal([3, 60], [2, 20], (count, 2))
                gone = rng.random(cells.shape) < missing
                rows = [
                    [None if g else c for c, g in zip(*row, strict=True)]
                    for row in zip(cells, gone, strict=True)
                ]
                for path in ("/predict", "/predict_proba"):
                    assert post(app, path, {"rows": rows}).status_code == 200
            assert post(app, "/sample", {"count": count}).status_code == 200
        for query in ("", "?x=0", "?x=1&y=0"):
            assert ask(app, "GET", f"/model{query}").status_code == 200
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert compiled == []


def test_many_requests_at_once_are_answered_each_with_its_own(app: Any):
    rng = np.random.default_rng(4)
    points = rng.normal([3, 60], [2, 20], (60, 2)).tolist()
    together = post(app, "/predict_proba", {"rows": points}).json()["probabilities"]
    asked = [("POST", "/predict_proba", {"json": {"rows": [point]}}) for point in points]
    answers = [one.json()["probabilities"][0] for one in ask_all(app, asked)]
    np.testing.assert_allclose(answers, together, rtol=1e-9, atol=1e-12)


def test_a_point_estimate_has_no_spread(gaussian: Any):
    point: Any = clone(gaussian)
    point.fit(two_clusters())
    other = make_app(point, sizes=(1,))
    answer = post(other, "/predict_proba", {"rows": [[2.0, 50.0]]}).json()
    expected = by_scipy(np.array([[2.0, 50.0]]), {n: v[None] for n, v in point.parameters_.items()})
    np.testing.assert_allclose(answer["probabilities"], expected[0], rtol=1e-8, atol=1e-12)
    assert answer["std"] is None
    picture = ask(other, "GET", "/model").json()["picture"]
    assert (picture["points"], len(picture["shapes"])) == ([], 1)


def mixed_table(count: int = 60) -> Any:
    rng = np.random.default_rng(5)
    which = rng.random(count) < 0.4
    return pd.DataFrame(
        {
            "width": np.where(which, 1.0, 4.0) + 0.2 * rng.normal(size=count),
            "visits": rng.poisson(np.where(which, 2, 12)),
            "species": np.where(which, "rose", rng.choice(["tulip", "daisy"], count)),
            "open": np.where(which, rng.random(count) < 0.9, rng.random(count) < 0.2),
        }
    )


def test_words_counts_and_truth_values():
    table = mixed_table()
    groups = [
        ("size", "normal", ["width"]),
        ("visits", "poisson", ["visits"]),
        ("kinds", "categorical", ["species", "open"]),
    ]
    model = MixtureModel(2, components=groups, n_init=1, max_iter=50, random_state=0).fit(table)
    app = make_app(model, sizes=(1,))
    rows = [[1.0, 2, "rose", True], {"species": "tulip", "open": False}, [None, 11, None, None]]
    answer = post(app, "/predict_proba", {"rows": rows}).json()
    frame = pd.DataFrame(
        [[1.0, 2, "rose", True], [None, None, "tulip", False], [None, 11, None, None]],
        columns=table.columns,
    )
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(frame), rtol=1e-8)
    for row, wrong in (
        ([1.0, 2.5, "rose", True], "visits"),
        ([1.0, True, "rose", True], "visits"),
        ([1.0, 2, "violet", True], "species"),
        ([1.0, 2, "rose", 1], "open"),
        ([1.0, 2, "rose", "True"], "open"),
        (["1.0", 2, "rose", True], "width"),
    ):
        response = post(app, "/predict", {"rows": [rows[0], row]})
        assert response.status_code == 422
        (found,) = faults(response)
        assert (found["field"], found["row"], found["column"]) == (f"rows[1].{wrong}", 1, wrong)
    sampled = post(app, "/sample", {"count": 20, "seed": 1}).json()["rows"]
    for width, visits, species, is_open in sampled:
        assert (type(width), type(visits), type(is_open)) == (float, int, bool)
        assert species in ("rose", "tulip", "daisy")
    facts = ask(app, "GET", "/model?x=2").json()
    assert [c["kind"] for c in facts["columns"]] == ["number", "count", "category", "category"]
    assert np.sum(facts["picture"]["densities"]) == pytest.approx(1)
    means, covariances = shapes_of(model, model.fit_.point)
    np.testing.assert_allclose(means[:, 0], model.parameters_["size.means"][:, 0])
    np.testing.assert_allclose(means[:, 1], model.parameters_["visits.rates"][:, 0])
    np.testing.assert_allclose(covariances[:, 0, 0], model.parameters_["size.covariances"][:, 0])
    np.testing.assert_allclose(covariances[:, 1, 1], means[:, 1])  # as of any Poisson distribution
    assert np.isnan(means[:, 2:]).all()
    assert ask(app, "GET", "/model?x=0&y=2").status_code == 422


@pytest.mark.slow
def test_of_a_hidden_markov_model_rows_are_steps_of_one_series():
    rng = np.random.default_rng(0)
    states = np.repeat([0, 1, 0, 1], 30)
    X = (6.0 * states + rng.normal(size=120))[:, None]
    model = HiddenMarkov(2, n_init=1, max_iter=100, random_state=0).fit(X)
    app = make_app(model, sizes=(16, 64), limits=Limits(rows=500))
    rows = [[1.0], [None], [2.9], [3.1], [5.0], [None]]
    answer = post(app, "/predict_proba", {"rows": rows}).json()
    cells = np.array(rows, float)
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(cells), atol=1e-10)
    np.testing.assert_allclose(answer["log_density"], model.score_samples(cells), rtol=1e-8)
    predicted = post(app, "/predict", {"rows": rows}).json()
    assert predicted["component"] == model.predict(cells).tolist()  # the path
    assert ask(app, "GET", "/model").json()["is_series"] is True
    assert ask(app, "GET", "/model").json()["limits"]["rows"] == 64
    response = post(app, "/predict", {"rows": [[1.0]] * 65})
    assert response.status_code == 422
    assert "65" in faults(response)[0]["msg"]
