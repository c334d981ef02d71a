"""Every parameter of every distribution: what is invalid is refused by eager queries, and never a number under jit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex_core
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.density.log_prob import log_prob
from marginax.density.parameters import checks, invalid, validity
from marginax.infer import MCMC, NUTS, SVI, TraceEnum_ELBO
from marginax.infer.autoguide import AutoDelta
from marginax.language.stack import statement

C = dist.constraints
EYE = np.eye(2, dtype=np.float32)
VALID: list[tuple[Any, Any]] = [
    (C.real, 0.3),
    (C.circular, 0.3),
    (C.positive, 1.5),
    (C.nonnegative, 1.5),
    (C.unit_interval, 0.4),
    (C.simplex, [0.25, 0.75]),
    (C.real_vector, [0.3, 0.6]),
    (C.positive_definite, EYE),
    (C.lower_cholesky, EYE),
    (C.nonnegative_integer, 3),
]
NAN, INF = np.nan, np.inf
INVALID: list[tuple[Any, list[Any]]] = [
    (C.real, [NAN, INF, -INF]),
    (C.circular, [NAN, INF]),
    (C.positive, [-0.5, -1.5, NAN, INF]),
    (C.nonnegative, [-0.5, NAN]),
    (C.unit_interval, [-0.5, 1.5, NAN]),
    (C.simplex, [[-0.5, 1.5], [NAN, 0.5], [0.0, 0.0]]),
    (C.real_vector, [[NAN, 0.0], [INF, 0.0]]),
    (C.positive_definite, [[[1.0, 0.9], [0.1, 1.0]], [[1.0, 2.0], [2.0, 1.0]], NAN * EYE]),
    (C.lower_cholesky, [[[1.0, 0.5], [0.1, 1.0]], -EYE, NAN * EYE]),
    (C.nonnegative_integer, [2.5, NAN]),
]


def known(table: list[tuple[Any, Any]], constraint: Any) -> Any:
    """The table's entry for a constraint; of a vector of numbers, that of one number twice."""
    for own, entry in table:
        if constraint is own:
            return entry
    inner = getattr(constraint, "base_constraint", None)
    if inner is not None and constraint.event_dim == 1:
        entry = known(table, inner)
        if isinstance(entry, list):
            return [[value, known(VALID, inner)] for value in entry]
        return None if entry is None else [entry, entry]
    return None


ONE_OF: dict[str, dict[str, Any]] = {
    "CirculantNormal": {"covariance_row": [1.0, 0.2], "covariance_rfft": None},
    "MultivariateNormal": {"scale_tril": EYE, "covariance_matrix": None, "precision_matrix": None},
    "SineBivariateVonMises": {"correlation": 0.3, "weighted_correlation": None},
}
"""Parameters of which one must be given, and what is given where it is another that is asked about."""
OF_SHAPES_OF_THEIR_OWN = {"MatrixNormal", "MultivariateStudentT"}


def cases() -> list[Any]:
    """(distribution, valid arguments, parameter, invalid value)."""
    found = []
    for name in sorted(dist.__all__):
        kind = getattr(dist, name)
        constraints = getattr(kind, "arg_constraints", None)
        if not isinstance(constraints, dict) or not constraints or kind in (dist.Unit, dist.Delta):
            continue
        if name in OF_SHAPES_OF_THEIR_OWN:
            continue
        signature = inspect.signature(kind.__init__).parameters
        required = [
            n
            for n, p in signature.items()
            if n not in ("self", "args", "kwargs", "validate_args") and p.default is p.empty
        ]
        for parameter, constraint in constraints.items():
            if "correlation_matrix" in constraints:
                continue  # a copula takes one of two parameters, neither of which is required
            needed = {*required, parameter} - {"self"}
            valid = {n: known(VALID, constraints.get(n)) for n in needed}
            others = ONE_OF.get(name, {})
            if not needed & others.keys():
                valid |= dict(list(others.items())[:1])
            wrong = known(INVALID, constraint)
            if (
                any(v is None for v in valid.values())
                or wrong is None
                or parameter not in signature
            ):
                continue
            if parameter in ("logits", "gate_logits") and constraint is C.real:
                wrong = [NAN]
            if (name, parameter) == ("GammaPoisson", "rate"):
                wrong = [w for w in wrong if w != INF]  # of a mean of zero
            found += [
                pytest.param(kind, valid, parameter, w, id=f"{name}-{parameter}-{w}") for w in wrong
            ]
    return found


CASES = cases()


