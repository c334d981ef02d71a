"""Regime-switching regression: two lines that take turns, and a covariate that makes them.

The response of several series to x is calm most of the time and turbulent now and then. In each regime
it has another line and another noise. How likely a series is to change regime depends on how much
stress there is at the time.

    intercept[r], slope[r] ~ Normal(0, 2)              of regime r: 0 is calm, 1 is turbulent
    noise[0] ~ HalfNormal(1),  noise[1] = noise[0] + excess,  excess ~ HalfNormal(2)
    base[r] ~ Normal(0, 2),    effect[r] ~ Normal(0, 1)
    regime[t] ~ Bernoulli(logit = base[r] + effect[r] stress[t]),  where r = regime[t - 1]
    y[t] ~ Normal(intercept[r] + slope[r] x[t], noise[r]),         where r = regime[t]

Sources: Goldfeld and Quandt (1973), "A Markov model for switching regressions", Journal of Econometrics 1;
Hamilton (1989), Econometrica 57; with covariates in the transitions Filardo (1994), Journal of Business
and Economic Statistics 12.

Summed out: `regime`, 2 values at each step of each series, along time within a plate of series. They differ
in length: a mask switches off the steps that a series does not have.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS, init_to_median

TRUE = {
    "intercept": np.array([0.5, -0.5]),
    "slope": np.array([1.0, -0.9]),
    "noise": np.array([0.4, 1.2]),
    "base": np.array([-3.0, 1.5]),  # log odds of being turbulent next, from calm and from turbulent
    "effect": np.array([1.2, 0.8]),
}
LENGTHS = np.array([120, 100, 80, 110, 60, 90])


def simulate(seed=0, lengths=LENGTHS):
    """The regimes, and the model's data: each of shape (steps, series), without y past the end."""
    rng = np.random.default_rng(seed)
    shape = (max(lengths), len(lengths))
    is_there = np.arange(shape[0])[:, None] < np.asarray(lengths)
    x, stress = rng.normal(size=(2, *shape))
    regime, before = np.zeros(shape, int), np.zeros(shape[1], int)
    for t in range(shape[0]):
        logits = TRUE["base"][before] + TRUE["effect"][before] * stress[t]
        before = regime[t] = rng.binomial(1, 1 / (1 + np.exp(-logits)))
    mean = TRUE["intercept"][regime] + TRUE["slope"][regime] * x
    y = rng.normal(mean, TRUE["noise"][regime])
    return regime, (is_there, stress, x, np.where(is_there, y, np.nan))


def model(is_there, stress, x, y):
    with mx.plate("regimes", 2):
        intercept = mx.sample("intercept", dist.Normal(0.0, 2.0))
        slope = mx.sample("slope", dist.Normal(0.0, 2.0))
        base = mx.sample("base", dist.Normal(0.0, 2.0))
        effect = mx.sample("effect", dist.Normal(0.0, 1.0))
    least = mx.sample("least", dist.HalfNormal(1.0))
    excess = mx.sample("excess", dist.HalfNormal(2.0))  # more noise is what turbulent means
    noise = mx.deterministic("noise", jnp.stack([least, least + excess]))

    with mx.plate("series", y.shape[1]):

        def step(regime, now):
            is_there, stress, x, y = now
            with mx.handlers.mask(mask=is_there):
                logits = base[regime] + effect[regime] * stress
                regime = mx.sample("regime", dist.Bernoulli(logits=logits))
                mean = intercept[regime] + slope[regime] * x
                mx.sample("y", dist.Normal(mean, noise[regime]), obs=y)
            return regime, None

        calm = jnp.zeros(y.shape[1], int)
        mx.scan(step, calm, (is_there, stress, x, y))


def plot(path, regime, data, probability):
    from matplotlib.figure import Figure

    is_there, _, x, y = data
    figure = Figure(figsize=(12, 6), layout="constrained")
    grid = figure.add_gridspec(y.shape[1], 2, width_ratios=[1, 2])
    axes = figure.add_subplot(grid[:, 0])
    shown = axes.scatter(x[is_there], y[is_there], c=probability[is_there], s=8, cmap="coolwarm")
    ends = np.array([-3.0, 3.0])
    for r, colour in enumerate(["#1d4ed8", "#991b1b"]):
        label = f"true line, {('calm', 'turbulent')[r]}"
        axes.plot(ends, TRUE["intercept"][r] + TRUE["slope"][r] * ends, color=colour, label=label)
    axes.set(xlabel="x", ylabel="y")
    axes.legend(frameon=False)
    figure.colorbar(shown, ax=axes, label="probability of turbulence")
    rows = [figure.add_subplot(grid[i, 1]) for i in range(y.shape[1])]
    for i, axes in enumerate(rows):
        steps = np.arange(is_there[:, i].sum())
        axes.fill_between(steps, regime[steps, i], step="mid", color="#fecaca", label="truth")
        axes.plot(steps, probability[steps, i], color="#991b1b", linewidth=1, label="probability")
        axes.set(ylabel=f"series {i}", yticks=[0, 1], xlim=(-1, len(y)), ylim=(-0.05, 1.05))
        axes.tick_params(labelbottom=i == len(rows) - 1)
    rows[0].set_title("Turbulent: truth, and probability given the data", loc="left")
    rows[-1].legend(frameon=False, loc="center right")
    rows[-1].set_xlabel("step")
    figure.savefig(path, dpi=110)


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "hidden-markov-results")
    out.mkdir(parents=True, exist_ok=True)
    regime, data = simulate()
    is_there, _, x, y = data
    marginal = mx.marginalize(model)
    marginal.explain(*data)

    mcmc = MCMC(NUTS(model, init_strategy=init_to_median), num_warmup=200, num_samples=300)
    mcmc.run(jax.random.key(0), *data)
    draws = {name: np.asarray(value) for name, value in mcmc.get_samples().items()}
    print("              mean    90% interval  truth")
    inside = []
    for name, true in TRUE.items():
        low, high = np.quantile(draws[name], [0.05, 0.95], axis=0)
        inside += list((low <= true) & (true <= high))
        for r in range(2):
            mean = draws[name][:, r].mean()
            print(f"{name:9}[{r}]  {mean:5.2f}  {low[r]:5.2f} to {high[r]:5.2f}  {true[r]:5.2f}")
    print(f"{sum(inside)} of {len(inside)} intervals hold the truth")
    print(f"one line through all points: slope {np.polyfit(x[is_there], y[is_there], 1)[0]:.2f}")

    # Averaged over the draws, the probabilities know that the parameters are uncertain, too.
    posterior = np.asarray(marginal.posterior(draws, *data)["regime"])
    probability = posterior[..., 1].mean(axis=0)
    p, true = probability[is_there], regime[is_there]
    print(f"turbulent {true.mean():.0%} of the time, by the model {p.mean():.0%}")
    print(f"{np.mean((p > 0.5) == true):.1%} of the regimes are right")
    sure = np.abs(p - 0.5) > 0.4
    right = np.mean((p > 0.5) == true, where=sure)
    print(f"{sure.mean():.0%} are more than 90% sure, and {right:.1%} of those right")

    plot(out / "regime_switching.png", regime, data, probability)
    print(f"the figure is in {out}/")


if __name__ == "__main__":
    main()
