"""Stochastic variational inference: gradient steps on a bound, in one compiled loop.

Parameters are optimised on the unconstrained scale, where every step is allowed, and shown on the
constrained one. The loop (`SVI.run`) is compiled once and called for a stretch of steps at a time,
so that a progress bar can move; with several restarts the whole loop is mapped over them.

A step whose loss or gradient is not finite is never taken: the run stops where it is, and the
error names the site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to

from marginax.compiled import remembered_jit
from marginax.graph.sites import as_jax_arrays, collect_sites
from marginax.graph.validate import check_value, is_concrete
from marginax.infer.cuts import check_cuts
from marginax.infer.progress import progress
from marginax.language import handlers
from marginax.language.errors import ModelError
from marginax.language.primitives import as_numbers
from marginax.language.stack import isolated

SELECTIONS = ("final", "initial")


class SVIState(NamedTuple):
    """Everything that a step changes."""

    optim_state: Any
    """The unconstrained parameters by name, and the optimiser's own state."""
    mutable_state: Any
    """Always None; there for NumPyro's sake."""
    rng_key: Any


class SVIRunResult(NamedTuple):
    """What `SVI.run` returns."""

    params: dict[str, Array]
    """The parameters by name, constrained."""
    state: SVIState
    """Where to go on from, with ``init_state=``."""
    losses: Array
    """The loss before each step, shape (num_steps,)."""
    gradient_norms: dict[str, Array] | None = None
    """For each parameter the norm of its (unconstrained) gradient at each step, shape (num_steps,)."""
    restart_losses: Array | None = None
    """The losses of all restarts, shape (num_restarts, num_steps), or their first losses,
    shape (num_restarts,), where the best was selected before training."""
    best_restart: int = 0
    """Which restart the result is from."""


