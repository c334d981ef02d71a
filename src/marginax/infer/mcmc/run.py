"""One run of MCMC from beginning to end: density, starting points, program, checkpoint, loop."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from marginax.blocks.devices import current_mesh
from marginax.density.parameters import InvalidParameterWarning, invalid
from marginax.errors import ModelError
from marginax.infer.known import KnownModel
from marginax.infer.mcmc import adaptation
from marginax.infer.mcmc.block import Chain, make_block, spread
from marginax.infer.mcmc.checkpoint import DRAWS, SavedRun, read_run, write_run
from marginax.infer.mcmc.draws import DrawStore, Memory, OnDisk, chunk_size
from marginax.infer.mcmc.kernels import Kernel
from marginax.infer.mcmc.sampling import Limits, Standing, sample
from marginax.infer.mcmc.starts import FlatTarget, find_starts, flat, given_starts
from marginax.infer.running.fingerprint import (
    fingerprint,
    key_numbers,
    program_fingerprint,
    refuse_another_run,
)
from marginax.infer.running.progress import progress
from marginax.infer.target import target_of
from marginax.jaxpr.compiled import QUICK, Hoisted, remembered, remembered_jit

BUFFER_BYTES = 2**26
MOST_KEPT = 1024
"""Draws of each chain that one call keeps at most, and the bytes that they may take."""


@dataclass(frozen=True)
class Job:
    """What is to be run."""

    kernel: Kernel
    num_warmup: int
    kept: int
    """Draws of each chain to keep."""
    thinning: int
    num_chains: int
    chain_method: str
    progress_bar: bool

    @property
    def total(self) -> int:
        """Iterations in all."""
        return self.num_warmup + self.kept * self.thinning


@dataclass(frozen=True)
class Checkpointing:
    """Where to keep a run, and how often to write where it stands."""

    folder: Path
    seconds: float


@dataclass(frozen=True)
class Ran:
    """What came of it."""

    store: DrawStore
    standing: Standing
    sites: tuple[str, ...]
    """The continuous latent sites."""


def run_chains(
    job: Job,
    known: KnownModel,
    key: Any,
    init_params: Mapping[str, Any] | None,
    warmed_up: Chain | None,
    keeping: Checkpointing | None,
) -> Ran:
    """Run all chains, from the beginning or from where a checkpoint stands.

    Parameters
    ----------
    job : Job
        What to run.
    known : KnownModel
        The kernel's model.
    key : PRNG key
        For everything random.
    init_params : mapping, optional
        Unconstrained values to begin at.
    warmed_up : Chain, optional
        Chains of an earlier run to go on from, without warm-up.
    keeping : Checkpointing, optional
        Where to keep the run.
    """
    kernel, dtype = job.kernel, jnp.result_type(float)
    target = flat(target_of(known))
    log_density = target.log_density()
    keys = remembered_jit(lambda key: jax.random.split(key, job.num_chains), key)(key)

    def begin(position: Any, key: Any) -> Chain:
        state = kernel.begin(log_density, position)
        return Chain(state, adaptation.begin(kernel, target.size), key)

    saved = read_run(keeping.folder) if keeping else None
    if saved is not None or warmed_up is not None:
        positions = jax.ShapeDtypeStruct((job.num_chains, target.size), dtype)
        chains = jax.eval_shape(jax.vmap(begin), positions, keys)
    elif init_params is not None:
        chains = given_starts(target, begin, init_params, keys)
    else:
        chains = find_starts(target, begin, kernel.init_strategy, known, keys)

    capacity = _capacity(job, target)
    one = jax.eval_shape(lambda chains: jax.tree.map(lambda leaf: leaf[0], chains), chains)
    block = make_block(kernel, log_density, one, job.num_warmup, job.thinning, capacity)
    # Not with XLA's older way to fuse (`compiled.QUICK` has it): that compiles in a third less time, but for some
    # densities it writes code that doubles with every operation, until the memory is full.
    program = remembered(spread(block.run, job.chain_method, _mesh(job)), chains, 0, 0)

    about = _about(job, key, program, init_params, warmed_up) if keeping else {}
    if saved is not None:
        refuse_another_run(saved.folder, saved.about, about)
        if saved.done > job.total:
            raise ValueError(
                f"MCMC.run: the checkpoint {os.fspath(saved.folder)} has {saved.done} iterations already, more "
                f"than the {job.total} asked for. Ask for as many or more, or name another folder."
            )
    if saved is not None:
        standing = Standing(saved.chains(chains), saved.done, saved.divergences)
    elif warmed_up is not None:
        _check_fits(warmed_up, chains)
        standing = Standing(warmed_up._replace(rng_key=keys), job.num_warmup)
    else:
        standing = Standing(chains, 0)

    positions = np.asarray(standing.chains.state.position)
    validity = remembered_jit(jax.vmap(target.validity), positions, options=QUICK)
    fault = invalid(validity(positions))
    if fault is not None:
        raise fault.found("where a chain begins")
    constrain, chunk = _constrain(job, target, saved)
    flushed = saved.flushed if saved else 0
    pending = saved.pending if saved else np.zeros((job.num_chains, 0, block.layout.width), dtype)
    disk: OnDisk | None = None
    if keeping is not None:
        keeping.folder.mkdir(parents=True, exist_ok=True)
        if saved is None:  # where it begins, before there is anything that belongs to it
            saved = SavedRun(keeping.folder, about, standing.done, 0, 0, chunk, pending, (), {})
            write_run(saved, standing.chains)
        folder = keeping.folder / DRAWS
        disk = OnDisk(folder, job.num_chains, job.kept, chunk, saved.written)
    store = DrawStore(block.layout, constrain, chunk, disk or Memory(), pending, flushed)

    def save(now: Standing) -> None:
        if keeping is not None and disk is not None:
            counts = now.done, now.divergences, store.flushed, chunk
            kept = store.pending, disk.written(store.flushed)
            write_run(SavedRun(keeping.folder, about, *counts, *kept, {}), now.chains)

    limits = Limits(
        job.num_warmup, job.total, job.thinning, capacity, keeping.seconds if keeping else np.inf
    )
    with progress("MCMC", job.total, job.progress_bar) as bar:
        bar.advance(standing.done, "compiling")
        standing = sample(program.call, standing, limits, store, bar, save)
    fault = invalid(validity(np.asarray(standing.chains.state.position)))
    if fault is not None:
        warnings.warn(f"at the last draws: {fault}", InvalidParameterWarning, stacklevel=4)
    return Ran(store, standing, tuple(target.target.sites))


def _capacity(job: Job, target: FlatTarget) -> int:
    row = 8 * (target.size + 8) * job.num_chains
    return max(1, min(BUFFER_BYTES // row, MOST_KEPT))


def _mesh(job: Job) -> Mesh | None:
    """The devices to spread chains over, as many as share them evenly; None for one, or if they share plates."""
    if current_mesh() is not None:
        return None
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if job.num_chains % n == 0)
    if job.chain_method != "parallel" or count == 1:
        return None
    return Mesh(np.array(devices[:count]), ("chains",))


def _constrain(
    job: Job, target: FlatTarget, saved: SavedRun | None
) -> tuple[Callable[[Any], Mapping[str, Any]], int]:
    """From positions of a chunk of draws to values by site; and how many draws make a chunk."""
    dtype = jnp.result_type(float)
    one = jax.eval_shape(target.constrain, jax.ShapeDtypeStruct((target.size,), dtype))
    bytes_of_one = sum(leaf.size * leaf.dtype.itemsize for leaf in one.values())
    chunk = saved.chunk if saved else chunk_size(bytes_of_one * job.num_chains, job.kept)
    shape = jax.ShapeDtypeStruct((job.num_chains, chunk, target.size), dtype)
    compiled: list[Any] = []

    def constrain(positions: Any) -> Mapping[str, Any]:
        if not compiled:
            both = jax.vmap(jax.vmap(target.constrain))
            compiled.append(remembered_jit(both, shape, options=QUICK))
        return compiled[0](positions)

    return constrain, chunk


def _about(
    job: Job,
    key: Any,
    program: Hoisted,
    init_params: Mapping[str, Any] | None,
    warmed_up: Chain | None,
) -> dict[str, Any]:
    """What tells a run from others; the data are in the program's constants."""
    kernel = job.kernel
    return {
        "key": np.asarray(key_numbers(key)).tolist(),
        "sampler": type(kernel).__name__,
        "num_warmup": job.num_warmup,
        "num_chains": job.num_chains,
        "thinning": job.thinning,
        "chain_method": job.chain_method,
        "beginning": fingerprint(kernel.step_size, kernel.init_strategy, init_params, warmed_up),
        "program and data": program_fingerprint(program),
    }


def _check_fits(chains: Chain, template: Chain) -> None:
    """Were these chains of the same model and sampler?"""

    def shapes(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)

    if shapes(chains) != shapes(template):
        raise ModelError(
            "post_warmup_state is of another model, sampler or number of chains: its shapes are "
            f"{shapes(chains)}, now they are {shapes(template)}."
        )
