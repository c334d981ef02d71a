"""Models written in NumPyro, against NumPyro's own density of every assignment, summed by brute force.

Where a scale or a mask makes the density another thing than that sum, the oracle is the formula in NumPy
and SciPy.
"""

from __future__ import annotations

import importlib
import itertools
import math
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer.reparam import LocScaleReparam, TransformReparam
from numpyro.infer.util import log_density
from numpyro.ops.indexing import Vindex
from scipy import stats

import marginax as mx
from marginax.infer import MCMC, NUTS, SVI, Predictive, TraceEnum_ELBO, infer_discrete
from marginax.infer.autoguide import AutoDelta

# Any, because NumPyro's annotations admit values that no model could compute with.
numpyro: Any = importlib.import_module("numpyro")
dist: Any = numpyro.distributions
theirs: Any = numpyro.handlers

CLOSE = 1e-5
POINTS = jnp.array([0.3, 1.2, 4.0, 5.0])
TABLE = jnp.array([[0.1, 1.0, 2.0], [3.0, 4.0, 5.0]])
TRANSITION = jnp.array([[0.8, 0.2], [0.3, 0.7]])


# --- the models, each as one writes it in NumPyro ------------------------------------------------


def mixture(data: Any) -> None:
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("components", 2):
        locs = numpyro.sample("locs", dist.Normal(0.0, 10.0))
    with numpyro.plate("data", len(data)):
        z = numpyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.sample("obs", dist.Normal(locs[z], 1.0), obs=data)
    numpyro.factor("apart", -0.1 * jnp.sum(locs) ** 2)
    numpyro.deterministic("distance", locs[1] - locs[0])


def nested_plates(table: Any) -> None:
    p = numpyro.sample("p", dist.Beta(2.0, 1.0))
    with numpyro.plate("rows", 2, dim=-2):
        row = numpyro.sample("row", dist.Bernoulli(p))
        with numpyro.plate("columns", 3, dim=-1):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
            numpyro.sample("obs", dist.Normal(row + 2.0 * z, 1.0), obs=table)


def stacked_plates(table: Any) -> None:
    p = numpyro.sample("p", dist.Beta(2.0, 1.0))
    with numpyro.plate_stack("cell", [2, 3]):
        z = numpyro.sample("z", dist.Bernoulli(p))
        numpyro.sample("obs", dist.Normal(z, 1.0), obs=table)


def two_indices(data: Any) -> None:
    means = numpyro.sample("means", dist.Normal(0.0, 5.0).expand([2, 2]).to_event(2))
    with numpyro.plate("data", len(data)):
        a = numpyro.sample("a", dist.Bernoulli(0.3))
        b = numpyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
        numpyro.sample("obs", dist.Normal(Vindex(means)[a, b], 1.0), obs=data)


def hidden_markov(y: Any, **how: Any) -> Any:
    loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))

    def step(carry: Any, y: Any) -> Any:
        z, t = carry
        z = numpyro.sample("z", dist.Categorical(TRANSITION[z]))
        y = numpyro.sample("y", dist.Normal(loc * z, 1.0), obs=y)
        return (z, t + 1), y

    return scan(step, (0, 0), y, **how)[1]


def second_order(y: Any) -> None:
    table = numpyro.sample("table", dist.Beta(1.0, 1.0).expand([2, 2]).to_event(2))

    def step(carry: Any, y: Any) -> Any:
        before, last = carry
        z = numpyro.sample("z", dist.Bernoulli(Vindex(table)[before, last]))
        numpyro.sample("y", dist.Normal(3.0 * z, 1.0), obs=y)
        return (last, z), None

    scan(step, (0, 1), y, history=2)


def partly_observed(data: Any) -> None:
    known = jnp.array([True, False, True, True])
    with numpyro.plate("data", len(data)):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(2.0 * z, 1.0), obs=data, obs_mask=known)


def reparametrised(data: Any) -> None:
    loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
    config = {"effect": LocScaleReparam(0.0), "shift": TransformReparam()}
    to_shift = dist.transforms.AffineTransform(loc, 3.0)
    with theirs.reparam(config=config):
        normal = dist.Normal(0.0, 1.0)
        shift = numpyro.sample("shift", dist.TransformedDistribution(normal, to_shift))
        with numpyro.plate("data", len(data)):
            effect = numpyro.sample("effect", dist.Normal(loc, 2.0))
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("obs", dist.Normal(effect + shift + z, 1.0), obs=data)


