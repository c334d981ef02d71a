"""How many programs a fit compiles and how often it runs its model: few, and for a table like the last one none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone

import marginax.distributions as dist
from marginax.jaxpr.compiled import QUICK, compiler_options
from marginax.mixture import GaussianMixture, HiddenMarkov, MixtureModel, select
from marginax.mixture.model import Design

COMPILED = "/jax/core/compile/backend_compile_duration"
MOST_PROGRAMS, MOST_RUNS = 8, 2


@dataclass
class Spent:
    """What was done while one looked."""

    programs: list[float] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


WATCHED: list[Spent] = []


@jax.monitoring.register_event_duration_secs_listener
def _listen(event: str, duration_secs: float, **_: Any) -> None:
    if event == COMPILED:
        for spent in WATCHED:
            spent.programs.append(duration_secs)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives what is spent inside of it."""
    compiler_options(QUICK)  # asks XLA for what it knows, once in a process
    for name in ("_mixture", "_chain"):
        original = getattr(Design, name)

        def counted(design: Any, rows: Any, name: str = name, original: Any = original) -> Any:
            for spent in WATCHED:
                spent.runs.append(name)
            return original(design, rows)

        monkeypatch.setattr(Design, name, counted)

    @contextmanager
    def watch() -> Iterator[Spent]:
        WATCHED.append(spent := Spent())
        try:
            yield spent
        finally:
            WATCHED.remove(spent)

    return watch


def table(seed: int, rows: int) -> np.ndarray:
    """Two clusters of a number and a count."""
    rng = np.random.default_rng(seed)
    which = np.arange(rows) % 3 > 0
    return np.column_stack([8.0 * which + rng.normal(size=rows), rng.poisson(3 + 20 * which)])


MIXED = [("size", "normal", [0]), ("visits", "poisson", [1])]


@pytest.mark.parametrize(
    "model",
    [
        GaussianMixture(2, random_state=0),
        MixtureModel(2, components=MIXED, random_state=0),
        HiddenMarkov(2, components="normal", random_state=0),
    ],
    ids=["gaussian", "mixed", "chain"],
)
def test_a_fit_is_a_handful_of_programs_and_the_next_is_none(model: Any, watched: Any):
    with watched() as first:
        model.fit(table(0, 231))
    assert len(first.programs) <= MOST_PROGRAMS
    assert len(first.runs) <= MOST_RUNS
    with watched() as another:  # the same size when it is filled up, other cells, other units
        model.fit(7.0 * table(1, 228))
    assert not another.programs
    assert not another.runs


def test_an_answer_is_one_program(watched: Any):
    fitted = GaussianMixture(2, covariance_type="diag", n_init=2, random_state=0).fit(table(2, 70))
    with watched() as first:
        fitted.predict_proba(table(3, 70))
    assert len(first.programs) <= 1
    assert len(first.runs) <= MOST_RUNS
    refitted = GaussianMixture(2, covariance_type="diag", n_init=2, random_state=0).fit(
        table(4, 70)
    )
    with watched() as another:
        refitted.predict_proba(table(5, 69))
        refitted.bic(table(4, 70))
    assert not another.programs
    assert not another.runs


def test_priors_with_other_numbers_need_no_other_program(watched: Any):
    def fit(width: float) -> Any:
        priors = {"means": dist.Normal(jnp.zeros(2), width).to_event(1)}
        model = GaussianMixture(2, covariance_type="diag", priors=priors, n_init=2, random_state=0)
        return model.fit(table(6, 50))

    wide = fit(10.0)
    with watched() as spent:
        narrow = fit(0.1)
    assert not spent.runs
    assert np.ptp(narrow.means_[:, 0]) < np.ptp(wide.means_[:, 0]) - 1e-3


class Doubled(dist.Normal):
    """A distribution of the user's, of which nobody knows what it reads."""

    factor = 1.0

    def log_prob(self, value: Any) -> Any:
        return self.factor * super().log_prob(value)


def test_distributions_of_the_users_are_asked_again():
    X = table(7, 40)[:, :1]

    def means(factor: float) -> np.ndarray:
        Doubled.factor = factor
        prior = Doubled(jnp.full(1, 3.0), 0.1).to_event(1)
        return GaussianMixture(1, priors={"means": prior}, n_init=1, random_state=0).fit(X).means_

    assert means(0.01)[0, 0] < means(100.0)[0, 0] - 1


@pytest.mark.parametrize("priors", [None, "flat"])
def test_numbers_of_components_that_are_compared_share_their_programs(priors: Any, watched: Any):
    X = table(8, 90)
    model = MixtureModel(components=MIXED, priors=priors, n_init=2, random_state=0)
    with watched() as spent:
        found = select(X, [1, 2, 3], model)
    assert len(spent.programs) <= MOST_PROGRAMS
    assert len(spent.runs) <= 2 * MOST_RUNS  # to fit, and to predict
    for number, one in zip([1, 2, 3], found.estimators, strict=True):
        alone: Any = clone(model)
        alone.set_params(n_components=number).fit(X)
        assert one.bic(X) == pytest.approx(alone.bic(X), rel=1e-6)
        assert {n: v.shape for n, v in one.parameters_.items()} == {
            n: v.shape for n, v in alone.parameters_.items()
        }
        np.testing.assert_allclose(
            one.parameters_["weights"], alone.parameters_["weights"], atol=1e-4
        )
        np.testing.assert_allclose(one.predict_proba(X), alone.predict_proba(X), atol=1e-3)
