"""Guides with one normal over all sites: exact for linear Gaussian models, NumPyro's elsewhere."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.infer.autoguide as numpyros
import optax
import pytest
from closeness import assert_mean, assert_same
from guide_runs import abstract_run
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, autoguide
from marginax.infer.autoguide import (
    AutoContinuous,
    AutoDiagonalNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)

KEY = jax.random.key(0)
GAUSSIAN: Any = stats.multivariate_normal
DRAWS = 4000
X = np.array([[1.0, 0.2, 0.0], [1.0, -0.4, 1.0], [1.0, 2.0, 0.5], [1.0, 0.3, 0.3]])
Y = np.array([0.5, 1.5, 3.0, -1.0])
PRIOR = np.diag([4.0, 1.0, 1.0])
NORMALS = (AutoDiagonalNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal)


def particles(model: Any, guide: Any, params: Any, *args: Any, draws: int = DRAWS) -> Any:
    """Losses of single particles and their gradients."""

    def one(key: Any) -> Any:
        elbo = TraceEnum_ELBO()
        return jax.value_and_grad(lambda p: elbo.loss(key, p, model, guide, *args))(params)

    return jax.jit(jax.vmap(one))(jax.random.split(KEY, draws))


def regression(x: Any, y: Any) -> None:
    """Linear, with a coin in every row that says nothing, to be summed out."""
    bias = mx.sample("bias", dist.Normal(0.0, 2.0))
    slopes = mx.sample("slopes", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with mx.plate("n", len(y)):
        mx.sample("coin", dist.Bernoulli(0.3))
        mx.sample("y", dist.Normal(bias + x[:, 1:] @ slopes, 1.0), obs=y)


COVARIANCE = np.linalg.inv(np.linalg.inv(PRIOR) + X.T @ X)
MEAN = COVARIANCE @ X.T @ Y
EVIDENCE = GAUSSIAN(np.zeros(4), np.eye(4) + X @ PRIOR @ X.T).logpdf(Y)


def exact_params(kind: Any) -> dict[str, Any]:
    """The parameters at which the guide is the posterior."""
    loc = {"auto_loc": jnp.asarray(MEAN, jnp.float32)}
    if kind is AutoMultivariateNormal:
        return loc | {"auto_scale_tril": jnp.asarray(np.linalg.cholesky(COVARIANCE), jnp.float32)}
    own = (
        0.5 * np.linalg.eigvalsh(COVARIANCE)[0]
    )  # a part for the diagonal, the rest for the factor
    factor = np.linalg.cholesky(COVARIANCE - own * np.eye(3)) / np.sqrt(own)
    scale = np.full(3, np.sqrt(own))
    return loc | {
        "auto_cov_factor": jnp.asarray(factor, jnp.float32),
        "auto_scale": jnp.asarray(scale, jnp.float32),
    }


@pytest.mark.parametrize("kind", [AutoMultivariateNormal, AutoLowRankMultivariateNormal])
def test_at_the_posterior_every_single_draw_gives_the_evidence(kind: Any):
    options: dict[str, Any] = {"rank": 3} if kind is AutoLowRankMultivariateNormal else {}
    guide, params = kind(regression, **options), exact_params(kind)
    losses, gradients = particles(regression, guide, params, X, Y)
    # log p - log q is constant, but for the rounding of a sum of some ten terms.
    np.testing.assert_allclose(losses, np.full(DRAWS, -EVIDENCE), rtol=1e-5)
    for name, gradient in gradients.items():
        if name == "auto_scale_tril":  # what is above the diagonal is no parameter
            gradient = gradient[:, *np.tril_indices(3)]
        assert_mean(gradient, np.zeros(gradient.shape[1:]))
    posterior: Any = guide.get_posterior(params)
    np.testing.assert_allclose(posterior.covariance_matrix, COVARIANCE, rtol=1e-5, atol=1e-6)
    ends = jax.jit(lambda p: guide.quantiles(p, [0.1, 0.9]))(params)
    deviation = np.sqrt(np.diag(COVARIANCE))
    expected = stats.norm(MEAN, deviation).ppf([[0.1], [0.9]])
    np.testing.assert_allclose(ends["bias"], expected[:, 0], rtol=1e-4)
    np.testing.assert_allclose(ends["slopes"], expected[:, 1:], rtol=1e-4)
    draws = jax.jit(lambda p: guide.sample_posterior(KEY, p, sample_shape=(DRAWS,)))(params)
    vectors = np.concatenate([draws["bias"][:, None], draws["slopes"]], axis=1) - MEAN
    assert_mean(vectors, np.zeros(3))
    assert_mean(vectors[:, :, None] * vectors[:, None, :], COVARIANCE)


def test_a_diagonal_normal_has_the_bound_in_closed_form():
    guide = AutoDiagonalNormal(regression)
    params = {"auto_loc": jnp.array([0.2, 0.5, -0.3]), "auto_scale": jnp.array([0.4, 0.6, 0.8])}

    def closed_form(p: Any) -> Any:
        loc, scale = p["auto_loc"], p["auto_scale"]
        second = loc**2 + scale**2
        prior = 0.5 * jnp.sum(jnp.log(2 * jnp.pi * np.diag(PRIOR)) + second / np.diag(PRIOR))
        misfit = (Y - X @ loc) ** 2 + X**2 @ scale**2
        likelihood = 0.5 * jnp.sum(jnp.log(2 * jnp.pi) + misfit)
        return prior + likelihood - 0.5 * jnp.sum(jnp.log(2 * jnp.pi * jnp.e * scale**2))

    losses, gradients = particles(regression, guide, params, X, Y)
    expected, slopes = jax.value_and_grad(closed_form)(params)
    assert_mean(losses, expected)
    for name in params:
        assert_mean(gradients[name], slopes[name])


def test_svi_finds_the_posterior_from_several_beginnings():
    guide = AutoMultivariateNormal(regression)
    schedule = optax.exponential_decay(0.1, 1, 0.99)
    svi = SVI(regression, guide, optax.adam(schedule), TraceEnum_ELBO(num_particles=8))
    result = svi.run(KEY, 800, X, Y, progress_bar=False, num_restarts=2)
    posterior: Any = guide.get_posterior(result.params)
    loc, covariance = np.asarray(posterior.mean), np.asarray(posterior.covariance_matrix)
    ratio = np.linalg.solve(COVARIANCE, covariance)
    off = MEAN - loc
    divergence = 0.5 * (np.trace(ratio) - 3 - np.linalg.slogdet(ratio)[1])
    divergence += 0.5 * off @ np.linalg.solve(COVARIANCE, off)
    # As large with means a tenth of a deviation apart. The last steps, 0.1 * 0.99**800 = 3e-5, are far smaller.
    assert divergence < 0.5 * 0.1**2


def supports() -> None:
    mx.sample("real", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    mx.sample("unit", dist.Beta(1.0, 1.0).expand([2]).to_event(1))
    mx.sample("below", dist.TruncatedNormal(0.0, 1.0, high=3.0))
    with mx.plate("rows", 2):
        mx.sample("shares", dist.Dirichlet(jnp.ones(3)))
        mx.sample("factor", dist.LKJCholesky(3, 1.0))


def test_its_density_in_the_models_variables_is_that_of_separate_normals():
    joint, apart = AutoDiagonalNormal(supports), AutoNormal(supports)
    sites = apart.continuous_sites()
    abstract_run(apart)
    loc, scale = np.linspace(-0.5, 0.5, 15), np.linspace(0.3, 0.9, 15)
    params, start = {"auto_loc": jnp.asarray(loc), "auto_scale": jnp.asarray(scale)}, 0
    for name, site in sites.items():
        count = int(np.prod(site.free_shape))
        for what, value in (("loc", loc), ("scale", scale)):
            part = value[start : start + count].reshape(site.free_shape)
            params[f"{name}_auto_{what}"] = jnp.asarray(part)
        start += count
    assert start == 15

    @jax.jit
    def densities(params: Any) -> Any:
        run = mx.handlers.substitute(mx.handlers.seed(joint, rng_seed=0), data=params)
        trace = mx.handlers.trace(run).get_trace()
        latent = {n: s for n, s in trace.items() if s["type"] == "sample"}
        together = [jnp.sum(s["fn"].log_prob(s["value"])) for s in latent.values()]
        posterior: Any = apart.get_posterior(params)
        separate = [jnp.sum(q.log_prob(latent[n]["value"])) for n, q in posterior.items()]
        return sum(together), sum(separate)

    together, separate = densities(params)
    np.testing.assert_allclose(together, separate, rtol=1e-4)
    asked = [0.2, 0.7]
    one, other = (jax.jit(lambda p, g=g: g.quantiles(p, asked))(params) for g in (joint, apart))
    for name in sites:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5)


def two(pp: Any) -> Any:
    """A model for both libraries; the second site's name comes first in the alphabet."""

    def model() -> None:
        rate = pp.sample("rate", dist.Gamma(2.0, 1.0))
        pp.sample("amounts", dist.Normal(rate, 1.0).expand([2]).to_event(1))

    return model


