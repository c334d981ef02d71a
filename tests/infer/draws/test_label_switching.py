"""Labels are made consistent: what was exchanged by hand is found again, and nothing else is moved."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.infer import relabel
from marginax.infer.draws.label_switching import on_labels

TRUE_LOCS = np.array([0.0, 4.0, 9.0])
TRUE_WEIGHTS = np.array([0.5, 0.3, 0.2])
X = np.array([0.1, -0.3, 0.4, 0.0, 0.2, 3.9, 4.2, 4.1, 9.3, 8.8])


def mixture(x: Any) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(3)))
    with mx.plate("components", 3):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
        mx.deterministic("squares", locs**2)
    scale = mx.sample("scale", dist.LogNormal(0.0, 1.0))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("x", dist.Normal(locs[z], scale), obs=x)


def draws(count: int) -> dict[str, np.ndarray]:
    """Around the truth, its components numbered by falling weight."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(100 * TRUE_WEIGHTS, size=count)
    locs = rng.normal(TRUE_LOCS, 0.3, size=(count, 3))
    return {
        "weights": weights,
        "locs": locs,
        "squares": locs**2,
        "scale": rng.uniform(0.5, 1.0, size=count),
        "z": np.tile(np.abs(X[:, None] - TRUE_LOCS).argmin(1), (count, 1)),
    }


def exchanged(found: dict[str, np.ndarray], orders: np.ndarray) -> dict[str, np.ndarray]:
    """The same draws, component k of each called what its order says."""
    moved = {
        name: np.take_along_axis(found[name], orders, 1) for name in ("weights", "locs", "squares")
    }
    new_number = np.argsort(orders, axis=1)
    z = np.take_along_axis(new_number, found["z"], 1)
    return {name: (found | moved | {"z": z})[name] for name in found}


def test_what_was_exchanged_by_hand_is_found_again():
    rng = np.random.default_rng(1)
    truth = draws(40)
    orders = np.stack([rng.permutation(3) for _ in range(40)])
    given = exchanged(truth, orders)
    by_chain = {name: value.reshape((4, 10, *value.shape[1:])) for name, value in given.items()}
    found = relabel(mixture, by_chain, X, plate="components", batch_ndims=2)
    assert found.axes == {"weights": (-1,), "locs": (-1,), "squares": (-1,)}
    for name, value in truth.items():
        np.testing.assert_allclose(
            found.samples[name], value.reshape(by_chain[name].shape), rtol=1e-6, err_msg=name
        )
    np.testing.assert_array_equal(found.permutations.reshape(40, 3), np.argsort(orders, axis=1))
    kinds, counts = np.unique(orders, axis=0, return_counts=True)
    assert str(found).startswith(
        f"{len(kinds)} numberings of 3 components among 40 draws; {40 - counts.max()} draws differ"
    )


def test_draws_that_agree_stay_as_they_are():
    found = relabel(mixture, draws(5), X, plate="components")
    np.testing.assert_array_equal(found.permutations, np.tile(np.arange(3), (5, 1)))


def test_no_other_numbering_of_a_draw_is_closer_to_the_average():
    """On draws whose components overlap, by all numberings of each."""
    rng = np.random.default_rng(2)
    given = {
        "weights": rng.dirichlet(np.ones(3), size=30),
        "locs": rng.normal(4.0, 3.0, size=(30, 3)),
        "scale": rng.uniform(1.0, 4.0, size=30),
    }
    found = relabel(mixture, given, X, plate="components").samples
    likelihood = stats.norm.pdf(X[:, None], found["locs"][:, None], found["scale"][:, None, None])
    p = found["weights"][:, None] * likelihood
    p /= p.sum(-1, keepdims=True)
    average = p.mean(0)

    def divergence(share: np.ndarray) -> float:
        return float((share * (np.log(share) - np.log(average))).sum())

    for each in p:
        others = [divergence(each[:, list(order)]) for order in itertools.permutations(range(3))]
        assert divergence(each) <= min(others) + 1e-4


