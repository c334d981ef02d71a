"""The density that MCMC moves on: it integrates to one, and it is what one writes by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_same
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.infer import init_to_feasible, init_to_uniform, init_to_value
from marginax.infer.known import know
from marginax.infer.target import Target, initial_position, make_target

KEY = jax.random.key(0)
DATA = np.array([0.3, -1.2, 2.5, 4.0])


def target_of(model: Any, *args: Any) -> Target:
    return make_target(model, args, {})


def on_grid(target: Target, **axes: np.ndarray) -> tuple[Any, dict[str, Any], float]:
    """Density and constrained values on a grid over the unconstrained scale, and its cell's size."""
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    positions = {name: jnp.asarray(m.ravel()) for name, m in zip(axes, mesh, strict=True)}
    density = jnp.exp(jax.jit(jax.vmap(target.log_density))(positions))
    values = jax.jit(jax.vmap(target.constrain))(positions)
    cell = float(np.prod([axis[1] - axis[0] for axis in axes.values()]))
    return np.asarray(density, np.float64), values, cell


# -- changes of variables, by integration


@pytest.mark.parametrize(
    ("name", "distribution", "mean", "variance"),
    [
        ("Normal", dist.Normal(1.0, 2.0), 1.0, 4.0),
        ("LogNormal", dist.LogNormal(0.5, 0.4), np.exp(0.58), (np.exp(0.16) - 1) * np.exp(1.16)),
        ("Gamma", dist.Gamma(3.0, 2.0), 1.5, 0.75),
        ("Beta", dist.Beta(2.0, 3.0), 0.4, 0.04),
        ("Uniform", dist.Uniform(-1.0, 3.0), 1.0, 16 / 12),
    ],
)
def test_the_density_on_the_unconstrained_scale_has_the_priors_moments(
    name: str, distribution: Any, mean: float, variance: float
):
    def model() -> None:
        mx.sample("x", distribution)

    # The trapezoidal rule is exact to rounding for densities that vanish smoothly at both ends.
    density, values, cell = on_grid(target_of(model), x=np.linspace(-18.0, 18.0, 2001))
    x = np.asarray(values["x"], np.float64)
    assert_same(np.float32(density.sum() * cell), 1.0)
    assert_same(np.float32((x * density).sum() * cell), mean)
    assert_same(np.float32(((x - mean) ** 2 * density).sum() * cell), variance)


def test_a_simplex_of_three_has_two_unconstrained_dimensions():
    alpha = np.array([1.5, 2.0, 3.0])

    def model() -> None:
        mx.sample("w", dist.Dirichlet(alpha))

    target = target_of(model)
    axis = np.linspace(-16.0, 16.0, 321)
    mesh = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    density = jnp.exp(jax.jit(jax.vmap(target.log_density))({"w": jnp.asarray(mesh)}))
    w = jax.jit(jax.vmap(target.constrain))({"w": jnp.asarray(mesh)})["w"]
    cell = (axis[1] - axis[0]) ** 2
    assert_same(jnp.sum(density) * cell, 1.0)
    assert_same(jnp.sum(density[:, None] * w, axis=0) * cell, alpha / alpha.sum())
    assert_same(jnp.sum(density * w[:, 0] * w[:, 1]) * cell, 1.5 * 2.0 / (6.5 * 7.5))


def test_bounds_may_depend_on_another_site():
    def model() -> None:
        high = mx.sample("high", dist.Gamma(4.0, 2.0))
        mx.sample("x", dist.Uniform(-1.0, high))

    axis = np.linspace(-14.0, 14.0, 561)
    density, values, cell = on_grid(target_of(model), high=np.linspace(-5, 4, 361), x=axis)
    high, x = (np.asarray(values[n], np.float64) for n in ("high", "x"))
    assert (x <= high).all()
    assert_same(np.float32(density.sum() * cell), 1.0)
    assert_same(np.float32((density * high).sum() * cell), 2.0)
    assert_same(np.float32((density * x).sum() * cell), (2.0 - 1.0) / 2)


# -- against densities written by hand


def sigmoid(u: Any) -> Any:
    return 1 / (1 + np.exp(-u))


def log_gamma_prior(u: Any) -> Any:
    return stats.gamma.logpdf(np.exp(u), 3.0, scale=0.5) + u


def test_an_improper_prior_adds_its_jacobian_alone():
    def model() -> None:
        flat = dist.ImproperUniform(dist.constraints.positive, (), ())
        scale = mx.sample("scale", flat)
        with mx.plate("n", 4):
            mx.sample("x", dist.Normal(0.0, scale), obs=DATA)

    free = 0.3
    by_hand = np.sum(stats.norm.logpdf(DATA, 0, np.exp(free))) + free
    assert_same(target_of(model).log_density({"scale": jnp.asarray(free)}), by_hand)