def flags_and_density(kind: Any, arguments: dict[str, Any], value: Any) -> tuple[Any, Any, Any]:
    """Whether the parameters are valid, which of them, and the density at a value, of traced arguments."""
    seen = []

    def run(arguments: dict[str, Any]) -> tuple[Any, Any]:
        fn = kind(**arguments)
        found = validity(checks(fn))
        seen.append(list(found))
        msg = statement("sample", "x", fn, value=value, is_observed=True)
        return list(found.values()), log_prob(msg)

    with jax.disable_jit():
        arrays = {n: jnp.asarray(v, jnp.float32) for n, v in arguments.items()}
        closed = jax.make_jaxpr(run)(arrays)
        flags, density = jax.tree.unflatten(
            jax.tree.structure((list(seen[0]), 0)),
            jex_core.jaxpr_as_fun(closed)(*jax.tree.leaves(arrays)),
        )
    return dict(zip(seen[0], flags, strict=True)), seen[0], density


def test_many_distributions_are_covered() -> None:
    assert len({case.values[0] for case in CASES}) > 45
    assert len(CASES) > 200


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "valid", "parameter", "wrong"), CASES)
def test_an_invalid_parameter_is_found_and_its_density_is_no_number(
    kind: Any, valid: dict[str, Any], parameter: str, wrong: Any
) -> None:
    with jax.ensure_compile_time_eval():
        example = kind(**{n: jnp.asarray(v, jnp.float32) for n, v in valid.items()})
        support, shape = example.support, example.shape()
        value = support.feasible_like(jnp.zeros(shape))
    flags, _, density = flags_and_density(kind, valid | {parameter: wrong}, value)
    error = invalid({"x": flags})
    refused = error is not None
    singular = np.isnan(density).all() and "matrix" in parameter  # its density says it
    assert refused or singular
    assert np.isnan(density).all()
    flags, _, density = flags_and_density(kind, valid, value)
    assert invalid({"x": flags}) is None
    assert not np.isnan(density).any()


def posterior_of(fn: Callable[[Any], Any], value: Any) -> Callable[[Any], None]:
    def model(p: Any) -> None:
        mx.sample("x", fn(p), obs=value)

    return model


def test_probabilities_that_do_not_add_up_to_one_are_normalised_under_jit() -> None:
    p = jnp.array([3.0, 7.0])
    weights = np.array([0.3, 0.7])

    def categories() -> Any:
        return dist.Normal(jnp.array([0.0, 2.0]), 1.0)

    both = stats.norm.pdf(0.5, [0.0, 2.0])
    categorical: Any = dist.Categorical
    rows: list[tuple[Callable[[Any], Any], Any, Any]] = [
        (lambda p: dist.Categorical(p), 1, np.log(0.7)),
        (lambda p: dist.OneHotCategorical(p), jnp.array([1, 0]), np.log(0.3)),
        (
            lambda p: dist.Multinomial(4, p),
            jnp.array([1, 3]),
            stats.multinomial.logpmf([1, 3], 4, weights),
        ),
        (
            lambda p: categorical(p).expand([3]).to_event(1),
            jnp.array([0, 1, 1]),
            np.log(0.3 * 0.49),
        ),
        (lambda p: categorical(p).mask(False), 1, 0.0),
        (
            lambda p: dist.MixtureSameFamily(dist.Categorical(p), categories()),
            0.5,
            np.log(both @ weights),
        ),
    ]
    for fn, value, right in rows:
        m = mx.marginalize(posterior_of(fn, value))
        np.testing.assert_allclose(jax.jit(m.log_density)({}, p), right, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            jax.grad(lambda s, m=m: m.log_density({}, s * p))(1.0), 0.0, atol=1e-5
        )


def test_the_parameter_of_a_masked_element_may_be_anything() -> None:
    def model(scale: Any) -> None:
        with mx.plate("n", 2), mx.handlers.mask(mask=jnp.array([True, False])):
            mx.sample("x", dist.Normal(0.0, scale), obs=np.zeros(2))

    right = stats.norm.logpdf(0.0)
    log_density = mx.marginalize(model).log_density
    np.testing.assert_allclose(jax.jit(log_density)({}, jnp.array([1.0, -1.0])), right, rtol=1e-6)
    assert np.isnan(jax.jit(log_density)({}, jnp.array([-1.0, 1.0])))


EDGES: list[Any] = [
    pytest.param(lambda: dist.Bernoulli(jnp.array(1.0)), 1, 0.0, id="certain"),
    pytest.param(lambda: dist.Poisson(jnp.array(0.0)), 0, 0.0, id="rate zero"),
    pytest.param(lambda: dist.Binomial(jnp.array(-1), 0.5), 0, -INF, id="fewer than no trials"),
    pytest.param(lambda: dist.Categorical(logits=jnp.array([0.0, -INF])), 0, 0.0, id="logits"),
    pytest.param(lambda: dist.Uniform(jnp.array(0.0), jnp.array(0.0)), 1.0, -INF, id="bounds meet"),
    pytest.param(lambda: dist.Exponential(jnp.array(0.0)), 1.0, -INF, id="never"),
]


@pytest.mark.parametrize(("fn", "value", "right"), EDGES)
def test_edges_that_mean_something_stay(fn: Callable[[], Any], value: Any, right: float) -> None:
    def model() -> None:
        mx.sample("x", fn(), obs=jnp.asarray(value))

    np.testing.assert_allclose(mx.marginalize(model).log_density({}), right, atol=1e-6)


