"""MCMC: run chains of a sampler, and read the result."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from marginax.errors import ModelError
from marginax.infer.draws.cuts import check_cuts
from marginax.infer.draws.summary import print_table, summary_table
from marginax.infer.known import KnownModel
from marginax.infer.mcmc.block import Chain
from marginax.infer.mcmc.diagnostics import diagnostics, warn_after
from marginax.infer.mcmc.draws import Stored, in_memory
from marginax.infer.mcmc.exact import exact_draws
from marginax.infer.mcmc.kernels import Kernel
from marginax.infer.mcmc.run import Checkpointing, Job, Ran, run_chains
from marginax.infer.target import know_unconstrained
from marginax.language import handlers

CHAIN_METHODS = ("parallel", "vectorized", "sequential")
CUTS_CHECKED = 20
"""Draws of each chain at which it is checked whether a stated range cut off what matters."""


@dataclass(frozen=True)
class _Result:
    """What a run leaves behind."""

    known: KnownModel
    key: Any
    latent: tuple[str, ...]
    """The sites that were drawn, without deterministic ones."""
    stored: Stored
    divergences: int | None
    """None where the draws are independent ones from the exact posterior."""


class MCMC:
    """Draw from a model's posterior, with its discrete sites summed out.

    Warm-up and sampling are one compiled program, called for some iterations at a time. In between there is
    a progress bar, and Ctrl-C ends the run and keeps the draws so far (a second one raises
    `KeyboardInterrupt`).

    Parameters
    ----------
    sampler : NUTS or HMC
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
    chain_method : {"parallel", "vectorized", "sequential"}
        ``"vectorized"`` runs all chains at once in one program on one device. ``"parallel"`` spreads them evenly
        over the devices there are; on one device it is the same. ``"sequential"`` runs one after the other: less
        work in all where trajectories differ in length, and less memory.

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
        sampler: Kernel,
        *,
        num_warmup: int,
        num_samples: int,
        num_chains: int = 1,
        thinning: int = 1,
        progress_bar: bool = True,
        chain_method: str = "parallel",
    ) -> None:
        if not isinstance(sampler, Kernel):
            raise TypeError(
                f"MCMC: the sampler must be NUTS(model) or HMC(model), not {type(sampler).__name__}."
            )
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
        self.chain_method = chain_method
        self.last_state: Chain | None = None
        """Where all chains are, to go on from: ``mcmc.post_warmup_state = mcmc.last_state``, then `run` again."""
        self.post_warmup_state: Chain | None = None
        """If it is set, `run` goes on from there and does not warm up."""
        self._result: _Result | None = None

    def run(
        self,
        rng_key: Any,
        *args: Any,
        extra_fields: Collection[str] = (),
        init_params: Mapping[str, Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 10.0,
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
            Unconstrained values by site name to begin at: of the site's unconstrained shape for all chains, or
            with a leading chain dimension. (To begin at constrained values, those of an earlier fit for
            example, give the sampler ``init_strategy=init_to_value(values=...)``.)
        checkpoint : path, optional
            A folder to keep the run in. The draws stream into ``draws.zarr`` there, and memory does not grow
            with their number while they are drawn. If the process is killed, the same call goes on where it
            stood and ends with the same draws, bit for bit, as if nothing had happened. A finished run is read
            back, and goes on if more ``num_samples`` are asked for.
        checkpoint_seconds : float
            How often to write where the run stands.

        Raises
        ------
        ModelError
            When the model or the data make no sense, a discrete site cannot be summed out, no initial point of
            finite density is found (the message names the site), or the checkpoint is of another run.
        KeyboardInterrupt
            When Ctrl-C comes before there is a draw.

        Notes
        -----
        A model without continuous latent sites is answered exactly: its draws are independent draws of the
        discrete sites from their exact posterior, and there is nothing to keep in a checkpoint.
        """
        del extra_fields
        key = handlers.as_key(rng_key)
        known = know_unconstrained(self.sampler.model, args, kwargs)
        latent = tuple(name for name, site in known.sites.items() if site.is_free)
        kept = self.num_samples // self.thinning
        if latent and all(known.sites[name].support is not None for name in latent):
            draws = exact_draws(known, key, self.num_chains, kept)
            self._result = _Result(known, key, latent, in_memory(draws, {}), None)
            return
        if checkpoint and jax.process_count() > 1:
            raise ModelError(
                "MCMC.run: checkpoint= is for one process; with several, leave it out, or fit by SVI, whose "
                "checkpoints they share."
            )
        keeping = Checkpointing(Path(checkpoint), checkpoint_seconds) if checkpoint else None
        ran = self._run(known, key, kept, init_params, keeping)
        if not ran.store.count:
            raise KeyboardInterrupt("MCMC.run was interrupted before there was a draw.")
        stored, divergences = ran.store.stored(), ran.standing.divergences
        self._result = _Result(known, key, ran.sites, stored, divergences)
        if ran.standing.interrupted:
            print(f"MCMC: interrupted after {ran.store.count} of {kept} draws.", file=sys.stderr)
        warn_after(stored, ran.sites, divergences, self.sampler, self._on_labels)
        if known.has_cuts:
            check_cuts(known, _flat(stored.some(CUTS_CHECKED)))

    def warmup(
        self,
        rng_key: Any,
        *args: Any,
        init_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Warm up alone; `run` then goes on from `post_warmup_state`.

        Parameters
        ----------
        rng_key, *args, init_params, **kwargs
            As for `run`.
        """
        self.post_warmup_state = None
        known = know_unconstrained(self.sampler.model, args, kwargs)
        ran = self._run(known, handlers.as_key(rng_key), 0, init_params, None)
        if ran.standing.interrupted:
            raise KeyboardInterrupt("MCMC.warmup was interrupted.")
        self.post_warmup_state = self.last_state

    def _run(
        self,
        known: KnownModel,
        key: Any,
        kept: int,
        init_params: Mapping[str, Any] | None,
        keeping: Checkpointing | None,
    ) -> Ran:
        job = Job(
            self.sampler,
            self.num_warmup,
            kept,
            self.thinning,
            self.num_chains,
            self.chain_method,
            self.progress_bar,
        )
        ran = run_chains(job, known, key, init_params, self.post_warmup_state, keeping)
        self.last_state = ran.standing.chains
        return ran

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
            discrete ones with ``Predictive(model, draws, infer_discrete=True)``. Where there is no continuous
            latent site, independent draws of the discrete ones.
        """
        return _grouped(self._done().stored.samples(), group_by_chain)

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, Array]:
        """What the sampler reported of every draw that was kept.

        Parameters
        ----------
        group_by_chain : bool
            Keep the chain dimension.

        Returns
        -------
        dict of array, shape (num_chains * draws,) or (num_chains, draws)
            ``accept_prob``, ``diverging``, ``energy``, ``num_steps`` (leapfrogs), ``potential_energy``,
            ``step_size``, and of NUTS ``tree_depth``. Empty where draws are exact.
        """
        return _grouped(self._done().stored.fields(), group_by_chain)

    def _done(self) -> _Result:
        if self._result is None:
            raise RuntimeError("MCMC: there are no draws yet; call run first.")
        return self._result

    def print_summary(self, prob: float = 0.9, exclude_deterministic: bool = True) -> None:
        """Print mean, spread, interval, effective sample sizes and R-hat of every scalar, and what went wrong.

        Below the table there are the divergences, the estimated Bayesian fraction of missing information
        (E-BFMI) of each chain, and advice where something is amiss.

        Parameters
        ----------
        prob : float
            Probability of the highest-density interval.
        exclude_deterministic : bool
            Leave deterministic sites out.
        """
        result = self._done()
        draws = result.stored.samples()
        if exclude_deterministic:
            draws = {name: draws[name] for name in result.latent}
        print_table(summary_table(draws, prob))
        if result.divergences is None:
            print("independent draws from the exact posterior")
            return
        found = diagnostics(
            result.stored, result.latent, result.divergences, self.sampler, self._on_labels
        )
        print("\n".join(found.lines()))

    def _on_labels(self) -> str:
        from marginax.infer.draws.label_switching import on_labels

        result = self._done()
        draws = result.stored.samples()
        known = result.known
        return on_labels(
            known.model, {n: draws[n] for n in result.latent}, known.args, known.kwargs
        )

    def relabel(self, plate: str, **options: Any) -> MCMC:
        """The same draws with the labels of exchangeable components made consistent.

        Parameters
        ----------
        plate : str
            The components' plate.
        **options
            ``variable``, ``axes``, ``batch_size`` of `relabel`.

        Returns
        -------
        MCMC
            A copy whose draws are renamed; everything else of it is the same.

        Raises
        ------
        ModelError
            When the components are not exchangeable.
        """
        from marginax.infer.draws.label_switching import relabel

        result = self._done()
        known = result.known
        found = relabel(
            known.model,
            result.stored.samples(),
            *known.args,
            plate=plate,
            batch_ndims=2,
            **options,
            **known.kwargs,
        )
        renamed = copy.copy(self)
        stored = in_memory(found.samples, result.stored.fields())
        renamed._result = replace(result, stored=stored)
        return renamed

    def to_arviz(self, **options: Any) -> Any:
        """The draws and all that ArviZ has use for: see `infer.to_arviz`.

        Parameters
        ----------
        **options
            ``discrete``, ``log_likelihood``, ``posterior_predictive``, ``coords``, ``dims``, ``batch_size``,
            ``rng_key`` of `infer.to_arviz`.

        Returns
        -------
        arviz.InferenceData or xarray.DataTree
            Whichever the installed ArviZ uses.
        """
        from marginax.infer.draws.arviz_data import to_arviz

        result = self._done()
        options = {"rng_key": result.key, "sample_stats": result.stored.fields()} | options
        known = result.known
        return to_arviz(
            known.model, result.stored.samples(), *known.args, **options, **known.kwargs
        )


def _flat(draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.reshape((-1, *value.shape[2:])) for name, value in draws.items()}


def _grouped(draws: Mapping[str, np.ndarray], by_chain: bool) -> dict[str, Array]:
    if by_chain:
        return {name: jax.device_put(value) for name, value in draws.items()}
    return {name: jax.device_put(value) for name, value in _flat(draws).items()}
