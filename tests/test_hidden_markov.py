"""The models of examples/hidden_markov/ against forward algorithms and decoders written in NumPy.

A series is given to them as the probabilities of its first states, a table of transitions for every step
after that, and the likelihood of each state at every step. Each model's own function below makes these
from its definition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy import special, stats
from test_examples import EXAMPLES, run
from test_latent_discrete import (
    EXACT,
    Case,
    Params,
    compare_with_the_sum_by_hand,
    constrained,
    log_sum,
    script as any_script,
)

import marginax as mx


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def script(name: str) -> Any:
    return any_script(name, "hidden_markov")


# --- by hand -------------------------------------------------------------------------------------

Chain = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logs of the first state's probabilities, of the tables (step - 1, from, to), of likelihoods (step, state)."""


def logs(chance: Any) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(chance)


def forward(chain: Chain) -> np.ndarray:
    """Log probability of each step's state together with the observations up to then: (steps, states)."""
    start, tables, likelihood = chain
    rows = [start + likelihood[0]]
    for table, here in zip(tables, likelihood[1:], strict=True):
        rows.append(log_sum((rows[-1][:, None] + table).T) + here)
    return np.array(rows)


def backward(chain: Chain) -> np.ndarray:
    """Log probability of the observations after each step, given its state: (steps, states)."""
    start, tables, likelihood = chain
    rows = [np.zeros(len(start))]
    for table, here in zip(tables[::-1], likelihood[:0:-1], strict=True):
        rows.append(log_sum(table + here + rows[-1]))
    return np.array(rows[::-1])


def viterbi(chain: Chain) -> np.ndarray:
    """The most probable path."""
    start, tables, likelihood = chain
    best, back = start + likelihood[0], []
    for table, here in zip(tables, likelihood[1:], strict=True):
        scores = best[:, None] + table
        back.append(scores.argmax(axis=0))
        best = scores.max(axis=0) + here
    path = [int(best.argmax())]
    for pointers in back[::-1]:
        path.append(int(pointers[path[-1]]))
    return np.array(path[::-1])


def normalised(log_weights: np.ndarray) -> np.ndarray:
    return np.exp(log_weights - log_sum(log_weights)[:, None])


def total(chain: Chain) -> float:
    return log_sum(forward(chain)[-1])


def gaussian_chain(p: Params, y: np.ndarray) -> Chain:
    tables = np.tile(logs(p["transition"]), (len(y) - 1, 1, 1))
    return np.log(np.ones(3) / 3), tables, stats.norm.logpdf(y[:, None], p["loc"], p["scale"])


def gaussian_hmm(p: Params, y: np.ndarray) -> float:
    prior = stats.norm.logpdf(p["loc"], 0, 5).sum()
    prior += stats.lognorm.logpdf(p["scale"], 0.5).sum()
    for k, row in enumerate(p["transition"]):
        prior += stats.dirichlet.logpdf(row / row.sum(), 1 + 4 * np.eye(3)[k])
    return prior + total(gaussian_chain(p, y))


STATES = np.array(list(product([0, 1], repeat=3)))
"""All that three appliances can be doing together."""


def factorial_chain(p: Params, power: np.ndarray) -> Chain:
    """One chain of eight states."""
    table = np.ones((8, 8))
    for i, j in np.ndindex(8, 8):
        for k in range(3):
            on = 1 - p["stops"][k] if STATES[i, k] else p["starts"][k]
            table[i, j] *= on if STATES[j, k] else 1 - on
    likelihood = stats.norm.logpdf(power[:, None], STATES @ p["power"], p["noise"])
    return np.log(table[0]), np.tile(np.log(table), (len(power) - 1, 1, 1)), likelihood


def factorial_hmm(p: Params, power: np.ndarray) -> float:
    prior = stats.lognorm.logpdf(p["power"], 0.2, scale=[0.2, 1.0, 1.2]).sum()
    prior += stats.lognorm.logpdf(p["noise"], 1.0, scale=np.exp(-2.0))
    prior += sum(stats.beta.logpdf(p[name], 1, 10).sum() for name in ("starts", "stops"))
    return prior + total(factorial_chain(p, power))