CONSTANTS: list[Any] = [
    pytest.param(lambda: dist.Normal(0.0, INF), "'scale' of Normal", id="infinite"),
    pytest.param(
        lambda: dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 0.9], [0.1, 1.0]])),
        "covariance",
        id="asymmetric",
    ),
    pytest.param(lambda: dist.Uniform(2.0, 1.0), "'low' and 'high' of Uniform", id="bounds"),
    pytest.param(
        lambda: dist.TruncatedNormal(0.0, jnp.array(-1.0), low=0.0), "'scale' of Normal", id="inner"
    ),
    pytest.param(
        lambda: dist.HalfNormal(jnp.array(-1.0)).expand([2]).to_event(1), "'scale'", id="wrapped"
    ),
]


@pytest.mark.parametrize(("fn", "words"), CONSTANTS)
def test_an_invalid_constant_of_a_model_is_refused(fn: Callable[[], Any], words: str) -> None:
    def model() -> None:
        mx.sample("x", fn())

    with pytest.raises(mx.ModelError, match=rf"site 'x': the parameter.*{words}"):
        mx.marginalize(model).log_density(
            {"x": np.ones(2 if words in ("covariance", "'scale'") else ())}
        )


X = np.r_[np.zeros(3), 5 * np.ones(7)]


def forgetful(x: Any) -> None:
    r = mx.sample("r", dist.LogNormal(0, 1).expand([2]).to_event(1))
    with mx.plate("n", len(x)):
        z = mx.sample("z", dist.Categorical(probs=r))
        mx.sample("x", dist.Normal(jnp.array([0.0, 5.0])[z], 1.0), obs=x)


def test_svi_and_mcmc_refuse_a_start_that_is_not_normalised() -> None:
    svi = SVI(forgetful, AutoDelta(forgetful), mx.optim.Adam(0.05), TraceEnum_ELBO())
    with pytest.raises(mx.ModelError, match=r"site 'z': the parameter 'probs' .* not normalised"):
        svi.run(jax.random.key(0), 10, X, progress_bar=False)
    mcmc = MCMC(NUTS(forgetful), num_warmup=5, num_samples=5, num_chains=2, progress_bar=False)
    with pytest.raises(mx.ModelError, match=r"site 'z': the parameter 'probs' .* not normalised"):
        mcmc.run(jax.random.key(0), X)


def test_an_end_that_is_not_normalised_is_a_warning_and_nothing_is_lost() -> None:
    def model(x: Any) -> None:
        r = mx.param("r", jnp.array([0.5, 0.5]), constraint=C.positive)
        with mx.plate("n", len(x)):
            z = mx.sample("z", dist.Categorical(probs=1.0 * r))
            mx.sample("x", dist.Normal(jnp.array([0.0, 5.0])[z], 1.0), obs=x)

    svi = SVI(model, lambda x: None, mx.optim.Adam(0.05), TraceEnum_ELBO())
    with pytest.warns(mx.InvalidParameterWarning, match="site 'z': the parameter 'probs'"):
        result = svi.run(jax.random.key(0), 300, X, progress_bar=False)
    r = np.asarray(result.params["r"])
    np.testing.assert_allclose(r / r.sum(), [0.3, 0.7], atol=0.02)


def test_a_negative_binomial_mean_of_zero_is_valid_and_a_negative_one_is_not() -> None:
    """The mean is zero for a value of the variable; value and slope are those of the other part."""

    def model(mean: Any) -> None:
        z = mx.sample("z", dist.Bernoulli(0.4))
        mx.sample("x", dist.NegativeBinomial2(z * mean, 2.0), obs=0)

    def right(mean: float) -> float:
        return float(np.log(0.6 + 0.4 * stats.nbinom.pmf(0, 2.0, 2.0 / (2.0 + mean))))

    log_density = mx.marginalize(model).log_density
    value, slope = jax.jit(jax.value_and_grad(lambda mean: log_density({}, mean)))(1.5)
    np.testing.assert_allclose([value, log_density({}, 1.5)], right(1.5), rtol=1e-6)
    np.testing.assert_allclose(slope, (right(1.501) - right(1.499)) / 0.002, rtol=1e-3)
    with pytest.raises(mx.ModelError, match="site 'x'.*NegativeBinomial2.*zero or positive"):
        log_density({}, -1.5)


def test_a_traced_scale_that_is_not_positive_makes_the_density_nan() -> None:
    def model(scale: Any) -> None:
        with mx.handlers.scale(scale=scale):
            mx.sample("z", dist.Bernoulli(0.4))
            mx.sample("x", dist.Normal(0.0, 1.0), obs=0.0)

    log_density = jax.jit(lambda scale: mx.marginalize(model).log_density({}, scale))
    np.testing.assert_allclose(log_density(2.0), 2 * stats.norm.logpdf(0.0), rtol=1e-6)
    assert np.isnan(log_density(-1.0))
