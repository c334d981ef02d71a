"""Capture and recapture: the Cormack-Jolly-Seber model of survival.

Animals are caught, marked and released, and looked for on later occasions. An animal that is not seen
may be dead, or alive and missed. Only what comes after an animal's first capture tells of its survival,
so everything up to then is masked out.

    survival ~ Uniform(0, 1)                 probability of living on to the next occasion
    capture[t] ~ Uniform(0, 1)               probability of being seen at occasion t, if alive
    alive[i, t] ~ Bernoulli(survival * alive[i, t - 1])      after the first capture of animal i
    seen[i, t]  ~ Bernoulli(capture[t] * alive[i, t])

Sources: Cormack (1964), Jolly (1965) and Seber (1965), all in Biometrika. Written by hand, the sum over
the unknown times of death is a recursion from the last occasion backwards. Here it is a Python loop.

Summed out: `alive_1`, `alive_2`, ..., one for each occasion, each with 2 values for every animal: a chain
in a plate. `explain` shows that each depends on the one before alone, and that the sum goes along the
chain, never over more than two occasions at once: its cost is linear in the number of occasions.
"""

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS

SURVIVAL = 0.8
CAPTURE = np.array([0.5, 0.7, 0.3, 0.6, 0.5, 0.4])  # at occasions 1, 2, ..., 6


def simulate(seed=0, animals=150):
    """Whether each animal is alive, and seen: two arrays of shape (animals, occasions)."""
    rng = np.random.default_rng(seed)
    occasions = len(CAPTURE) + 1
    first = rng.integers(0, occasions - 1, animals)
    alive, seen = np.zeros((2, animals, occasions), int)
    alive[np.arange(animals), first] = seen[np.arange(animals), first] = 1
    for t in range(1, occasions):
        lives_on = alive[:, t - 1] * rng.binomial(1, SURVIVAL, animals)
        is_seen = lives_on * rng.binomial(1, CAPTURE[t - 1], animals)
        alive[:, t] = np.where(first < t, lives_on, alive[:, t])
        seen[:, t] = np.where(first < t, is_seen, seen[:, t])
    return alive, seen


def model(seen):
    animals, occasions = seen.shape
    first = jnp.argmax(seen, axis=1)
    survival = mx.sample("survival", dist.Uniform(0.0, 1.0))
    with mx.plate("recaptures", occasions - 1):
        capture = mx.sample("capture", dist.Uniform(0.0, 1.0))
    with mx.plate("animals", animals):
        alive = jnp.ones(animals, int)  # when first caught, it is
        for t in range(1, occasions):
            released = first < t
            with mx.handlers.mask(mask=released):
                lives_on = mx.sample(f"alive_{t}", dist.Bernoulli(survival * alive))
                is_seen = dist.Bernoulli(capture[t - 1] * lives_on)
                mx.sample(f"seen_{t}", is_seen, obs=seen[:, t])
            alive = jnp.where(released, lives_on, 1)


def main():
    alive, seen = simulate()
    marginal = mx.marginalize(model)
    marginal.explain(seen)

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=300)
    mcmc.run(jax.random.key(0), seen)
    draws = mcmc.get_samples()
    mean, spread = draws["survival"].mean(), draws["survival"].std()
    print(f"survival               {mean:.2f} +- {spread:.2f}, true {SURVIVAL}")
    for t, true in enumerate(CAPTURE):
        mean, spread = draws["capture"][:, t].mean(), draws["capture"][:, t].std()
        print(f"capture at occasion {t + 1}  {mean:.2f} +- {spread:.2f}, true {true}")

    # How many of the marked animals live? Those seen, and of the others a part that nobody counted.
    posterior = marginal.posterior(draws, seen)
    first = seen.argmax(axis=1)
    print("occasion: marked before, seen again, estimated alive, truly alive")
    for t in range(1, seen.shape[1]):
        released = first < t
        living = np.asarray(posterior[f"alive_{t}"][:, released, 1]).mean(axis=0).sum()
        counts = (released.sum(), seen[released, t].sum(), alive[released, t].sum())
        print(f"{t}: {counts[0]:4} {counts[1]:4} {living:7.1f} {counts[2]:4}")


if __name__ == "__main__":
    main()
