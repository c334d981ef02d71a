"""Seconds until the first gradient: trace, plan and compile a log density of many dependent variables.

A chain of 5 to 50 discrete variables, each with an observation, and ten variables that depend on each
other more densely. Every figure is from a fresh process; beside it what NumPyro's enumeration takes for the same chain
(if its backend `funsor` is installed).

    python benchmarks/compile_time.py
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from typing import Any, cast

RUNS = 3
LENGTHS = (5, 10, 20, 35, 50)


def chain(primitives: Any, dist: Any, length: int, transition: Any, data: Any) -> None:
    z: Any = 0
    for t in range(length):
        z = primitives.sample(f"z_{t}", dist.Categorical(transition[z]))
        primitives.sample(f"x_{t}", dist.Normal(1.0 * z, 1.0), obs=data[t])


def dense(primitives: Any, dist: Any, transition: Any, data: Any) -> None:
    """Each of ten variables depends on the two before it."""
    z: list[Any] = [0, 0]
    for t in range(10):
        logits = transition[z[-1]] + 0.5 * transition[z[-2]]
        z.append(primitives.sample(f"z_{t}", dist.Categorical(logits=logits)))
        primitives.sample(f"x_{t}", dist.Normal(1.0 * z[-1] + z[-2], 1.0), obs=data[t])


def first_gradient(library: str, length: int) -> float:
    """Trace, compile and run a value and gradient once, in this process; 0 means the dense model."""
    import jax
    import jax.numpy as jnp

    transition = jnp.full((3, 3), 0.2) + 0.4 * jnp.eye(3)
    data = jnp.linspace(-1.0, 2.0, max(length, 10))
    if library == "marginax":
        import marginax as mx
        import marginax.distributions as dist

        def model(transition: Any) -> None:
            (
                chain(mx, dist, length, transition, data)
                if length
                else dense(mx, dist, transition, data)
            )

        marginal = mx.marginalize(model)

        def density(transition: Any) -> Any:
            return marginal.log_density({}, transition)

    else:
        import funsor  # pyright: ignore[reportMissingImports]
        import numpyro
        import numpyro.distributions as dist
        from numpyro.contrib.funsor import config_enumerate, enum, log_density, markov
        from numpyro.ops.indexing import Vindex

        funsor.set_backend("jax")

        @config_enumerate
        def its_model(transition: Any) -> None:
            z: Any = 0
            for t in markov(range(length)):
                z = numpyro.sample(f"z_{t}", cast(Any, dist.Categorical(Vindex(transition)[z])))
                numpyro.sample(f"x_{t}", dist.Normal(1.0 * z, 1.0), obs=data[t])

        def density(transition: Any) -> Any:
            seeded = numpyro.handlers.seed(its_model, 0)
            return log_density(enum(seeded, first_available_dim=-1), (transition,), {}, {})[0]

    jax.block_until_ready(jax.jit(lambda x: 2 * x)(1.0))  # the compiler's own start
    start = time.perf_counter()
    jax.block_until_ready(jax.jit(jax.value_and_grad(density))(transition))
    return time.perf_counter() - start


def measured(library: str, length: int) -> float:
    command = [sys.executable, __file__, "--one", library, str(length)]
    times = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(RUNS)
    ]
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    one = parser.parse_args().one
    if one:
        print(first_gradient(one[0], int(one[1])))
        return
    peers = ["marginax"] + (["numpyro"] if importlib.util.find_spec("funsor") else [])
    print(f"seconds to the first gradient, median of {RUNS} fresh processes")
    print(f"  {'model':24}" + "".join(f"{name:>12}" for name in peers))
    for length in LENGTHS:
        row = "".join(f"{measured(name, length):12.2f}" for name in peers)
        print(f"  {f'chain of {length} variables':24}{row}")
    print(f"  {'ten dependent variables':24}{measured('marginax', 0):12.2f}")


if __name__ == "__main__":
    main()
