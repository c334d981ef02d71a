"""MCMC draws from the posterior, as exact integrals and conjugate formulas tell."""

import itertools
import os
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from closeness import assert_same
from scipy import stats

import marginax as mx
import marginax.distributions as dist
from marginax.infer import HMC, MCMC, NUTS, init_to_value

KEY = jax.random.key(0)


def run(model: Any, *args: Any, warmup: int = 0, draws: int = 12, **options: Any) -> MCMC:
    """A run; options go to the kernel, the run or `MCMC`, whichever has them."""
    kernel = {
        name: options.pop(name)
        for name in ("dense_mass", "step_size", "target_accept_prob", "init_strategy")
        if name in options
    }
    start = options.pop("init_params", None)
    options = {"progress_bar": False} | options
    mcmc = MCMC(NUTS(model, **kernel), num_warmup=warmup, num_samples=draws, **options)
    mcmc.run(KEY, *args, init_params=start)
    return mcmc


def assert_mean(draws: Any, expected: float) -> None:
    """The mean of draws by chain, within five Monte Carlo standard errors."""
    draws = np.asarray(draws, np.float64)
    effective = array_stats.ess(draws, chain_axis=0, draw_axis=1, method="mean")
    assert draws.mean() == pytest.approx(expected, abs=5 * draws.std() / np.sqrt(effective))


def assert_moments(draws: Any, mean: float, variance: float) -> None:
    assert_mean(draws, mean)
    assert_mean((np.asarray(draws, np.float64) - mean) ** 2, variance)


# -- posteriors with a closed form, many in one model


NORMAL = np.array([1.0, 2.5, 0.3])
COINS = np.array([1, 1, 0, 1, 0, 1])
COUNTS = np.array([3, 0, 2, 5])
DICE = np.array([0, 2, 2, 1, 2, 2])
GROUPS = np.array([-4.0, 0.0, 9.0])


def conjugate() -> None:
    mu = mx.sample("mu", dist.Normal(0.0, 2.0))
    p = mx.sample("p", dist.Beta(2.0, 3.0))
    rate = mx.sample("rate", dist.Gamma(3.0, 2.0))
    weights = mx.sample("weights", dist.Dirichlet(jnp.array([1.0, 2.0, 1.5])))
    mx.sample("heavy", dist.LogNormal(0.5, 0.4))
    high = mx.sample("high", dist.Gamma(4.0, 2.0))
    mx.sample("below", dist.Uniform(0.0, high))
    mx.deterministic("odds", p / (1 - p))
    z = mx.sample("z", dist.Bernoulli(0.3))
    mx.deterministic("shifted", mu + z)
    with mx.plate("three", 3):
        mx.sample("normal", dist.Normal(mu, 1.5), obs=NORMAL)
        group = mx.sample("group", dist.Normal(0.0, 3.0))
        mx.sample("seen", dist.Normal(group, 1.0), obs=GROUPS)
    with mx.plate("six", 6):
        mx.sample("coins", dist.Bernoulli(p), obs=COINS)
        mx.sample("dice", dist.Categorical(weights), obs=DICE)
    with mx.plate("four", 4):
        mx.sample("counts", dist.Poisson(rate), obs=COUNTS)


@pytest.fixture(scope="module")
def closed_forms() -> MCMC:
    return run(conjugate, warmup=500, draws=1000, num_chains=4)


@pytest.fixture(scope="module")
def by_chain(closed_forms: MCMC) -> Any:
    return closed_forms.get_samples(group_by_chain=True)


def test_the_posterior_of_a_normal_mean(by_chain: Any):
    precision = 1 / 2.0**2 + 3 / 1.5**2
    assert_moments(by_chain["mu"], NORMAL.sum() / 1.5**2 / precision, 1 / precision)


def test_the_posterior_of_a_probability(by_chain: Any):
    posterior = stats.beta(2.0 + 4, 3.0 + 2)
    assert_moments(by_chain["p"], posterior.mean(), posterior.var())


def test_the_posterior_of_a_rate(by_chain: Any):
    posterior = stats.gamma(3.0 + COUNTS.sum(), scale=1 / (2.0 + 4))
    assert_moments(by_chain["rate"], posterior.mean(), posterior.var())


