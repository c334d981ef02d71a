"""What does not fit into 32 bits is refused; what is rounded too much is told; the rest passes in silence."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.arrays.narrowing import check_narrowing
from marginax.infer.batches import as_arguments

BIG = 3_000_000_000
RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=20_000)
DAY = 1.7e9 + np.sort(RNG.uniform(0, 86_400, 20_000))  # seconds since 1970


def observed(x: Any) -> None:
    mx.sample("x", dist.Normal(3e9, 1e9), obs=x)


def closed_over() -> None:
    mx.sample("x", dist.Normal(3e9, 1e9), obs=np.array(BIG))


def plain_number() -> None:
    mx.sample("x", dist.Normal(3e9, 1e9), obs=BIG)


def in_a_list() -> None:
    numbers: Any = [np.int64(BIG), np.int64(1)]
    with mx.plate("n", 2):
        mx.sample("x", dist.Normal(3e9, 1e9), obs=numbers)


def latent() -> None:
    mx.sample("x", dist.Normal(3e9, 1e9))


def ranged() -> None:
    mx.sample("n", dist.Poisson(3e9), infer={"support": (BIG, BIG + 5)})


def trials() -> None:
    mx.sample("x", dist.Binomial(np.array(BIG), 0.5), obs=1.0)


def weighed() -> None:
    with mx.handlers.scale(scale=np.array(BIG)):
        mx.sample("x", dist.Normal(0.0, 1.0), obs=1.0)


def in_a_scan() -> None:
    def step(carry: Any, x: Any) -> Any:
        mx.sample("x", dist.Normal(carry, 1.0), obs=1.0 * x)
        return carry, None

    mx.scan(step, 0.0, np.array([1, BIG]))


def density(model: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
    return mx.marginalize(model).log_density(params, *args, **kwargs)


@pytest.mark.parametrize(
    ("named", "ask"),
    [
        ("argument 1", lambda: density(observed, {}, np.array(BIG))),
        ("argument 'x'", lambda: density(observed, {}, x=np.array([BIG]))),
        ("argument 1", lambda: density(observed, {}, np.uint64(BIG * 2))),
        ("argument 1", lambda: density(lambda d: None, {}, {"a": np.array([-BIG])})),
        ("argument 1", lambda: density(observed, {}, np.array([1e300]))),
        ("site 'x'", lambda: density(closed_over, {})),
        ("site 'x'", lambda: density(plain_number, {})),
        ("site 'x'", lambda: density(in_a_list, {})),
        ("site 'x'", lambda: density(latent, {"x": np.array(BIG)})),
        ("site 'n'", lambda: density(ranged, {})),
        ("site 'x': the parameter 'total_count'", lambda: density(trials, {})),
        ("site 'scale'", lambda: density(weighed, {})),
        ("scan: its series", lambda: density(in_a_scan, {})),
        ("entry 'x' of a batch", lambda: as_arguments({"x": np.array([BIG])})),
        ("site 'x'", lambda: mx.handlers.substitute(latent, data={"x": np.array(BIG)})()),
        ("site 'x'", lambda: mx.handlers.condition(latent, data={"x": np.array(BIG)})()),
        ("site 'x'", lambda: mx.infer.Predictive(latent, {"x": np.array([BIG])})),
    ],
)
def test_numbers_that_wrap_around_are_refused_by_name(named: str, ask: Any) -> None:
    with pytest.raises(mx.ModelError, match=named) as raised:
        ask()
    assert "jax_enable_x64" in str(raised.value)


def test_rows_on_disk_are_looked_at_as_they_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([1, BIG]))
    with pytest.raises(mx.ModelError, match="rows on disk.*x.npy"):
        mx.rows_on_disk(tmp_path / "x.npy").read(0, 2)


def test_with_64_bits_everything_fits() -> None:
    with jax.enable_x64(True):
        found = density(observed, {}, np.array(BIG))
        np.testing.assert_allclose(found, stats.norm.logpdf(BIG, BIG, 1e9), rtol=1e-12)
        check_narrowing("x", DAY)


LOSE = {
    "seconds of a day": DAY,
    "seconds in no order": RNG.permutation(DAY),
    "a column of several": np.stack([NORMAL, DAY], 1),
    "with missing cells": np.where(NORMAL > 1, np.nan, DAY),
    "steps of a thousandth": 1e5 + np.arange(200) / 1000,
    "a little noise": 1e6 + NORMAL,
    "too small for a number": 1e-60 * NORMAL,
}
KEEP = {
    "normal": NORMAL,
    "tenths": np.array([0.1, 0.2, 0.3]),
    "one number": np.array(0.1),
    "constant": np.full(50, 0.1),
    "six digits": np.round(101.325 + 0.01 * NORMAL, 3),
    "years": 2000.0 + np.arange(30),
    "sorted": np.sort(NORMAL),
    "large": 1e30 * NORMAL,
    "small": 1e-30 * NORMAL,
    "infinite": np.append(NORMAL, [np.inf, -np.inf, np.nan]),
    "nothing known": np.full(5, np.nan),
    "empty": np.zeros((0, 3)),
    "whole": np.arange(10),
    "single precision": DAY.astype(np.float32),
    "a large table": np.broadcast_to(NORMAL[:, None], (20_000, 3)),
    "wide": np.broadcast_to(NORMAL[:20], (3, 20)) + np.arange(3)[:, None],
}


@pytest.mark.parametrize("array", LOSE.values(), ids=LOSE)
def test_rounding_that_matters_is_told(array: np.ndarray) -> None:
    with pytest.warns(mx.PrecisionWarning, match="argument 'x'.*jax_enable_x64"):
        check_narrowing("argument 'x'", array)


@pytest.mark.parametrize("array", KEEP.values(), ids=KEEP)
def test_ordinary_numbers_pass_in_silence(array: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_narrowing("x", array)


def test_whole_numbers_that_become_floating_ones_are_looked_at_as_such() -> None:
    seconds = DAY.astype(np.int64)[:100]  # they do fit into 32 bits
    with pytest.warns(mx.PrecisionWarning, match="site 'x'"):
        density(lambda: mx.sample("x", dist.Normal(1.7e9, 1e5).expand([100]), obs=seconds), {})
    density(lambda: mx.sample("x", dist.Poisson(1.7e9).expand([100]), obs=jnp.asarray(seconds)), {})
