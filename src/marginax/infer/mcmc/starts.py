"""Where chains begin: at a position of finite density and gradient, given, or looked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from marginax.density.parameters import Parameter
from marginax.errors import ModelError
from marginax.infer.known import KnownModel
from marginax.infer.mcmc.block import Chain
from marginax.infer.start.initialization import InitStrategy
from marginax.infer.target import Target, initial_position
from marginax.jaxpr.compiled import QUICK, remembered_jit
from marginax.language.primitives import as_numbers

ATTEMPTS = 100


@dataclass(frozen=True)
class FlatTarget:
    """A target density of one vector: the sites' unconstrained values one after the other.

    One array instead of one for each site: the sampler's program has fewer operations, and compiles faster.
    """

    target: Target
    size: int
    """How many numbers a position has."""
    unravel: Callable[[Array], dict[str, Array]]
    """From a vector to values by site."""

    def log_density(self) -> Callable[[Array], Array]:
        """The log density, traced once, however often a sampler's program calls it."""
        compiled = self.target.compiled_log_density()
        return lambda position: compiled(self.unravel(position))

    def validity(self, position: Array) -> dict[str, dict[Parameter, Array]]:
        """By site and parameter, whether the parameter is valid at a position."""
        return self.target.validity(self.unravel(position))

    def constrain(self, position: Array) -> dict[str, Array]:
        """Values of the sites in their supports, and of deterministic sites that nothing discrete enters."""
        return self.target.constrain(self.unravel(position))

    def fault(self, position: Array) -> ModelError:
        """Which site makes the density, or its gradient, not finite at a position."""
        return self.target.fault(self.unravel(position))


def flat(target: Target) -> FlatTarget:
    """A target of one vector."""
    dtype = jnp.result_type(float)
    shapes = {n: jax.ShapeDtypeStruct(target.shape(n), dtype) for n in target.sites}
    ways_back = []

    def ravel(values: dict[str, Array]) -> Array:
        vector, unravel = ravel_pytree(values)
        ways_back.append(unravel)
        return vector

    return FlatTarget(target, jax.eval_shape(ravel, shapes).size, ways_back[0])


def find_starts(
    target: FlatTarget,
    begin: Callable[[Array, Any], Chain],
    strategy: InitStrategy,
    known: KnownModel,
    keys: Any,
) -> Chain:
    """All chains at positions of finite density and gradient.

    Parameters
    ----------
    target : FlatTarget
        The density.
    begin : callable
        From a position and a random key to a chain.
    strategy : callable
        It says where a chain begins; each attempt has a random key of its own.
    known : KnownModel
        The model.
    keys : array of random keys, shape (chains,)
        One for each chain.

    Returns
    -------
    Chain, with a leading dimension for the chains

    Raises
    ------
    ModelError
        When a chain finds none in `ATTEMPTS` attempts; the message names the site at fault.
    """

    def attempt(key: Any, number: Any) -> Chain:
        start_key, chain_key = jax.random.split(key)
        position = initial_position(known, strategy, jax.random.fold_in(start_key, number))
        return begin(ravel_pytree(position)[0], chain_key)

    compiled = remembered_jit(jax.vmap(attempt, in_axes=(0, None)), keys, 0, options=QUICK)
    chains = compiled(keys, 0)
    found = _usable(chains)
    for number in range(1, ATTEMPTS):
        if found.all():
            return chains
        others = compiled(keys, number)
        good = _usable(others)
        chains = _where(good & ~found, others, chains)
        found |= good
    if found.all():
        return chains
    cause = target.fault(chains.state.position[int(np.argmin(found))])
    name = getattr(getattr(strategy, "func", strategy), "__name__", "the given strategy")
    raise ModelError(
        f"no initial point of finite density in {ATTEMPTS} attempts with {name}. At the last "
        f"one: {cause} If data and priors are right, choose another init_strategy of the sampler."
    )


def given_starts(
    target: FlatTarget,
    begin: Callable[[Array, Any], Chain],
    given: Mapping[str, Any],
    keys: Any,
) -> Chain:
    """All chains at given unconstrained values, with the same keys as those of `find_starts`.

    Raises
    ------
    ModelError
        When a site has no value or one of the wrong shape, a name is no site's, or the density is not finite
        there.
    """
    positions = _positions(target, given, len(keys))

    def at(position: Array, key: Any) -> Chain:
        return begin(position, jax.random.split(key)[1])

    chains = remembered_jit(jax.vmap(at), positions, keys, options=QUICK)(positions, keys)
    usable = _usable(chains)
    if not usable.all():
        raise target.fault(positions[int(np.argmin(usable))])
    return chains


def _positions(target: FlatTarget, given: Mapping[str, Any], num_chains: int) -> np.ndarray:
    sites = target.target.sites
    for name in sites:
        if name not in given:
            raise ModelError("init_params has no value for it.", site=name)
    for name in given:
        if name not in sites:
            known = ", ".join(repr(n) for n in sites)
            raise ModelError(
                f"init_params names '{name}', which is no continuous latent site; those are {known}."
            )
    values = {}
    for name in sites:
        value = np.asarray(as_numbers(name, given[name]), jnp.result_type(float))
        if np.isnan(value).any():
            raise ModelError("its value in init_params has NaN.", site=name)
        shape = target.target.shape(name)
        if value.shape == shape:  # the same for all chains
            value = np.broadcast_to(value, (num_chains, *shape))
        if value.shape != (num_chains, *shape):
            raise ModelError(
                f"its value in init_params has shape {value.shape}; unconstrained, it should be {shape}, or "
                f"{(num_chains, *shape)} for {num_chains} chain(s).",
                site=name,
            )
        values[name] = value
    # As `ravel_pytree` has them, in NumPy: it compiles nothing.
    return np.concatenate([values[n].reshape((num_chains, -1)) for n in sorted(values)], axis=1)


def _usable(chains: Chain) -> np.ndarray:
    """Of which chains position, density and gradient are finite, shape (chains,)."""
    finite = [np.isfinite(np.asarray(leaf)) for leaf in jax.tree.leaves(chains.state)]
    return np.all([leaf.reshape((len(leaf), -1)).all(axis=1) for leaf in finite], axis=0)


def _where(condition: np.ndarray, new: Chain, old: Chain) -> Chain:
    """The chains of one batch or the other."""
    chosen = jnp.asarray(condition)

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(chosen.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
