"""Every distribution at every end of its support and of its parameters' ranges: values and derivatives.

The oracle of a row is SciPy or the textbook's formula, and, for derivatives, finite differences of it,
from the one side where there is only one. The rules at an end, where the oracle has no finite answer:

- where a value is impossible (-inf) every derivative is exactly zero;
- where a density, or a derivative, is infinite or jumps, a derivative is any number, but not NaN;
- a part of a mixture gives no derivative where its density, or its weight, is exactly zero: its logarithm
  has none;
- where the support is open (NumPyro's "positive" leaves out zero) the end itself is impossible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import marginax.distributions as dist
from marginax.density.log_prob import log_prob
from marginax.density.validate import numpyro_checks
from marginax.language.stack import statement

INF = np.inf
SINGLE = 2e-5  # relative, of a value in single precision: a hundred roundings and more


@dataclass(frozen=True)
class Row:
    """One distribution at several places."""

    make: Callable[..., Any]
    """From its parameters, each with an axis for the places."""
    oracle: Callable[..., Any]
    """From the parameters and the value of one place to the log density."""
    places: list[tuple[Any, ...]]
    """The parameters, then the value. Only those of floating type have a derivative."""
    weights: int | None = None
    """The argument that holds the weights of a sum."""


def table(*rows: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return list(rows)


def each(parameters: list[tuple[Any, ...]], values: list[Any]) -> list[tuple[Any, ...]]:
    return [(*p, v) for p in parameters for v in values]


def within(oracle: Callable[..., Any], low: float = 0.0, high: float = INF) -> Callable[..., Any]:
    """The oracle in an open interval, and nothing outside of it."""
    return lambda *args: oracle(*args) if low < args[-1] < high else -INF


def on_counts(oracle: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: oracle(*args) if args[-1] >= 0 and args[-1] == int(args[-1]) else -INF


def xlogy(x: Any, y: Any) -> Any:
    return special.xlogy(x, y)


def log(x: float) -> float:
    return math.log(x) if x > 0 else -INF


def categorical(probs: Any, value: Any) -> float:
    """Of weights, which are divided by their sum."""
    return log(float(probs[int(value)] / sum(probs))) if 0 <= value < len(probs) else -INF


def log_softmax(logits: Any) -> Any:
    return logits - special.logsumexp(logits)


def multinomial(log_probs: Any, value: Any) -> float:
    if (value < 0).any():
        return -INF
    terms = [k * p if k else 0.0 for k, p in zip(value, log_probs, strict=True)]
    return special.gammaln(value.sum() + 1) - special.gammaln(value + 1).sum() + sum(terms)


def beta(a: float, b: float, x: float) -> float:
    if not 0 <= x <= 1:
        return -INF
    return float(xlogy_signed(a - 1, x) + xlogy_signed(b - 1, 1 - x) - special.betaln(a, b))


def xlogy_signed(a: float, x: float) -> float:
    """Of ``a * log(x)`` the limit at zero."""
    if x > 0:
        return a * math.log(x)
    return -INF if a > 0 else INF if a < 0 else 0.0


def dirichlet(a: Any, x: Any) -> float:
    if (x < 0).any():
        return -INF
    terms = [xlogy_signed(a_i - 1, x_i) for a_i, x_i in zip(a, x, strict=True)]
    total = -INF if -INF in terms else sum(terms)
    return total + special.gammaln(a.sum()) - special.gammaln(a).sum()


def kumaraswamy(a: float, b: float, x: float) -> float:
    if not 0 <= x <= 1:
        return -INF
    return math.log(a * b) + xlogy_signed(a - 1, x) + xlogy_signed(b - 1, -math.expm1(a * log(x)))


def power_law(alpha: float, low: float, high: float, x: float) -> float:
    if not low <= x <= high:
        return -INF
    p = alpha + 1
    total = math.log(high / low) if p == 0 else (high**p - low**p) / p
    return xlogy_signed(alpha, x) - math.log(total)


def negative_binomial(n: float, p: float, k: float) -> float:
    """By the probability of what is counted."""
    ways = special.gammaln(n + k) - special.gammaln(n) - special.gammaln(k + 1)
    return ways + n * log(1 - p) + (k * log(p) if k else 0.0)


def logaddexp(*terms: Any) -> Any:
    return special.logsumexp(terms)


def hurdle(gate: float, base: Any, at_zero: Any, x: float) -> Any:
    if x == 0:
        return log(gate)
    return log(1 - gate) + base - math.log1p(-math.exp(at_zero))


def polya_gamma(x: float) -> float:
    if not 0 < x <= 2.5:
        return -INF
    n = np.arange(7)
    terms = (-1.0) ** n * (2 * n + 1) * np.exp(-((2 * n + 1) ** 2 - 1) / (8 * x))
    return math.log(terms.sum()) - 1 / (8 * x) - 1.5 * math.log(x) - 0.5 * math.log(2 * math.pi)


def relaxed(t: float, logit: float, y: float) -> float:
    if not 0 <= y <= 1:
        return -INF
    a = math.exp(logit)
    top = math.log(t * a) + xlogy_signed(t - 1, y) + xlogy_signed(t - 1, 1 - y)
    return top - 2 * math.log(a * (1 - y) ** t + y**t)


def lkj_cholesky(eta: float, x: Any) -> float:
    """Of two dimensions: (1 - r**2) ** (eta - 1), and the Jacobian of r is one."""
    r = x[1, 0]
    return (2 * eta - 2) * math.log(x[1, 1]) - special.betaln(0.5, eta) if abs(r) < 1 else -INF


POSITIVE = [-1.0, 0.0, 0.02, 0.7, 30.0]
COUNTS = [-1, 0, 1, 4]
UNIT = [-0.5, 0.0, 0.3, 1.0, 1.5]
HALVES = np.array([0.5, 0.5])
GATES = [0.0, 0.3, 1.0]
LOGITS = [-INF, -40.0, 0.3, 40.0, INF]


def expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))


ROWS: dict[str, Row] = {
    "BernoulliProbs": Row(
        dist.Bernoulli,
        lambda p, k: stats.bernoulli.logpmf(k, p),
        each([(p,) for p in GATES], [-1, 0, 1, 2]),
    ),
    "BernoulliLogits": Row(
        lambda logits: dist.Bernoulli(logits=logits),
        lambda s, k: special.log_expit(s if k else -s) if k in (0, 1) else -INF,
        each([(s,) for s in LOGITS], [-1, 0, 1, 2]),
    ),
    "Beta": Row(
        dist.Beta,
        beta,
        each([(1.0, 1.0), (1.0, 2.5), (2.5, 1.0), (2.0, 3.0), (0.5, 2.0), (1.0, 10.0)], UNIT),
    ),
    "BetaProportion": Row(
        dist.BetaProportion,
        lambda m, c, x: beta(m * c, (1 - m) * c, x),
        each([(0.5, 2.0), (0.25, 4.0), (0.4, 5.0)], UNIT),
    ),
    "BetaBinomial": Row(
        lambda a, b: dist.BetaBinomial(a, b, 3),
        lambda a, b, k: stats.betabinom.logpmf(k, 3, a, b),
        each([(1.0, 1.0), (0.4, 2.0)], [-1, 0, 2, 3, 4]),
    ),
    "BetaNegativeBinomial": Row(
        dist.BetaNegativeBinomial,
        on_counts(
            lambda a, b, n, k: (
                special.gammaln(n + k)
                - special.gammaln(n)
                - special.gammaln(k + 1)
                + special.betaln(a + k, b + n)
                - special.betaln(a, b)
            )
        ),
        each([(1.0, 1.0, 2.0), (0.4, 2.0, 0.5)], COUNTS),
    ),
    "BinomialProbs": Row(
        lambda p: dist.Binomial(3, p),
        lambda p, k: stats.binom.logpmf(k, 3, p),
        each([(p,) for p in GATES], [-1, 0, 2, 3, 4]),
    ),
    "BinomialLogits": Row(
        lambda s: dist.Binomial(3, logits=s),
        lambda s, k: (
            math.log(math.comb(3, k))
            + (k * special.log_expit(s) if k else 0)
            + ((3 - k) * special.log_expit(-s) if k < 3 else 0)
            if 0 <= k <= 3
            else -INF
        ),
        each([(s,) for s in LOGITS], [-1, 0, 2, 3, 4]),
    ),
    "CategoricalProbs": Row(
        dist.Categorical,
        categorical,
        each([(np.array([0.0, 1.0, 0.0]),), (np.array([0.2, 0.5, 0.3]),)], [-1, 0, 1, 2, 3]),
    ),
    "CategoricalLogits": Row(
        lambda s: dist.Categorical(logits=s),
        lambda s, k: log_softmax(s)[k] if 0 <= k < 3 else -INF,
        each([(np.array([-INF, 0.0, -INF]),), (np.array([0.2, -INF, 0.3]),)], [-1, 0, 1, 2, 3]),
    ),
    "Chi2": Row(
        dist.Chi2,
        within(lambda k, x: stats.chi2.logpdf(x, k)),
        each([(1.0,), (2.0,), (5.0,)], POSITIVE),
    ),
    "Dagum": Row(
        dist.Dagum,
        within(lambda p, a, b, x: stats.burr.logpdf(x, a, p, scale=b)),
        each([(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)], POSITIVE),
    ),
    "Delta": Row(
        dist.Delta, lambda v, d, x: d if x == v else -INF, table((1.0, 0.5, 1.0), (1.0, 0.5, 2.0))
    ),
    "Dirichlet": Row(
        dist.Dirichlet,
        dirichlet,
        [
            (np.array(a), np.array(x))
            for a in ([1.0, 1.0, 1.0], [0.5, 1.0, 2.0], [2.0, 3.0, 0.7])
            for x in ([0.2, 0.3, 0.5], [0.0, 0.4, 0.6], [0.0, 0.0, 1.0], [1.5, -0.5, 0.0])
        ],
    ),
    "DirichletMultinomial": Row(
        lambda a: dist.DirichletMultinomial(a, 4),
        lambda a, k: (
            stats.dirichlet_multinomial.logpmf(k, a, 4) if (k >= 0).all() and k.sum() == 4 else -INF
        ),
        [(np.array([0.5, 2.0]), np.array(k)) for k in ([4, 0], [0, 4], [1, 3], [5, -1], [1, 1])],
    ),
    "DiscreteUniform": Row(
        lambda: dist.DiscreteUniform(-1, 2),
        lambda k: -math.log(4) if -1 <= k <= 2 else -INF,
        [(k,) for k in (-2, -1, 2, 3)],
    ),
    "DoublyTruncatedPowerLaw": Row(
        dist.DoublyTruncatedPowerLaw,
        power_law,
        each([(-1.0, 0.5, 2.0), (-2.5, 0.5, 2.0), (1.5, 0.5, 2.0)], [0.4, 0.5, 1.0, 2.0, 2.1])
        + each([(1.5, 0.0, 2.0), (0.0, 0.0, 2.0)], [-1.0, 0.0, 1.0, 2.0]),
    ),
    "LowerTruncatedPowerLaw": Row(
        dist.LowerTruncatedPowerLaw,
        within(lambda a, low, x: stats.pareto.logpdf(x, -a - 1, scale=low) if x > low else -INF),
        each([(-2.0, 0.5)], [-1.0, 0.4, 0.5, 0.6, 50.0]),
    ),
    "ExpandedDistribution": Row(
        lambda a: dist.Beta(a, 1.0).expand(a.shape).expand((2, *a.shape)),
        lambda a, x: 2 * beta(a, 1.0, x),
        each([(1.0,), (2.0,)], UNIT),
    ),
    "Exponential": Row(
        dist.Exponential, within(lambda r, x: math.log(r) - r * x), each([(0.5,)], POSITIVE)
    ),
    "FoldedDistribution": Row(
        lambda m: dist.FoldedDistribution(dist.Normal(m, 1.0)),
        within(lambda m, x: logaddexp(stats.norm.logpdf(x, m), stats.norm.logpdf(-x, m))),
        each([(0.0,), (1.0,)], POSITIVE),
    ),
    "Gamma": Row(
        dist.Gamma,
        within(lambda a, b, x: stats.gamma.logpdf(x, a, scale=1 / b)),
        each([(1.0, 2.0), (0.4, 1.0), (3.0, 1.0)], POSITIVE),
    ),
    "GammaPoisson": Row(
        dist.GammaPoisson,
        lambda a, b, k: stats.nbinom.logpmf(k, a, b / (1 + b)),
        each([(1.0, 2.0), (0.4, 1e-3), (3.0, 50.0)], COUNTS),
    ),
    "GeometricProbs": Row(
        dist.Geometric,
        lambda p, k: log(p) + (k * log(1 - p) if k else 0.0) if k >= 0 else -INF,
        each([(p,) for p in GATES], COUNTS),
    ),
    "GeometricLogits": Row(
        lambda s: dist.Geometric(logits=s),
        on_counts(lambda s, k: special.log_expit(s) + (k * special.log_expit(-s) if k else 0.0)),
        each([(s,) for s in LOGITS], COUNTS),
    ),
    "Gompertz": Row(
        dist.Gompertz,
        within(lambda c, b, x: stats.gompertz.logpdf(x, c, scale=1 / b)),
        each([(0.5, 0.1), (1.0, 0.2)], POSITIVE),
    ),
    "HalfCauchy": Row(
        dist.HalfCauchy,
        within(lambda s, x: stats.halfcauchy.logpdf(x, scale=s)),
        each([(2.0,)], POSITIVE),
    ),
    "HalfNormal": Row(
        dist.HalfNormal,
        within(lambda s, x: stats.halfnorm.logpdf(x, scale=s)),
        each([(2.0,)], POSITIVE),
    ),
    "HurdleProbs": Row(
        lambda g, k: dist.HurdleDistribution(dist.Weibull(1.0, k), gate=g),
        lambda g, k, x: hurdle(g, stats.weibull_min.logpdf(x, k), -INF, x) if x >= 0 else -INF,
        each([(g, k) for g in GATES for k in (0.5, 1.0, 2.0)], [-1.0, 0.0, 0.7]),
    ),
    "HurdleLogits": Row(
        lambda s, a: dist.HurdleDistribution(dist.Beta(a, 2.0), gate_logits=s),
        lambda s, a, x: (
            (special.log_expit(s) if x == 0 else special.log_expit(-s) + beta(a, 2.0, x))
            if 0 <= x <= 1
            else -INF
        ),
        each([(s, a) for s in LOGITS for a in (1.0, 2.0)], UNIT),
    ),
    "HurdleGamma": Row(
        dist.HurdleGamma,
        lambda g, a, b, x: (
            hurdle(g, stats.gamma.logpdf(x, a, scale=1 / b), -INF, x) if x >= 0 else -INF
        ),
        each([(g, 2.0, 1.0) for g in GATES], [-1.0, 0.0, 0.7]),
    ),
    "HurdleLogNormal": Row(
        dist.HurdleLogNormal,
        lambda g, m, s, x: (
            hurdle(g, stats.norm.logpdf(log(x), m, s) - log(x), -INF, x)
            if x > 0
            else log(g)
            if x == 0
            else -INF
        ),
        each([(g, 0.5, 1.0) for g in GATES], [-1.0, 0.0, 0.7]),
    ),
    "HurdlePoisson": Row(
        dist.HurdlePoisson,
        lambda g, r, k: hurdle(g, stats.poisson.logpmf(k, r), -r, k) if k >= 0 else -INF,
        each([(g, r) for g in GATES for r in (0.01, 3.0)], COUNTS),
    ),
    "HurdleNegativeBinomial2": Row(
        dist.HurdleNegativeBinomial2,
        lambda g, m, c, k: (
            hurdle(
                g,
                stats.nbinom.logpmf(k, c, c / (c + m)),
                stats.nbinom.logpmf(0, c, c / (c + m)),
                k,
            )
            if k >= 0
            else -INF
        ),
        each([(g, 2.0, 1.5) for g in GATES], COUNTS),
    ),
    "ImproperUniform": Row(
        lambda: dist.ImproperUniform(dist.constraints.unit_interval, (), ()),
        lambda x: 0.0 if 0 <= x <= 1 else -INF,
        [(x,) for x in UNIT],
    ),
    "Independent": Row(
        lambda a: dist.Beta(a, jnp.ones(2)).to_event(1),
        lambda a, x: (
            -INF
            if -INF in [beta(p, 1.0, y) for p, y in zip(a, x, strict=True)]
            else sum(beta(p, 1.0, y) for p, y in zip(a, x, strict=True))
        ),
        [
            (np.array(a), np.array(x))
            for a in ([1.0, 1.0], [2.0, 1.0])
            for x in ([0.0, 1.0], [0.5, 0.0], [1.5, 0.5])
        ],
    ),
    "InverseGamma": Row(
        dist.InverseGamma,
        within(lambda a, b, x: stats.invgamma.logpdf(x, a, scale=b)),
        each([(1.0, 1.0), (3.0, 2.0)], POSITIVE),
    ),
    "Kumaraswamy": Row(
        dist.Kumaraswamy,
        kumaraswamy,
        each([(1.0, 1.0), (1.0, 2.5), (2.5, 1.0), (2.0, 3.0), (0.5, 2.0)], UNIT),
    ),
    "LKJCholesky": Row(
        lambda eta: dist.LKJCholesky(2, eta),
        lkj_cholesky,
        [
            (eta, np.array([[1.0, 0.0], [r, math.sqrt(1 - r * r)]]))
            for eta in (1.0, 0.5, 3.0)
            for r in (0.0, 0.6, 1.0)
        ],
    ),
    "LeftCensoredDistribution": Row(
        lambda r, c: dist.LeftCensoredDistribution(dist.Exponential(r), c > 0),
        lambda r, c, x: (
            log(-math.expm1(-r * max(x, 0.0))) if c else (math.log(r) - r * x if x > 0 else -INF)
        ),
        each([(0.5, 1), (0.5, 0)], [-1.0, 0.0, 0.7, 300.0]),
    ),
    "RightCensoredDistribution": Row(
        lambda r, c: dist.RightCensoredDistribution(dist.Exponential(r), c > 0),
        lambda r, c, x: -r * max(x, 0.0) if c else (math.log(r) - r * x if x > 0 else -INF),
        each([(0.5, 1), (0.5, 0)], [-1.0, 0.0, 0.7, 300.0]),
    ),
    "IntervalCensoredDistribution": Row(
        lambda m, left, right: dist.IntervalCensoredDistribution(
            dist.Normal(m, 1.0), left > 0, right > 0
        ),
        lambda m, left, right, x: (
            stats.norm.logcdf(x[1], m)
            if left and not right
            else stats.norm.logsf(x[0], m)
            if right and not left
            else logaddexp(stats.norm.logcdf(x[0], m), stats.norm.logsf(x[1], m))
            if left
            else stats.norm.logpdf(x[0], m)
            if x[0] == x[1]
            else stats.norm.logcdf(m, x[0])
            + math.log(-math.expm1(stats.norm.logsf(x[1], m) - stats.norm.logsf(x[0], m)))
            if x[0] > m
            else math.log(stats.norm.cdf(x[1], m) - stats.norm.cdf(x[0], m))
        ),
        [
            (0.5, left, right, np.array(x))
            for left, right, x in (
                (1, 0, [-INF, -30.0]),
                (0, 1, [30.0, INF]),
                (0, 0, [-1.0, 1.0]),
                (0, 0, [20.0, 21.0]),
                (0, 0, [1.0, 1.0]),
                (0, 0, [-INF, INF]),
                (1, 1, [-9.0, 9.0]),
            )
        ],
    ),
    "LeftTruncatedDistribution": Row(
        lambda m, low: dist.LeftTruncatedDistribution(dist.Normal(m, 1.0), low),
        lambda m, low, x: stats.norm.logpdf(x, m) - stats.norm.logsf(low, m) if x >= low else -INF,
        each([(0.5, 0.0), (0.5, 30.0), (0.5, -INF)], [-1.0, 0.0, 30.0, 31.0]),
    ),
    "RightTruncatedDistribution": Row(
        lambda m, high: dist.RightTruncatedDistribution(dist.Laplace(m, 1.0), high),
        lambda m, high, x: (
            stats.laplace.logpdf(x, m) - stats.laplace.logcdf(high, m) if x <= high else -INF
        ),
        each([(0.5, 0.0), (0.5, -200.0), (0.5, INF)], [1.0, 0.0, -200.0, -203.0]),
    ),
    "TwoSidedTruncatedDistribution": Row(
        lambda m, low, high: dist.TruncatedDistribution(dist.Normal(m, 1.0), low, high),
        lambda m, low, high, x: stats.truncnorm.logpdf(x, low - m, high - m, m),
        each(
            [(0.5, 0.0, 2.0), (0.5, -INF, 2.0), (0.5, 0.0, INF), (0.5, 20.0, 21.0)],
            [-1.0, 0.0, 2.0, 2.5, 20.0, 20.5],
        ),
    ),
    "LeftTruncatedGamma": Row(
        lambda a, low: dist.TruncatedGamma(a, 1.0, low=low),
        lambda a, low, x: (
            stats.gamma.logpdf(x, a) - stats.gamma.logsf(low, a) if x >= low and x > 0 else -INF
        ),
        each([(2.0, 0.5), (1.0, 0.5)], [-1.0, 0.4, 0.5, 3.0]),
    ),
    "RightTruncatedGamma": Row(
        lambda a, high: dist.TruncatedGamma(a, 1.0, high=high),
        lambda a, high, x: (
            stats.gamma.logpdf(x, a) - stats.gamma.logcdf(high, a) if 0 < x <= high else -INF
        ),
        each([(2.0, 1.5), (1.0, 1.5)], [-1.0, 0.0, 0.4, 1.5, 3.0]),
    ),
    "TwoSidedTruncatedGamma": Row(
        lambda a, low, high: dist.TruncatedGamma(a, 1.0, low=low, high=high),
        lambda a, low, high, x: (
            stats.gamma.logpdf(x, a) - math.log(stats.gamma.cdf(high, a) - stats.gamma.cdf(low, a))
            if low <= x <= high
            else -INF
        ),
        each([(2.0, 0.5, 1.5), (1.0, 0.5, 1.5)], [-1.0, 0.4, 0.5, 1.5, 3.0]),
    ),
    "Levy": Row(
        dist.Levy,
        lambda m, c, x: stats.levy.logpdf(x, m, c) if x > m else -INF,
        each([(1.0, 2.0)], [-1.0, 1.0, 1.01, 5.0]),
    ),
    "LogNormal": Row(
        dist.LogNormal,
        within(lambda m, s, x: stats.norm.logpdf(math.log(x), m, s) - math.log(x)),
        each([(0.5, 1.5)], POSITIVE),
    ),
    "LogUniform": Row(
        dist.LogUniform,
        lambda low, high, x: -math.log(x * math.log(high / low)) if low <= x <= high else -INF,
        each([(0.5, 3.0)], [-1.0, 0.0, 0.5, 1.0, 3.0, 3.1]),
    ),
    "MaskedDistribution": Row(
        lambda a, keep: dist.Beta(a, 1.0).mask(keep > 0),
        lambda a, keep, x: beta(a, 1.0, x) if keep else 0.0,
        each([(2.0, 1), (2.0, 0)], UNIT),
    ),
    "MixtureGeneral": Row(
        lambda a, low: dist.MixtureGeneral(
            dist.Categorical(HALVES),
            [dist.Gamma(a, 1.0), dist.Uniform(low, 1.0)],
            support=dist.constraints.real,
        ),
        lambda a, low, x: (
            logaddexp(
                -INF if x <= 0 else stats.gamma.logpdf(x, a),
                -math.log(1 - low) if low <= x <= 1 else -INF,
            )
            - math.log(2)
        ),
        each([(2.0, -1.0), (0.5, -1.0)], [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]),
    ),
    "MixtureSameFamily": Row(
        lambda w, a: dist.MixtureSameFamily(
            dist.Categorical(w), dist.Beta(jnp.stack([a, a + 2], -1), jnp.ones(2))
        ),
        lambda w, a, x: logaddexp(
            log(w[0]) + beta(a, 1.0, x) - log(w.sum()) if w[0] else -INF,
            log(w[1]) + beta(a + 2, 1.0, x) - log(w.sum()) if w[1] else -INF,
        ),
        [(np.array(w), a, x) for w in ([0.0, 1.0], [0.5, 0.5]) for a in (1.0, 2.0) for x in UNIT],
        weights=0,
    ),
    "MultinomialProbs": Row(
        lambda p: dist.Multinomial(4, p),
        lambda p, k: multinomial([log(q / sum(p)) for q in p], k) if k.sum() == 4 else -INF,
        [
            (np.array(p), np.array(k))
            for p in ([0.0, 0.4, 0.6], [0.0, 0.0, 1.0])
            for k in ([0, 1, 3], [1, 1, 2], [0, 0, 4], [1, 1, 1], [-1, 1, 4])
        ],
    ),
    "MultinomialLogits": Row(
        lambda s: dist.Multinomial(4, logits=s),
        lambda s, k: multinomial(log_softmax(s), k) if k.sum() == 4 else -INF,
        [
            (np.array(s), np.array(k))
            for s in ([-INF, 0.4, 0.6], [-INF, -INF, 1.0])
            for k in ([0, 1, 3], [1, 1, 2], [0, 0, 4], [1, 1, 1], [-1, 1, 4])
        ],
    ),
    "NegativeBinomialProbs": Row(
        dist.NegativeBinomialProbs,
        on_counts(negative_binomial),
        each([(2.5, 0.0), (2.5, 0.4), (2.5, 1.0)], COUNTS),
    ),
    "NegativeBinomialLogits": Row(
        lambda n, s: dist.NegativeBinomial(n, logits=s),
        on_counts(
            lambda n, s, k: (
                special.gammaln(n + k)
                - special.gammaln(n)
                - special.gammaln(k + 1)
                + n * special.log_expit(-s)
                + (k * special.log_expit(s) if k else 0.0)
            )
        ),
        each([(2.5, s) for s in LOGITS], COUNTS),
    ),
    "NegativeBinomial2": Row(
        dist.NegativeBinomial2,
        on_counts(lambda m, c, k: negative_binomial(c, m / (m + c), k)),
        each([(0.0, 2.5), (1e-3, 2.5), (3.0, 2.5)], COUNTS),
    ),
    "OneHotCategorical": Row(
        dist.OneHotCategorical,
        lambda p, v: categorical(p, np.argmax(v)) if sorted(v) == [0, 0, 1] else -INF,
        [
            (np.array(p), np.array(v))
            for p in ([0.0, 0.4, 0.6], [0.0, 0.0, 1.0])
            for v in ([1, 0, 0], [0, 0, 1], [1, 0, 1])
        ],
        weights=0,
    ),
    "OrderedLogistic": Row(
        lambda s: dist.OrderedLogistic(s, jnp.array([-1.0, 0.5])),
        lambda s, k: (
            log([expit(-1 - s), expit(0.5 - s) - expit(-1 - s), expit(s - 0.5)][k])
            if 0 <= k <= 2
            else -INF
        ),
        each([(0.3,), (5.0,)], [-1, 0, 1, 2, 3]),
    ),
    "Pareto": Row(
        dist.Pareto,
        lambda s, a, x: stats.pareto.logpdf(x, a, scale=s) if x > s else -INF,
        each([(0.5, 1.0), (0.5, 3.0)], [-1.0, 0.0, 0.5, 0.6, 30.0]),
    ),
    "Poisson": Row(
        dist.Poisson,
        lambda r, k: stats.poisson.logpmf(k, r),
        each([(0.0,), (1e-3,), (3.0,)], COUNTS),
    ),
    "RelaxedBernoulliLogits": Row(
        dist.RelaxedBernoulliLogits,
        relaxed,
        each([(1.0, 0.5), (2.0, 0.5), (0.5, 0.5)], UNIT),
    ),
    "SineSkewed": Row(
        lambda s: dist.SineSkewed(
            dist.VonMises(jnp.zeros(1), jnp.ones(1)).to_event(1), s[..., None]
        ),
        lambda s, x: (
            stats.vonmises.logpdf(x[0], 1.0) + log(1 + s * math.sin(x[0]))
            if abs(x[0]) <= math.pi
            else -INF
        ),
        [(s, np.array([x])) for s in (0.0, 0.5, -1.0) for x in (-4.0, -3.0, 1.0, 3.0, 4.0)],
    ),
    "TransformedDistribution": Row(
        lambda r: dist.TransformedDistribution(
            dist.Exponential(r), dist.transforms.AffineTransform(1.0, 2.0)
        ),
        lambda r, x: math.log(r / 2) - r * (x - 1) / 2 if x > 1 else -INF,
        each([(0.5,)], [-1.0, 1.0, 1.5]),
    ),
    "TruncatedPolyaGamma": Row(
        lambda: dist.TruncatedPolyaGamma(),
        polya_gamma,
        [(x,) for x in (-1.0, 0.0, 0.02, 0.3, 2.4, 3.0)],
    ),
    "Uniform": Row(
        dist.Uniform,
        lambda low, high, x: -math.log(high - low) if low <= x <= high else -INF,
        each([(0.5, 3.0)], [0.0, 0.5, 1.0, 3.0, 3.1]),
    ),
    "VonMises": Row(
        dist.VonMises,
        lambda m, k, x: stats.vonmises.logpdf(x, k, m) if abs(x) <= math.pi else -INF,
        each([(0.5, 1.0), (-3.0, 20.0)], [-4.0, -3.0, 0.5, 3.0, 4.0]),
    ),
    "Weibull": Row(
        dist.Weibull,
        within(lambda s, k, x: stats.weibull_min.logpdf(x, k, scale=s)),
        each([(2.0, 1.0), (2.0, 0.5), (2.0, 2.5)], POSITIVE),
    ),
    "ZeroInflatedProbs": Row(
        lambda g, p: dist.ZeroInflatedDistribution(dist.Binomial(3, p), gate=g),
        lambda g, p, k: (
            logaddexp(log(g) if k == 0 else -INF, log(1 - g) + stats.binom.logpmf(k, 3, p))
            if g < 1
            else (0.0 if k == 0 else -INF)
        ),
        each([(g, p) for g in GATES for p in GATES], [-1, 0, 1, 3, 4]),
        weights=0,
    ),
    "ZeroInflatedLogits": Row(
        lambda s, r: dist.ZeroInflatedDistribution(dist.Poisson(r), gate_logits=s),
        on_counts(
            lambda s, r, k: logaddexp(
                special.log_expit(s) if k == 0 else -INF,
                special.log_expit(-s) + stats.poisson.logpmf(k, r) if s < INF else -INF,
            )
        ),
        each([(s, r) for s in LOGITS for r in (0.0, 2.0)], COUNTS),
    ),
    "ZeroInflatedPoisson": Row(
        dist.ZeroInflatedPoisson,
        on_counts(
            lambda g, r, k: logaddexp(
                log(g) if k == 0 else -INF,
                log(1 - g) + stats.poisson.logpmf(k, r) if g < 1 else -INF,
            )
        ),
        each([(g, 2.0) for g in GATES], COUNTS),
        weights=0,
    ),
    "ZeroInflatedNegativeBinomial2": Row(
        lambda g, m, c: dist.ZeroInflatedNegativeBinomial2(m, c, gate=g),
        on_counts(
            lambda g, m, c, k: logaddexp(
                log(g) if k == 0 else -INF,
                log(1 - g) + negative_binomial(c, m / (m + c), k) if g < 1 else -INF,
            )
        ),
        each([(g, m, 1.5) for g in GATES for m in (0.0, 2.0)], COUNTS),
        weights=0,
    ),
}

FACTORIES = {
    "Bernoulli",
    "Binomial",
    "Categorical",
    "Geometric",
    "HurdleDistribution",
    "Mixture",
    "Multinomial",
    "NegativeBinomial",
    "RelaxedBernoulli",
    "TruncatedCauchy",
    "TruncatedDistribution",
    "TruncatedGamma",
    "TruncatedNormal",
    "ZeroInflatedDistribution",
}
"""Functions that make distributions which are in the table."""

WITHOUT_ENDS = {
    "AsymmetricLaplace",
    "AsymmetricLaplaceQuantile",
    "CAR",
    "Cauchy",
    "CirculantNormal",
    "EulerMaruyama",
    "GaussianRandomWalk",
    "GaussianStateSpace",
    "Gumbel",
    "Laplace",
    "Logistic",
    "LowRankMultivariateNormal",
    "MatrixNormal",
    "MultivariateNormal",
    "MultivariateStudentT",
    "Normal",
    "SoftLaplace",
    "StudentT",
    "Unit",
    "ZeroSumNormal",
}
"""The support is a whole space, and the ends of the parameters' ranges do not belong to them."""

