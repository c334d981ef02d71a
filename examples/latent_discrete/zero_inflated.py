"""Zero-inflated counts: zeros by chance, and zeros for a reason.

Of people asked how many fish they caught, some have not fished at all. Their zeros come on top of the
zeros of those who fished and had no luck.

    share ~ Uniform(0, 1)               how many fish
    rate ~ Exponential(0.2)             how many they catch
    fishes[i] ~ Bernoulli(share)
    caught[i] ~ Poisson(rate * fishes[i])

Source: Lambert (1992), "Zero-inflated Poisson regression, with an application to defects in
manufacturing", Technometrics 34.

The sum is short enough to be known under a name, `ZeroInflatedPoisson`; the two ways of writing the
model are compared below. What the name does not give is the answer to who fished.

Summed out: `fishes`, 2 values for every person. `explain` shows a plate of people and nothing else. In
`closed_form` nothing is discrete and latent, so nothing is summed out.
"""

import jax
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS

SHARE, RATE = 0.6, 1.8


def simulate(seed=0, people=300):
    """Who fishes, and how many fish each one caught."""
    rng = np.random.default_rng(seed)
    fishes = rng.binomial(1, SHARE, people)
    return fishes, rng.poisson(RATE * fishes)


def model(caught):
    share = mx.sample("share", dist.Uniform(0.0, 1.0))
    rate = mx.sample("rate", dist.Exponential(0.2))
    with mx.plate("people", len(caught)):
        fishes = mx.sample("fishes", dist.Bernoulli(share))
        mx.sample("caught", dist.Poisson(rate * fishes), obs=caught)


def closed_form(caught):
    share = mx.sample("share", dist.Uniform(0.0, 1.0))
    rate = mx.sample("rate", dist.Exponential(0.2))
    with mx.plate("people", len(caught)):
        mx.sample("caught", dist.ZeroInflatedPoisson(1 - share, rate), obs=caught)


def main():
    fishes, caught = simulate()
    marginal = mx.marginalize(model)
    marginal.explain(caught)

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=500)
    mcmc.run(jax.random.key(0), caught)
    draws = mcmc.get_samples()
    print(f"share  {draws['share'].mean():.2f} +- {draws['share'].std():.2f}, true {SHARE}")
    print(f"rate   {draws['rate'].mean():.2f} +- {draws['rate'].std():.2f}, true {RATE}")

    with jax.enable_x64(True):
        params = {name: np.asarray(draws[name], float) for name in ("share", "rate")}
        ours = np.asarray(marginal.log_density(params, caught))
        named = np.asarray(mx.marginalize(closed_form).log_density(params, caught))
    error = np.abs(ours / named - 1).max()
    print(f"log density against ZeroInflatedPoisson, 500 draws: largest relative error {error:.0e}")

    posterior = marginal.posterior(draws, caught)["fishes"]
    probability = np.asarray(posterior)[..., 1].mean(axis=0)
    none = caught == 0
    print(f"{none.sum()} people caught nothing; {fishes[none].mean():.0%} of them had fished,")
    print(
        f"estimated {probability[none].mean():.0%}; of the others {probability[~none].mean():.0%}"
    )


if __name__ == "__main__":
    main()
