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
