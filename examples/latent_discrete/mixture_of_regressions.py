"""A mixture of linear regressions: several lines through one cloud of points.

Each point follows one of K lines, and nobody says which. With one line fitted to all of them the slopes
cancel.

    weights ~ Dirichlet(2, 2)
    intercept[k], slope[k] ~ Normal(0, 3)
    noise[k] ~ LogNormal(-1, 1)
    line[i] ~ Categorical(weights)
    y[i] ~ Normal(intercept[line[i]] + slope[line[i]] x[i], noise[line[i]])

Source: de Veaux (1989), "Mixtures of linear regressions", Computational Statistics and Data Analysis 8;
as switching regressions, Quandt and Ramsey (1978), Journal of the American Statistical Association 73.

Summed out: `line`, K values for every point. `explain` shows one plate of points, and a cost that grows
with points times lines. The likelihood has several optima, so 20 starts are trained at once.
"""

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, init_to_sample
from marginax.infer.autoguide import AutoDelta

WEIGHTS = np.array([0.6, 0.4])
INTERCEPT = np.array([1.0, -0.5])
SLOPE = np.array([2.0, -1.5])
NOISE = np.array([0.3, 0.5])


def simulate(seed=0, points=300):
    """The line of each point, and its x and y."""
    rng = np.random.default_rng(seed)
    line = rng.choice(len(WEIGHTS), points, p=WEIGHTS)
    x = rng.uniform(-2, 2, points)
    return line, x, rng.normal(INTERCEPT[line] + SLOPE[line] * x, NOISE[line])


def model(x, y, lines=2):
    weights = mx.sample("weights", dist.Dirichlet(2.0 * jnp.ones(lines)))
    with mx.plate("lines", lines):
        intercept = mx.sample("intercept", dist.Normal(0.0, 3.0))
        slope = mx.sample("slope", dist.Normal(0.0, 3.0))
        noise = mx.sample("noise", dist.LogNormal(-1.0, 1.0))
    with mx.plate("points", len(x)):
        line = mx.sample("line", dist.Categorical(weights))
        mx.sample("y", dist.Normal(intercept[line] + slope[line] * x, noise[line]), obs=y)


def wide_lines(site):
    """Lines from the prior, but so wide that each sees all points; narrow ones are soon stuck."""
    if site["name"] == "noise":
        return 2.0 * jnp.ones(2)
    return init_to_sample(site)


def main():
    line, x, y = simulate()
    marginal = mx.marginalize(model)
    marginal.explain(x, y)

    guide = AutoDelta(model, init_loc_fn=wide_lines)
    svi = SVI(model, guide, mx.optim.Adam(0.05), TraceEnum_ELBO())
    result = svi.run(jax.random.key(0), 500, x, y, num_restarts=20)
    estimates = guide.median(result.params)
    order = np.argsort(-np.asarray(estimates["slope"]))  # the steeper line first, as in the truth
    print(result.restarts)
    true = {"weights": WEIGHTS, "intercept": INTERCEPT, "slope": SLOPE, "noise": NOISE}
    for name, value in true.items():
        print(f"{name:9}", np.asarray(estimates[name])[order].round(2), "true", value)
    print(f"one line through all points: slope {np.polyfit(x, y, 1)[0]:.2f}")

    probability = np.asarray(marginal.posterior(estimates, x, y)["line"])[:, order]
    sure = probability.max(axis=1) > 0.9
    right = probability.argmax(axis=1) == line
    print(
        f"{sure.mean():.0%} of the points are more than 90% sure, and {right[sure].mean():.1%} right"
    )
    print(f"of the others {right[~sure].mean():.0%}; they lie where the lines cross:")
    crossing = (INTERCEPT[1] - INTERCEPT[0]) / (SLOPE[0] - SLOPE[1])
    print(f"x = {x[~sure].mean():.2f} +- {x[~sure].std():.2f}, the crossing at {crossing:.2f}")


if __name__ == "__main__":
    main()
