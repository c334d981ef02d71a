"""Run a model so that what it computes from its data alone is a number wherever it needs one.

While a model is traced, what it computes is abstract, also what it computes from data: `y` is an array
of numbers, `jnp.max(y)` is a step of a program. A size, ``int(jnp.max(y)) + 1``, then cannot be had,
although nothing about it is unknown. JAX can do at once whatever depends on no traced value, but each step
would then be a small program of its own, to be compiled. So a model is traced as ever, and only one that
asks for such a number is run again in that way. Its latent values stay traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

from marginax.errors import NotKnownError

NEEDS_A_NUMBER = (TypeError, IndexError)
"""What asking a traced value for its number raises; JAX's own errors for it are among them."""

T = TypeVar("T")


def with_data_known(run: Callable[[], T]) -> T:
    """The result of a run of a model.

    Parameters
    ----------
    run : callable
        It runs the model, under handlers that it makes anew each time.
    """
    try:
        return run()
    except (NotKnownError, *NEEDS_A_NUMBER) as error:
        first = error
    try:
        with jax.ensure_compile_time_eval():
            return run()
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError, NotKnownError):
        raise  # a latent value's number, perhaps
    except NEEDS_A_NUMBER:
        raise first from None