TWO_PARAMS = {
    "auto_loc": jnp.array([0.5, 1.0, 2.0]),
    "auto_scale": jnp.array([0.3, 0.5, 1.1]),
    "auto_scale_tril": jnp.array([[0.3, 0.0, 0.0], [0.2, 0.8, 0.0], [-0.4, 0.1, 0.7]]),
    "auto_cov_factor": jnp.array([[0.4, 0.1], [0.9, -0.3], [-0.2, 0.5]]),
}


@pytest.mark.parametrize("kind", NORMALS)
def test_it_means_what_numpyros_guide_of_that_name_means(kind: Any):
    ours, theirs = kind(two(mx)), getattr(numpyros, kind.__name__)(two(numpyro))
    trace = abstract_run(ours)
    numpyro.handlers.seed(theirs, rng_seed=0)()
    named = {n: s["value"].shape for n, s in trace.items() if s["type"] == "param"}
    params = {n: TWO_PARAMS[n] for n in named}
    asked = [0.1, 0.6]
    mine, other = (
        jax.jit(lambda p, g=guide: (g.median(p), g.quantiles(p, asked)))(params)
        for guide in (ours, theirs)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), mine, other)
    mine, other = ours.get_posterior(params), theirs.get_posterior(params)
    assert_same(mine.mean, other.mean)
    assert_same(mine.variance, other.variance)


