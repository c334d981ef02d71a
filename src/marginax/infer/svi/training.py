"""The training loop: one compiled program, called again and again for some steps at a time.

The program takes all restarts at once through ``count`` steps and writes what it saw into buffers of a
fixed size. How the steps are cut into calls changes no bit of the result, so the loop is free to cut them as
it likes: short at first, longer while a call is quick, and so that one ends wherever something must be
looked at. Between two calls Python is in charge: it shows progress, heeds Ctrl-C, writes checkpoints, and
decides whether the run has converged (at fixed numbers of steps, so that this is reproducible).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from marginax.infer.batches import rows
from marginax.infer.running.interruption import interruptible
from marginax.infer.running.progress import Bar
from marginax.infer.svi.convergence import check_points, has_converged
from marginax.infer.svi.objective import Objective, constrain, gradient_step

CAPACITY = 256
"""Steps of one call at most."""

QUICK, SLOW = 0.1, 0.4
"""Seconds: a call that takes less may be twice as long next time, one that takes more half as long."""


class SVIState(NamedTuple):
    """Everything that a step changes."""

    optim_state: Any
    """The unconstrained parameters by name, and the optimiser's own state."""
    mutable_state: Any
    """Always None; there for NumPyro's sake."""
    rng_key: Any


class Stretch(NamedTuple):
    """What one call returns."""

    states: SVIState
    params: dict[str, Array]
    """Constrained, of all restarts."""
    rows: Array
    """What was seen at each step: the loss, how often it was evaluated, and the norm of each parameter's
    gradient; shape (capacity, 2 + parameters, restarts). One array, for that compiles fastest."""


def make_stretch(
    objective: Objective,
    optim: optax.GradientTransformationExtraArgs,
    constraints: Mapping[str, Any],
    stable: bool,
    restarts: int,
    capacity: int = CAPACITY,
) -> Callable[[SVIState, Any, Any], Stretch]:
    """The program: from the states of all restarts, a batch of data (or none) and a number of steps.

    A step whose loss, gradient or end is not finite is not taken: the restart stays where it is. A stable
    run goes on from there with fresh randomness.
    """

    def step(state: SVIState, batch: Any) -> tuple[SVIState, Array]:
        rng_key, key = jax.random.split(state.rng_key)
        free, optim_state = state.optim_state
        free, optim_state, loss, gradient, evaluations = gradient_step(
            optim, lambda free: objective.loss(free, key, batch), free, optim_state, same_data=True
        )
        finite = all_finite((loss, gradient, free))
        new = SVIState((free, optim_state), None, rng_key)
        stay = state._replace(rng_key=rng_key) if stable else state
        norms = [jnp.linalg.norm(gradient[name].ravel()) for name in constraints]
        # A gradient that is not finite ends the run as a loss that is not finite does.
        loss = jnp.where(finite | ~jnp.isfinite(loss), loss, jnp.nan)
        dtype = jnp.result_type(float)
        return where(finite, new, stay), jnp.stack([loss, evaluations, *norms]).astype(dtype)

    def one(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], tree)

    def lone(states: SVIState, batch: Any) -> Any:
        # Mapped over one restart, a line search would take both sides of every choice.
        state, row = step(one(states), batch)
        return jax.tree.map(lambda leaf: leaf[None], state), row[:, None]

    steps = lone if restarts == 1 else jax.vmap(step, in_axes=(0, None), out_axes=(0, -1))

    def stretch(states: SVIState, batch: Any, count: Any) -> Stretch:
        def body(i: Any, carry: Any) -> Any:
            states, rows = carry
            states, row = steps(states, batch)
            return states, jax.lax.dynamic_update_index_in_dim(rows, row, i, axis=0)

        blank = jnp.full(
            (capacity, 2 + len(constraints), restarts), jnp.nan, jnp.result_type(float)
        )
        states, rows = jax.lax.fori_loop(0, count, body, (states, blank))
        params = jax.vmap(lambda free: constrain(constraints, free))(states.optim_state[0])
        return Stretch(states, params, rows)

    return stretch


def where(condition: Array, new: Any, old: Any) -> Any:
    """One tree of arrays or the other."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def all_finite(tree: Any) -> Array:
    """Whether all elements of all arrays of a tree are finite, shape ()."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


