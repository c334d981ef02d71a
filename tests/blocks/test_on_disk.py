"""Rows on disk: the answers are those of the rows in memory, and the whole is never read at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.blocks.on_disk import RowsOnDisk

N = 1003
ROWS = np.random.default_rng(0).normal(size=N).astype(np.float32)
PARAMS = {"locs": jnp.array([-1.0, 1.0])}


def model(x: Any) -> None:
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(0.0, 5.0))
    with mx.plate("data", len(x), block_size=100):
        z = mx.sample("z", dist.Bernoulli(0.3))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)


class Counted:
    """An array that remembers how many rows it was asked for at once."""

    shape, dtype = ROWS.shape, ROWS.dtype

    def __init__(self) -> None:
        self.counts: list[int] = []

    def __getitem__(self, part: slice) -> np.ndarray:
        self.counts.append(part.stop - part.start)
        return ROWS[part]


def npy(folder: Path) -> RowsOnDisk:
    np.save(folder / "x.npy", ROWS)
    return mx.rows_on_disk(folder / "x.npy")


def memmap(folder: Path) -> RowsOnDisk:
    ROWS.tofile(folder / "x.bin")
    return mx.rows_on_disk(np.memmap(folder / "x.bin", np.float32, "r"))


def parquet(folder: Path) -> RowsOnDisk:
    pq.write_table(pa.table({"y": ROWS * 2, "x": ROWS}), folder / "x.parquet", row_group_size=77)
    return mx.rows_on_disk(folder / "x.parquet", column="x")


@pytest.mark.parametrize("kind", [npy, memmap, parquet])
def test_answers_are_those_of_rows_in_memory(kind: Any, tmp_path: Path) -> None:
    m, rows = mx.marginalize(model), kind(tmp_path)
    assert len(rows) == N
    tolerance = N * float(np.finfo(np.float32).eps)

    def ask(x: Any) -> Any:
        value = jax.jit(jax.value_and_grad(lambda params: m.log_density(params, x)))(PARAMS)
        return value, m.posterior(PARAMS, x), m.mode(PARAMS, x), m.pointwise(PARAMS, x)

    for a, b in zip(jax.tree.leaves(ask(rows)), jax.tree.leaves(ask(ROWS)), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_no_more_than_a_block_is_read_at_once() -> None:
    source = Counted()
    mx.marginalize(model).log_density(PARAMS, mx.rows_on_disk(source))
    assert set(source.counts) == {100}
    assert sum(source.counts) % 1100 == 0


def test_a_fit_reads_them_at_every_step(tmp_path: Path) -> None:
    start = mx.infer.init_to_value(values=PARAMS)

    def fit(x: Any) -> Any:
        guide = mx.infer.autoguide.AutoDelta(model, init_loc_fn=start)
        svi = mx.infer.SVI(model, guide, mx.optim.Adam(0.1), mx.infer.TraceEnum_ELBO())
        run = svi.run(
            jax.random.key(0),
            20,
            x,
            progress_bar=False,
            checkpoint=tmp_path / f"{len(str(type(x)))}.mx",
        )
        return run.params["locs_auto_loc"]

    # Twenty steps of length 0.1, whose directions are rounded.
    np.testing.assert_allclose(fit(npy(tmp_path)), fit(ROWS), atol=20 * 0.1 * 1e-4)


def test_nuts_draws_what_it_draws_with_rows_in_memory(tmp_path: Path) -> None:
    def draws(x: Any) -> Any:
        kernel = mx.infer.NUTS(
            model,
            init_strategy=mx.infer.init_to_value(values=PARAMS),
            step_size=0.02,
            adapt_step_size=False,
        )
        mcmc = mx.infer.MCMC(kernel, num_warmup=5, num_samples=5, progress_bar=False)
        mcmc.run(jax.random.key(0), x)
        return mcmc.get_samples()["locs"]

    with jax.enable_x64(True):
        np.testing.assert_allclose(draws(npy(tmp_path)), draws(ROWS), rtol=1e-8)


def test_arithmetic_in_the_model_is_on_rows() -> None:
    def standardised(x: Any) -> None:
        with mx.plate("data", len(x)):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(z + 0.1 * jnp.abs(x), 1.0), obs=(x - 1.0) / 2.0)

    m = mx.marginalize(standardised)
    found, expected = m.log_density({}, mx.rows_on_disk(Counted())), m.log_density({}, ROWS)
    np.testing.assert_allclose(found, expected, rtol=N * float(np.finfo(np.float32).eps))


def test_what_needs_all_rows_at_once_is_refused() -> None:
    def ranked(x: Any) -> None:
        with mx.plate("data", len(x)):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(z, 1.0), obs=jnp.sort(x))

    with pytest.raises(mx.ModelError, match="needed all at once, by `sort`"):
        mx.marginalize(ranked).log_density({}, mx.rows_on_disk(Counted()))


def test_nan_on_disk_is_named_with_its_site() -> None:
    bad = ROWS.copy()
    bad[[3, 700]] = np.nan
    with pytest.raises(mx.ModelError, match=r"site 'x': .* in 2 elements"):
        mx.marginalize(model).log_density(PARAMS, mx.rows_on_disk(bad))


def test_outside_of_a_model_they_are_not_read_as_a_whole() -> None:
    with pytest.raises(TypeError, match="not read as a whole"):
        np.asarray(mx.rows_on_disk(ROWS))


def test_sources_that_make_no_sense(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0, None], "name": ["a", "b"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="has the columns 'x', 'name'; say which"):
        mx.rows_on_disk(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="'name' of .* holds no numbers"):
        mx.rows_on_disk(tmp_path / "x.parquet", column="name")
    with pytest.raises(ValueError, match="has missing values"):
        mx.rows_on_disk(tmp_path / "x.parquet", column="x").read(0, 2)
    with pytest.raises(ValueError, match="has no rows"):
        mx.rows_on_disk(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="for Parquet files"):
        mx.rows_on_disk(ROWS, column="x")
