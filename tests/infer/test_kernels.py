"""Transitions and their warm-up, on a density whose covariance is known."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marginax.infer import HMC, NUTS
from marginax.infer.mcmc import adaptation
from marginax.infer.mcmc.block import Chain, make_block, spread

KEY = jax.random.key(0)
COVARIANCE = np.array([[1.0, 9.0], [9.0, 100.0]])
SCALES = np.sqrt(np.diag(COVARIANCE))


def log_density(x: Any) -> Any:
    """Two normal variables, one ten times as wide as the other, correlated by 0.9."""
    return -0.5 * x @ jnp.linalg.inv(jnp.asarray(COVARIANCE)) @ x


def model() -> None:
    pass


def run(kernel: Any, warmup: int, draws: int, chains: int = 1) -> Any:
    """All draws and reports, shape (chains, draws, ...), and the chains at the end."""

    def begin(key: Any) -> Chain:
        state = kernel.begin(log_density, jnp.array([1.0, -3.0]))
        return Chain(state, adaptation.begin(kernel, 2), key)

    keys = jax.random.split(KEY, chains)
    one = begin(KEY)
    block = make_block(kernel, log_density, one, warmup, 1, max(draws, 1))
    program = jax.jit(spread(block.run, "vectorized", None))
    now, _ = program(jax.vmap(begin)(keys), 0, warmup)
    now, rows = program(now, warmup, warmup + draws)
    kept = np.asarray(rows.kept)
    return block.layout.positions(kept), block.layout.fields(kept), now


def test_without_warm_up_the_step_size_is_the_given_one_and_the_mass_is_one():
    for dense, mass in ((False, np.ones(2)), (True, np.eye(2))):
        _, fields, now = run(NUTS(model, step_size=0.3, dense_mass=dense), 0, 3)
        np.testing.assert_array_equal(fields["step_size"], np.float32(0.3))
        np.testing.assert_array_equal(now.adaptation.mass.inverse_mass_matrix[0], mass)


@pytest.mark.parametrize(("dense", "matrix"), [(True, COVARIANCE), (False, np.array([1.0, 100.0]))])
def test_a_mass_that_is_given_and_not_adapted_stays(dense: bool, matrix: np.ndarray):
    options: Any = {"dense_mass": dense, "inverse_mass_matrix": matrix}
    _, fields, now = run(NUTS(model, adapt_mass_matrix=False, **options), 100, 200)
    np.testing.assert_allclose(now.adaptation.mass.inverse_mass_matrix[0], matrix, rtol=1e-6)
    if dense:  # where the mass is right the density is a sphere, for which seven steps are plenty
        assert np.mean(fields["num_steps"]) <= 7


def test_adaptation_begins_at_a_mass_that_is_given():
    kernel = NUTS(model, dense_mass=True, inverse_mass_matrix=COVARIANCE)
    begin = adaptation.begin(kernel, 2)
    np.testing.assert_allclose(begin.mass.inverse_mass_matrix, COVARIANCE, rtol=1e-6)
    _, _, now = run(kernel, 1000, 0)
    assert not np.allclose(now.adaptation.mass.inverse_mass_matrix[0], COVARIANCE, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inverse_mass_matrix": np.eye(2)}, r"shape \(size,\) without dense_mass"),
        ({"inverse_mass_matrix": np.ones(2), "dense_mass": True}, "with dense_mass=True"),
        ({"inverse_mass_matrix": np.array([1.0, 0.0])}, "positive and finite"),
        ({"inverse_mass_matrix": np.array([1.0, np.nan])}, "positive and finite"),
    ],
)
def test_a_mass_that_is_none_is_refused(options: Any, words: str):
    for kind in (NUTS, HMC):
        with pytest.raises(ValueError, match=words):
            kind(model, **options)


def test_a_mass_of_another_size_is_refused():
    with pytest.raises(ValueError, match="have 3 unconstrained numbers together"):
        adaptation.begin(NUTS(model, inverse_mass_matrix=np.ones(2)), 3)


@pytest.fixture(scope="module")
def dense() -> Any:
    return run(NUTS(model, dense_mass=True), 1000, 4000)


def test_a_dense_warm_up_finds_the_covariance(dense: Any):
    _, _, now = dense
    mass = np.asarray(now.adaptation.mass.inverse_mass_matrix[0])
    # The last window has some 500 draws: a variance errs by sqrt(2 / 500) of itself.
    error = 5 * np.sqrt(2 / 500)
    np.testing.assert_allclose(mass / np.outer(SCALES, SCALES), [[1, 0.9], [0.9, 1]], atol=error)


def test_a_diagonal_warm_up_finds_the_variances():
    """Of several chains, for the windows of one are short where its draws are correlated."""
    _, _, now = run(NUTS(model), 1000, 0, chains=8)
    mass = np.asarray(now.adaptation.mass.inverse_mass_matrix)
    assert mass.shape == (8, 2)
    # Draws of a badly scaled NUTS are worth a tenth of independent ones, at least.
    error = 5 * np.sqrt(2 / (8 * 50))
    np.testing.assert_allclose(mass.mean(axis=0) / SCALES**2, 1.0, atol=error)


def test_what_is_not_to_be_adapted_stays():
    fixed = NUTS(model, step_size=0.3, adapt_step_size=False)
    _, fields, now = run(fixed, 100, 3)
    np.testing.assert_array_equal(fields["step_size"], np.float32(0.3))
    assert (now.adaptation.mass.inverse_mass_matrix != 1).all()
    _, fields, now = run(NUTS(model, step_size=0.3, adapt_mass_matrix=False), 100, 3)
    assert (fields["step_size"] != np.float32(0.3)).all()
    np.testing.assert_array_equal(now.adaptation.mass.inverse_mass_matrix, 1.0)


@pytest.mark.parametrize(("kernel", "name"), [(NUTS, "NUTS"), (HMC, "HMC")])
def test_a_higher_acceptance_rate_takes_smaller_steps(kernel: Any, name: str):
    """Of one chain it is a random number: the medians of several are compared."""
    sizes = []
    for p in (0.6, 0.8, 0.95):
        _, fields, _ = run(kernel(model, target_accept_prob=p), 300, 1, chains=16)
        sizes.append(float(np.median(fields["step_size"])))
    assert sizes[0] > sizes[1] > sizes[2]


def assert_moments(draws: Any, effective: int) -> None:
    x = draws[0].T
    np.testing.assert_allclose(x.mean(axis=1) / SCALES, 0.0, atol=5 / np.sqrt(effective))
    relative = np.cov(x) / np.outer(SCALES, SCALES)
    np.testing.assert_allclose(relative, [[1, 0.9], [0.9, 1]], atol=5 * np.sqrt(2 / effective))


def test_draws_after_warm_up_have_the_right_moments(dense: Any):
    draws, fields, _ = dense
    assert not fields["diverging"].any()
    # The average of the step sizes tried is somewhat smaller than the one asked for, as in Stan.
    assert 0.75 < fields["accept_prob"].mean() < 0.97
    expected = -0.5 * np.einsum("ni,ij,nj->n", draws[0], np.linalg.inv(COVARIANCE), draws[0])
    np.testing.assert_allclose(fields["potential_energy"][0], -expected, rtol=1e-3, atol=1e-4)
    assert (fields["energy"] >= fields["potential_energy"] - 1e-4).all()
    # Draws of a well-tuned NUTS on a Gaussian are as good as a tenth as many independent ones, at least.
    assert_moments(draws, 400)


def test_hmc_has_the_right_moments_and_takes_the_steps_it_is_told_to():
    # A trajectory of a quarter turn of the standardised oscillator; a full one would end where it began.
    draws, fields, _ = run(HMC(model, trajectory_length=1.5, dense_mass=True), 1000, 4000)
    assert_moments(draws, 400)
    expected = np.ceil(1.5 / fields["step_size"])
    np.testing.assert_allclose(fields["num_steps"], expected, atol=1)
    _, fields, _ = run(HMC(model, num_steps=7, step_size=0.01), 0, 2)
    np.testing.assert_array_equal(fields["num_steps"], 7)
    _, fields, _ = run(HMC(model, step_size=1e-4, max_num_steps=9), 0, 2)
    np.testing.assert_array_equal(fields["num_steps"], 9)


@pytest.mark.parametrize("steps", [1, 5, 19])
def test_the_shortest_warm_ups_do_something_finite(steps: int):
    _, fields, now = run(NUTS(model), steps, 1)
    assert fields["step_size"] > 0
    assert np.isfinite(now.adaptation.mass.inverse_mass_matrix).all()


def test_a_tree_is_no_deeper_than_allowed():
    _, fields, _ = run(NUTS(model, step_size=1e-3, max_tree_depth=3), 0, 1)
    assert fields["num_steps"] == 2**3 - 1
    assert fields["tree_depth"] == 3


def test_how_iterations_are_cut_into_calls_changes_no_bit():
    kernel = NUTS(model)

    def begin(key: Any) -> Chain:
        state = kernel.begin(log_density, jnp.array([1.0, -3.0]))
        return Chain(state, adaptation.begin(kernel, 2), key)

    warmup, thinning = 30, 3
    block = make_block(kernel, log_density, begin(KEY), warmup, thinning, 8)
    program = jax.jit(block.run)

    def draws(edges: list[int]) -> np.ndarray:
        now, kept = begin(KEY), []
        for first, stop in itertools.pairwise(edges):
            now, rows = program(now, first, stop)
            count = max(stop - warmup, 0) // thinning - max(first - warmup, 0) // thinning
            kept.append(np.asarray(rows.kept)[:count])
        return np.concatenate(kept)

    whole = draws([0, 30, 54])
    assert whole.shape[0] == 8
    np.testing.assert_array_equal(draws([0, 1, 7, 30, 31, 32, 40, 41, 42, 54]), whole)


def test_stages_of_warm_up_are_those_of_stan():
    plan = adaptation.stages(1000)
    assert len(plan) == 1001
    assert plan[-1] == adaptation.FIXED
    # Stan's reference manual: 75 and 50 iterations for the step size alone at both ends, windows of 25, 50, 100,
    # 200 and what is left in between.
    ends = np.flatnonzero(plan == adaptation.END_OF_WINDOW)
    np.testing.assert_array_equal(ends, [99, 149, 249, 449, 949])
    assert (plan[:75] == adaptation.STEP_SIZE).all()
    assert (plan[950:1000] == adaptation.STEP_SIZE).all()
    np.testing.assert_array_equal(adaptation.stages(0), [adaptation.FIXED])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target_accept_prob": 1.0}, "target_accept_prob"),
        ({"target_accept_prob": 0.0}, "target_accept_prob"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": np.nan}, "step_size"),
        ({"max_tree_depth": 0}, "max_tree_depth"),
        ({"max_tree_depth": 2.5}, "max_tree_depth"),
    ],
)
def test_options_are_checked(options: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        NUTS(model, **options)


def test_a_model_is_a_function():
    with pytest.raises(TypeError, match="NUTS"):
        NUTS("model")  # pyright: ignore


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"trajectory_length": 0.0}, "trajectory_length"),
        ({"num_steps": 0}, "num_steps"),
        ({"max_num_steps": 1.5}, "max_num_steps"),
    ],
)
def test_options_of_hmc_are_checked(options: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        HMC(model, **options)
