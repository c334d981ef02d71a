"""Whether a run is the same again: digests of arguments, keys and compiled programs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.blocks.on_disk import RowsOnDisk
from marginax.errors import ModelError
from marginax.jaxpr.compiled import Hoisted, remembered_jit
from marginax.jaxpr.concrete import is_elsewhere
from marginax.jaxpr.same_program import program_key


def key_numbers(key: Any) -> Any:
    """The numbers of a random key, old-style or new."""
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(key) if is_typed else key


def fingerprint(*values: Any) -> str:
    """A digest of arrays, plain values, and functions (of which the name and what is bound to them count).

    Raises
    ------
    TypeError
        For a value of which it cannot be told whether it is the same as another.
    """
    digest = hashlib.blake2b(digest_size=16)
    leaf: Any
    for path, leaf in jax.tree_util.tree_leaves_with_path(_opened(values)):
        digest.update(jax.tree_util.keystr(path).encode())
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, RowsOnDisk):
            leaf = leaf.about
        elif is_elsewhere(leaf):
            digest.update(f"{leaf.dtype}{np.shape(leaf)}".encode())
            leaf = remembered_jit(_digest_of_all_parts, leaf)(leaf)
        if isinstance(leaf, str | int | float | complex | bool | bytes):
            digest.update(f"{type(leaf).__name__} {leaf!r}".encode())
        elif (
            isinstance(leaf, jax.Array | np.ndarray | np.generic)
            and np.asarray(leaf).dtype != object
        ):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{array.dtype}{np.shape(leaf)}".encode())
            digest.update(array.tobytes())
        elif callable(leaf) and hasattr(leaf, "__qualname__"):
            digest.update(f"{leaf.__module__}.{leaf.__qualname__}".encode())
        else:
            raise TypeError(
                "with a checkpoint the arguments must be arrays, plain values or functions, so that it can be told "
                f"whether they are the same again; {jax.tree_util.keystr(path)} is a {type(leaf).__name__}."
            )
    return digest.hexdigest()


def _digest_of_all_parts(array: Any) -> Any:
    """Two numbers that depend on every bit of an array and on its place, the same in all processes."""
    if array.dtype == bool:
        array = array.astype(jnp.uint8)
    width = min(array.dtype.itemsize, 4)
    bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * width}")).astype(jnp.uint32)
    place = jax.lax.iota(jnp.uint32, bits.size).reshape(bits.shape)
    # Modulo 2**32, so that the order of adding does not matter.
    mixed = (bits ^ (bits >> 15)) * (2 * place + 1)
    again = (mixed ^ (mixed >> 13)) * jnp.uint32(2654435761)
    return jnp.stack([jnp.sum(mixed), jnp.sum(again ^ (again >> 16))])


def program_fingerprint(program: Hoisted) -> str:
    """A digest of a traced program and of all arrays in it, the same in every process.

    Raises
    ------
    ModelError
        When its values depend on what another process could not recognise, such as a Python function.
    """
    key = program_key(program.jaxpr)
    if key.untold:
        names = ", ".join(dict.fromkeys(key.untold))
        raise ModelError(
            f"the model computes with {names}, which is no part of the traced program (a Python function that "
            "JAX calls back, say), so a checkpoint cannot tell whether it will be the same again.",
            advice="Leave checkpoint= out; or compute that before the run and pass its result as an array.",
        )
    return fingerprint(key.digest, program.consts)


def refuse_another_run(
    path: str | os.PathLike[str], saved: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raise a ModelError if something differs between a saved run and the one asked for now."""
    for what, value in now.items():
        if saved.get(what) != value:
            raise ModelError(
                f"the checkpoint {os.fspath(path)} is from another run: its {what} was {saved.get(what)}, now it is "
                f"{value}. Remove it to begin anew, or name another."
            )


def _opened(value: Any) -> Any:
    """A tree in which partial functions are what they consist of."""

    def open_one(leaf: Any) -> Any:
        if isinstance(leaf, partial):
            return _opened((leaf.func, leaf.args, leaf.keywords))
        return leaf

    return jax.tree.map(open_one, value, is_leaf=lambda leaf: isinstance(leaf, partial))
