"""NUTS on a mixture of two, 1,000 points: PyMC's model, summed out in `NormalMixture`, drawn by nutpie."""

from __future__ import annotations

import time

import arviz as az
import numpy as np
import nutpie  # pyright: ignore[reportMissingImports]
import pymc as pm  # pyright: ignore[reportMissingImports]
from measured import report
from nuts_data import CHAINS, DRAWS, WARMUP, data


def main() -> None:
    x = data()
    with pm.Model() as model:
        w = pm.Dirichlet("weights", np.ones(2))
        # Ordered, as is usual there: the starts of its chains are jittered, and would differ in the labels.
        ordered = pm.distributions.transforms.ordered
        start = np.array([-2.0, 2.0])
        mu = pm.Normal("locs", 0.0, 10.0, shape=2, initval=start, transform=ordered)
        sigma = pm.LogNormal("scale", 0.0, 1.0)
        pm.NormalMixture("obs", w=w, mu=mu, sigma=sigma, observed=x)
    start = time.perf_counter()
    compiled = nutpie.compile_pymc_model(model)
    trace = nutpie.sample(
        compiled, draws=DRAWS, tune=WARMUP, chains=CHAINS, seed=0, progress_bar=False
    )
    took = time.perf_counter() - start
    effective = az.ess(trace, var_names=["locs", "scale"])
    worst = min(float(np.min(np.asarray(effective[name]))) for name in ("locs", "scale"))
    report("pymc with nutpie", "NUTS", points=len(x), components=2, seconds=took, effective=worst)


if __name__ == "__main__":
    main()
