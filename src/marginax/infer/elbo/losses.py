"""The evidence lower bounds, as losses for `SVI`.

They differ in what they do exactly. `TraceEnum_ELBO` sums discrete variables out, of the model and of
the guide; `TraceMeanField_ELBO` takes divergences from formulas besides; `Trace_ELBO` draws whatever
the guide states. All are unbiased, in value and in gradient; what is computed is said in `bound`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from marginax.graph.sites import as_jax_arrays, collect_sites_once
from marginax.infer.elbo.bound import Bound, Estimate, Run, Validity
from marginax.infer.elbo.pairing import (
    BothPath,
    Pairing,
    both_paths,
    pairing_without_sums,
    pairings,
)
from marginax.infer.elbo.score import surrogate
from marginax.infer.known import Knowing
from marginax.language import handlers


class ELBO:
    """What all of them share: particles."""

    analytic = False

    def __init__(self, num_particles: int = 1, vectorize_particles: bool = True) -> None:
        is_integer = isinstance(num_particles, int) and not isinstance(num_particles, bool)
        if not is_integer or num_particles < 1:
            raise ValueError(f"num_particles must be an integer >= 1, not {num_particles!r}.")
        if not isinstance(vectorize_particles, bool):
            raise TypeError(
                f"vectorize_particles must be True or False, not {vectorize_particles!r}."
            )
        self.num_particles = num_particles
        self.vectorize_particles = vectorize_particles

    def loss(
        self,
        rng_key: Any,
        param_map: Mapping[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Array:
        """The negative bound, differentiable in everything.

        Parameters
        ----------
        rng_key : PRNG key
            For what the guide draws and for subsampled plates; each particle has its own.
        param_map : mapping
            Values of the `param` sites of model and guide, constrained.
        model, guide : callable
            The guide states what the model's latent sites are distributed as. A site of the guide that
            the model lacks must be marked ``infer={"is_auxiliary": True}``; it adds -log q.
        *args, **kwargs
            Arguments of both.

        Returns
        -------
        array, shape ()

        Raises
        ------
        ModelError
            When the guide misses a site, states one that the model does not have, or has a discrete one
            that can be neither enumerated nor drawn.
        """
        args, kwargs = as_jax_arrays((args, kwargs))
        guide = Knowing(guide, [])
        model, guide = (handlers.substitute(fn, data=param_map) for fn in (model, guide))
        paths = both_paths(model, guide, args, kwargs)
        return self.look(rng_key, model, guide, args, kwargs, paths, with_validity=False)[0]

    def look(
        self,
        rng_key: Any,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        args: Any,
        kwargs: Any,
        paths: Iterable[BothPath],
        with_validity: bool = True,
    ) -> tuple[Array, list[Validity]]:
        """The loss, and whether the parameters of all distributions are valid there.

        Parameters
        ----------
        rng_key : PRNG key
            As in `loss`.
        model, guide : callable
            With their parameters substituted.
        args, kwargs
            Arguments of both, arrays as JAX's.
        paths : iterable of BothPath
            All paths of the guide.
        with_validity : bool
            Whether to look at the parameters; else nothing is said of them.
        """
        pairs = self._pairings(list(paths), model, guide, args, kwargs)

        def particle(key: Any) -> tuple[Estimate, list[Validity]]:
            guide_key, model_key = jax.random.split(key)
            seeded = handlers.seed(model, model_key), handlers.seed(guide, guide_key)
            bounds = [Bound.of(Run(*seeded, args, kwargs, p), self.analytic) for p in pairs]
            parts = [bound.estimate() for bound in bounds]
            total = sum((part.bound for part in parts[1:]), parts[0].bound)
            valid = [v for bound in bounds for v in bound.validity()] if with_validity else []
            return Estimate(total, sum((part.scores for part in parts), ())), valid

        count = self.num_particles
        if any(pair.drawn for pair in pairs):
            count = max(count, 2)  # for a baseline
        if count == 1:
            lone, valid = particle(rng_key)
            return -lone.bound, valid
        keys = jax.random.split(rng_key, count)
        found, valid = (
            jax.vmap(particle)(keys) if self.vectorize_particles else jax.lax.map(particle, keys)
        )
        bound = jnp.mean(found.bound)
        for score in found.scores:
            slope = surrogate(score)
            bound = bound + (slope - jax.lax.stop_gradient(slope))
        return -bound, valid

    def _pairings(
        self, paths: list[BothPath], model: Any, guide: Any, args: Any, kwargs: Any
    ) -> list[Pairing]:
        """What becomes of the sites, on each path of the guide."""
        return list(pairings(paths))


class TraceEnum_ELBO(ELBO):
    """Evidence lower bound with exact sums over discrete variables.

    Discrete sites of the model that the guide leaves out are eliminated. Those of the guide are
    summed over: all values at once, or, with ``infer={"enumerate": "sequential"}``, one after the other,
    each a concrete value that an `if` of guide and model may ask for. Only a site that says
    ``infer={"enumerate": None}``, or has infinitely many values, is drawn; its gradient is estimated by
    its score, with the costs downstream of it alone and the other particles' average as the baseline.

    Parameters
    ----------
    num_particles : int
        How many times the guide is drawn from; the bound is the average. With drawn discrete sites
        at least two, so that each has a baseline.
    max_plate_nesting : int, optional
        Accepted for NumPyro's and Pyro's sake; nothing here depends on it.
    vectorize_particles : bool
        Whether all particles are computed at once, rather than one after the other in less memory.

    References
    ----------
    Kool, van Hoof and Welling, 2019, "Buy 4 REINFORCE samples, get a baseline for free!".
    Salimans and Knowles, 2014, "On using control variates with stochastic approximation for
    variational Bayes".

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     z = mx.sample("z", dist.Bernoulli(0.5))
    ...     mx.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=1.0)
    >>> elbo = mx.infer.TraceEnum_ELBO()
    >>> round(float(elbo.loss(jax.random.key(0), {}, model, lambda: None)), 4)  # -log 0.5
    0.6931
    """

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(num_particles, vectorize_particles)


class TraceMeanField_ELBO(ELBO):
    """Like `TraceEnum_ELBO`, with analytic Kullback-Leibler divergences where there is a formula.

    The divergence replaces a site's sampled log p - log q where `numpyro.distributions.kl_divergence`
    knows the pair, and neither depends on a variable that is summed out.

    Parameters
    ----------
    num_particles : int
        How many times the guide is drawn from; the bound is the average.
    vectorize_particles : bool
        Whether all particles are computed at once, rather than one after the other in less memory.

    Raises
    ------
    ModelError
        From ``loss``: also when a parent that such a site has in the model is drawn given the site in
        the guide.

    Examples
    --------
    >>> import jax
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> from marginax.infer.elbo import TraceMeanField_ELBO
    >>> def model():
    ...     mx.sample("x", dist.Normal(0.0, 1.0))
    >>> def guide():
    ...     mx.sample("x", dist.Normal(0.5, 1.0))
    >>> float(TraceMeanField_ELBO().loss(jax.random.key(0), {}, model, guide))
    0.125
    """

    analytic = True


class Trace_ELBO(ELBO):
    """Evidence lower bound that sums nothing out: the guide states every latent site, and all are drawn.

    The gradient with respect to discrete sites is estimated by their scores, as in `TraceEnum_ELBO`.

    Parameters
    ----------
    num_particles : int
        How many times the guide is drawn from; the bound is the average. With discrete sites at
        least two, so that each has a baseline.
    vectorize_particles : bool
        Whether all particles are computed at once, rather than one after the other in less memory.

    Examples
    --------
    >>> import jax
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> from marginax.infer.elbo import Trace_ELBO
    >>> def model():
    ...     z = mx.sample("z", dist.Bernoulli(0.5))
    ...     mx.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=1.0)
    >>> def guide():
    ...     mx.sample("z", dist.Bernoulli(0.8))  # the exact posterior, whatever is drawn
    >>> round(float(Trace_ELBO().loss(jax.random.key(0), {}, model, guide)), 4)
    0.6931
    """

    def _pairings(
        self, paths: list[BothPath], model: Any, guide: Any, args: Any, kwargs: Any
    ) -> list[Pairing]:
        first = paths[0]
        if not first.path.chosen:
            return [pairing_without_sums(first.path.sites, first.in_model)]
        # Here what is sequential elsewhere is drawn.
        sites = [collect_sites_once(fn, *args, **kwargs) for fn in (guide, model)]
        return [pairing_without_sums(*sites)]


class TraceGraph_ELBO(Trace_ELBO):
    """NumPyro's name for `Trace_ELBO` with scores of downstream costs, which that one has here."""