def test_a_mixture_in_plates_is_what_one_writes_by_hand():
    def model(data: Any) -> None:
        weight = mx.sample("weight", dist.Beta(2.0, 3.0))
        with mx.plate("components", 2):
            locs = mx.sample("locs", dist.Normal(0.0, 10.0))
            scales = mx.sample("scales", dist.Gamma(3.0, 2.0))
        with mx.plate("data", len(data)):
            z = mx.sample("z", dist.Bernoulli(weight))
            mx.sample("x", dist.Normal(locs[z], scales[z]), obs=data)

    def by_hand(p: Any) -> Any:
        weight, scales = sigmoid(p["weight"]), np.exp(p["scales"])
        total = stats.beta.logpdf(weight, 2.0, 3.0) + np.log(weight * (1 - weight))
        total += stats.norm.logpdf(p["locs"], 0.0, 10.0).sum() + log_gamma_prior(p["scales"]).sum()
        low, high = (stats.norm.pdf(DATA, p["locs"][k], scales[k]) for k in range(2))
        return total + np.log((1 - weight) * low + weight * high).sum()

    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        target = target_of(model, DATA)
        density = jax.jit(target.log_density)
        slope = jax.jit(jax.grad(target.log_density))
        for _ in range(5):
            shapes = {"weight": (), "locs": (2,), "scales": (2,)}
            position = {name: rng.normal(size=shape) for name, shape in shapes.items()}
            assert_same(density(position), by_hand(position))
            eps = 1e-5
            for name, value in slope(position).items():
                for index in np.ndindex(np.shape(value)):
                    moved = [{n: v.copy() for n, v in position.items()} for _ in range(2)]
                    moved[0][name][index] = position[name][index] + eps
                    moved[1][name][index] = position[name][index] - eps
                    numeric = (by_hand(moved[0]) - by_hand(moved[1])) / (2 * eps)
                    # The error of a central difference: rounding / eps and eps**2, some 1e-9.
                    assert value[index] == pytest.approx(numeric, rel=1e-6, abs=1e-6)


def test_jacobians_stand_outside_of_scales_and_masks():
    def model(data: Any) -> None:
        with mx.handlers.scale(scale=3.0):
            scale = mx.sample("scale", dist.Gamma(3.0, 2.0))
        with mx.handlers.mask(mask=False):
            mx.sample("unused", dist.Gamma(1.0, 1.0))
        with mx.plate("data", len(data)):
            mx.sample("x", dist.Normal(0.0, scale), obs=data)

    def by_hand(u: float) -> float:
        prior = stats.gamma.logpdf(np.exp(u), 3.0, scale=0.5)
        return 3.0 * prior + u + stats.norm.logpdf(DATA, 0.0, np.exp(u)).sum()

    target = target_of(model, DATA)
    for u in (-0.3, 0.8):
        # A masked site adds nothing, whatever its constrained value: what is left is its Jacobian.
        assert_same(target.log_density({"scale": u, "unused": 0.7}), by_hand(u) + 0.7)


def test_a_site_that_is_called_like_the_factor_of_a_transform_is_refused():
    def model() -> None:
        mx.sample("x", dist.Gamma(3.0, 2.0))
        mx.sample("x (Jacobian)", dist.Normal(0.0, 1.0), obs=0.3)

    with pytest.raises(mx.ModelError, match=r"'x \(Jacobian\)'.*give it another"):
        target_of(model)


def test_a_site_of_a_scan_has_a_jacobian_at_every_step():
    def model(ys: Any) -> None:
        def step(rate: Any, y: Any) -> Any:
            rate = mx.sample("rate", dist.Gamma(2.0, 1.0 / (1.0 + rate)))
            mx.sample("y", dist.Normal(rate, 1.0), obs=y)
            return rate, None

        mx.scan(step, 0.0, ys)

    u = np.array([0.3, -0.5, 0.1])
    rate, ys = np.exp(u), np.array([1.0, 0.2, 1.4])
    before = np.array([0.0, *rate[:-1]])
    prior = stats.gamma.logpdf(rate, 2.0, scale=1.0 + before).sum()
    target = target_of(model, jnp.asarray(ys))
    by_hand = prior + u.sum() + stats.norm.logpdf(ys, rate).sum()
    assert_same(target.log_density({"rate": jnp.asarray(u)}), by_hand)
    np.testing.assert_allclose(target.constrain({"rate": jnp.asarray(u)})["rate"], rate, rtol=1e-6)


