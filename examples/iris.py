# %% [markdown]
# # Clustering real measurements: iris
#
# 150 flowers, four lengths each, three species. A mixture of three Gaussians with full covariances is
# fitted to the lengths alone; the species are looked at only afterwards. The job is the tutorial's: fit
# with restarts, serve, explore the posterior, draw figures.
#
# Run it with `python examples/iris.py [DIR]`; figures go to DIR (iris-results).

# %%
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS, SVI, TraceEnum_ELBO, init_to_value
from marginax.infer.autoguide import AutoDelta

out = Path(sys.argv[1] if len(sys.argv) > 1 else "iris-results")
out.mkdir(parents=True, exist_ok=True)

iris: Any = load_iris()
names = [name.removesuffix(" (cm)") for name in iris.feature_names]
species = np.asarray(iris.target)
mean, spread = iris.data.mean(axis=0), iris.data.std(axis=0)
data = jnp.asarray((iris.data - mean) / spread)  # standardised: priors need no units
N, D = data.shape
K = 3

# %% [markdown]
# ## The model
#
# Each cluster has a centre, a scale for each measurement, and a correlation matrix (given by its
# Cholesky factor). `cluster` is summed out, and picks rows of all three.


# %%
def model(data):
    weights = mx.sample("weights", dist.Dirichlet(5.0 * jnp.ones(K)))
    with mx.plate("clusters", K):
        centre = mx.sample("centre", dist.Normal(0.0, 2.0).expand([D]).to_event(1))
        scale = mx.sample("scale", dist.LogNormal(-0.7, 0.5).expand([D]).to_event(1))
        correlation = mx.sample("correlation", dist.LKJCholesky(D, concentration=2.0))
    with mx.plate("flowers", len(data)):
        cluster = mx.sample("cluster", dist.Categorical(weights))
        factor = (scale[..., None] * correlation)[cluster]
        mx.sample("flower", dist.MultivariateNormal(centre[cluster], scale_tril=factor), obs=data)


marginal = mx.marginalize(model)
marginal.explain(data)


# %% [markdown]
# ## Fit with restarts
#
# All 50 starts are trained at once, each from three random flowers as centres; the best at the end is kept.


# %%
def random_flowers(site):
    if site["name"] == "centre":
        return jax.random.choice(site["kwargs"]["rng_key"], data, (K,), replace=False)
    if site["name"] == "scale":
        return 0.5 * jnp.ones((K, D))
    if site["name"] == "correlation":
        return jnp.broadcast_to(jnp.eye(D), (K, D, D))
    return jnp.ones(K) / K


guide = AutoDelta(model, init_loc_fn=random_flowers)
svi = SVI(model, guide, optax.adam(0.05), TraceEnum_ELBO())
result = svi.run(jax.random.key(0), 600, data, num_restarts=50)
assert result.restarts is not None
final = np.sort(result.restarts.losses[:, -1])
estimates = guide.median(result.params)
print(f"loss of the best restart {final[0]:.2f}, the median {np.median(final):.2f}")
print(result.restarts)

# %% [markdown]
# ## Serve
#
# Exact memberships of the flowers, and of a new one that was never measured.

# %%
membership = np.asarray(marginal.posterior(estimates, data)["cluster"])
cluster = membership.argmax(axis=1)
table = np.array([[np.sum((cluster == k) & (species == s)) for s in range(3)] for k in range(K)])
print("cluster by species", iris.target_names.tolist())
print(table)
agreement = adjusted_rand_score(species, cluster)
print(f"adjusted Rand index {agreement:.3f}")
unsure = np.sum(membership.max(axis=1) < 0.9)
print(f"{unsure} flowers are less than 90% sure of their cluster")
new = (jnp.array([[6.0, 2.8, 4.9, 1.7]]) - mean) / spread
print("a flower of 6.0, 2.8, 4.9, 1.7 cm:", marginal.posterior(estimates, new)["cluster"].round(3))

# %% [markdown]
# ## Explore the posterior
#
# NUTS starts from the fit, so that the clusters keep their numbers. Each draw gives memberships; their average says
# how sure one can be when the parameters themselves are uncertain.

