"""NUTS, from BlackJAX: what to run and how to adapt it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from jax import Array

from marginax.infer.initialization import InitStrategy, init_to_uniform
from marginax.infer.target import Position

_nuts: Any = blackjax.nuts


class Tuning(NamedTuple):
    """What warm-up finds."""

    step_size: Array
    inverse_mass_matrix: Array
    """Its diagonal, or the whole matrix; over the sites in alphabetical order, flattened."""


class NUTS:
    """The No-U-Turn sampler (Hoffman and Gelman, 2014) on the marginal posterior.

    Discrete latent sites are summed out with nothing said; the sampler moves the continuous ones.

    Parameters
    ----------
    model : callable
        The model.
    step_size : float
        Where adaptation begins, or the step size itself if there is no warm-up.
    dense_mass : bool
        Adapt a full mass matrix instead of a diagonal one.
    target_accept_prob : float
        The acceptance rate that the step size is tuned to; higher is more careful.
    max_tree_depth : int
        A trajectory has at most ``2**max_tree_depth`` leapfrog steps.
    init_strategy : callable
        A function of a site that returns where it begins; see `infer.initialization`.

    Examples
    --------
    >>> import marginax as mx
    >>> kernel = mx.infer.NUTS(lambda: None, target_accept_prob=0.9)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        step_size: float = 1.0,
        dense_mass: bool = False,
        target_accept_prob: float = 0.8,
        max_tree_depth: int = 10,
        init_strategy: InitStrategy = init_to_uniform,
    ) -> None:
        if not callable(model):
            raise TypeError("NUTS: the model must be a function.")
        if not 0 < target_accept_prob < 1:
            raise ValueError(
                f"NUTS: target_accept_prob must be in (0, 1), not {target_accept_prob}."
            )
        if step_size <= 0 or max_tree_depth < 1:
            raise ValueError("NUTS: step_size must be positive and max_tree_depth at least 1.")
        self.model = model
        self.step_size = step_size
        self.dense_mass = dense_mass
        self.target_accept_prob = target_accept_prob
        self.max_tree_depth = max_tree_depth
        self.init_strategy = init_strategy

    def warm_up(
        self, log_density: Callable[[Position], Array], key: Any, position: Position, num_steps: int
    ) -> tuple[Any, Tuning]:
        """Run Stan's window adaptation on one chain.

        Returns
        -------
        sampler state, Tuning
        """
        if num_steps == 0:
            size = sum(leaf.size for leaf in jax.tree.leaves(position))
            dtype = jnp.result_type(float)
            mass = jnp.eye(size, dtype=dtype) if self.dense_mass else jnp.ones(size, dtype)
            step_size = jnp.asarray(self.step_size, dtype)
            return _nuts.init(position, log_density), Tuning(step_size, mass)
        adaptation: Any = blackjax.window_adaptation(
            _nuts,
            log_density,
            is_mass_matrix_diagonal=not self.dense_mass,
            initial_step_size=self.step_size,
            target_acceptance_rate=self.target_accept_prob,
            max_num_doublings=self.max_tree_depth,
        )
        (state, found), _ = adaptation.run(key, position, num_steps)
        return state, Tuning(found["step_size"], found["inverse_mass_matrix"])

    def step(
        self, log_density: Callable[[Position], Array], tuning: Tuning, key: Any, state: Any
    ) -> tuple[Any, dict[str, Array]]:
        """One transition of one chain: the next state, and what is reported of it."""
        kernel = _nuts(
            log_density,
            tuning.step_size,
            tuning.inverse_mass_matrix,
            max_num_doublings=self.max_tree_depth,
        )
        state, info = kernel.step(key, state)
        return state, {
            "accept_prob": info.acceptance_rate,
            "diverging": info.is_divergent,
            "energy": info.energy,
            "num_steps": info.num_integration_steps,
            "potential_energy": -state.logdensity,
        }