def test_it_has_numpyros_loss():
    ours, theirs = (
        kind(two(pp), rank=2)
        for kind, pp in (
            (AutoLowRankMultivariateNormal, mx),
            (numpyros.AutoLowRankMultivariateNormal, numpyro),
        )
    )
    numpyro.handlers.seed(theirs, rng_seed=0)()
    params = {n: v for n, v in TWO_PARAMS.items() if n != "auto_scale_tril"}
    losses, _ = particles(two(mx), ours, params)
    elbo: Any = numpyro.infer.Trace_ELBO()
    keys = jax.random.split(jax.random.key(1), DRAWS)
    others = jax.jit(jax.vmap(lambda key: elbo.loss(key, params, two(numpyro), theirs)))(keys)
    error = np.hypot(np.std(losses), np.std(others)) / np.sqrt(DRAWS)
    assert abs(np.mean(losses) - np.mean(others)) < 5 * error


def mixture(x: Any, subsample_size: int | None = None) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(x), subsample_size=subsample_size):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=mx.subsample(x, event_dim=0))


@pytest.mark.parametrize("kind", NORMALS)
def test_parameters_and_sites_have_numpyros_names(kind: Any):
    guide = kind(mx.handlers.block(mixture, hide=["z"]), prefix="q")
    trace = abstract_run(guide, Y)
    shapes = {n: s["value"].shape for n, s in trace.items() if s["type"] == "param"}
    assert (
        shapes
        == {
            AutoDiagonalNormal: {"q_loc": (3,), "q_scale": (3,)},
            AutoMultivariateNormal: {"q_loc": (3,), "q_scale_tril": (3, 3)},
            AutoLowRankMultivariateNormal: {"q_loc": (3,), "q_cov_factor": (3, 2), "q_scale": (3,)},
        }[kind]
    )
    sampled = [n for n, s in trace.items() if s["type"] == "sample"]
    assert sampled == ["_q_latent", "weights", "locs"]
    assert trace["_q_latent"]["infer"]["is_auxiliary"]
    assert [f.name for f in trace["locs"]["cond_indep_stack"]] == ["components"]


