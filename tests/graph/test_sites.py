"""Sites: what one abstract run of a model finds out, and which mistakes it catches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.errors import ModelError
from marginax.graph.sites import collect_sites

HALF = jnp.array([0.5, 0.5])


def mixture(data: Any, components: int = 2) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(components)))
    spread = mx.param("spread", 1.0, constraint=dist.constraints.positive)
    with mx.plate("components", components):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(data)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.deterministic("mean", locs[z])
        mx.sample("obs", dist.Normal(locs[z], spread), obs=data)


def test_every_statement_is_recorded_in_order() -> None:
    sites = collect_sites(mixture, jnp.zeros(5))
    assert {name: (site.kind, site.shape) for name, site in sites.items()} == {
        "weights": ("sample", (2,)),
        "spread": ("param", ()),
        "components": ("plate", (2,)),
        "locs": ("sample", (2,)),
        "data": ("plate", (5,)),
        "z": ("sample", (5,)),
        "mean": ("deterministic", (5,)),
        "obs": ("sample", (5,)),
    }
    assert sites["z"].dtype == jnp.int32
    assert [f.name for f in sites["obs"].plates] == ["data"]


def test_latent_observed_and_free() -> None:
    sites = collect_sites(mixture, jnp.zeros(5))
    assert {n for n, s in sites.items() if s.is_free} == {"weights", "locs", "z"}
    assert {n for n, s in sites.items() if s.is_observed} == {"obs"}
    given = mx.handlers.condition(
        mx.handlers.substitute(mixture, data={"locs": jnp.zeros(2)}), data={"z": jnp.zeros(5, int)}
    )
    sites = collect_sites(given, jnp.zeros(5))
    assert {n for n, s in sites.items() if s.is_free} == {"weights"}
    assert sites["z"].is_observed
    assert sites["z"].support is None
    assert not sites["locs"].is_observed


def test_nothing_is_computed() -> None:
    """A trillion elements are no more work than one."""

    def model() -> None:
        with mx.plate("huge", 10**12):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(z + 0.0, 1.0))

    assert collect_sites(model)["x"].shape == (10**12,)


def test_python_arguments_stay_what_they_are() -> None:
    def model(flag: bool, names: list[str]) -> None:
        if flag:
            for name in names:
                mx.sample(name, dist.Bernoulli(0.5))

    assert list(collect_sites(model, True, ["a", "b"])) == ["a", "b"]
    assert list(collect_sites(model, flag=False, names=["a"])) == []


def test_plates_are_listed_outermost_dimension_first() -> None:
    def model() -> None:
        with mx.plate("inner", 2, dim=-1), mx.plate("outer", 3, dim=-3):
            mx.sample("z", dist.Bernoulli(0.5))

    site = collect_sites(model)["z"]
    assert [(f.name, f.dim, f.size) for f in site.plates] == [("outer", -3, 3), ("inner", -1, 2)]
    assert site.shape == (3, 1, 2)


class OneHot(dist.Distribution):
    """A one-hot vector, to have a support whose values are vectors."""

    arg_constraints = {"probs": dist.constraints.simplex}  # noqa: RUF012
    support: Any = dist.constraints.multinomial(1)
    has_enumerate_support = True

    def __init__(self, probs: Any) -> None:
        self.probs = probs
        super().__init__(jnp.shape(probs)[:-1], jnp.shape(probs)[-1:])

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        draw = jax.random.categorical(
            key, jnp.log(self.probs), shape=sample_shape + self.batch_shape
        )
        return jax.nn.one_hot(draw, self.probs.shape[-1])

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return jnp.log(jnp.sum(self.probs * value, -1))

    def enumerate_support(self, expand: bool = True) -> Any:
        count = self.event_shape[0]
        return jnp.eye(count).reshape(count, *(1,) * len(self.batch_shape), count)


SUPPORTS: dict[str, tuple[Callable[[], Any], Any]] = {
    "bernoulli": (lambda: dist.Bernoulli(0.3), [0, 1]),
    "bernoulli logits": (lambda: dist.Bernoulli(logits=0.3), [0, 1]),
    "categorical": (lambda: dist.Categorical(jnp.ones(3) / 3), [0, 1, 2]),
    "categorical logits": (lambda: dist.Categorical(logits=jnp.zeros(3)), [0, 1, 2]),
    "one category": (lambda: dist.Categorical(jnp.ones(1)), [0]),
    "uniform": (lambda: dist.DiscreteUniform(-1, 2), [-1, 0, 1, 2]),
    "binomial": (lambda: dist.Binomial(2, 0.5), [0, 1, 2]),
    "binomial of an array": (lambda: dist.Binomial(np.array([2, 2]), 0.5), [0, 1, 2]),
    "one hot": (lambda: OneHot(jnp.ones(3) / 3), np.eye(3)),
    "masked": (lambda: dist.Bernoulli(0.3).mask(jnp.array(False)), [0, 1]),
    "expanded": (lambda: dist.Bernoulli(0.3).expand([2]), [0, 1]),
}


@pytest.mark.parametrize("name", SUPPORTS)
@pytest.mark.parametrize("plates", [(2,), (3, 2)])
def test_the_support_is_one_row_for_each_value_whatever_the_plates(
    name: str, plates: tuple[int, ...]
) -> None:
    make, expected = SUPPORTS[name]

    def model() -> None:
        with mx.plate_stack("p", plates):
            mx.sample("z", make())

    site = collect_sites(model)["z"]
    assert site.support is not None
    np.testing.assert_array_equal(site.support, expected)
    assert site.shape == (*plates, *np.shape(expected)[1:])
    assert site.event_dim == np.ndim(expected) - 1


def test_a_support_may_come_from_data_that_are_known() -> None:
    def model(trials: Any) -> None:
        mx.sample("z", dist.Binomial(trials, 0.5))

    site = collect_sites(model, np.array(4))["z"]
    assert site.support is not None
    assert len(site.support) == 5


NOT_ENUMERATED: dict[str, tuple[Callable[[], Any], str]] = {
    "poisson": (lambda: mx.sample("z", dist.Poisson(2.0)), "Poisson has infinitely many values"),
    "geometric": (
        lambda: mx.sample("z", dist.Geometric(0.5)),
        "Geometric has infinitely many values",
    ),
    "advice": (
        lambda: mx.sample("z", dist.Bernoulli(0.5), infer={"enumerate": None}),
        "its site says infer={'enumerate': None}",
    ),
    "events": (
        lambda: mx.sample("z", dist.Bernoulli(0.5 * jnp.ones(13)).to_event(1)),
        "its 13 components have 2**13 values together, more than 4,096",
    ),
    "a bound that is not known": (
        lambda: mx.sample("z", dist.Binomial(mx.sample("n", dist.Bernoulli(0.5)), 0.5)),
        "the support of Binomial depends on a value that is not known while tracing",
    ),
}


@pytest.mark.parametrize("name", NOT_ENUMERATED)
def test_what_is_not_enumerated_says_why(name: str) -> None:
    fn, reason = NOT_ENUMERATED[name]
    site = collect_sites(fn)["z"]
    assert site.is_free
    assert site.is_discrete
    assert site.support is None
    assert site.not_enumerated_because.startswith(reason)


def test_advice_to_enumerate_is_taken() -> None:
    for advice in ("parallel", "sequential"):
        sites = collect_sites(
            lambda a=advice: mx.sample("z", dist.Bernoulli(0.5), infer={"enumerate": a})
        )
        assert sites["z"].support is not None


def test_a_continuous_site_is_not_discrete_and_has_a_constraint() -> None:
    site = collect_sites(lambda: mx.sample("s", dist.HalfNormal(1.0)))["s"]
    assert not site.is_discrete
    assert site.constraint is dist.constraints.positive


def test_a_mask_is_seen_through_other_wrappers() -> None:
    def model() -> None:
        with mx.plate("p", 3):
            with mx.handlers.mask(mask=jnp.array([True, False, True])):
                mx.sample("inside", dist.Bernoulli(0.5))
            mx.sample("without", dist.Bernoulli(0.5))

    sites = collect_sites(model)
    assert sites["inside"].is_masked
    assert not sites["without"].is_masked
    assert sites["inside"].distribution == "Bernoulli"


# --- mistakes --------------------------------------------------------------------------------------


def test_elements_that_belong_to_no_plate_are_refused() -> None:
    def model() -> None:
        with mx.plate("p", 4):
            mx.sample("z", dist.Bernoulli(0.5 * jnp.ones((3, 4))))

    with pytest.raises(ModelError, match=r"site 'z'.*batch shape \(3, 4\).*dimension -2 of size 3"):
        collect_sites(model)


@pytest.mark.parametrize("parameter", ["probs", "logits"])
def test_no_categories_are_refused(parameter: str) -> None:
    def categorical() -> Any:
        none = jnp.ones(0)
        return dist.Categorical(none) if parameter == "probs" else dist.Categorical(logits=none)

    with pytest.raises(ModelError, match=r"site 'z'.*empty.*components zero"):
        collect_sites(lambda: mx.sample("z", categorical()))


def test_a_wrong_parameter_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(ModelError, match=r"site 'z': the parameter 'probs' of Bernoulli is 1.5"):
        collect_sites(lambda p: mx.sample("z", dist.Bernoulli(p)), 1.5)


NEEDS_A_NUMBER: dict[str, Callable[[Any], Any]] = {
    "if": lambda z: 1.0 if z else 0.0,
    "if on a comparison": lambda z: 1.0 if z == 1 else 0.0,
    "and": lambda z: (z > 0) and (z < 2),
    "int()": lambda z: int(z),
    "float()": lambda z: float(z),
    "math": lambda z: math.exp(z),
    "a shape": lambda z: jnp.zeros(z + 1).sum(),
    "arange": lambda z: jnp.arange(z).sum(),
    "a loop": lambda z: sum(1 for _ in range(z)),
    "a slice": lambda z: jnp.arange(3.0)[:z].sum(),
    "a boolean mask": lambda z: jnp.arange(2.0)[z == jnp.arange(2)].sum(),
    "a NumPy table": lambda z: np.array([1.0, 2.0])[z],
    "a NumPy function": lambda z: np.sqrt(z),
    "a list": lambda z: [1.0, 2.0][z],
    "nonzero": lambda z: jnp.nonzero(jnp.atleast_1d(z))[0].sum(),
    "item": lambda z: z.item(),
}


@pytest.mark.parametrize("name", NEEDS_A_NUMBER)
def test_a_model_that_needs_the_number_behind_a_variable_is_told_which(name: str) -> None:
    def model() -> None:
        mx.sample("innocent", dist.Bernoulli(0.5))
        z = mx.sample("guilty", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(jnp.asarray(NEEDS_A_NUMBER[name](z), float), 1.0))

    with pytest.raises(ModelError, match=r"site 'guilty'.*one number.*summed out.*jnp.where") as e:
        collect_sites(model)
    assert e.value.__cause__ is not None  # whose traceback points at the line of the model


def test_a_continuous_variable_is_told_too() -> None:
    def model() -> None:
        x = mx.sample("x", dist.Normal(0.0, 1.0))
        mx.sample("y", dist.Normal(1.0 if x > 0 else 0.0, 1.0))

    with pytest.raises(ModelError, match=r"site 'x'.*one number.*but the variable is traced"):
        collect_sites(model)


def test_it_is_told_inside_of_jit_too() -> None:
    def model(data: Any) -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(1.0 if z else 0.0, 1.0), obs=data)

    with pytest.raises(ModelError, match="site 'z'"):
        jax.jit(lambda data: [collect_sites(model, data), data][1])(jnp.float32(0.0))


def test_a_mistake_that_is_no_variable_s_fault_stays_what_it_is() -> None:
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(jnp.sin(z, z, z), 1.0))  # pyright: ignore

    with pytest.raises(TypeError) as error:
        collect_sites(model)
    assert not isinstance(error.value, ModelError)
