"""Stochastic variational inference: gradient steps on a bound.

Parameters are optimised on the unconstrained scale, where every step is allowed, and shown on the
constrained one. `SVI.run` takes many steps in a compiled loop (`fit`); `SVI.init` and `SVI.update` take one at a
time, for loops of one's own.

A step whose loss or gradient is not finite is never taken by `SVI.run`: the run stops where it is, and the
error names the site (`fault`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import optax
from jax import Array

from marginax.graph.sites import as_jax_arrays
from marginax.infer.svi.checkpoint import SavedState
from marginax.infer.svi.checks import check_given, check_initial, check_names, check_options
from marginax.infer.svi.fit import Task, fit
from marginax.infer.svi.objective import constrain, gradient_step
from marginax.infer.svi.options import Options
from marginax.infer.svi.results import SVIRunResult
from marginax.infer.svi.setup import set_up_surely
from marginax.infer.svi.starts import new_start
from marginax.infer.svi.training import SVIState, all_finite, where
from marginax.jaxpr.compiled import QUICK, remembered_jit
from marginax.jaxpr.concrete import is_concrete
from marginax.language import handlers
from marginax.optim import as_optimiser


class SVI:
    """Fit a guide to a model's posterior by maximising a lower bound of the evidence.

    Parameters
    ----------
    model, guide : callable
        The model, and the guide for its continuous latent sites. Discrete sites that the guide
        does not state are summed out of the model.
    optim : optax.GradientTransformation or "lbfgs"
        The optimiser; `marginax.optim` has NumPyro's names for some. ``"lbfgs"`` is ``optax.lbfgs()``, for
        deterministic objectives such as MAP: it takes far fewer evaluations of the loss.
    loss : object with a ``loss`` method
        `TraceEnum_ELBO()`, `TraceMeanField_ELBO()` or `Trace_ELBO()`.
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
        optim: Any,
        loss: Any,
        **static_kwargs: Any,
    ) -> None:
        if isinstance(loss, type) or not callable(getattr(loss, "loss", None)):
            raise TypeError(
                f"SVI: the loss must be an object such as TraceEnum_ELBO(), not {loss!r}."
            )
        self.model = model
        self.guide = guide
        self.optim: optax.GradientTransformationExtraArgs = as_optimiser(optim)
        self.loss = loss
        self.static_kwargs = static_kwargs
        self._constraints: Mapping[str, Any] = {}

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
        rng_key = handlers.as_key(rng_key)
        setup = set_up_surely(self.model, self.guide, args, kwargs, rng_key)
        self._constraints = setup.constraints
        check_given(setup, init_params)

        def make(key: Any) -> tuple[dict[str, Array], SVIState]:
            return new_start(setup, self.optim, key, init_params, args, kwargs)

        if is_concrete((rng_key, args, kwargs, init_params)):
            make = remembered_jit(make, rng_key, options=QUICK)
        values, state = make(rng_key)
        check_initial(setup, values)
        return state

    def get_params(self, state: SVIState) -> dict[str, Array]:
        """The constrained parameters of a state, by name."""
        if isinstance(state, SavedState):
            raise TypeError(
                "SVI: the state of a loaded result has no structure yet; its parameters are result.params, and "
                "svi.run(..., init_state=result.state) goes on from it."
            )
        free, _ = state.optim_state
        for name in free:
            if name not in self._constraints:
                raise RuntimeError(
                    f"SVI: the constraint of parameter '{name}' is not known yet; call init or run first."
                )
        return constrain(self._constraints, free)

    def _loss(self, free: Any, key: Any, args: Any, kwargs: Any) -> Array:
        params = self.get_params(SVIState((free, None), None, None))
        return self.loss.loss(key, params, self.model, self.guide, *args, **kwargs)

    def evaluate(self, state: SVIState, *args: Any, **kwargs: Any) -> Array:
        """The loss of a state, shape ()."""
        _, key = jax.random.split(state.rng_key)
        return self._loss(state.optim_state[0], key, args, kwargs | self.static_kwargs)

    def update(self, state: SVIState, *args: Any, **kwargs: Any) -> tuple[SVIState, Array]:
        """One step: the next state, and the loss before it. Wrap it in `jax.jit`."""
        state, loss, _ = self._step(state, args, kwargs | self.static_kwargs)
        return state, loss

    def stable_update(self, state: SVIState, *args: Any, **kwargs: Any) -> tuple[SVIState, Array]:
        """Like `update`, but where loss or gradient is not finite the parameters stay as they are."""
        new, loss, gradient = self._step(state, args, kwargs | self.static_kwargs)
        finite = all_finite((loss, gradient, new.optim_state[0]))
        return where(finite, new, state._replace(rng_key=new.rng_key)), loss

    def _step(self, state: SVIState, args: Any, kwargs: Any) -> tuple[SVIState, Array, Any]:
        rng_key, key = jax.random.split(state.rng_key)
        free, optim_state = state.optim_state
        free, optim_state, loss, gradient, _ = gradient_step(
            self.optim, lambda free: self._loss(free, key, args, kwargs), free, optim_state
        )
        return SVIState((free, optim_state), None, rng_key), loss, gradient

    def run(
        self,
        rng_key: Any,
        num_steps: int,
        *args: Any,
        progress_bar: bool = True,
        stable_update: bool = False,
        init_state: SVIState | SavedState | None = None,
        init_params: Mapping[str, Any] | None = None,
        num_restarts: int = 1,
        select: str = "final",
        keep_restarts: bool = False,
        tolerance: float | None = None,
        batches: Iterable[Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 1000,
        **kwargs: Any,
    ) -> SVIRunResult:
        """Optimise until the loss has converged, or for a number of steps, in a compiled loop.

        Ctrl-C ends the run after the steps under way and returns what there is; a second one raises
        `KeyboardInterrupt`.

        Parameters
        ----------
        rng_key : PRNG key
            For initial values and stochastic losses.
        num_steps : int
            How many steps at most.
        *args, **kwargs
            Arguments of model and guide. Arrays may be NumPy's or JAX's.
        progress_bar : bool
            Whether to show one, with the loss, and with batches the rows per second.
        stable_update : bool
            Skip steps whose loss or gradient is not finite instead of stopping at the first.
        init_state : SVIState or SavedState, optional
            Go on from here, a result's ``state``, also that of a loaded one.
        init_params : mapping, optional
            Constrained initial values of some parameters; with several restarts each may have a leading
            dimension ``num_restarts``, one value for each.
        num_restarts : int
            Train that many initialisations at once and keep the best.
        select : {"final", "initial"}
            Which restart is the best: the one whose loss is lowest at the end (averaged over the last
            twentieth of the steps), or at the beginning; then only that one is trained.
        keep_restarts : bool
            Whether to keep the parameters of all restarts, in ``result.restarts.params``.
        tolerance : float, optional
            In nats. The run has converged when the average loss of the last quarter of its steps differs by
            less than this from that of the quarter before, for all restarts. A quarter has at
            least 50 steps (5 of an optimiser that searches along lines). When nothing is said: 1e-4 for a
            deterministic loss; a stochastic loss (a guide that draws, a subsampled plate, batches) runs all its
            steps. A loss that is large is told apart only to its rounding, which is allowed for. If a number is
            given for a noisy one, two standard errors of the averages' difference are allowed too,
            and a quarter has at least 250 steps. Zero: never stop before ``num_steps``.
        batches : iterable, optional
            Data that come in pieces, one for each step: `minibatches` of an array on disk, Arrow record
            batches, a generator. A batch is an array or a tuple (more positional arguments after ``args``), or
            a dictionary or table (keyword arguments by name). What can be iterated again starts anew at its
            end. The model sees how many rows there are in all from you: ``plate("data", rows, subsample_size=len(x))``.
        checkpoint : path, optional
            A file to which the run is written every so many steps and at its end. If it exists, the run
            goes on from there, to the same result, bit for bit, as if it had never ended (with the same versions,
            on the same kind of machine; some GPU kernels are not deterministic). It must be the same run: model, guide,
            optimiser, arguments, key, options. What batches hold is not checked, beside the options of `minibatches`.
            A model that computes with a Python function which JAX calls back cannot have one.
        every : int
            Steps between two checkpoints.

        Returns
        -------
        SVIRunResult

        Raises
        ------
        ModelError
            When model, guide, data or initial values make no sense, when the loss or a gradient
            stops being finite (the message names the site, its value and the step), or when the checkpoint is
            that of another run.
        StorageError
            When the checkpoint is damaged.

        Warns
        -----
        UserWarning
            With several restarts: when fewer than half of them reached the best optimum found, or when a
            component of a mixture has no data there. With a loss of your own: when guide and model are such as
            `TraceEnum_ELBO` refuses, so that it cannot look whether the parameters of distributions are valid.
        """
        options = Options(
            num_steps,
            progress_bar,
            stable_update,
            init_state,
            init_params,
            num_restarts,
            select,
            keep_restarts,
            tolerance,
            batches,
            checkpoint,
            every,
        )
        check_options(options)
        check_names(self.run, self.static_kwargs, (self.model, self.guide))
        args, kwargs = as_jax_arrays((args, kwargs | self.static_kwargs))
        result, setup = fit(self._task, handlers.as_key(rng_key), args, kwargs, options)
        self._constraints = setup.constraints
        return result

    @property
    def _task(self) -> Task:
        return Task(self.model, self.guide, self.optim, self.loss)