def with_parameters(data: Any) -> None:
    p = numpyro.param("p", 0.5, constraint=dist.constraints.unit_interval)
    loc = numpyro.param("loc", lambda key: jax.random.normal(key))
    with numpyro.plate("data", len(data)):
        z = numpyro.sample("z", dist.Bernoulli(p))
        numpyro.sample("obs", dist.Normal(loc * z, 1.0), obs=data)


def coins(data: Any) -> None:
    p = numpyro.sample("p", dist.Beta(2.0, 1.0))
    with numpyro.plate("data", len(data)):
        z = numpyro.sample("z", dist.Bernoulli(p))
        numpyro.sample("obs", dist.Normal(2.0 * z, 1.0), obs=data)


def seeded_inside(data: Any) -> None:
    with theirs.seed(rng_seed=0):
        numpyro.prng_key()
        coins(data)


def substituted_inside(data: Any) -> None:
    with theirs.substitute(data={"p": 0.3}):
        coins(data)


def lifted(data: Any) -> Any:
    return theirs.lift(with_parameters, prior={"loc": dist.Normal(0.0, 5.0)})(data)


PLATE = numpyro.plate("made before", 4)


def in_a_plate_made_before(data: Any) -> None:
    with PLATE:
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("obs", dist.Normal(2.0 * z, 1.0), obs=data)


def in_hidden_plates(data: Any) -> None:
    with theirs.block(hide=["made before"]):
        in_a_plate_made_before(data)


@dataclass(frozen=True)
class Scenario:
    model: Callable[..., Any]
    params: Mapping[str, Any]
    shapes: Mapping[str, tuple[tuple[int, ...], int]]
    """Of each discrete site: its shape, and how many values it has."""
    data: Any = field(default_factory=lambda: POINTS)


P = {"p": 0.4}
Z = {"z": ((4,), 2)}
LOC = {"loc": 3.0}
CELLS = {"row": ((2, 1), 2), "z": ((2, 3), 3)}
TABLE_OF_2 = {"table": [[0.2, 0.6], [0.7, 0.4]]}

