"""A mixture fitted and sampled by several processes, each of which has some of the rows.

    python examples/multihost.py --processes 4

starts four processes on this machine, which find one another on the loopback interface as processes on several
machines would over a network. Each reads its own rows of a file; none has them all. All get the same fit and the
same draws, bit for bit what one process with four devices gets:

    python examples/multihost.py --processes 1 --devices 4

If a process dies the others are ended, and the same command goes on with the fit from its checkpoint. On a cluster
start ``--process i`` on every machine, with the address of the first one as ``--coordinator``.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

STEPS, WARMUP, DRAWS = 300, 200, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--processes", type=int, default=2, help="how many processes there are")
    parser.add_argument("--devices", type=int, default=1, help="devices of each process")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=STEPS, help="of the optimiser")
    parser.add_argument("--out", type=Path, default=Path("multihost-results"))
    parser.add_argument("--coordinator", help="host:port of the first process")
    parser.add_argument("--process", type=int, help="run as this process, counted from 0")
    options = parser.parse_args()
    if options.process is None:
        sys.exit(launch(options))
    work(options)


def launch(options: argparse.Namespace) -> int:
    """Start all processes, and end all if one ends badly."""
    options.out.mkdir(parents=True, exist_ok=True)
    np.save(options.out / "rows.npy", simulated(options.rows))
    coordinator = options.coordinator or f"127.0.0.1:{free_port()}"
    command = [sys.executable, __file__, *sys.argv[1:], "--coordinator", coordinator]
    running = {
        i: subprocess.Popen([*command, "--process", str(i)]) for i in range(options.processes)
    }
    while running:
        time.sleep(0.1)
        ended = {i: p.returncode for i, p in running.items() if p.poll() is not None}
        for i, code in ended.items():
            del running[i]
            if code == 0:
                continue
            for other in running.values():
                other.kill()
                other.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
            print(
                f"multihost: process {i} of {options.processes} {how}; the others were ended. The same "
                f"command goes on from {checkpoint_of(options)}.",
                file=sys.stderr,
            )
            return 1
    return 0


def work(options: argparse.Namespace) -> None:
    """What each process does."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", options.devices)
    if options.processes > 1:
        jax.distributed.initialize(
            options.coordinator,
            options.processes,
            options.process,
            heartbeat_timeout_seconds=20,
            shutdown_timeout_seconds=20,
        )
    import jax.numpy as jnp

    import marginax as mx
    import marginax.distributions as dist
    from marginax.infer.autoguide import AutoDelta

    def model(x: jax.Array) -> None:
        weights = mx.sample("weights", dist.Dirichlet(jnp.ones(3)))
        scale = mx.sample("scale", dist.LogNormal(0.0, 1.0))
        with mx.plate("components", 3):
            locs = mx.sample("locs", dist.Normal(0.0, 10.0))
        with mx.plate("data", len(x)):
            z = mx.sample("z", dist.Categorical(weights))
            mx.sample("x", dist.Normal(locs[z], scale), obs=x)

    everything = np.load(options.out / "rows.npy", mmap_mode="r")
    share = len(everything) // options.processes
    start = mx.infer.init_to_value(values={"locs": jnp.array([-3.0, 0.0, 3.0])})
    with mx.devices() as devices:
        own = everything[options.process * share : (options.process + 1) * share]
        x = devices.shard(own)
        svi = mx.infer.SVI(
            model,
            AutoDelta(model, init_loc_fn=start),
            mx.optim.Adam(0.05),
            mx.infer.TraceEnum_ELBO(),
        )
        fit = svi.run(
            jax.random.key(0),
            options.steps,
            x,
            progress_bar=False,
            checkpoint=checkpoint_of(options),
            every=100,
        )
        fitted = {name: np.asarray(value) for name, value in fit.params.items()}
        mcmc = mx.infer.MCMC(
            mx.infer.NUTS(model, init_strategy=start),
            num_warmup=WARMUP,
            num_samples=DRAWS,
            progress_bar=False,
        )
        mcmc.run(jax.random.key(1), x)
        draws = {name: np.asarray(value) for name, value in mcmc.get_samples().items()}
    found: dict[str, Any] = {**fitted, **draws}
    np.savez(options.out / f"process-{options.process}.npz", **found)
    locs, means = fitted["locs_auto_loc"], draws["locs"].mean(0)
    print(
        f"process {options.process}, {len(own):,} rows: locations {locs.round(4)}, "
        f"posterior means {means.round(4)}"
    )


def checkpoint_of(options: argparse.Namespace) -> Path:
    """Where the fit stands."""
    return options.out / "fit.mx"


def simulated(rows: int) -> np.ndarray:
    """Rows around three places."""
    generator = np.random.default_rng(0)
    places = np.array([-4.0, 0.0, 5.0])
    return places[generator.choice(3, rows, p=[0.2, 0.5, 0.3])] + generator.normal(size=rows)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


if __name__ == "__main__":
    main()