# %%
kernel = NUTS(model, init_strategy=init_to_value(values=estimates))
mcmc = MCMC(kernel, num_warmup=300, num_samples=500)
mcmc.run(jax.random.key(1), data)
draws = mcmc.get_samples()
probabilities = jax.jit(jax.vmap(lambda params: marginal.posterior(params, data)["cluster"]))
averaged = np.asarray(probabilities(draws)).mean(axis=0)
print("posterior mean of the weights", np.asarray(draws["weights"]).mean(axis=0).round(3))
print(
    f"adjusted Rand index of the averaged memberships {adjusted_rand_score(species, averaged.argmax(1)):.3f}"
)

# %% [markdown]
# ## Figures

# %%
colours = ["#c2410c", "#1d4ed8", "#15803d"]
markers = ["o", "s", "^"]

figure = Figure(figsize=(11, 4.6), layout="constrained")
for axes, (i, j) in zip(figure.subplots(1, 2), [(0, 1), (2, 3)], strict=True):
    for k in range(K):
        centre = np.asarray(estimates["centre"][k])[[i, j]] * spread[[i, j]] + mean[[i, j]]
        factor = np.asarray(estimates["scale"][k][:, None] * estimates["correlation"][k])
        covariance = (factor @ factor.T)[np.ix_([i, j], [i, j])] * np.outer(
            spread[[i, j]], spread[[i, j]]
        )
        turn = np.linspace(0, 2 * np.pi, 200)
        ring = np.linalg.cholesky(covariance) @ np.stack([np.cos(turn), np.sin(turn)])
        for radius in (1, 2):
            axes.plot(*(centre[:, None] + radius * ring), color=colours[k], linewidth=1)
    for s in range(3):
        chosen = species == s
        axes.scatter(
            iris.data[chosen, i],
            iris.data[chosen, j],
            c=[colours[k] for k in cluster[chosen]],
            marker=markers[s],
            s=22,
            alpha=0.8,
            label=iris.target_names[s],
        )
    axes.set_xlabel(f"{names[i]} (cm)")
    axes.set_ylabel(f"{names[j]} (cm)")
    legend = axes.legend(title="species (shape)", frameon=False)
    for handle in legend.legend_handles:
        handle.set_color("#4b5563")  # a shape stands for a species, a colour for a cluster
figure.suptitle("Iris: clusters found (colour, 1 and 2 sigma) against the species (shape)")
figure.savefig(out / "clusters.png", dpi=110)

figure = Figure(figsize=(10, 3.6), layout="constrained")
axes = figure.add_subplot()
usual = table.argmax(axis=0)[species]  # the cluster that most flowers of the species are in
order = np.lexsort((averaged[np.arange(N), usual], species))
bottom = np.zeros(N)
for k in range(K):
    axes.bar(
        range(N),
        averaged[order, k],
        bottom=bottom,
        width=1.0,
        color=colours[k],
        label=f"cluster {k}",
    )
    bottom += averaged[order, k]
for s in (1, 2):
    axes.axvline(50 * s - 0.5, color="black", linewidth=1)
axes.set_xticks([24.5, 74.5, 124.5], iris.target_names)
axes.set_xlim(-0.5, N - 0.5)
axes.set_ylabel("membership probability")
axes.set_title("Membership of every flower, averaged over the posterior", loc="left")
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
figure.savefig(out / "membership.png", dpi=110)

figure = Figure(figsize=(9, 3.4), layout="constrained")
axes = figure.add_subplot()
losses = result.restarts.losses
axes.plot(losses.T, color="#9ca3af", linewidth=0.6)
axes.plot(np.asarray(result.losses), color="#1f2937", linewidth=1.8, label="the best")
axes.set_yscale("log")
axes.set_xlabel("step")
axes.set_ylabel("loss (nats)")
axes.set_title(f"{len(losses)} restarts trained at once", loc="left")
axes.legend(frameon=False)
figure.savefig(out / "restarts.png", dpi=110)
print(f"figures are in {out}/")
