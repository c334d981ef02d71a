"""SVI with a loss of the user's own: it is minimised, and what cannot be looked at for it is told."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.errors import ModelError
from marginax.infer import SVI, TraceEnum_ELBO
from marginax.infer.svi import SVIRunResult

KEY = jax.random.key(0)


class Parabola:
    """Of the parameter ``at``, with its minimum at 3; what guide and model state does not enter."""

    def loss(self, key: Any, params: Any, model: Any, guide: Any, *args: Any) -> Any:
        return (params["at"] - 3.0) ** 2


class Doubled:
    """Twice the bound."""

    def loss(self, key: Any, params: Any, model: Any, guide: Any, *args: Any) -> Any:
        return 2.0 * TraceEnum_ELBO().loss(key, params, model, guide, *args)


def with_more(*args: Any) -> None:
    """It has a latent site that the guide lacks."""
    mx.sample("left_out", dist.Normal(0.0, 1.0))


def one_parameter(*args: Any) -> None:
    mx.param("at", 0.0)


def fit(model: Any, guide: Any, loss: Any, steps: int = 2, **options: Any) -> SVIRunResult:
    return SVI(model, guide, optax.sgd(0.25), loss).run(KEY, steps, progress_bar=False, **options)


def test_a_loss_that_the_bound_does_not_fit_is_minimised_with_a_warning_that_names_the_cause():
    with pytest.warns(UserWarning, match="nobody looks.*'left_out'.*guide does not state it"):
        result = fit(with_more, one_parameter, Parabola())
    # Each step halves the distance to 3: 0, 1.5, 2.25.
    assert result.losses.tolist() == [9.0, 2.25]
    assert float(result.params["at"]) == 2.25


def test_the_warning_comes_once_and_points_at_the_call():
    batches = [jnp.zeros(2), jnp.zeros(3), jnp.zeros(4)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit(with_more, one_parameter, Parabola(), steps=3, batches=batches)
    assert [Path(one.filename).name for one in told] == [Path(__file__).name]


def test_a_loss_that_the_bound_fits_is_minimised_without_a_word():
    def model() -> None:
        mx.sample("x", dist.Normal(3.0, 1.0))

    def guide() -> None:
        mx.sample("x", dist.Delta(mx.param("at", 0.0)))

    result = fit(model, guide, Doubled())
    # Twice -log N(x | 3, 1) is (x - 3)^2 and a constant.
    assert float(result.params["at"]) == 2.25


def test_parameters_that_are_invalid_are_found_for_a_loss_of_ones_own_too():
    def model() -> None:
        probs = mx.param("probs", jnp.array([0.5, 0.4]))
        mx.sample("z", dist.Categorical(probs=probs))
        mx.sample("x", dist.Normal(0.0, 1.0), obs=0.0)

    def guide() -> None:
        mx.param("at", 0.0)

    with pytest.raises(ModelError, match="where SVI begins: site 'z'"):
        fit(model, guide, Parabola())