def test_the_posterior_of_weights(by_chain: Any):
    alpha = np.array([1.0, 2.0, 1.5]) + np.array([1, 1, 4])
    posterior = stats.dirichlet(alpha)
    for k in range(3):
        assert_moments(by_chain["weights"][..., k], posterior.mean()[k], posterior.var()[k])


def test_sites_without_data_keep_their_priors(by_chain: Any):
    heavy = stats.lognorm(0.4, scale=np.exp(0.5))
    assert_moments(by_chain["heavy"], heavy.mean(), heavy.var())
    assert_moments(by_chain["high"], 2.0, 1.0)


def test_a_bound_that_depends_on_another_site(by_chain: Any):
    # E[high**2] is 5; below is uniform in (0, high).
    assert_moments(by_chain["below"], 1.0, 5.0 / 3 - 1.0)
    assert (by_chain["below"] < by_chain["high"]).all()


def test_sites_in_a_plate(by_chain: Any):
    shrink = 3.0**2 / (3.0**2 + 1.0)
    for n in range(3):
        assert_moments(by_chain["group"][..., n], shrink * GROUPS[n], shrink)


def test_deterministic_sites_are_returned_when_nothing_discrete_enters(by_chain: Any):
    assert_same(by_chain["odds"], by_chain["p"] / (1 - by_chain["p"]))
    assert "shifted" not in by_chain
    assert "z" not in by_chain


def test_draws_are_flat_or_by_chain(closed_forms: MCMC, by_chain: Any):
    flat = closed_forms.get_samples()
    assert flat.keys() == by_chain.keys()
    for name, draws in by_chain.items():
        assert draws.shape[:2] == (4, 1000)
        np.testing.assert_array_equal(flat[name], draws.reshape(4000, *draws.shape[2:]))


def test_chains_differ(by_chain: Any):
    for one, other in itertools.combinations(by_chain["mu"], 2):
        assert (one != other).all()


def test_extra_fields_are_those_of_every_draw(closed_forms: MCMC):
    fields = closed_forms.get_extra_fields(group_by_chain=True)
    assert {name: field.shape for name, field in fields.items()} == dict.fromkeys(
        [
            *["accept_prob", "diverging", "energy", "num_steps", "potential_energy"],
            *["step_size", "tree_depth"],
        ],
        (4, 1000),
    )
    assert closed_forms.get_extra_fields()["energy"].shape == (4000,)
    assert 0.75 < float(fields["accept_prob"].mean()) < 0.97
    assert not fields["diverging"].any()
    for name, dtype in (("diverging", bool), ("num_steps", np.int32), ("energy", np.float32)):
        assert fields[name].dtype == dtype
    # Doubled d times, a trajectory has between 2**(d - 1) and 2**d - 1 steps.
    depth = np.asarray(fields["tree_depth"])
    assert (fields["num_steps"] >= 2 ** (depth - 1)).all()
    assert (fields["num_steps"] < 2**depth).all()


def test_the_summary_has_the_latent_sites(closed_forms: MCMC, capsys: pytest.CaptureFixture[str]):
    closed_forms.print_summary()
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[1:-1]]
    assert names == [
        *["mu", "p", "rate", "weights[0]", "weights[1]", "weights[2]", "heavy", "high", "below"],
        *["group[0]", "group[1]", "group[2]"],
    ]
    assert re.fullmatch(r"divergences: 0, E-BFMI: [0-9.]+(, [0-9.]+){3}", lines[-1])
    closed_forms.print_summary(exclude_deterministic=False)
    assert "odds" in capsys.readouterr().out


# -- a mixture, against integration on a grid


MIXTURE = np.array([-1.0, 0.2, 2.9, 3.5, 3.1])


def mixture(data: Any) -> None:
    """Fixed centres; weight and scale are unknown, and so is each point's component."""
    weight = mx.sample("weight", dist.Beta(1.5, 2.0))
    scale = mx.sample("scale", dist.LogNormal(0.0, 0.5))
    with mx.plate("data", len(data)):
        z = mx.sample("z", dist.Bernoulli(weight))
        mx.sample("x", dist.Normal(3.0 * z, scale), obs=data)