OPEN_MATRICES = {"InverseWishart", "InverseWishartCholesky", "LKJ", "Wishart", "WishartCholesky"}
"""Of positive definite matrices, or their factors: singular ones, the ends, are refused as impossible.

`LKJCholesky`, on which `LKJ` stands, is in the table."""

CLOSED_SURFACES = {"ProjectedNormal", "SineBivariateVonMises"}
"""A sphere and a torus: there are no ends, and the density is smooth all over."""

NOT_AT_ENDS = {"GaussianCopula", "GaussianCopulaBeta"}
"""At an end of a marginal the copula's own density is that of an infinite quantile, which need not have
a limit. NumPyro's takes the quantile of the smallest probability there is."""

NO_DISTRIBUTIONS = {"Distribution", "biject_to", "constraints", "kl_divergence", "transforms"}


def test_every_distribution_is_in_the_table_or_has_a_reason_not_to_be() -> None:
    others = FACTORIES | WITHOUT_ENDS | OPEN_MATRICES | CLOSED_SURFACES | NOT_AT_ENDS
    assert set(dist.__all__) == {*ROWS, *others, *NO_DISTRIBUTIONS}
    assert not others & {*ROWS}


def slope(oracle: Callable[..., Any], arguments: list[Any], which: int, at: Any) -> float:
    """A derivative of the oracle by finite differences; NaN where it has none that is finite."""

    def shifted(step: float) -> float:
        moved = [np.array(a, float) if i == which else a for i, a in enumerate(arguments)]
        moved[which][at] += step
        moved[which] = moved[which] if moved[which].ndim else float(moved[which])
        try:
            return float(oracle(*moved))
        except (ValueError, TypeError, ZeroDivisionError, OverflowError):
            return math.nan  # outside of the parameter's range

    here = float(oracle(*arguments))
    size = max(1.0, abs(float(np.asarray(arguments[which])[at])))
    if not np.isfinite(size):
        return 0.0

    def one_sided(step: float) -> float:
        near, far = (shifted(step * size) - here), (shifted(2 * step * size) - here)
        return (4 * near - far) / (2 * step * size)

    sides = []
    for sign in (1, -1):
        fine, rough = one_sided(sign * 1e-5), one_sided(sign * 4e-5)
        if np.isfinite(fine) and abs(fine - rough) < 1e-2 * max(1.0, abs(fine)):
            sides.append(fine)
    if not sides:
        return math.nan
    if len(sides) == 2 and abs(sides[0] - sides[1]) > 1e-3 * max(1.0, *map(abs, sides)):
        return math.nan  # a kink
    return float(np.mean(sides))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")  # SciPy's, of logarithms of zero
