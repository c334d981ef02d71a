"""The models of examples/latent_discrete/ against densities that were marginalised by hand.

Each density below is written in NumPy and SciPy from the model's definition, with the sum over the discrete
variables done on paper: a closed form where there is one (the probability of never being seen again, of
never being detected, of a zero), a sum over all values of one variable where there is none.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from test_examples import EXAMPLES, run

import marginax as mx

EXACT = 1e-9  # relative, in double precision
STEP = 1e-5  # of central differences: an error of 1e-10 from the third derivative, as much from rounding
CLOSE = 1e-6

Params = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def script(name: str, folder: str = "latent_discrete") -> ModuleType:
    """A script as a module; it does nothing until its `main` is called."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- by hand -------------------------------------------------------------------------------------


def log_sum(terms: Any) -> Any:
    """Log of the sum of the exponentials along the last axis."""
    return special.logsumexp(terms, axis=-1)


def dirichlet(x: np.ndarray, concentration: float) -> float:
    """Log density of the rows of a table under a symmetric Dirichlet."""
    rows = np.reshape(x, (-1, np.shape(x)[-1]))
    alpha = np.full(rows.shape[1], concentration)
    return sum(stats.dirichlet.logpdf(row / row.sum(), alpha) for row in rows)


def coal_mining(p: Params, counts: np.ndarray) -> float:
    n = len(counts)
    prior = sum(stats.expon.logpdf(p[name], scale=2.0) for name in ("early", "late"))
    joint = [
        stats.poisson.logpmf(counts[:k], p["early"]).sum()
        + stats.poisson.logpmf(counts[k:], p["late"]).sum()
        - np.log(n - 1)
        for k in range(1, n)
    ]
    return prior + log_sum(joint)


def cormack_jolly_seber(p: Params, seen: np.ndarray) -> float:
    """Between first and last capture an animal lives; after that comes the chance of being seen no more."""
    survival, capture = p["survival"], p["capture"]
    occasions = seen.shape[1]
    never_again = np.ones(occasions)  # after occasion t, given that it lives then
    for t in range(occasions - 2, -1, -1):
        missed = survival * (1 - capture[t]) * never_again[t + 1]
        never_again[t] = 1 - survival + missed
    total = 0.0
    for history in seen:
        times = np.flatnonzero(history)
        for t in range(times[0] + 1, times[-1] + 1):
            total += np.log(survival) + stats.bernoulli.logpmf(history[t], capture[t - 1])
        total += np.log(never_again[times[-1]])
    return float(total)


def dawid_skene(p: Params, ratings: np.ndarray) -> float:
    prevalence, confusion = p["prevalence"], p["confusion"]
    categories = len(prevalence)
    total = dirichlet(prevalence, 1.0)
    for rater in confusion:
        for k, row in enumerate(rater):
            alpha = np.ones(categories)
            alpha[k] += 2
            total += stats.dirichlet.logpdf(row / row.sum(), alpha)
    for item in ratings:
        joint = np.log(prevalence)
        for j, answer in enumerate(item):
            if answer >= 0:
                joint = joint + np.log(confusion[j, :, answer])
        total += log_sum(joint)
    return total


def occupancy(p: Params, habitat: np.ndarray, time: np.ndarray, detected: np.ndarray) -> float:
    total = sum(stats.norm.logpdf(p[name], 0, 1.5) for name in "abcd")
    occupied = special.expit(p["a"] + p["b"] * habitat)
    detection = special.expit(p["c"] + p["d"] * time)
    history = np.prod(np.where(detected == 1, detection, 1 - detection), axis=1)
    absent = (1 - occupied) * (detected.sum(axis=1) == 0)
    return total + np.log(occupied * history + absent).sum()


def n_mixture(p: Params, counts: np.ndarray) -> float:
    abundance = np.arange(101)
    visits = stats.binom.logpmf(counts[:, :, None], abundance, p["p"])
    joint = stats.poisson.logpmf(abundance, p["rate"]) + visits.sum(axis=1)
    return stats.gamma.logpdf(p["rate"], 2, scale=10.0) + log_sum(joint).sum()


def zero_inflated(p: Params, caught: np.ndarray) -> float:
    share, rate = p["share"], p["rate"]
    none = np.log(1 - share + share * np.exp(-rate))
    some = np.log(share) + stats.poisson.logpmf(caught, rate)
    return stats.expon.logpdf(rate, scale=5.0) + np.where(caught == 0, none, some).sum()


