"""The leaves of a pytree as named arrays, and back into a tree of the same structure.

Structure stays in the program. Of a tree only the leaves are stored, by their paths (`flatten`). Whoever
reads them makes the same structure again, with the program that made it first, and has the saved
leaves put in (`fill`): so an optimiser's state, made of other people's classes, needs no format of its
own and no pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from marginax.storage.files import StorageError, as_storable, is_key


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a pytree by their paths, as arrays that `write` takes.

    Parameters
    ----------
    tree : pytree of arrays and numbers
        Typed random keys are among them; their numbers are stored, and the name of the generator after
        an ``@`` in the path.

    Returns
    -------
    dict of numpy arrays

    Raises
    ------
    TypeError, ValueError
        For a leaf that is not of numbers, or two leaves with the same path.

    Examples
    --------
    >>> import jax
    >>> from marginax import storage
    >>> sorted(storage.flatten({"step": 3, "keys": [jax.random.key(0)]}))
    ["['keys'][0]@threefry2x32", "['step']"]
    """
    arrays: dict[str, np.ndarray] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path)
        if is_key(leaf):
            name, leaf = f"{name}@{jax.random.key_impl(leaf)}", jax.random.key_data(leaf)
        if name in arrays:
            raise ValueError(f"storage.flatten: two leaves have the path {name!r}.")
        arrays[name] = as_storable(name, leaf)
    return arrays


def fill(template: Any, arrays: Mapping[str, Any]) -> Any:
    """A pytree of the template's structure with saved leaves, the inverse of `flatten`.

    Parameters
    ----------
    template : pytree of arrays, numbers or `jax.ShapeDtypeStruct`
        Its structure, shapes and dtypes count, its values do not: ``jax.eval_shape`` makes one.
    arrays : mapping
        What `flatten` gave.

    Returns
    -------
    pytree
        JAX arrays; NumPy arrays and Python numbers where the template has such.

    Raises
    ------
    StorageError
        When a leaf is missing, left over, or of another shape or dtype; the message names it.

    Examples
    --------
    >>> import jax, optax
    >>> import jax.numpy as jnp
    >>> from marginax import storage
    >>> params = {"w": jnp.ones(2)}
    >>> saved = storage.flatten(optax.adam(0.1).init(params))
    >>> state = storage.fill(jax.eval_shape(optax.adam(0.1).init, params), saved)
    >>> state[0].mu["w"].tolist()
    [0.0, 0.0]
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    left = dict(arrays)
    found = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        found.append(
            _restored_key(name, leaf, left) if is_key(leaf) else _restored(name, leaf, left)
        )
    if left:
        raise StorageError(
            f"the saved leaves {', '.join(map(repr, left))} have no place in the template; was this "
            "saved from another model or optimiser?"
        )
    return jax.tree.unflatten(structure, found)


def group(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The entries whose name begins with a prefix, without it."""
    found = (name for name in arrays if name.startswith(prefix))
    return {name.removeprefix(prefix): arrays[name] for name in found}


def prefixed(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The entries under names with a prefix."""
    return {prefix + name: array for name, array in arrays.items()}


def _restored(name: str, leaf: Any, left: dict[str, Any]) -> Any:
    if name not in left:
        raise StorageError(f"the leaf {name!r} of the template was not saved.")
    array = np.asarray(left.pop(name))
    is_array = hasattr(leaf, "dtype")
    expected = leaf if is_array else np.asarray(leaf)
    _check_fits(name, array, expected)
    if not is_array:
        return array.item()
    if isinstance(leaf, np.ndarray | np.generic):
        return array
    restored = jax.device_put(array)
    _check_fits(name, restored, expected)  # of 64 bits, JAX keeps 32 unless told otherwise
    return restored


def _restored_key(name: str, leaf: Any, left: dict[str, Any]) -> Any:
    found = [saved for saved in left if saved.startswith(f"{name}@")]
    if len(found) != 1:
        raise StorageError(f"the leaf {name!r} of the template is a random key; none was saved.")
    implementation = found[0].removeprefix(f"{name}@")
    try:
        key = jax.random.wrap_key_data(jax.device_put(left.pop(found[0])), impl=implementation)
    except (TypeError, ValueError) as error:
        raise StorageError(f"the saved leaf {found[0]!r} is no random key: {error}") from error
    _check_fits(name, key, leaf)
    return key


def _check_fits(name: str, array: Any, expected: Any) -> None:
    if tuple(array.shape) != tuple(expected.shape) or array.dtype != expected.dtype:
        raise StorageError(
            f"the leaf {name!r} was saved as {array.dtype}{list(array.shape)}, but the template has "
            f"{expected.dtype}{list(expected.shape)} there. Build the template as it was built for "
            "saving, with the same precision (jax_enable_x64)."
        )
