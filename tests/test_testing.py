"""The oracle itself, against tables that are written out here: what all else is compared with."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.testing import MAX_ASSIGNMENTS, brute_force

EPS = float(np.finfo(np.float32).eps)
P = np.array([0.2, 0.5, 0.3])
T = np.array([[0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.25, 0.5, 0.25]])
LOCS = np.array([-1.0, 0.5, 2.0])
DATA = np.array([0.3, 2.2])


def normal(x: Any, loc: Any) -> Any:
    return -0.5 * (x - loc) ** 2 - 0.5 * np.log(2 * np.pi)


def model(data: Any = DATA) -> None:
    """One cause of two elements: 3 * 3 * 3 assignments."""
    shift = mx.sample("shift", dist.Normal(0.0, 1.0))
    w = mx.sample("w", dist.Categorical(jnp.asarray(P)))
    with mx.plate("data", 2):
        z = mx.sample("z", dist.Categorical(jnp.asarray(T)[w]))
        mx.sample("x", dist.Normal(jnp.asarray(LOCS)[z] + shift, 1.0), obs=data)


def table(shift: float) -> np.ndarray:
    """The joint log density of w, z[0] and z[1], written out."""
    out = np.zeros((3, 3, 3))
    for w, z0, z1 in itertools.product(range(3), repeat=3):
        out[w, z0, z1] = np.log(P[w]) + normal(shift, 0.0)
        for z, x in ((z0, DATA[0]), (z1, DATA[1])):
            out[w, z0, z1] += np.log(T[w, z]) + normal(x, LOCS[z] + shift)
    return out


def test_the_table_of_all_assignments() -> None:
    oracle = brute_force(model, {"shift": 0.4})
    joint = table(0.4)
    np.testing.assert_allclose(oracle.log_joint, joint.ravel(), rtol=32 * EPS)
    np.testing.assert_array_equal(oracle.assignments["w"], np.repeat(range(3), 9))
    np.testing.assert_array_equal(oracle.assignments["z"][:4], [[0, 0], [0, 1], [0, 2], [1, 0]])
    total = np.log(np.exp(joint).sum())
    np.testing.assert_allclose(oracle.log_density, total, rtol=32 * EPS)


def test_marginals_are_sums_of_the_table() -> None:
    oracle = brute_force(model, {"shift": 0.4})
    weight = np.exp(table(0.4))
    weight /= weight.sum()
    np.testing.assert_allclose(oracle.posterior["w"], weight.sum((1, 2)), rtol=64 * EPS)
    of_z = np.stack([weight.sum((0, 2)), weight.sum((0, 1))])
    np.testing.assert_allclose(oracle.posterior["z"], of_z, rtol=64 * EPS)


def test_the_mode_is_the_table_s_largest_entry() -> None:
    w, z0, z1 = np.unravel_index(table(0.4).argmax(), (3, 3, 3))
    mode = brute_force(model, {"shift": 0.4}).mode
    assert int(mode["w"]) == w
    np.testing.assert_array_equal(mode["z"], [z0, z1])


def test_the_probability_of_an_assignment_is_its_entry() -> None:
    oracle = brute_force(model, {"shift": 0.4})
    weight = np.exp(table(0.4))
    given = {"w": 2, "z": np.array([1, 0])}
    np.testing.assert_allclose(
        oracle.probability(given), weight[2, 1, 0] / weight.sum(), rtol=64 * EPS
    )
    assert oracle.probability({"w": 3, "z": np.array([1, 0])}) == 0.0


def test_draws_are_found_in_the_table() -> None:
    oracle = brute_force(model, {"shift": 0.4})
    draws = {"w": np.array([0, 2]), "z": np.array([[0, 1], [1, 0]])}
    np.testing.assert_array_equal(oracle.table_index(draws), [1, 2 * 9 + 1 * 3 + 0])


def test_its_gradient_is_the_table_s() -> None:
    h = 1e-4
    slope = jax.grad(lambda s: brute_force(model, {"shift": s}).log_density)(0.4)
    above, below = (np.log(np.exp(table(0.4 + d)).sum()) for d in (h, -h))
    np.testing.assert_allclose(slope, (above - below) / (2 * h), rtol=64 * EPS + h)


def test_it_agrees_with_the_marginal_of_which_it_knows_nothing() -> None:
    m = mx.marginalize(model)
    np.testing.assert_allclose(
        m.log_density({"shift": 0.4}), brute_force(model, {"shift": 0.4}).log_density, rtol=32 * EPS
    )


def test_a_model_without_discrete_variables_has_one_assignment() -> None:
    oracle = brute_force(lambda: mx.sample("x", dist.Normal(0.0, 1.0), obs=0.5), {})
    assert oracle.log_joint.shape == (1,)
    assert oracle.posterior == oracle.mode == {}
    np.testing.assert_allclose(oracle.log_density, normal(0.5, 0.0), rtol=4 * EPS)


def test_elements_that_talk_to_each_other_are_no_obstacle_to_it() -> None:
    """What elimination refuses is as good as anything to a table."""

    def talking() -> None:
        with mx.plate("data", 3):
            z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(1.0 * z.sum(), 1.0), obs=1.0)

    with pytest.raises(mx.ModelError):
        mx.marginalize(talking).log_density({})
    counts = np.array([1, 3, 3, 1]) / 8
    expected = np.log((counts * np.exp(normal(1.0, np.arange(4)))).sum())
    np.testing.assert_allclose(brute_force(talking, {}).log_density, expected, rtol=32 * EPS)


def test_a_masked_out_variable_is_that_of_a_forward_run() -> None:
    def masked() -> None:
        with mx.plate("data", 2), mx.handlers.mask(mask=np.array([True, False])):
            mx.sample("z", dist.Categorical(jnp.asarray(P)))

    oracle = brute_force(masked, {})
    np.testing.assert_allclose(oracle.log_density, 0.0, atol=4 * EPS)
    np.testing.assert_allclose(oracle.posterior["z"], [P, P], rtol=16 * EPS)


def test_a_mask_that_a_variable_decides_counts_in_each_assignment() -> None:
    def masked() -> None:
        exists = mx.sample("exists", dist.Bernoulli(0.4))
        with mx.handlers.mask(mask=exists == 1):
            mx.sample("z", dist.Categorical(jnp.asarray(P)))

    oracle = brute_force(masked, {})
    np.testing.assert_allclose(oracle.log_density, 0.0, atol=4 * EPS)
    np.testing.assert_allclose(oracle.posterior["z"], P, rtol=16 * EPS)


def test_given_values_are_not_summed() -> None:
    oracle = brute_force(model, {"shift": 0.4, "w": 1})
    assert oracle.posterior.keys() == {"z"}
    np.testing.assert_allclose(oracle.log_joint, table(0.4)[1].ravel(), rtol=32 * EPS)


def test_data_are_arguments() -> None:
    moved = brute_force(model, {"shift": 0.4}, DATA + 0.1).log_density
    np.testing.assert_allclose(
        moved, brute_force(model, {"shift": 0.4}, data=DATA + 0.1).log_density
    )
    assert moved != brute_force(model, {"shift": 0.4}).log_density


def test_what_is_too_large_is_refused() -> None:
    def large() -> None:
        with mx.plate("data", 40):
            mx.sample("z", dist.Bernoulli(0.5))

    with pytest.raises(mx.ModelError, match=rf"2\*\*40 assignments, more than {MAX_ASSIGNMENTS}"):
        brute_force(large, {})


def test_scales_are_refused() -> None:
    def scaled() -> None:
        with mx.handlers.scale(scale=2.0):
            mx.sample("z", dist.Bernoulli(0.5))

    with pytest.raises(
        mx.ModelError, match="site 'z': it is scaled, and the oracle knows no scales"
    ):
        brute_force(scaled, {})


def test_a_missing_parameter_is_told() -> None:
    with pytest.raises(mx.ModelError, match="'shift'"):
        brute_force(model, {})
