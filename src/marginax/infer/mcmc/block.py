"""The compiled block: any number of iterations of all chains, in warm-up and after it.

One program takes the chains from one iteration to a later one and writes the draws to be kept into a buffer
of a fixed size. Python calls it again and again and is in charge in between: it shows progress, heeds
Ctrl-C, stores draws, writes checkpoints. How the iterations are cut into calls changes no bit of the
result, for all that an iteration needs is the chain's state, its key and its own number.

The program is written for one chain. Several run in lockstep in the same operations ("vectorized"), so
that an iteration takes as long as the chain with the longest trajectory; one after the other
("sequential"); or spread over devices ("parallel"), in lockstep on each, and no device waits for another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from marginax.infer.mcmc.adaptation import Adaptation, stages, tuning, update
from marginax.infer.mcmc.kernels import Kernel, LogDensity
from marginax.infer.mcmc.straight_threefry import straight


class Chain(NamedTuple):
    """Everything that an iteration changes or needs, of one chain (or with a leading dimension, of all)."""

    state: Any
    """Position on the unconstrained scale, shape (size,), its log density and gradient."""
    adaptation: Adaptation
    rng_key: Any
    """The same throughout; iterations fold their number into it."""


class Rows(NamedTuple):
    """What one call returns beside the chains."""

    kept: Array
    """Shape (chains, capacity, size + reports): positions, and what was reported of each transition.
    One array, for that compiles fastest."""
    divergences: Array
    """In all iterations of the call, shape (chains,)."""
    leapfrogs: Array
    """In all iterations of the call, shape (chains,)."""
    step_size: Array
    """Of the last iteration, shape (chains,)."""


class Layout(NamedTuple):
    """How a row of the buffer is to be read."""

    size: int
    """Its first numbers are the position."""
    reports: tuple[str, ...]
    """The names of the others."""

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return self.size + len(self.reports)

    def positions(self, rows: Any) -> Any:
        """Shape (..., size)."""
        return rows[..., : self.size]

    def fields(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """By name, of shape (...), in the types of numbers that they are."""
        found = {name: rows[..., self.size + i] for i, name in enumerate(self.reports)}
        return {name: value.astype(_TYPES.get(name, value.dtype)) for name, value in found.items()}


_TYPES = {"diverging": np.bool_, "num_steps": np.int32, "tree_depth": np.int32}


class Block(NamedTuple):
    """The program of one chain, and the layout of the rows that it writes."""

    run: Callable[[Chain, Any, Any], tuple[Chain, Rows]]
    """From where the chain is, the number of its next iteration and of the one to stop before."""
    layout: Layout


def make_block(
    kernel: Kernel,
    log_density: LogDensity,
    chain: Chain,
    num_warmup: int,
    thinning: int,
    capacity: int,
) -> Block:
    """The program of one chain.

    Parameters
    ----------
    kernel : Kernel
        The transition.
    log_density : callable
        Of a position.
    chain : Chain
        One such as the program will be called with; shapes count.
    num_warmup : int
        So many iterations adapt; a call does not go across the end of warm-up.
    thinning : int
        After warm-up, the last of so many draws is kept.
    capacity : int
        How many draws the buffer holds.
    """
    plan = jax.device_put(stages(num_warmup))

    def iterate(number: Any, chain: Chain) -> tuple[Chain, dict[str, Array]]:
        stage = plan[jnp.minimum(number, num_warmup)]
        step_size, inverse_mass = tuning(chain.adaptation, stage)
        key = jax.random.fold_in(straight(chain.rng_key), number)
        state, report = kernel.transition(log_density, step_size, inverse_mass, key, chain.state)
        adaptation = update(kernel, chain.adaptation, stage, state.position, report["accept_prob"])
        report = {**report, "potential_energy": -state.logdensity, "step_size": step_size}
        return Chain(state, adaptation, chain.rng_key), report

    reports = tuple(jax.eval_shape(iterate, 0, chain)[1])
    layout = Layout(len(chain.state.position), reports)

    def kept(number: Any) -> Any:
        """How many draws are kept before an iteration."""
        return (number - num_warmup) // thinning

    def run(chain: Chain, first: Any, stop: Any) -> tuple[Chain, Rows]:
        dtype = chain.state.position.dtype

        def body(number: Any, carry: Any) -> Any:
            chain, rows = carry
            chain, report = iterate(number, chain)
            row = [chain.state.position, *(report[n].astype(dtype)[None] for n in reports)]
            # Of `thinning` draws the last stays in their place. In warm-up nothing is kept.
            slot = jnp.maximum(kept(number) - kept(first), 0)
            return chain, Rows(
                jax.lax.dynamic_update_index_in_dim(rows.kept, jnp.concatenate(row), slot, 0),
                rows.divergences + report["diverging"].astype(jnp.int32),
                rows.leapfrogs + report["num_steps"].astype(jnp.int32),
                report["step_size"].astype(dtype),
            )

        zero = jnp.zeros((), jnp.int32)
        buffer = jnp.zeros((capacity, layout.width), dtype)
        empty = Rows(buffer, zero, zero, jnp.zeros((), dtype))
        return jax.lax.fori_loop(first, stop, body, (chain, empty))

    return Block(run, layout)


def spread(
    run: Callable[[Chain, Any, Any], tuple[Chain, Rows]], chain_method: str, mesh: Mesh | None
) -> Callable[[Chain, Any, Any], tuple[Chain, Rows]]:
    """The program of several chains, on a leading dimension, from that of one.

    Parameters
    ----------
    run : callable
        Of a `Block`.
    chain_method : {"vectorized", "parallel", "sequential"}
        How they run.
    mesh : Mesh, optional
        The devices to spread them over, if several.
    """

    def together(chains: Chain, first: Any, stop: Any) -> tuple[Chain, Rows]:
        if chains.state.position.shape[0] == 1:
            # Mapped over one chain, both sides of every choice would be computed.
            one = run(jax.tree.map(lambda leaf: leaf[0], chains), first, stop)
            return jax.tree.map(lambda leaf: leaf[None], one)
        if chain_method == "sequential":
            return jax.lax.map(lambda chain: run(chain, first, stop), chains)
        return jax.vmap(run, in_axes=(0, None, None))(chains, first, stop)

    if mesh is None:
        return together
    chains = PartitionSpec(mesh.axis_names[0])
    return jax.shard_map(
        together,
        mesh=mesh,
        in_specs=(chains, PartitionSpec(), PartitionSpec()),
        out_specs=chains,
        check_vma=False,
    )