SCENARIOS = {
    "mixture": Scenario(mixture, {"weights": [0.4, 0.6], "locs": [0.0, 4.0]}, Z),
    "nested plates": Scenario(nested_plates, P, CELLS, TABLE),
    "plate_stack": Scenario(stacked_plates, P, {"z": ((2, 3), 2)}, TABLE),
    "Vindex": Scenario(
        two_indices, {"means": [[0.0, 1.0], [4.0, 5.0]]}, {"a": ((4,), 2), "b": ((4,), 2)}
    ),
    "hidden Markov": Scenario(hidden_markov, LOC, Z),
    "second order": Scenario(second_order, TABLE_OF_2, Z),
    "obs_mask": Scenario(partly_observed, {"y_unobserved": [0.0, 1.0, 0.0, 0.0]}, Z),
    "reparam": Scenario(
        reparametrised,
        {"loc": 0.3, "effect_decentered": [0.1, 0.2, 0.3, 0.4], "shift_base": 0.2},
        Z,
    ),
    "param": Scenario(with_parameters, {"p": 0.4, "loc": 3.0}, Z),
    "seed inside": Scenario(seeded_inside, P, Z),
    "substitute inside": Scenario(substituted_inside, {}, Z),
    "lift": Scenario(lifted, {"p": 0.4, "loc": 3.0}, Z),
    "condition": Scenario(theirs.condition(coins, data={"z": jnp.array([0, 1, 1, 0])}), P, {}),
    "uncondition": Scenario(theirs.uncondition(coins), {**P, "obs": POINTS}, Z),
    "scope": Scenario(theirs.scope(coins, prefix="s"), {"s/p": 0.4}, {"s/z": Z["z"]}),
    "infer_config": Scenario(theirs.infer_config(coins, lambda site: {"is_asked": True}), P, Z),
    "seed around a scan": Scenario(theirs.seed(hidden_markov, 0), LOC, Z),
    "mask around a scan": Scenario(theirs.mask(hidden_markov, mask=True), LOC, Z),
    "condition around a scan": Scenario(
        theirs.condition(hidden_markov, data={"z": jnp.array([0, 0, 1, 1])}), LOC, {}
    ),
    "substitute around a scan": Scenario(
        theirs.substitute(hidden_markov, data={"z": jnp.array([0, 0, 1, 1]), "loc": 2.0}), {}, {}
    ),
    "a plate made before": Scenario(in_a_plate_made_before, {}, Z),
    "a hidden plate": Scenario(in_hidden_plates, {}, Z),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_density_and_gradient_are_those_of_numpyro_summed_by_brute_force(name: str):
    scenario = SCENARIOS[name]
    params = {n: jnp.asarray(v, float) for n, v in scenario.params.items()}
    m = mx.marginalize(mx.from_numpyro(scenario.model))
    _, log_joint = by_brute_force(scenario)

    value, gradient = jax.jit(jax.value_and_grad(lambda p: m.log_density(p, scenario.data)))(params)
    brute = jax.jit(jax.value_and_grad(lambda p: logsumexp(log_joint(p))))
    expected, expected_gradient = brute(params)
    assert value == pytest.approx(float(expected), rel=CLOSE)
    for site, at in params.items():
        one, other = (along(at, found[site]) for found in (gradient, expected_gradient))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def along(value: Any, gradient: Any) -> Any:
    """Of probabilities, a gradient in the directions in which they still add up to one: what leaves
    them is normalised by this library, and not by NumPyro.
    """
    value, gradient = np.asarray(value), np.asarray(gradient)
    are_probabilities = value.ndim > 0 and np.allclose(value.sum(-1), 1)
    return gradient - gradient.mean(-1, keepdims=True) if are_probabilities else gradient


@pytest.mark.parametrize("name", ["mixture", "nested plates", "hidden Markov", "obs_mask"])
def test_posteriors_are_those_of_numpyro_summed_by_brute_force(name: str):
    scenario = SCENARIOS[name]
    params = {n: jnp.asarray(v, float) for n, v in scenario.params.items()}
    assignments, log_joint = by_brute_force(scenario)
    weights = np.asarray(jax.jit(lambda p: jax.nn.softmax(log_joint(p)))(params))
    posterior = mx.marginalize(mx.from_numpyro(scenario.model)).posterior(params, scenario.data)
    for site, (_, size) in scenario.shapes.items():
        is_k = assignments[site][..., None] == np.arange(size)
        marginal = np.tensordot(weights, is_k, axes=1)
        np.testing.assert_allclose(posterior[site], marginal, atol=1e-4)


def by_brute_force(
    scenario: Scenario,
) -> tuple[dict[str, np.ndarray], Callable[[dict[str, Any]], jax.Array]]:
    """Every assignment of the discrete sites, and NumPyro's log density of each, given the parameters."""
    sizes = [k for shape, k in scenario.shapes.values() for _ in range(math.prod(shape))]
    rows = np.array(list(itertools.product(*map(range, sizes))), int).reshape(
        -1, max(len(sizes), 1)
    )
    assignments, start = {}, 0
    for name, (shape, _) in scenario.shapes.items():
        count = math.prod(shape)
        assignments[name] = rows[:, start : start + count].reshape(-1, *shape)
        start += count

    def log_joint(params: dict[str, Any]) -> jax.Array:
        def one(values: dict[str, Any]) -> jax.Array:
            total, _ = log_density(scenario.model, (scenario.data,), {}, {**params, **values})
            return jnp.asarray(total)

        return jax.vmap(one)(assignments) if assignments else one({})[None]

    return assignments, log_joint


# --- what is no sum of NumPyro's densities -------------------------------------------------------


def normal(x: Any, loc: Any) -> Any:
    return stats.norm.logpdf(np.asarray(x), loc)


def test_a_subsampled_plate_scales_what_is_inside_after_the_sum():
    def model(data: Any) -> None:
        p = numpyro.param("p", 0.5)
        with numpyro.plate("data", len(data), subsample_size=2):
            batch = numpyro.subsample(data, event_dim=0)
            z = numpyro.sample("z", dist.Bernoulli(p))
            numpyro.sample("obs", dist.Normal(2.0 * z, 1.0), obs=batch)

    chosen = jnp.array([1, 3])
    fixed = mx.handlers.substitute(mx.from_numpyro(model), data={"data": chosen})

    def formula(p: float) -> float:
        batch = np.asarray(POINTS)[chosen]
        terms = np.logaddexp(np.log(p) + normal(batch, 2.0), np.log1p(-p) + normal(batch, 0.0))
        return 2.0 * terms.sum()

    density = mx.marginalize(fixed).log_density
    log_p, slope = jax.jit(jax.value_and_grad(lambda p: density({"p": p}, POINTS)))(0.3)
    assert log_p == pytest.approx(formula(0.3), rel=CLOSE)
    assert slope == pytest.approx((formula(0.301) - formula(0.299)) / 0.002, rel=1e-3)


def test_scales_keep_the_order_in_which_they_nest():
    def model(y: Any) -> None:
        with theirs.scale(scale=2.0):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            with theirs.scale(scale=3.0):
                numpyro.sample("y", dist.Normal(2.0 * z, 1.0), obs=y)

    terms = np.log([0.7, 0.3]) + 3.0 * normal(0.4, np.array([0.0, 2.0]))
    value = mx.marginalize(mx.from_numpyro(model)).log_density({}, 0.4)
    assert value == pytest.approx(2.0 * np.logaddexp(*terms), rel=CLOSE)


def test_a_scale_around_a_scan_multiplies_the_density_of_the_series():
    def model(y: Any) -> None:
        with theirs.substitute(data={"loc": 3.0}), theirs.scale(scale=0.5):
            hidden_markov(y)

    forward = forward_algorithm(3.0, np.asarray(POINTS))
    prior = stats.norm.logpdf(3.0, 0.0, 5.0)
    value = mx.marginalize(mx.from_numpyro(model)).log_density({}, POINTS)
    assert value == pytest.approx(0.5 * (forward + prior), rel=CLOSE)


def forward_algorithm(loc: float, y: np.ndarray) -> float:
    """Log density of a series, its states summed out by hand."""
    alpha = np.array([1.0, 0.0])
    total = 0.0
    for now in y:
        alpha = (alpha @ np.asarray(TRANSITION, float)) * np.exp(normal(now, loc * np.arange(2)))
        total += np.log(alpha.sum())
        alpha /= alpha.sum()
    return float(total)


def test_series_of_different_lengths_in_plates_in_the_body_of_a_scan():
    """The data are those of three sequences of tones, as in NumPyro's example of a hidden Markov model."""
    lengths = jnp.array([3, 1, 2])
    tones = jax.random.bernoulli(jax.random.key(0), 0.5, (3, 3, 2)).astype(int)

    def model(tones: Any, lengths: Any) -> None:
        n, _, n_tones = tones.shape
        high = numpyro.sample("high", dist.Beta(1.0, 1.0).expand([2, n_tones]).to_event(2))

        def step(carry: Any, y: Any) -> Any:
            z, t = carry
            with (
                numpyro.plate("sequences", n, dim=-2),
                theirs.mask(mask=(t < lengths)[..., None]),
            ):
                z = numpyro.sample("z", dist.Categorical(TRANSITION[z]))
                with numpyro.plate("tones", n_tones, dim=-1):
                    numpyro.sample("y", dist.Bernoulli(high[z.squeeze(-1)]), obs=y)
            return (z, t + 1), None

        scan(step, (jnp.zeros((n, 1), int), 0), jnp.swapaxes(tones, 0, 1))

    high = np.array([[0.2, 0.6], [0.7, 0.1]])
    expected = 0.0
    for series, length in zip(np.asarray(tones), np.asarray(lengths), strict=True):
        alpha = np.array([1.0, 0.0])
        for y in series[:length]:
            alpha = (alpha @ np.asarray(TRANSITION)) * np.where(y, high, 1 - high).prod(-1)
        expected += np.log(alpha.sum())
    m = mx.marginalize(mx.from_numpyro(model))
    params = {"high": jnp.asarray(high, jnp.float32)}
    assert m.log_density(params, tones, lengths) == pytest.approx(expected, rel=CLOSE)


def test_a_reversed_scan_and_a_scope_around_it():
    m = mx.marginalize(mx.from_numpyro(theirs.scope(hidden_markov, prefix="s")))
    value = m.log_density({"s/loc": 3.0}, POINTS, reverse=True)
    forward = forward_algorithm(3.0, np.asarray(POINTS)[::-1])
    assert value == pytest.approx(forward + stats.norm.logpdf(3.0, 0.0, 5.0), rel=CLOSE)


def test_reparam_around_a_scan():
    def walk(y: Any) -> None:
        def step(x: Any, y: Any) -> Any:
            x = numpyro.sample("x", dist.Normal(x, 2.0))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
            return x, None

        with theirs.reparam(config={"x": LocScaleReparam(0.0)}):
            scan(step, 0.0, y)

    steps = jnp.array([0.1, 0.2, -0.3, 0.4])
    value = mx.marginalize(mx.from_numpyro(walk)).log_density({"x_decentered": steps}, POINTS)
    expected = normal(steps, 0.0).sum() + normal(POINTS, 2.0 * np.cumsum(steps)).sum()
    assert value == pytest.approx(expected, rel=CLOSE)


def test_an_intervention_inside_a_scale_and_a_subsampled_plate():
    def model(data: Any) -> None:
        with (
            theirs.do(data={"z": jnp.ones(4)}),
            theirs.scale(scale=3.0),
            numpyro.plate("data", 8, subsample_size=4),
        ):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("obs", dist.Normal(z, 1.0), obs=data)

    fixed = mx.handlers.substitute(mx.from_numpyro(model), data={"data": jnp.arange(4)})
    value = mx.marginalize(fixed).log_density({}, POINTS)
    assert value == pytest.approx(6.0 * normal(POINTS, 1.0).sum(), rel=CLOSE)


def test_enumeration_of_numpyro_around_a_model_changes_nothing():
    pytest.importorskip("funsor")
    from numpyro.contrib.funsor import config_enumerate

    m = mx.marginalize(mx.from_numpyro(config_enumerate(hidden_markov)))
    expected = forward_algorithm(3.0, np.asarray(POINTS)) + stats.norm.logpdf(3.0, 0.0, 5.0)
    assert m.log_density(LOC, POINTS) == pytest.approx(expected, rel=CLOSE)


# --- the translated model is a model like any other ----------------------------------------------


def test_it_keeps_name_arguments_and_result():
    model = mx.from_numpyro(hidden_markov)
    assert model.__name__ == "hidden_markov"
    run = mx.handlers.seed(model, rng_seed=0)
    assert jax.eval_shape(lambda: run(None, length=5)).shape == (5,)


def test_sites_plates_and_values_are_recorded_as_in_numpyro():
    def run() -> None:
        there = theirs.trace(theirs.seed(mixture, 0)).get_trace(POINTS)
        here = mx.handlers.trace(mx.handlers.seed(mx.from_numpyro(mixture), 0)).get_trace(POINTS)
        assert list(here) == list(there)
        for name, site in there.items():
            assert here[name]["type"] == site["type"]
            assert np.shape(here[name]["value"]) == np.shape(site["value"])
            if site["type"] == "sample":
                assert here[name]["fn"].batch_shape == site["fn"].batch_shape
                assert here[name]["is_observed"] == site["is_observed"]

    jax.eval_shape(run)


def test_a_seed_in_the_model_gives_the_keys_of_plates_and_of_every_step_of_a_scan():
    def model() -> Any:
        with numpyro.plate("data", 50, subsample_size=3) as rows:
            pass
        return hidden_markov(None, length=20), rows

    translated = mx.from_numpyro(theirs.seed(model, 1))
    ys, rows = jax.jit(lambda: translated())()
    again, same_rows = jax.jit(lambda: mx.handlers.seed(translated, 7)())()
    assert len(np.unique(ys)) == 20
    np.testing.assert_array_equal(ys, again)
    np.testing.assert_array_equal(rows, same_rows)


def test_get_mask_and_a_trace_inside_the_model():
    def model(data: Any) -> None:
        with theirs.mask(mask=False):
            assert numpyro.get_mask() is False
        recorded = theirs.trace(in_a_plate_made_before).get_trace(data)
        with PLATE:  # once more
            numpyro.factor("again", recorded["obs"]["fn"].log_prob(data))

    value = mx.marginalize(mx.from_numpyro(model)).log_density({}, POINTS)
    terms = [np.log(p) + 2.0 * normal(POINTS, mean) for p, mean in [(0.7, 0.0), (0.3, 2.0)]]
    assert value == pytest.approx(np.logaddexp(*terms).sum(), rel=CLOSE)


def test_a_hidden_site_is_drawn_with_a_key_from_outside():
    def model(y: Any) -> Any:
        with theirs.block(hide=["noise"]):
            noise = numpyro.sample("noise", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(noise, 1.0), obs=y)
        return noise

    translated = mx.from_numpyro(model)
    assert list(mx.handlers.trace(mx.handlers.seed(translated, 0)).get_trace(1.0)) == ["y"]
    assert mx.handlers.seed(translated, 0)(1.0) != mx.handlers.seed(translated, 1)(1.0)
    with pytest.raises(mx.ModelError, match="hides a site.*no random key"):
        mx.marginalize(translated).log_density({}, 1.0)


def test_it_is_part_of_larger_models_here_and_there():
    def here(tables: Any) -> None:
        with mx.plate("copies", 2, dim=-3):
            mx.from_numpyro(stacked_plates)(tables)

    def there(tables: Any) -> None:
        with numpyro.plate("copies", 2, dim=-3):
            mx.from_numpyro(stacked_plates)(tables)

    tables = jnp.stack([TABLE, TABLE + 1.0])
    one = mx.marginalize(mx.from_numpyro(stacked_plates))
    expected = sum(one.log_density({"p": p}, t) for p, t in zip((0.3, 0.6), tables, strict=True))
    params = {"p": jnp.array([0.3, 0.6]).reshape(2, 1, 1)}
    for model in (here, mx.from_numpyro(there)):
        assert mx.marginalize(model).log_density(params, tables) == pytest.approx(expected)


def test_plates_of_both_libraries_share_the_dimensions():
    def model(table: Any) -> None:
        p = mx.sample("p", dist.Beta(2.0, 1.0))
        with mx.plate("columns", 3), numpyro.plate("rows", 2):
            z = numpyro.sample("z", dist.Bernoulli(p))
            numpyro.sample("obs", dist.Normal(z, 1.0), obs=table)

    value = mx.marginalize(mx.from_numpyro(model)).log_density(P, TABLE)
    same = mx.marginalize(mx.from_numpyro(stacked_plates)).log_density(P, TABLE)
    assert value == pytest.approx(same)


def test_an_inference_within_a_translated_model_is_a_run_of_its_own():
    inner = mx.marginalize(mx.from_numpyro(in_a_plate_made_before))

    def model(data: Any) -> None:
        in_a_plate_made_before(data)
        numpyro.factor("again", inner.log_density({}, data))

    value = mx.marginalize(mx.from_numpyro(model)).log_density({}, POINTS)
    assert value == pytest.approx(2.0 * float(inner.log_density({}, POINTS)), rel=CLOSE)


def test_models_run_in_several_threads():
    def density(p: float) -> float:
        return float(mx.marginalize(mx.from_numpyro(coins)).log_density({"p": p}, POINTS))

    values = [0.2, 0.4, 0.6, 0.8]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(density, values)) == [density(p) for p in values]