def mixture_of_regressions(p: Params, x: np.ndarray, y: np.ndarray) -> float:
    total = dirichlet(p["weights"], 2.0)
    total += sum(stats.norm.logpdf(p[name], 0, 3).sum() for name in ("intercept", "slope"))
    total += stats.lognorm.logpdf(p["noise"], 1.0, scale=np.exp(-1.0)).sum()
    mean = p["intercept"] + p["slope"] * x[:, None]
    joint = np.log(p["weights"]) + stats.norm.logpdf(y[:, None], mean, p["noise"])
    return total + log_sum(joint).sum()


def naive_bayes_clustering(p: Params, counts: np.ndarray) -> float:
    total = dirichlet(p["shares"], 2.0) + dirichlet(p["words"], 1.1)
    for document in counts:
        each = [stats.multinomial.logpmf(document, document.sum(), words) for words in p["words"]]
        total += log_sum(np.log(p["shares"]) + each)
    return total


def lda(p: Params, document: np.ndarray, word: np.ndarray, documents: int, words: int) -> float:
    assert p["mixture"].shape[0] == documents
    assert p["words"].shape[1] == words
    chance = p["mixture"] @ p["words"]  # of each word in each document: the topics summed out
    prior = dirichlet(p["mixture"], 1.0) + dirichlet(p["words"], 1.1)
    return prior + np.log(chance[document, word]).sum()


# --- small data ----------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
LIVES: dict[str, Callable[[Any], Any]] = {
    "real": lambda x: x,
    "positive": jnp.exp,
    "probability": jax.nn.sigmoid,
    "simplex": jax.nn.softmax,
}
"""From real numbers to where a parameter lives."""


@dataclass(frozen=True)
class Case:
    by_hand: Callable[..., float]
    data: tuple[Any, ...]
    params: dict[str, tuple[str, tuple[int, ...]]]
    """Where each parameter lives, and its shape."""
    summed_out: dict[str, int]
    """The discrete variables, and how many values each has."""

    @property
    def name(self) -> str:
        return self.by_hand.__name__


def captures(animals: int, occasions: int) -> np.ndarray:
    """Capture histories of any kind, with the first capture at the first, and at the last, occasion."""
    seen = RNG.binomial(1, 0.4, (animals, occasions))
    seen[np.arange(animals), RNG.integers(0, occasions, animals)] = 1
    seen[0] = np.arange(occasions) == 0
    seen[1] = np.arange(occasions) == occasions - 1
    return seen


REGRESSION = dict.fromkeys(("intercept", "slope"), ("real", (2,)))
CASES = [
    Case(
        coal_mining,
        (RNG.poisson(2.0, 12),),
        {"early": ("positive", ()), "late": ("positive", ())},
        {"change": 11},
    ),
    Case(
        cormack_jolly_seber,
        (captures(10, 6),),
        {"survival": ("probability", ()), "capture": ("probability", (5,))},
        {f"alive_{t}": 2 for t in range(1, 6)},
    ),
    Case(
        dawid_skene,
        (RNG.integers(-1, 3, (7, 4)),),  # -1: not rated
        {"prevalence": ("simplex", (3,)), "confusion": ("simplex", (4, 3, 3))},
        {"category": 3},
    ),
    Case(
        occupancy,
        (RNG.normal(size=8), RNG.normal(size=(8, 3)), RNG.binomial(1, 0.3, (8, 3))),
        dict.fromkeys("abcd", ("real", ())),
        {"occupied": 2},
    ),
    Case(
        n_mixture,
        (RNG.binomial(6, 0.5, (5, 3)),),
        {"rate": ("positive", ()), "p": ("probability", ())},
        {"N": 101},
    ),
    Case(
        zero_inflated,
        (np.array([0, 0, 3, 1, 0, 2]),),
        {"share": ("probability", ()), "rate": ("positive", ())},
        {"fishes": 2},
    ),
    Case(
        mixture_of_regressions,
        (RNG.normal(size=9), RNG.normal(size=9)),
        {"weights": ("simplex", (2,)), "noise": ("positive", (2,))} | REGRESSION,
        {"line": 2},
    ),
    Case(
        naive_bayes_clustering,
        (RNG.poisson(1.0, (6, 5)),),
        {"shares": ("simplex", (4,)), "words": ("simplex", (4, 5))},
        {"category": 4},
    ),
    Case(
        lda,
        (RNG.integers(0, 3, 20), RNG.integers(0, 5, 20), 3, 5),
        {"mixture": ("simplex", (3, 8)), "words": ("simplex", (8, 5))},
        {"topic": 8},
    ),
]