class History:
    """What was seen so far; it grows with the run.

    Parameters
    ----------
    losses : array, shape (restarts, steps)
        The losses before each step.
    gradient_norms : mapping
        The norm of each parameter's gradient, likewise.
    evaluations : int array, shape (restarts,)
        How often the loss was evaluated in all.
    """

    def __init__(
        self, losses: Any, gradient_norms: Mapping[str, Any], evaluations: np.ndarray
    ) -> None:
        self.steps = losses.shape[1]
        self.evaluations = evaluations
        self._names = list(gradient_norms)
        counted = np.zeros_like(losses)  # they are in ``evaluations`` already
        rows = [losses, counted, *gradient_norms.values()]
        self._rows = np.stack(rows).transpose(2, 0, 1)

    @property
    def losses(self) -> np.ndarray:
        """Shape (restarts, steps)."""
        return self._rows[: self.steps, 0].T

    @property
    def gradient_norms(self) -> dict[str, np.ndarray]:
        """By parameter, shape (restarts, steps)."""
        return {n: self._rows[: self.steps, 2 + i].T for i, n in enumerate(self._names)}

    def append(self, stretch: Stretch, count: int) -> None:
        """Add the first ``count`` steps of a stretch."""
        new = np.asarray(stretch.rows)[:count]
        end = self.steps + count
        if end > len(self._rows):  # twice as long, so that adding a row takes constant time
            longer = np.empty((2 * end, *self._rows.shape[1:]), self._rows.dtype)
            longer[: self.steps] = self._rows[: self.steps]
            self._rows = longer
        self._rows[self.steps : end] = new
        self.steps = end
        self.evaluations = self.evaluations + new[:, 1].sum(axis=0).astype(int)


def no_history(restarts: int, names: Iterable[str]) -> History:
    """Before the first step."""
    blank = np.zeros((restarts, 0), jnp.result_type(float))
    return History(blank, dict.fromkeys(names, blank), np.zeros(restarts, int))


@dataclass(frozen=True)
class Rules:
    """When to stop, and when to write a checkpoint."""

    num_steps: int
    window: int
    """The shortest window of the criterion of convergence."""
    tolerance: float
    """In nats; zero to run all steps."""
    is_noisy: bool
    stable: bool
    every: int
    """Steps between two checkpoints."""


@dataclass(frozen=True)
class Trained:
    """Where a run stands."""

    states: SVIState
    params: Mapping[str, Any]
    """Constrained, of all restarts."""
    history: History
    stopped: str
    """Why it ended: "num_steps", "converged", "interrupted", "not finite" or "no more batches"."""
    batch: Any = ()
    """The last one."""


def train(
    program: Callable[[SVIState, Any, int], Stretch],
    begin: Trained,
    rules: Rules,
    batches: Iterator[Any] | None,
    bar: Bar,
    save: Callable[[Trained], None],
) -> Trained:
    """Run until a rule says stop.

    Parameters
    ----------
    program : callable
        What `make_stretch` makes, compiled.
    begin : Trained
        Where to go on from.
    rules : Rules
        When to stop.
    batches : iterator, optional
        One batch for each step; without it all steps see the same data.
    bar : Bar
        To be moved.
    save : callable
        Called with where the run stands every so many steps, and at the end.
    """
    now, history, allowed = begin, begin.history, 1
    checks = check_points(rules.window)
    check = next(n for n in checks if n > history.steps)
    clock, seen = time.perf_counter(), 0
    with interruptible() as interrupted:
        while history.steps < rules.num_steps:
            done, batch = history.steps, ()
            if batches is not None:
                batch = next(batches, None)
                if batch is None:
                    return _ended(now, "no more batches", save)
                seen += rows(*batch)
            next_save = done - done % rules.every + rules.every
            stop = min(rules.num_steps, next_save, check, done + (allowed if batch == () else 1))
            begun = time.perf_counter()
            stretch = program(now.states, batch, stop - done)
            history.append(stretch, stop - done)
            now = Trained(stretch.states, stretch.params, history, "", batch)
            allowed = _next_length(allowed, time.perf_counter() - begun)
            last = history.losses[:, -1]
            bar.advance(stop, _note(last, seen, time.perf_counter() - clock))
            if not rules.stable and not np.isfinite(last).any():
                return replace(now, stopped="not finite")
            if stop == check:
                check = next(checks)
                if rules.tolerance > 0 and has_converged(
                    history.losses, rules.window, rules.tolerance, rules.is_noisy
                ):
                    return _ended(now, "converged", save)
            # Last, so that a run which is done is not called interrupted.
            if interrupted() and stop < rules.num_steps:
                return _ended(now, "interrupted", save)
            if stop == next_save and stop < rules.num_steps:
                save(now)
    return _ended(now, "num_steps", save)


def _ended(now: Trained, why: str, save: Callable[[Trained], None]) -> Trained:
    now = replace(now, stopped=why)
    save(now)
    return now


def _next_length(length: int, seconds: float) -> int:
    if seconds < QUICK:
        return min(2 * length, CAPACITY)
    return max(length // 2, 1) if seconds > SLOW else length


def _note(losses: np.ndarray, rows_seen: int, seconds: float) -> str:
    finite = losses[np.isfinite(losses)]
    note = f"loss {finite.min():.6g}" if len(finite) else "loss not finite"
    if len(losses) > 1:
        note = f"best {note}, {len(finite)} of {len(losses)} restarts finite"
    return f"{note}, {rows_seen / seconds:,.0f} rows/s" if rows_seen else note