def mixture_on_a_grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight, scale and their normalised posterior probabilities, one for each cell's middle."""
    weight = (np.arange(800) + 0.5) / 800
    scale = np.exp(np.linspace(-2.5, 2.5, 800))
    w, s = np.meshgrid(weight, scale, indexing="ij")
    density = stats.beta.pdf(w, 1.5, 2.0) * stats.lognorm.pdf(s, 0.5) * s  # even in log scale
    for x in MIXTURE:
        density *= (1 - w) * stats.norm.pdf(x, 0.0, s) + w * stats.norm.pdf(x, 3.0, s)
    return w, s, density / density.sum()


@pytest.mark.parametrize("dense_mass", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_mixture_with_its_discrete_sites_summed_out(dense_mass: bool):
    mcmc = run(mixture, MIXTURE, warmup=500, draws=2000, num_chains=2, dense_mass=dense_mass)
    draws = mcmc.get_samples(group_by_chain=True)
    w, s, probability = mixture_on_a_grid()
    for name, values in (("weight", w), ("scale", s)):
        mean = float((values * probability).sum())
        assert_moments(draws[name], mean, float(((values - mean) ** 2 * probability).sum()))
    both = np.asarray(draws["weight"] * draws["scale"])
    assert_mean(both, float((w * s * probability).sum()))
    # The assignments that go with the draws: each point's membership, averaged over the posterior.
    membership = jax.vmap(jax.vmap(lambda p: mx.marginalize(mixture).posterior(p, MIXTURE)["z"]))
    exact = membership({name: draws[name] for name in ("weight", "scale")})[..., 1]
    for n, x in enumerate(MIXTURE):
        high = w * stats.norm.pdf(x, 3.0, s)
        share = high / (high + (1 - w) * stats.norm.pdf(x, 0.0, s))
        assert_mean(exact[..., n], float((share * probability).sum()))


# -- how it runs, on a small model


def small(data: Any = (0.3, 1.2)) -> None:
    mu = mx.sample("mu", dist.Normal(0.0, 1.0))
    mx.sample("spread", dist.Gamma(3.0, 3.0))
    with mx.plate("n", len(data)):
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(mu + z, 1.0), obs=jnp.asarray(data))


@pytest.fixture(scope="module")
def two_chains() -> MCMC:
    return run(small, num_chains=2, step_size=0.3)


# Steps so small that the chain stays where it begins; the trajectories are cut off, of course.
tiny_steps = pytest.mark.filterwarnings("ignore:.*were cut off at max_tree_depth")


def draws_of(mcmc: MCMC) -> Any:
    return mcmc.get_samples(group_by_chain=True)


def test_the_same_key_gives_the_same_draws_also_with_a_bar(
    two_chains: MCMC, capfd: pytest.CaptureFixture[str]
):
    again = run(small, num_chains=2, step_size=0.3, progress_bar=True)
    for name, draws in draws_of(two_chains).items():
        assert_same(draws_of(again)[name], draws)
    assert "12/12" in capfd.readouterr().err


def test_thinning_keeps_every_so_manyth_draw(two_chains: MCMC):
    thinned = run(small, num_chains=2, step_size=0.3, thinning=5)
    for name, draws in draws_of(two_chains).items():
        assert_same(draws_of(thinned)[name], draws[:, 4::5])
    fields = thinned.get_extra_fields(group_by_chain=True)
    all_fields = two_chains.get_extra_fields(group_by_chain=True)
    assert_same(fields["energy"], all_fields["energy"][:, 4::5])


@tiny_steps
def test_chains_begin_at_the_given_unconstrained_values():
    start = {"mu": np.array([5.0, -5.0]), "spread": np.array([0.0, 1.0])}
    mcmc = run(small, draws=1, num_chains=2, step_size=1e-6, init_params=start)
    draws = mcmc.get_samples()
    np.testing.assert_allclose(draws["mu"], [5.0, -5.0], atol=0.01)
    np.testing.assert_allclose(draws["spread"], np.exp([0.0, 1.0]), atol=0.01)


