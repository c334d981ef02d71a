"""`infer_discrete` serves a trained model: the joint mode, or a draw from the joint posterior."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

import marginax as mx
import marginax.distributions as dist
from marginax.infer import infer_discrete
from marginax.testing import brute_force

KEY = jax.random.key(0)
DATA = np.array([0.0, 1.0, 10.0, 11.0, 12.0])
FITTED = {"weights": jnp.array([0.4, 0.6]), "locs": jnp.array([0.5, 11.0]), "scale": jnp.array(0.7)}


def mixture(data: Any) -> None:
    weights = mx.sample("weights", dist.Dirichlet(0.5 * jnp.ones(2)))
    scale = mx.sample("scale", dist.LogNormal(0.0, 2.0))
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(data)):
        assignment = mx.sample("assignment", dist.Categorical(weights))
        mx.sample("obs", dist.Normal(locs[assignment], scale), obs=data)


def guide(data: Any) -> None:
    for name, value in FITTED.items():
        mx.sample(name, dist.Delta(value, event_dim=jnp.ndim(value) if name == "weights" else 0))


def recorded() -> Any:
    """The globals, as the document records them."""
    with mx.plate("components", 2):
        pass
    return mx.handlers.trace(guide).get_trace(DATA)


def trained(trace: Any) -> Any:
    return mx.handlers.replay(mixture, trace=trace)


def classify(model: Any, *args: Any, site: str = "assignment", **options: Any) -> np.ndarray:
    inferred = infer_discrete(model, **options)
    return np.asarray(mx.handlers.trace(inferred).get_trace(*args)[site]["value"])


def chain() -> None:
    """Two dependent variables, one of which is seen through noise."""
    a = mx.sample("a", dist.Categorical(np.array([0.5, 0.3, 0.2])))
    rows = jnp.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    b = mx.sample("b", dist.Categorical(rows[a]))
    mx.sample("x", dist.Normal(1.0 * b, 1.0), obs=0.8)


# -- the mode


def test_the_mode_of_the_trained_model_classifies_the_data():
    model = trained(recorded())
    assert classify(model, DATA, temperature=0).tolist() == [0, 0, 1, 1, 1]


def test_new_data_may_have_any_size():
    model = trained(recorded())
    new = jnp.arange(-3.0, 15.0, 0.1)
    assignment = classify(model, new, temperature=0, first_available_dim=-2)
    assert assignment.shape == new.shape
    # Two Gaussians of one scale meet where their weighted densities are equal.
    boundary = 5.75 + 0.7**2 * np.log(0.4 / 0.6) / 10.5
    np.testing.assert_array_equal(assignment, new > boundary)
    assert classify(model, DATA[:1], temperature=0).tolist() == [0]


def test_the_mode_is_joint():
    """The marginals of ``a`` and ``b`` have their modes elsewhere than the joint."""
    table = np.array([[0.3, 0.05], [0.0, 0.35], [0.15, 0.15]])

    def model() -> None:
        a = mx.sample("a", dist.Categorical(table.sum(1)))
        mx.sample("b", dist.Categorical(jnp.asarray(table / table.sum(1, keepdims=True))[a]))

    with mx.handlers.trace() as trace:
        infer_discrete(model, temperature=0)()
    assert (int(trace["a"]["value"]), int(trace["b"]["value"])) == (1, 1)
    assert trace["a"]["is_observed"] is False


def test_the_mode_needs_no_key_and_a_draw_does():
    model = trained(recorded())
    classify(model, DATA, temperature=0)
    with pytest.raises(mx.ModelError, match="temperature=1.*key"):
        classify(model, DATA, temperature=1)
    by_key = classify(model, DATA, temperature=1, rng_key=KEY)
    by_number = classify(model, DATA, temperature=1, rng_key=0)
    np.testing.assert_array_equal(by_key, by_number)
    with mx.handlers.seed(rng_seed=0):
        classify(model, DATA, temperature=1)


def test_it_is_a_decorator_too():
    @infer_discrete(temperature=0)
    def model() -> Any:
        return mx.sample("z", dist.Bernoulli(0.9))

    assert model() == 1


def test_the_model_returns_what_it_returns():
    def model() -> Any:
        z = mx.sample("z", dist.Bernoulli(0.9))
        return mx.deterministic("twice", 2 * z)

    assert infer_discrete(model, temperature=0)() == 2


# -- draws


def many(model: Any, count: int, *args: Any, sites: Any) -> Any:
    """Many draws, mapped over keys."""

    def one(key: Any) -> Any:
        inferred = infer_discrete(model, temperature=1, rng_key=key)
        trace = mx.handlers.trace(inferred).get_trace(*args)
        return {name: trace[name]["value"] for name in sites}

    return jax.jit(jax.vmap(one))(jax.random.split(KEY, count))


def test_draws_have_the_frequencies_of_the_exact_joint_posterior():
    draws = many(chain, 20000, sites=("a", "b"))
    table = brute_force(chain, {})
    exact = np.exp(np.asarray(table.log_joint - table.log_density, np.float64))
    counts = np.bincount(table.table_index(draws), minlength=len(exact))
    # A sampler that is right fails this for one key in 1000; the key is fixed.
    assert chisquare(counts, 20000 * exact / exact.sum()).pvalue > 1e-3


def test_draws_near_the_boundary_are_as_uncertain_as_the_posterior():
    near = np.array([5.6, 5.72, 5.8])
    draws = many(trained(recorded()), 5000, near, sites=("assignment",))["assignment"]
    exact = mx.marginalize(mixture).posterior(FITTED, near)["assignment"]
    for n in range(len(near)):
        counts = np.bincount(draws[:, n], minlength=2)
        probabilities = np.asarray(exact[n], np.float64)
        assert chisquare(counts, 5000 * probabilities / probabilities.sum()).pvalue > 1e-3


def test_each_seeded_run_draws_anew_and_the_same_seed_again_the_same():
    near = np.full(50, 5.72)
    seeded = [
        mx.handlers.seed(infer_discrete(trained(recorded()), temperature=1), rng_seed=s)
        for s in (0, 0, 1)
    ]
    first, again, other = (
        mx.handlers.trace(m).get_trace(near)["assignment"]["value"] for m in seeded
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# -- what is not fixed


def test_a_continuous_site_that_nothing_fixes_is_drawn_from_the_prior_with_a_seed():
    def model() -> None:
        mu = mx.sample("mu", dist.Normal(0.0, 10.0))
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(mu + 5.0 * z, 0.1), obs=mu + 5.0)

    with pytest.raises(mx.ModelError, match="'mu'.*needs its value.*seed"):
        classify(model, site="z", temperature=0)
    inferred = mx.handlers.seed(infer_discrete(model, temperature=0), rng_seed=0)
    trace = mx.handlers.trace(inferred).get_trace()
    assert trace["z"]["value"] == 1  # given the very value of mu that was drawn
    other = mx.handlers.seed(infer_discrete(model, temperature=0), rng_seed=1)
    assert mx.handlers.trace(other).get_trace()["mu"]["value"] != trace["mu"]["value"]


def test_a_count_without_finite_support_is_drawn_from_the_prior_with_a_seed():
    def model() -> None:
        count = mx.sample("count", dist.Poisson(20.0))
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(count + 0.5 * z, 0.1), obs=count + 0.5)

    inferred = mx.handlers.seed(infer_discrete(model, temperature=0), rng_seed=0)
    trace = mx.handlers.trace(inferred).get_trace()
    assert trace["z"]["value"] == 1
    assert trace["count"]["value"] > 0


def test_fixed_discrete_sites_stay_fixed():
    fixed = mx.handlers.substitute(chain, data={"a": 2})
    assert classify(fixed, site="a", temperature=0) == 2
    observed = mx.handlers.condition(chain, data={"a": 2})
    assert classify(observed, site="a", temperature=0) == 2


def test_what_is_impossible_names_the_site():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.factor("wall", jnp.where(z < 2, -jnp.inf, 0.0))

    for options in ({"temperature": 0}, {"temperature": 1, "rng_key": 0}):
        with pytest.raises(mx.ModelError, match="'wall'.*-inf"):
            classify(model, site="z", **options)


@pytest.mark.parametrize("temperature", [0.5, -1, "hot"])
def test_there_are_two_temperatures(temperature: Any):
    with pytest.raises(ValueError, match="temperature"):
        infer_discrete(chain, temperature=temperature)


# -- compiled, and never stale


def test_it_can_be_compiled_with_parameters_data_and_key_as_arguments():
    @jax.jit
    def serve(params: Any, data: Any, key: Any) -> Any:
        model = mx.handlers.substitute(mixture, data=params)
        mode = infer_discrete(model, temperature=0)
        draw = infer_discrete(model, temperature=1, rng_key=key)
        return [mx.handlers.trace(m).get_trace(data)["assignment"]["value"] for m in (mode, draw)]

    mode, draw = serve(FITTED, DATA, KEY)
    assert mode.tolist() == draw.tolist() == [0, 0, 1, 1, 1]
    swapped = FITTED | {"locs": FITTED["locs"][::-1]}
    assert serve(swapped, DATA, KEY)[0].tolist() == [1, 1, 0, 0, 0]


def test_the_answer_changes_with_the_replayed_trace():
    trace = recorded()
    model = trained(trace)
    assert classify(model, DATA, temperature=0).tolist() == [0, 0, 1, 1, 1]
    trace["locs"]["value"] = jnp.array([11.0, 0.5])
    assert classify(model, DATA, temperature=0).tolist() == [1, 1, 0, 0, 0]
    trace["locs"]["value"] = jnp.array([100.0, 0.5])
    assert classify(model, DATA, temperature=0).tolist() == [1, 1, 1, 1, 1]


def test_the_answer_changes_with_what_a_handler_observes():
    seen = {"x": jnp.array([0.0, 10.0])}

    def model() -> None:
        with mx.plate("n", 2):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(10.0 * z, 1.0))

    conditioned = mx.handlers.condition(model, condition_fn=lambda site: seen.get(site["name"]))
    assert classify(conditioned, site="z", temperature=0).tolist() == [0, 1]
    seen["x"] = jnp.array([10.0, 0.0])
    assert classify(conditioned, site="z", temperature=0).tolist() == [1, 0]


def test_the_answer_changes_with_the_replayed_elements_of_a_subsampled_plate():
    def model(data: Any) -> None:
        with mx.plate("n", 4, subsample_size=2) as chosen:
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(10.0 * z, 1.0), obs=data[chosen])

    data = jnp.array([0.0, 10.0, 0.0, 10.0])
    elements = mx.handlers.substitute(mx.handlers.seed(model, 0), data={"n": jnp.array([0, 1])})
    trace = mx.handlers.trace(mx.handlers.block(elements, hide=["z"])).get_trace(data)
    replayed = mx.handlers.replay(model, trace=trace)
    assert classify(replayed, data, site="z", temperature=0).tolist() == [0, 1]
    trace["n"]["value"] = jnp.array([1, 2])
    assert classify(replayed, data, site="z", temperature=0).tolist() == [1, 0]


def test_a_model_may_need_its_data_as_numbers():
    def model(data: Any, groups: Any) -> None:
        locs = jnp.arange(float(len(np.unique(groups)))) * 10
        with mx.plate("n", len(data)):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(locs[groups] + 3.0 * z, 1.0), obs=data)

    for groups in (np.array([0, 1, 1]), jnp.array([0, 1, 1])):
        assert classify(
            model, np.array([3.0, 10.0, 13.0]), groups, site="z", temperature=0
        ).tolist() == [1, 0, 1]
