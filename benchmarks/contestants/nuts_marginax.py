"""NUTS on a mixture of two, 1,000 points: Marginax."""

from __future__ import annotations

import time
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
from measured import report
from nuts_data import CHAINS, DRAWS, WARMUP, data

import marginax as mx
import marginax.distributions as dist


def model(x: Any) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(2)))
    scale = mx.sample("scale", dist.LogNormal(0.0, 1.0))
    with mx.plate("components", 2):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("x", dist.Normal(locs[z], scale), obs=x)


def main() -> None:
    x = jnp.asarray(data())
    start_at = mx.infer.init_to_value(values={"locs": jnp.array([-2.0, 2.0])})
    start = time.perf_counter()
    mcmc = mx.infer.MCMC(
        mx.infer.NUTS(model, init_strategy=start_at),
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), x)
    took = time.perf_counter() - start
    draws = mcmc.get_samples(group_by_chain=True)
    effective = az.ess(az.convert_to_dataset({n: np.asarray(draws[n]) for n in ("locs", "scale")}))
    worst = min(float(np.min(np.asarray(effective[name]))) for name in ("locs", "scale"))
    report("marginax", "NUTS", points=len(x), components=2, seconds=took, effective=worst)


if __name__ == "__main__":
    main()