@tiny_steps
def test_chains_begin_where_the_strategy_says_and_in_double_precision():
    strategy = init_to_value(values={"mu": 4.0, "spread": 2.0})
    with jax.enable_x64(True):
        draws = run(small, draws=1, step_size=1e-6, init_strategy=strategy).get_samples()
    assert draws["mu"].dtype == draws["spread"].dtype == np.float64
    np.testing.assert_allclose(draws["mu"], [4.0], atol=0.01)
    np.testing.assert_allclose(draws["spread"], [2.0], atol=0.01)


@tiny_steps
def test_a_start_is_looked_for_until_the_density_is_finite():
    def picky() -> None:
        x = mx.sample("x", dist.Normal(0.0, 1.0))
        mx.factor("wall", jnp.where(x > 1.5, 0.0, -jnp.inf))  # an eighth of the starts

    draws = run(picky, draws=1, num_chains=4, step_size=1e-6).get_samples()
    assert (draws["x"] > 1.5).all()


def test_hmc_draws_from_the_same_posterior():
    kernel = HMC(mixture, trajectory_length=2.0)
    mcmc = MCMC(kernel, num_warmup=500, num_samples=1000, num_chains=2, progress_bar=False)
    mcmc.run(KEY, MIXTURE)
    w, s, probability = mixture_on_a_grid()
    for name, values in (("weight", w), ("scale", s)):
        assert_mean(
            mcmc.get_samples(group_by_chain=True)[name], float((values * probability).sum())
        )
    fields = mcmc.get_extra_fields()
    steps = np.ceil(2.0 / np.asarray(fields["step_size"], np.float64))
    np.testing.assert_allclose(fields["num_steps"], steps, atol=1)  # a quotient near a whole number
    assert "tree_depth" not in fields


def test_chains_one_after_the_other_are_those_in_lockstep(two_chains: MCMC):
    one_by_one = run(small, num_chains=2, step_size=0.3, chain_method="sequential")
    for name, draws in draws_of(two_chains).items():
        np.testing.assert_allclose(draws_of(one_by_one)[name], draws, rtol=1e-3, atol=1e-4)


def test_a_run_goes_on_from_the_state_of_another_without_warm_up():
    mcmc = run(small, warmup=30, draws=5, num_chains=2)
    step_size = mcmc.get_extra_fields(group_by_chain=True)["step_size"]
    last = mcmc.last_state
    assert last is not None
    mcmc.post_warmup_state = last
    mcmc.run(jax.random.key(1))
    again = mcmc.get_extra_fields(group_by_chain=True)
    np.testing.assert_array_equal(again["step_size"], step_size)
    assert len(np.unique(step_size)) == 2  # each chain has its own, and it is not adapted any more
    mcmc.warmup(KEY)
    assert mcmc.post_warmup_state is not None
    warmed_up = mcmc.post_warmup_state.adaptation.step_size.log_step_size_avg
    np.testing.assert_allclose(np.exp(warmed_up), step_size[:, 0], rtol=1e-6)


def test_a_state_of_another_model_is_refused():
    def other() -> None:
        mx.sample("x", dist.Normal(jnp.zeros(3), 1.0).to_event(1))

    mcmc = run(other, draws=1, step_size=0.5)
    other_state, mcmc = mcmc.last_state, run(small, draws=1, step_size=0.5)
    mcmc.post_warmup_state = other_state
    with pytest.raises(mx.ModelError, match="post_warmup_state is of another model"):
        mcmc.run(KEY)


SWITCHES = """
import jax, jax.numpy as jnp, numpy as np
import marginax as mx, marginax.distributions as dist

def model():
    mx.sample("x", dist.Normal(jnp.zeros(2), jnp.array([1.0, 3.0])).to_event(1))

draws = {}
for method in ("parallel", "vectorized"):
    mcmc = mx.infer.MCMC(mx.infer.NUTS(model, step_size=0.5), num_warmup=0, num_samples=8,
                         num_chains=4, progress_bar=False, chain_method=method)
    mcmc.run(jax.random.key(0))
    draws[method] = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    devices = mcmc.last_state.state.position.devices()
    assert len(devices) == {"parallel": 2, "vectorized": 1}[method], devices
np.testing.assert_allclose(draws["parallel"], draws["vectorized"], rtol=1e-3, atol=1e-4)
"""


