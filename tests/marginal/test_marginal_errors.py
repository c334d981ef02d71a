"""What cannot be meant is refused, with the site's name and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import marginax as mx
import marginax.distributions as dist

LOCS = jnp.array([-1.0, 0.5, 2.0])
DATA = np.array([0.3, -1.2, 0.7, 2.2])


def refused(
    model: Callable[..., Any],
    words: str,
    params: Any = None,
    *args: Any,
    error: type[Exception] = mx.ModelError,
    **kwargs: Any,
) -> None:
    """Every query refuses with the same error; so does the one inside of `jax.jit`, if it can see it."""
    m = mx.marginalize(model)
    params = {} if params is None else params
    queries = [m.log_density, m.posterior, m.mode, lambda *a, **k: m.draw(0, *a, **k)]
    for query in queries:
        with pytest.raises(error, match=rf"(?s){words}"):
            query(params, *args, **kwargs)


# --- plates ----------------------------------------------------------------------------------------


TALKING: dict[str, tuple[Callable[[Any], Any], str]] = {
    "cumsum": (lambda z: jnp.cumsum(z), "mixed by `cumsum`"),
    "reversed": (lambda z: z[::-1], "mixed by `rev`"),
    "sum": (lambda z: z.sum() + jnp.zeros(4), "mixed by `reduce_sum`"),
    "neighbour": (lambda z: jnp.roll(z, 1), "mixed by `slice`"),
    "permuted": (lambda z: z[jnp.array([1, 0, 2, 3])], "mixed by `gather`"),
    "standardised": (lambda z: z - z.mean(), "mixed by `reduce_sum`"),
    "scan over the plate": (
        lambda z: jax.lax.scan(lambda c, x: (c + x, c + x), 0, z)[1],
        "mixed by `scan`",
    ),
}


@pytest.mark.parametrize("name", TALKING)
def test_plate_elements_that_talk_to_each_other(name: str) -> None:
    mix, words = TALKING[name]

    def model() -> None:
        with mx.plate("data", 4):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(1.0 * mix(z), 1.0), obs=DATA)

    refused(
        model,
        f"site 'x': in the plate 'data' it depends on more than its own element of 'z': .*{words}",
    )
    refused(model, "write the dependence without a plate")


def test_plate_elements_that_talk_through_another_variable() -> None:
    def model() -> None:
        with mx.plate("data", 4):
            z = mx.sample("z", dist.Bernoulli(0.5))
            w = mx.sample("w", dist.Bernoulli(0.3 + 0.2 * jnp.flip(z)))
            mx.sample("x", dist.Normal(1.0 * w, 1.0), obs=DATA)

    refused(model, "site 'w': in the plate 'data' it depends on more than its own element of 'z'")


def test_rows_that_are_read_as_columns() -> None:
    def model() -> None:
        with mx.plate("rows", 2, dim=-2), mx.plate("columns", 2, dim=-1):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(1.0 * z.T, 1.0), obs=np.zeros((2, 2)))

    refused(model, "site 'x'.*'z': they arrive on another axis than the plate's")


@pytest.mark.parametrize("size", [1, 3])
def test_a_site_outside_of_a_plate_that_reads_a_variable_inside(size: int) -> None:
    """Also for a plate of one element, so that more data do not turn a model into an error."""

    def model() -> None:
        with mx.plate("data", size):
            z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(1.0 * z.sum(), 1.0), obs=1.0)

    words = rf"site 'x': it depends on 'z', which lives in the plate 'data' of size {size}, but stands outside"
    refused(model, words)
    refused(model, "Move 'x' into the plate, or take 'z' out of it")


def test_crossed_plates() -> None:
    def model() -> None:
        rows, columns = mx.plate("rows", 30, dim=-2), mx.plate("columns", 20, dim=-1)
        with rows:
            x = mx.sample("x", dist.Bernoulli(0.5))
        with columns:
            y = mx.sample("y", dist.Bernoulli(0.5))
        with rows, columns:
            mx.sample("cell", dist.Normal(1.0 * x + y, 1.0), obs=np.zeros((30, 20)))

    words = r"'x' lives in the plates {'rows' \(30\)}.*'y' lives in the plates {'columns' \(20\)}.*'cell'"
    refused(model, words, error=mx.IntractableError)
    # Given one of them, the other can be summed out.
    m = mx.marginalize(model)
    assert m.posterior({"x": np.zeros((30, 1), int)})["y"].shape == (20, 2)


@pytest.mark.parametrize("second", [{"size": 4}, {"size": 8, "subsample_size": 3}])
def test_one_plate_of_two_sizes(second: dict[str, int]) -> None:
    def model() -> None:
        with mx.plate("data", 3):
            mx.sample("z", dist.Bernoulli(0.5))
        with mx.plate("data", **second):
            mx.sample("w", dist.Bernoulli(0.5))

    seeded = mx.handlers.seed(model, rng_seed=0)
    refused(seeded, "plate 'data' has size 3 at one site and .* need different names")


def test_batch_dimensions_outside_of_plates() -> None:
    refused(
        lambda: mx.sample("z", dist.Bernoulli(0.5 * jnp.ones((3, 4)))),
        r"site 'z'.*batch shape \(3, 4\).*dimension -2 of size 3 belongs to no plate.*with plate\('name', 3\)",
    )


# --- numbers that tracing does not have ----------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda z: 1.0 if z else 0.0,
        lambda z: float(int(z)),
        lambda z: jnp.zeros(z + 1).sum(),
        lambda z: np.array([1.0, 2.0])[z],
    ],
    ids=["if", "int", "shape", "NumPy table"],
)
def test_a_model_that_needs_the_number_behind_a_variable(use: Callable[[Any], Any]) -> None:
    def model() -> None:
        mx.sample("y", dist.Bernoulli(0.5))
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(use(z), 1.0), obs=1.0)

    refused(model, r"site 'z'.*one number.*jnp.where\(condition, a, b\).*jnp.asarray\(table\)\[z\]")


def test_a_model_that_needs_the_number_behind_a_parameter() -> None:
    def model() -> None:
        count = mx.param("count", 2)
        mx.sample("x", dist.Normal(jnp.zeros(int(count)), 1.0), obs=np.zeros(2))

    refused(model, "site 'count'.*one number", {"count": 2})


# --- params ------------------------------------------------------------------------------------------


def mixture(data: Any, components: int = 2) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(components)))
    scale = mx.sample("scale", dist.LogNormal(0.0, 1.0))
    with mx.plate("data", len(data)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("x", dist.Normal(LOCS[z], scale), obs=data)


GOOD = {"weights": np.array([0.5, 0.5]), "scale": 1.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": None}, "site 'scale'.*an array of numbers, but it is a NoneType"),
        ({"scale": "large"}, "site 'scale'.*an array of numbers, but it is a str"),
        ({"scale": 1j}, "site 'scale'.*complex"),
        ({"scale": -1.0}, "site 'scale': its value in params is -1.0, which is not positive"),
        ({"scale": np.nan}, "site 'scale': its value in params has NaN"),
        ({"scale": np.ones(3)}, r"site '.*leading batch dimensions .*\(3,\)"),
        ({"weights": np.ones(3) / 3}, r"site 'weights'.*has shape \(3,\), but .*\(2,\)"),
        ({"weights": np.ones((5, 2)) / 2}, r"site '.*leading batch dimensions .*\(5,\)"),
        ({"weights": np.array([0.5, 0.6])}, "site 'weights'.*probabilities that sum to one"),
        ({"sclae": 1.0}, "params names 'sclae', which the model has no site for; it has .*'scale'"),
        ({"data": 3}, "params names 'data', which the model has no site for"),
        ({"x": DATA}, "site 'x': params gives it a value, but it is observed"),
        ({"z": np.full(4, 2)}, "site 'z'.*upper_bound=1"),
        ({"z": np.zeros(3, int)}, r"site 'z'.*has shape \(3,\), but the site has shape \(4,\)"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_wrong_entries_of_params(change: dict[str, Any], words: str) -> None:
    refused(mixture, words, GOOD | change, DATA)


def test_missing_entries_of_params() -> None:
    words = r"site 'scale': it is a latent LogNormal that is not summed out, so it needs a value of shape \(\)"
    refused(mixture, words, {"weights": GOOD["weights"]}, DATA)


def test_params_that_are_no_dictionary() -> None:
    refused(mixture, "params must be a dictionary", [1.0], DATA, error=TypeError)
    refused(mixture, "params must be a dictionary", DATA, error=TypeError)


def test_what_is_wrong_is_seen_inside_of_jit_where_shapes_tell_it() -> None:
    m = mx.marginalize(mixture)
    with pytest.raises(mx.ModelError, match=r"site '.*leading batch dimensions .*\(3,\)"):
        jax.jit(m.log_density)(GOOD | {"scale": jnp.ones(3)}, DATA)
    with pytest.raises(mx.ModelError, match="'nobody'"):
        jax.jit(m.log_density)(GOOD | {"nobody": 1.0}, DATA)


# --- data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            np.array([0.0, np.nan, 1.0]),
            "site 'x'.*NaN in 1 of 3 places, the first at index 1.*obs_mask",
        ),
        (np.array([0.0, np.inf]), "site 'x'.*outside of the support"),
        (np.zeros(0), "plate 'data': its size is 0.*empty"),
        (["yes", "no"], "site 'x'.*must be an array of numbers"),
        ("ab", "site 'x'.*must be an array of numbers"),
        (np.array(["a", "b"]), "site 'x'.*must be an array of numbers"),
        (np.zeros((3, 2)), r"site 'x'.*shape \(3, 2\).*plates around it \('data' of size 3\)"),
    ],
    ids=["nan", "inf", "empty", "strings", "a string", "array of strings", "too many dimensions"],
)
def test_wrong_data(data: Any, words: str) -> None:
    refused(mixture, words, GOOD, data)


def test_a_value_outside_of_the_support() -> None:
    refused(
        lambda: mx.sample("x", dist.Categorical(jnp.array([0.5, 0.5])), obs=2),
        "site 'x': the observed value 2 lies outside of the support",
    )


# --- models ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -1.0, np.array([1.0, 0.0])])
def test_a_scale_that_is_not_positive(value: Any) -> None:
    def model() -> None:
        with mx.handlers.scale(scale=value):
            mx.sample("z", dist.Bernoulli(0.5))

    refused(model, "scale: the scale must be positive", error=ValueError)


def test_a_variable_in_a_scale_that_its_factor_is_outside_of() -> None:
    def model() -> None:
        with mx.handlers.scale(scale=2.0):
            z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(1.0 * z, 1.0), obs=1.0)

    refused(model, "'z' is summed out inside a scale of 2.0, but 'x'", error=mx.ScaleError)


def test_a_scale_that_a_variable_decides() -> None:
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        with mx.handlers.scale(scale=1.0 + z):
            mx.sample("x", dist.Normal(0.0, 1.0), obs=1.0)

    refused(model, "site 'x': its handlers.scale depends on the discrete variable 'z'")


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 4)])
def test_a_scale_that_varies_along_no_plate(shape: tuple[int, ...]) -> None:
    def model() -> None:
        with mx.handlers.scale(scale=jnp.ones(shape)):
            mx.sample("x", dist.Normal(0.0, 1.0), obs=1.0)

    refused(model, "site 'x': its handlers.scale has shape .*along plates only")


@pytest.mark.parametrize("parameter", ["probs", "logits"])
def test_no_categories(parameter: str) -> None:
    def model(components: int) -> None:
        none = jnp.ones(components)
        mx.sample(
            "z", dist.Categorical(none) if parameter == "probs" else dist.Categorical(logits=none)
        )

    refused(model, "site 'z'.*is the number of components zero", {}, 0)


def test_a_count_without_bound() -> None:
    refused(
        lambda: mx.sample("z", dist.Poisson(2.0)),
        r"site 'z': it is a latent Poisson that is not summed out \(Poisson has infinitely many values",
    )


def test_a_variable_that_is_not_to_be_enumerated() -> None:
    refused(
        lambda: mx.sample("z", dist.Bernoulli(0.5), infer={"enumerate": None}),
        r"site 'z'.*not summed out \(its site says infer=\{'enumerate': None\}\)",
    )


def test_advice_that_nobody_knows() -> None:
    refused(
        lambda: mx.sample("z", dist.Bernoulli(0.5), infer={"enumerate": "always"}),
        "site 'z': infer=.*'always'.* is not known",
    )


def test_the_same_name_twice() -> None:
    def model() -> None:
        mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("z", dist.Bernoulli(0.5))

    refused(model, "site 'z': it is stated twice")


def test_a_density_that_is_nan_names_the_site_and_where() -> None:
    def model() -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 1.0))
        with mx.plate("data", 4):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.factor("bad", z * jnp.log(loc) * jnp.array([0.0, 0.0, 1.0, 0.0]))

    words = "site 'bad': its log density is NaN in .* of 4 plate elements.*depends on .*'loc'"
    refused(model, words, {"loc": -1.0})


def joined(count: int) -> None:
    z = [mx.sample(f"z_{i}", dist.Categorical(jnp.ones(20) / 20)) for i in range(count)]
    mx.sample("x", dist.Normal(1.0 * sum(z), 1.0), obs=3.0)


def test_what_does_not_fit_into_memory_is_refused_with_its_table() -> None:
    refused(joined, r"16,384,000,000,000,000 bytes.*more than the limit.*Summed out.*z_11", {}, 12)
    assert np.isfinite(mx.marginalize(joined).log_density({}, 3))


def test_the_limit_of_memory_can_be_set() -> None:
    assert np.isfinite(mx.marginalize(joined, memory_limit=20**3 * 4).log_density({}, 3))
    with pytest.raises(mx.ModelError, match="raise memory_limit= of marginalize"):
        mx.marginalize(joined, memory_limit=20**3 * 4 - 1).log_density({}, 3)


@pytest.mark.parametrize("model", [None, 3, "model"])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(TypeError, match="the model must be a function"):
        mx.marginalize(model)


def test_elements_of_a_sample_shape_that_belong_to_no_plate() -> None:
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.3), sample_shape=(2,))
        mx.sample("x", dist.Normal(1.0 * z, 1.0).to_event(1), obs=jnp.zeros(2))

    with pytest.raises(mx.ModelError, match="site 'z'.*belongs to no plate"):
        mx.marginalize(model).log_density({})


def test_a_plate_whose_subsample_is_drawn_twice() -> None:
    def model() -> None:
        with mx.plate("data", 6, subsample_size=3):
            z = mx.sample("z", dist.Bernoulli(0.5))
        with mx.plate("data", 6, subsample_size=3):
            mx.sample("x", dist.Normal(1.0 * z, 1.0), obs=0.0)

    with pytest.raises(mx.ModelError, match="plate 'data' is subsampled twice"):
        mx.marginalize(mx.handlers.seed(model, 0)).log_density({})


@pytest.mark.parametrize("wrong", [np.nan, 7.0])
def test_masked_data_are_checked_where_they_are_kept(wrong: float) -> None:
    def model(mask: Any, x: Any) -> None:
        mx.sample("x", dist.Bernoulli(0.3).expand([3]).mask(mask), obs=x)

    m, x = mx.marginalize(model), np.array([1.0, wrong, 0.0])
    with pytest.raises(mx.ModelError, match="site 'x': the observed value"):
        m.log_density({}, np.array([True, True, True]), x)
    known = m.log_density({}, np.array([True, False, True]), x)
    np.testing.assert_allclose(known, np.log(0.3) + np.log(0.7), rtol=1e-6)


TABLES = {
    "a row that is not normalised": [[0.5, 0.5], [0.3, 0.9]],
    "a negative entry": [[0.5, 0.5], [-0.3, 1.3]],
    "nan": [[0.5, 0.5], [np.nan, 0.9]],
}


@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_row_of_a_table(name: str) -> None:
    """A categorical normalises its probabilities, so that a wrong row would not show."""

    def model(table: Any) -> None:
        a = mx.sample("a", dist.Bernoulli(0.5))
        mx.sample("b", dist.Categorical(table[a]))

    with pytest.raises(mx.ModelError, match="site 'b': the parameter 'probs'.*row of a table"):
        mx.marginalize(model).log_density({}, jnp.array(TABLES[name]))


@pytest.mark.parametrize("p", [1.5, -0.1, np.nan])
def test_a_wrong_probability_made_inside_the_model(p: float) -> None:
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Bernoulli(jnp.where(z == 1, p, 0.5)), obs=1.0)

    with pytest.raises(mx.ModelError, match="site 'x': the parameter 'probs'"):
        mx.marginalize(model).posterior({})


def test_logits_of_minus_infinity_are_impossible_categories() -> None:
    def model(logits: Any) -> None:
        mx.sample("z", dist.Categorical(logits=logits))

    m = mx.marginalize(model)
    np.testing.assert_array_equal(m.posterior({}, np.array([0.0, -np.inf]))["z"], [1.0, 0.0])
    for logits in ([-np.inf, -np.inf], [np.inf, 0.0]):
        with pytest.raises(mx.ModelError, match="site 'z': the parameter 'logits'"):
            m.posterior({}, np.array(logits))


# --- memory ------------------------------------------------------------------------------------------


def documents(counts: Any) -> None:
    """Words are an event: the log density passes through documents x categories x words."""
    with mx.plate("categories", 4):
        words = mx.sample("words", dist.Dirichlet(jnp.ones(counts.shape[1])))
    with mx.plate("documents", len(counts)):
        z = mx.sample("z", dist.Categorical(jnp.ones(4) / 4))
        mx.sample("counts", dist.Multinomial(counts.sum(1), words[z]), obs=counts)


def test_memory_of_event_dimensions_is_counted_before_it_is_taken() -> None:
    counts = np.ones((300, 60), int)
    params = {"words": np.full((4, 60), 1 / 60)}
    needed = 300 * 4 * 60 * 4
    assert mx.marginalize(documents).explain(counts, show=False).peak_bytes == needed
    mx.marginalize(documents, memory_limit=needed).log_density(params, counts)
    refused = mx.marginalize(documents, memory_limit=needed - 1)
    with pytest.raises(mx.ModelError, match=f"(?s)an array of {needed:,} bytes.*Elimination"):
        refused.log_density(params, counts)


# --- other things that a model may do ------------------------------------------------------------------


def test_complex_data() -> None:
    with pytest.raises(mx.ModelError, match="site 'x': the observed value is complex"):
        mx.marginalize(lambda: mx.sample("x", dist.Normal(0.0, 1.0), obs=1j)).log_density({})


def test_an_improper_prior_adds_nothing() -> None:
    def model() -> None:
        u = mx.sample("u", dist.ImproperUniform(dist.constraints.positive, (), ()))
        mx.sample("x", dist.Normal(u, 1.0), obs=0.5)

    m = mx.marginalize(model)
    np.testing.assert_allclose(m.log_density({"u": 0.5}), -0.5 * np.log(2 * np.pi), rtol=1e-6)
    with pytest.raises(mx.ModelError, match="site 'u'.*not positive"):
        m.log_density({"u": -1.0})


def test_a_number_of_floating_type_may_be_an_observed_category() -> None:
    def model(x: Any) -> None:
        mx.sample("x", dist.Categorical(jnp.array([0.2, 0.8])), obs=x)

    np.testing.assert_allclose(mx.marginalize(model).log_density({}, 1.0), np.log(0.8), rtol=1e-6)


def test_a_model_of_nothing() -> None:
    m = mx.marginalize(lambda: None)
    assert m.log_density({}) == 0
    assert m.posterior({}) == m.mode({}) == m.pointwise({}) == {}
    assert m.entropy({}) == 0


# --- advice ------------------------------------------------------------------------------------------


def spike_and_slab(how: str, size: int = 13) -> None:
    if how == "plate":
        with mx.plate("columns", size):
            xi = mx.sample("xi", dist.Bernoulli(0.3))
    elif how == "event":
        xi = mx.sample("xi", dist.Bernoulli(jnp.full(size, 0.3)).to_event(1))
    else:
        xi = jnp.stack([mx.sample(f"xi{j}", dist.Bernoulli(0.3)) for j in range(size)])
    mx.sample("y", dist.Normal(jnp.sum(jnp.arange(1.0, size + 1.0) * xi), 1.0), obs=2.0)


@pytest.mark.parametrize("how", ["plate", "event"])
def test_a_site_that_needs_all_elements_is_told_of_the_loop_that_works(how: str) -> None:
    words = r"jnp\.stack\(\[mx\.sample\(f'xi\{j\}'.*range\(13\).*2\*\*13 = 8,192 terms"
    with pytest.raises(mx.ModelError, match=words):
        mx.marginalize(spike_and_slab).log_density({}, how)


def test_the_loop_that_is_advised_works() -> None:
    bits = (np.arange(2**4)[:, None] >> np.arange(4)) & 1
    prior = np.where(bits, np.log(0.3), np.log(0.7)).sum(1)
    off = 2.0 - bits @ np.arange(1.0, 5.0)
    expected = np.log(np.exp(prior - 0.5 * off**2 - 0.5 * np.log(2 * np.pi)).sum())
    value = mx.marginalize(spike_and_slab).log_density({}, "loop", 4)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_where_no_loop_would_work_none_is_advised() -> None:
    with pytest.raises(mx.ModelError, match="sees all elements at once") as caught:
        mx.marginalize(spike_and_slab).log_density({}, "plate", 40)
    assert "jnp.stack" not in str(caught.value)


def test_a_boolean_index_by_a_variable_is_told_with_the_line_and_what_to_write() -> None:
    def model() -> None:
        with mx.plate("data", 3):
            z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(jnp.arange(3.0)[z == 1].sum(), 1.0), obs=1.0)

    refused(model, r"site 'z'.*boolean index.*arange\(3\.0\)\[z == 1\].*jnp\.sum\(jnp\.where")


def test_a_boolean_index_by_what_a_scan_carries_is_told_with_the_line() -> None:
    def model() -> None:
        def step(z: Any, x: Any) -> Any:
            z = mx.sample("z", dist.Bernoulli(0.2 + 0.6 * z))
            return z, jnp.arange(3.0)[z == 1]

        mx.scan(step, 0, jnp.arange(3.0))

    words = r"needs one number at .*\[z == 1\].*jnp\.sum\(jnp\.where"
    with pytest.raises(mx.ModelError, match=words):
        mx.marginalize(model).log_density({})


def test_what_cannot_be_drawn_is_named() -> None:
    def model() -> None:
        mx.sample("flat", dist.ImproperUniform(dist.constraints.real, (), ()))

    with pytest.raises(mx.ModelError, match="site 'flat': ImproperUniform cannot be drawn from"):
        mx.handlers.seed(model, 0)()
    with pytest.raises(mx.ModelError, match="site 'flat': ImproperUniform cannot be drawn from"):
        mx.infer.Predictive(model, num_samples=2)(0)


def test_a_density_that_is_missing_in_a_distribution_is_named() -> None:
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        base = dist.VonMises(1.0 * z, 1.0)  # without a cdf
        mx.sample("x", dist.LeftCensoredDistribution(base, jnp.array(1)), obs=1.0)

    refused(model, "site 'x': the log density of LeftCensoredDistribution.*cdf")


def test_a_long_loop_of_variables_is_pointed_to_scan() -> None:
    def model() -> None:
        z: Any = 0
        for t in range(201):
            z = mx.sample(f"z{t}", dist.Bernoulli(0.2 + 0.6 * z))

    with pytest.warns(UserWarning, match=r"'z\.\.\.' are 201 discrete variables.*mx\.scan"):
        mx.marginalize(model).supports()