def test_both_stacks_are_empty_after_an_error():
    def model() -> None:
        with numpyro.plate("data", 4):
            raise KeyError("an error of its own")

    with pytest.raises(KeyError):
        mx.marginalize(mx.from_numpyro(model)).log_density({})
    assert numpyro.deterministic("x", 1.0) == 1.0
    assert mx.handlers.trace(mx.from_numpyro(lambda: None)).get_trace() == {}
    test_it_keeps_name_arguments_and_result()


# --- inference -----------------------------------------------------------------------------------

SERIES = np.repeat([0.0, 4.0, 0.0], 20) + np.random.default_rng(0).normal(size=60)


def test_svi_finds_the_best_parameter_and_the_states_are_decoded():
    model = mx.from_numpyro(hidden_markov)
    svi = SVI(model, AutoDelta(model), mx.optim.Adam(0.1), TraceEnum_ELBO())
    loc = float(svi.run(jax.random.key(0), 200, SERIES, progress_bar=False).params["loc_auto_loc"])

    def log_joint(loc: float) -> float:
        return forward_algorithm(loc, SERIES) + float(stats.norm.logpdf(loc, 0.0, 5.0))

    assert log_joint(loc) > max(log_joint(loc - 0.03), log_joint(loc + 0.03))
    fitted = mx.handlers.substitute(model, data={"loc": loc})
    decoded = mx.handlers.trace(infer_discrete(fitted, temperature=0)).get_trace(SERIES)
    np.testing.assert_array_equal(decoded["z"]["value"], np.repeat([0, 1, 0], 20))


