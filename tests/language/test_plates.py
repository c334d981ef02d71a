"""Plates: the shapes they give, the frames they write, the elements they choose."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro_oracle import assert_same_trace, in_both

import marginax as mx
import marginax.distributions as dist
from marginax.language.plates import CondIndepStackFrame

NORMAL = dist.Normal(0.0, 1.0)
TABLE = jnp.arange(30.0).reshape(10, 3)


def seeded(model: Any) -> Any:
    return mx.handlers.seed(model, rng_seed=0)


def record(model: Any) -> Any:
    return mx.handlers.trace(seeded(model)).get_trace()


# -- shapes and frames


def test_nested_plates_record_what_they_record_in_numpyro():
    def trace(pp: Any) -> Any:
        def model() -> None:
            with pp.plate("columns", 3):
                column = pp.sample("column", NORMAL)
                with pp.plate("rows", 5):
                    pp.deterministic("twice", 2 * column)
                    pp.sample("cell", dist.Normal(column, 1.0))
                    pp.param("width", 1.0)
                    pp.factor("penalty", -1.0)
            with pp.plate("rows", 5, dim=-2):
                pp.sample("row", dist.Dirichlet(jnp.ones(4)))

        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    tr = assert_same_trace(trace)
    assert tr["cell"]["value"].shape == (5, 3)
    assert tr["row"]["value"].shape == (5, 1, 4)


def test_a_frame_knows_the_full_size_of_a_subsampled_plate():
    def model() -> None:
        with mx.plate("n", 10, subsample_size=4):
            mx.sample("x", NORMAL)

    frames = record(model)["x"]["cond_indep_stack"]
    assert frames == [CondIndepStackFrame(name="n", dim=-1, size=4, full_size=10)]


def test_entering_a_plate_gives_its_indices():
    with mx.plate("n", 4) as indices:
        np.testing.assert_array_equal(indices, [0, 1, 2, 3])


def test_a_plate_can_be_made_once_and_entered_many_times():
    def model() -> None:
        n = mx.plate("n", 3)
        with n:
            x = mx.sample("x", NORMAL)
        with n:
            mx.sample("y", dist.Normal(x, 1.0))

    assert record(model)["y"]["value"].shape == (3,)


def test_sample_shape_inside_a_plate_is_the_plates_dimension_as_in_numpyro():
    def trace(pp: Any) -> Any:
        def model() -> None:
            with pp.plate("n", 3):
                pp.sample("x", NORMAL, sample_shape=(2, 3))

        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    assert assert_same_trace(trace)["x"]["value"].shape == (2, 3)


def test_a_plate_of_one_element_keeps_its_dimension():
    with mx.handlers.seed(rng_seed=0), mx.plate("n", 1):
        assert mx.sample("x", NORMAL).shape == (1,)


def test_sizes_may_be_numpy_or_concrete_jax_integers():
    for size in (np.int64(3), jnp.array(3)):
        with mx.plate("n", size) as indices:  # pyright: ignore
            assert indices.shape == (3,)


def test_a_site_can_opt_out_of_a_plate_as_in_numpyro():
    def trace(pp: Any) -> Any:
        def model() -> None:
            with pp.plate("n", 3):
                pp.sample("x", NORMAL, infer={"block_plates": ["n"]})

        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    assert assert_same_trace(trace)["x"]["value"].shape == ()


@pytest.mark.parametrize("rightmost_dim", [-1, -2])
def test_plate_stack_is_numpyros(rightmost_dim: int):
    def trace(pp: Any) -> Any:
        def model() -> None:
            with pp.plate_stack("grid", [2, 3], rightmost_dim):
                pp.sample("x", NORMAL)

        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    tr = assert_same_trace(trace)
    assert list(tr) == ["grid_0", "grid_1", "x"]
    assert tr["x"]["value"].shape == (2, 3) + (1,) * (-1 - rightmost_dim)


# -- subsampled plates


def test_a_subsampled_plate_scales_as_in_numpyro():
    def trace(pp: Any) -> Any:
        def model() -> None:
            with pp.handlers.scale(scale=3.0), pp.plate("rows", 10, subsample_size=4):
                pp.sample("row", NORMAL)
                with pp.plate("columns", 6, subsample_size=2):
                    pp.sample("cell", NORMAL)
                    pp.param("width", 1.0)
            pp.sample("after", NORMAL)

        return pp.handlers.trace(pp.handlers.seed(model, 0)).get_trace()

    # The indices are drawn by another method, from the same number of keys.
    tr = assert_same_trace(trace, ignore_values_of=["rows", "columns"])
    assert tr["cell"]["scale"] == 3 * (10 / 4) * (6 / 2)


def test_a_subsample_chooses_distinct_elements_and_every_element_in_its_turn():
    def choose(key: Any) -> Any:
        with mx.handlers.seed(rng_seed=key), mx.plate("n", 10, subsample_size=4) as indices:
            return indices

    chosen = jax.vmap(choose)(jax.random.split(jax.random.key(0), 200))
    assert all(len(set(indices)) == 4 for indices in chosen.tolist())
    assert set(chosen.ravel().tolist()) == set(range(10))


def test_every_subset_is_as_likely_as_any_other():
    size, count, draws = 40, 2, 40_000

    def subset(key: Any) -> Any:
        with mx.handlers.seed(rng_seed=key), mx.plate("n", size, subsample_size=count) as indices:
            return jnp.sort(indices)

    drawn = np.asarray(jax.jit(jax.vmap(subset))(jax.random.split(jax.random.key(0), draws)))
    assert (drawn[:, 0] < drawn[:, 1]).all()
    pairs = size * (size - 1) // 2
    seen = np.bincount(drawn[:, 0] * size + drawn[:, 1], minlength=size**2)
    seen = seen.reshape(size, size)[np.triu_indices(size, 1)]
    expected = draws / pairs
    chi_square = ((seen - expected) ** 2 / expected).sum()
    assert seen.sum() == draws
    assert abs(chi_square - (pairs - 1)) < 5 * np.sqrt(2 * (pairs - 1))


@pytest.mark.parametrize(("size", "count"), [(20_000, 1000), (1000, 900), (5, 4)])
def test_no_element_is_chosen_twice(size: int, count: int):
    """Few are chosen one by one, 900 of 1000 by a shuffle."""
    with mx.handlers.seed(rng_seed=0), mx.plate("n", size, subsample_size=count) as indices:
        assert len(np.unique(indices)) == count
        assert indices.min() >= 0
        assert indices.max() < size


def test_a_subsample_of_the_whole_size_is_the_whole_plate_and_needs_no_key():
    with mx.plate("n", 3, subsample_size=3) as indices:
        np.testing.assert_array_equal(indices, [0, 1, 2])


def test_subsample_takes_the_chosen_rows():
    with mx.handlers.seed(rng_seed=0), mx.plate("n", 10, subsample_size=4) as indices:
        np.testing.assert_array_equal(mx.subsample(TABLE, event_dim=1), TABLE[indices])
        np.testing.assert_array_equal(mx.subsample(TABLE[:, 0], event_dim=0), TABLE[indices, 0])


def test_subsample_takes_rows_and_columns_inside_two_plates():
    with (
        mx.handlers.seed(rng_seed=0),
        mx.plate("columns", 3, subsample_size=2, dim=-1) as columns,
        mx.plate("rows", 10, subsample_size=4, dim=-2) as rows,
    ):
        np.testing.assert_array_equal(mx.subsample(TABLE, 0), TABLE[rows][:, columns])


def test_subsample_leaves_what_is_the_same_for_every_element():
    with mx.handlers.seed(rng_seed=0), mx.plate("n", 10, subsample_size=4):
        assert mx.subsample(jnp.ones((1, 3)), event_dim=1).shape == (1, 3)
        assert mx.subsample(5.0, event_dim=0) == 5.0


def test_a_param_is_recorded_whole_and_used_subsampled():
    def model() -> Any:
        with mx.plate("n", 10, subsample_size=4) as indices:
            return mx.param("p", TABLE, event_dim=1), indices

    trace = mx.handlers.trace(seeded(model))
    used, indices = trace()
    np.testing.assert_array_equal(used, TABLE[indices])
    np.testing.assert_array_equal(trace.trace["p"]["value"], TABLE)


def test_a_param_without_an_event_dim_is_not_subsampled():
    with mx.handlers.seed(rng_seed=0), mx.plate("n", 10, subsample_size=4):
        assert mx.param("p", TABLE).shape == (10, 3)


@pytest.mark.parametrize("library_trick", ["substitute", "replay"])
def test_the_indices_can_be_given(library_trick: str):
    indices = jnp.array([7, 2])

    def trace(pp: Any) -> Any:
        def model() -> None:
            with pp.plate("n", 10, subsample_size=2):
                pp.sample("x", NORMAL, obs=pp.subsample(TABLE[:, 0], event_dim=0))

        substituted = pp.handlers.substitute(model, data={"n": indices})
        first = pp.handlers.trace(substituted).get_trace()
        if library_trick == "substitute":
            return first
        return pp.handlers.trace(pp.handlers.replay(model, trace=first)).get_trace()

    tr = assert_same_trace(trace)
    np.testing.assert_array_equal(tr["x"]["value"], TABLE[indices, 0])
    assert tr["x"]["scale"] == 10 / 2


def test_a_subsampled_model_can_be_compiled():
    @jax.jit
    def run(key: Any) -> Any:
        with mx.handlers.seed(rng_seed=key), mx.plate("n", 10, subsample_size=4) as indices:
            return mx.subsample(TABLE, event_dim=1), indices

    rows, indices = run(jax.random.key(0))
    np.testing.assert_array_equal(rows, TABLE[indices])


# -- mistakes: the message names the plate (and the site) and says what to write


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_plate_is_refused(size: int):
    with pytest.raises(mx.ModelError, match=f"plate 'n': its size is {size}; .* at least one"):
        mx.plate("n", size)


@pytest.mark.parametrize("size", [2.5, "three", None, jnp.ones(2)], ids=repr)
def test_a_size_that_is_no_whole_number_is_refused(size: Any):
    with pytest.raises(mx.ModelError, match=r"plate 'n': its size must be a whole number"):
        mx.plate("n", size)


def test_a_traced_size_is_refused():
    with pytest.raises(mx.ModelError, match=r"plate 'n': .*known when the model is traced"):
        jax.jit(lambda n: mx.plate("n", n)._indices)(3)


@pytest.mark.parametrize(("subsample_size", "said"), [(0, "is 0"), (11, "larger than its size 10")])
def test_an_impossible_subsample_size_is_refused(subsample_size: int, said: str):
    with pytest.raises(mx.ModelError, match=rf"plate 'n': .*subsample_size.* {said}"):
        mx.plate("n", 10, subsample_size=subsample_size)


def test_a_subsample_without_a_seed_is_refused():
    with pytest.raises(mx.ModelError, match=r"plate 'n': .*handlers\.seed.*leave subsample_size"):
        mx.plate("n", 10, subsample_size=4)


def test_a_dimension_counted_from_the_left_is_refused():
    with pytest.raises(mx.ModelError, match=r"plate 'n': dim must be negative"):
        mx.plate("n", 3, dim=0)
    with pytest.raises(mx.ModelError, match=r"plate_stack 'n': rightmost_dim must be negative"):
        mx.plate_stack("n", [3], rightmost_dim=0).__enter__()


def test_a_taken_dimension_is_refused():
    with (
        mx.plate("a", 3),
        pytest.raises(mx.ModelError, match="plate 'b': dim=-1 is taken by .*'a'"),
    ):
        mx.plate("b", 3, dim=-1)


def test_two_plates_made_before_either_was_entered_cannot_share_a_dimension():
    a, b = mx.plate("a", 3), mx.plate("b", 3)
    with a, b, pytest.raises(mx.ModelError, match="plate 'a' and plate 'b' around 'x' .*dim=-1"):
        mx.deterministic("x", 0.0)


def test_a_plate_inside_itself_is_refused():
    n = mx.plate("n", 3)
    with n, pytest.raises(mx.ModelError, match="'n' is stated inside itself; give the inner plate"):
        mx.plate("n", 3)
    with n, n, pytest.raises(mx.ModelError, match="'n' is entered inside itself, around 'x'; give"):
        mx.deterministic("x", 0.0)


def test_a_plate_that_does_not_fit_the_distribution_is_refused():
    def model() -> None:
        with mx.plate("n", 3):
            mx.sample("x", dist.Normal(jnp.zeros(4), 1.0))

    with pytest.raises(mx.ModelError, match=r"site 'x': .*\(4,\).*'n' of size 3.*\.to_event\(1\)"):
        record(model)


@pytest.mark.parametrize("shape", [(4,), (3, 1), (2, 3)])
def test_a_plate_that_does_not_fit_the_data_is_refused(shape: tuple[int, ...]):
    def model() -> None:
        with mx.plate("n", 3):
            mx.sample("x", NORMAL, obs=jnp.zeros(shape))

    with pytest.raises(mx.ModelError, match=r"site 'x': the observed value .*'n' of size 3.*len\("):
        record(model)


def test_full_data_in_a_subsampled_plate_is_refused():
    def model() -> None:
        with mx.plate("n", 10, subsample_size=4):
            mx.sample("x", NORMAL, obs=TABLE[:, 0])

    with pytest.raises(mx.ModelError, match=r"site 'x': the observed value has shape \(10,\)"):
        record(model)


def test_a_substituted_value_that_does_not_fit_the_plate_is_refused():
    def model() -> None:
        with mx.plate("n", 3):
            mx.sample("x", NORMAL)

    with pytest.raises(mx.ModelError, match=r"site 'x': the value has shape \(4,\).*'n' of size 3"):
        mx.handlers.substitute(model, data={"x": jnp.zeros(4)})()


def test_data_that_do_not_have_the_plates_size_cannot_be_subsampled():
    with mx.handlers.seed(rng_seed=0), mx.plate("n", 10, subsample_size=4):
        with pytest.raises(mx.ModelError, match=r"plate 'n' .*subsample\(data\) .*\(9,\).*size 10"):
            mx.subsample(jnp.zeros(9), event_dim=0)
        with pytest.raises(mx.ModelError, match=r"plate 'n' .*param 'p' .*\(9,\).*size 10 or 1"):
            mx.param("p", jnp.zeros(9), event_dim=0)


@pytest.mark.parametrize("indices", [3, [0.5, 1.5], [[0, 1]]], ids=repr)
def test_indices_that_are_no_vector_of_integers_are_refused(indices: Any):
    with (
        mx.handlers.substitute(data={"n": np.array(indices)}),
        pytest.raises(
            mx.ModelError, match="plate 'n': the indices .* must be a vector of integers"
        ),
    ):
        mx.plate("n", 10, subsample_size=2)


def test_numpyro_agrees_on_the_value_that_each_statement_of_a_subsampled_model_returns():
    indices = jnp.array([9, 0, 4])

    def returned(pp: Any) -> Any:
        def model() -> Any:
            with pp.plate("n", 10, subsample_size=3):
                width = pp.param("width", jnp.arange(10.0) + 1, event_dim=0)
                x = pp.sample("x", dist.Normal(pp.subsample(TABLE[:, 1], event_dim=0), width))
            return width, x

        return pp.handlers.seed(pp.handlers.substitute(model, data={"n": indices}), 0)()

    (our_width, our_x), (width, x) = in_both(returned)
    np.testing.assert_array_equal(our_width, width)
    np.testing.assert_array_equal(our_x, x)
