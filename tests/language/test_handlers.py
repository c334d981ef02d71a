"""The handlers: each does what it does in NumPyro, alone and together."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro_oracle import assert_same_trace, in_both

import marginax as mx
import marginax.distributions as dist

NORMAL = dist.Normal(0.0, 1.0)
HANDLERS = (
    "trace seed replay substitute condition uncondition block mask scale scope do lift infer_config"
)


def chain(pp: Any) -> Any:
    """Three variables, each made from the one before; the last two in a plate."""

    def model(data: Any = None) -> Any:
        a = pp.sample("a", NORMAL)
        with pp.plate("n", 3):
            b = pp.sample("b", dist.Normal(a, 1.0))
            c = pp.sample("c", dist.Normal(b, 1.0), obs=data)
        return a, b, c

    return model


def with_params(pp: Any) -> Any:
    def model() -> Any:
        loc = pp.param("loc", 0.5)
        width = pp.param("width", 2.0, constraint=dist.constraints.positive)
        return loc, pp.sample("x", dist.Normal(loc, width)), pp.param("loc", 0.5)

    return model


def seeded(model: Any, seed: Any = 0) -> Any:
    return mx.handlers.seed(model, rng_seed=seed)


def record(model: Any, *args: Any) -> Any:
    return mx.handlers.trace(seeded(model)).get_trace(*args)


def log_density(trace: Any) -> Any:
    sites = [site for site in trace.values() if site["type"] == "sample"]
    return sum(site["fn"].log_prob(site["value"]).sum() for site in sites)


@pytest.mark.parametrize("name", HANDLERS.split())
def test_a_handler_takes_the_arguments_that_it_takes_in_numpyro(name: str):
    ours, theirs = (inspect.signature(getattr(pp.handlers, name)) for pp in (mx, numpyro))
    for parameter, expected in theirs.parameters.items():
        assert ours.parameters[parameter].default == expected.default
    # Positions too: only what NumPyro does not have may come after its own.
    assert list(ours.parameters)[: len(theirs.parameters)] == list(theirs.parameters)


# -- trace


def test_trace_records_the_sites_in_the_order_of_the_run():
    tr = assert_same_trace(lambda pp: pp.handlers.trace(pp.handlers.seed(chain(pp), 0)).get_trace())
    assert list(tr) == ["a", "n", "b", "c"]


def test_trace_gives_what_it_records_on_entering():
    with mx.handlers.seed(rng_seed=0), mx.handlers.trace() as tr:
        value = mx.sample("x", NORMAL)
    assert tr["x"]["value"] == value


def test_a_traced_model_can_be_traced_again():
    trace = mx.handlers.trace(seeded(chain(mx)))
    assert trace.get_trace().keys() == trace.get_trace().keys()


def test_trace_records_the_intermediates_of_a_transformed_draw_as_numpyro_does():
    log_normal = dist.TransformedDistribution(NORMAL, dist.transforms.ExpTransform())

    def intermediate(pp: Any) -> Any:
        with pp.handlers.seed(rng_seed=0), pp.handlers.trace() as tr:
            x = pp.sample("x", log_normal)
        [[before, _]] = tr["x"]["intermediates"]
        assert jnp.exp(before) == x
        return before

    ours, theirs = in_both(intermediate)
    assert ours == theirs


# -- seed


def test_a_seeded_model_gives_the_same_at_every_call():
    model = seeded(chain(mx))
    for first, again in zip(model(), model(), strict=True):
        np.testing.assert_array_equal(first, again)


def test_a_seed_that_is_entered_twice_goes_on_with_fresh_keys_as_in_numpyro():
    def draw_twice(pp: Any) -> list[Any]:
        values, seed = [], pp.handlers.seed(rng_seed=0)
        for _ in range(2):
            with seed:
                values.append(float(pp.sample("x", NORMAL)))
        return values

    ours, theirs = in_both(draw_twice)
    assert ours == theirs
    assert ours[0] != ours[1]


def test_a_seeded_model_may_call_itself():
    def model(depth: int) -> Any:
        x = mx.sample("x", NORMAL)
        return x if depth == 0 else (x, again(depth - 1), mx.sample("y", NORMAL))

    again = seeded(model)
    first, inner, last = again(1)
    assert first == inner
    assert last != first
    assert last == again(1)[2]


@pytest.mark.parametrize(
    "seed",
    [
        3,
        np.int64(3),
        np.array(3),
        jnp.array(3),
        jax.random.key(3),
        jax.random.key_data(jax.random.key(3)),
    ],
    ids=lambda seed: type(seed).__name__,
)
def test_a_seed_is_an_integer_or_a_key(seed: Any):
    assert seeded(chain(mx), seed)()[0] == seeded(chain(mx), 3)()[0]


@pytest.mark.parametrize("seed", [None, 0.5, "zero", True, jax.random.split(jax.random.key(0))])
def test_a_seed_that_is_none_is_refused(seed: Any):
    with pytest.raises(TypeError, match="integer or (a|one) PRNG key"):
        seeded(chain(mx), seed)


def test_types_that_a_seed_hides_are_left_without_a_key():
    with (
        mx.handlers.seed(rng_seed=0, hide_types=["plate"]),
        pytest.raises(mx.ModelError, match="plate 'n': .* needs a random key"),
    ):
        mx.plate("n", 10, subsample_size=3)


def test_a_site_with_a_value_uses_up_no_key():
    free = seeded(chain(mx))
    fixed = seeded(mx.handlers.substitute(chain(mx), data={"a": free()[0]}))
    assert not np.array_equal(free()[1], fixed()[1])
    # The first key is now b's, as in NumPyro.
    substituted = numpyro.handlers.substitute(chain(numpyro), data={"a": free()[0]})
    theirs: Any = numpyro.handlers.seed(substituted, 0)
    np.testing.assert_array_equal(fixed()[1], theirs()[1])


# -- substitute, condition, uncondition


def test_a_substituted_site_has_the_value_and_remains_latent():
    tr = assert_same_trace(
        lambda pp: pp.handlers.trace(
            pp.handlers.seed(pp.handlers.substitute(chain(pp), data={"a": 2.0}), 0)
        ).get_trace()
    )
    assert (tr["a"]["value"], tr["a"]["is_observed"]) == (2.0, False)


def test_substitute_fixes_params_and_deterministic_sites_too():
    def model() -> Any:
        return mx.param("p", 0.0), mx.deterministic("d", 1.0)

    assert mx.handlers.substitute(model, data={"p": 5.0, "d": 6.0})() == (5.0, 6.0)


def test_a_conditioned_site_is_observed():
    tr = assert_same_trace(
        lambda pp: pp.handlers.trace(
            pp.handlers.seed(pp.handlers.condition(chain(pp), data={"b": jnp.ones(3)}), 0)
        ).get_trace()
    )
    assert tr["b"]["is_observed"]
    assert not tr["a"]["is_observed"]


def test_condition_goes_before_what_the_model_observes():
    model = mx.handlers.condition(chain(mx), data={"c": jnp.ones(3)})
    np.testing.assert_array_equal(record(model, jnp.zeros(3))["c"]["value"], jnp.ones(3))


@pytest.mark.parametrize("name", ["substitute", "condition"])
def test_values_may_come_from_a_function_of_the_site(name: str):
    def value_of(site: Any) -> Any:
        return 4.0 if site["name"] == "a" else None

    def trace(pp: Any) -> Any:
        handler = getattr(pp.handlers, name)(chain(pp), **{f"{name}_fn": value_of})
        return pp.handlers.trace(pp.handlers.seed(handler, 0)).get_trace()

    assert assert_same_trace(trace)["a"]["value"] == 4.0


@pytest.mark.parametrize("name", ["substitute", "condition"])
def test_one_source_of_values_is_needed(name: str):
    handler = getattr(mx.handlers, name)
    with pytest.raises(ValueError, match=f"{name}: give either data= .* or {name}_fn="):
        handler(chain(mx))
    with pytest.raises(ValueError, match=f"{name}: give either data= .* or {name}_fn="):
        handler(chain(mx), {}, lambda site: None)


def test_conditioning_on_a_string_is_refused():
    with pytest.raises(mx.ModelError, match="site 'a': .*array of numbers.*convert it first"):
        record(mx.handlers.condition(chain(mx), data={"a": "high"}))


def test_conditioning_on_a_list_is_conditioning_on_its_array():
    tr = record(mx.handlers.condition(chain(mx), data={"b": [1.0, 2.0, 3.0]}))
    assert tr["b"]["value"].shape == (3,)
    assert jnp.isfinite(log_density(tr))


@pytest.mark.parametrize("seed_is_inside", [True, False])
def test_an_unconditioned_site_is_drawn_and_remembers_what_was_observed(seed_is_inside: bool):
    def trace(pp: Any) -> Any:
        model = chain(pp)
        if seed_is_inside:
            model = pp.handlers.uncondition(pp.handlers.seed(model, 0))
        else:
            model = pp.handlers.seed(pp.handlers.uncondition(model), 0)
        tr = pp.handlers.trace(model).get_trace(7.0)
        assert tr["c"]["infer"] == {"was_observed": True, "obs": 7.0}
        return tr

    tr = assert_same_trace(trace)
    assert not tr["c"]["is_observed"]
    np.testing.assert_array_equal(tr["c"]["value"], seeded(chain(mx))()[2])


def test_uncondition_leaves_factors_alone():
    model = mx.handlers.uncondition(lambda: mx.factor("f", -2.0))
    assert mx.marginalize(model).log_density({}) == -2.0


# -- replay


def test_a_replayed_model_takes_its_latent_values_from_the_trace():
    def trace(pp: Any) -> Any:
        guide = pp.handlers.trace(pp.handlers.seed(chain(pp), 1)).get_trace()
        del guide["b"]
        replayed = pp.handlers.replay(chain(pp), trace=guide)
        return pp.handlers.trace(pp.handlers.seed(replayed, 2)).get_trace(jnp.zeros(3))

    tr = assert_same_trace(trace)
    assert tr["a"]["value"] == seeded(chain(mx), 1)()[0]
    np.testing.assert_array_equal(tr["c"]["value"], jnp.zeros(3))


def test_replay_brings_the_infer_options_of_the_trace():
    def guide() -> None:
        mx.sample("a", NORMAL, infer={"mark": 1})

    replayed = mx.handlers.replay(chain(mx), trace=record(guide))
    assert record(replayed)["a"]["infer"] == {"mark": 1}


def test_what_is_observed_in_the_trace_cannot_be_replayed():
    observed = record(mx.handlers.condition(chain(mx), data={"a": 0.0}))
    with pytest.raises(
        mx.ModelError, match="'a': it is a latent variable .* it is observed; make it"
    ):
        record(mx.handlers.replay(chain(mx), trace=observed))


def test_a_plate_is_replayed_by_a_plate():
    wrong = record(lambda: mx.sample("n", NORMAL))
    with pytest.raises(
        mx.ModelError, match="'n': it is a plate of the model, .* it is a sample site"
    ):
        record(mx.handlers.replay(chain(mx), trace=wrong))


def test_replay_needs_a_trace():
    with pytest.raises(TypeError, match="replay: give trace="):
        mx.handlers.replay(chain(mx))


# -- block


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, []),
        ({"hide": ["a"]}, ["n", "b", "c"]),
        ({"expose": ["a"]}, ["a"]),
        ({"expose_types": ["plate"]}, ["n"]),
        ({"hide_fn": lambda site: site.get("name") in ("b", "c")}, ["a", "n"]),
    ],
)
def test_block_hides_what_it_hides_in_numpyro(options: Any, left: list[str]):
    def hidden_inside_the_seed(pp: Any) -> Any:
        model = pp.handlers.block(pp.handlers.seed(chain(pp), 0), **options)
        return pp.handlers.trace(model).get_trace()

    def hidden_from_the_seed(pp: Any) -> Any:
        model = pp.handlers.seed(pp.handlers.block(chain(pp), **options), 0)
        return pp.handlers.trace(model).get_trace()

    assert list(assert_same_trace(hidden_inside_the_seed)) == left
    assert list(assert_same_trace(hidden_from_the_seed)) == left


def test_types_can_be_hidden():
    assert list(record(mx.handlers.block(chain(mx), hide_types=["sample"]))) == ["n"]


def test_a_hidden_site_is_drawn_with_the_keys_of_the_seed_outside_as_in_numpyro():
    def draw(pp: Any) -> Any:
        return pp.handlers.seed(pp.handlers.block(chain(pp)), 0)()

    for ours, theirs in zip(*in_both(draw), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_function_that_hides_may_ask_every_site_for_its_name_also_beside_subsample():
    def model() -> Any:
        with mx.plate("n", 10, subsample_size=2):
            return mx.subsample(jnp.arange(10.0), event_dim=0)

    hide_a = mx.handlers.block(model, hide_fn=lambda site: site["name"].startswith("a"))
    assert seeded(hide_a)().shape == (2,)


def test_what_to_block_must_be_clear():
    with pytest.raises(ValueError, match="block: give at most one of hide_fn, hide, expose"):
        mx.handlers.block(chain(mx), hide=["a"], expose=["b"])
    with pytest.raises(TypeError, match=r"block: 'a' must be in a list: \['a'\]"):
        mx.handlers.block(chain(mx), hide="a")
    with pytest.raises(TypeError, match="hidden"):
        mx.handlers.block(chain(mx), hidden=["a"])  # pyright: ignore


# -- mask and scale


def test_a_masked_site_adds_nothing_where_the_mask_is_false():
    known = jnp.array([True, False, True])

    def trace(pp: Any) -> Any:
        def model() -> None:
            with pp.plate("n", 3), pp.handlers.mask(mask=known):
                pp.sample("x", NORMAL, obs=jnp.array([1.0, 2.0, 3.0]))

        with pp.handlers.mask(mask=True):
            return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    tr = assert_same_trace(trace)
    assert log_density(tr) == NORMAL.log_prob(jnp.array([1.0, 3.0])).sum()


def test_masks_multiply():
    model = functools.partial(mx.factor, "f", jnp.array([1.0, 2.0, 4.0]))
    inner = mx.handlers.mask(model, jnp.array([True, True, False]))
    assert log_density(record(mx.handlers.mask(inner, jnp.array([False, True, True])))) == 2.0


def test_a_mask_that_is_not_of_booleans_is_refused_by_the_handler():
    with pytest.raises(ValueError, match="mask: the mask must be a boolean"):
        mx.handlers.mask(mask=jnp.array([1.0, 0.0]))


def test_a_mask_that_does_not_fit_a_site_is_refused():
    with (
        mx.handlers.mask(mask=jnp.array([True, False])),
        mx.plate("n", 3),
        pytest.raises(mx.ModelError, match=r"site 'x': a mask of shape \(2,\) .*\(3,\); give"),
    ):
        mx.sample("x", NORMAL, obs=jnp.zeros(3))


def test_scales_multiply_as_in_numpyro():
    def trace(pp: Any) -> Any:
        model = pp.handlers.scale(pp.handlers.scale(chain(pp), 2.0), 5.0)
        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    assert assert_same_trace(trace)["b"]["scale"] == 10.0


def test_a_scale_may_be_traced():
    def density(factor: Any) -> Any:
        model = mx.handlers.scale(lambda: mx.factor("f", -1.0), factor)
        return mx.marginalize(model).log_density({})

    assert jax.grad(density)(3.0) == -1.0


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(scale: float):
    with pytest.raises(ValueError, match="scale: the scale must be positive"):
        mx.handlers.scale(scale=scale)


# -- scope


def test_scope_renames_sites_and_the_plates_inside_it():
    def trace(pp: Any) -> Any:
        def model() -> None:
            with pp.plate("outer", 2, dim=-2), pp.handlers.scope(prefix="s"):
                pp.handlers.scope(chain(pp), prefix="t", divider=".")()

        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    tr = assert_same_trace(trace)
    assert list(tr) == ["outer", "s/t.a", "s/t.n", "s/t.b", "s/t.c"]
    assert [frame.name for frame in tr["s/t.b"]["cond_indep_stack"]] == ["s/t.n", "outer"]


def test_a_scope_keeps_the_full_size_of_a_plate():
    def model() -> None:
        with mx.handlers.scope(prefix="s"), mx.plate("n", 10, subsample_size=2):
            mx.sample("x", NORMAL)

    assert record(model)["s/x"]["cond_indep_stack"] == [("s/n", -1, 2, 10, None)]


def test_types_that_a_scope_hides_keep_their_names():
    def trace(pp: Any) -> Any:
        model = pp.handlers.scope(chain(pp), prefix="s", hide_types=["plate"])
        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    assert list(assert_same_trace(trace)) == ["s/a", "n", "s/b", "s/c"]


def test_a_submodel_can_be_used_twice_in_scopes():
    def model() -> None:
        for prefix in ("first", "second"):
            with mx.handlers.scope(prefix=prefix):
                mx.sample("z", dist.Bernoulli(0.25))
                mx.prng_key()

    posterior = mx.marginalize(model).posterior({})
    assert list(posterior) == ["first/z", "second/z"]


# -- do


def test_an_intervention_changes_what_follows_and_not_the_site_itself():
    def run(pp: Any) -> Any:
        trace = pp.handlers.trace(pp.handlers.seed(pp.handlers.do(chain(pp), data={"a": 9.0}), 0))
        a, b, _ = trace()
        assert a == 9.0
        np.testing.assert_array_equal(trace.trace["b"]["fn"].mean, jnp.full(3, 9.0))
        np.testing.assert_array_equal(trace.trace["b"]["value"], b)
        return trace.trace

    tr = assert_same_trace(run)
    assert tr["a"]["value"] == seeded(chain(mx))()[0]
    assert not tr["a"]["is_observed"]


def test_an_intervention_inside_a_plate_is_numpyros():
    def trace(pp: Any) -> Any:
        def model() -> Any:
            with pp.handlers.do(data={"b": jnp.arange(3.0)}):
                return chain(pp)()

        recorder = pp.handlers.trace(pp.handlers.seed(model, 0))
        _, b, _ = recorder()
        np.testing.assert_array_equal(b, jnp.arange(3.0))
        # NumPyro sends the site through the plate once more, and so writes its frame twice.
        site = recorder.trace["b"]
        site["cond_indep_stack"] = list(dict.fromkeys(site["cond_indep_stack"]))
        return recorder.trace

    tr = assert_same_trace(trace)
    np.testing.assert_array_equal(tr["b"]["value"], seeded(chain(mx))()[1])


def test_an_intervention_between_two_plates_has_the_shape_of_both():
    table = jnp.arange(6.0).reshape(2, 3)

    def model() -> Any:
        with mx.plate("rows", 2, dim=-2), mx.handlers.do(data={"x": table}), mx.plate("n", 3):
            return mx.sample("x", NORMAL)

    tr = record(model)
    np.testing.assert_array_equal(seeded(model)(), table)
    assert [frame.name for frame in tr["x"]["cond_indep_stack"]] == ["n", "rows"]


def test_an_intervened_site_in_a_subsampled_plate_is_scaled_once():
    def model() -> None:
        with mx.handlers.scale(scale=3.0), mx.plate("n", 10, subsample_size=5):
            mx.sample("x", NORMAL)

    assert record(mx.handlers.do(model, data={"x": 1.0}))["x"]["scale"] == 3.0 * 2.0


def test_an_intervened_site_keeps_the_name_that_its_scope_gave_it():
    scoped = mx.handlers.scope(chain(mx), prefix="s")
    tr = record(mx.handlers.do(scoped, data={"s/a": 9.0}))
    assert list(tr) == ["s/a", "s/n", "s/b", "s/c"]


def test_a_trace_inside_an_intervention_has_the_site_and_its_counterfactual():
    with mx.handlers.do(data={"a": 9.0}):
        tr = record(chain(mx))
    assert list(tr) == ["a", "a__CF", "n", "b", "c"]
    # A constant: no density is left of it.
    assert (tr["a__CF"]["type"], tr["a__CF"]["value"]) == ("deterministic", 9.0)


def test_an_intervened_discrete_variable_is_summed_out_apart_from_what_follows():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.25))
        mx.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=1.0)

    m = mx.marginalize(mx.handlers.do(model, data={"z": 1.0}))
    np.testing.assert_allclose(m.log_density({}), np.log(0.8), rtol=1e-6)
    np.testing.assert_allclose(m.posterior({})["z"], [0.75, 0.25], rtol=1e-6)


@pytest.mark.parametrize("intervention_is_outside", [True, False])
def test_a_counterfactual_is_an_observed_site_with_another_value_after_it(
    intervention_is_outside: bool,
):
    seen, done = {"a": 1.0, "b": 2.0 * jnp.ones(3)}, {"a": 5.0}

    def trace(pp: Any) -> Any:
        first, second = pp.handlers.condition, pp.handlers.do
        if intervention_is_outside:
            model = second(first(chain(pp), data=seen), data=done)
        else:
            model = first(second(chain(pp), data=done), data=seen)
        recorder = pp.handlers.trace(pp.handlers.seed(model, 0))
        assert recorder()[0] == 5.0
        return recorder.trace

    tr = assert_same_trace(trace)
    assert (tr["a"]["value"], tr["a"]["is_observed"]) == (1.0, True)
    np.testing.assert_array_equal(tr["b"]["fn"].mean, jnp.full(3, 5.0))


def test_two_interventions_on_one_site_are_refused():
    twice = mx.handlers.do(mx.handlers.do(chain(mx), data={"a": 1.0}), data={"a": 2.0})
    with pytest.raises(mx.ModelError, match=r"site 'a': two handlers\.do .* take it out of one"):
        seeded(twice)()


def test_do_needs_data():
    with pytest.raises(TypeError, match="do: give data="):
        mx.handlers.do(chain(mx))


# -- lift


@pytest.mark.parametrize(
    "prior", [dist.Exponential(1.0), {"loc": dist.Exponential(1.0)}], ids=["all", "one"]
)
def test_a_lifted_param_is_a_latent_variable_as_in_numpyro(prior: Any):
    def trace(pp: Any) -> Any:
        recorder = pp.handlers.trace(pp.handlers.seed(pp.handlers.lift(with_params(pp), prior), 0))
        first, _, again = recorder()
        assert first == again
        return recorder.trace

    tr = assert_same_trace(trace)
    assert tr["loc"]["type"] == "sample"
    assert tr["width"]["type"] == ("param" if isinstance(prior, dict) else "sample")


def test_a_lifted_param_can_be_conditioned():
    lifted = mx.handlers.lift(with_params(mx), prior={"loc": NORMAL})
    assert record(mx.handlers.condition(lifted, data={"loc": 3.0}))["x"]["fn"].loc == 3.0


@pytest.mark.parametrize("prior", [None, 0.5, {"loc": 0.5}])
def test_a_prior_that_is_no_distribution_is_refused(prior: Any):
    with pytest.raises(TypeError, match="lift: give prior=, a distribution or a dictionary"):
        mx.handlers.lift(with_params(mx), prior=prior)


# -- infer_config


def test_infer_options_can_be_set_from_outside():
    def trace(pp: Any) -> Any:
        model = pp.handlers.infer_config(
            chain(pp), config_fn=lambda site: {"mark": 1} if site["name"] == "a" else {}
        )
        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    assert assert_same_trace(trace)["a"]["infer"] == {"mark": 1}


def test_an_unknown_way_to_enumerate_is_refused_from_outside_too():
    model = mx.handlers.infer_config(chain(mx), config_fn=lambda site: {"enumerate": "paralel"})
    with pytest.raises(mx.ModelError, match="site 'a': .*'paralel'.*write 'parallel'"):
        record(model)


def test_infer_config_needs_a_function():
    with pytest.raises(TypeError, match="infer_config: give config_fn="):
        mx.handlers.infer_config(chain(mx))


# -- together


def test_handlers_compose_as_in_numpyro():
    def trace(pp: Any) -> Any:
        h = pp.handlers
        model = h.scope(chain(pp), prefix="s")
        model = h.condition(model, data={"s/c": jnp.ones(3)})
        model = h.mask(h.scale(model, 2.0), jnp.array(False))
        model = h.block(h.seed(model, 4), hide=["s/b"])
        return h.trace(h.substitute(model, data={"s/a": 1.0})).get_trace()

    assert list(assert_same_trace(trace)) == ["s/a", "s/n", "s/c"]


def test_a_handled_model_can_be_compiled_mapped_and_differentiated():
    def density(a: Any, key: Any) -> Any:
        substituted = mx.handlers.substitute(chain(mx), data={"a": a, "b": a * jnp.ones(3)})
        return log_density(mx.handlers.trace(seeded(substituted, key)).get_trace(jnp.zeros(3)))

    key = jax.random.key(0)
    gradient = jax.grad(density)(2.0, key)
    # -a for the first, nothing for b - a = 0, -a for each of the three observations.
    assert gradient == -2.0 - 3 * 2.0
    points = jnp.array([0.0, 1.0, 2.0])
    mapped = jax.jit(jax.vmap(jax.grad(density), (0, None)))(points, key)
    np.testing.assert_array_equal(mapped, -4 * points)