def constrained(case: Case, free: dict[str, Any]) -> dict[str, Any]:
    return {name: LIVES[where](free[name]) for name, (where, _) in case.params.items()}


def compare_with_the_sum_by_hand(marginal: mx.Marginal, case: Case) -> None:
    """Log density, and its gradient with respect to real numbers that the parameters are functions of."""
    rng = np.random.default_rng(1)
    free = {name: 0.7 * rng.normal(size=shape) for name, (_, shape) in case.params.items()}

    def by_hand(free: dict[str, Any]) -> float:
        numbers = {name: np.asarray(value) for name, value in constrained(case, free).items()}
        return case.by_hand(numbers, *case.data)

    def log_density(free: dict[str, Any]) -> Any:
        return marginal.log_density(constrained(case, free), *case.data)

    start = {name: jnp.asarray(value) for name, value in free.items()}
    value, gradient = jax.jit(jax.value_and_grad(log_density))(start)
    np.testing.assert_allclose(value, by_hand(free), rtol=EXACT)
    for name, at in free.items():
        slope = np.zeros(at.shape)
        for index in np.ndindex(at.shape):
            step = np.zeros(at.shape)
            step[index] = STEP
            ahead, behind = (by_hand(free | {name: at + s}) for s in (step, -step))
            slope[index] = (ahead - behind) / (2 * STEP)
        np.testing.assert_allclose(gradient[name], slope, rtol=CLOSE, atol=CLOSE, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_log_density_and_its_gradient_are_those_of_the_sum_by_hand(case: Case) -> None:
    compare_with_the_sum_by_hand(mx.marginalize(script(case.name).model), case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_explain_shows_what_is_summed_out(case: Case) -> None:
    explanation = mx.marginalize(script(case.name).model).explain(*case.data, show=False)
    assert {v.name: v.size for v in explanation.variables} == case.summed_out


def test_zero_inflation_by_a_latent_variable_and_by_name_are_one_density() -> None:
    module = script("zero_inflated")
    caught = np.array([0, 0, 3, 1, 0, 2])
    params = {"share": RNG.uniform(size=20), "rate": RNG.exponential(size=20)}
    latent, named = (
        mx.marginalize(model).log_density(params, caught)
        for model in (module.model, module.closed_form)
    )
    np.testing.assert_allclose(latent, named, rtol=EXACT)


def test_the_disasters_are_191_in_112_years() -> None:
    counts = script("coal_mining").disasters_by_year()
    assert (len(counts), counts.sum()) == (112, 191)


# --- the scripts ---------------------------------------------------------------------------------

FOUND = {
    "coal_mining": (r"between 1886 and 1896 with probability (\S+)", 0.9, 1.0),
    "cormack_jolly_seber": (r"\nsurvival +(\S+)", 0.65, 0.95),
    "dawid_skene": (r"right by the model +(\S+)%", 80, 100),
    "occupancy": (r"\nb +(\S+)", 0.5, 2.0),
    "n_mixture": (r"\nrate +(\S+)", 11.0, 20.0),
    "zero_inflated": (r"\nshare +(\S+)", 0.45, 0.7),
    "mixture_of_regressions": (r"\nslope +\[ *(\S+)", 1.9, 2.1),
    "naive_bayes_clustering": (r"(\S+)% of the documents are in the right", 95, 100),
    "lda": (r"(\d) of 8 topics found", 7, 8),
}
"""What a script prints, and bounds around the truth that its data were simulated from."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_a_script_runs_without_a_warning_and_finds_the_truth(name: str) -> None:
    pattern, low, high = FOUND[name]
    found = re.search(pattern, run(f"latent_discrete/{name}.py"))
    assert found is not None
    assert low <= float(found.group(1)) <= high


def test_every_script_is_tested() -> None:
    names = {path.stem for path in (EXAMPLES / "latent_discrete").glob("*.py")}
    assert names == FOUND.keys() == {case.name for case in CASES}
