"""AutoNormal: its bound, draws and quantiles, against closed forms, quadrature, SciPy and NumPyro."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.infer.autoguide
import optax
import pytest
from closeness import assert_mean, assert_same
from guide_runs import abstract_run
from numpyro.distributions import constraints
from scipy import stats
from scipy.special import gammaln

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, init_to_value
from marginax.infer.autoguide import AutoNormal

KEY = jax.random.key(0)
DRAWS = 4000
COUNTS = np.array([3, 5, 4, 0])
DATA = np.array([-2.0, 0.0, 1.0, 6.0, 7.0, 9.0])


def particles(model: Any, guide: Any, params: Any, *args: Any) -> tuple[Any, Any]:
    """Losses of single particles and their gradients."""

    def one(key: Any) -> Any:
        elbo = TraceEnum_ELBO()
        return jax.value_and_grad(lambda p: elbo.loss(key, p, model, guide, *args))(params)

    return jax.jit(jax.vmap(one))(jax.random.split(KEY, DRAWS))


def assert_bound(model: Any, guide: Any, params: Any, closed_form: Any, *args: Any) -> None:
    """Loss and gradient are those of a closed form in expectation."""
    params = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)
    losses, gradients = particles(model, guide, params, *args)
    expected, slopes = jax.value_and_grad(closed_form)(params)
    assert_mean(losses, expected)
    for name in params:
        assert_mean(gradients[name], slopes[name])


def entropy(scale: Any) -> Any:
    return jnp.sum(0.5 * jnp.log(2 * jnp.pi * jnp.e * scale**2))


def expected_normal(distance: Any, variance: Any, scale: float) -> Any:
    """Expected log density of a normal whose distance from its mean has that mean and variance."""
    return jnp.sum(
        -0.5 * jnp.log(2 * jnp.pi * scale**2) - (distance**2 + variance) / (2 * scale**2)
    )


def counts(x: Any, pp: Any = mx) -> None:
    rate = pp.sample("rate", dist.Gamma(2.0, 0.5))
    with pp.plate("n", len(x)):
        pp.sample("x", dist.Poisson(rate), obs=x)


COUNT_PARAMS = {"rate_auto_loc": 1.1, "rate_auto_scale": 0.3}


def test_a_positive_site_has_the_bound_of_a_log_normal():
    def closed_form(p: Any) -> Any:
        m, s = p["rate_auto_loc"], p["rate_auto_scale"]
        total, n = COUNTS.sum(), len(COUNTS)
        # E[rate] = exp(m + s^2 / 2), E[log rate] = m, and the entropy of a log-normal is m + that of its log.
        log_p = 2.0 * np.log(0.5) - gammaln(2.0) + (1.0 + total) * m - gammaln(COUNTS + 1.0).sum()
        return -(log_p - (0.5 + n) * jnp.exp(m + s**2 / 2) + m + entropy(s))

    assert_bound(counts, AutoNormal(counts), COUNT_PARAMS, closed_form, COUNTS)


def test_a_mixture_has_the_bound_that_quadrature_gives():
    def mixture(x: Any) -> None:
        gap = mx.sample("gap", dist.Normal(0.0, 3.0))
        with mx.plate("n", len(x)):
            z = mx.sample("z", dist.Bernoulli(0.3))
            mx.sample("x", dist.Normal(gap * z, 1.0), obs=x)

    x = jnp.array([0.1, 2.5, 3.0])
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def log_normal(v: Any, loc: Any, scale: Any) -> Any:
        return -0.5 * ((v - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)

    def closed_form(p: Any) -> Any:
        gap = p["gap_auto_loc"] + p["gap_auto_scale"] * nodes
        each = jnp.logaddexp(
            jnp.log(0.7) + log_normal(x, 0.0, 1.0),
            jnp.log(0.3) + log_normal(x, gap[:, None], 1.0),
        )
        log_p = log_normal(gap, 0.0, 3.0) + each.sum(axis=1)
        return -(weights @ log_p + entropy(p["gap_auto_scale"]))

    params = {"gap_auto_loc": 2.0, "gap_auto_scale": 0.7}
    assert_bound(mixture, AutoNormal(mixture), params, closed_form, x)


def effects(x: Any, subsample_size: int | None = None) -> None:
    """A normal mean for each point, shrunk towards a common one."""
    mu = mx.sample("mu", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(x), subsample_size=subsample_size):
        effect = mx.sample("effect", dist.Normal(mu, 2.0))
        flip = mx.sample("flip", dist.Bernoulli(0.5))
        y = mx.subsample(x, event_dim=0)
        mx.sample("x", dist.Normal(effect + 0.0 * flip, 1.0), obs=y)


EFFECT_PARAMS = {
    "mu_auto_loc": 1.0,
    "mu_auto_scale": 0.5,
    "effect_auto_loc": 0.8 * DATA,
    "effect_auto_scale": np.linspace(0.4, 0.9, 6),
}


def effects_bound(p: Any) -> Any:
    m, s = p["mu_auto_loc"], p["mu_auto_scale"]
    loc, scale = p["effect_auto_loc"], p["effect_auto_scale"]
    log_p = (
        expected_normal(m, s**2, 10.0)
        + expected_normal(loc - m, scale**2 + s**2, 2.0)
        + expected_normal(DATA - loc, scale**2, 1.0)
    )
    return -(log_p + entropy(s) + entropy(scale))


@pytest.mark.parametrize("subsample_size", [None, 3])
def test_sites_in_a_plate_have_their_bound_subsampled_or_not(subsample_size: int | None):
    args = (DATA, subsample_size)
    assert_bound(effects, AutoNormal(effects), EFFECT_PARAMS, effects_bound, *args)


def test_a_guide_of_a_subsample_is_asked_about_all_elements():
    guide = AutoNormal(effects)
    trace = abstract_run(guide, DATA, 3)
    assert trace["effect"]["value"].shape == (3,)
    assert_same(guide.median(EFFECT_PARAMS)["effect"], 0.8 * DATA)
    draws = guide.sample_posterior(KEY, EFFECT_PARAMS, sample_shape=(2,))
    assert draws["effect"].shape == (2, 6)


def nested(rows: int | None = None, columns: int | None = None) -> None:
    with mx.plate("rows", 4, subsample_size=rows, dim=-2):
        scale = mx.sample("scale", dist.HalfNormal(1.0))
        with mx.plate("columns", 3, subsample_size=columns, dim=-1):
            shares = mx.sample("shares", dist.Dirichlet(jnp.ones(3)))
            z = mx.sample("z", dist.Categorical(shares))
            mx.sample("x", dist.Normal(z, scale), obs=1.0)


@pytest.mark.parametrize("sizes", [(None, None), (2, None), (2, 2)])
def test_parameters_in_nested_plates_are_for_every_element(sizes: Any):
    trace = abstract_run(AutoNormal(nested), *sizes)
    rows, columns = sizes[0] or 4, sizes[1] or 3
    assert trace["shares_auto_loc"]["value"].shape == (4, 3, 2)
    assert trace["scale_auto_scale"]["value"].shape == (4, 1)
    assert trace["shares"]["value"].shape == (rows, columns, 3)
    assert trace["scale"]["value"].shape == (rows, 1)
    assert [f.name for f in trace["shares"]["cond_indep_stack"]] == ["columns", "rows"]
    assert trace["shares"]["fn"].event_shape == (3,)


@pytest.mark.slow
def test_a_fit_in_nested_subsampled_plates_runs():
    guide = AutoNormal(nested)
    svi = SVI(nested, guide, optax.adam(0.05), TraceEnum_ELBO())
    result = svi.run(KEY, 3, 2, 2, progress_bar=False, num_restarts=2)
    assert np.isfinite(result.losses).all()
    assert_same(guide.median(result.params)["shares"].sum(-1), np.ones((4, 3)))


def test_a_scanned_site_has_a_parameter_for_every_step():
    y = jnp.array([0.5, 1.0, 3.0, 2.0])

    def walk(y: Any) -> None:
        def step(x: Any, y: Any) -> Any:
            x = mx.sample("x", dist.Normal(x, 1.5))
            mx.sample("y", dist.Normal(x, 0.5), obs=y)
            return x, None

        mx.scan(step, 0.0, y)

    def closed_form(p: Any) -> Any:
        loc, scale = p["x_auto_loc"], p["x_auto_scale"]
        before, spread = (jnp.concatenate([jnp.zeros(1), v[:-1]]) for v in (loc, scale))
        log_p = expected_normal(loc - before, scale**2 + spread**2, 1.5)
        return -(log_p + expected_normal(y - loc, scale**2, 0.5) + entropy(scale))

    params = {"x_auto_loc": 0.9 * y, "x_auto_scale": jnp.array([0.3, 0.4, 0.5, 0.6])}
    guide = AutoNormal(walk)
    assert_bound(walk, guide, params, closed_form, y)
    assert guide.sample_posterior(KEY, params, sample_shape=(3,))["x"].shape == (3, 4)


def supports() -> None:
    mx.sample("real", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    mx.sample("positive", dist.HalfNormal(1.0))
    mx.sample("unit", dist.Beta(1.0, 1.0).expand([2]).to_event(1))
    mx.sample("below", dist.TruncatedNormal(0.0, 1.0, high=3.0))
    mx.sample("shares", dist.Dirichlet(jnp.ones(3)))
    mx.sample("factor", dist.LKJCholesky(3, 1.0))


SUPPORT_PARAMS: dict[str, Any] = {
    f"{name}_auto_{what}": jnp.asarray(value)
    for name, loc, scale in (
        ("real", [0.3, -0.2], [0.5, 1.5]),
        ("positive", 0.4, 0.7),
        ("unit", [-1.0, 0.5], [0.6, 0.2]),
        ("below", 0.2, 0.4),
        ("shares", [0.2, -0.4], [0.3, 0.8]),
        ("factor", [0.1, 0.4, -0.3], [0.3, 0.2, 0.4]),
    )
    for what, value in (("loc", loc), ("scale", scale))
}


def reference(name: str) -> Any:
    """SciPy's distribution of a site's value."""
    loc, scale = (np.asarray(SUPPORT_PARAMS[f"{name}_auto_{what}"]) for what in ("loc", "scale"))
    return stats.norm(loc, scale)


def test_quantiles_are_those_of_the_value():
    guide = AutoNormal(supports)
    abstract_run(guide)
    asked = np.array([0.1, 0.5, 0.8])
    # Compiled: one program instead of one for each operation.
    found = jax.jit(lambda p: guide.quantiles(p, asked))(SUPPORT_PARAMS)
    expected = {
        "real": reference("real").ppf(asked[:, None]),
        "positive": np.exp(reference("positive").ppf(asked)),
        "unit": 1 / (1 + np.exp(-reference("unit").ppf(asked[:, None]))),
        # 3 - exp(normal) falls as the normal rises.
        "below": 3 - np.exp(reference("below").ppf(1 - asked)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
    assert found["shares"].shape == (3, 3)
    assert found["factor"].shape == (3, 3, 3)
    medians = jax.jit(guide.median)(SUPPORT_PARAMS)
    middle = jax.jit(lambda p: guide.quantiles(p, 0.5))(SUPPORT_PARAMS)
    for name, value in medians.items():
        np.testing.assert_allclose(found[name][1], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(middle[name], value, rtol=1e-5, atol=1e-6)


def test_draws_follow_the_distribution_of_the_value():
    guide = AutoNormal(supports)
    abstract_run(guide)
    shape = (DRAWS // 2, 2)
    draws = jax.jit(lambda p: guide.sample_posterior(KEY, p, sample_shape=shape))(SUPPORT_PARAMS)
    flat = {name: v.reshape(DRAWS, *v.shape[2:]) for name, v in draws.items()}
    assert_mean(flat["real"], reference("real").mean())
    loc, scale = (float(SUPPORT_PARAMS[f"positive_auto_{w}"]) for w in ("loc", "scale"))
    assert_mean(flat["positive"], np.exp(loc + scale**2 / 2))
    assert_mean(np.log(3.0 - flat["below"]), reference("below").mean())
    assert_same(flat["shares"].sum(-1), np.ones(DRAWS))
    assert_same(jnp.linalg.norm(flat["factor"], axis=-1), np.ones((DRAWS, 3)))


def test_densities_carry_the_jacobian_of_the_change_of_variables():
    guide = AutoNormal(supports)
    abstract_run(guide)
    posterior = guide.get_posterior(SUPPORT_PARAMS)
    draws = jax.jit(lambda p: guide.sample_posterior(KEY, p))(SUPPORT_PARAMS)
    assert posterior["factor"].batch_shape == ()
    # Of a probability vector, its first two numbers are coordinates; here as functions of the normals.
    stick = {"shares": 2, "positive": 1, "below": 1}
    sites = guide.continuous_sites()
    for name, count in stick.items():
        free = jnp.atleast_1d(sites[name].transform.inv(draws[name]))

        def coordinates(free: Any, site: Any = sites[name], count: int = count) -> Any:
            return jnp.ravel(site.transform(free.reshape(site.free_shape)))[:count]

        volume = np.log(np.abs(np.linalg.det(jax.jit(jax.jacfwd(coordinates))(free))))
        expected = reference(name).logpdf(np.asarray(free).reshape(sites[name].free_shape)).sum()
        found: Any = posterior[name].log_prob(draws[name])
        np.testing.assert_allclose(found, expected - volume, rtol=1e-4)


def test_a_model_without_discrete_sites_has_numpyros_medians_quantiles_and_loss():
    ours = AutoNormal(counts)
    theirs: Any = numpyro.infer.autoguide.AutoNormal(lambda x: counts(x, numpyro))
    abstract_run(ours, COUNTS)
    numpyro.handlers.seed(theirs, rng_seed=0)(COUNTS)
    params = jax.tree.map(jnp.asarray, COUNT_PARAMS)
    asked = [0.1, 0.6]
    for mine, other in (
        (ours.median(params), theirs.median(params)),
        (ours.quantiles(params, asked), theirs.quantiles(params, asked)),
    ):
        assert_same(mine["rate"], other["rate"])
    losses, _ = particles(counts, ours, params, COUNTS)
    elbo: Any = numpyro.infer.Trace_ELBO()

    def numpyros(key: Any) -> Any:
        return elbo.loss(key, params, lambda x: counts(x, numpyro), theirs, COUNTS)

    others = jax.jit(jax.vmap(numpyros))(jax.random.split(jax.random.key(1), DRAWS))
    error = np.hypot(np.std(losses), np.std(others)) / np.sqrt(DRAWS)
    assert abs(np.mean(losses) - np.mean(others)) < 5 * error


def test_locations_begin_where_the_strategy_says_and_scales_at_the_given_one():
    start = init_to_value(values={"rate": 2.0})
    guide = AutoNormal(counts, prefix="q", init_loc_fn=start, init_scale=0.25)
    trace: Any = mx.handlers.trace(mx.handlers.seed(guide, rng_seed=0)).get_trace(COUNTS)
    assert_same(trace["rate_q_loc"]["value"], np.log(2.0))
    assert_same(trace["rate_q_scale"]["value"], 0.25)
    assert list(mx.handlers.seed(guide, rng_seed=0)(COUNTS)) == ["rate"]


def test_a_block_around_discrete_sites_changes_nothing():
    guide = AutoNormal(mx.handlers.block(effects, hide=["flip"]))
    trace = abstract_run(guide, DATA)
    assert [n for n, s in trace.items() if s["type"] == "sample"] == ["mu", "effect"]


def test_a_site_with_one_possible_value_has_no_parameters():
    def model() -> None:
        mx.sample("weights", dist.Dirichlet(jnp.ones(1)))
        mx.sample("loc", dist.Normal(0.0, 1.0))

    guide = AutoNormal(model)
    result = SVI(model, guide, optax.adam(0.1), TraceEnum_ELBO()).run(KEY, 2, progress_bar=False)
    assert result.params.keys() == {"loc_auto_loc", "loc_auto_scale"}
    np.testing.assert_array_equal(guide.median(result.params)["weights"], [1.0])
    np.testing.assert_array_equal(guide.quantiles(result.params, 0.3)["weights"], [1.0])
    draws = guide.sample_posterior(KEY, result.params, sample_shape=(3,))
    np.testing.assert_array_equal(draws["weights"], np.ones((3, 1)))


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        guide = AutoNormal(counts)
        trace = abstract_run(guide, jnp.asarray(COUNTS))
        assert trace["rate_auto_loc"]["value"].dtype == np.float64
        params = {name: np.float64(value) for name, value in COUNT_PARAMS.items()}
        assert guide.median(params)["rate"].dtype == np.float64
        np.testing.assert_allclose(guide.median(params)["rate"], np.exp(1.1), rtol=1e-14)
        assert guide.quantiles(params, [0.5])["rate"].dtype == np.float64


@pytest.mark.parametrize("quantiles", [0.0, [0.5, 1.0], -0.1, [float("nan")]])
def test_a_quantile_lies_between_zero_and_one(quantiles: Any):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        AutoNormal(counts).quantiles(COUNT_PARAMS, quantiles, COUNTS)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), "wide"])
def test_an_initial_scale_is_a_positive_number(scale: Any):
    with pytest.raises(ValueError, match="AutoNormal: init_scale"):
        AutoNormal(counts, init_scale=scale)


def test_bounds_for_the_elements_present_only_are_refused():
    def model() -> None:
        with mx.plate("n", 6, subsample_size=3):
            mx.sample("x", dist.Uniform(np.zeros(3), 1.0))

    with pytest.raises(mx.ModelError, match="'x'.*bounds for the 3 elements.*'n'.*all 6"):
        abstract_run(AutoNormal(model))


def test_bounds_within_an_event_are_no_bounds_for_elements():
    def model() -> None:
        with mx.plate("n", 6, subsample_size=3):
            mx.sample("x", dist.Uniform(np.zeros(3), np.arange(1.0, 4.0)).to_event(1))

    guide = AutoNormal(model)
    abstract_run(guide)
    params = {"x_auto_loc": jnp.zeros((6, 3)), "x_auto_scale": jnp.ones((6, 3))}
    assert_same(guide.median(params)["x"], np.tile([0.5, 1.0, 1.5], (6, 1)))


def test_a_support_that_no_bijection_leads_into_is_refused():
    def model() -> None:
        mx.sample("x", dist.ImproperUniform(constraints.sphere, (), (3,)))

    with pytest.raises(mx.ModelError, match="'x'.*no bijection"):
        abstract_run(AutoNormal(model))
