"""MCMC: run chains of a sampler, and read the result.

All chains run in one compiled program, mapped over; the loop over draws is compiled once and called for a
stretch of draws at a time, so that a progress bar can move.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marginax.compiled import remembered_jit
from marginax.graph.sites import as_jax_arrays
from marginax.infer.cuts import check_cuts
from marginax.infer.nuts import NUTS
from marginax.infer.progress import progress
from marginax.infer.summary import print_table, summary_table
from marginax.infer.target import Target, initial_position, make_target
from marginax.language import handlers
from marginax.language.errors import ModelError
from marginax.language.primitives import as_numbers

LogDensity = Callable[[Mapping[str, Any]], Array]

ATTEMPTS = 100
CHAIN_METHODS = ("vectorized", "parallel", "sequential")


class MCMC:
    """Draw from a model's posterior.

    Parameters
    ----------
    sampler : NUTS
        The sampler, with the model.
    num_warmup : int
        Iterations that tune the sampler and are thrown away.
    num_samples : int
        Iterations after that, per chain.
    num_chains : int
        How many chains.
    thinning : int
        Keep every so manyth draw; ``num_samples // thinning`` are kept.
    progress_bar : bool
        Whether to show one.
    chain_method : {"vectorized", "parallel", "sequential"}
        Accepted for NumPyro's sake; all chains run in one program, whatever it says.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(data):
    ...     loc = mx.sample("loc", dist.Normal(0.0, 10.0))
    ...     with mx.plate("data", len(data)):
    ...         z = mx.sample("z", dist.Bernoulli(0.5))
    ...         mx.sample("obs", dist.Normal(loc + 5.0 * z, 1.0), obs=data)
    >>> kernel = mx.infer.NUTS(model)
    >>> mcmc = mx.infer.MCMC(kernel, num_warmup=100, num_samples=200, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jnp.array([0.0, 1.0, 5.5]))
    >>> mcmc.get_samples()["loc"].shape
    (200,)
    """

    def __init__(
        self,
        sampler: NUTS,
        *,
        num_warmup: int,
        num_samples: int,
        num_chains: int = 1,
        thinning: int = 1,
        progress_bar: bool = True,
        chain_method: str = "vectorized",
    ) -> None:
        if not isinstance(sampler, NUTS):
            raise TypeError(f"MCMC: the sampler must be NUTS(model), not {type(sampler).__name__}.")
        for name, value, least in (
            ("num_warmup", num_warmup, 0),
            ("num_samples", num_samples, 1),
            ("num_chains", num_chains, 1),
            ("thinning", thinning, 1),
        ):
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"MCMC: {name} must be an integer >= {least}, not {value!r}.")
        if num_samples < thinning:
            raise ValueError("MCMC: thinning is larger than num_samples; nothing would be kept.")
        if chain_method not in CHAIN_METHODS:
            raise ValueError(
                f"MCMC: chain_method must be one of {CHAIN_METHODS}, not {chain_method!r}."
            )
        self.sampler = sampler
        self.num_warmup = int(num_warmup)
        self.num_samples = int(num_samples)
        self.num_chains = int(num_chains)
        self.thinning = int(thinning)
        self.progress_bar = progress_bar
        self._draws: dict[str, Array] | None = None
        self._fields: dict[str, Array] = {}
        self._latent: tuple[str, ...] = ()
        self.last_state: Any = None
        """The sampler's state of every chain after the last draw."""

    def run(
        self,
        rng_key: Any,
        *args: Any,
        extra_fields: Collection[str] = (),
        init_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Warm up and draw.

        Parameters
        ----------
        rng_key : PRNG key or int
            For everything random.
        *args, **kwargs
            The model's arguments.
        extra_fields : collection of str
            Accepted for NumPyro's sake; all fields are kept (see `get_extra_fields`).
        init_params : mapping, optional
            Unconstrained initial values by site name, with a leading chain dimension if there are
            several chains.

        Raises
        ------
        ModelError
            When the model or the data make no sense, a discrete site cannot be summed out, or no initial
            point of finite density is found; the message names the site.
        """
        args, kwargs = as_jax_arrays((args, kwargs))
        target = make_target(self.sampler.model, args, kwargs)
        log_density = target.compiled_log_density()
        init_key, warmup_key, sample_key = jax.random.split(handlers.as_key(rng_key), 3)
        position = self._start(target, log_density, init_key, init_params, args, kwargs)
        with progress("MCMC", self.num_warmup + self.num_samples, self.progress_bar) as bar:
            bar.advance(0, "compiling the warm-up")
            warm_up = remembered_jit(
                jax.vmap(lambda key, x: self.sampler.warm_up(log_density, key, x, self.num_warmup)),
                jax.random.split(warmup_key, self.num_chains),
                position,
            )
            keys = jax.random.split(warmup_key, self.num_chains)
            state, tuning = jax.block_until_ready(warm_up(keys, position))
            bar.advance(self.num_warmup, "compiling the draws")
            positions, fields, state = self._draw(log_density, state, tuning, sample_key, bar)
        draws = remembered_jit(jax.vmap(jax.vmap(target.constrain)), positions)(positions)
        self._draws, self._fields, self.last_state = draws, fields, state
        self._latent = tuple(target.sites)
        self._report_divergences()
        check_cuts(self.sampler.model, self._grouped(draws, False), args, kwargs)

    def _start(
        self,
        target: Target,
        log_density: LogDensity,
        key: Any,
        given: Mapping[str, Any] | None,
        args: Any,
        kwargs: Any,
    ) -> dict[str, Array]:
        """A position of finite density and gradient for every chain."""
        gradient = jax.value_and_grad(log_density)

        def usable(position: Any) -> Array:
            leaves = jax.tree.leaves(gradient(position))
            return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))

        if given is not None:
            position = self._given_position(target, given)
            usable_now = remembered_jit(jax.vmap(usable), position)(position)
            if not usable_now.all():
                chain = int(jnp.argmin(usable_now))
                raise target.fault(jax.tree.map(lambda leaf: leaf[chain], position))
            return position
        strategy, model = self.sampler.init_strategy, self.sampler.model

        def attempt(key: Any) -> tuple[Any, Array]:
            position = initial_position(model, strategy, key, args, kwargs)
            return position, usable(position)

        keys = jax.random.split(key, self.num_chains)
        compiled = remembered_jit(jax.vmap(attempt), keys)
        position, found = compiled(keys)
        for number in range(1, ATTEMPTS):
            if found.all():
                return position
            again = jax.vmap(lambda k, n=number: jax.random.fold_in(k, n))(keys)
            other, good = compiled(again)
            better = good & ~found
            position = jax.tree.map(
                lambda new, old, b=better: jnp.where(
                    b.reshape((-1,) + (1,) * (new.ndim - 1)), new, old
                ),
                other,
                position,
            )
            found = found | good
        if found.all():
            return position
        chain = int(jnp.argmin(found))
        cause = target.fault(jax.tree.map(lambda leaf: leaf[chain], position))
        raise ModelError(
            f"no initial point of finite density in {ATTEMPTS} attempts with {_name(strategy)}. At the last "
            f"one: {cause} If data and priors are right, choose another init_strategy of NUTS."
        )

    def _given_position(self, target: Target, given: Mapping[str, Any]) -> dict[str, Array]:
        missing = [name for name in target.sites if name not in given]
        if missing:
            raise ModelError(f"site '{missing[0]}': init_params has no value for it.")
        for name in given:
            if name not in target.sites:
                known = ", ".join(repr(n) for n in target.sites)
                raise ModelError(
                    f"init_params names '{name}', which is no continuous latent site; those are {known}."
                )
        position = {}
        for name in target.sites:
            value = jnp.asarray(as_numbers(name, given[name]), jnp.result_type(float))
            shape = target.prepared.graph.latents[name].shape
            if self.num_chains == 1 and value.shape == shape:
                value = value[None]
            if value.shape != (self.num_chains, *shape):
                raise ModelError(
                    f"site '{name}': its value in init_params has shape {value.shape}; unconstrained, "
                    f"for {self.num_chains} chain(s), it should be {(self.num_chains, *shape)}."
                )
            position[name] = value
        return position

    def _draw(
        self, log_density: LogDensity, state: Any, tuning: Any, key: Any, bar: Any
    ) -> tuple[dict[str, Array], dict[str, Array], Any]:
        kept = self.num_samples // self.thinning

        def transition(key: Any, state: Any, tuning: Any) -> tuple[Any, dict[str, Array]]:
            return self.sampler.step(log_density, tuning, key, state)

        def stretch(carry: Any, tuning: Any, start: Any, stop: Any) -> Any:
            def body(i: Any, carry: Any) -> Any:
                state, positions, fields = carry
                keys = jax.random.split(jax.random.fold_in(key, i), self.num_chains)
                state, info = jax.vmap(transition)(keys, state, tuning)
                slot = i // self.thinning  # the last draw of each stretch of `thinning` stays
                positions = {n: b.at[:, slot].set(state.position[n]) for n, b in positions.items()}
                fields = {n: b.at[:, slot].set(info[n]) for n, b in fields.items()}
                return state, positions, fields

            return jax.lax.fori_loop(start, stop, body, carry)

        _, info = jax.eval_shape(
            jax.vmap(transition), jax.random.split(key, self.num_chains), state, tuning
        )

        def blank(leaf: Any) -> Array:
            return jnp.zeros((leaf.shape[0], kept, *leaf.shape[1:]), leaf.dtype)

        carry = (
            state,
            {name: blank(leaf) for name, leaf in state.position.items()},
            {name: blank(leaf) for name, leaf in info.items()},
        )
        compiled = remembered_jit(stretch, carry, tuning, 0, 1)
        total = kept * self.thinning
        for start, stop in bar.stretches(self.num_warmup, self.num_warmup + total):
            carry = compiled(carry, tuning, start - self.num_warmup, stop - self.num_warmup)
            divergences = int(carry[2]["diverging"].sum())
            bar.advance(stop, f"{divergences} divergences")
        state, positions, fields = carry
        return positions, fields, state

    def _report_divergences(self) -> None:
        count = int(self._fields["diverging"].sum())
        if count:
            warnings.warn(
                f"{count} of {self._fields['diverging'].size} transitions after warm-up diverged: the "
                "draws may miss part of the posterior. Raise target_accept_prob of NUTS (0.9, 0.95), "
                "warm up for longer, or reparameterise the model.",
                RuntimeWarning,
                stacklevel=3,
            )

    def get_samples(self, group_by_chain: bool = False) -> dict[str, Array]:
        """The draws, constrained.

        Parameters
        ----------
        group_by_chain : bool
            Keep the chain dimension.

        Returns
        -------
        dict of array, shape (num_chains * draws, *site_shape) or (num_chains, draws, *site_shape)
            Continuous latent sites, and deterministic sites that depend on nothing discrete. Draw the
            discrete ones with ``Predictive(model, draws, infer_discrete=True)``.
        """
        return self._grouped(self._done(), group_by_chain)

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, Array]:
        """What the sampler reported of every draw.

        Returns
        -------
        dict of array
            ``accept_prob``, ``diverging``, ``energy``, ``num_steps`` (leapfrogs), ``potential_energy``.
        """
        self._done()
        return self._grouped(self._fields, group_by_chain)

    def _done(self) -> dict[str, Array]:
        if self._draws is None:
            raise RuntimeError("MCMC: there are no draws yet; call run first.")
        return self._draws

    def _grouped(self, draws: Mapping[str, Array], by_chain: bool) -> dict[str, Array]:
        if by_chain:
            return dict(draws)
        return {n: v.reshape((v.shape[0] * v.shape[1], *v.shape[2:])) for n, v in draws.items()}

    def print_summary(self, prob: float = 0.9, exclude_deterministic: bool = True) -> None:
        """Print mean, spread, interval, effective sample size and R-hat of every site.

        Parameters
        ----------
        prob : float
            Probability of the highest-density interval.
        exclude_deterministic : bool
            Leave deterministic sites out.
        """
        draws = self._done()
        if exclude_deterministic:
            draws = {name: draws[name] for name in self._latent}
        print_table(summary_table(draws, prob))
        print(f"divergences: {int(self._fields['diverging'].sum())}")


def _name(strategy: Any) -> str:
    return getattr(getattr(strategy, "func", strategy), "__name__", "the given strategy")
