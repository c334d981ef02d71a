"""Capture and recapture as a hidden Markov model: survival that depends on the winter.

The Cormack-Jolly-Seber model, with the occasions in a scan. An animal is alive or dead, and seen only if
it is alive, and not always then. Nothing is known of it before its first capture, so that its chain begins
there: a mask switches off what comes before.

    level ~ Normal(0, 1.5),  slope ~ Normal(0, 1)
    survival[t] = logistic(level + slope winter[t])    probability of living on to occasion t
    capture ~ Uniform(0, 1)                            probability of being seen, if alive
    alive[t, i] ~ Bernoulli(survival[t] alive[t - 1, i])      after the first capture of animal i
    seen[t, i]  ~ Bernoulli(capture alive[t, i])

Sources: Cormack (1964), Jolly (1965) and Seber (1965), all in Biometrika; with covariates of the occasions
Lebreton, Burnham, Clobert and Anderson (1992), Ecological Monographs 62. As a hidden Markov model:
Pradel (2005), Biometrics 61.

Summed out: `alive`, 2 values for every animal at each of 12 occasions, along time within a plate of animals.
../latent_discrete/cormack_jolly_seber.py has a Python loop in the place of the scan: the same density, but
a program that grows with the number of occasions.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS

LEVEL, SLOPE, CAPTURE = 1.2, -0.8, 0.5
WINTER = np.array([-0.6, 0.9, -1.1, 0.2, 1.6, -0.4, -1.3, 0.5, 1.0, -0.9, 0.3, -0.2])  # severity


def simulate(seed=0, animals=250, winter=WINTER):
    """Whether each animal is alive, and seen: two arrays of shape (occasions, animals)."""
    rng = np.random.default_rng(seed)
    occasions = len(winter) + 1
    first = rng.integers(0, occasions - 1, animals)
    alive = np.arange(occasions)[:, None] == first
    seen = alive.copy()
    survival = 1 / (1 + np.exp(-LEVEL - SLOPE * winter))
    for t in range(1, occasions):
        alive[t] |= alive[t - 1] & (rng.uniform(size=animals) < survival[t - 1])
        seen[t] |= alive[t] & (rng.uniform(size=animals) < CAPTURE)
    return alive.astype(int), seen.astype(int)


def model(seen, winter):
    animals = seen.shape[1]
    level = mx.sample("level", dist.Normal(0.0, 1.5))
    slope = mx.sample("slope", dist.Normal(0.0, 1.0))
    capture = mx.sample("capture", dist.Uniform(0.0, 1.0))
    survival = jax.nn.sigmoid(level + slope * winter)
    released = jnp.cumsum(seen, axis=0)[:-1] > 0  # on an occasion before

    with mx.plate("animals", animals):

        def occasion(alive, now):
            released, survival, seen = now
            with mx.handlers.mask(mask=released):
                lives_on = mx.sample("alive", dist.Bernoulli(survival * alive))
                mx.sample("seen", dist.Bernoulli(capture * lives_on), obs=seen)
            return jnp.where(released, lives_on, 1), None  # when first caught, it is alive

        mx.scan(occasion, jnp.ones(animals, int), (released, survival, seen[1:]))


def plot(path, alive, seen, probability, released, living):
    from matplotlib.figure import Figure

    occasions, animals = seen.shape
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    first, last = seen.argmax(axis=0), occasions - 1 - seen[::-1].argmax(axis=0)
    some = np.arange(0, animals, 5)
    some = some[np.lexsort((last[some], first[some]))]
    known = np.ma.masked_array(probability, ~released)[:, some].T
    edges = np.arange(occasions) + 0.5, np.arange(len(some) + 1) - 0.5
    image = left.pcolormesh(*edges, known, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=left, label="probability")
    left.plot(*np.nonzero(seen[:, some]), ".", color="#f59e0b", label="seen")
    end = (first + alive.sum(axis=0))[some] - 0.5
    rows = np.flatnonzero(end < occasions - 1)
    left.plot(end[rows], rows, "|", color="#c2410c", markersize=8, markeredgewidth=2, label="dies")
    left.set(xlabel="occasion", ylabel=f"{len(some)} of {animals} animals", yticks=[])
    left.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    left.set_title("Is an animal alive?", loc="left")
    times = np.arange(1, occasions)
    low, high = np.quantile(living, [0.05, 0.95], axis=0)
    right.fill_between(times, low, high, color="#bfdbfe", label="alive, 90% of the draws")
    right.plot(times, (alive[1:] * released).sum(axis=1), color="#c2410c", label="alive, truth")
    right.plot(times, (seen[1:] * released).sum(axis=1), color="#f59e0b", label="seen")
    right.set(xlabel="occasion", ylabel="animals marked before", ylim=(0, None))
    right.legend(frameon=False, loc="upper left")
    right.set_title("How many of them are alive?", loc="left")
    figure.savefig(path, dpi=110)


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "hidden-markov-results")
    out.mkdir(parents=True, exist_ok=True)
    alive, seen = simulate()
    marginal = mx.marginalize(model)
    marginal.explain(seen, WINTER)

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=300)
    mcmc.run(jax.random.key(0), seen, WINTER)
    draws = mcmc.get_samples()
    for name, true in {"level": LEVEL, "slope": SLOPE, "capture": CAPTURE}.items():
        low, high = np.quantile(draws[name], [0.05, 0.95])
        print(f"{name:8} {draws[name].mean():5.2f}, 90% in [{low:.2f}, {high:.2f}], true {true}")

    # The longer an animal has not been seen, the less likely it is to be alive in the end.
    posterior = np.asarray(marginal.posterior(draws, seen, WINTER)["alive"])
    probability = posterior[..., 1].mean(axis=0)
    unseen = seen[::-1].argmax(axis=0)
    print("occasions since last seen: animals, estimated alive in the end, truly alive")
    for since in range(1, 7):
        group = (unseen == since) if since < 6 else (unseen >= since)
        living, truly = probability[-1, group].sum(), alive[-1, group].sum()
        print(f"{since}{' ' if since < 6 else '+'} {group.sum():4} {living:6.1f} {truly:4}")

    # How many are alive at each occasion is a sum over animals, so it needs joint draws of them all.
    drawn = np.asarray(marginal.draw(jax.random.key(1), draws, seen, WINTER)["alive"])
    released = np.cumsum(seen, axis=0)[:-1] > 0
    living = (drawn * released).sum(axis=2)
    low, high = np.quantile(living, [0.05, 0.95], axis=0)
    true = (alive[1:] * released).sum(axis=1)
    inside = np.sum((low <= true) & (true <= high))
    print(
        f"alive in the end: {low[-1]:.0f} to {high[-1]:.0f} in 90% of the draws, {true[-1]} in truth"
    )
    print(f"the number alive is inside its 90% interval at {inside} of {len(true)} occasions")

    plot(out / "capture_recapture.png", alive, seen, probability, released, living)
    print(f"the figure is in {out}/")


if __name__ == "__main__":
    main()
