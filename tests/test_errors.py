"""What an error says in words, its attributes say for programs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.errors import NotKnownError

DATA = np.array([0.0, 1.0, 4.0])


def mixture(data: Any) -> None:
    means = mx.sample("means", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    with mx.plate("rows", 3):
        z = mx.sample("z", dist.Categorical(jnp.array([0.5, 0.5])), infer={"enumerate": "parallel"})
        mx.sample("x", dist.Normal(means[z], 1.0), obs=data)


def with_param(init: Any) -> None:
    mx.sample("x", dist.Normal(mx.param("w", init, event_dim=-1), 1.0), obs=0.0)


def plate_of(size: Any) -> None:
    with mx.plate("rows", size):
        mx.sample("x", dist.Normal(0.0, 1.0), obs=DATA)


def ask(params: dict[str, Any], data: Any = DATA, **kwargs: Any) -> Callable[[], Any]:
    return lambda: mx.marginalize(mixture, **kwargs).log_density(params, data)


WELL = {"means": jnp.zeros(2)}
CASES: dict[str, tuple[Callable[[], Any], str, str | None, str, str]] = {
    "a site without a value": (ask({}), "site", "means", "needs a value of shape (2,)", ""),
    "the wrong shape": (
        ask({"means": jnp.zeros(3)}),
        "site",
        "means",
        "has shape (3,), but the site has shape (2,)",
        "Give it that shape",
    ),
    "NaN in the data": (
        ask(WELL, np.array([0.0, np.nan, 1.0])),
        "site",
        "x",
        "NaN in 1 of 3 places",
        "obs_mask=",
    ),
    "no memory": (ask(WELL, memory_limit=1), "site", None, "", "memory_limit="),
    "a param": (
        lambda: mx.marginalize(with_param).log_density({}, 0.0),
        "param",
        "w",
        "event_dim must be an integer >= 0",
        "",
    ),
    "a plate": (
        lambda: mx.marginalize(plate_of).log_density({}, 0),
        "plate",
        "rows",
        "its size is 0",
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_error_has_the_site_the_cause_and_the_advice_apart(case: str) -> None:
    call, kind, site, cause, advice = CASES[case]
    with pytest.raises(mx.ModelError) as caught:
        call()
    error = caught.value
    assert (error.kind, error.site) == (kind, site)
    assert cause in error.cause
    assert advice in error.advice
    named = "" if site is None else f"{kind} '{site}': "
    assert str(error).startswith(f"{named}{error.cause}")
    assert str(error).endswith(error.advice)


@pytest.mark.parametrize("copied", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
@pytest.mark.parametrize("kind", [mx.ModelError, NotKnownError])
def test_an_error_survives_being_sent_to_another_process(
    kind: type[mx.ModelError], copied: Callable[[Any], Any]
) -> None:
    error = kind("it is odd.", site="x", advice="Make it even.").found("where it begins")
    other = copied(error)
    assert type(other) is kind
    assert str(other) == "where it begins: site 'x': it is odd. Make it even."
    assert (other.cause, other.site, other.advice) == ("it is odd.", "x", "Make it even.")
