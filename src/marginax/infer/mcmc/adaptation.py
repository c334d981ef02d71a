"""Warm-up: the step size and the mass matrix are tuned while the chain runs, as Stan does it.

The step size follows the acceptance rate by dual averaging (Hoffman and Gelman, 2014, section 3.2). The
mass matrix is the inverse of the draws' covariance, estimated anew in windows that double in length; the
step size begins anew after each. Schedule, dual averaging and covariance are BlackJAX's.

Everything here is of one chain and one iteration, and says by a number (a *stage*) what an iteration adapts.
So the compiled iteration is the same in warm-up and afterwards: then its stage is `FIXED`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.adaptation.window_adaptation import build_schedule
from jax import Array

from marginax.infer.mcmc.kernels import Kernel

STEP_SIZE, BOTH, END_OF_WINDOW, FIXED = range(4)
"""Stages: the step size is adapted; the draw counts for the covariance, too; it is the last that does, and the
mass matrix is replaced; nothing is adapted."""


class Adaptation(NamedTuple):
    """What warm-up knows of a chain; the tuning afterwards."""

    step_size: Any
    """Dual averaging: the step size, its average so far, and the error of the acceptance rate."""
    mass: Any
    """The inverse mass matrix, and the covariance of the window's draws so far."""


def stages(num_warmup: int) -> np.ndarray:
    """What each iteration adapts; the last entry is for all iterations after warm-up.

    Returns
    -------
    int array, shape (num_warmup + 1,)
    """
    planned = [
        END_OF_WINDOW if ends else BOTH if is_slow else STEP_SIZE
        for is_slow, ends in np.asarray(build_schedule(num_warmup)).reshape(-1, 2)
    ]
    return np.array([*planned, FIXED], np.int32)


def begin(kernel: Kernel, size: int) -> Adaptation:
    """Before warm-up.

    Parameters
    ----------
    kernel : Kernel
        It says whether the mass matrix is dense.
    size : int
        How many numbers a position has.

    Raises
    ------
    ValueError
        When the kernel's matrix is not of that size.
    """
    start, _, _ = mass_matrix_adaptation(not kernel.dense_mass)
    mass, given = start(size), kernel.inverse_mass_matrix
    if given is not None:
        if given.shape != mass.inverse_mass_matrix.shape:
            raise ValueError(
                f"{type(kernel).__name__}: inverse_mass_matrix has the shape {given.shape}, but the model's continuous "
                f"sites have {size} unconstrained numbers together."
            )
        mass = mass._replace(inverse_mass_matrix=given)
    return _strong(Adaptation(_averaging_from(kernel, kernel.step_size), mass))


def tuning(adaptation: Adaptation, stage: Array) -> tuple[Array, Array]:
    """Step size, shape (), and inverse mass matrix, shape (size,) or (size, size), to go on with.

    After warm-up the step size is the average of those tried; the last one is a random number.
    """
    averaging = adaptation.step_size
    chosen = jnp.where(stage == FIXED, averaging.log_step_size_avg, averaging.log_step_size)
    return jnp.exp(chosen), adaptation.mass.inverse_mass_matrix


def update(
    kernel: Kernel, adaptation: Adaptation, stage: Array, position: Array, accept_prob: Array
) -> Adaptation:
    """Learn from one iteration.

    Parameters
    ----------
    kernel : Kernel
        What is to be adapted, and to which acceptance rate.
    adaptation : Adaptation
        What is known so far.
    stage : int array, shape ()
        What this iteration adapts. If it is the same for all chains that run together, only the work that
        it asks for is done.
    position : array, shape (size,)
        Where the chain is.
    accept_prob : array, shape ()
        The acceptance rate on the way there.
    """
    _, average, _ = dual_averaging_adaptation(kernel.target_accept_prob)
    _, add, replace = mass_matrix_adaptation(not kernel.dense_mass)

    def step_size(now: Adaptation) -> Adaptation:
        if not kernel.adapt_step_size:
            return now
        return now._replace(step_size=average(now.step_size, accept_prob))

    def both(now: Adaptation) -> Adaptation:
        return step_size(now)._replace(mass=add(now.mass, position))

    def end_of_window(now: Adaptation) -> Adaptation:
        now = both(now)
        if not kernel.adapt_mass_matrix:
            return now
        now = now._replace(mass=replace(now.mass))
        if not kernel.adapt_step_size:
            return now
        best = jnp.exp(now.step_size.log_step_size_avg)
        return now._replace(step_size=_averaging_from(kernel, best))

    branches = (step_size, both, end_of_window, lambda now: now)
    return jax.lax.switch(
        stage, [lambda now, f=f: _like(adaptation, f(now)) for f in branches], adaptation
    )


def _averaging_from(kernel: Kernel, step_size: Any) -> Any:
    start, _, _ = dual_averaging_adaptation(kernel.target_accept_prob)
    step_size = jnp.asarray(step_size, jnp.result_type(float))
    # So that there is an average, too, where nothing is tried any more.
    return start(step_size)._replace(log_step_size_avg=jnp.log(step_size))


def _strong(tree: Any) -> Any:
    """Floats in the precision of JAX's default, integers in 32 bits: a loop needs fixed types."""

    def strong(leaf: Any) -> Array:
        is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf, jnp.result_type(float) if is_float else jnp.int32)

    return jax.tree.map(strong, tree)


def _like(old: Any, new: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.asarray(b, a.dtype), old, new)
