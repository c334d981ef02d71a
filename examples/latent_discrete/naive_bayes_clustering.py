"""Naive Bayes without labels: documents sorted into categories by the words they use.

A document is a bag of words, how often it uses each, and belongs to one category. A category is a
distribution over words. Given the category, words do not depend on each other; that is the naive part.

    shares ~ Dirichlet(2, ..., 2)                 how common each category is
    words[k] ~ Dirichlet(1.1, ..., 1.1)           what category k talks of
    category[d] ~ Categorical(shares)
    counts[d] ~ Multinomial(length of d, words[category[d]])

Source: Nigam, McCallum, Thrun and Mitchell (2000), "Text classification from labeled and unlabeled
documents using EM", Machine Learning 39.

Summed out: `category`, one for every document. `explain` shows one plate of documents. The prior of the
words is a little above flat, so that no word becomes impossible in a category.
"""

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, init_to_sample
from marginax.infer.autoguide import AutoDelta

K, VOCABULARY = 4, 60
SHARES = np.array([0.4, 0.3, 0.2, 0.1])


def simulate(seed=0, documents=300):
    """The category of each document, how categories use words, and counts, shape (documents, words)."""
    rng = np.random.default_rng(seed)
    category = rng.choice(K, documents, p=SHARES)
    words = rng.dirichlet(np.full(VOCABULARY, 0.5), K)
    length = rng.poisson(25, documents) + 1
    return category, words, rng.multinomial(length, words[category])


def model(counts, categories=K):
    documents, vocabulary = counts.shape
    shares = mx.sample("shares", dist.Dirichlet(2.0 * jnp.ones(categories)))
    with mx.plate("categories", categories):
        words = mx.sample("words", dist.Dirichlet(1.1 * jnp.ones(vocabulary)))
    with mx.plate("documents", documents):
        category = mx.sample("category", dist.Categorical(shares))
        bag = dist.Multinomial(counts.sum(axis=1), words[category])
        mx.sample("counts", bag, obs=counts)


def main():
    category, words, counts = simulate()
    marginal = mx.marginalize(model)
    marginal.explain(counts)

    guide = AutoDelta(model, init_loc_fn=init_to_sample)
    svi = SVI(model, guide, mx.optim.Adam(0.1), TraceEnum_ELBO())
    result = svi.run(jax.random.key(0), 400, counts, num_restarts=10)
    estimates = guide.median(result.params)
    print(result.restarts)

    # Clusters have numbers of their own: each takes the category whose words it shares most.
    found = np.asarray(estimates["words"])
    distance = np.abs(found[:, None] - words).sum(axis=-1) / 2
    name = distance.argmin(axis=1)
    print("cluster -> category", name, "distance of their words", distance.min(axis=1).round(2))
    shares = np.bincount(category) / len(category)
    print("shares", np.asarray(estimates["shares"]).round(2), "true", shares[name].round(2))

    probability = np.asarray(marginal.posterior(estimates, counts)["category"])
    right = name[probability.argmax(axis=1)] == category
    print(f"{right.mean():.1%} of the documents are in the right category")
    print(f"{(probability.max(axis=1) > 0.99).mean():.1%} are more than 99% sure of theirs")

    # A document of a few words only is a matter of probabilities.
    short = np.zeros((1, VOCABULARY), int)
    short[0, counts[0].argsort()[-2:]] = 1
    unsure = np.asarray(marginal.posterior(estimates, short)["category"])[0]
    print("two words of document 0 alone:", unsure.round(2))


if __name__ == "__main__":
    main()
