# %% [markdown]
# # A Gaussian mixture, its assignments summed out
#
# Five points come from two clusters. Which cluster a point came from is a discrete latent variable.
# Marginax sums it out exactly, so that the rest of the model can be trained by gradient steps and
# sampled by NUTS, and reads it back exactly afterwards.
#
# Run it with `python examples/tutorial.py`, or cell by cell as a notebook. It shows the numbers;
# `marginax tutorial` does the same job with figures and a report.

# %%
import jax
import jax.numpy as jnp
import optax

import marginax as mx
import marginax.distributions as dist
from marginax.infer import MCMC, NUTS, SVI, Predictive, TraceEnum_ELBO, infer_discrete
from marginax.infer.autoguide import AutoDelta

data = jnp.array([0.0, 1.0, 10.0, 11.0, 12.0])
K = 2


# %% [markdown]
# ## The model
#
# `assignment` is an ordinary sample site. In the model it has one value for each point, and indexes
# the centres as in NumPy. Nothing marks it as special: it is latent and has finitely many values,
# so it is summed out.


# %%
def model(data):
    weights = mx.sample("weights", dist.Dirichlet(0.5 * jnp.ones(K)))
    scale = mx.sample("scale", dist.LogNormal(0.0, 2.0))
    with mx.plate("components", K):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(data)):
        assignment = mx.sample("assignment", dist.Categorical(weights))
        mx.sample("obs", dist.Normal(locs[assignment], scale), obs=data)


# Before anything is computed: what is summed out, in which order, and what it costs. The plate says
# that points are independent, so there are 2 values for each of 5 points, not 2**5 assignments.
marginal = mx.marginalize(model)
marginal.explain(data)


# %% [markdown]
# ## Training a MAP estimate
#
# A point estimate is a guide that puts all its mass in one place, `AutoDelta`. The likelihood of a
# mixture has several optima, so where it starts matters: equal weights, a scale of the data's order,
# and two random points as centres.


# %%
def plausible_start(site):
    if site["name"] == "weights":
        return jnp.ones(K) / K
    if site["name"] == "scale":
        return jnp.sqrt(jnp.var(data, ddof=1) / 2)
    if site["name"] == "locs":
        return jax.random.choice(site["kwargs"]["rng_key"], data, (K,), replace=False)
    raise ValueError(site["name"])


guide = AutoDelta(model, init_loc_fn=plausible_start)
svi = SVI(model, guide, optax.adam(0.1, b1=0.8, b2=0.99), TraceEnum_ELBO())

# One call: draw 100 starts, keep the one with the lowest loss, and take 200 steps from there.
result = svi.run(jax.random.key(0), 200, data, num_restarts=100, select="initial", tolerance=0)
estimates = guide.median(result.params)
print(f"loss {result.losses[0]:.3f} -> {result.losses[-1]:.3f}")
for name, value in estimates.items():
    print(f"{name:8} {value}")


# %% [markdown]
# ## Serving: which cluster?
#
# The exact membership probabilities are one call. Note that new points may be as many as you like.

# %%
print(marginal.posterior(estimates, data)["assignment"].round(4))
print(marginal.mode(estimates, jnp.array([-3.0, 5.0, 6.0, 20.0]))["assignment"])

# %% [markdown]
# The same with effect handlers, as in Pyro: record the fitted values from the guide, replay them in
# the model, and let `infer_discrete` fill in the discrete sites: the joint mode at temperature 0, a
# random draw from the joint posterior at temperature 1.

# %%
fitted = mx.handlers.substitute(guide, data=result.params)
trained_model = mx.handlers.replay(model, trace=mx.handlers.trace(fitted).get_trace(data))


def classifier(data, temperature=0, rng_key=None):
    inferred = infer_discrete(trained_model, temperature=temperature, rng_key=rng_key)
    return mx.handlers.trace(inferred).get_trace(data)["assignment"]["value"]


print("mode       ", classifier(data))
print("random draw", classifier(data, temperature=1, rng_key=jax.random.key(1)))
near_the_boundary = jnp.arange(5.5, 6.0, 0.05)
print("boundary   ", classifier(near_the_boundary, temperature=1, rng_key=jax.random.key(2)))

# %% [markdown]
# ## Serving: enumerating in the guide
#
# More general, though slower: a guide that has a free membership probability for every point. The
# global parameters keep their learned values, hidden from the optimiser by `block`. `assignment` is
# now a site of the guide, and is summed out there.


# %%
def full_guide(data):
    with (
        mx.handlers.block(hide_types=["param"]),
        mx.handlers.substitute(data=result.params),
    ):
        guide(data)
    with mx.plate("data", len(data)):
        probs = mx.param(
            "assignment_probs",
            jnp.ones((len(data), K)) / K,
            constraint=dist.constraints.simplex,
        )
        mx.sample("assignment", dist.Categorical(probs))


full_svi = SVI(model, full_guide, optax.adam(0.2, b1=0.8, b2=0.99), TraceEnum_ELBO())
full_result = full_svi.run(jax.random.key(3), 200, data, tolerance=0)
print(full_result.params["assignment_probs"].round(3))

# %% [markdown]
# ## The whole posterior: collapsed NUTS
#
# NUTS moves the continuous sites; the assignment is summed out with nothing said. The two clusters
# can be numbered in two ways, so the posterior has two equal modes, and a short chain seldom crosses.

# %%
mcmc = MCMC(NUTS(model), num_warmup=50, num_samples=250)
mcmc.run(jax.random.key(4), data)
mcmc.print_summary()

# The assignments can be drawn afterwards, one for each draw of the rest.
draws = Predictive(model, mcmc.get_samples(), infer_discrete=True)(jax.random.key(5), data)
same = draws["assignment"][:, 0] == draws["assignment"][:, 1]
apart = draws["assignment"][:, 0] != draws["assignment"][:, -1]
print(f"the first two points are together in {same.mean():.0%} of the draws")
print(f"the first and the last are apart in {apart.mean():.0%}")