def test_rows_and_columns_of_a_transition_matrix_are_renumbered_together():
    def model(y: Any) -> None:
        with mx.plate("states", 2):
            rows = mx.sample("rows", dist.Dirichlet(jnp.ones(2)))
            locs = mx.sample("locs", dist.Normal(0.0, 10.0))
        begin = mx.sample("begin", dist.Categorical(jnp.ones(2) / 2))

        def step(previous: Any, y: Any) -> Any:
            state = mx.sample("state", dist.Categorical(rows[previous]))
            mx.sample("y", dist.Normal(locs[state], 1.0), obs=y)
            return state, None

        mx.scan(step, begin, y)

    y = np.array([0.2, -0.1, 0.3, 5.1, 0.0, 0.1])
    rows = np.array([[0.9, 0.1], [0.6, 0.4]])
    swapped = rows[::-1, ::-1]
    given = {
        "rows": np.stack([rows, swapped, rows]),
        "locs": np.array([[0.0, 5.0], [5.1, 0.1], [-0.1, 4.9]]),
    }
    found = relabel(model, given, y, plate="states")
    assert found.axes == {"rows": (-2, -1), "locs": (-1,)}
    np.testing.assert_allclose(found.samples["rows"], np.stack([rows] * 3), rtol=1e-6)
    assert (found.samples["locs"][:, 0] < 1).all()


def test_an_axis_that_is_as_long_by_chance_is_left_alone():
    def model(x: Any) -> None:
        with mx.plate("components", 2):
            locs = mx.sample("locs", dist.Normal(jnp.zeros(2), 10.0).to_event(1))
        with mx.plate("data", len(x)):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(locs[z], 1.0).to_event(1), obs=x)

    x = np.array([[0.0, 5.0], [0.1, 5.2], [-3.0, 1.0]])
    locs = np.array([[0.0, 5.0], [-3.0, 1.0]])
    given = {"locs": np.stack([locs, locs[::-1]])}
    found = relabel(model, given, x, plate="components")
    assert found.axes == {"locs": (-2,)}
    np.testing.assert_allclose(found.samples["locs"], np.stack([locs, locs]))
    with pytest.raises(mx.ModelError, match="not exchangeable"):
        relabel(model, given, x, plate="components", axes={"locs": -1})


def ordered(x: Any) -> None:
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(jnp.array([0.0, 5.0]), 1.0))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"plate": "components"}, "plate 'components' are not exchangeable"),
        ({"plate": "parts"}, "no plate 'parts'; its plates are 'components', 'data'"),
        ({"plate": "data"}, "no discrete variable has the values 0 to 2.*'data'"),
        ({"plate": "components", "variable": "x"}, "'x' is no discrete variable"),
        ({"plate": "components", "axes": {"locs": 0}}, "axis 0 of 'locs'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: Any, reason: str):
    given = {"locs": np.array([[0.0, 5.0], [0.3, 4.0]])}
    with pytest.raises(mx.ModelError, match=reason):
        relabel(ordered, given, np.array([0.0, 1.0, 5.0]), **options)


def test_draws_of_different_number_are_refused():
    given = {"locs": np.zeros((3, 2)), "other": np.zeros(2)}
    with pytest.raises(ValueError, match="'other' have shape"):
        relabel(ordered, given, np.array([0.0, 1.0]), plate="components")


def test_the_modes_of_a_sampled_mixture_fold_into_one():
    def two(x: Any) -> None:
        with mx.plate("components", 2):
            locs = mx.sample("locs", dist.Normal(2.0, 10.0))
        with mx.plate("data", len(x)):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(locs[z], 0.5), obs=x)

    x = np.array([0.0, 0.3, 5.0, 5.2])
    kernel = mx.infer.NUTS(two)
    mcmc = mx.infer.MCMC(kernel, num_warmup=150, num_samples=150, num_chains=4, progress_bar=False)
    start = {"locs": jnp.array([[0.0, 5.0], [5.0, 0.0], [0.0, 5.0], [5.0, 0.0]])}
    with pytest.warns(RuntimeWarning, match=r"2 different places.*chains 0, 2.*chains 1, 3"):
        mcmc.run(jax.random.key(0), x, init_params=start)
    one = mcmc.relabel("components")
    locs = np.asarray(one.get_samples(group_by_chain=True)["locs"])
    # Of two points each, with noise of 0.5; the draws are worth a hundred independent ones, at least.
    deviation = 0.5 / np.sqrt(2)
    low, high = np.sort(locs.mean((0, 1)))
    assert low == pytest.approx(0.15, abs=5 * deviation / np.sqrt(100))
    assert high == pytest.approx(5.1, abs=5 * deviation / np.sqrt(100))
    np.testing.assert_allclose(locs.std((0, 1)), deviation, rtol=5 / np.sqrt(2 * 100))
    assert np.asarray(mcmc.get_samples()["locs"]).std(0).min() > 2  # the original is as it was


