"""What a run knows of its model: where a guide begins is that of the model as it is at this call."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.errors import ModelError
from marginax.infer import SVI, TraceEnum_ELBO, init_to_mean, init_to_uniform, init_to_value
from marginax.infer.autoguide import AutoDelta, AutoGuideList, AutoNormal

KEY = jax.random.key(0)


def svi_of(model: Any, guide: Any) -> SVI:
    return SVI(model, guide, optax.sgd(0.0), TraceEnum_ELBO())


def start(svi: SVI, *args: Any, key: Any = KEY, **options: Any) -> dict[str, Any]:
    return svi.get_params(svi.init(key, *args, **options))


def test_an_array_that_changes_between_two_calls_is_seen():
    prior = np.array([1.0, 2.0])

    def model() -> None:
        with mx.plate("n", 2):
            mx.sample("x", dist.Normal(prior, 1.0))

    svi = svi_of(model, AutoDelta(model, init_loc_fn=init_to_mean))
    assert start(svi)["x_auto_loc"].tolist() == [1.0, 2.0]
    prior[:] = [5.0, 7.0]
    assert start(svi)["x_auto_loc"].tolist() == [5.0, 7.0]
    result = svi.run(KEY, 1, progress_bar=False)
    assert result.params["x_auto_loc"].tolist() == [5.0, 7.0]


def test_a_site_that_appears_between_two_calls_is_seen():
    names = ["x"]

    def model() -> None:
        for name in names:
            mx.sample(name, dist.Normal(3.0, 1.0))

    svi = svi_of(model, AutoDelta(model, init_loc_fn=init_to_mean))
    assert start(svi).keys() == {"x_auto_loc"}
    names.append("y")
    assert start(svi) == {"x_auto_loc": 3.0, "y_auto_loc": 3.0}


def test_a_prior_of_batches_begins_at_the_numbers_of_the_first():
    def model(y: Any, rows: Any) -> None:
        x = mx.sample("x", dist.Normal(jnp.mean(y), 1.0))
        with mx.plate("n", rows, len(y)):
            mx.sample("y", dist.Normal(x, 1.0), obs=y)

    svi = SVI(
        model,
        AutoDelta(model, init_loc_fn=init_to_mean),
        optax.sgd(0.0),
        TraceEnum_ELBO(),
        rows=6,
    )
    batches = [jnp.array([1.0, 2.0, 6.0]), jnp.array([10.0, 10.0, 10.0])]
    result = svi.run(KEY, 2, batches=batches, progress_bar=False)
    assert float(result.params["x_auto_loc"]) == 3.0


def test_initial_values_see_those_of_the_sites_before():
    def model() -> None:
        x = mx.sample("x", dist.Normal(2.0, 1.0))
        mx.sample("y", dist.Normal(10.0 * x, 1.0))

    found = start(svi_of(model, AutoDelta(model, init_loc_fn=init_to_mean)))
    assert found == {"x_auto_loc": 2.0, "y_auto_loc": 20.0}


def test_a_parameter_of_the_model_enters_initial_values():
    def model() -> None:
        mx.sample("x", dist.Normal(mx.param("loc", 4.0), 1.0))

    found = start(svi_of(model, AutoDelta(model, init_loc_fn=init_to_mean)))
    assert found == {"loc": 4.0, "x_auto_loc": 4.0}


def test_a_site_in_a_scan_begins_at_each_step():
    steps = jnp.array([1.0, 2.0, 3.0])

    def model() -> None:
        def step(before: Any, at: Any) -> Any:
            return mx.sample("x", dist.Normal(before + at, 1.0)), None

        mx.scan(step, jnp.zeros(()), steps)

    found = start(svi_of(model, AutoDelta(model, init_loc_fn=init_to_mean)))
    assert found["x_auto_loc"].tolist() == [1.0, 3.0, 6.0]


@pytest.mark.parametrize(
    "key", [0, jax.random.PRNGKey(3), jax.random.key(3), jax.random.key(3, impl="rbg")]
)
def test_keys_of_all_kinds_make_a_random_start(key: Any):
    def model() -> None:
        with mx.plate("n", 20):
            mx.sample("x", dist.Normal(0.0, 1.0))

    svi = svi_of(model, AutoDelta(model, init_loc_fn=init_to_uniform))
    found = np.asarray(start(svi, key=key)["x_auto_loc"])
    assert len(set(found.tolist())) == 20
    assert (np.abs(found) <= 2.0).all()
    assert np.isfinite(svi.run(key, 1, num_restarts=2, progress_bar=False).losses).all()


def test_a_start_inside_of_a_compiled_function_may_depend_on_traced_data():
    def model(y: Any) -> None:
        mx.sample("x", dist.Normal(y, 1.0))

    svi = svi_of(model, AutoDelta(model, init_loc_fn=init_to_mean))
    find = jax.jit(jax.vmap(lambda y: start(svi, y)["x_auto_loc"]))
    assert find(jnp.array([1.0, 5.0])).tolist() == [1.0, 5.0]


def test_two_guides_of_one_model_begin_each_with_its_own_strategy():
    def model() -> None:
        mx.sample("x", dist.Normal(2.0, 1.0))
        mx.sample("y", dist.Normal(3.0, 1.0))

    first = AutoDelta(model, init_loc_fn=init_to_mean)
    second = AutoDelta(model, init_loc_fn=init_to_value(values={"y": 7.0}), prefix="other")

    def guide() -> None:
        with mx.handlers.block(hide=["y"]):
            first()
        with mx.handlers.block(hide=["x"]):
            second()

    found = start(svi_of(model, guide))
    assert (found["x_auto_loc"], found["y_other_loc"]) == (2.0, 7.0)


def test_the_parts_of_a_list_begin_where_they_say():
    def model() -> None:
        mx.sample("x", dist.Normal(2.0, 1.0))
        mx.sample("y", dist.Normal(3.0, 1.0))

    guide = AutoGuideList(model)
    guide.append(AutoDelta(mx.handlers.block(model, expose=["x"]), init_loc_fn=init_to_mean))
    last = init_to_value(values={"y": 7.0})
    guide.append(AutoNormal(mx.handlers.block(model, expose=["y"]), init_loc_fn=last))
    found = start(svi_of(model, guide))
    assert (found["x_auto_loc"], found["y_auto_loc"]) == (2.0, 7.0)


def test_a_support_that_follows_from_an_initial_value_is_still_not_fixed():
    def model() -> None:
        low = mx.sample("low", dist.Normal(0.0, 1.0))
        mx.sample("x", dist.Uniform(low, low + 1.0))

    values = init_to_value(values={"low": 0.0, "x": 0.5})
    with pytest.raises(ModelError, match="'x': the support of its Uniform depends on other values"):
        start(svi_of(model, AutoDelta(model, init_loc_fn=values)))


def test_a_discrete_site_is_not_bounded_by_an_initial_value():
    def model() -> None:
        top = mx.sample("top", dist.Uniform(1.0, 9.0))
        mx.sample("z", dist.Binomial(jnp.floor(top).astype(int), 0.5))

    guide = AutoDelta(model, init_loc_fn=init_to_mean)
    with pytest.raises(ModelError, match="'z': it is a latent Binomial that cannot be summed out"):
        start(svi_of(model, guide))