def regime_switching(
    p: Params, is_there: np.ndarray, stress: np.ndarray, x: np.ndarray, y: np.ndarray
) -> float:
    prior = sum(stats.norm.logpdf(p[name], 0, 2).sum() for name in ("intercept", "slope", "base"))
    prior += stats.norm.logpdf(p["effect"], 0, 1).sum()
    prior += stats.halfnorm.logpdf(p["least"]) + stats.halfnorm.logpdf(p["excess"], scale=2)
    noise = np.array([p["least"], p["least"] + p["excess"]])
    series = []
    for i, length in enumerate(is_there.sum(axis=0)):
        u, v, w = (data[:length, i, None] for data in (stress, x, y))
        turbulent = special.expit(p["base"] + p["effect"] * u)  # (step, regime before)
        tables = np.log(np.stack([1 - turbulent, turbulent], axis=-1))
        mean = p["intercept"] + p["slope"] * v
        series.append((tables[0, 0], tables[1:], stats.norm.logpdf(w, mean, noise)))
    return prior + sum(total(chain) for chain in series)


def capture_recapture(p: Params, seen: np.ndarray, winter: np.ndarray) -> float:
    prior = stats.norm.logpdf(p["level"], 0, 1.5) + stats.norm.logpdf(p["slope"], 0, 1)
    survival = special.expit(p["level"] + p["slope"] * winter)
    tables = np.array([[[1.0, 0.0], [1 - s, s]] for s in survival])  # from dead, alive; to the same
    by_state = np.array([0.0, p["capture"]])
    animals = []
    for history in seen.T:
        first = int(history.argmax())
        likelihood = stats.bernoulli.logpmf(history[first:, None], by_state)
        likelihood[0] = 0.0  # the first capture is where the history begins
        animals.append((logs(np.array([0.0, 1.0])), logs(tables[first:]), likelihood))
    return float(prior + sum(total(chain) for chain in animals))


# --- small data ----------------------------------------------------------------------------------

RNG = np.random.default_rng(2)


def captures(occasions: int, animals: int) -> np.ndarray:
    """Capture histories of any kind, with the first capture at the first, and at the last, occasion."""
    seen = RNG.binomial(1, 0.4, (occasions, animals))
    seen[RNG.integers(0, occasions, animals), np.arange(animals)] = 1
    seen[:, 0] = np.arange(occasions) == 0
    seen[:, 1] = np.arange(occasions) == occasions - 1
    return seen


def of_different_length(lengths: list[int]) -> tuple[np.ndarray, ...]:
    """Nothing that stands past the end of a series may matter, so there is none."""
    shape = (max(lengths), len(lengths))
    is_there = np.arange(shape[0])[:, None] < np.array(lengths)
    stress, x, y = RNG.normal(size=(3, *shape))
    return is_there, stress, x, np.where(is_there, y, np.nan)


