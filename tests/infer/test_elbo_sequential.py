"""A guide may branch on sequential sites: the loss is the sum over all its paths, written out."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_same
from elbo_oracles import (
    DATA,
    KEY,
    LOCS,
    assert_equal_with_gradient,
    assert_unbiased,
    emptyguide,
    loss,
    normal,
    table,
)
from jax.scipy.special import logsumexp

import marginax as mx
import marginax.distributions as dist
from marginax.infer import config_enumerate
from marginax.infer.elbo import TraceEnum_ELBO

SEQUENTIAL = {"enumerate": "sequential"}


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def test_branches_may_have_different_sites():
    p_b = table(3)

    def model() -> None:
        a = mx.sample("a", dist.Bernoulli(0.3))
        if a:
            b = mx.sample("b", dist.Categorical(p_b))
            mx.sample("x", dist.Normal(mx.param("locs", LOCS)[b], 1.0), obs=0.4)
        else:
            c = mx.sample("c", dist.Bernoulli(0.6))
            mx.sample("x", dist.Normal(2.0 * c, mx.param("width", 1.0)), obs=0.4)

    def guide() -> None:
        if mx.sample("a", dist.Bernoulli(logits=mx.param("q_a", 0.0)), infer=SEQUENTIAL):
            mx.sample("b", dist.Categorical(logits=mx.param("q_b", jnp.zeros(3))))

    def by_hand(p: Any) -> Any:
        log_q_b = jax.nn.log_softmax(p["q_b"])
        b = jnp.exp(log_q_b) @ (jnp.log(p_b) + normal(0.4, p["locs"], 1.0) - log_q_b)
        c = jnp.logaddexp(
            jnp.log(0.4) + normal(0.4, 0.0, p["width"]), jnp.log(0.6) + normal(0.4, 2.0, p["width"])
        )
        yes, no = jax.nn.log_sigmoid(p["q_a"]), jax.nn.log_sigmoid(-p["q_a"])
        return jnp.exp(yes) * (jnp.log(0.3) - yes + b) + jnp.exp(no) * (jnp.log(0.7) - no + c)

    params = {"q_a": 0.4, "q_b": np.array([0.1, -0.4, 0.9]), "locs": LOCS, "width": 1.3}
    assert_equal_with_gradient(model, guide, by_hand, params)


def test_a_sequential_value_may_be_the_length_of_a_loop():
    prior, q_n = table(3), table(3, seed=2)

    def model() -> None:
        n = mx.sample("n", dist.Categorical(prior))
        heads = sum(mx.sample(f"flip_{i}", dist.Bernoulli(0.3)) for i in range(n))
        mx.sample("x", dist.Normal(1.0 * heads, 1.0), obs=0.4)

    @config_enumerate(default="sequential")
    def guide() -> None:
        n = mx.sample("n", dist.Categorical(q_n))
        assert isinstance(n, np.integer)
        for i in range(n):
            mx.sample(f"flip_{i}", dist.Bernoulli(logits=mx.param("logits", jnp.zeros(2))[i]))

    def by_hand(p: Any) -> Any:
        total = 0.0
        for n in range(3):
            for flips in itertools.product((0, 1), repeat=n):
                log_q, log_p = jnp.log(q_n[n]), jnp.log(prior[n]) + normal(0.4, sum(flips), 1.0)
                for i, flip in enumerate(flips):
                    log_q += jax.nn.log_sigmoid(p["logits"][i] * (2 * flip - 1))
                    log_p += jnp.log(0.3 if flip else 0.7)
                total += jnp.exp(log_q) * (log_p - log_q)
        return total

    assert_equal_with_gradient(model, guide, by_hand, {"logits": np.array([0.3, -0.6])})


def test_a_choice_given_a_site_in_parallel_and_one_that_all_elements_of_a_plate_make():
    p_b, p_z = table(2, 3), table(3, 2, seed=4)

    def model() -> None:
        a = mx.sample("a", dist.Bernoulli(0.3))
        b = mx.sample("b", dist.Categorical(jnp.asarray(p_b)[a]))
        with mx.handlers.scale(scale=2.5), mx.plate("n", 4):
            z = mx.sample("z", dist.Categorical(jnp.asarray(p_z)[b]))
            w = mx.sample("w", dist.Bernoulli(0.2 + 0.3 * z))
            mx.sample("x", dist.Normal(1.0 * z + w, 1.0), obs=DATA)

    def guide(which: Any = ()) -> None:
        def infer(name: str) -> dict[str, str]:
            return {"enumerate": "sequential" if name in which else "parallel"}

        a = mx.sample("a", dist.Bernoulli(logits=mx.param("q_a", 0.0)), infer=infer("a"))
        q_b, q_z = mx.param("q_b", jnp.zeros((2, 3))), mx.param("q_z", jnp.zeros((4, 3)))
        b = mx.sample("b", dist.Categorical(logits=q_b[a]), infer=infer("b"))
        with mx.handlers.scale(scale=2.5), mx.plate("n", 4) as n:
            mx.sample("z", dist.Bernoulli(logits=q_z[n, b]), infer=infer("z"))

    rng = np.random.default_rng(0)
    params = {"q_a": 0.4, "q_b": rng.normal(size=(2, 3)), "q_z": rng.normal(size=(4, 3))}

    def by_hand(p: Any) -> Any:
        total = 0.0
        for a, b in itertools.product((0, 1), range(3)):
            log_q = jax.nn.log_sigmoid(p["q_a"] * (2 * a - 1)) + jax.nn.log_softmax(p["q_b"][a])[b]
            cost = jnp.log(0.3 if a else 0.7) + jnp.log(p_b[a, b]) - log_q
            for n, z in itertools.product(range(4), (0, 1)):
                log_q_z = jax.nn.log_sigmoid(p["q_z"][n, b] * (2 * z - 1))
                each = [
                    jnp.log(rate) + normal(DATA[n], 1.0 * z + w, 1.0)
                    for w, rate in ((0, 0.8 - 0.3 * z), (1, 0.2 + 0.3 * z))
                ]
                left = jnp.log(p_z[b, z]) + jnp.logaddexp(*each) - log_q_z
                cost += 2.5 * jnp.exp(log_q_z) * left
            total += jnp.exp(log_q) * cost
        return total

    assert_equal_with_gradient(model, lambda: guide({"b", "z"}), by_hand, params)


def test_a_path_of_probability_zero_adds_nothing_to_value_or_gradient():
    def model() -> None:
        z = mx.sample("z", dist.Categorical(np.array([0.5, 0.5, 0.0])))
        mx.factor("forbidden", -jnp.inf if z == 2 else 0.0)
        mx.sample("x", dist.Normal(mx.param("locs", LOCS)[z], 1.0), obs=0.4)

    def guide() -> None:
        z = mx.sample("z", dist.Categorical(mx.param("q", jnp.zeros(3))), infer=SEQUENTIAL)
        mx.factor("nothing", 0.0 * z)

    q = jnp.array([0.25, 0.75, 0.0])
    params = {"q": q, "locs": jnp.asarray(LOCS)}
    value, gradient = jax.value_and_grad(lambda p: loss(model, guide, p))(params)
    costs = np.log(0.5) + normal(0.4, LOCS[:2], 1.0) - np.log(q[:2])
    assert_same(value, -q[:2] @ costs)
    assert_same(gradient["q"][0] - gradient["q"][1], -(costs[0] - costs[1]))
    assert_same(gradient["locs"], -q * (0.4 - LOCS))


def test_a_chosen_value_may_be_impossible_given_a_site_in_parallel():
    def model() -> None:
        mx.sample("b", dist.Bernoulli(0.4))
        mx.sample("a", dist.Bernoulli(0.3))

    def guide() -> None:
        b = mx.sample("b", dist.Bernoulli(mx.param("q_b", 0.5)))
        mx.sample("a", dist.Bernoulli(mx.param("q_a", 0.5) * b), infer=SEQUENTIAL)

    def by_hand(p: Any) -> Any:
        a, b = p["q_a"], p["q_b"]
        total = (1 - b) * (jnp.log(0.6) + jnp.log(0.7) - jnp.log(1 - b))
        total += b * (1 - a) * (jnp.log(0.4) + jnp.log(0.7) - jnp.log(b) - jnp.log(1 - a))
        return total + b * a * (jnp.log(0.4) + jnp.log(0.3) - jnp.log(b) - jnp.log(a))

    assert_equal_with_gradient(model, guide, by_hand, {"q_a": 0.6, "q_b": 0.2})


def test_in_a_subsample_of_one_element_it_still_is_one_value():
    def model() -> None:
        with mx.plate("n", 4, subsample_size=1) as n:
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(3.0 if z else 0.0, 1.0), obs=jnp.asarray(DATA)[n])

    def guide() -> None:
        with mx.plate("n", 4, subsample_size=1) as n:
            logits = mx.param("logits", jnp.zeros(4))[n]
            z = mx.sample("z", dist.Bernoulli(logits=logits), infer=SEQUENTIAL)
            mx.factor("nothing", 0.0 if z else -0.0)

    def by_hand(p: Any) -> Any:
        total = 0.0
        for z in (0, 1):
            log_q = jax.nn.log_sigmoid(p["logits"][2] * (2 * z - 1))
            cost = jnp.log(0.3 if z else 0.7) + normal(DATA[2], 3.0 * z, 1.0) - log_q
            total += 4 * jnp.exp(log_q) * cost
        return total

    both = [mx.handlers.substitute(fn, data={"n": jnp.array([2])}) for fn in (model, guide)]
    params = {"logits": np.random.default_rng(0).normal(size=4)}
    assert_equal_with_gradient(*both, by_hand, params)


def test_a_masked_choice_is_made_as_it_would_be_and_adds_nothing_itself():
    def model() -> None:
        with mx.handlers.mask(mask=False):
            z = mx.sample("z", dist.Categorical(table(3)))
        mx.sample("x", dist.Normal(mx.param("locs", LOCS)[z], 1.0), obs=0.4)

    def guide() -> None:
        with mx.handlers.mask(mask=False):
            mx.sample("z", dist.Categorical(table(3)), infer=SEQUENTIAL)

    def by_hand(p: Any) -> Any:
        return jnp.sum(table(3) * normal(0.4, p["locs"], 1.0))

    assert_equal_with_gradient(model, guide, by_hand, {"locs": LOCS})


def test_a_continuous_site_in_one_branch_only():
    def model() -> None:
        a = mx.sample("a", dist.Bernoulli(0.3))
        mu = mx.sample("mu", dist.Normal(0.0, 1.0)) if a else 0.0
        mx.sample("x", dist.Normal(mu, 1.0), obs=0.8)

    def guide() -> None:
        if mx.sample("a", dist.Bernoulli(logits=mx.param("q_a", 0.0)), infer=SEQUENTIAL):
            mx.sample("mu", dist.Normal(mx.param("loc", 0.0), 0.5))

    def by_hand(p: Any) -> Any:
        loc = p["loc"]
        kl = jnp.log(1 / 0.5) + (0.5**2 + loc**2) / 2 - 0.5
        one = normal(0.8, loc, 1.0) - 0.5**2 / 2 - kl
        yes, no = jax.nn.log_sigmoid(p["q_a"]), jax.nn.log_sigmoid(-p["q_a"])
        other = jnp.log(0.7) - no + normal(0.8, 0.0, 1.0)
        return jnp.exp(yes) * (jnp.log(0.3) - yes + one) + jnp.exp(no) * other

    assert_unbiased(model, guide, by_hand, {"q_a": 0.4, "loc": 0.3})


@pytest.mark.parametrize("first", ["drawn", "sequential"])
def test_a_drawn_site_above_or_below_a_branch(first: str):
    """Above it, the probability of the path depends on what was drawn."""

    def options(name: str) -> dict[str, Any]:
        return SEQUENTIAL if (name == "a") == (first == "sequential") else {"enumerate": None}

    def model() -> None:
        a = mx.sample("a", dist.Bernoulli(0.3))
        b = mx.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
        z = mx.sample("z", dist.Bernoulli(0.3 + 0.2 * b))
        mx.sample("x", dist.Normal(2.0 * b - 1.5 * z, 1.0), obs=3.0)

    def guide() -> None:
        a = mx.sample("a", dist.Bernoulli(logits=mx.param("q_a", 0.0)), infer=options("a"))
        b = mx.sample(
            "b", dist.Bernoulli(logits=mx.param("q_b", jnp.zeros(2))[a]), infer=options("b")
        )
        if first == "sequential":
            mx.sample("z", dist.Bernoulli(logits=0.5 if a else -0.5))
        else:
            mx.sample("z", dist.Bernoulli(logits=0.5 if b else -0.5))

    def by_hand(p: Any) -> Any:
        total = 0.0
        for a, b, z in itertools.product((0, 1), repeat=3):
            steers = a if first == "sequential" else b
            log_q = jax.nn.log_sigmoid(p["q_a"] * (2 * a - 1))
            log_q += jax.nn.log_sigmoid(p["q_b"][a] * (2 * b - 1))
            log_q += jax.nn.log_sigmoid((0.5 if steers else -0.5) * (2 * z - 1))
            log_p = jnp.log(0.3 if a else 0.7)
            for value, chance in ((b, 0.2 + 0.5 * a), (z, 0.3 + 0.2 * b)):
                log_p += jnp.log(chance if value else 1 - chance)
            log_p += normal(3.0, 2.0 * b - 1.5 * z, 1.0)
            total += jnp.exp(log_q) * (log_p - log_q)
        return total

    assert_unbiased(model, guide, by_hand, {"q_a": 0.4, "q_b": np.array([0.7, -0.5])})


def test_it_is_compiled_mapped_and_kept_in_single_precision():
    def model(x: Any) -> None:
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("x", dist.Normal(3.0 if z else 0.0, 1.0), obs=x)

    def guide(x: Any) -> None:
        mx.sample("z", dist.Bernoulli(logits=0.2 * x), infer=SEQUENTIAL)

    def by_hand(x: Any) -> Any:
        yes, no = jax.nn.log_sigmoid(0.2 * x), jax.nn.log_sigmoid(-0.2 * x)
        one = jnp.exp(yes) * (jnp.log(0.3) + normal(x, 3.0, 1.0) - yes)
        return -(one + jnp.exp(no) * (jnp.log(0.7) + normal(x, 0.0, 1.0) - no))

    ours = jax.value_and_grad(lambda x: TraceEnum_ELBO().loss(KEY, {}, model, guide, x))
    expected = jax.vmap(jax.value_and_grad(by_hand))(jnp.asarray(DATA))
    for found, wanted in zip(jax.jit(jax.vmap(ours))(DATA), expected, strict=True):
        assert_same(found, wanted)
    with jax.enable_x64(False):
        single = jax.jit(jax.vmap(ours))(DATA.astype(np.float32))
    for found, wanted in zip(single, expected, strict=True):
        assert found.dtype == jnp.float32
        assert_same(found, wanted)


def test_a_tree_with_too_many_paths_is_refused():
    def both(infer: Any = None) -> None:
        for i in range(9):
            mx.sample(f"z_{i}", dist.Bernoulli(0.5), infer=infer)

    with pytest.raises(mx.ModelError, match="'z_8'.*parallel"):
        loss(both, lambda: both(SEQUENTIAL), {})


def test_a_value_that_the_model_does_not_have_is_refused():
    def model() -> None:
        mx.sample("z", dist.Categorical(table(2)))

    def guide() -> None:
        mx.sample("z", dist.Categorical(table(3)), infer=SEQUENTIAL)

    with pytest.raises(mx.ModelError, match="'z'.*the value 2"):
        loss(model, guide, {})


def test_a_site_that_is_missing_on_one_path_is_named():
    def model() -> None:
        mx.sample("a", dist.Bernoulli(0.5))
        mx.sample("mu", dist.Normal(0.0, 1.0))

    def guide() -> None:
        if mx.sample("a", dist.Bernoulli(0.5), infer=SEQUENTIAL):
            mx.sample("mu", dist.Normal(0.0, 1.0))

    with pytest.raises(mx.ModelError, match="'mu'"):
        loss(model, guide, {})


def test_branching_on_a_site_in_parallel_is_refused():
    def both() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.factor("f", 1.0 if z else 0.0)

    with pytest.raises(mx.ModelError, match="'z'"):
        loss(both, both, {})


def test_in_a_model_alone_sequential_means_summed_out():
    def model() -> None:
        z = mx.sample("z", dist.Categorical(table(3)), infer=SEQUENTIAL)
        mx.sample("x", dist.Normal(jnp.asarray(LOCS)[z], 1.0), obs=0.4)

    expected = -logsumexp(np.log(table(3)) + normal(0.4, LOCS, 1.0))
    assert_same(loss(model, emptyguide, {}), expected)
