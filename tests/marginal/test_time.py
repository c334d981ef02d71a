"""Exact sums along time: every query of every kind of scan, against brute force over all assignments.

The oracle runs the model forwards with given values; nothing of the elimination is in it.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frequencies import assert_frequencies
from scan_scenarios import DATA, SCAN_SCENARIOS, T33, ScanScenario
from scenarios import real

import marginax as mx
import marginax.distributions as dist
from marginax.testing import BruteForce, brute_force

DRAWS = 500


def model_of(s: ScanScenario, steps: int, ends: bool = True) -> Any:
    return partial(s.model, steps, ends, **s.how)


@cache
def oracle(name: str, steps: int, ends: bool = True) -> BruteForce:
    s = SCAN_SCENARIOS[name]
    params = {k: v[:steps] if k == "x" else v for k, v in s.params.items()}
    with jax.enable_x64(True):
        return brute_force(partial(s.model, steps, ends), params)


# Every third one is checked at once; all of them by `make test-slow`.
@pytest.mark.parametrize(
    "name",
    [
        name if number % 3 == 0 else pytest.param(name, marks=pytest.mark.slow)
        for number, name in enumerate(SCAN_SCENARIOS)
    ],
)
def test_every_answer_equals_brute_force(name: str):
    s = SCAN_SCENARIOS[name]
    m = mx.marginalize(model_of(s, s.steps))
    with jax.enable_x64(True):
        params = jax.tree.map(real, s.params)
        truth = oracle(name, s.steps)
        slopes = _slopes(s, params)

        @jax.jit
        def answers(params: Any) -> Any:
            value_and_grad = jax.value_and_grad(m.log_density)(params)
            draws = jax.vmap(lambda key: m.draw(key, params))(
                jax.random.split(jax.random.key(0), DRAWS)
            )
            return *value_and_grad, m.posterior(params), m.mode(params), draws, m.entropy(params)

        value, gradient, posterior, mode, draws, entropy = jax.device_get(answers(params))
        np.testing.assert_allclose(value, truth.log_density, rtol=1e-9, atol=1e-9)
        for site, slope in slopes.items():
            np.testing.assert_allclose(gradient[site], slope, rtol=1e-8, atol=1e-9, err_msg=site)
        assert set(posterior) == set(mode) == set(draws) == set(truth.posterior)
        for site, probability in truth.posterior.items():
            np.testing.assert_allclose(posterior[site], probability, atol=1e-9, err_msg=site)
        log_joint = np.asarray(truth.log_joint)
        (row,) = truth.table_index({site: value[None] for site, value in mode.items()})
        modal = np.asarray(truth.log_modal)
        np.testing.assert_allclose(modal[row], modal.max(), rtol=1e-9)
        weight = np.exp(log_joint - log_joint.max())
        assert_frequencies(truth.table_index(draws), weight, 1e-4 / len(SCAN_SCENARIOS))
        np.testing.assert_allclose(entropy, truth.entropy, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", SCAN_SCENARIOS)
def test_single_precision(name: str):
    s = SCAN_SCENARIOS[name]
    value = mx.marginalize(model_of(s, s.steps)).log_density(jax.tree.map(real, s.params))
    with jax.enable_x64(True):
        expected = float(oracle(name, s.steps).log_density)
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5)


def _slopes(s: ScanScenario, params: Any) -> Any:
    """The gradient by brute force."""
    model = partial(s.model, s.steps, True)
    return jax.grad(lambda p: brute_force(model, p).log_density)(params) if params else {}


ASKED_STEP_BY_STEP = [n for n, s in SCAN_SCENARIOS.items() if s.model.__name__ != "backwards"]


@pytest.mark.parametrize("name", ASKED_STEP_BY_STEP)
def test_filtered_probabilities_are_those_of_a_series_that_ends_there(name: str):
    s = SCAN_SCENARIOS[name]
    with jax.enable_x64(True):
        found = mx.marginalize(model_of(s, s.steps)).filtered(jax.tree.map(real, s.params))
        for t in range(s.steps):
            shorter = oracle(name, t + 1, False).posterior
            for site, series in found.items():
                if s.model.__name__ == "one_after_the_other" and site == "z":
                    continue  # the first of two scans, of which the length is the same
                np.testing.assert_allclose(series[t], shorter[site][t], atol=1e-9, err_msg=site)


@pytest.mark.parametrize("name", [n for n in ASKED_STEP_BY_STEP if SCAN_SCENARIOS[n].chain_rule])
def test_observations_one_step_ahead_add_up_to_the_whole(name: str):
    s = SCAN_SCENARIOS[name]
    with jax.enable_x64(True):
        found = mx.marginalize(model_of(s, s.steps)).one_step_ahead(jax.tree.map(real, s.params))
        # Of two scans the first is as long as before, whatever is asked.
        sites = {"x"} if s.model.__name__ == "one_after_the_other" else {"x", "y"}
        series = [found[site] for site in sorted(sites & found.keys())]
        whole = [
            oracle(name, t, False).log_density if t else _before(s) for t in range(s.steps + 1)
        ]
        latent = _latent_densities(s)
        np.testing.assert_allclose(sum(series), np.diff(np.array(whole)) - latent, atol=1e-9)


# The structures that the steps of a scan can have, one of each; all scenarios by `make test-slow`.
LEFT_OUT = {
    "first_order sequential",
    "second_order 2",
    "from_a_variable_to_the_end",
    "every_other_step",
    "factorial sequential",
    "in_a_plate sequential",
    "with_missing_observations",
    "chains_in_a_plate_inside",
    "one_after_the_other",
    "under_a_variable",
    "backwards",
}


@pytest.mark.parametrize(
    "name",
    [
        name if name in LEFT_OUT else pytest.param(name, marks=pytest.mark.slow)
        for name in SCAN_SCENARIOS
    ],
)
def test_each_observation_given_all_others(name: str):
    """Of p(y) and p(y without y_t) each is a sum over all assignments, the second of the joint over one density."""
    s = SCAN_SCENARIOS[name]
    with jax.enable_x64(True):
        params = jax.tree.map(real, s.params)
        found = jax.jit(mx.marginalize(model_of(s, s.steps)).pointwise)(params)
        truth = oracle(name, s.steps)

        def densities(values: Any) -> Any:
            fixed = mx.handlers.substitute(model_of(s, s.steps), data={**params, **values})
            trace = mx.handlers.trace(fixed).get_trace()
            return {n: trace[n]["fn"].log_prob(trace[n]["value"]) for n in found}

        each = jax.vmap(densities)(truth.assignments)
        joint = np.asarray(truth.log_joint)
        for site, value in found.items():
            own = np.asarray(each[site])
            whole = joint.reshape(-1, *[1] * (own.ndim - 1))
            others = np.logaddexp.reduce(whole - own, axis=0)
            np.testing.assert_allclose(value, truth.log_density - others, atol=1e-9, err_msg=site)


def gaps(y: Any, shift: Any, left_out: Any = -1) -> None:
    """A state that is left for good, and two observations a step, one of which not every state allows."""

    def step(z: Any, now: Any) -> Any:
        t, a, b = now
        z = mx.sample(
            "z", dist.Categorical(jnp.array([[0.6, 0.4, 0], [0, 0.5, 0.5], [0, 0, 1]])[z])
        )
        with mx.handlers.mask(mask=t != left_out):
            mx.sample("a", dist.Normal(shift * z, 1.0), obs=a)
        mx.sample("b", dist.Categorical(jnp.array([[0.5, 0.5], [0.0, 1.0], [0.2, 0.8]])[z]), obs=b)
        return z, None

    mx.scan(step, 0, (np.arange(4), *y))


@pytest.mark.parametrize("x64", [False, True])
def test_left_out_densities_where_states_are_impossible_or_all_but(x64: bool):
    """Their value and their slope; one observation is so far off that its density is lost beside the others."""
    y = np.array([0.2, 60.0, 1.5, 2.5]), np.array([0, 1, 1, 1])
    with jax.enable_x64(x64):

        def left_out(shift: Any) -> Any:
            return mx.marginalize(gaps).pointwise({}, y, shift)

        found, slope = jax.jit(lambda s: (left_out(s), jax.jacfwd(left_out)(s)))(1.2)
        backwards = jax.jit(jax.grad(lambda s: left_out(s)["a"].sum()))(1.2)
        np.testing.assert_allclose(backwards, slope["a"].sum(), rtol=1e-10 if x64 else 2e-5)
    tolerance = 1e-10 if x64 else 2e-5
    with jax.enable_x64(True):

        def without(shift: Any, t: Any) -> Any:
            """The density of `a` at step t given the rest: of all, less that of all the rest."""
            rest = partial(gaps, left_out=t)
            every = brute_force(gaps, {}, y, shift).log_density
            return every - brute_force(rest, {}, y, shift).log_density

        exact = jax.jit(jax.vmap(jax.value_and_grad(without), (None, 0)))
        value, change = exact(1.2, jnp.arange(4))
        np.testing.assert_allclose(found["a"], value, rtol=tolerance)
        np.testing.assert_allclose(slope["a"], change, rtol=tolerance, atol=tolerance)


def test_left_out_densities_of_a_long_series():
    """Single precision, against a forward and a backward pass written out in NumPy, over 5,000 steps."""
    table = 0.9 * np.eye(8) + 0.1 / 8
    locs = 3.0 * np.arange(8) - 10
    y = np.random.default_rng(0).normal(0, 5, 5000)

    def model(y: Any) -> None:
        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Categorical(real(table)[z]))
            mx.sample("y", dist.Normal(real(locs)[z], 1.0), obs=y)
            return z, None

        mx.scan(step, 0, y)

    found = mx.marginalize(model).pointwise({}, jnp.asarray(y, jnp.float32))["y"]
    density = np.exp(-0.5 * (y[:, None] - locs) ** 2) / np.sqrt(2 * np.pi)
    past, future = [table[0]], [np.ones(8)]
    for each in density[:-1]:
        ahead = (past[-1] * each) @ table
        past.append(ahead / ahead.sum())
    for each in density[:0:-1]:
        behind = table @ (each * future[-1])
        future.append(behind / behind.sum())
    others = np.array(past) * np.array(future[::-1])
    expected = np.log((others * density).sum(1)) - np.log(others.sum(1))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def _before(s: ScanScenario) -> Any:
    """The log density of what is stated before the first step."""
    given = {n: real(v) for n, v in s.params.items() if n != "x"}
    return brute_force(partial(s.model, 0, False), given).log_density


def _latent_densities(s: ScanScenario) -> Any:
    """Of continuous latent sites in the scan, which belong to no observation."""
    if "x" not in s.params:
        return 0.0
    x = np.concatenate([[0.0], s.params["x"]])
    return dist.Normal(0.8 * x[:-1], 1.0).log_prob(x[1:])


def test_pairs_of_one_step():
    name = "factorial sequential"
    s = SCAN_SCENARIOS[name]
    with jax.enable_x64(True):
        truth = oracle(name, s.steps)
        found = mx.marginalize(model_of(s, s.steps)).pairwise(
            "a", "b", jax.tree.map(real, s.params)
        )
        weight = np.exp(np.asarray(truth.log_joint) - float(truth.log_density))
        a, b = (np.asarray(truth.assignments[v]) for v in "ab")
        for i in range(3):
            for j in range(2):
                both = weight @ ((a == i) & (b == j))
                np.testing.assert_allclose(found[:, i, j], both, atol=1e-12)


def test_a_variable_of_a_step_and_one_outside():
    s = SCAN_SCENARIOS["under_a_variable"]
    with jax.enable_x64(True):
        truth = oracle("under_a_variable", s.steps)
        found = mx.marginalize(model_of(s, s.steps)).pairwise("regime", "z", {})
        weight = np.exp(np.asarray(truth.log_joint) - float(truth.log_density))
        regime, z = (np.asarray(truth.assignments[v]) for v in ("regime", "z"))
        for i in range(3):
            both = weight @ ((regime == i)[:, None] & (z == 1))
            np.testing.assert_allclose(found[:, i, 1], both, atol=1e-12)


def test_pairs_of_two_scans_are_refused():
    s = SCAN_SCENARIOS["one_after_the_other"]
    with pytest.raises(mx.ModelError, match="different scans"):
        mx.marginalize(model_of(s, s.steps)).pairwise("z", "w", {})


def test_scales_and_subsamples_around_a_scan():
    """They multiply after the sum, for every element of the plate."""

    def model(rows: Any) -> None:
        with mx.plate("series", 6, subsample_size=2), mx.handlers.scale(scale=1.5):
            data = mx.subsample(rows, event_dim=0)

            def step(z: Any, y: Any) -> Any:
                z = mx.sample("z", dist.Categorical(real(T33)[z]))
                mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)
                return z, None

            mx.scan(step, jnp.zeros(2, int), data * jnp.array([[0.5], [1.0], [-1.0], [2.0]]))

    def alone(ys: Any) -> None:
        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Categorical(real(T33)[z]))
            mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)
            return z, None

        mx.scan(step, 0, ys)

    rows = real(DATA[:6])
    chosen = mx.handlers.substitute(model, data={"series": jnp.array([4, 1])})
    value = mx.marginalize(chosen).log_density({}, rows)
    times = jnp.array([0.5, 1.0, -1.0, 2.0])
    each = [brute_force(alone, {}, times * rows[i]).log_density for i in (4, 1)]
    np.testing.assert_allclose(value, 3.0 * 1.5 * sum(each), rtol=1e-5)


def test_a_variable_outside_of_the_scale_of_a_scan_is_summed_out_last():
    """It decides how the states move, and the last state is observed after the scan."""
    move = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.6, 0.4]], [[0.3, 0.7], [0.7, 0.3]]])
    y, weights = np.array([0.3, 1.2, -0.4, 0.8]), np.array([0.2, 0.5, 0.3])

    def model():
        g = mx.sample("g", dist.Categorical(real(weights)))

        def step(z, y):
            z = mx.sample("z", dist.Categorical(real(move)[g, z]))
            mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)
            return z, None

        with mx.handlers.scale(scale=0.5):
            last, _ = mx.scan(step, 0, real(y))
            mx.sample("end", dist.Normal(1.0 * last, 1.0), obs=0.6)

    def seen(value):
        density = np.exp(-0.5 * (value - np.arange(2)) ** 2) / np.sqrt(2 * np.pi)
        return np.diag(density)

    series = np.zeros(3)
    for g in range(3):
        forward = np.array([1.0, 0.0])
        for value in y:
            forward = forward @ move[g] @ seen(value)
        series[g] = (forward @ seen(0.6)).sum()
    with jax.enable_x64(True):
        m = mx.marginalize(model)
        joint = weights * np.sqrt(series)
        np.testing.assert_allclose(m.log_density({}), np.log(joint.sum()), rtol=1e-9)
        np.testing.assert_allclose(m.posterior({})["g"], joint / joint.sum(), rtol=1e-9)


def test_an_impossible_series_is_explained():
    def model(ys: Any) -> None:
        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Categorical(jnp.eye(2)[z]))
            mx.sample("y", dist.Categorical(jnp.eye(2)[z]), obs=y)
            return z, None

        mx.scan(step, 0, ys)

    m = mx.marginalize(model)
    assert m.log_density({}, jnp.array([0, 0, 1])) == -jnp.inf
    for ask in (m.posterior, m.mode, m.filtered):
        with pytest.raises(mx.ModelError, match="impossible|no joint assignment"):
            ask({}, jnp.array([0, 0, 1]))


def test_long_series_of_many_states_stay_within_memory():
    """A plan over the limit is refused before anything is computed."""

    def model(ys: Any, u: Any) -> None:
        def step(z: Any, now: Any) -> Any:
            u, y = now
            z = mx.sample("z", dist.Categorical(logits=u * jnp.ones((50, 50))[z]))
            mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)
            return z, None

        mx.scan(step, 0, (u, ys))

    m = mx.marginalize(model, memory_limit=2**20)
    with pytest.raises(mx.ModelError, match="more than the limit"):
        m.log_density({}, jnp.ones(1000), jnp.ones(1000))


def test_the_cost_is_linear_in_the_number_of_steps():
    def model(ys: Any) -> None:
        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Categorical(jnp.asarray(T33)[z]))
            mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)
            return z, None

        mx.scan(step, 0, ys)

    def flops(steps: int) -> int:
        data = jax.ShapeDtypeStruct((steps,), jnp.float32)
        return mx.marginalize(model).explain(data, show=False).flops

    # A step adds a table of 3 x 3 to a message and sums over one of the two.
    assert flops(2001) - flops(1001) == 1000 * (3 * 3 * 3)
