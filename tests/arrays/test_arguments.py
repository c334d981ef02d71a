"""Columns of any library and lists of numbers, as arguments of a model: the numbers are those of NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.graph.sites import as_jax_arrays
from marginax.infer import SVI, Predictive, TraceEnum_ELBO, infer_discrete
from marginax.infer.autoguide import AutoDelta

Y, AGE = [1.0, 2.0, 3.0], [1, 0, 2]

COLUMNS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "pandas": pd.Series,
    "pandas with gaps": lambda v: pd.Series(v, index=[7, 3, 5]).convert_dtypes(),
    "pandas on Arrow": lambda v: pd.Series(v).convert_dtypes(dtype_backend="pyarrow"),
    "pandas index": pd.Index,
    "polars": pl.Series,
    "Arrow": pa.array,
    "Arrow in chunks": lambda v: pa.chunked_array([v[:1], v[1:]]),
}


def model(y: Any, age: Any) -> None:
    loc = mx.sample("loc", dist.Normal(0.0, 1.0))
    with mx.plate("n", len(y)):
        z = mx.sample("z", dist.Bernoulli(0.4))
        mx.sample("y", dist.Normal(2.0 * z + loc * age, 1.0), obs=y)


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_any_library_is_an_array(kind: str):
    made = COLUMNS[kind]
    (array, count), named = as_jax_arrays(((made(Y), made(AGE)), {"inside": {"y": made(Y)}}))
    np.testing.assert_array_equal(array, Y)
    np.testing.assert_array_equal(named["inside"]["y"], Y)
    assert count.dtype == jnp.asarray(AGE).dtype
    m, params = mx.marginalize(model), {"loc": 0.5}
    right = m.log_density(params, np.array(Y), np.array(AGE))
    np.testing.assert_allclose(m.log_density(params, made(Y), age=made(AGE)), right, rtol=1e-6)


def test_every_user_of_a_model_takes_them():
    y, age = pd.Series(Y), pl.Series(AGE)
    guide = AutoDelta(model)
    svi = SVI(model, guide, optax.adam(0.1), TraceEnum_ELBO())
    losses = svi.run(jax.random.key(0), 2, y, age, progress_bar=False).losses
    right = svi.run(jax.random.key(0), 2, np.array(Y), np.array(AGE), progress_bar=False)
    np.testing.assert_allclose(losses, right.losses, rtol=1e-6)
    in_batches = svi.run(jax.random.key(0), 2, batches=[(y, age)], progress_bar=False)
    np.testing.assert_allclose(in_batches.losses, right.losses, rtol=1e-6)
    draws = {"loc": jnp.zeros(2)}
    drawn = Predictive(model, draws, infer_discrete=True)(jax.random.key(0), y, age)
    assert drawn["z"].shape == (2, 3)
    best = infer_discrete(mx.handlers.substitute(model, data={"loc": 0.0}), temperature=0)
    best(y, age)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, None], dtype="Float64"),
        pd.Series([1.0, None], dtype="double[pyarrow]"),
        pl.Series([1.0, None]),
        pa.array([1.0, None]),
    ],
)
def test_a_missing_number_is_nan(column: Any):
    np.testing.assert_array_equal(as_jax_arrays(column_as_argument(column))[0][0], [1.0, np.nan])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series([1, None], dtype="Int64"), "argument 1 has 1 missing values among its whole"),
        (pl.Series([1, None]), "argument 1 has 1 missing values among its whole numbers"),
        (pa.array([1, None]), "argument 1 has 1 missing values among its whole numbers"),
        (pd.Series([True, None], dtype="boolean"), "missing values among its booleans"),
        (pd.Series(pd.to_datetime(["2020-01-01"])), "argument 1 holds dates.*days since"),
        (pl.Series([1]).cast(pl.Date), "argument 1 holds dates"),
    ],
)
def test_what_has_no_number_is_refused_with_the_arguments_name(column: Any, message: str):
    with pytest.raises(mx.ModelError, match=message):
        as_jax_arrays(column_as_argument(column))


def column_as_argument(column: Any) -> Any:
    return (column,), {}


def test_what_is_no_column_of_numbers_stays_what_it_is():
    kept: list[Any] = [(2, 3), 3, 2.5, "text", None, range(3), [], ["a", "b"], pd.Series(["a"])]
    kept += [pd.DataFrame({"y": Y}), pl.DataFrame({"y": Y}), pa.table({"y": Y}), np.array(["a"])]
    for value in kept:
        assert type(as_jax_arrays(((value,), {}))[0][0]) is type(value)
    ragged = as_jax_arrays((([[1.0, 2.0], [3.0]],), {}))[0][0]
    assert [row.shape for row in ragged] == [(2,), (1,)]
    assert as_jax_arrays((([[1, 2], [3, 4]],), {}))[0][0].shape == (2, 2)


def test_a_whole_number_of_a_list_may_still_be_a_size():
    def sized(sizes: list[int]) -> None:
        with mx.plate("k", sizes[1]):
            mx.sample("x", dist.Normal(0.0, 1.0), obs=jnp.zeros(sizes[1]))

    right = 3 * float(dist.Normal(0.0, 1.0).log_prob(0.0))
    found = mx.marginalize(sized).log_density({}, [2, 3])
    assert float(found) == pytest.approx(right, rel=1e-6)