def test_svi_on_batches_with_a_guide_of_numpyro():
    def model(data: Any) -> None:
        loc = numpyro.sample("loc", dist.Normal(0.0, 10.0))
        with numpyro.plate("data", len(data), subsample_size=20):
            batch = numpyro.subsample(data, event_dim=0)
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("obs", dist.Normal(loc * z, 1.0), obs=batch)

    def guide(data: Any) -> None:
        numpyro.sample("loc", dist.Delta(numpyro.param("at", 2.0)))

    data = np.repeat([0.0, 5.0], 50) + np.random.default_rng(1).normal(size=100)
    svi = SVI(mx.from_numpyro(model), mx.from_numpyro(guide), mx.optim.Adam(0.05), TraceEnum_ELBO())
    at = svi.run(jax.random.key(0), 300, data, progress_bar=False).params["at"]
    assert at == pytest.approx(data[50:].mean(), abs=0.4)


def test_nuts_sums_out_and_predictive_draws_what_was_summed_out():
    model, data = mx.from_numpyro(coins), np.repeat([-0.1, 2.1], [3, 9])
    mcmc = MCMC(NUTS(model), num_warmup=100, num_samples=300, progress_bar=False)
    mcmc.run(jax.random.key(0), data)
    samples = mcmc.get_samples()

    grid = np.linspace(0.001, 0.999, 999)
    each = np.logaddexp(
        np.log(grid)[:, None] + normal(data, 2.0), np.log1p(-grid)[:, None] + normal(data, 0.0)
    )
    density = np.exp(np.log(grid) + each.sum(-1))  # the prior is proportional to p
    mean = (grid * density).sum() / density.sum()
    assert samples["p"].mean() == pytest.approx(mean, abs=0.03)

    drawn = Predictive(model, samples, infer_discrete=True)(jax.random.key(1), data)["z"]
    odds = mean * np.exp(normal(data, 2.0) - normal(data, 0.0)) / (1.0 - mean)
    np.testing.assert_allclose(drawn.mean(0), odds / (1.0 + odds), atol=0.1)


