"""Abundance from repeated counts: an N-mixture model.

At each site live N animals, and each visit counts some of them. The counts of one site scatter around
N times the probability of being counted, so their spread tells the two factors apart.

    rate ~ Gamma(2, 0.1)                animals that a site has on average
    p ~ Uniform(0, 1)                   probability that an animal is counted on a visit
    N[i] ~ Poisson(rate)
    count[i, v] ~ Binomial(N[i], p)

Source: Royle (2004), "N-mixture models for estimating population size from spatially replicated counts",
Biometrics 60.

Summed out: `N`. A Poisson has infinitely many values, so the site states the range to sum over, 0 to
100. How much probability lies beyond it is estimated at every call, and where it matters there is a
warning. `explain` shows 101 values for every site, and the visits multiplied within the sites.
"""

import jax
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS

RATE, P = 15.0, 0.4


def simulate(seed=0, sites=80, visits=5):
    """The number of animals at each site, and counts of shape (sites, visits)."""
    rng = np.random.default_rng(seed)
    abundance = rng.poisson(RATE, sites)
    return abundance, rng.binomial(abundance[:, None], P, (sites, visits))


def model(counts):
    sites, visits = counts.shape
    rate = mx.sample("rate", dist.Gamma(2.0, 0.1))
    p = mx.sample("p", dist.Uniform(0.0, 1.0))
    with mx.plate("sites", sites, dim=-2):
        abundance = mx.sample("N", dist.Poisson(rate), infer={"support": (0, 100)})
        with mx.plate("visits", visits, dim=-1):
            mx.sample("count", dist.Binomial(abundance, p), obs=counts)


def main():
    abundance, counts = simulate()
    marginal = mx.marginalize(model)
    marginal.explain(counts)

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=300)
    mcmc.run(jax.random.key(0), counts)
    draws = mcmc.get_samples()
    print(f"rate  {draws['rate'].mean():.1f} +- {draws['rate'].std():.1f}, true {RATE}")
    print(f"p     {draws['p'].mean():.2f} +- {draws['p'].std():.2f}, true {P}")

    posterior = np.asarray(marginal.posterior(draws, counts)["N"])[:, :, 0].mean(axis=0)
    beyond = np.asarray(marginal.beyond_cuts(draws, counts)["N"])
    print(f"probability of more than 100 animals, estimated: {beyond.max():.0e}")

    mean = posterior @ np.arange(101)
    largest = counts.max(axis=1)
    print(
        "total: largest counts", largest.sum(), f"estimate {mean.sum():.0f} true", abundance.sum()
    )
    below = np.cumsum(posterior, axis=1)
    low, high = ((below < level).sum(axis=1) for level in (0.05, 0.95))
    inside = np.mean((low <= abundance) & (abundance <= high))
    print(f"{inside:.0%} of the sites have their true number inside the 90% interval")
    print("first sites: largest count, 90% interval, true number")
    for i in range(5):
        print(f"  {largest[i]:2}  {low[i]:2} to {high[i]:2}  {abundance[i]:2}")


if __name__ == "__main__":
    main()