def test_value_and_derivatives(name: str) -> None:
    row = ROWS[name]
    expected = np.array([row.oracle(*map(_scalar, place)) for place in row.places])
    columns = [np.stack([np.asarray(p[i]) for p in row.places]) for i in range(len(row.places[0]))]
    floats = [i for i, column in enumerate(columns) if column.dtype.kind == "f"]

    def total(chosen: list[Any]) -> Any:
        arguments = list(columns)
        for i, array in zip(floats, chosen, strict=True):
            arguments[i] = array
        fn = row.make(*map(jnp.asarray, arguments[:-1]))
        found = log_prob(statement("sample", "x", fn, value=arguments[-1], is_observed=True))
        found = found.sum(0) if found.ndim > 1 else found
        return found.sum(), found

    slopes = []
    for double in (True, False):
        with jax.enable_x64(double), numpyro_checks(False):
            chosen = [jnp.asarray(columns[i], float) for i in floats]
            compiled = jax.jit(jax.value_and_grad(total, has_aux=True))
            (_, found), gradients = compiled(chosen)
            tolerance = 1e-9 if double else SINGLE
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=10 * tolerance)
            slopes.append([np.asarray(gradient) for gradient in gradients])
    for r, place in enumerate(row.places):
        arguments = list(map(_scalar, place))
        for j, i in enumerate(floats):
            for at in np.ndindex(columns[i].shape[1:]):
                double, single = (float(found[j][(r, *at)]) for found in slopes)
                where = f"{place}, argument {i}, {at}"
                assert not np.isnan([double, single]).any(), where
                if np.isneginf(expected[r]):
                    assert double == single == 0.0, where
                    continue
                if i == row.weights and columns[i][(r, *at)] in (0.0, 1.0):
                    continue
                right = slope(row.oracle, arguments, i, at)
                if np.isfinite(expected[r]) and not np.isnan(right):
                    np.testing.assert_allclose(double, right, rtol=1e-4, atol=1e-5, err_msg=where)
                    bound = 100 * SINGLE
                    np.testing.assert_allclose(single, right, rtol=bound, atol=bound, err_msg=where)


def _scalar(value: Any) -> Any:
    return (
        np.asarray(value, float)
        if np.ndim(value) and np.asarray(value).dtype.kind == "f"
        else value
    )
