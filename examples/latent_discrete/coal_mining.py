"""A change point in yearly counts: British coal-mining disasters, 1851-1962.

Disasters (explosions that killed ten miners or more) came at one rate up to some year and at another
from then on. The year of the change is discrete, and one for the whole series. Gradients move the two
rates; the year is summed out.

    early, late ~ Exponential(0.5)                   disasters a year before, and after
    change      ~ DiscreteUniform(1852, 1962)        the first year with the later rate
    disasters[t] ~ Poisson(early if t < change else late)

Source of the model: Carlin, Gelfand and Smith (1992), "Hierarchical Bayesian analysis of changepoint
problems", Applied Statistics 41. Source of the data: the 191 dates in Jarrett (1979), "A note on the
intervals between coal-mining disasters", Biometrika 66, counted by year (the table that is often
reprinted has the one of 1 January 1942 in 1941). No year is missing; the first and the last, of which
the record covers a part, are taken as whole.

Summed out: `change`, 111 values, in no plate. `explain` shows one factor that has it, `disasters`, with
the plate of years: the plate is multiplied over first, then the change is summed, 111 x 112 numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS

FIRST = 1851


def disasters_by_year():
    """Counts of the years 1851, 1852, ..., 1962: a row for each decade, from the year that ends in 1."""
    decades = """
        4 5 4 1 0 4 3 4 0 6
        3 3 4 0 2 6 3 3 5 4
        5 3 1 4 4 1 5 5 3 4
        2 5 2 2 3 4 2 1 3 2
        2 1 1 1 1 3 0 0 1 0
        1 1 0 0 3 1 0 3 2 2
        0 1 1 1 0 1 0 1 0 0
        0 2 1 0 0 0 1 1 0 2
        3 3 1 1 2 1 1 1 1 2
        3 3 0 0 0 1 4 0 0 0
        1 0 0 0 0 0 1 0 0 1
        0 1"""
    return np.array(decades.split(), int)


def model(counts):
    early = mx.sample("early", dist.Exponential(0.5))
    late = mx.sample("late", dist.Exponential(0.5))
    change = mx.sample("change", dist.DiscreteUniform(FIRST + 1, FIRST + len(counts) - 1))
    with mx.plate("years", len(counts)) as index:
        rate = jnp.where(FIRST + index < change, early, late)
        mx.sample("disasters", dist.Poisson(rate), obs=counts)


def main():
    counts = disasters_by_year()
    marginal = mx.marginalize(model)
    marginal.explain(counts)

    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=500)
    mcmc.run(jax.random.key(0), counts)
    draws = mcmc.get_samples()
    for name in ("early", "late"):
        low, high = np.quantile(draws[name], [0.05, 0.95])
        print(f"{name:5} {draws[name].mean():.2f} disasters a year, 90% in [{low:.2f}, {high:.2f}]")

    # Each draw of the rates gives exact probabilities of the year; their average is the posterior.
    probability = np.asarray(marginal.posterior(draws, counts)["change"]).mean(axis=0)
    years = np.arange(FIRST + 1, FIRST + len(counts))
    likely = np.argsort(-probability)[:5]
    print("most probable:", ", ".join(f"{years[i]} ({probability[i]:.0%})" for i in likely))
    inside = probability[(years >= 1886) & (years <= 1896)].sum()
    print(f"the rate fell between 1886 and 1896 with probability {inside:.3f}")

    drawn = np.asarray(marginal.draw(jax.random.key(1), draws, counts)["change"])
    low, high = np.quantile(drawn, [0.05, 0.95])
    print(f"{len(drawn)} exact draws of the year: 90% from {low:.0f} to {high:.0f}")


if __name__ == "__main__":
    main()
