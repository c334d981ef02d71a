"""The same in Pyro, by parallel enumeration: the loss of TraceEnum_ELBO with a guide of points, and its gradient."""

from __future__ import annotations

import argparse
import time
from typing import Any

import pyro  # pyright: ignore[reportMissingImports]
import pyro.distributions as dist  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]
from measured import parameters, peak_bytes, report, rows, seconds
from pyro import poutine  # pyright: ignore[reportMissingImports]
from pyro.infer import TraceEnum_ELBO, config_enumerate  # pyright: ignore[reportMissingImports]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--components", type=int, default=10)
    options = parser.parse_args()
    components = options.components

    @config_enumerate
    def model(data: Any) -> None:
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(components)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with pyro.plate("components", components):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(data)):
            assignment = pyro.sample("assignment", dist.Categorical(weights))
            pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    data = torch.as_tensor(rows(options.points))
    weights, locs, scale = parameters(components)
    params = {
        "weights": torch.tensor(weights, requires_grad=True),
        "scale": torch.tensor(scale, requires_grad=True),
        "locs": torch.tensor(locs, requires_grad=True),
    }
    elbo = TraceEnum_ELBO(max_plate_nesting=1)

    def value_and_gradient() -> float:
        loss = elbo.differentiable_loss(poutine.condition(model, params), lambda data: None, data)
        torch.autograd.grad(loss, list(params.values()))
        return -float(loss)

    before, start = peak_bytes(), time.perf_counter()
    value = value_and_gradient()
    first = time.perf_counter() - start
    report(
        "pyro",
        "mixture",
        points=options.points,
        components=components,
        seconds=seconds(value_and_gradient),
        first_seconds=first,
        value=value,
        bytes_beside_data=peak_bytes() - before,
    )


if __name__ == "__main__":
    main()
