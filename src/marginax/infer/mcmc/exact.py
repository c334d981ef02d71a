"""Models whose latent sites are all discrete: their posterior is known, and draws from it are independent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from marginax.compiled import hoisted_jit
from marginax.infer.mcmc.draws import chunk_size
from marginax.marginal import marginalize


def exact_draws(
    model: Callable[..., Any], key: Any, num_chains: int, num_draws: int, args: Any, kwargs: Any
) -> dict[str, np.ndarray]:
    """Independent joint draws of all discrete sites from their exact posterior.

    Returns
    -------
    dict of array, shape (num_chains, num_draws, *site_shape)

    Raises
    ------
    ModelError
        When the data are impossible, or a site cannot be summed out.
    """
    marginal = marginalize(model)
    first = marginal.draw(key, {}, *args, **kwargs)  # says what is wrong, if something is
    size = sum(value.size * value.dtype.itemsize for value in first.values())
    count = num_chains * num_draws
    chunk = chunk_size(size, count)
    draw = jax.vmap(lambda key: marginal.draw(key, {}, *args, **kwargs))
    keys = [jax.random.split(jax.random.fold_in(key, n), chunk) for n in range(-(-count // chunk))]
    compiled = hoisted_jit(draw, keys[0])
    chunks = [compiled(each) for each in keys]
    return {
        name: np.concatenate([np.asarray(part[name]) for part in chunks])[:count].reshape(
            (num_chains, num_draws, *value.shape)
        )
        for name, value in first.items()
    }
