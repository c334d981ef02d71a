"""Compile a query once for each shape of its arguments, and call it.

Arrays are traced; everything else (sizes, flags, strings) stays what it is, so a model may use it
in Python control flow. If the model needs the numbers of an *array* argument in Python (say
``np.unique(groups)``), arrays stay what they are too; the price is a compilation at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from marginax.language.errors import ModelError


def call_compiled(
    query: Callable[..., Any], owner: Any, key: Any, params: Any, args: Any, kwargs: Any
) -> Any:
    """Call ``query(owner, key, params, args, kwargs)`` compiled.

    Parameters
    ----------
    query : callable
        A pure function.
    owner : hashable
        What the query belongs to; part of the compilation's identity.
    key, params : pytrees of arrays
        Always traced.
    args, kwargs
        Arrays in them are traced, other leaves are part of the compilation's identity.
    """
    leaves, structure = jax.tree.flatten((args, kwargs))
    # A NumPy integer is a size or a flag that was computed: as static as a Python one.
    is_array = tuple(isinstance(leaf, jax.Array | np.ndarray | np.floating) for leaf in leaves)
    arrays = [leaf for leaf, traced in zip(leaves, is_array, strict=True) if traced]
    # With its type, because 1 == 1.0 == True.
    static = tuple(
        None if traced else (type(leaf), leaf)
        for leaf, traced in zip(leaves, is_array, strict=True)
    )
    try:
        hash((owner, static))
        return _compiled(query, owner, structure, is_array, static, key, params, arrays)
    except (TypeError, IndexError, ModelError):
        # Not hashable; or the model needs the numbers in an array. Otherwise the same error comes again.
        pass
    return jax.jit(lambda key, params: query(owner, key, params, args, kwargs))(key, params)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _compiled(
    query: Callable[..., Any],
    owner: Any,
    structure: Any,
    is_array: tuple[bool, ...],
    static: tuple[Any, ...],
    key: Any,
    params: Any,
    arrays: list[Any],
) -> Any:
    traced = iter(arrays)
    leaves = [next(traced) if a else s[1] for a, s in zip(is_array, static, strict=True)]
    args, kwargs = jax.tree.unflatten(structure, leaves)
    return query(owner, key, params, args, kwargs)
