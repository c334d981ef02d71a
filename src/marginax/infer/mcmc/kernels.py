"""The transitions of a chain, NUTS and HMC. They are BlackJAX's; here is what they are run with.

A transition knows nothing of models: it moves a vector of numbers, the continuous latent sites on their
unconstrained scale, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import blackjax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marginax.infer.start.initialization import InitStrategy, init_to_uniform

LogDensity = Callable[[Array], Array]
"""From a vector, shape (size,), to a log density."""

# Their types as declared do not tell what these objects have.
_nuts: Any = blackjax.nuts
_hmc: Any = blackjax.hmc


class Kernel:
    """What NUTS and HMC have in common: the model, where chains begin, and what warm-up tunes."""

    def __init__(
        self,
        model: Callable[..., Any],
        step_size: float,
        adapt_step_size: bool,
        adapt_mass_matrix: bool,
        dense_mass: bool,
        inverse_mass_matrix: Any,
        target_accept_prob: float,
        init_strategy: InitStrategy,
    ) -> None:
        name = type(self).__name__
        if not callable(model):
            raise TypeError(f"{name}: the model must be a function.")
        if not 0 < target_accept_prob < 1:
            raise ValueError(
                f"{name}: target_accept_prob must be in (0, 1), not {target_accept_prob}."
            )
        if not step_size > 0 or not math.isfinite(step_size):
            raise ValueError(f"{name}: step_size must be a positive number, not {step_size}.")
        self.model = model
        self.step_size = float(step_size)
        self.adapt_step_size = adapt_step_size
        self.adapt_mass_matrix = adapt_mass_matrix
        self.dense_mass = dense_mass
        self.inverse_mass_matrix = _checked_mass(name, inverse_mass_matrix, dense_mass)
        self.target_accept_prob = float(target_accept_prob)
        self.init_strategy = init_strategy

    def begin(self, log_density: LogDensity, position: Array) -> Any:
        """The state of a chain at a position: the position, its log density and the gradient."""
        return _hmc.init(position, log_density)

    def transition(
        self, log_density: LogDensity, step_size: Array, inverse_mass: Array, key: Any, state: Any
    ) -> tuple[Any, Mapping[str, Array]]:
        """The next state of one chain, and what is reported of the way there.

        Parameters
        ----------
        log_density : callable
            Of a position.
        step_size : array, shape ()
            The step size of the leapfrog integrator.
        inverse_mass : array, shape (size,) or (size, size)
            The inverse of the mass matrix, or its diagonal.
        key : PRNG key
            For the momentum and the choice among the states on the way.
        state : Any
            What `begin` or this function gave.
        """
        raise NotImplementedError

    @property
    def most_leapfrogs(self) -> int:
        """The most steps of the integrator that a transition may take."""
        raise NotImplementedError


class NUTS(Kernel):
    """The No-U-Turn sampler (Hoffman and Gelman, 2014) on the marginal posterior.

    Discrete latent sites are summed out with nothing said; the sampler moves the continuous ones. States of
    a trajectory are chosen with multinomial weights (Betancourt, 2017, "A conceptual introduction to
    Hamiltonian Monte Carlo", appendix A).

    Parameters
    ----------
    model : callable
        The model.
    step_size : float
        Where adaptation begins, or the step size itself if it is not adapted.
    adapt_step_size, adapt_mass_matrix : bool
        Whether warm-up adapts them.
    dense_mass : bool
        Adapt a full mass matrix instead of a diagonal one.
    inverse_mass_matrix : array, shape (size,) or with dense_mass (size, size), optional
        Where adaptation begins, or the matrix itself if it is not adapted; the identity when nothing is said. About
        the covariance of the posterior in unconstrained numbers: those of all sites one after the other, the sites in
        the order of their names.
    target_accept_prob : float
        The acceptance rate that the step size is tuned to; higher is more careful.
    max_tree_depth : int
        A trajectory has fewer than ``2**max_tree_depth`` leapfrog steps.
    init_strategy : callable
        A function of a site that returns where it begins; see `infer.initialization`. To begin at an
        earlier fit, ``init_to_value(values=guide.median(result.params))``.

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
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool = False,
        inverse_mass_matrix: Any = None,
        target_accept_prob: float = 0.8,
        max_tree_depth: int = 10,
        init_strategy: InitStrategy = init_to_uniform,
    ) -> None:
        super().__init__(
            model,
            step_size,
            adapt_step_size,
            adapt_mass_matrix,
            dense_mass,
            inverse_mass_matrix,
            target_accept_prob,
            init_strategy,
        )
        if not isinstance(max_tree_depth, int | np.integer) or not 1 <= max_tree_depth <= 24:
            raise ValueError(
                f"NUTS: max_tree_depth must be an integer from 1 to 24, not {max_tree_depth!r}."
            )
        self.max_tree_depth = int(max_tree_depth)

    def transition(
        self, log_density: LogDensity, step_size: Array, inverse_mass: Array, key: Any, state: Any
    ) -> tuple[Any, Mapping[str, Array]]:
        """See `Kernel.transition`."""
        state, info = _nuts.build_kernel()(
            key, state, log_density, step_size, inverse_mass, self.max_tree_depth
        )
        return state, {
            "accept_prob": jnp.minimum(info.acceptance_rate, 1.0),  # it is rounded
            "diverging": info.is_divergent,
            "energy": info.energy,
            "num_steps": info.num_integration_steps,
            "tree_depth": info.num_trajectory_expansions,
        }

    @property
    def most_leapfrogs(self) -> int:
        """A trajectory that is doubled as often as allowed."""
        return 2**self.max_tree_depth - 1


