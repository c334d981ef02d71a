"""A model that is given a masked array is told, with the place; what is under the mask is never taken for data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.infer.batches import as_arguments, minibatches

MASKED = np.ma.array([0.5, -9999.0, 1.5], mask=[False, True, False])
GIVEN: Any = [np.ma.masked, 1.0]
WHOLE = np.ma.array([0.5, 0.7, 1.5], mask=False)


def model(x: Any, **more: Any) -> None:
    loc = mx.sample("loc", dist.Normal(0.0, 1.0))
    with mx.plate("n", 3):
        z = mx.sample("z", dist.Bernoulli(0.4))
        mx.sample("x", dist.Normal(loc + z, 1.0), obs=x)


def inside() -> None:
    with mx.plate("n", 3):
        mx.sample("x", dist.Normal(0.0, 1.0), obs=MASKED)


def of_three() -> None:
    with mx.plate("n", 3):
        mx.sample("w", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("ask", "where"),
    [
        (lambda: mx.marginalize(model).log_density({"loc": 0.0}, MASKED), "argument 1"),
        (lambda: mx.marginalize(model).log_density({"loc": 0.0}, x=MASKED), "argument 'x'"),
        (lambda: mx.marginalize(model).explain([MASKED], show=False), r"argument 1\[0\]"),
        (lambda: mx.marginalize(inside).log_density({}), "site 'x'"),
        (lambda: mx.marginalize(of_three).log_density({"w": MASKED}), "site 'w'"),
        (lambda: mx.handlers.condition(of_three, {"w": MASKED})(), "site 'w'"),
        (lambda: mx.sample("y", dist.Normal(0.0, 1.0), obs=GIVEN), "site 'y'"),
        (
            lambda: mx.infer.SVI(
                model,
                mx.infer.autoguide.AutoDelta(model),
                mx.optim.Adam(0.1),
                mx.infer.TraceEnum_ELBO(),
            ).run(jax.random.key(0), 1, MASKED, progress_bar=False),
            "argument",
        ),
        (
            lambda: mx.infer.MCMC(
                mx.infer.NUTS(model), num_warmup=1, num_samples=1, progress_bar=False
            ).run(jax.random.key(0), MASKED),
            "argument",
        ),
        (lambda: as_arguments({"x": MASKED}), "entry 'x' of a batch"),
        (lambda: mx.rows_on_disk(MASKED), "rows_on_disk"),
    ],
)
def test_a_masked_array_is_refused_where_it_is_given(ask: Any, where: str):
    with pytest.raises(mx.ModelError, match=f"{where}.*masked"):
        ask()


def test_an_array_of_which_nothing_is_masked_is_an_array():
    density = mx.marginalize(model).log_density
    assert density({"loc": 0.3}, WHOLE) == density({"loc": 0.3}, jnp.asarray(WHOLE.data))


def test_what_the_message_says_to_write_is_the_density_of_what_there_is():
    def masked(x: Any, there: Any) -> None:
        with mx.plate("n", 3):
            mx.sample("x", dist.Normal(0.0, 1.0), obs=x, obs_mask=there)

    found = mx.marginalize(masked).log_density(
        {"x_unobserved": jnp.zeros(3)}, MASKED.filled(0.0), ~np.ma.getmaskarray(MASKED)
    )
    expected = (
        dist.Normal(0.0, 1.0).log_prob(jnp.array([0.5, 0.0, 1.5])).sum()
    )  # 0: as is given for the one that is not there
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_masked_rows_are_refused_by_minibatches() -> None:
    with pytest.raises(mx.ModelError, match="minibatches: an array of the data is a masked array"):
        next(iter(minibatches(np.ma.array([1.0, 1000.0, 1.0], mask=[False, True, False]), 3)))
