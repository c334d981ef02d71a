"""Laplace's approximation: exact for Gaussians, finite differences in NumPy for a mixture, and its errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize, special, stats

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, init_to_value
from marginax.infer.autoguide import AutoLaplaceApproximation

KEY = jax.random.key(0)
DATA = np.array([-2.0, 0.0, 1.0, 6.0, 7.0, 9.0])


def shrunk(x: Any) -> None:
    mu = mx.sample("mu", dist.Normal(0.0, 10.0))
    with mx.plate("n", len(x)):
        effect = mx.sample("effect", dist.Normal(mu, 2.0))
        mx.sample("coin", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(effect, 1.0), obs=x)


def precision(n: int) -> np.ndarray:
    """Of the posterior of mu and the effects."""
    matrix = np.zeros((n + 1, n + 1))
    matrix[0, 0] = 1 / 10.0**2 + n / 2.0**2
    matrix[0, 1:] = matrix[1:, 0] = -1 / 2.0**2
    matrix[1:, 1:] = np.eye(n) * (1 / 2.0**2 + 1.0)
    return matrix


def test_a_gaussian_posterior_is_found_exactly():
    guide = AutoLaplaceApproximation(shrunk)
    svi = SVI(shrunk, guide, optax.adam(0.3), TraceEnum_ELBO())
    result = svi.run(KEY, 400, DATA, progress_bar=False, num_restarts=2)
    covariance = np.linalg.inv(precision(6))
    mean = covariance @ np.concatenate([[0.0], DATA])
    found = guide.median(result.params)
    np.testing.assert_allclose(found["mu"], mean[0], atol=0.01)
    np.testing.assert_allclose(found["effect"], mean[1:], atol=0.01)
    posterior: Any = guide.get_posterior(result.params)
    np.testing.assert_allclose(posterior.covariance_matrix, covariance, rtol=1e-4)
    ends = guide.quantiles(result.params, [0.1, 0.9])
    expected = stats.norm(found["mu"], np.sqrt(covariance[0, 0])).ppf([0.1, 0.9])
    np.testing.assert_allclose(ends["mu"], expected, rtol=1e-4)
    draws = guide.sample_posterior(KEY, result.params, sample_shape=(4000,))
    error = np.sqrt(covariance[0, 0] / 4000)
    assert abs(draws["mu"].mean() - found["mu"]) < 5 * error
    assert draws["effect"].shape == (4000, 6)


def mixture(x: Any) -> None:
    share = mx.sample("share", dist.Beta(2.0, 3.0))
    scale = mx.sample("scale", dist.LogNormal(0.0, 1.0))
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("n", len(x)):
        z = mx.sample("z", dist.Bernoulli(share))
        mx.sample("x", dist.Normal(locs[z], scale), obs=x)


def negative_log_density(v: np.ndarray) -> float:
    """Of the mixture on the unconstrained scale, in NumPy: share = expit(v0), scale = exp(v1)."""
    share, scale, locs = special.expit(v[0]), np.exp(v[1]), v[2:]
    log_p = stats.beta.logpdf(share, 2.0, 3.0) + np.log(share) + np.log1p(-share)
    log_p += stats.norm.logpdf(v[1]) + stats.norm.logpdf(locs, 0.0, 10.0).sum()
    each = stats.norm.logpdf(DATA[:, None], locs, scale) + np.log([1 - share, share])
    return -(log_p + np.logaddexp.reduce(each, axis=1).sum())


def finite_differences(f: Any, x: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """The Hessian by central differences, whose error is h^2 of a fourth derivative."""
    steps = h * np.eye(len(x))

    def entry(a: np.ndarray, b: np.ndarray) -> float:
        return (f(x + a + b) - f(x + a - b) - f(x - a + b) + f(x - a - b)) / (4 * h**2)

    return np.array([[entry(a, b) for a in steps] for b in steps])


def test_a_mixture_has_the_curvature_with_assignments_summed_out():
    mode = optimize.minimize(
        negative_log_density, [0.0, 0.0, 0.0, 7.0], method="BFGS", options={"gtol": 1e-6}
    ).x
    hessian = finite_differences(negative_log_density, mode)
    with jax.enable_x64(True):
        params = {"auto_loc": jnp.asarray(mode)}
        blocked = mx.handlers.block(mixture, hide=["z"])
        for model in (mixture, blocked):
            guide = AutoLaplaceApproximation(model)
            # A fresh array: JAX remembers the precision in which it first met one of NumPy's.
            posterior: Any = guide.get_posterior(params, DATA.copy())
            np.testing.assert_allclose(
                posterior.precision_matrix, hessian, rtol=1e-4, atol=1e-4 * np.abs(hessian).max()
            )
        elbo = TraceEnum_ELBO()
        loss, slope = jax.jit(
            jax.value_and_grad(lambda p: elbo.loss(KEY, p, mixture, guide, DATA))
        )(params)
        np.testing.assert_allclose(loss, negative_log_density(mode), rtol=1e-9)
        np.testing.assert_allclose(slope["auto_loc"], np.zeros(4), atol=1e-4)


def test_a_parameter_of_the_model_enters_the_curvature():
    def model(x: Any) -> None:
        width = mx.param("width", 1.0)
        mx.sample("x", dist.Normal(mx.sample("loc", dist.Normal(0.0, 1.0)), width), obs=x)

    guide = AutoLaplaceApproximation(model)
    params = {"auto_loc": jnp.zeros(1), "width": jnp.asarray(0.5)}
    np.testing.assert_allclose(guide.get_posterior(params, 1.0).variance, [1 / (1 + 4)], rtol=1e-5)


def test_a_hessian_may_be_computed_by_the_user():
    def doubled(f: Any, x: Any) -> Any:
        return 2.0 * jax.hessian(f)(x)

    guide = AutoLaplaceApproximation(shrunk, hessian_fn=doubled)
    posterior: Any = guide.get_posterior({"auto_loc": jnp.zeros(3)}, DATA[:2])
    np.testing.assert_allclose(posterior.precision_matrix, 2 * precision(2), rtol=1e-4, atol=1e-5)


def test_a_hessian_of_another_shape_is_an_error():
    guide = AutoLaplaceApproximation(shrunk, hessian_fn=lambda f, x: jnp.ones(3))
    with pytest.raises(ValueError, match=r"hessian_fn must return .* \(3, 3\)"):
        guide.get_posterior({"auto_loc": jnp.zeros(3)}, DATA[:2])


def flat() -> Any:
    """A prior that says nothing: masked out."""
    return dist.Normal(0.0, 1.0).mask(False)


def test_a_direction_that_nothing_determines_is_named():
    def model(x: Any) -> None:
        a, b = mx.sample("a", flat()), mx.sample("b", flat())
        mx.sample("x", dist.Normal(a + 2.0 * b, 1.0), obs=x)

    with pytest.raises(mx.ModelError, match="is flat along 0.89 'a' - 0.45 'b' "):
        AutoLaplaceApproximation(model).get_posterior({"auto_loc": jnp.zeros(2)}, 1.0)


def test_a_site_that_nothing_determines_is_named():
    def model(x: Any) -> None:
        mx.sample("free", flat())
        mx.sample("x", dist.Normal(mx.sample("a", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    with pytest.raises(mx.ModelError, match="flat in 'free'"):
        AutoLaplaceApproximation(model).get_posterior({"auto_loc": jnp.zeros(2)}, 1.0)


def test_sites_on_very_different_scales_are_not_taken_for_flat_ones():
    def model() -> None:
        mx.sample("large", dist.Normal(0.0, 1e5))
        mx.sample("small", dist.Normal(0.0, 1e-5))

    guide = AutoLaplaceApproximation(model)
    mx.handlers.seed(guide, rng_seed=0)()
    deviation = np.sqrt(guide.get_posterior({"auto_loc": jnp.zeros(2)}).variance)
    np.testing.assert_allclose(deviation, [1e5, 1e-5], rtol=1e-5)


def test_a_saddle_is_no_mode():
    # With both components in the middle of two groups, moving them apart is an ascent.
    def model(x: Any) -> None:
        with mx.plate("components", 2):
            locs = mx.sample("locs", dist.Normal(0.0, 10.0))
        with mx.plate("n", len(x)):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)

    x = jnp.array([-1.1, 1.1])
    with pytest.raises(mx.ModelError, match=r"curved upwards .*along .*'locs'\[0\].*'locs'\[1\]"):
        AutoLaplaceApproximation(model).get_posterior({"auto_loc": jnp.zeros(2)}, x)


def test_a_curvature_that_is_not_finite_is_an_error():
    def model() -> None:
        a = mx.sample("a", dist.Normal(0.0, 1.0))
        mx.factor("kink", -(jnp.abs(a) ** 1.5))

    guide = AutoLaplaceApproximation(model)
    mx.handlers.seed(guide, rng_seed=0)()
    with pytest.raises(mx.ModelError, match="second derivative .*'a'.*not finite"):
        guide.get_posterior({"auto_loc": jnp.zeros(1)})


def test_data_that_were_traced_are_asked_for():
    guide = AutoLaplaceApproximation(shrunk, init_loc_fn=init_to_value(values={"mu": 0.0}))
    x, params = jnp.asarray(DATA[:2]), {"auto_loc": jnp.zeros(3)}
    jax.eval_shape(mx.handlers.seed(guide, rng_seed=0), x)
    assert guide.median(params)["effect"].shape == (2,)
    with pytest.raises(mx.ModelError, match="last run was traced.*arguments after the parameters"):
        guide.get_posterior(params)
    assert guide.sample_posterior(KEY, params, x)["effect"].shape == (2,)


def test_the_curvature_is_not_asked_for_while_tracing():
    guide = AutoLaplaceApproximation(shrunk)
    with pytest.raises(mx.ModelError, match="only be checked with numbers.*inside jax.jit"):
        jax.jit(lambda p: guide.get_posterior(p, DATA).mean)({"auto_loc": jnp.zeros(7)})


def test_a_hidden_continuous_site_is_an_error():
    guide = AutoLaplaceApproximation(mx.handlers.block(mixture, hide=["scale"]))
    with pytest.raises(mx.ModelError, match="'scale'.*hidden from AutoLaplaceApproximation"):
        guide.get_posterior({"auto_loc": jnp.zeros(3)}, DATA)