def two(x: Any, y: Any, kind: str) -> None:
    """Two components whose weight is one number, or a regression."""
    if kind == "probability":
        share = mx.sample("share", dist.Uniform(0.0, 1.0))
        of_one = dist.Bernoulli(1 - share)
    elif kind == "not symmetric":
        share = mx.sample("share", dist.Beta(1.0, 2.0))
        of_one = dist.Bernoulli(share)
    else:
        slopes = mx.sample("slopes", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        of_one = dist.Bernoulli(logits=mx.sample("level", dist.Normal(0.0, 2.0)) + x @ slopes)
    mx.sample("slack", dist.Normal(0.0, 1.0))  # it may be mirrored, but need not be
    scale = mx.sample("scale", dist.LogNormal(0.0, 1.0))
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(y)):
        z = mx.sample("z", of_one)
        mx.sample("y", dist.Normal(locs[z], scale), obs=y)


MIRRORED = {"probability": {"share": 0.5}, "regression": {"level": 0.0, "slopes": 0.0}}


@pytest.mark.parametrize("kind", MIRRORED)
def test_a_number_that_stands_for_two_components_is_mirrored(kind: str):
    """Draws around one numbering, half of them exchanged by hand, are brought back to it."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(6, 2))
    y = np.array([0.1, -0.2, 5.1, 0.2, 0.0, 4.8])
    locs = rng.normal([0.0, 5.0], 0.1, (12, 2))
    truth = {"locs": locs, "scale": rng.uniform(0.5, 1.0, 12), "slack": rng.normal(size=12)}
    if kind == "probability":
        truth["share"] = rng.uniform(0.6, 0.8, 12)
    else:
        truth |= {"level": rng.normal(-0.7, 0.1, 12), "slopes": rng.normal(size=(12, 2))}
    swap = np.arange(12) % 2 == 1
    given = dict(truth, locs=np.where(swap[:, None], locs[:, ::-1], locs))
    for name, middle in MIRRORED[kind].items():
        value = truth[name]
        given[name] = np.where(swap.reshape(-1, *[1] * (value.ndim - 1)), 2 * middle - value, value)
    found = relabel(two, given, x, y, kind, plate="components")
    assert found.axes == {"locs": (-1,)}
    assert found.mirrored == MIRRORED[kind]
    assert f"'{next(iter(MIRRORED[kind]))}' (mirrored at" in str(found)
    for name, value in truth.items():
        np.testing.assert_allclose(found.samples[name], value, rtol=1e-6, err_msg=name)
    by_chain = {n: v.reshape(2, 6, *v.shape[1:]) for n, v in given.items()}
    assert "mcmc.relabel('components')" in on_labels(two, by_chain, (x, y, kind), {})


def test_a_prior_that_prefers_one_component_is_not_mirrored():
    rng = np.random.default_rng(3)
    draws = {
        "locs": rng.normal(size=(4, 2)),
        "scale": rng.uniform(0.5, 1.0, 4),
        "slack": rng.normal(size=4),
        "share": rng.uniform(0.2, 0.8, 4),
    }
    args = None, X, "not symmetric"
    with pytest.raises(mx.ModelError, match="not exchangeable"):
        relabel(two, draws, *args, plate="components")
    said = on_labels(two, {n: v[:, None] for n, v in draws.items()}, args, {})
    assert "not exchangeable" in said
    assert "mcmc.relabel" not in said


@pytest.mark.parametrize("first_is_fixed", [False, True])
def test_states_of_a_chain_that_begins_in_one_of_them_are_told_apart(first_is_fixed: bool):
    def model(y: Any) -> None:
        with mx.plate("states", 2):
            leave = mx.sample("leave", dist.Beta(2.0, 2.0))
            locs = mx.sample("locs", dist.Normal(0.0, 5.0))

        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Bernoulli(jnp.where(z == 0, leave[0], 1 - leave[1])))
            mx.sample("y", dist.Normal(locs[z], 1.0), obs=y)
            return z, None

        first = 0 if first_is_fixed else mx.sample("first", dist.Bernoulli(0.5))
        mx.scan(step, first, y)

    rng = np.random.default_rng(4)
    draws = {"leave": rng.uniform(size=(2, 5, 2)), "locs": rng.normal(size=(2, 5, 2))}
    said = on_labels(model, draws, (X,), {})
    assert ("begins in a fixed state" in said) == first_is_fixed
    assert ("mcmc.relabel('states')" in said) != first_is_fixed
    if first_is_fixed:
        with pytest.raises(mx.ModelError, match="begins in a fixed state"):
            relabel(model, draws, X, plate="states", batch_ndims=2)
