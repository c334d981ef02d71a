"""`scan` runs its body step after step, under whatever handlers stand around it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax import handlers

YS = np.array([0.5, -1.0, 2.0, 0.1])


def walk(ys: Any = None, length: int | None = None) -> Any:
    def step(x: Any, y: Any) -> Any:
        x = mx.sample("x", dist.Normal(x, 1.0))
        mx.sample("y", dist.Normal(x, 0.5), obs=y)
        mx.deterministic("twice", 2 * x)
        return x, x + 1

    return mx.scan(step, 0.0, ys, length)


def traced(model: Any, *args: Any) -> Any:
    return handlers.trace(handlers.seed(model, rng_seed=0)).get_trace(*args)


def test_sites_are_series_with_the_steps_on_the_first_axis():
    sites = traced(walk, YS)
    assert list(sites) == ["x", "y", "twice"]
    assert sites["x"]["value"].shape == sites["x"]["fn"].batch_shape == (4,)
    np.testing.assert_array_equal(sites["y"]["value"], jnp.asarray(YS))
    np.testing.assert_array_equal(sites["twice"]["value"], 2 * sites["x"]["value"])
    assert sites["y"]["is_observed"]
    assert not sites["x"]["is_observed"]


def test_each_step_begins_where_the_one_before_ended():
    sites = traced(walk, YS)
    x = np.asarray(sites["x"]["value"])
    np.testing.assert_allclose(sites["x"]["fn"].loc, [0.0, *x[:-1]])
    assert len(set(x)) == 4  # every step has a key of its own


def test_the_carry_and_the_outputs_come_back():
    carry, ys = handlers.substitute(walk, data={"x": jnp.asarray(YS)})(YS)
    assert carry == jnp.asarray(YS)[-1]
    np.testing.assert_array_equal(ys, jnp.asarray(YS) + 1)


def test_the_log_densities_of_a_series_are_those_of_its_steps():
    x = jnp.array([0.1, 0.2, -0.3, 0.4])
    fixed = handlers.substitute(walk, data={"x": x})
    sites = handlers.trace(fixed).get_trace(YS)
    before = jnp.concatenate([jnp.zeros(1), x[:-1]])
    np.testing.assert_allclose(
        sites["x"]["fn"].log_prob(x), dist.Normal(before, 1.0).log_prob(x), rtol=1e-6
    )


def test_without_handlers_it_is_an_ordinary_scan():
    total, partial = mx.scan(lambda c, x: (c + x, c), 0.0, jnp.arange(4.0))
    assert total == 6.0
    np.testing.assert_array_equal(partial, [0.0, 0.0, 1.0, 3.0])


def test_backwards():
    def step(before: Any, x: Any) -> Any:
        mx.deterministic("before", before)
        return x, before

    with handlers.trace() as sites:
        last, outputs = mx.scan(step, -1.0, jnp.arange(4.0), reverse=True)
    assert last == 0.0
    np.testing.assert_array_equal(outputs, [1.0, 2.0, 3.0, -1.0])
    np.testing.assert_array_equal(sites["before"]["value"], [1.0, 2.0, 3.0, -1.0])


def test_plain_numbers_take_the_type_that_is_carried():
    def step(z: Any, _: Any) -> Any:
        return mx.sample("z", dist.Categorical(jnp.full((3, 3), 1 / 3)[z])), None

    z, _ = handlers.seed(lambda: mx.scan(step, 0, None, length=5), rng_seed=0)()
    assert z.dtype == jnp.asarray(0).dtype


def test_plates_and_masks_around_a_scan_reach_into_it():
    def model() -> None:
        with mx.plate("n", 3), handlers.mask(mask=jnp.array([True, False, True])):
            mx.scan(lambda c, x: (c, mx.sample("x", dist.Normal(x, 1.0))), None, jnp.arange(2.0))

    site = traced(model)["x"]
    assert site["value"].shape == (2, 3)
    assert [f.name for f in site["cond_indep_stack"]] == ["n"]
    np.testing.assert_array_equal(site["fn"].log_prob(site["value"])[:, 1], 0.0)


def test_plates_inside_and_their_data():
    def step(c: Any, ys: Any) -> Any:
        with mx.plate("n", 3):
            mx.sample("y", dist.Normal(0.0, 1.0), obs=ys)
        return c, None

    sites = traced(lambda: mx.scan(step, None, jnp.ones((2, 3))))
    assert sites["n"]["type"] == "plate"
    assert sites["y"]["value"].shape == (2, 3)


def test_values_by_condition_replay_and_do():
    x = jnp.array([1.0, 2.0, 3.0, 4.0])
    conditioned = traced(handlers.condition(walk, data={"x": x}), YS)
    assert conditioned["x"]["is_observed"]
    np.testing.assert_array_equal(conditioned["x"]["value"], x)
    again = traced(
        handlers.replay(walk, trace=conditioned | {"x": conditioned["x"] | {"is_observed": False}}),
        YS,
    )
    np.testing.assert_array_equal(again["x"]["value"], x)
    done = traced(handlers.do(walk, data={"x": x}), YS)
    np.testing.assert_array_equal(done["twice"]["value"], 2 * x)


def test_block_and_scope():
    assert "x" not in traced(handlers.block(walk, hide=["x"]), YS)
    assert "a/x" in traced(handlers.scope(walk, prefix="a"), YS)


def test_parameters_are_one_for_all_steps():
    def model() -> Any:
        def step(c: Any, _: Any) -> Any:
            return c + mx.param("p", jnp.array(2.0)), None

        return mx.scan(step, 0.0, None, length=3)[0]

    with handlers.trace() as sites:
        total = model()
    assert total == 6.0
    assert sites["p"]["value"].shape == ()
    assert handlers.substitute(model, data={"p": jnp.array(5.0)})() == 15.0


def test_a_scan_in_a_scan_has_two_time_axes():
    def inner(c: Any, _: Any) -> Any:
        return c, mx.sample("x", dist.Normal(0.0, 1.0))

    def outer(c: Any, _: Any) -> Any:
        return c, mx.scan(inner, c, None, length=3)[1]

    def model() -> Any:
        return mx.scan(outer, None, None, length=2)[1]

    site = traced(model)["x"]
    assert site["value"].shape == (2, 3)
    assert len(np.unique(site["value"])) == 6
    given = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(handlers.substitute(model, data={"x": given})(), given)


# --- series that end early -----------------------------------------------------------------------


def test_a_series_that_ends_early_is_given_and_then_drawn():
    x = jnp.array([1.0, 2.0])
    sites = traced(handlers.condition(walk, data={"x": x}), None, 4)
    np.testing.assert_array_equal(sites["x"]["value"][:2], x)
    assert len(np.unique(sites["x"]["value"])) == 4


def test_it_is_drawn_with_a_key():
    with pytest.raises(mx.ModelError, match="site 'x'.*no random key"):
        handlers.condition(walk, data={"x": jnp.ones(2), "y": jnp.ones(4)})(None, 4)


def test_its_elements_in_a_plate_are_drawn_apart():
    def noise() -> None:
        mx.scan(lambda c, _: (c, mx.sample("x", dist.Normal(0.0, 1.0))), None, None, 4)

    def model() -> None:
        with mx.plate("n", 3):
            handlers.condition(noise, data={"x": jnp.ones((2, 3))})()

    x = traced(model)["x"]["value"]
    np.testing.assert_array_equal(x[:2], 1.0)
    assert len(np.unique(x[2:])) == 6


@pytest.mark.parametrize("by", ["condition", "substitute", "replay"])
def test_it_has_no_density(by: str):
    data = {"x": jnp.ones(2)}
    if by == "replay":
        recorded = traced(walk, None, 2)
        model = handlers.replay(walk, trace={"x": recorded["x"]})
    else:
        model = getattr(handlers, by)(walk, data=data)
    for params in ({}, {"x": jnp.ones(4)}):
        with pytest.raises(mx.ModelError, match="site 'x'.*first 2 steps only"):
            mx.marginalize(handlers.seed(model, rng_seed=0)).log_density(params, YS)


# --- what is refused -----------------------------------------------------------------------------


def test_steps_must_be_some_and_agree():
    def body(c: Any, x: Any) -> Any:
        return c, None

    with pytest.raises(mx.ModelError, match="at least one"):
        mx.scan(body, 0.0, jnp.ones(0))
    with pytest.raises(mx.ModelError, match="neither"):
        mx.scan(body, 0.0)
    with pytest.raises(mx.ModelError, match=r"\[3, 4\]"):
        mx.scan(body, 0.0, (jnp.ones(3), jnp.ones(4)))
    with pytest.raises(mx.ModelError, match=r"\[3, 5\]"):
        mx.scan(body, 0.0, jnp.ones(3), length=5)
    with pytest.raises(mx.ModelError, match="first axis"):
        mx.scan(body, 0.0, 1.0)


def test_the_body_returns_two_things():
    with pytest.raises(mx.ModelError, match="return carry, None"):
        mx.scan(lambda c, x: c, 0.0, jnp.ones(3))  # pyright: ignore[reportArgumentType]


def test_what_is_carried_keeps_its_shape_and_type():
    with pytest.raises(mx.ModelError, match=r"carry\['a'\].*\(2,\)"):
        mx.scan(lambda c, x: ({"a": jnp.ones(2)}, None), {"a": 0.0}, jnp.ones(3))
    with pytest.raises(mx.ModelError, match="int32.*float32"):
        mx.scan(lambda c, x: (c + 0.5, None), jnp.array([1, 2]), jnp.ones(3))
    with pytest.raises(mx.ModelError, match="built alike"):
        mx.scan(lambda c, x: ((c, c), None), 0.0, jnp.ones(3))


def test_a_value_for_a_site_is_a_series():
    with pytest.raises(mx.ModelError, match="site 'x'.*4 steps.*shape \\(5,\\)"):
        handlers.substitute(walk, data={"x": jnp.ones(5)})(YS)


def test_names_are_unique_in_and_beside_a_scan():
    def twice() -> None:
        walk(YS)
        mx.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(mx.ModelError, match="site 'x': it is stated twice"):
        traced(twice)


def test_a_parameter_that_each_step_draws_is_refused():
    def model() -> Any:
        return mx.scan(lambda c, _: (c, mx.param("p", jax.random.normal)), 0.0, None, length=3)

    with pytest.raises(mx.ModelError, match="param 'p'.*every step"):
        traced(model)


def test_a_subsample_for_every_step_is_refused():
    def step(c: Any, _: Any) -> Any:
        with mx.plate("n", 10, subsample_size=3):
            mx.sample("x", dist.Normal(0.0, 1.0))
        return c, None

    with pytest.raises(mx.ModelError, match="plate 'n'.*Put it around"):
        traced(lambda: mx.scan(step, 0.0, None, length=2))


def test_a_lifted_parameter_of_every_step_is_refused():
    def model() -> Any:
        return mx.scan(lambda c, _: (c, mx.param("p", 1.0)), 0.0, None, length=3)

    with pytest.raises(mx.ModelError, match="param 'p'.*before the scan"):
        traced(handlers.lift(model, prior=dist.Normal(0.0, 1.0)))


def test_a_scale_of_every_step_is_refused():
    def step(c: Any, s: Any) -> Any:
        with handlers.scale(scale=s):
            mx.sample("x", dist.Normal(0.0, 1.0))
        return c, None

    with pytest.raises(mx.ModelError, match="site 'x'.*handlers.scale in the body"):
        traced(lambda: mx.scan(step, 0.0, jnp.ones(3)))


def test_a_plate_inside_has_all_its_elements():
    def step(c: Any, _: Any) -> Any:
        with mx.plate("n", 6):
            mx.sample("x", dist.Normal(0.0, 1.0))
        return c, None

    model = handlers.substitute(lambda: mx.scan(step, 0.0, None, 3), data={"n": jnp.array([4, 1])})
    with pytest.raises(mx.ModelError, match="plate 'n'.*Put it around"):
        traced(model)


def test_nothing_of_one_step_is_left_in_a_message():
    sites = traced(handlers.uncondition(walk), YS)
    assert "obs" not in sites["y"]["infer"]
    assert not sites["y"]["is_observed"]


def test_python_control_flow_in_the_body_is_explained():
    def step(z: Any, _: Any) -> Any:
        return mx.sample("z", dist.Bernoulli(0.3 if z else 0.6)), None

    with pytest.raises(mx.ModelError, match="one number.*jnp.where"):
        traced(lambda: mx.scan(step, 0, None, 3))
    with pytest.raises(mx.ModelError, match="one number.*jnp.asarray"):
        traced(lambda: mx.scan(lambda z, _: ([1, 2][z], None), 0, None, 3))


@pytest.mark.parametrize("length", ["3", 3.0])
def test_a_length_is_a_whole_number(length: Any):
    with pytest.raises(mx.ModelError, match="whole number"):
        mx.scan(lambda c, x: (c, None), 0.0, None, length)


def test_a_length_may_be_numpys():
    assert mx.scan(lambda c, x: (c, c), 0.0, None, np.int64(3))[1].shape == (3,)  # pyright: ignore[reportArgumentType]


def test_options_are_checked():
    with pytest.raises(mx.ModelError, match="history"):
        mx.scan(lambda c, x: (c, None), 0.0, jnp.ones(2), history=-1)
    with pytest.raises(ValueError, match="elimination.*quickly"):
        mx.scan(lambda c, x: (c, None), 0.0, jnp.ones(2), elimination="quickly")


# --- markov --------------------------------------------------------------------------------------


def test_markov_is_the_loop_it_marks():
    assert list(mx.markov(range(3), history=2)) == [0, 1, 2]
    assert mx.markov(walk) is walk
    assert mx.markov(history=2)(walk) is walk
    with pytest.raises(TypeError, match="iterable"):
        mx.markov(3)
    with pytest.raises(mx.ModelError, match="history"):
        mx.markov(range(3), history=-1)
