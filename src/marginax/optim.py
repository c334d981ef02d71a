"""Optimisers by their NumPyro names: thin names over `optax`. Any optax optimiser serves as well."""

from __future__ import annotations

from typing import Any

import optax


def Adam(step_size: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Any:
    """Adam (Kingma and Ba, 2015).

    Parameters
    ----------
    step_size : float or schedule
        The learning rate.
    b1, b2, eps : float
        Decay rates of the moments, and the term that keeps the division finite.

    Returns
    -------
    optax.GradientTransformation

    Examples
    --------
    >>> import marginax as mx
    >>> optimiser = mx.optim.Adam(0.1, b1=0.8, b2=0.99)
    """
    return optax.adam(step_size, b1=b1, b2=b2, eps=eps)


def ClippedAdam(
    step_size: Any,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    clip_norm: float = 10.0,
) -> Any:
    """Adam on gradients whose elements are clipped to ``[-clip_norm, clip_norm]``.

    Returns
    -------
    optax.GradientTransformation
    """
    return optax.chain(optax.clip(clip_norm), Adam(step_size, b1, b2, eps))


def Adagrad(step_size: Any) -> Any:
    """Adagrad (Duchi et al., 2011).

    Returns
    -------
    optax.GradientTransformation
    """
    return optax.adagrad(step_size)


def RMSProp(step_size: Any, gamma: float = 0.9, eps: float = 1e-8) -> Any:
    """RMSProp, with decay ``gamma``.

    Returns
    -------
    optax.GradientTransformation
    """
    return optax.rmsprop(step_size, decay=gamma, eps=eps)


def Momentum(step_size: Any, mass: float) -> Any:
    """Gradient descent with momentum ``mass``.

    Returns
    -------
    optax.GradientTransformation
    """
    return optax.sgd(step_size, momentum=mass)


def SGD(step_size: Any) -> Any:
    """Plain gradient descent.

    Returns
    -------
    optax.GradientTransformation
    """
    return optax.sgd(step_size)


def as_optimiser(optim: Any) -> optax.GradientTransformationExtraArgs:
    """An optax optimiser, by itself or by name, as one that is told the objective.

    Parameters
    ----------
    optim : optax.GradientTransformation or "lbfgs"
        ``"lbfgs"`` is limited-memory BFGS with a zoom line search (Nocedal and Wright, 2006, algorithms
        7.4 and 3.5), as in ``optax.lbfgs()``.

    Raises
    ------
    TypeError, ValueError
        For anything else.
    """
    if isinstance(optim, str):
        if optim != "lbfgs":
            raise ValueError(f"the optimiser {optim!r} is not known by name; there is 'lbfgs'.")
        optim = optax.lbfgs()
    if not isinstance(optim, optax.GradientTransformation):
        raise TypeError(
            "the optimiser must be an optax object such as optax.adam(0.1), or 'lbfgs' (NumPyro's names are in "
            f"marginax.optim), not {optim!r}."
        )
    return optax.with_extra_args_support(optim)
