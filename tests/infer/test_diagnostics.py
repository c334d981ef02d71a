"""What is said of draws with a known fault."""

import re
from typing import Any

import numpy as np
import pytest

from marginax.infer import HMC, NUTS
from marginax.infer.draws.summary import disagreement_from
from marginax.infer.mcmc.diagnostics import Diagnostics, _r_hat, diagnostics, groups_of_chains
from marginax.infer.mcmc.draws import in_memory

CHAINS, DRAWS = 4, 500
KERNEL = NUTS(lambda: None)


def fields(**changes: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "energy": rng.normal(size=(CHAINS, DRAWS)),
        "potential_energy": np.zeros((CHAINS, DRAWS)),
        "tree_depth": np.full((CHAINS, DRAWS), 3),
    } | changes


def sound() -> dict[str, np.ndarray]:
    return {"locs": np.random.default_rng(1).normal(size=(CHAINS, DRAWS, 2))}


def look_at(latent: Any, fields: Any, divergences: int = 0, kernel: Any = KERNEL) -> Diagnostics:
    return diagnostics(in_memory(latent, fields), list(latent), divergences, kernel)


def said(latent: Any = None, divergences: int = 0, kernel: Any = KERNEL, **changes: Any) -> str:
    return "\n".join(look_at(latent or sound(), fields(**changes), divergences, kernel).warnings)


def test_of_sound_draws_nothing_is_said():
    assert said() == ""
    # Independent energies: the mean square of differences is twice the variance.
    (line,) = look_at(sound(), fields()).lines()
    values = [float(v) for v in line.removeprefix("divergences: 0, E-BFMI: ").split(", ")]
    np.testing.assert_allclose(values, 2.0, atol=5 * 2 / np.sqrt(DRAWS))


def test_divergences_say_what_to_do():
    assert "7 transitions after warm-up diverged" in said(divergences=7)
    assert "target_accept_prob of HMC (now 0.8)" in said(divergences=7, kernel=HMC(lambda: None))


def test_trajectories_that_are_cut_off():
    depth = np.full((CHAINS, DRAWS), 3)
    depth[:, :50] = 10
    assert "10% of the trajectories were cut off at max_tree_depth=10" in said(tree_depth=depth)


def test_energies_that_hardly_change():
    energy = np.random.default_rng(2).normal(size=(CHAINS, DRAWS))
    energy[1] = np.cumsum(energy[1])
    assert "E-BFMI is below 0.3 in chain 1" in said(energy=energy)


def test_chains_in_two_places_are_told_apart():
    locs = sound()["locs"]
    locs[[1, 3], :, 0] += 10.0
    energy = np.zeros((CHAINS, DRAWS))
    energy[[1, 3]] = 5.0
    text = said({"locs": locs}, potential_energy=energy)
    assert "R-hat of locs[0]" in text
    assert "2 different places" in text
    assert "chains 0, 2 around" in text
    assert "chains 1, 3 around" in text
    assert "(average log density -5)" in text
    assert groups_of_chains(locs[..., 0]) == [[0, 2], [1, 3]]
    assert groups_of_chains(locs[..., 1]) == [[0, 1, 2, 3]]


def test_chains_that_are_all_in_different_places_are_not_called_modes():
    x = np.random.default_rng(3).normal(size=(CHAINS, DRAWS)) + 10 * np.arange(CHAINS)[:, None]
    text = said({"x": x})
    assert "R-hat of x" in text
    assert "look at the chains one by one" in text
    assert "modes" not in text


def test_few_effective_draws():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(CHAINS, DRAWS))
    for i in range(1, DRAWS):
        x[:, i] += 0.8 * x[:, i - 1]
    found = re.fullmatch(
        r"x has (\d+) effective draws of 2000; 400 are a good minimum for intervals\. .*",
        said({"x": x}),
    )
    assert found is not None
    # An autoregression of 0.8 is worth a ninth of independent draws.
    expected = CHAINS * DRAWS / 9
    assert int(found[1]) == pytest.approx(expected, rel=5 / np.sqrt(expected / 10))


@pytest.mark.parametrize("draws", [1, 3])
def test_fewer_draws_than_r_hat_takes_are_not_judged(draws: int):
    apart = np.zeros((CHAINS, draws)) + np.arange(CHAINS)[:, None]
    short = {name: value[:, :draws] for name, value in fields().items()}
    assert look_at({"x": apart}, short).warnings == ()


@pytest.mark.parametrize("draws", [4, 10, 50])
def test_from_four_draws_on_chains_that_are_apart_are_said_to_be(draws: int):
    noise = np.random.default_rng(5).normal(size=(CHAINS, draws))
    short = {name: value[:, :draws] for name, value in fields().items()}
    (found,) = look_at({"x": 0.01 * noise + np.arange(CHAINS)[:, None]}, short).warnings
    assert "R-hat of x" in found
    assert look_at({"x": noise}, short).warnings == ()


@pytest.mark.parametrize(("chains", "draws"), [(2, 4), (4, 4), (4, 7), (4, 30)])
def test_r_hat_of_a_few_independent_draws_is_rarely_above_its_limit(chains: int, draws: int):
    """Of ten scalars at once: a false alarm once in a thousand."""
    rng = np.random.default_rng(6)
    alarms = 0
    for _ in range(200):
        r_hat = _r_hat(rng.normal(size=(chains, draws, 10)))
        alarms += r_hat.max() > disagreement_from(chains, draws, 10)
    assert alarms <= 4


def test_what_is_said_of_labels_is_said_of_modes_only():
    asked = []

    def of_labels() -> str:
        asked.append(True)
        return "Labels cannot be exchanged. "

    locs = sound()["locs"]
    look = in_memory({"locs": locs}, fields())
    diagnostics(look, ["locs"], 0, KERNEL, of_labels)
    assert not asked
    locs[[1, 3]] += 10.0
    found = diagnostics(in_memory({"locs": locs}, fields()), ["locs"], 0, KERNEL, of_labels)
    assert "mean nothing. Labels cannot be exchanged. Modes that differ" in found.warnings[0]


def test_sites_that_never_move_have_no_say():
    assert said({"x": np.ones((CHAINS, DRAWS))}) == ""