class SVI:
    """Fit a guide to a model's posterior by maximising a lower bound of the evidence.

    Parameters
    ----------
    model, guide : callable
        The model, and the guide for its continuous latent sites. Discrete sites that the guide
        does not state are summed out of the model.
    optim : optax.GradientTransformation
        The optimiser; `marginax.optim` has NumPyro's names for some.
    loss : object with a ``loss`` method
        `TraceEnum_ELBO()`.
    **static_kwargs
        Keyword arguments passed to model and guide at every call.

    Examples
    --------
    >>> import jax, optax
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(x):
    ...     p = mx.sample("p", dist.Beta(1.0, 1.0))
    ...     with mx.plate("n", len(x)):
    ...         mx.sample("x", dist.Bernoulli(p), obs=x)
    >>> guide = mx.infer.autoguide.AutoDelta(model)
    >>> svi = mx.infer.SVI(model, guide, optax.adam(0.05), mx.infer.TraceEnum_ELBO())
    >>> x = jnp.array([1, 1, 1, 0])
    >>> result = svi.run(jax.random.key(0), 500, x, progress_bar=False)
    >>> round(float(result.params["p_auto_loc"]), 3)
    0.75
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: optax.GradientTransformation,
        loss: Any,
        **static_kwargs: Any,
    ) -> None:
        if not (hasattr(optim, "init") and hasattr(optim, "update")):
            raise TypeError(
                f"SVI: the optimiser must be an optax object such as optax.adam(0.1), not {optim!r}."
            )
        if isinstance(loss, type) or not callable(getattr(loss, "loss", None)):
            raise TypeError(
                f"SVI: the loss must be an object such as TraceEnum_ELBO(), not {loss!r}."
            )
        self.model = model
        self.guide = guide
        self.optim = optim
        self.loss = loss
        self.static_kwargs = static_kwargs
        self._constraints: dict[str, Any] = {}

    def init(
        self, rng_key: Any, *args: Any, init_params: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> SVIState:
        """The state before the first step.

        Parameters
        ----------
        rng_key : PRNG key
            For random initial values, and for the steps after.
        *args, **kwargs
            Arguments of model and guide.
        init_params : mapping, optional
            Constrained initial values of some parameters, instead of their own.

        Returns
        -------
        SVIState

        Raises
        ------
        ModelError
            When an initial value is NaN or outside of its constraint.
        """
        args, kwargs = as_jax_arrays((args, kwargs | self.static_kwargs))
        self._find_parameters(args, kwargs)
        self._check_given(init_params)
        rng_key = handlers.as_key(rng_key)

        def make(key: Any) -> tuple[dict[str, Array], SVIState]:
            return self._initial(key, init_params, args, kwargs)

        values, state = (jax.jit(make) if is_concrete(rng_key) else make)(rng_key)
        self._check_initial(values)
        return state

    def _find_parameters(self, args: Any, kwargs: Any) -> None:
        """The parameters of guide and model, with their constraints."""
        self._constraints = {}
        for fn in (self.guide, self.model):
            for name, site in collect_sites(fn, *args, **kwargs).items():
                if site.kind == "param":
                    self._constraints[name] = site.constraint or constraints.real

    def _initial(
        self, rng_key: Any, init_params: Mapping[str, Any] | None, args: Any, kwargs: Any
    ) -> tuple[dict[str, Array], SVIState]:
        rng_key, guide_key, model_key = jax.random.split(rng_key, 3)
        fixed = dict(init_params or {})
        with isolated():
            guide = handlers.seed(handlers.substitute(self.guide, data=fixed), guide_key)
            guide_trace = handlers.trace(guide).get_trace(*args, **kwargs)
            model = handlers.seed(handlers.substitute(self.model, data=fixed), model_key)
            replayed = handlers.replay(model, trace=guide_trace)
            model_trace = handlers.trace(replayed).get_trace(*args, **kwargs)
        sites = model_trace | guide_trace
        # A parameter inside a subsampled plate was recorded subsampled; it is optimised whole.
        values = {
            name: jnp.asarray(sites[name].get("whole_value", sites[name]["value"]), _float())
            for name in self._constraints
        }
        free = {name: biject_to(self._constraints[name]).inv(v) for name, v in values.items()}
        return values, SVIState((free, self.optim.init(free)), None, rng_key)

    def _check_given(self, init_params: Mapping[str, Any] | None) -> None:
        for name, value in (init_params or {}).items():
            if name not in self._constraints:
                known = ", ".join(repr(n) for n in self._constraints) or "none"
                raise ModelError(
                    f"init_params names '{name}', which is no parameter of guide or model; the "
                    f"parameters are: {known}."
                )
            value = as_numbers(name, value)
            check_value(name, self._constraints[name], value, "its value in init_params")

    def _check_initial(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            check_value(name, self._constraints[name], value, "its initial value")

    def get_params(self, state: SVIState) -> dict[str, Array]:
        """The constrained parameters of a state, by name."""
        free, _ = state.optim_state
        for name in free:
            if name not in self._constraints:
                raise RuntimeError(
                    f"SVI: the constraint of parameter '{name}' is not known yet; call init or run first."
                )
        return {name: biject_to(self._constraints[name])(value) for name, value in free.items()}

    def evaluate(self, state: SVIState, *args: Any, **kwargs: Any) -> Array:
        """The loss of a state, shape ()."""
        _, key = jax.random.split(state.rng_key)
        params = self.get_params(state)
        kwargs = kwargs | self.static_kwargs
        return self.loss.loss(key, params, self.model, self.guide, *args, **kwargs)

    def update(self, state: SVIState, *args: Any, **kwargs: Any) -> tuple[SVIState, Array]:
        """One step: the next state, and the loss before it. Wrap it in `jax.jit`."""
        state, loss, _ = self._step(state, args, kwargs | self.static_kwargs)
        return state, loss

    def stable_update(self, state: SVIState, *args: Any, **kwargs: Any) -> tuple[SVIState, Array]:
        """Like `update`, but where loss or gradient is not finite the parameters stay as they are."""
        new, loss, gradient = self._step(state, args, kwargs | self.static_kwargs)
        return _where(_all_finite((loss, gradient)), new, state._replace(rng_key=new.rng_key)), loss

    def _step(self, state: SVIState, args: Any, kwargs: Any) -> tuple[SVIState, Array, Any]:
        rng_key, key = jax.random.split(state.rng_key)
        free, optim_state = state.optim_state

        def loss(free: dict[str, Array]) -> Array:
            params = self.get_params(SVIState((free, None), None, None))
            return self.loss.loss(key, params, self.model, self.guide, *args, **kwargs)

        value, gradient = jax.value_and_grad(loss)(free)
        updates, optim_state = self.optim.update(gradient, optim_state, free)
        free = optax.apply_updates(free, updates)
        return SVIState((free, optim_state), None, rng_key), value, gradient

    def run(
        self,
        rng_key: Any,
        num_steps: int,
        *args: Any,
        progress_bar: bool = True,
        stable_update: bool = False,
        init_state: SVIState | None = None,
        init_params: Mapping[str, Any] | None = None,
        num_restarts: int = 1,
        select: str = "final",
        gradient_norms: bool = False,
        **kwargs: Any,
    ) -> SVIRunResult:
        """Optimise for a number of steps, in one compiled loop.

        Parameters
        ----------
        rng_key : PRNG key
            For initial values and stochastic losses.
        num_steps : int
            How many steps.
        *args, **kwargs
            Arguments of model and guide. Arrays may be NumPy's or JAX's.
        progress_bar : bool
            Whether to show one, with the loss.
        stable_update : bool
            Skip steps whose loss or gradient is not finite instead of stopping at the first.
        init_state : SVIState, optional
            Go on from here.
        init_params : mapping, optional
            Constrained initial values of some parameters.
        num_restarts : int
            Train that many initialisations at once and keep the best.
        select : {"final", "initial"}
            Which restart is the best: the one whose loss is lowest at the end (averaged over the last
            twentieth of the steps), or at the beginning; then only that one is trained.
        gradient_norms : bool
            Whether to return the norm of every parameter's gradient at every step.

        Returns
        -------
        SVIRunResult

        Raises
        ------
        ModelError
            When model, guide, data or initial values make no sense, or when the loss or a gradient
            stops being finite; the message names the site and the step.
        """
        _check_run(num_steps, num_restarts, select, init_state)
        args, kwargs = as_jax_arrays((args, kwargs | self.static_kwargs))
        self._find_parameters(args, kwargs)
        self._check_given(init_params)
        rng_key = handlers.as_key(rng_key)
        first_losses = None
        if init_state is not None:
            states = jax.tree.map(lambda leaf: leaf[None], init_state)
        else:
            states = self._restarts(rng_key, num_restarts, init_params, args, kwargs)
            if select == "initial" and num_restarts > 1:
                first_losses = self._losses_of(states, args, kwargs)
                best = _best(first_losses)
                states = jax.tree.map(lambda leaf: leaf[best : best + 1], states)
        states, losses, norms = self._train(
            states, num_steps, stable_update, progress_bar, args, kwargs
        )
        average = jnp.nanmean if stable_update else jnp.mean
        best = _best(average(losses[:, -max(num_steps // 20, 1) :], axis=1))
        state = jax.tree.map(lambda leaf: leaf[best], states)
        finite = np.isfinite(losses[best])
        if not finite.any() or not (stable_update or finite.all()):
            raise self._not_finite(state, int(np.argmin(finite)), args, kwargs)
        params = self.get_params(state)
        self._check_result(params, args, kwargs)
        self._check_cuts(params, state.rng_key, args, kwargs)
        return SVIRunResult(
            params,
            state,
            losses[best],
            {name: norm[best] for name, norm in norms.items()} if gradient_norms else None,
            first_losses if first_losses is not None else (losses if num_restarts > 1 else None),
            best if first_losses is None else _best(first_losses),
        )

    def _restarts(
        self, rng_key: Any, count: int, init_params: Any, args: Any, kwargs: Any
    ) -> SVIState:
        make = jax.vmap(lambda key: self._initial(key, init_params, args, kwargs))
        values, states = jax.jit(make)(jax.random.split(rng_key, count))
        self._check_initial(values)
        return states

    def _losses_of(self, states: SVIState, args: Any, kwargs: Any) -> Array:
        return remembered_jit(jax.vmap(lambda s: self.evaluate(s, *args, **kwargs)), states)(states)

    def _train(
        self,
        states: SVIState,
        num_steps: int,
        stable: bool,
        show: bool,
        args: Any,
        kwargs: Any,
    ) -> tuple[SVIState, Array, dict[str, Array]]:
        """All restarts for all steps; the loop is compiled once and called stretch by stretch."""

        def step(state: SVIState) -> tuple[SVIState, Array, dict[str, Array]]:
            new, loss, gradient = self._step(state, args, kwargs)
            finite = _all_finite((loss, gradient))
            stay = state._replace(rng_key=new.rng_key) if stable else state
            norms = {name: jnp.linalg.norm(g.ravel()) for name, g in gradient.items()}
            # A gradient that is not finite ends the run as a loss that is not finite does.
            loss = jnp.where(finite | ~jnp.isfinite(loss), loss, jnp.nan)
            return _where(finite, new, stay), loss, norms

        def stretch(carry: Any, start: Any, stop: Any) -> Any:
            def body(i: Any, carry: Any) -> Any:
                states, losses, norms = carry
                states, loss, norm = jax.vmap(step)(states)
                losses = losses.at[:, i].set(loss)
                return (
                    states,
                    losses,
                    {name: norms[name].at[:, i].set(norm[name]) for name in norms},
                )

            return jax.lax.fori_loop(start, stop, body, carry)

        count = states.rng_key.shape[0]
        blank = jnp.full((count, num_steps), jnp.nan, _float())
        carry = (states, blank, dict.fromkeys(self._constraints, blank))
        compiled = remembered_jit(stretch, carry, 0, num_steps)
        with progress("SVI", num_steps, show) as bar:
            for start, stop in bar.stretches():
                carry = compiled(carry, start, stop)
                last = np.asarray(carry[1][:, stop - 1])
                bar.advance(stop, f"loss {np.nanmin(last):.4g}" if np.isfinite(last).any() else "")
                if not stable and not np.isfinite(last).any():
                    break
        return carry

    def _not_finite(self, state: SVIState, step: int, args: Any, kwargs: Any) -> ModelError:
        """Find the site to blame by running guide and model once at the last finite parameters."""
        params = self.get_params(state)
        names: list[tuple[str, str]] = []

        def log_probs(params: dict[str, Array]) -> list[Array]:
            _, key = jax.random.split(state.rng_key)
            guide_key, model_key = jax.random.split(key)
            with isolated():
                guide = handlers.seed(handlers.substitute(self.guide, data=params), guide_key)
                guide_trace = handlers.trace(guide).get_trace(*args, **kwargs)
                model = handlers.seed(handlers.substitute(self.model, data=params), model_key)
                replayed = handlers.replay(model, trace=guide_trace)
                model_trace = handlers.trace(replayed).get_trace(*args, **kwargs)
            found = []
            for where, trace in (("guide", guide_trace), ("model", model_trace)):
                for name, msg in trace.items():
                    if msg["type"] == "sample":
                        names.append((name, where))
                        found.append(msg["fn"].log_prob(msg["value"]))
            return found

        # Compiled, as the loss was: with numbers NumPyro would refuse them first, and name no site.
        for (name, where), log_prob in zip(names, jax.jit(log_probs)(params), strict=True):
            log_prob = np.asarray(log_prob)
            if not np.isfinite(log_prob).all():
                first = log_prob[~np.isfinite(log_prob)].ravel()[0]
                return ModelError(
                    f"site '{name}' of the {where}: its log density is {first} at step {step}, so "
                    f"the loss is not finite. Parameters there: {_brief(params)}. Check the data "
                    "and the initial values, or take smaller steps."
                )
        return ModelError(
            f"the loss or its gradient is not finite at step {step}, though every site's own log "
            f"density is. Parameters there: {_brief(params)}. Take smaller steps, or look for a "
            "function with an infinite derivative (sqrt or log at zero)."
        )

    def _check_result(self, params: Mapping[str, Any], args: Any, kwargs: Any) -> None:
        """Are the distributions still distributions? (Say, probabilities that sum to one.)"""
        for where, fn in (("guide", self.guide), ("model", self.model)):
            try:
                collect_sites(handlers.substitute(fn, data=params), *args, **kwargs)
            except ModelError as error:
                raise ModelError(
                    f"after optimisation the {where} is not valid: {error} Declare the parameter with "
                    "the constraint that its use needs, for example constraint=constraints.simplex "
                    "for probabilities; the losses of this run mean nothing."
                ) from error

    def _check_cuts(self, params: Mapping[str, Any], key: Any, args: Any, kwargs: Any) -> None:
        """At what the guide says now."""
        model, guide = (
            handlers.seed(handlers.substitute(fn, data=params), key)
            for fn in (self.model, self.guide)
        )
        with isolated():
            trace = handlers.trace(guide).get_trace(*args, **kwargs)
        drawn = [m for m in trace.values() if m["type"] == "sample" and not m["is_observed"]]
        check_cuts(model, {m["name"]: jnp.asarray(m["value"])[None] for m in drawn}, args, kwargs)


def _check_run(num_steps: int, num_restarts: int, select: str, init_state: Any) -> None:
    if not isinstance(num_steps, int | np.integer) or num_steps < 1:
        raise ValueError(f"SVI.run: num_steps must be an integer >= 1, not {num_steps!r}.")
    if not isinstance(num_restarts, int | np.integer) or num_restarts < 1:
        raise ValueError(f"SVI.run: num_restarts must be an integer >= 1, not {num_restarts!r}.")
    if select not in SELECTIONS:
        raise ValueError(f"SVI.run: select must be one of {SELECTIONS}, not {select!r}.")
    if init_state is not None and num_restarts > 1:
        raise ValueError("SVI.run: init_state goes on from one state; leave num_restarts out.")


def _best(scores: Any) -> int:
    scores = np.asarray(scores)
    return int(np.argmin(np.where(np.isfinite(scores), scores, np.inf)))


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _float() -> Any:
    return jnp.result_type(float)


def _brief(params: Mapping[str, Any]) -> str:
    with np.printoptions(threshold=6, precision=4, edgeitems=2):
        return ", ".join(f"{name} = {np.asarray(value)}" for name, value in params.items())
