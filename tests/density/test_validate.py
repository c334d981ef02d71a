"""Numbers that are known while a model is traced are checked, with the site's name."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.density.validate import check_value, describe, is_fixed, satisfies
from marginax.errors import ModelError
from marginax.graph.sites import collect_sites
from marginax.jaxpr.concrete import is_concrete

C = dist.constraints


def observe(fn: Any, value: Any) -> None:
    """Check a value that is observed at the site 'x'."""
    collect_sites(lambda: mx.sample("x", fn(), obs=value))


VALID: list[tuple[Any, Any]] = [
    (lambda: dist.Normal(0.0, 1.0), 1e30),
    (lambda: dist.Normal(0.0, 1.0), np.float64(3)),
    (lambda: dist.Normal(np.zeros(3), 1.0), np.zeros(3)),
    (lambda: dist.LogNormal(0.0, 1.0), 0.1),
    (lambda: dist.Exponential(2.0), 0.5),
    (lambda: dist.Bernoulli(0.5), np.array([0, 1])),
    (lambda: dist.Bernoulli(0.5), True),
    (lambda: dist.Categorical(np.ones(3) / 3), 2),
    (lambda: dist.Poisson(1.0), 7),
    (lambda: dist.Beta(1.0, 1.0), 1.0),
    (lambda: dist.Uniform(0.0, 2.0), 2.0),
    (lambda: dist.Dirichlet(np.ones(3)), np.array([0.2, 0.3, 0.5])),
    (lambda: dist.Dirichlet(np.ones(1000)), np.full(1000, 0.001, np.float32)),
    (lambda: dist.MultivariateNormal(np.zeros(2), np.eye(2)), np.zeros(2)),
    (lambda: dist.Normal(0.0, 1.0).expand([3]).to_event(1), np.zeros(3)),
    (lambda: dist.Multinomial(3, np.ones(2) / 2), np.array([1, 2])),
]


@pytest.mark.parametrize(("fn", "value"), VALID)
def test_what_a_distribution_may_give_may_be_observed(fn: Any, value: Any) -> None:
    observe(fn, value)


INVALID: list[tuple[Any, Any, str]] = [
    (lambda: dist.Normal(0.0, 1.0), np.inf, "a finite real number"),
    (lambda: dist.LogNormal(0.0, 1.0), -0.1, "positive"),
    (lambda: dist.Exponential(2.0), np.array([1.0, -1.0]), "positive"),
    (lambda: dist.Bernoulli(0.5), 2, "0 or 1"),
    (lambda: dist.Bernoulli(0.5), 0.5, "0 or 1"),
    (lambda: dist.Categorical(np.ones(3) / 3), 3, r"lower_bound=0, upper_bound=2"),
    (lambda: dist.Categorical(np.ones(3) / 3), -1, r"lower_bound=0, upper_bound=2"),
    (lambda: dist.Beta(1.0, 1.0), 1.5, "between 0 and 1"),
    (lambda: dist.Uniform(0.0, 2.0), 3.0, "upper_bound=2"),
    (lambda: dist.Poisson(1.0), -1, "whole number, zero or positive"),
    (lambda: dist.Poisson(1.0), 1.5, "whole number, zero or positive"),
    (
        lambda: dist.Dirichlet(np.ones(3)),
        np.array([0.2, 0.3, 0.6]),
        "probabilities that sum to one",
    ),
    (lambda: dist.Dirichlet(np.ones(2)), np.array([-0.5, 1.5]), "probabilities that sum to one"),
    (lambda: dist.Normal(0.0, 1.0).expand([2]).to_event(1), np.array([0.0, np.inf]), "finite real"),
    (lambda: dist.LogNormal(0.0, 1.0).expand([2]).to_event(1), np.array([1.0, -1.0]), "positive"),
]


@pytest.mark.parametrize(("fn", "value", "words"), INVALID)
def test_what_it_cannot_give_is_refused_in_words(fn: Any, value: Any, words: str) -> None:
    with pytest.raises(ModelError, match=rf"(?s)site 'x': the observed value .* outside.*{words}"):
        observe(fn, value)


def test_nan_is_counted_and_found() -> None:
    data = np.zeros((3, 2))
    data[1, 1] = data[2, 0] = np.nan
    with pytest.raises(
        ModelError, match=r"site 'x'.*NaN in 2 of 6 places, the first at index 1, 1"
    ):
        observe(lambda: dist.Normal(0.0, 1.0), data)
    with pytest.raises(ModelError, match=r"obs_mask=~jnp.isnan\(data\)"):
        observe(lambda: dist.Normal(0.0, 1.0), np.nan)


def test_a_masked_site_may_hold_anything_where_it_is_masked() -> None:
    data = np.array([0.0, np.nan])
    observe(lambda: dist.Normal(0.0, 1.0).mask(~np.isnan(data)), data)


def test_traced_data_pass_unchecked() -> None:
    jax.eval_shape(lambda x: observe(lambda: dist.Exponential(1.0), x), jnp.float32(-1.0))


PARAMETERS: list[tuple[Any, str]] = [
    (
        lambda: dist.Normal(0.0, -1.0),
        "the parameter 'scale' of Normal is -1.0, which is not positive",
    ),
    (
        lambda: dist.Normal(0.0, np.array([1.0, 0.0])),
        "the parameter 'scale' of Normal is .*not positive",
    ),
    (lambda: dist.Normal(np.nan, 1.0), "the parameter 'loc' of Normal has NaN"),
    (lambda: dist.Bernoulli(1.2), "the parameter 'probs' of Bernoulli is 1.2, .* between 0 and 1"),
    (
        lambda: dist.Categorical(np.array([0.5, 0.6])),
        "the parameter 'probs' of Categorical is .*sum to one",
    ),
    (lambda: dist.Categorical(np.zeros((2, 0))), "the parameter 'probs' of Categorical is empty"),
    (
        lambda: dist.Dirichlet(np.array([1.0, 0.0])),
        "the parameter 'concentration' of Dirichlet is .*positive",
    ),
    (lambda: dist.Poisson(-1.0), "the parameter 'rate' of Poisson is -1.0"),
    (lambda: dist.Binomial(-1, 0.5), "the parameter 'total_count' of Binomial is -1"),
]


@pytest.mark.parametrize(("fn", "words"), PARAMETERS)
def test_a_parameter_that_makes_no_sense_is_refused(fn: Any, words: str) -> None:
    with pytest.raises(ModelError, match=rf"(?s)site 'x': {words}"):
        collect_sites(lambda: mx.sample("x", fn()))

    def inside() -> None:
        with mx.plate("outer", 4, dim=-3):
            mx.sample("x", fn().mask(True))

    with pytest.raises(ModelError, match=rf"(?s)site 'x': {words}"):
        collect_sites(inside)


def test_a_component_of_a_mixture_is_checked_too() -> None:
    def model() -> None:
        weights = dist.Categorical(np.array([0.5, 0.5]))
        mx.sample("x", dist.MixtureSameFamily(weights, dist.Normal(np.zeros(2), -1.0)))

    with pytest.raises(ModelError, match="site 'x': the parameter 'scale' of Normal is"):
        collect_sites(model)


def test_numpyro_s_own_checks_are_left_as_they_were() -> None:
    for before in (True, False):
        with numpyro.validation_enabled(before):
            collect_sites(lambda: mx.sample("x", dist.Normal(0.0, 1.0)))
            assert dist.Distribution._validate_args is before


def test_a_parameter_s_value_is_checked_against_its_constraint() -> None:
    check_value("s", C.positive, 1.0, "its value")
    check_value("s", None, -1.0, "its value")
    check_value("s", C.dependent, -1.0, "its value")
    with pytest.raises(ModelError, match=r"site 's': its value is -1.0, which is not positive"):
        check_value("s", C.positive, -1.0, "its value")
    with pytest.raises(ModelError, match=r"site 's': its value has NaN"):
        check_value("s", C.positive, np.array([1.0, np.nan]), "its value")
    with pytest.raises(ModelError, match=r"0 or 1"):
        check_value("z", C.boolean, 3, "its value")


def test_large_values_are_shown_shortened() -> None:
    with pytest.raises(ModelError) as error:
        check_value("s", C.positive, -np.ones(10_000), "its value")
    assert len(str(error.value)) < 200


def test_a_simplex_of_many_float32_weights_is_one() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(100_000)).astype(np.float32)
    assert satisfies(C.simplex, weights)
    assert not satisfies(C.simplex, weights * 1.01)
    assert not satisfies(C.simplex, np.zeros((3, 0)))


def test_what_is_known_and_what_is_not() -> None:
    def traced(x: Any) -> Any:
        assert not is_concrete({"a": [x]})
        assert not is_fixed(C.greater_than(x))
        return x

    jax.eval_shape(traced, 1.0)
    assert is_concrete({"a": [1.0, None, np.zeros(2)]})
    assert is_fixed(C.interval(0.0, 1.0))
    assert not is_fixed(C.dependent)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (C.real, "a finite real number"),
        (C.positive, "positive"),
        (C.independent(C.positive, 1), "positive"),
        (C.real_vector, "a vector of finite real numbers"),
        (C.interval(0.0, 2.0), "in Interval(lower_bound=0.0, upper_bound=2.0)"),
        (C.greater_than(3.0), "in GreaterThan(lower_bound=3.0)"),
        (C.lower_cholesky, "a lower triangular matrix with a positive diagonal"),
    ],
    ids=str,
)
def test_a_constraint_in_words(constraint: Any, words: str) -> None:
    assert describe(constraint) == words
