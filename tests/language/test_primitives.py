"""The statements: what they return, what they record, and how a wrong one is told."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro_oracle import assert_same_trace, in_both

import marginax as mx
import marginax.distributions as dist

DATA = np.array([0.3, -1.2, 2.0])
NORMAL = dist.Normal(0.0, 1.0)


def seeded(model: Any, seed: int = 0) -> Any:
    return mx.handlers.seed(model, rng_seed=seed)


def regression(pp: Any) -> Any:
    """A model with every statement in it."""

    def model(x: Any, y: Any) -> Any:
        slope = pp.sample("slope", dist.Normal(0.0, 2.0))
        bias = pp.param("bias", 0.5)
        noise = pp.sample("noise", dist.HalfNormal(1.0))
        mean = pp.deterministic("mean", slope * x + bias)
        with pp.plate("data", len(x)):
            pp.factor("penalty", -0.5 * mean**2)
            return pp.sample("y", dist.Normal(mean, noise), obs=y)

    return model


# -- sample


def test_a_model_draws_what_it_draws_in_numpyro():
    ours, theirs = in_both(lambda pp: pp.handlers.seed(regression(pp), 3)(DATA, None))
    np.testing.assert_array_equal(ours, theirs)


def test_a_model_records_what_it_records_in_numpyro():
    assert_same_trace(
        lambda pp: pp.handlers.trace(pp.handlers.seed(regression(pp), 3)).get_trace(DATA, DATA)
    )


def test_outside_of_every_handler_a_statement_is_plain_python():
    key = jax.random.key(0)
    assert mx.sample("x", NORMAL, rng_key=key) == NORMAL.sample(key)
    assert mx.sample("x", NORMAL, rng_key=key, sample_shape=(2, 3)).shape == (2, 3)
    assert mx.sample("x", NORMAL, obs=1.0) == 1.0
    assert mx.param("p", 0.5) == 0.5
    assert mx.deterministic("d", 2.0) == 2.0
    assert mx.factor("f", 1.0) is None
    assert mx.prng_key() is None
    np.testing.assert_array_equal(mx.subsample(DATA, event_dim=0), DATA)


def test_a_key_of_its_own_goes_before_the_seed():
    key = jax.random.key(5)
    assert seeded(lambda: mx.sample("x", NORMAL, rng_key=key))() == NORMAL.sample(key)


@pytest.mark.parametrize("sample_shape", [(), (4,), (2, 3)])
def test_sample_shape_makes_copies_to_the_left(sample_shape: tuple[int, ...]):
    def record(pp: Any) -> Any:
        def model() -> None:
            pp.sample("x", dist.Normal(jnp.zeros(5), 1.0), sample_shape=sample_shape)

        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    assert assert_same_trace(record)["x"]["value"].shape == (*sample_shape, 5)


def test_an_observed_list_becomes_an_array():
    assert mx.sample("x", NORMAL, obs=[1, 2, 3]).shape == (3,)  # pyright: ignore


def test_an_observed_list_may_hold_traced_values():
    density = jax.grad(lambda a: NORMAL.log_prob(mx.sample("x", NORMAL, obs=[a, 2 * a])).sum())  # pyright: ignore
    assert density(1.0) == -5.0


def test_infer_options_are_recorded_and_the_users_dictionary_is_not_changed():
    options = {"enumerate": "parallel"}

    def model() -> None:
        mx.sample("z", dist.Bernoulli(0.5), infer=options)

    mark = mx.handlers.infer_config(model, config_fn=lambda site: {"mark": 1})
    tr = mx.handlers.trace(seeded(mark)).get_trace()
    assert tr["z"]["infer"] == {"enumerate": "parallel", "mark": 1}
    assert options == {"enumerate": "parallel"}


def test_a_seeded_model_can_be_compiled_mapped_and_differentiated():
    def model(loc: Any) -> Any:
        x = mx.sample("x", dist.Normal(loc, 1.0))
        with mx.plate("n", 4):
            return mx.sample("y", dist.Normal(x, 1.0))

    keys = jax.random.split(jax.random.key(0), 3)

    def run(key: Any, loc: Any) -> Any:
        return seeded(model, key)(loc)

    one_by_one = jnp.stack([run(key, 0.5) for key in keys])
    rounding = 4 * float(jnp.finfo(jnp.float32).eps)
    np.testing.assert_allclose(jax.jit(run)(keys[0], 0.5), one_by_one[0], atol=rounding)
    np.testing.assert_allclose(jax.vmap(run, (0, None))(keys, 0.5), one_by_one, atol=rounding)
    # A normal variable moves with its location.
    np.testing.assert_array_equal(jax.jacobian(run, 1)(keys[0], 0.5), jnp.ones(4))


def test_a_seeded_model_leaves_no_traced_key_behind():
    model = seeded(lambda: mx.sample("x", NORMAL))
    with jax.checking_leaks():
        assert jax.jit(lambda: model())() == model()


# -- sample, partly observed


def test_where_the_mask_is_false_a_value_is_drawn_as_in_numpyro():
    known = np.array([True, False, True])

    def record(pp: Any) -> Any:
        def model() -> None:
            with pp.plate("n", 3):
                pp.sample("x", NORMAL, obs=DATA, obs_mask=known)

        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    tr = assert_same_trace(record)
    assert list(tr) == ["n", "x_observed", "x_unobserved", "x"]
    np.testing.assert_array_equal(tr["x"]["value"] == DATA.astype("float32"), known)


def test_a_mask_without_data_draws_everything_as_in_numpyro():
    def record(pp: Any) -> Any:
        def model() -> None:
            with pp.plate("n", 3):
                pp.sample("x", NORMAL, obs_mask=np.array([True, False, True]))

        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    assert_same_trace(record)


def test_a_mask_chooses_whole_events():
    data, known = jnp.arange(6.0).reshape(2, 3), jnp.array([True, False])
    normal = dist.Normal(jnp.zeros(3), 1.0).to_event(1)

    def model() -> Any:
        with mx.plate("n", 2):
            return mx.sample("x", normal, obs=data, obs_mask=known)

    same = seeded(model)() == data
    np.testing.assert_array_equal(same.all(-1), known)
    np.testing.assert_array_equal(same.any(-1), known)


def test_a_mask_keeps_the_copies_of_sample_shape():
    def model() -> Any:
        return mx.sample("x", NORMAL, obs=jnp.zeros(4), obs_mask=True, sample_shape=(4,))

    tr = mx.handlers.trace(seeded(model)).get_trace()
    assert tr["x_unobserved"]["value"].shape == (4,)


@pytest.mark.parametrize("mask", [np.array([1.0, 0.0, 1.0]), ["yes", "no", "yes"]])
def test_a_mask_that_is_not_of_booleans_is_refused(mask: Any):
    with pytest.raises(mx.ModelError, match=r"site 'x': .*(booleans|numbers)"):
        seeded(lambda: mx.sample("x", NORMAL, obs=DATA, obs_mask=mask))()


# -- sample, mistaken: the message names the site and says what to write


def test_a_draw_without_a_seed_is_refused():
    with pytest.raises(mx.ModelError, match=r"site 'x': .*handlers\.seed\(model, rng_seed=0\)"):
        mx.sample("x", NORMAL)
    with pytest.raises(mx.ModelError, match=r"site 'x': .*handlers\.seed\(model, rng_seed=0\)"):
        mx.handlers.trace(lambda: mx.sample("x", NORMAL)).get_trace()


def test_a_name_used_twice_is_refused():
    def model() -> None:
        for _ in range(2):
            mx.sample("x", NORMAL)

    with pytest.raises(mx.ModelError, match="site 'x': it is stated twice; give every"):
        mx.handlers.trace(seeded(model)).get_trace()


def test_a_name_used_for_two_kinds_of_sites_is_refused():
    def model() -> None:
        mx.param("x", 0.0)
        mx.sample("x", NORMAL)

    with pytest.raises(
        mx.ModelError, match="'x' is used for a param site and for a sample site; rename"
    ):
        mx.handlers.trace(seeded(model)).get_trace()


@pytest.mark.parametrize(
    "obs",
    [
        "high",
        np.array(["high", "low"]),
        ["high", "low"],
        [1.0, None],
        [[1.0, 2.0], [3.0]],
        np.array([1.0, None]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        {"a": 1.0},
        object(),
    ],
    ids=lambda obs: type(obs).__name__,
)
def test_observed_things_that_are_not_numbers_are_refused(obs: Any):
    with pytest.raises(mx.ModelError, match=r"(?s)site 'x': .*array of numbers.*convert it first"):
        seeded(lambda: mx.sample("x", NORMAL, obs=obs))()


def test_an_observed_nan_is_refused_where_the_density_is_asked_for():
    def model() -> None:
        with mx.plate("n", 2):
            mx.sample("x", NORMAL, obs=np.array([0.0, np.nan]))

    with pytest.raises(mx.ModelError, match=r"site 'x': .*NaN in 1 of 2 places.*obs_mask="):
        mx.marginalize(model).log_density({})


@pytest.mark.parametrize("choice", ["paralel", "Parallel", True, 1])
def test_an_unknown_way_to_enumerate_is_refused(choice: Any):
    with pytest.raises(mx.ModelError, match=r"site 'z': .*is not known; write 'parallel'"):
        seeded(lambda: mx.sample("z", dist.Bernoulli(0.5), infer={"enumerate": choice}))()


def test_infer_options_that_are_no_dictionary_are_refused():
    with pytest.raises(mx.ModelError, match=r"site 'z': infer must be a dictionary such as"):
        mx.sample("z", dist.Bernoulli(0.5), infer="parallel")  # pyright: ignore


def test_a_distribution_that_is_none_is_refused():
    with pytest.raises(TypeError, match="site 'x': the second argument .* must be a distribution"):
        mx.sample("x", 0.5)  # pyright: ignore


def test_a_name_that_is_no_string_is_refused():
    with pytest.raises(TypeError, match="sample: the site's name, its first argument"):
        mx.sample(NORMAL, "x")  # pyright: ignore
    with pytest.raises(TypeError, match="deterministic: the site's name, its first argument"):
        mx.deterministic(jnp.zeros(3), "x")  # pyright: ignore
    with pytest.raises(TypeError, match="param: the site's name, its first argument"):
        mx.param(0.5, "x")  # pyright: ignore


def test_a_sample_shape_that_is_no_tuple_is_refused():
    with pytest.raises(mx.ModelError, match=r"site 'x': sample_shape must be a tuple, \(3,\)"):
        mx.sample("x", NORMAL, sample_shape=3)  # pyright: ignore


def test_a_value_that_does_not_fit_the_event_is_refused():
    pair = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
    with pytest.raises(mx.ModelError, match=r"site 'x': .*\(3, 1\).*event shape \(2,\).*give one"):
        seeded(lambda: mx.sample("x", pair, obs=jnp.zeros((3, 1))))()


# -- param


def test_a_param_is_its_initial_value_as_in_numpyro():
    def record(pp: Any) -> Any:
        def model() -> None:
            pp.param("loc", 0.5, constraint=dist.constraints.positive)
            pp.param("table", lambda key: jax.random.normal(key, (2, 3)))
            pp.sample("x", NORMAL)

        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    tr = assert_same_trace(record)
    assert tr["loc"]["kwargs"] == {"constraint": dist.constraints.positive}


def test_a_param_may_be_stated_again():
    def model() -> Any:
        return mx.param("p", 1.0) + mx.param("p", 1.0)

    assert mx.handlers.substitute(model, data={"p": 3.0})() == 6.0
    assert list(mx.handlers.trace(model).get_trace()) == ["p"]


def test_a_param_may_be_a_tree_of_arrays():
    weights = {"layer": [jnp.zeros((2, 3)), None]}
    assert mx.param("net", weights) is weights


def test_a_param_that_needs_a_key_outside_of_a_seed_is_refused():
    with pytest.raises(mx.ModelError, match=r"param 'p': .*handlers\.seed\(model, rng_seed=0\)"):
        mx.param("p", jax.random.normal)


def test_a_param_without_a_value_is_refused():
    with pytest.raises(mx.ModelError, match=r"param 'p': .*write param\('p', init_value="):
        mx.param("p")


def test_a_param_that_is_not_of_numbers_is_refused():
    with pytest.raises(mx.ModelError, match=r"'p': .*array of numbers"):
        mx.param("p", "0.5")


def test_a_misspelt_option_of_a_param_is_refused():
    with pytest.raises(TypeError, match="param 'p': constrain is not an option.*constraint="):
        mx.param("p", 0.5, constrain=dist.constraints.positive)


@pytest.mark.parametrize("event_dim", [-1, 0.5])
def test_an_impossible_event_dim_of_a_param_is_refused(event_dim: Any):
    with pytest.raises(mx.ModelError, match="param 'p': event_dim must be an integer >= 0"):
        mx.param("p", 0.5, event_dim=event_dim)


# -- deterministic, factor, subsample, prng_key


def test_a_deterministic_site_adds_no_density():
    def model() -> None:
        mx.deterministic("d", 3.0)
        mx.factor("f", -1.0)

    assert mx.marginalize(model).log_density({}) == -1.0


def test_a_deterministic_site_without_a_value_is_refused():
    with pytest.raises(mx.ModelError, match="site 'd': .*leave the statement out"):
        mx.deterministic("d", None)  # pyright: ignore


def test_a_factor_counts_once_for_each_element_of_its_plate():
    def log_density(pp: Any) -> Any:
        def model() -> None:
            with pp.plate("n", 3):
                pp.factor("f", -2.0)

        site = pp.handlers.trace(model).get_trace()["f"]
        return site["fn"].log_prob(site["value"]).sum()

    assert in_both(log_density) == (-6.0, -6.0)


@pytest.mark.parametrize("log_factor", [None, "big", [1.0, "big"]], ids=repr)
def test_a_factor_that_is_no_number_is_refused(log_factor: Any):
    with pytest.raises(mx.ModelError, match="site 'f': .*array of numbers"):
        mx.factor("f", log_factor)


def test_subsampling_nothing_is_refused():
    with mx.plate("n", 3), pytest.raises(mx.ModelError, match=r"subsample\(data\).*NoneType"):
        mx.subsample(None, event_dim=0)  # pyright: ignore


@pytest.mark.parametrize("event_dim", [-1, 0.5, None])
def test_an_impossible_event_dim_of_subsample_is_refused(event_dim: Any):
    with pytest.raises(TypeError, match="subsample: event_dim must be an integer >= 0"):
        mx.subsample(DATA, event_dim=event_dim)


def test_prng_keys_are_fresh_and_those_of_numpyro():
    def draw(pp: Any) -> Any:
        with pp.handlers.seed(rng_seed=0):
            return [jax.random.key_data(pp.prng_key()).tolist() for _ in range(2)]

    ours, theirs = in_both(draw)
    assert ours == theirs
    assert ours[0] != ours[1]


def test_without_a_seed_there_is_no_key():
    with mx.handlers.trace():
        assert mx.prng_key() is None


def test_the_primitives_take_the_arguments_that_those_of_numpyro_take():
    import inspect

    for name in "sample param plate plate_stack subsample deterministic factor prng_key".split():
        ours, theirs = (inspect.signature(getattr(pp, name)) for pp in (mx, numpyro))
        more = ["block_size"] if name == "plate" else []
        assert list(ours.parameters) == [*theirs.parameters, *more]
        for parameter, expected in theirs.parameters.items():
            assert ours.parameters[parameter].default == expected.default