Places = dict[str, tuple[str, tuple[int, ...]]]
EACH = ("probability", (3,))
OF_REGIMES: Places = dict.fromkeys(("intercept", "slope", "base", "effect"), ("real", (2,)))
CASES = [
    Case(
        gaussian_hmm,
        (RNG.normal(0, 2, 8),),
        {"transition": ("simplex", (3, 3)), "loc": ("real", (3,)), "scale": ("positive", (3,))},
        {"z": 3},
    ),
    Case(
        factorial_hmm,
        (RNG.uniform(0, 2, 6),),
        {"power": ("positive", (3,)), "starts": EACH, "stops": EACH, "noise": ("positive", ())},
        {"fridge": 2, "heater": 2, "oven": 2},
    ),
    Case(
        regime_switching,
        of_different_length([5, 7, 1, 4]),
        OF_REGIMES | {"least": ("positive", ()), "excess": ("positive", ())},
        {"regime": 2},
    ),
    Case(
        capture_recapture,
        (captures(7, 12), RNG.normal(size=6)),
        {"level": ("real", ()), "slope": ("real", ()), "capture": ("probability", ())},
        {"alive": 2},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_log_density_and_its_gradient_are_those_of_the_forward_algorithm(case: Case) -> None:
    compare_with_the_sum_by_hand(mx.marginalize(script(case.name).model), case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_explain_shows_what_is_summed_out(case: Case) -> None:
    explanation = mx.marginalize(script(case.name).model).explain(*case.data, show=False)
    assert {v.name: v.size for v in explanation.variables} == case.summed_out


def some_params(case: Case) -> Params:
    rng = np.random.default_rng(3)
    free = {name: 0.7 * rng.normal(size=shape) for name, (_, shape) in case.params.items()}
    return {name: np.asarray(value) for name, value in constrained(case, free).items()}


def test_states_of_the_gaussian_model_are_those_of_the_textbook_algorithms() -> None:
    module, params = script("gaussian_hmm"), some_params(CASES[0])
    _, y = module.simulate(seed=1, steps=60)
    marginal, chain = mx.marginalize(module.model), gaussian_chain(params, y)
    np.testing.assert_array_equal(marginal.mode(params, y)["z"], viterbi(chain))
    alpha, beta = forward(chain), backward(chain)
    smoothed, filtered = marginal.posterior(params, y)["z"], marginal.filtered(params, y)["z"]
    np.testing.assert_allclose(smoothed, normalised(alpha + beta), rtol=EXACT)
    np.testing.assert_allclose(filtered, normalised(alpha), rtol=EXACT)


def test_a_forecast_starts_from_the_states_at_the_end() -> None:
    """How often each state is drawn one step past the end, against its probability."""
    module, params = script("gaussian_hmm"), some_params(CASES[0])
    y, count = CASES[0].data[0], 4000
    samples = {name: np.stack([value] * count) for name, value in params.items()}
    decode = mx.infer.Predictive(
        module.model, samples, infer_discrete=True, return_sites=["z"], parallel=True
    )
    states = decode(jax.random.key(0), y)
    begun = mx.handlers.condition(module.model, data={"y": y})
    forecast = mx.infer.Predictive(begun, samples | states, return_sites=["z", "y"], parallel=True)
    draws = forecast(jax.random.key(1), None, len(y) + 1)
    np.testing.assert_array_equal(draws["y"][:, :-1], np.tile(y, (count, 1)))
    np.testing.assert_array_equal(draws["z"][:, :-1], states["z"])
    expected = normalised(forward(gaussian_chain(params, y)))[-1] @ params["transition"]
    shares = np.mean(np.asarray(draws["z"])[:, -1, None] == np.arange(3), axis=0)
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(count))


def test_appliances_are_decoded_as_in_one_chain_of_eight_states() -> None:
    module, params = script("factorial_hmm"), some_params(CASES[1])
    _, power = module.simulate(seed=1, minutes=60)
    decoded = mx.marginalize(module.model).mode(params, power)
    path = STATES[viterbi(factorial_chain(params, power))]
    for k, name in enumerate(module.NAMES):
        np.testing.assert_array_equal(decoded[name], path[:, k], err_msg=name)


def test_a_scan_over_occasions_and_a_loop_are_one_density() -> None:
    """Without an effect of the winters, and with one probability of capture for all occasions."""
    seen, winter = CASES[3].data
    level, capture = 0.7, 0.4
    params = {"level": level, "slope": 0.0, "capture": capture}
    in_a_scan = mx.marginalize(script("capture_recapture").model).log_density(params, seen, winter)
    prior = stats.norm.logpdf(level, 0, 1.5) + stats.norm.logpdf(0, 0, 1)  # the loop's are uniform
    constant = {"survival": special.expit(level), "capture": np.full(len(winter), capture)}
    loop = mx.marginalize(any_script("cormack_jolly_seber").model)
    in_a_loop = loop.log_density(constant, np.ascontiguousarray(seen.T))
    np.testing.assert_allclose(in_a_scan - prior, in_a_loop, rtol=EXACT)


# --- the scripts ---------------------------------------------------------------------------------

FOUND = {
    "gaussian_hmm": [
        (r"most probable path +(\S+)%", 95, 100),
        (r"(\S+)% of 40 values to come are inside", 80, 100),
    ],
    "factorial_hmm": [(r"right by the model .*all three (\S+)%", 85, 100)],
    "regime_switching": [
        (r"(\S+) of 10 intervals hold the truth", 8, 10),
        (r"(\S+)% of the regimes are right", 95, 100),
    ],
    "capture_recapture": [
        (r"\nslope +(\S+),", -1.2, -0.4),
        (r"inside its 90% interval at (\S+) of 12", 9, 12),
    ],
}
"""What a script prints, and bounds around the truth that its data were simulated from."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_a_script_runs_without_a_warning_and_finds_the_truth(name: str, tmp_path: Path) -> None:
    out = run(f"hidden_markov/{name}.py", str(tmp_path))
    for pattern, low, high in FOUND[name]:
        found = re.search(pattern, out)
        assert found is not None
        assert low <= float(found.group(1)) <= high
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_every_script_is_tested() -> None:
    names = {path.stem for path in (EXAMPLES / "hidden_markov").glob("*.py")}
    assert names == FOUND.keys() == {case.name for case in CASES}