def test_the_density_agrees_with_the_marginals():
    def model(data: Any) -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 1.0))
        with mx.plate("data", len(data)):
            z = mx.sample("z", dist.Categorical(np.array([0.2, 0.3, 0.5])))
            mx.sample("x", dist.Normal(loc + z, 1.0), obs=data)

    value = target_of(model, DATA).log_density({"loc": jnp.array(0.4)})
    assert_same(value, mx.marginalize(model).log_density({"loc": 0.4}, DATA))


def test_a_compiled_density_is_the_density():
    def model(data: Any) -> None:
        scale = mx.sample("scale", dist.Gamma(3.0, 2.0), sample_shape=(2,))
        mx.sample("x", dist.Normal(0.0, scale.sum()).expand([4]).to_event(1), obs=data)

    target = target_of(model, DATA)
    position = {"scale": jnp.array([0.2, -0.4])}
    assert_same(target.compiled_log_density()(position), target.log_density(position))


# -- what comes out besides the density


def test_deterministic_sites_are_returned_when_nothing_discrete_enters():
    def model() -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 1.0))
        scale = mx.sample("scale", dist.Gamma(3.0, 2.0))
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.deterministic("ratio", loc / scale)
        mx.deterministic("moved", loc + z)
        mx.sample("x", dist.Normal(loc + z, scale), obs=0.3)

    values = target_of(model).constrain({"loc": jnp.array(3.0), "scale": jnp.log(2.0)})
    assert set(values) == {"loc", "scale", "ratio"}
    assert_same(values["scale"], 2.0)
    assert_same(values["ratio"], 1.5)


@pytest.mark.parametrize(
    ("strategy", "low", "high"),
    [
        (init_to_feasible, 0.5, 1.0),
        (init_to_value(values={"low": 0.2, "x": 0.5}), 0.2, 0.5),
        (init_to_uniform(radius=0.0), 0.5, 1.0),
    ],
)
def test_an_initial_position_is_where_the_strategy_says(strategy: Any, low: float, high: float):
    def model() -> None:
        start = mx.sample("low", dist.Uniform(0.0, 1.0))
        mx.sample("x", dist.Uniform(start, start + 1.0))
        mx.sample("z", dist.Bernoulli(0.5))

    position = initial_position(know(model, (), {}), strategy, KEY)
    assert set(position) == {"low", "x"}
    values = target_of(model).constrain(position)
    assert_same(values["low"], low)
    assert_same(values["x"], high)


# -- what MCMC cannot move, or cannot move on


def refusal(model: Any, *args: Any) -> str:
    with pytest.raises(mx.ModelError) as caught:
        target_of(model, *args)
    return str(caught.value)


def test_a_model_of_discrete_sites_only_has_exact_answers_instead():
    def model() -> None:
        mx.sample("z", dist.Bernoulli(0.5))

    message = refusal(model)
    assert "'z' summed out" in message
    assert "marginalize(model).posterior" in message


def test_a_latent_count_without_end_is_named():
    def model() -> None:
        rate = mx.sample("rate", dist.Gamma(1.0, 1.0))
        mx.sample("count", dist.Poisson(rate))

    message = refusal(model)
    assert "'count'" in message
    assert "Poisson" in message


def test_a_subsampled_plate_is_named():
    def model() -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 1.0))
        with mx.plate("data", 4, subsample_size=2) as chosen:
            mx.sample("x", dist.Normal(loc, 1.0), obs=jnp.asarray(DATA)[chosen])

    message = refusal(model)
    assert "'data'" in message
    assert "leave subsample_size out" in message


def test_a_support_that_depends_on_a_discrete_site_is_named():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Uniform(0.0, 1.0 + z))

    message = refusal(model)
    assert "'x'" in message
    assert "'z'" in message


def fault(model: Any, position: Any) -> str:
    return str(target_of(model).fault(jax.tree.map(jnp.asarray, position)))


def test_a_fault_names_the_site_whose_density_is_not_finite():
    def model() -> None:
        x = mx.sample("x", dist.Normal(0.0, 1.0))
        mx.factor("hole", jnp.log(x))
        mx.factor("wall", jnp.where(x > 5.0, -jnp.inf, 0.0))

    assert "'hole': its log density is NaN" in fault(model, {"x": -1.0})
    assert "'wall': its log density is -inf" in fault(model, {"x": 6.0})


def test_a_fault_names_the_site_whose_derivative_is_not_finite():
    def model() -> None:
        x = mx.sample("x", dist.Normal(0.0, 1.0))
        mx.sample("y", dist.Normal(0.0, 1.0))
        mx.factor("cusp", -jnp.sqrt(x * 0.0))

    message = fault(model, {"x": 1.0, "y": 1.0})
    assert "'x'" in message
    assert "derivative" in message
