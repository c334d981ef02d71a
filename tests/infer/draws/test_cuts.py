"""Inference warns when the range of a count cuts off what matters at the values that it found."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS, SVI, TraceEnum_ELBO
from marginax.infer.autoguide import AutoDelta

COUNTS = np.array([28, 31, 27])


def abundance(high: int) -> Callable[..., None]:
    """Animals present, each seen with probability 0.7: about 40 of them."""

    def model(seen: Any) -> None:
        rate = mx.sample("rate", dist.Gamma(4.0, 0.1))
        with mx.plate("sites", len(seen)):
            n = mx.sample("n", dist.Poisson(rate), infer={"support": (0, high)})
            mx.sample("seen", dist.Binomial(n, 0.7), obs=seen)

    return model


def fit(model: Callable[..., None]) -> None:
    svi = SVI(model, AutoDelta(model), optax.adam(0.1), TraceEnum_ELBO())
    svi.run(jax.random.key(0), 60, COUNTS, progress_bar=False)


def explore(model: Callable[..., None]) -> None:
    mcmc = MCMC(NUTS(model), num_warmup=30, num_samples=30, progress_bar=False)
    mcmc.run(jax.random.key(0), COUNTS)


@pytest.mark.parametrize("infer", [fit, explore])
def test_a_range_that_is_too_short_is_noticed_and_one_that_is_long_enough_is_not(
    infer: Callable[[Any], None],
) -> None:
    with pytest.warns(mx.TruncationWarning, match="site 'n'.*widen it"):
        infer(abundance(40))
    with warnings.catch_warnings():
        warnings.simplefilter("error", mx.TruncationWarning)
        infer(abundance(120))
