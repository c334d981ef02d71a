"""The hidden Markov estimator against forward-backward and Viterbi in NumPy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone

from marginax.mixture import HiddenMarkov
from marginax.mixture.selection import occupied

LENGTHS = [70, 1, 49]


def series() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    states = np.concatenate([np.repeat([0, 1, 0], [30, 25, 15]), [1], np.repeat([1, 0], [20, 29])])
    cells = np.column_stack([rng.normal(4.0 * states, 1.0), rng.normal(-2.0 * states, 1.5)])
    cells[5] = np.nan
    cells[60, 1] = np.nan
    return cells, states


CELLS, STATES = series()


@pytest.fixture(scope="module")
def fitted() -> HiddenMarkov:
    return HiddenMarkov(2, components="normal", n_init=2, random_state=0).fit(
        CELLS, lengths=LENGTHS
    )


def emissions(cells: np.ndarray, parameters: Any) -> np.ndarray:
    """Log density of each row in each state; missing cells count for nothing."""
    scales = np.sqrt(parameters["covariances"])
    each = stats.norm.logpdf(cells[:, None, :], parameters["means"], scales)
    return np.nan_to_num(each).sum(-1)


def by_numpy(cells: np.ndarray, parameters: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smoothed probabilities, one-step-ahead log densities, and the Viterbi path, of one series."""
    logs = emissions(cells, parameters)
    initial, transitions = parameters["initial"], parameters["transitions"]
    ahead, filtered, predicted = [], [], initial
    for row in logs:
        joint = predicted * np.exp(row)
        ahead.append(np.log(joint.sum()))
        filtered.append(joint / joint.sum())
        predicted = filtered[-1] @ transitions
    smoothed = [filtered[-1]]
    for state in filtered[-2::-1]:
        back = transitions * state[:, None]
        smoothed.append((back / back.sum(0)) @ smoothed[-1])
    best = np.log(initial) + logs[0]
    pointers = []
    for row in logs[1:]:
        scores = best[:, None] + np.log(transitions)
        pointers.append(scores.argmax(0))
        best = scores.max(0) + row
    path = [int(best.argmax())]
    for pointer in pointers[::-1]:
        path.append(int(pointer[path[-1]]))
    return np.array(smoothed[::-1]), np.array(ahead), np.array(path[::-1])


def test_answers_are_those_of_forward_backward_in_every_series(fitted: HiddenMarkov):
    probabilities = fitted.predict_proba(CELLS, lengths=LENGTHS)
    density = fitted.score_samples(CELLS, lengths=LENGTHS)
    path = fitted.predict(CELLS, lengths=LENGTHS)
    ends = np.cumsum(LENGTHS)
    for first, last in zip(ends - LENGTHS, ends, strict=True):
        smoothed, ahead, best = by_numpy(CELLS[first:last], fitted.parameters_)
        np.testing.assert_allclose(probabilities[first:last], smoothed, atol=1e-8)
        np.testing.assert_allclose(density[first:last], ahead, rtol=1e-7, atol=1e-9)
        np.testing.assert_array_equal(path[first:last], best)
    assert fitted.score(CELLS, lengths=LENGTHS) == pytest.approx(density.mean())
    total = 2 * density.sum()
    count = 1 + 2 + 2 * 2 + 2 * 2
    assert fitted.bic(CELLS, lengths=LENGTHS) == pytest.approx(count * np.log(120) - total)


def test_the_states_are_found(fitted: HiddenMarkov):
    found = fitted.predict(CELLS, lengths=LENGTHS)
    agree = np.mean(found == STATES)
    assert max(agree, 1 - agree) > 0.95


def test_a_series_is_drawn_whole(fitted: HiddenMarkov):
    rows, states = fitted.sample(200, random_state=0)
    assert rows.shape == (200, 2)
    changes = np.mean(np.diff(states) != 0)
    assert changes < 0.3  # one that stays is likelier than one drawn anew at every step
    parameters = fitted.parameters_
    spread = np.sqrt(parameters["covariances"][states])
    # Standardised by their states' parameters the rows are standard normal.
    assert abs(((rows - parameters["means"][states]) / spread).std() - 1) < 5 / np.sqrt(2 * 400)


