"""Which values are numbers now, while a function is traced."""

from __future__ import annotations

from typing import Any

import jax
from jax.core import Tracer


def is_concrete(value: Any) -> bool:
    """Whether a value (or every array in it) is a number now, here."""
    return not any(
        isinstance(leaf, Tracer) or is_elsewhere(leaf) for leaf in jax.tree.leaves(value)
    )


def is_elsewhere(value: Any) -> bool:
    """Whether it is an array of which other processes hold parts."""
    is_array = isinstance(value, jax.Array) and not isinstance(value, Tracer)
    return is_array and not (value.is_fully_addressable or value.is_fully_replicated)
