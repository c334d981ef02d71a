"""A factorial hidden Markov model: which appliances run, from the power of the whole house?

Each appliance is on or off, a chain of its own. Only the sum of their powers is measured, with noise, so
that the chains, independent before, depend on each other once the sum is known.

    power[k]             ~ LogNormal(log rated[k], 0.2)      what its label says, more or less
    starts[k], stops[k]  ~ Beta(1, 10)                       probabilities of a change, each minute
    noise                ~ LogNormal(-2, 1)
    on[k, t]             ~ Bernoulli(1 - stops[k] if on[k, t - 1] else starts[k])
    total[t]             ~ Normal(sum of power[k] on[k, t], noise)

Sources: Ghahramani and Jordan (1997), "Factorial hidden Markov models", Machine Learning 29; for
appliances Kolter and Jaakkola (2012), "Approximate inference in additive factorial HMMs", AISTATS.

Summed out: `fridge`, `heater`, `oven`, 2 values each at every minute. Together they have 8 states, and a
single chain of 8 would need 8 x 8 transitions at each step. `explain` shows that the chains are
moved on one at a time instead: 3 sums with 16 terms each.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, init_to_median
from marginax.infer.autoguide import AutoDelta

NAMES = ("fridge", "heater", "oven")
RATED = np.array([0.2, 1.0, 1.2])  # kW, on the labels
POWER = np.array([0.25, 0.95, 1.3])  # kW, in truth
STARTS, STOPS = np.array([0.05, 0.02, 0.02]), np.array([0.08, 0.03, 0.05])
NOISE = 0.2


def simulate(seed=0, minutes=600):
    """Whether each appliance is on, shape (minutes, appliances), and the total power."""
    rng = np.random.default_rng(seed)
    on = np.zeros((minutes, len(NAMES)), int)
    before = np.zeros(len(NAMES), int)
    for t in range(minutes):
        before = on[t] = rng.binomial(1, np.where(before == 1, 1 - STOPS, STARTS))
    return on, rng.normal(on @ POWER, NOISE)


def model(total):
    with mx.plate("appliances", len(NAMES)):
        power = mx.sample("power", dist.LogNormal(jnp.log(RATED), 0.2))
        starts = mx.sample("starts", dist.Beta(1.0, 10.0))
        stops = mx.sample("stops", dist.Beta(1.0, 10.0))
    noise = mx.sample("noise", dist.LogNormal(-2.0, 1.0))

    def minute(before, total):
        on = []
        for k, name in enumerate(NAMES):
            chance = jnp.where(before[k] == 1, 1 - stops[k], starts[k])
            on.append(mx.sample(name, dist.Bernoulli(chance)))
        expected = sum(power[k] * on[k] for k in range(len(NAMES)))
        mx.sample("total", dist.Normal(expected, noise), obs=total)
        return on, None

    mx.scan(minute, [0] * len(NAMES), total)  # everything is off before


def plot(path, on, total, power, mode, probability):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    top, *rest = figure.subplots(4, 1, sharex=True, height_ratios=[2, 1, 1, 1])
    top.plot(total, ".", color="#9ca3af", markersize=4, label="measured")
    top.plot(mode @ power, color="#1f2937", linewidth=1, label="decoded")
    top.set(ylabel="kW", xlim=(0, len(total) - 1))
    top.set_title("Appliances decoded from their total power", loc="left")
    for axes, name, true, p, best in zip(rest, NAMES, on.T, probability.T, mode.T, strict=True):
        axes.fill_between(range(len(p)), p, color="#93c5fd", step="mid", label="probability of on")
        axes.step(range(len(p)), best, where="mid", color="#1d4ed8", linewidth=1, label="decoded")
        wrong = np.flatnonzero(best != true)
        axes.plot(wrong, true[wrong], ".", color="#c2410c", label="truth, where it differs")
        axes.set_yticks([0, 1], ["off", "on"])
        axes.set(ylabel=name, ylim=(-0.1, 1.1))
    for axes in (top, rest[0]):
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    rest[-1].set_xlabel("minute")
    figure.savefig(path, dpi=110)


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "hidden-markov-results")
    out.mkdir(parents=True, exist_ok=True)
    on, total = simulate()
    marginal = mx.marginalize(model)
    marginal.explain(total)

    guide = AutoDelta(model, init_loc_fn=init_to_median)
    svi = SVI(model, guide, mx.optim.Adam(0.05), TraceEnum_ELBO())
    estimates = guide.median(svi.run(jax.random.key(0), 300, total).params)
    print("          ", *(f"{name:>8}" for name in NAMES))
    print("rated kW  ", *(f"{value:8.2f}" for value in RATED))
    for name, true in {"power": POWER, "starts": STARTS, "stops": STOPS}.items():
        print(f"{name:10} ", *(f"{value:8.3f}" for value in estimates[name]))
        print("      true ", *(f"{value:8.3f}" for value in true))
    print(f"noise      {estimates['noise']:.3f}, true {NOISE}")

    # One measurement does not tell the heater with the fridge from the oven. What ran before does.
    decoded, marginals = marginal.mode(estimates, total), marginal.posterior(estimates, total)
    mode = np.stack([np.asarray(decoded[name]) for name in NAMES], axis=1)
    probability = np.stack([np.asarray(marginals[name])[:, 1] for name in NAMES], axis=1)
    power = np.asarray(estimates["power"])
    every = np.array(list(np.ndindex(2, 2, 2)))
    nearest = every[np.abs(total[:, None] - every @ power).argmin(axis=1)]
    for what, states in {"nearest sum": nearest, "model": mode}.items():
        right = states == on
        each = ", ".join(f"{name} {right[:, k].mean():.1%}" for k, name in enumerate(NAMES))
        print(f"right by the {what:11}  {each}, all three {right.all(axis=1).mean():.1%}")

    plot(out / "factorial_hmm.png", on, total, power, mode, probability)
    print(f"the figure is in {out}/")


if __name__ == "__main__":
    main()
