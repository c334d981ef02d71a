"""Noisy raters: what is the true category of each item, and who is to be trusted?

Raters sort items into categories and make mistakes, each in a way of their own. Nobody knows the true
categories, but raters who agree with the others on most items can be told from those who do not.

    prevalence ~ Dirichlet(1, 1, 1)                       how common each category is
    confusion[j, k] ~ Dirichlet(1 + 2 on category k)      what rater j says of an item of category k
    category[i] ~ Categorical(prevalence)
    rating[i, j] ~ Categorical(confusion[j, category[i]])     where rater j has seen item i

Source: Dawid and Skene (1979), "Maximum likelihood estimation of observer error-rates using the EM
algorithm", Applied Statistics 28. The prior that favours the right answer keeps the numbers of the
categories: without it, any relabelling would fit as well.

Summed out: `category`, 3 values for every item. `explain` shows two plates, the raters within the items:
ratings are multiplied over raters first, then the category of each item is summed. A rating that was not
given is masked, and adds nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO
from marginax.infer.autoguide import AutoDelta

SKILL = np.array([0.9, 0.8, 0.65, 0.45, 0.45])  # how often each rater is right
PREVALENCE = np.array([0.5, 0.3, 0.2])
K = 3
MISSING = -1


def simulate(seed=0, items=300, missing=0.2):
    """True categories, shape (items,), and ratings, shape (items, raters)."""
    rng = np.random.default_rng(seed)
    shape = (items, len(SKILL))
    category = rng.choice(K, items, p=PREVALENCE)
    wrong = (category[:, None] + rng.integers(1, K, shape)) % K
    ratings = np.where(rng.random(shape) < SKILL, category[:, None], wrong)
    return category, np.where(rng.random(shape) < missing, MISSING, ratings)


def model(ratings, categories=K):
    items, raters = ratings.shape
    prevalence = mx.sample("prevalence", dist.Dirichlet(jnp.ones(categories)))
    with mx.plate("raters", raters, dim=-1):
        concentration = jnp.ones((categories, categories)) + 2 * jnp.eye(categories)
        confusion = mx.sample("confusion", dist.Dirichlet(concentration).to_event(1))
    with mx.plate("items", items, dim=-2):
        category = mx.sample("category", dist.Categorical(prevalence))
        given = mx.handlers.mask(mask=ratings != MISSING)
        with mx.plate("raters", raters, dim=-1) as rater, given:
            answer = dist.Categorical(confusion[rater, category])
            mx.sample("rating", answer, obs=ratings)


def main():
    category, ratings = simulate()
    marginal = mx.marginalize(model)
    marginal.explain(ratings)

    guide = AutoDelta(model)
    svi = SVI(model, guide, mx.optim.Adam(0.05), TraceEnum_ELBO())
    result = svi.run(jax.random.key(0), 500, ratings)
    estimates = guide.median(result.params)
    print(f"loss {result.losses[0]:.1f} -> {result.losses[-1]:.1f}")
    shares = np.bincount(category) / len(category)
    print("prevalence", np.asarray(estimates["prevalence"]).round(2), "true", shares.round(2))
    skill = np.einsum("jkk,k->j", estimates["confusion"], estimates["prevalence"])
    print("how often each rater is right", skill.round(2), "true", SKILL)

    probability = np.asarray(marginal.posterior(estimates, ratings)["category"])[:, 0]
    votes = np.stack([(ratings == k).sum(axis=1) for k in range(K)], axis=1)
    print(f"right by majority vote  {(votes.argmax(axis=1) == category).mean():.1%}")
    print(f"right by the model      {(probability.argmax(axis=1) == category).mean():.1%}")
    print(f"it expects to be right  {probability.max(axis=1).mean():.1%}")


if __name__ == "__main__":
    main()
