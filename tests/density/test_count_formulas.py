"""Log probabilities of counts beside SciPy's; derivatives beside NumPyro's in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import Distribution
from scipy import special, stats

import marginax as mx
import marginax.distributions as dist
from marginax.density.count_formulas import COUNT_FORMULAS, count_formula
from marginax.density.log_prob import log_prob
from marginax.language.stack import statement


@dataclass(frozen=True)
class Case:
    make: Callable[..., Distribution]
    oracle: Callable[..., Any]
    parameters: tuple[Any, ...]
    values: Any


N = 1_000_000
NEAR = np.array([0, 1, 2, 5, 300, 46_000, 47_500, 50_000, 800_000, N])
LARGE = np.array([0, 1, 12, 900, 9e7, 99_990_000, 100_010_000, 3e8])
SIMPLEX = (np.array([0.25, 0.125, 0.625]),)
TRIPLES = np.array([[250_000, 125_100, 624_900], [0, 0, N], [3, 999_997, 0]])

CASES = {
    "Poisson": Case(dist.Poisson, stats.poisson.logpmf, (1e8,), LARGE),
    "small Poisson": Case(dist.Poisson, stats.poisson.logpmf, (3.3,), np.arange(30)),
    "BinomialProbs": Case(
        lambda p: dist.Binomial(N, p), lambda x, p: stats.binom.logpmf(x, N, p), (0.047,), NEAR
    ),
    "BinomialLogits": Case(
        lambda a: dist.Binomial(N, logits=a),
        lambda x, a: stats.binom.logpmf(x, N, special.expit(a)),
        (-3.0,),
        NEAR,
    ),
    "far BinomialLogits": Case(
        lambda a: dist.Binomial(N, logits=a),
        lambda x, a: -special.betaln(N - x + 1, x + 1) - np.log(N + 1) + x * a - N * np.exp(a),
        (-90.0,),
        np.array([0, 3, 1000]),
    ),
    "MultinomialProbs": Case(
        lambda p: dist.Multinomial(N, p),
        lambda x, p: stats.multinomial.logpmf(x, N, p),
        SIMPLEX,
        TRIPLES,
    ),
    "MultinomialLogits": Case(
        lambda a: dist.Multinomial(N, logits=a),
        lambda x, a: stats.multinomial.logpmf(x, N, special.softmax(a)),
        (np.array([1.0, 0.5, 2.0]),),
        TRIPLES,
    ),
    "NegativeBinomialProbs": Case(
        lambda r, p: dist.NegativeBinomialProbs(r, p),
        lambda x, r, p: stats.nbinom.logpmf(x, r, 1 - p),
        (5.5, 0.9999),
        NEAR,
    ),
    "NegativeBinomialLogits": Case(
        lambda r, a: dist.NegativeBinomialLogits(r, a),
        lambda x, r, a: stats.nbinom.logpmf(x, r, special.expit(-a)),
        (5e5, -2.0),
        NEAR,
    ),
    "NegativeBinomial2": Case(
        lambda m, r: dist.NegativeBinomial2(m, r),
        lambda x, m, r: stats.nbinom.logpmf(x, r, r / (m + r)),
        (5e4, 1e5),
        NEAR,
    ),
    "GammaPoisson": Case(
        dist.GammaPoisson,
        lambda x, r, b: stats.nbinom.logpmf(x, r, b / (1 + b)),
        (0.05, 0.01),
        NEAR,
    ),
    "BetaBinomial": Case(
        lambda a, b: dist.BetaBinomial(a, b, N),
        lambda x, a, b: stats.betabinom.logpmf(x, N, a, b),
        (2e4, 4e5),
        NEAR,
    ),
    "BetaNegativeBinomial": Case(
        lambda a, b: dist.BetaNegativeBinomial(a, b, 3.0),
        lambda x, a, b: stats.betanbinom.logpmf(x, 3.0, b, a),
        (2.0, 3.0),
        NEAR,
    ),
    "DirichletMultinomial": Case(
        lambda a: dist.DirichletMultinomial(a, N),
        lambda x, a: stats.dirichlet_multinomial.logpmf(x.astype(int), a, N),
        (np.array([2.5, 0.25, 5e4]),),
        TRIPLES,
    ),
}


def rounded(values: Any, dtype: str) -> Any:
    return np.asarray(np.asarray(values, dtype), float)


def value_and_derivatives(
    density: Callable[..., Any], case: Case, parameters: Any, dtype: str
) -> tuple[Any, Any]:
    """The log probability of each value, and its derivative by each parameter."""

    def one(value: Any, *given: Any) -> Any:
        return density(case.make(*given), value)

    places = tuple(range(1, len(parameters) + 1))
    both = jax.vmap(jax.value_and_grad(one, places), in_axes=(0, *(None for _ in parameters)))
    arrays = [jnp.asarray(p, dtype) for p in parameters]
    found = jax.jit(both)(jnp.asarray(case.values, dtype), *arrays)
    return jax.tree.map(lambda leaf: np.asarray(leaf, float), found)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_counts_of_any_size_are_exact_to_the_rounding_of_the_parameters(
    case: Case, dtype: str
) -> None:
    parameters = [rounded(p, dtype) for p in case.parameters]
    values = rounded(case.values, dtype)
    with jax.enable_x64(dtype == "float64"):
        found, by = value_and_derivatives(
            lambda fn, value: COUNT_FORMULAS[type(fn)](fn, value), case, parameters, dtype
        )
    with jax.enable_x64(True):
        _, by_wanted = value_and_derivatives(
            lambda fn, value: fn.log_prob(value), case, parameters, "float64"
        )
    wanted = np.stack([case.oracle(value, *parameters) for value in values])
    # What a change of the parameters by one rounding does, beside the rounding of the result. SciPy itself
    # is exact to some 1e-9 only, for it subtracts large numbers as well.
    effects = [
        np.abs(d * p).reshape(len(values), -1).sum(1)
        for d, p in zip(by_wanted, parameters, strict=True)
    ]
    unit = np.finfo(dtype).eps
    allowed = unit * (4 * np.abs(wanted) + 16 + 2 * sum(effects)) + 1e-14 * values.max() + 1e-9
    assert (np.abs(found - wanted) <= allowed).all(), (found - wanted) / allowed
    for mine, theirs, p in zip(by, by_wanted, parameters, strict=True):
        size = np.abs(theirs).max() + values.max() ** 0.5 / np.abs(p)
        error = np.abs(mine - theirs)
        np.testing.assert_array_less(error, 32 * unit * size + 1e-5 * np.abs(theirs) + 1e-7)


def test_short_formulas_serve_where_counts_are_known_to_be_small() -> None:
    poisson = dist.Poisson(3.0)
    assert count_formula(poisson, lambda: 50) is None
    assert count_formula(poisson, lambda: 1e6) is not None
    assert count_formula(poisson, lambda: None) is not None
    assert count_formula(dist.Binomial(10**6, 0.5), lambda: 5) is not None
    assert count_formula(dist.Binomial(10, 0.5), lambda: 5) is None
    assert count_formula(dist.Normal(0.0, 1.0), lambda: None) is None


@pytest.mark.parametrize("jit", [False, True])
def test_large_counts_in_a_model_have_the_right_posterior(jit: bool) -> None:
    rates = np.array([1e7, 1e7 + 12_000], np.float32)

    def model(x: Any) -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Poisson(jnp.asarray(rates)[z]), obs=x)

    count = 10_005_000.0
    query = mx.marginalize(model).log_density
    found = (jax.jit(query) if jit else query)({}, count)
    each = np.log(0.5) + stats.poisson.logpmf(count, rates.astype(float))
    np.testing.assert_allclose(found, np.asarray(special.logsumexp(each)), rtol=1e-6)


def test_events_of_counts_are_summed_and_masks_obeyed() -> None:
    vector = dist.Multinomial(10**6, np.array([0.25, 0.75])).expand([2]).to_event(1)
    counts = np.array([[250_000, 750_000], [260_000, 740_000]])
    wanted = np.asarray(stats.multinomial.logpmf(counts, 10**6, [0.25, 0.75]))
    np.testing.assert_allclose(
        log_prob(statement("sample", "x", vector, value=counts, is_observed=True)),
        wanted.sum(),
        rtol=1e-6,
    )
    masked = dist.Poisson(1e6).expand([2]).mask(np.array([True, False]))
    found = log_prob(
        statement("sample", "x", masked, value=np.array([10**6, -1]), is_observed=True)
    )
    wanted = np.array([stats.poisson.logpmf(10**6, 1e6), 0.0])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
