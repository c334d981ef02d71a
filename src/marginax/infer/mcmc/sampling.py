"""The loop around the compiled block: it shows progress, heeds Ctrl-C, stores draws, writes checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from marginax.infer.mcmc.block import Chain, Rows
from marginax.infer.mcmc.draws import DrawStore
from marginax.infer.running.interruption import interruptible
from marginax.infer.running.progress import Bar

QUICK, SLOW = 0.1, 0.4
"""Seconds: a call that takes less may be twice as long next time, one that takes more half as long."""


@dataclass(frozen=True)
class Standing:
    """Where a run is."""

    chains: Chain
    done: int
    """Iterations, warm-up included."""
    divergences: int = 0
    """After warm-up, of all chains, also where draws are thinned out."""
    interrupted: bool = False


@dataclass(frozen=True)
class Limits:
    """How far a run goes, and how much of it one call may take."""

    num_warmup: int
    total: int
    """Iterations in all."""
    thinning: int
    capacity: int
    """Draws that one call can keep."""
    seconds: float
    """Between two checkpoints."""


def sample(
    program: Callable[[Chain, Any, Any], tuple[Chain, Rows]],
    begin: Standing,
    limits: Limits,
    store: DrawStore,
    bar: Bar,
    save: Callable[[Standing], None],
) -> Standing:
    """Run until all iterations are done, or until Ctrl-C.

    Parameters
    ----------
    program : callable
        What `block.spread` gave, compiled.
    begin : Standing
        Where to go on from.
    limits : Limits
        How far.
    store : DrawStore
        For the draws.
    bar : Bar
        To be moved.
    save : callable
        Called with where the run stands every so many seconds, at the end of warm-up, and at the end.
    """
    now, allowed, saved = begin, 1, time.perf_counter()
    clock, before = saved, begin.done
    with interruptible() as interrupted:
        while now.done < limits.total:
            stop = _next_stop(now.done, allowed, limits)
            begun = time.perf_counter()
            chains, rows = program(now.chains, now.done, stop)
            now = _after(now, chains, rows, stop, limits, store)
            seconds = time.perf_counter() - begun
            if seconds < QUICK:
                allowed = 2 * allowed
            elif seconds > SLOW:
                allowed = max(allowed // 2, 1)
            bar.advance(stop, _note(now, rows, (stop - before) / (time.perf_counter() - clock)))
            if before == begin.done:  # the first call waited for the compiler
                clock, before = time.perf_counter(), stop
            if interrupted() and stop < limits.total:
                now = replace(now, interrupted=True)
                break
            if time.perf_counter() - saved > limits.seconds or stop == limits.num_warmup:
                save(now)
                saved = time.perf_counter()
    store.finish()
    save(now)
    return now


def _next_stop(done: int, allowed: int, limits: Limits) -> int:
    """Where the next call ends: not beyond the end of warm-up, nor after more draws than it can keep."""
    if done < limits.num_warmup:
        return min(done + allowed, limits.num_warmup)
    begun_already = (done - limits.num_warmup) % limits.thinning
    most = limits.capacity * limits.thinning - begun_already
    return min(done + min(allowed, most), limits.total)


def _after(
    now: Standing, chains: Chain, rows: Rows, stop: int, limits: Limits, store: DrawStore
) -> Standing:
    if stop <= limits.num_warmup:
        np.asarray(rows.divergences)  # waits for the call to end
        return replace(now, chains=chains, done=stop)
    first, last = (max(n - limits.num_warmup, 0) // limits.thinning for n in (now.done, stop))
    store.append(np.asarray(rows.kept)[:, : last - first])
    divergences = now.divergences + int(np.asarray(rows.divergences).sum())
    return replace(now, chains=chains, done=stop, divergences=divergences)


def _note(now: Standing, rows: Rows, rate: float) -> str:
    step_size = np.exp(np.log(np.asarray(rows.step_size)).mean())
    return f"{rate:,.0f} it/s, {now.divergences} divergences, step size {step_size:.3g}"
