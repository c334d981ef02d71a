"""Latent Dirichlet allocation: documents that mix several topics.

Every word token has a topic of its own. A document has its mixture of topics, a topic its distribution
over words. The words here are the pixels of a 4 x 4 picture, and the true topics its 4 rows and 4 columns:
what was learned can be seen at a glance.

    mixture[d] ~ Dirichlet(1, ..., 1)             topics of document d
    words[k] ~ Dirichlet(1.1, ..., 1.1)           words of topic k
    topic[i] ~ Categorical(mixture[document[i]])  for each token i of all documents
    word[i]  ~ Categorical(words[topic[i]])

Sources: Blei, Ng and Jordan (2003), "Latent Dirichlet allocation", Journal of Machine Learning Research
3; topics that are bars are a test of Griffiths and Steyvers (2004), "Finding scientific topics", PNAS 101.

Summed out: `topic`, K values for every token. `explain` shows one plate of tokens: documents need none
for them, an array says which document a token is from. Tokens are independent given the two tables.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, init_to_sample
from marginax.infer.autoguide import AutoDelta

SIDE = 4
K, VOCABULARY = 2 * SIDE, SIDE * SIDE


def bars():
    """The true topics: a row or a column of pixels each, shape (8, 16)."""
    pictures = np.zeros((K, SIDE, SIDE))
    for i in range(SIDE):
        pictures[i, i] = pictures[SIDE + i, :, i] = 1 / SIDE
    return pictures.reshape(K, VOCABULARY)


def simulate(seed=0, documents=150, length=60):
    """Of every token its topic, its document and its word."""
    rng = np.random.default_rng(seed)
    mixture = rng.dirichlet(np.full(K, 0.3), documents)
    document = np.repeat(np.arange(documents), length)
    topic = np.array([rng.choice(K, p=mixture[d]) for d in document])
    word = np.array([rng.choice(VOCABULARY, p=bars()[k]) for k in topic])
    return topic, document, word


def model(document, word, documents, vocabulary, topics=K):
    with mx.plate("documents", documents):
        mixture = mx.sample("mixture", dist.Dirichlet(jnp.ones(topics)))
    with mx.plate("topics", topics):
        words = mx.sample("words", dist.Dirichlet(1.1 * jnp.ones(vocabulary)))
    with mx.plate("tokens", len(word)):
        topic = mx.sample("topic", dist.Categorical(mixture[document]))
        mx.sample("word", dist.Categorical(words[topic]), obs=word)


def main():
    topic, document, word = simulate()
    data = (document, word, document.max() + 1, VOCABULARY)
    marginal = mx.marginalize(model)
    marginal.explain(*data)

    guide = AutoDelta(model, init_loc_fn=init_to_sample)
    svi = SVI(model, guide, mx.optim.Adam(0.1), TraceEnum_ELBO())
    with warnings.catch_warnings():
        # Every start of LDA ends at an optimum of its own, and SVI says so; the best of four serves here.
        warnings.filterwarnings("ignore", message="SVI.run: . of 4 restarts")
        result = svi.run(jax.random.key(0), 300, *data, num_restarts=4)
    print(result.restarts)
    estimates = guide.median(result.params)
    print(f"loss {result.losses[0]:.0f} -> {result.losses[-1]:.0f}")

    # Topics have numbers of their own: pair each true one with the closest that was found.
    words = np.asarray(estimates["words"])
    distance = np.abs(bars()[:, None] - words).sum(axis=-1) / 2
    closest = distance.argmin(axis=1)
    print(
        f"{len(set(closest))} of {K} topics found, total variation", distance.min(axis=1).round(2)
    )
    shades = np.array(list(" .:#"))[np.minimum(4 * SIDE * words[closest], 3).astype(int)]
    for row in shades.reshape(K, SIDE, SIDE).transpose(1, 0, 2):
        print("  |" + "|  |".join("".join(pixels) for pixels in row) + "|")

    probability = np.asarray(marginal.posterior(estimates, *data)["topic"])[:, closest]
    right = (probability.argmax(axis=1) == topic).mean()
    print(f"{right:.0%} of the tokens get their true topic; the model expects", end=" ")
    print(f"{probability.max(axis=1).mean():.0%}")


if __name__ == "__main__":
    main()