class HMC(Kernel):
    """Hamiltonian Monte Carlo (Neal, 2011) on the marginal posterior, with trajectories of one length.

    Discrete latent sites are summed out with nothing said; the sampler moves the continuous ones.

    Parameters
    ----------
    model : callable
        The model.
    step_size, adapt_step_size, adapt_mass_matrix, dense_mass, inverse_mass_matrix, target_accept_prob, init_strategy
        See `NUTS`.
    trajectory_length : float
        How long a trajectory is, in the units of the adapted parameters' standard deviations (the mass
        matrix makes them one): it takes ``trajectory_length / step_size`` steps, rounded up.
    num_steps : int, optional
        Take so many steps instead, whatever the step size.
    max_num_steps : int
        Never take more: early in warm-up the step size may be tiny.

    Examples
    --------
    >>> import marginax as mx
    >>> kernel = mx.infer.HMC(lambda: None, trajectory_length=3.0)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        step_size: float = 1.0,
        trajectory_length: float = 2 * math.pi,
        num_steps: int | None = None,
        max_num_steps: int = 1023,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool = False,
        inverse_mass_matrix: Any = None,
        target_accept_prob: float = 0.8,
        init_strategy: InitStrategy = init_to_uniform,
    ) -> None:
        super().__init__(
            model,
            step_size,
            adapt_step_size,
            adapt_mass_matrix,
            dense_mass,
            inverse_mass_matrix,
            target_accept_prob,
            init_strategy,
        )
        if not trajectory_length > 0:
            raise ValueError(
                f"HMC: trajectory_length must be a positive number, not {trajectory_length}."
            )
        for name, value in (("num_steps", num_steps), ("max_num_steps", max_num_steps)):
            if value is not None and (not isinstance(value, int | np.integer) or value < 1):
                raise ValueError(f"HMC: {name} must be an integer >= 1, not {value!r}.")
        self.trajectory_length = float(trajectory_length)
        self.num_steps = None if num_steps is None else int(num_steps)
        self.max_num_steps = int(max_num_steps)

    def transition(
        self, log_density: LogDensity, step_size: Array, inverse_mass: Array, key: Any, state: Any
    ) -> tuple[Any, Mapping[str, Array]]:
        """See `Kernel.transition`."""
        count = self.num_steps or jnp.clip(
            jnp.ceil(self.trajectory_length / step_size), 1, self.max_num_steps
        ).astype(jnp.int32)
        state, info = _hmc.build_kernel()(key, state, log_density, step_size, inverse_mass, count)
        return state, {
            "accept_prob": jnp.minimum(info.acceptance_rate, 1.0),  # it is rounded
            "diverging": info.is_divergent,
            "energy": info.energy,
            "num_steps": jnp.asarray(info.num_integration_steps, jnp.int32),
        }

    @property
    def most_leapfrogs(self) -> int:
        """The given number, or the limit."""
        return self.num_steps or self.max_num_steps


def _checked_mass(name: str, matrix: Any, dense: bool) -> np.ndarray | None:
    if matrix is None:
        return None
    found = np.asarray(matrix, float)
    is_right = found.ndim == 2 and found.shape[0] == found.shape[1] if dense else found.ndim == 1
    if not is_right:
        wanted = "(size, size) with dense_mass=True" if dense else "(size,) without dense_mass"
        raise ValueError(
            f"{name}: inverse_mass_matrix must have the shape {wanted}, not {found.shape}."
        )
    if (
        not np.isfinite(found).all()
        or (np.diagonal(found) if dense else found).min(initial=1.0) <= 0
    ):
        raise ValueError(f"{name}: inverse_mass_matrix must be positive and finite.")
    return found