@pytest.mark.slow
def test_chains_are_spread_over_the_devices_there_are():
    """In a process of its own, for the number of devices is settled when JAX begins."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    subprocess.run(
        [sys.executable, "-c", SWITCHES], check=True, env=os.environ | {"XLA_FLAGS": flags}
    )


# -- models whose latent sites are all discrete


def test_a_model_without_continuous_sites_is_drawn_from_exactly():
    table = np.array([[0.1, 0.6], [0.7, 0.2]])

    def coins() -> None:
        a = mx.sample("a", dist.Bernoulli(0.3))
        with mx.plate("three", 3):
            b = mx.sample("b", dist.Bernoulli(0.5))
            mx.sample("x", dist.Bernoulli(jnp.asarray(table)[a, b]), obs=jnp.array([1, 0, 1]))

    mcmc = run(coins, draws=3000, num_chains=2)
    draws = mcmc.get_samples(group_by_chain=True)
    assert {name: value.shape for name, value in draws.items()} == {
        "a": (2, 3000),
        "b": (2, 3000, 3),
    }
    likelihood = np.stack([table, 1 - table, table])  # of each x, by a and b
    by_a = np.array([0.7, 0.3]) * (0.5 * likelihood).sum(-1).prod(0)
    p_a = by_a / by_a.sum()
    given_a = likelihood / likelihood.sum(-1, keepdims=True)
    p_b = (p_a[:, None] * given_a[..., 1].T).sum(0)
    for found, p in [
        (draws["a"], p_a[1]),
        *zip(np.moveaxis(np.asarray(draws["b"]), -1, 0), p_b, strict=True),
    ]:
        assert np.mean(found) == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / 6000))
    assert (draws["a"][0] != draws["a"][1]).any()
    assert mcmc.get_extra_fields() == {}
    mcmc.print_summary()


def test_impossible_data_of_a_discrete_model_are_an_error():
    def model() -> None:
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Bernoulli(0.0 * z), obs=1.0)

    with pytest.raises(mx.ModelError, match="'x'.*-inf"):
        run(model)


# -- what is said of a run


def test_divergences_are_a_warning():
    def cliff() -> None:
        x = mx.sample("x", dist.Normal(0.0, 1.0))
        mx.factor("cliff", -1e4 * jnp.abs(x))

    with pytest.warns(RuntimeWarning, match="diverged.*target_accept_prob"):
        mcmc = run(cliff, step_size=1.0)
    assert mcmc.get_extra_fields()["diverging"].any()


def test_a_model_may_need_its_data_as_numbers():
    def model(data: Any, groups: Any) -> None:
        names, index = np.unique(groups, return_inverse=True)
        with mx.plate("groups", len(names)):
            locs = mx.sample("locs", dist.Normal(0.0, 1.0))
        with mx.plate("n", len(data)):
            mx.sample("x", dist.Normal(locs[index], 1.0), obs=data)

    mcmc = run(model, np.array([0.0, 1.0, 2.0]), np.array([4, 4, 9]), draws=2, step_size=0.1)
    assert mcmc.get_samples()["locs"].shape == (2, 2)


# -- bad input at the door


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ({"mu": 0.0}, "'spread'.*no value"),
        ({"mu": 0.0, "spread": 0.0, "nu": 1.0}, "'nu'.*'mu', 'spread'"),
        ({"mu": np.zeros(3), "spread": 0.0}, r"'mu'.*shape \(3,\).*should be \(\), or \(1,\)"),
        ({"mu": np.nan, "spread": 0.0}, "'mu'.*NaN"),
        ({"mu": "zero", "spread": 0.0}, "'mu'.*numbers"),
    ],
)
def test_initial_values_that_make_no_sense_are_named(start: Any, reason: str):
    with pytest.raises(mx.ModelError, match=reason):
        run(small, init_params=start)


@pytest.mark.parametrize(
    ("value", "reason"), [(-1.0, "'spread'.*-1.*positive"), (np.nan, "'spread'.*NaN")]
)
def test_an_initial_value_outside_the_support_is_named(value: float, reason: str):
    with pytest.raises(mx.ModelError, match=reason):
        run(small, init_strategy=init_to_value(values={"spread": value}))


def door(x: Any, K: int = 2, scale: Any = 1.0) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(K)))
    with mx.plate("components", K):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("x", dist.Normal(locs[z], scale), obs=x)


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (np.array([0.0, np.nan, 1.0]), {}, "site 'x'.*NaN in 1 of 3.*index 1"),
        (np.array([0.0, np.inf]), {}, "site 'x'.*inf.*finite"),
        (np.array([]), {}, "plate 'data'.*size is 0"),
        ("hello", {}, "site 'x'.*str"),
        (np.array([0.0, 1.0]), {"scale": 0.0}, "site 'x'.*'scale' of Normal is .?0.*positive"),
        (np.array([0.0, 1.0]), {"K": 0}, "site 'weights'.*empty.*components"),
    ],
)
def test_bad_input_is_an_error_that_names_site_and_cause(data: Any, options: Any, reason: str):
    mcmc = MCMC(NUTS(door), num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(mx.ModelError, match=reason):
        mcmc.run(KEY, data, **options)


def test_a_scale_that_is_computed_to_be_zero_is_named():
    def model(x: Any) -> None:
        mu = mx.sample("mu", dist.Normal(0.0, 1.0))
        with mx.plate("n", len(x)):
            mx.sample("x", dist.Normal(mu, jnp.std(x)), obs=x)

    with pytest.raises(mx.ModelError, match="no initial point.*'x'.*NaN in 2 of 2"):
        run(model, jnp.array([2.0, 2.0]))


def test_no_finite_start_is_an_error_that_names_the_site():
    def model() -> None:
        x = mx.sample("x", dist.Normal(0.0, 1.0))
        mx.factor("wall", jnp.where(x > 100.0, 0.0, -jnp.inf))

    with pytest.raises(mx.ModelError, match="no initial point.*init_to_uniform.*'wall'.*-inf"):
        run(model)


def test_no_finite_derivative_at_the_start_is_an_error_that_names_the_site():
    def model() -> None:
        x = mx.sample("x", dist.Normal(0.0, 1.0))
        mx.factor("cusp", -jnp.sqrt(x * 0.0))

    with pytest.raises(mx.ModelError, match="no initial point.*'x'.*derivative"):
        run(model)


def test_what_cannot_be_moved_is_refused():
    def count() -> None:
        mx.sample("count", dist.Poisson(mx.sample("rate", dist.Gamma(1.0, 1.0))))

    def subsampled() -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 1.0))
        with mx.plate("rows", 4, subsample_size=2):
            mx.sample("x", dist.Normal(loc, 1.0), obs=jnp.zeros(2))

    for model, name in ((count, "count"), (subsampled, "rows")):
        with pytest.raises(mx.ModelError, match=f"'{name}'"):
            run(model)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_warmup": -1}, "num_warmup"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 2.5}, "num_samples"),
        ({"num_chains": 0}, "num_chains"),
        ({"thinning": 0}, "thinning"),
        ({"thinning": 11}, "thinning"),
        ({"chain_method": "magic"}, "chain_method"),
    ],
)
def test_options_are_checked(change: Any, reason: str):
    options = {"num_warmup": 0, "num_samples": 10} | change
    with pytest.raises(ValueError, match=reason):
        MCMC(NUTS(small), **options)


def test_a_sampler_is_asked_for_and_so_is_a_run():
    with pytest.raises(TypeError, match="NUTS"):
        MCMC(small, num_warmup=1, num_samples=1)  # pyright: ignore
    mcmc = MCMC(NUTS(small), num_warmup=1, num_samples=1)
    for read in (mcmc.get_samples, mcmc.get_extra_fields, mcmc.print_summary):
        with pytest.raises(RuntimeError, match="run first"):
            read()
