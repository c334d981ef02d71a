"""A Gaussian hidden Markov model: fit it, decode it in three ways, and forecast past the end.

A series goes through phases. Which phase it is in is not seen, only a noisy value that depends on it.

    transition[j]  ~ Dirichlet(1 + 4 [j = k])           a row for each state; staying is likelier
    loc[k]         ~ Normal(0, 5)
    scale[k]       ~ LogNormal(0, 0.5)
    z[0]           ~ Categorical(1/3, 1/3, 1/3)
    z[t]           ~ Categorical(transition[z[t - 1]])
    y[t]           ~ Normal(loc[z[t]], scale[z[t]])

Source: Rabiner (1989), "A tutorial on hidden Markov models and selected applications in speech
recognition", Proceedings of the IEEE 77.

Summed out: `z`, 3 values at each of 300 steps. The sum goes along the chain (the forward algorithm), so
that its cost grows with the steps times 3 x 3, not with 3 ** 300.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, Predictive, TraceEnum_ELBO
from marginax.infer.autoguide import AutoDelta

K = 3
LOC = np.array([-2.0, 0.0, 2.5])
SCALE = np.array([1.0, 0.6, 1.2])
TRANSITION = np.array([[0.95, 0.03, 0.02], [0.03, 0.94, 0.03], [0.02, 0.03, 0.95]])


def simulate(seed=0, steps=300):
    """The state of each step, and its y."""
    rng = np.random.default_rng(seed)
    z = np.full(steps, rng.integers(K))
    for t in range(1, steps):
        z[t] = rng.choice(K, p=TRANSITION[z[t - 1]])
    return z, rng.normal(LOC[z], SCALE[z])


def model(y, steps=None):
    """Without y it needs the number of steps, and draws them."""
    with mx.plate("states", K):
        transition = mx.sample("transition", dist.Dirichlet(1.0 + 4.0 * jnp.eye(K)))
        loc = mx.sample("loc", dist.Normal(0.0, 5.0))
        scale = mx.sample("scale", dist.LogNormal(0.0, 0.5))
    # One row more, from which the first step draws its state: row K says where a series starts.
    table = jnp.concatenate([transition, jnp.full((1, K), 1 / K)])

    def step(z, y):
        z = mx.sample("z", dist.Categorical(table[z]))
        mx.sample("y", dist.Normal(loc[z], scale[z]), obs=y)
        return z, None

    mx.scan(step, K, y, length=steps)


def fit(y):
    """The best of 20 starts, the states numbered by their location."""

    def random_points(site):
        if site["name"] == "loc":
            return jax.random.choice(site["kwargs"]["rng_key"], y, (K,), replace=False)
        return jnp.ones(K) if site["name"] == "scale" else 0.2 * jnp.ones((K, K)) + 0.4 * jnp.eye(K)

    guide = AutoDelta(model, init_loc_fn=random_points)
    svi = SVI(model, guide, mx.optim.Adam(0.05), TraceEnum_ELBO())
    result = svi.run(jax.random.key(0), 300, y, num_restarts=20)
    print(f"loss of the best of 20 starts {result.losses[-1]:.2f}")
    estimates = guide.median(result.params)
    order = np.argsort(np.asarray(estimates["loc"]))
    estimates = {name: np.asarray(value)[order] for name, value in estimates.items()}
    return estimates | {"transition": estimates["transition"][:, order]}


def plot(path, z, y, mode, probability, band):
    from matplotlib.figure import Figure

    colours = ["#1d4ed8", "#15803d", "#c2410c"]
    past = len(mode)
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.5, 1])
    for k in range(K):
        there = np.flatnonzero(mode == k)
        top.plot(there, y[there], ".", color=colours[k], label=f"decoded as state {k}")
    future = np.arange(past, len(y))
    top.plot(future, y[past:], ".", color="#4b5563", label="not shown to the model")
    top.fill_between(future, *band, color="#d1d5db", label="90% of the forecasts")
    top.plot(LOC[z], color="black", linewidth=0.8, drawstyle="steps-mid", label="true location")
    top.set_ylabel("y")
    top.set_title("A hidden Markov model, decoded and continued", loc="left")
    top.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    bottom.stackplot(range(len(y)), probability.T, colors=colours, alpha=0.8)
    bottom.axvline(past - 0.5, color="black", linestyle=":")
    bottom.set(xlabel="step", ylabel="probability", xlim=(0, len(y) - 1), ylim=(0, 1))
    figure.savefig(path, dpi=110)


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "hidden-markov-results")
    out.mkdir(parents=True, exist_ok=True)
    past, horizon = 300, 40
    z, whole = simulate(steps=past + horizon)
    y, known = whole[:past], z[:past]
    marginal = mx.marginalize(model)
    marginal.explain(y)

    estimates = fit(y)
    for name, true in {"loc": LOC, "scale": SCALE, "transition": TRANSITION}.items():
        print(f"{name}, estimated and true", estimates[name].round(2), true, sep="\n")

    # Who looks back at the whole series knows more than who stands in the middle of it.
    mode = np.asarray(marginal.mode(estimates, y)["z"])
    smoothed = np.asarray(marginal.posterior(estimates, y)["z"])
    filtered = np.asarray(marginal.filtered(estimates, y)["z"])
    nearest = np.abs(y[:, None] - estimates["loc"]).argmin(axis=1)
    print(f"nearest location    {np.mean(nearest == known):.1%} of the states are right")
    print(f"most probable path  {np.mean(mode == known):.1%} of the states are right")
    for name, p in {"whole series": smoothed, "steps so far": filtered}.items():
        right, sure = np.mean(p.argmax(axis=1) == known), p[np.arange(past), known].mean()
        print(f"{name:18}  {right:.1%} are right, the true ones have probability {sure:.3f}")

    # Each forecast starts from a draw of the states given the past; what comes after is drawn, too.
    samples = {name: np.stack([value] * 1000) for name, value in estimates.items()}
    decode = Predictive(model, samples, infer_discrete=True, return_sites=["z"], parallel=True)
    states = decode(jax.random.key(1), y)
    begun = mx.handlers.condition(model, data={"y": y})
    forecast = Predictive(begun, samples | states, return_sites=["z", "y"], parallel=True)
    draws = forecast(jax.random.key(2), None, past + horizon)
    low, high = np.quantile(draws["y"][:, past:], [0.05, 0.95], axis=0)
    inside = np.mean((low <= whole[past:]) & (whole[past:] <= high))
    print(f"{inside:.0%} of {horizon} values to come are inside the 90% band of the forecast")
    print(f"the band is {high[0] - low[0]:.1f} wide at first, {high[-1] - low[-1]:.1f} in the end")

    to_come = np.mean(np.asarray(draws["z"])[:, past:, None] == np.arange(K), axis=0)
    probability = np.concatenate([smoothed, to_come])
    plot(out / "gaussian_hmm.png", z, whole, mode, probability, (low, high))
    print(f"the figure is in {out}/")


if __name__ == "__main__":
    main()