@pytest.mark.parametrize("lengths", [[70, 49], [0, 120], [60.0, 60.0], 120, [[60, 60]]])
def test_lengths_that_do_not_fit_are_refused(fitted: HiddenMarkov, lengths: Any):
    with pytest.raises(ValueError, match="lengths must be whole numbers.*120 rows"):
        fitted.predict_proba(CELLS, lengths=lengths)


def test_with_a_posterior_draws_weigh_what_the_rows_before_say_of_them(fitted: HiddenMarkov):
    """Log p(series) = log mean_draws p(series | draw), row by row and in every series."""
    rng = np.random.default_rng(1)
    draws = {name: np.repeat(value, 5, 0) for name, value in fitted.fit_.draws.items()}
    draws["means"] = draws["means"] + 0.5 * rng.normal(size=draws["means"].shape)
    draws["transitions"] = rng.dirichlet([2.0, 2.0], size=(5, 2))
    found = HiddenMarkov(2, components="normal", n_init=2, random_state=0)
    vars(found).update(vars(fitted))
    found._predictors = {}
    found.fit_ = replace(fitted.fit_, draws=draws)
    smoothed, ahead = [], []
    for s in range(5):
        parameters = {name: value[s] for name, value in found.posterior_.items()}
        parts = np.split(CELLS, np.cumsum(LENGTHS)[:-1])
        answers = [by_numpy(part, parameters) for part in parts]
        smoothed.append(np.concatenate([a[0] for a in answers]))
        ahead.append(np.concatenate([np.cumsum(a[1]) for a in answers]))  # from each beginning
    cumulated = np.log(np.mean(np.exp(ahead), axis=0))
    first = np.cumsum([0, *LENGTHS[:-1]])
    expected = np.diff(cumulated, prepend=0.0)
    expected[first] = cumulated[first]
    scores = found.score_samples(CELLS, lengths=LENGTHS)
    np.testing.assert_allclose(scores, expected, rtol=1e-7)
    mean, std = found.predict_proba(CELLS, lengths=LENGTHS, return_std=True)
    np.testing.assert_allclose(mean, np.mean(smoothed, axis=0), atol=1e-7)
    np.testing.assert_allclose(std, np.std(smoothed, axis=0), atol=1e-6)
    np.testing.assert_array_equal(found.predict(CELLS, lengths=LENGTHS), mean.argmax(1))
    membership = found.membership(CELLS, lengths=LENGTHS)
    np.testing.assert_allclose(membership.log_density, scores)
    np.testing.assert_allclose(found.transform(CELLS, lengths=LENGTHS), mean)
    densities = found.log_densities(CELLS, lengths=LENGTHS)
    np.testing.assert_allclose(densities[:, first], np.array(ahead)[:, first], rtol=1e-7)
    assert occupied(found, CELLS, lengths=LENGTHS) == 2


def test_fitting_and_predicting_at_once_takes_series(fitted: HiddenMarkov):
    fresh: Any = clone(fitted)
    both = fresh.fit_predict(CELLS, lengths=LENGTHS)
    np.testing.assert_array_equal(both, fitted.predict(CELLS, lengths=LENGTHS))


@pytest.mark.slow
def test_its_posterior_is_averaged_over(fitted: HiddenMarkov):
    options = {"method": "nuts", "n_draws": 30, "n_warmup": 100, "n_chains": 1}
    found = HiddenMarkov(2, components="normal", n_init=1, random_state=0, **options)
    found.fit(CELLS[:70])
    mean, std = found.predict_proba(CELLS[:70], return_std=True)
    every = []
    for s in range(30):
        draw = {name: value[s] for name, value in found.posterior_.items()}
        every.append(by_numpy(CELLS[:70], draw)[0])
    np.testing.assert_allclose(mean, np.mean(every, axis=0), atol=1e-7)
    np.testing.assert_allclose(std, np.std(every, axis=0), atol=1e-6)
    np.testing.assert_array_equal(found.predict(CELLS[:70]), mean.argmax(1))