def test_a_mixture_is_fitted_on_subsamples():
    guide = AutoMultivariateNormal(mixture)
    svi = SVI(mixture, guide, optax.adam(0.05), TraceEnum_ELBO())
    result = svi.run(KEY, 3, Y, 2, progress_bar=False, num_restarts=2)
    assert np.isfinite(result.losses).all()
    assert guide.sample_posterior(KEY, result.params, sample_shape=(2,))["locs"].shape == (2, 2)


def test_a_scanned_site_is_part_of_the_vector():
    y = jnp.array([0.5, 1.0, 3.0])

    def walk(y: Any) -> None:
        def step(x: Any, y: Any) -> Any:
            x = mx.sample("x", dist.Normal(x, 1.0))
            mx.sample("y", dist.Normal(x, 1.0), obs=y)
            return x, None

        mx.scan(step, 0.0, y)

    sums = np.tril(np.ones((3, 3)))  # a walk is the sums of its steps
    prior = sums @ sums.T
    covariance = np.linalg.inv(np.linalg.inv(prior) + np.eye(3))
    params = {
        "auto_loc": jnp.asarray(covariance @ y, jnp.float32),
        "auto_scale_tril": jnp.asarray(np.linalg.cholesky(covariance), jnp.float32),
    }
    losses, _ = particles(walk, AutoMultivariateNormal(walk), params, y, draws=10)
    evidence = GAUSSIAN(np.zeros(3), prior + np.eye(3)).logpdf(y)
    np.testing.assert_allclose(losses, np.full(10, -evidence), rtol=1e-5)


def test_local_sites_in_a_subsampled_plate_are_refused():
    def model() -> None:
        with mx.plate("n", 6, subsample_size=3):
            mx.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(mx.ModelError, match="'x'.*subsampled plate 'n'.*AutoNormal"):
        abstract_run(AutoDiagonalNormal(model))


def test_a_model_without_continuous_sites_has_nothing_to_guide():
    with pytest.raises(mx.ModelError, match="AutoMultivariateNormal.*no continuous latent site"):
        abstract_run(AutoMultivariateNormal(lambda: mx.sample("z", dist.Bernoulli(0.5))))


def test_a_vector_of_another_length_is_an_error():
    params = {"auto_loc": jnp.zeros(2), "auto_scale": jnp.ones(2)}
    with pytest.raises(mx.ModelError, match=r"'auto_scale'.*\(2,\).*\(3,\)"):
        AutoDiagonalNormal(regression).get_posterior(params, X, Y)


@pytest.mark.parametrize("rank", [0, 1.5])
def test_a_rank_is_a_positive_integer(rank: Any):
    with pytest.raises(ValueError, match="rank must be an integer >= 1"):
        AutoLowRankMultivariateNormal(regression, rank=rank)


@pytest.mark.parametrize("kind", NORMALS)
def test_an_initial_scale_is_positive(kind: Any):
    with pytest.raises(ValueError, match=f"{kind.__name__}: init_scale"):
        kind(regression, init_scale=0.0)


def test_the_kinds_share_one_base():
    assert all(issubclass(kind, AutoContinuous) for kind in NORMALS)
    assert issubclass(AutoContinuous, autoguide.AutoGuide)
