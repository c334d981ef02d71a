"""The same in PyMC, whose `Mixture` is summed out by hand in the library."""

from __future__ import annotations

import argparse
import time

import numpy as np
import pymc as pm  # pyright: ignore[reportMissingImports]
from measured import parameters, peak_bytes, report, rows, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--components", type=int, default=10)
    options = parser.parse_args()
    data = rows(options.points)
    _, locs, scale = parameters(options.components)
    with pm.Model() as model:
        w = pm.Dirichlet("weights", np.ones(options.components, np.float32))
        sigma = pm.LogNormal("scale", 0.0, 2.0)
        mu = pm.Normal("locs", 0.0, 10.0, shape=options.components)
        pm.NormalMixture("obs", w=w, mu=mu, sigma=sigma, observed=data)
    before, start = peak_bytes(), time.perf_counter()
    function = model.logp_dlogp_function(ravel_inputs=True)
    # On its unconstrained scale; the Jacobians make its value another one.
    point = model.initial_point() | {"locs": locs, "scale_log__": np.log(scale)}
    function.set_extra_values({})
    x = pm.blocking.DictToArrayBijection.map(
        {v.name: np.asarray(point[v.name]) for v in model.value_vars}
    )
    function(x.data)
    first = time.perf_counter() - start
    report(
        "pymc",
        "mixture",
        points=options.points,
        components=options.components,
        seconds=seconds(lambda: function(x.data)),
        first_seconds=first,
        bytes_beside_data=peak_bytes() - before,
    )


if __name__ == "__main__":
    main()