def test_a_series_is_forecast_from_a_condition_around_the_scan():
    def model(y: Any, future: int = 0) -> None:
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))

        def step(x: Any, _: Any) -> Any:
            x = numpyro.sample("x", dist.Normal(x, scale))
            numpyro.sample("y", dist.Normal(x, 0.1))
            return x, None

        with theirs.condition(data={"y": y}):
            scan(step, 0.0, None, length=len(y) + future)

    params = {"scale": jnp.asarray(1.0), "x": POINTS}
    value = mx.marginalize(mx.from_numpyro(model)).log_density(params, POINTS)
    expected = jax.jit(lambda params: log_density(model, (POINTS,), {}, params)[0])(params)
    assert value == pytest.approx(float(expected), rel=CLOSE)
    draws = {"scale": jnp.full(3, 0.1), "x": jnp.tile(POINTS, (3, 1))}
    y = Predictive(mx.from_numpyro(model), draws)(jax.random.key(0), POINTS, future=2)["y"]
    assert y.shape == (3, 6)
    np.testing.assert_allclose(y[:, :4], jnp.tile(POINTS, (3, 1)))
    np.testing.assert_allclose(y[:, 4:], 5.0, atol=1.5)


# --- what is refused -----------------------------------------------------------------------------


class TimesThree(theirs.trace):
    """A handler of a user's own, which scales."""

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample":
            msg["scale"] = 3.0


