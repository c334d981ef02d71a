"""`config_enumerate` says for a whole model what a site can say for itself."""

from typing import Any

import numpy as np
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.infer import config_enumerate


def model() -> None:
    mx.sample("a", dist.Bernoulli(0.5))
    mx.sample("b", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})
    mx.sample("seen", dist.Bernoulli(0.5), obs=1)
    mx.sample("x", dist.Normal(0.0, 1.0))


def options(fn: Any) -> Any:
    trace = mx.handlers.trace(mx.handlers.seed(fn, rng_seed=0)).get_trace()
    return {name: site["infer"] for name, site in trace.items()}


def test_discrete_latent_sites_are_configured_unless_they_say_it_themselves():
    assert options(config_enumerate(model)) == {
        "a": {"enumerate": "parallel"},
        "b": {"enumerate": "sequential"},
        "seen": {},
        "x": {},
    }


@pytest.mark.parametrize("default", ["parallel", "sequential", None])
def test_it_is_a_decorator_with_an_option(default: str | None):
    decorated = config_enumerate(default=default)(model)
    assert options(decorated)["a"] == {"enumerate": default}
    assert options(config_enumerate(model, default))["a"] == {"enumerate": default}


def test_summing_out_is_what_happens_without_it_as_well():
    params = {"x": 0.3}
    value = mx.marginalize(model).log_density(params)
    for default in ("parallel", "sequential"):
        configured = mx.marginalize(config_enumerate(model, default))
        np.testing.assert_array_equal(configured.log_density(params), value)
        assert list(configured.posterior(params)) == ["a", "b"]


def test_none_leaves_the_sites_alone():
    configured = mx.marginalize(config_enumerate(model, default=None))
    with pytest.raises(mx.ModelError, match="'a'.*enumerate"):
        configured.log_density({"x": 0.3})
    assert list(configured.posterior({"x": 0.3, "a": 1})) == ["b"]


def test_an_unknown_default_is_refused():
    with pytest.raises(ValueError, match="config_enumerate.*'serial'"):
        config_enumerate(model, default="serial")
