"""Site occupancy: where does a species live, if it is easily missed?

Sites are visited several times. One detection proves that the species is there. None in four visits
may mean that it is absent, or that it was missed four times. Repeated visits tell these apart.

    habitat[i], time[i, v]                              covariates of the site, and of the visit
    occupied[i] ~ Bernoulli(sigmoid(a + b habitat[i]))
    detected[i, v] ~ Bernoulli(occupied[i] sigmoid(c + d time[i, v]))
    a, b, c, d ~ Normal(0, 1.5)

Source: MacKenzie et al. (2002), "Estimating site occupancy rates when detection probabilities are less
than one", Ecology 83.

Summed out: `occupied`, 2 values for every site. `explain` shows the plate of visits within the plate of
sites: the visits are multiplied first, then each site's occupancy is summed. A detection at a site that
is not occupied is impossible, a density of zero: it makes no NaN, neither in the value nor in a gradient.
"""

import jax
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS

TRUE = {"a": 0.3, "b": 1.2, "c": -0.7, "d": 0.8}


def simulate(seed=0, sites=200, visits=4):
    """Covariates, the occupancy, shape (sites,), and detections, shape (sites, visits)."""
    rng = np.random.default_rng(seed)
    habitat, time = rng.normal(size=sites), rng.normal(size=(sites, visits))
    chance = 1 / (1 + np.exp(-TRUE["a"] - TRUE["b"] * habitat))
    occupied = rng.binomial(1, chance)
    detection = 1 / (1 + np.exp(-TRUE["c"] - TRUE["d"] * time))
    return habitat, time, occupied, rng.binomial(1, occupied[:, None] * detection)


def model(habitat, time, detected):
    sites, visits = detected.shape
    a, b, c, d = (mx.sample(name, dist.Normal(0.0, 1.5)) for name in "abcd")
    with mx.plate("sites", sites, dim=-2):
        is_occupied = dist.Bernoulli(logits=a + b * habitat[:, None])
        occupied = mx.sample("occupied", is_occupied)
        with mx.plate("visits", visits, dim=-1):
            detection = jax.nn.sigmoid(c + d * time)
            mx.sample("detected", dist.Bernoulli(occupied * detection), obs=detected)


def main():
    habitat, time, occupied, detected = simulate()
    marginal = mx.marginalize(model)
    marginal.explain(habitat, time, detected)

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=300)
    mcmc.run(jax.random.key(0), habitat, time, detected)
    draws = mcmc.get_samples()
    for name, true in TRUE.items():
        print(f"{name}  {draws[name].mean():5.2f} +- {draws[name].std():.2f}, true {true}")

    # The probability that a site is occupied, the uncertainty of the parameters included.
    posterior = marginal.posterior(draws, habitat, time, detected)["occupied"]
    probability = np.asarray(posterior)[:, :, 0, 1].mean(axis=0)
    unseen = detected.sum(axis=1) == 0
    print(
        f"{(~unseen).sum()} of {len(unseen)} sites with a detection; truly occupied {occupied.sum()}"
    )
    print(f"estimated to be occupied {probability.sum():.1f}")
    for name, chosen in (("poor", habitat < -0.5), ("good", habitat > 0.5)):
        here = unseen & chosen
        mean, true = probability[here].mean(), occupied[here].mean()
        print(
            f"never seen, {name} habitat: {here.sum()} sites, {mean:.0%} occupied, true {true:.0%}"
        )


if __name__ == "__main__":
    main()