def under(*around: Any) -> Callable[[Any], None]:
    def model(y: Any) -> None:
        for handler in around:
            handler.__enter__()
        hidden_markov(y)

    return model


def with_cond(y: Any) -> None:
    def branch(loc: float) -> Callable[[Any], Any]:
        return lambda _: numpyro.sample("x", dist.Normal(loc, 1.0))

    cond(True, branch(0.0), branch(1.0), None)


def with_a_mutable(y: Any) -> None:
    numpyro.primitives.mutable("state", {"n": 0})


def with_a_parameter_from_nowhere(y: Any) -> None:
    numpyro.param("weights")


def a_plate_of_one(y: Any) -> None:
    with numpyro.plate("one", 1):
        numpyro.sample("obs", dist.Normal(jnp.zeros(4), 1.0), obs=y)


def marginax_in_a_plate_of_numpyro(y: Any) -> None:
    with numpyro.plate("data", 4):
        mx.sample("obs", dist.Normal(0.0, 1.0), obs=y)


def scan_of_marginax_in_a_mask_of_numpyro(y: Any) -> None:
    def step(z: Any, y: Any) -> Any:
        z = numpyro.sample("z", dist.Bernoulli(0.2 + 0.5 * z))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    with theirs.mask(mask=True):
        mx.scan(step, 0, y)


def inference_in_a_plate(y: Any) -> None:
    with numpyro.plate("data", 4):
        numpyro.factor("f", mx.marginalize(mx.from_numpyro(coins)).log_density(P, y))


def with_a_key_for_a_parameter(y: Any) -> None:
    numpyro.sample("y", dist.Normal(numpyro.param("p", jax.random.normal), 1.0), obs=y)


REFUSED = {
    "cond": (with_cond, "`cond` has no translation.*jnp.where"),
    "mutable": (with_a_mutable, "'state'.*no translation of a 'mutable'"),
    "module": (with_a_parameter_from_nowhere, "param 'weights': it has no init_value"),
    "key": (with_a_key_for_a_parameter, "param 'p'.*outside of a seed"),
    "own scale": (TimesThree(coins), "site 'p': it is scaled by 3.0"),
    "plate": (a_plate_of_one, "site 'obs'.*does not fit the plate 'one' of size 1"),
    "marginax inside": (marginax_in_a_plate_of_numpyro, "sample 'obs'.*numpyro's plate"),
    "marginax scan": (scan_of_marginax_in_a_mask_of_numpyro, "sample 'z'.*numpyro's mask"),
    "inference inside": (inference_in_a_plate, "run inside numpyro's plate"),
    "scan in an array mask": (under(theirs.mask(mask=jnp.ones(4, bool))), "numpyro's mask"),
    "scan in an array scale": (under(theirs.scale(scale=jnp.ones(4))), "numpyro's scale"),
    "scan in do": (under(theirs.do(data={"z": 1})), "numpyro's do"),
    "scan in lift": (under(theirs.lift(prior={})), "numpyro's lift"),
    "scan in trace": (under(theirs.trace()), "numpyro's trace"),
    "scan in condition_fn": (
        under(theirs.condition(condition_fn=lambda site: None)),
        "condition with a function",
    ),
    "scan in block": (
        under(theirs.block(expose=["z", "y"])),
        "block hides a site.*leave the block out",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_translation_is_refused_with_its_name(name: str):
    model, message = REFUSED[name]
    with pytest.raises(mx.ModelError, match=re.compile(message, re.DOTALL)):
        mx.marginalize(mx.from_numpyro(model)).log_density({}, POINTS)


def test_handlers_and_guides_of_numpyro_go_inside():
    with pytest.raises(mx.ModelError, match=r"inside numpyro's seed.*from_numpyro\(handler"):
        theirs.seed(mx.from_numpyro(coins), 0)(POINTS)
    with pytest.raises(TypeError, match="must be a function, not int"):
        mx.from_numpyro(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="autoguide.AutoNormal"):
        mx.from_numpyro(numpyro.infer.autoguide.AutoNormal(coins))
