"""Stochastic variational inference: gradient steps on a bound, in a compiled loop.

Parameters are optimised on the unconstrained scale, where every step is allowed, and shown on the
constrained one. With several restarts the whole loop is mapped over them. `SVI.run` puts the pieces together:
where the parameters begin, what is minimised (`objective`), the loop (`training`), when it ends
(`convergence`), what the restarts say (`restarts`), and checkpoints (`checkpoint`).

A step whose loss or gradient is not finite is never taken: the run stops where it is, and the
error names the site (`fault`).
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpyro.distributions.transforms import biject_to

import marginax.storage as storage
from marginax.density.parameters import InvalidParameterWarning
from marginax.density.validate import check_value
from marginax.errors import ModelError
from marginax.graph.sites import as_jax_arrays
from marginax.infer.batches import Minibatches, prefetched
from marginax.infer.draws.cuts import check_cuts
from marginax.infer.known import know
from marginax.infer.running.fingerprint import fingerprint, key_numbers, program_fingerprint
from marginax.infer.running.progress import progress
from marginax.infer.svi.checkpoint import (
    SavedRun,
    SavedState,
    read_run,
    write_run,
)
from marginax.infer.svi.components import component_use, warn_if_empty
from marginax.infer.svi.convergence import criterion
from marginax.infer.svi.fault import not_finite
from marginax.infer.svi.given import record, seeded
from marginax.infer.svi.objective import (
    Objective,
    constrain,
    forget_the_last_search,
    gradient_step,
    searches_along_lines,
)
from marginax.infer.svi.programs import (
    first_losses,
    look_at_parameters,
    pick,
    traced,
    training_program,
    with_shapes,
)
from marginax.infer.svi.restarts import first_finite, ranked, warn_if_stuck
from marginax.infer.svi.results import SVIRunResult
from marginax.infer.svi.setup import Setup, set_up, set_up_surely
from marginax.infer.svi.training import (
    Rules,
    SVIState,
    Trained,
    all_finite,
    no_history,
    train,
    where,
)
from marginax.jaxpr.compiled import QUICK, remembered_jit
from marginax.jaxpr.concrete import is_concrete
from marginax.language import handlers
from marginax.language.primitives import as_numbers
from marginax.optim import as_optimiser

SELECTIONS = ("final", "initial")


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
        self._constraints: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

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
        self._constraints, self._shapes = dict(setup.constraints), dict(setup.shapes)
        self._check_given(init_params)

        def make(key: Any) -> tuple[dict[str, Array], SVIState]:
            return self._initial(setup, key, init_params, args, kwargs)

        if is_concrete((rng_key, args, kwargs, init_params)):
            make = remembered_jit(make, rng_key, options=QUICK)
        values, state = make(rng_key)
        self._check_initial(values)
        return state

    def _set_up(self, batch: Any, args: Any, kwargs: Any, key: Any) -> Setup:
        """What is known of guide and model for batches like this one (an empty tuple where there are none)."""
        found: list[Setup] = []

        def look(batch: Any) -> None:
            arguments = self._arguments(batch, args, kwargs)
            found.append(set_up(self.model, self.guide, *arguments, key))

        with_shapes(look, batch)
        self._constraints, self._shapes = dict(found[0].constraints), dict(found[0].shapes)
        return found[0]

    def _initial(
        self,
        setup: Setup,
        rng_key: Any,
        init_params: Mapping[str, Any] | None,
        args: Any,
        kwargs: Any,
    ) -> tuple[dict[str, Array], SVIState]:
        rng_key, guide_key, model_key = jax.random.split(rng_key, 3)
        params = {}
        for both in setup.paths:
            fixed = {**(init_params or {}), **both.path.chosen}
            trace = record(seeded(setup.guide, fixed, guide_key), args, kwargs)
            if any(site.kind == "param" for site in both.in_model.values()):
                replayed = handlers.replay(seeded(self.model, fixed, model_key), trace=trace)
                trace = record(replayed, args, kwargs) | trace
            for name, msg in trace.items():
                if msg["type"] == "param":
                    params.setdefault(name, jnp.asarray(msg["value"], _float()))
        values = {name: params[name] for name in self._constraints}
        free = {name: biject_to(self._constraints[name]).inv(v) for name, v in values.items()}
        return values, self._state_at(free, rng_key)

    def _state_at(self, free: dict[str, Array], rng_key: Any) -> SVIState:
        """Before the first step, at unconstrained parameters."""
        # A weakly typed number would be a strong one after the first steps, and all compiled twice.
        optim_state = jax.tree.map(
            lambda x: jax.lax.convert_element_type(x, x.dtype), self.optim.init(free)
        )
        return SVIState((free, optim_state), None, rng_key)

    def _shapes_of_states(self, rng_key: Any, count: int) -> SVIState:
        """What the states of so many restarts are made of."""
        shapes = {
            n: biject_to(self._constraints[n]).inverse_shape(s) for n, s in self._shapes.items()
        }
        free = {n: jax.ShapeDtypeStruct((count, *shape), _float()) for n, shape in shapes.items()}
        keys = jax.eval_shape(lambda key: jax.random.split(key, count), rng_key)
        return jax.eval_shape(jax.vmap(self._state_at), free, keys)

    def _check_given(self, init_params: Mapping[str, Any] | None, restarts: int = 1) -> None:
        if init_params is not None and not isinstance(init_params, Mapping):
            raise TypeError(
                f"SVI: init_params must be a dictionary of values by parameter, not {type(init_params).__name__}."
            )
        for name, value in (init_params or {}).items():
            if name not in self._constraints:
                known = ", ".join(repr(n) for n in self._constraints) or "none"
                raise ModelError(
                    f"init_params names '{name}', which is no parameter of guide or model; the "
                    f"parameters are: {known}."
                )
            value = as_numbers(name, value)
            shape = self._shapes[name]
            allowed = [shape] if restarts == 1 else [shape, (restarts, *shape)]
            if np.shape(value) not in allowed:
                raise ModelError(
                    f"param '{name}': its value in init_params has shape {np.shape(value)}, but the parameter "
                    f"has shape {' or, one for each restart, '.join(map(str, allowed))}."
                )
            check_value(name, self._constraints[name], value, "its value in init_params")

    def _check_state(self, state: SVIState) -> None:
        """Is a state to go on from one of these parameters?"""
        free = state.optim_state[0]
        if free.keys() != self._constraints.keys():
            raise ModelError(
                f"SVI.run: init_state has the parameters {sorted(free)}, but guide and model have "
                f"{sorted(self._constraints)}; it is from another guide or model."
            )
        for name, value in free.items():
            shape = tuple(biject_to(self._constraints[name]).inverse_shape(self._shapes[name]))
            if np.shape(value) != shape:
                raise ModelError(
                    f"param '{name}': in init_state it has shape {np.shape(value)} (unconstrained), now it has shape "
                    f"{shape}; the state is from a fit to other data or of another model."
                )

    def _check_initial(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            check_value(name, self._constraints[name], value, "its initial value")

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
            component of a mixture has no data there.
        """
        _check_run(num_steps, num_restarts, select, init_state, init_params, tolerance, every)
        self._check_names()
        args, kwargs = as_jax_arrays((args, kwargs | self.static_kwargs))
        rng_key = handlers.as_key(rng_key)
        saved = None if checkpoint is None else read_run(checkpoint)
        finished = saved is not None and saved.is_finished(num_steps)
        skip = 0 if saved is None or finished else saved.history.steps
        with _source(batches, skip) as (first_batch, source):
            about: dict[str, Any] = {}
            if checkpoint is not None:
                about = {
                    "key": np.asarray(key_numbers(rng_key)).tolist(),
                    "restarts": int(num_restarts),
                    "selection": select,
                    "stable_update": bool(stable_update),
                    "tolerance": None if tolerance is None else float(tolerance),
                    "data": fingerprint(args, kwargs),
                    "batches": batches.description() if isinstance(batches, Minibatches) else None,
                    "beginning": fingerprint(init_params, _leaves(init_state)),
                }
            if saved is not None:
                saved.check(about)
            first = self._arguments(first_batch, args, kwargs)
            setup = self._set_up(first_batch, args, kwargs, rng_key)
            if source is not None:
                setup.refuse_local_parameters()
            self._check_given(init_params, num_restarts)
            if not self._constraints:
                raise ModelError(
                    "SVI.run: neither guide nor model has a parameter, so there is nothing to train. The bound itself "
                    "is loss.loss(key, {}, model, guide, *args), and the exact answers are those of marginalize(model)."
                )
            begin = self._begin(
                setup, rng_key, num_restarts, init_state, init_params, saved, *first
            )

            def trace(batch: Any) -> Objective:
                is_first = batch is first_batch
                same = setup if is_first else self._set_up(batch, args, kwargs, rng_key)

                def loss(free: Any, key: Any, batch: Any) -> Any:
                    params = constrain(self._constraints, free)
                    return same.loss(self.loss, params, key, *self._arguments(batch, args, kwargs))

                return traced(loss, begin.states, batch)

            objective = trace(first_batch)
            initial = None if saved is None else saved.initial_losses
            if saved is None and select == "initial" and num_restarts > 1:
                initial = first_losses(objective, begin.states, first_batch)
                chosen = pick(begin.states, first_finite(initial), as_batch=True)
                begin = replace(begin, states=chosen, history=no_history(1, self._constraints))
            validity = look_at_parameters(objective, begin.states, first_batch)
            fault = validity(begin.states)
            if fault is not None:
                raise ModelError(f"where SVI begins: {fault}")
            program, traced_program = training_program(
                trace,
                objective,
                self.optim,
                self._constraints,
                stable_update,
                begin.states,
                first_batch,
            )
            if checkpoint is not None:
                about["program"] = program_fingerprint(traced_program)
            if saved is not None:
                saved.check(about)

            def save(now: Trained) -> None:
                if checkpoint is not None:
                    write_run(checkpoint, about, now, initial)

            if saved is None:
                save(begin)  # what is wrong with the file shows now, not after the first steps
            now = begin
            if not finished:
                is_noisy = source is not None or not objective.is_deterministic
                searches = searches_along_lines(begin.states.optim_state[1])
                window, tolerance = criterion(tolerance, is_noisy, searches)
                rules = Rules(num_steps, window, tolerance, is_noisy, stable_update, every)
                with progress("SVI", num_steps, progress_bar) as bar:
                    now = train(program, begin, rules, source, bar, save)
            batch = now.batch or first_batch
        return self._result(
            setup,
            now,
            initial,
            keep_restarts,
            stable_update,
            validity(now.states),
            *self._arguments(batch, args, kwargs),
        )

    def _check_names(self) -> None:
        """An option of `run` would not reach an argument of the same name."""
        options = inspect.signature(self.run).parameters.values()
        own = {p.name for p in options if p.kind is p.KEYWORD_ONLY} - self.static_kwargs.keys()
        for fn in (self.model, self.guide):
            try:
                names = inspect.signature(fn).parameters
            except (TypeError, ValueError):  # there are functions that do not tell
                continue
            for name in own & names.keys():
                raise ValueError(
                    f"SVI.run: the model or guide has an argument '{name}', which is an option of SVI.run. Rename "
                    f"it, or give it when SVI is made: SVI(model, guide, optim, loss, {name}=...)."
                )

    @staticmethod
    def _arguments(batch: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The model's arguments, with those of a batch."""
        more, named = batch or ((), {})
        return (*args, *more), {**kwargs, **named}

    def _begin(
        self,
        setup: Setup,
        rng_key: Any,
        count: int,
        init_state: Any,
        init_params: Any,
        saved: SavedRun | None,
        args: Any,
        kwargs: Any,
    ) -> Trained:
        """The states of all restarts, to begin with or to go on from."""
        given = {name: jnp.asarray(value) for name, value in (init_params or {}).items()}
        one_each = {n: 0 if v.ndim > len(self._shapes[n]) else None for n, v in given.items()}

        def make(key: Any) -> tuple[dict[str, Array], SVIState]:
            def begin(key: Any, given: Any) -> tuple[dict[str, Array], SVIState]:
                return self._initial(setup, key, given, args, kwargs)

            return jax.vmap(begin, (0, one_each))(jax.random.split(key, count), given)

        if saved is not None:
            states = saved.state.fill(self._shapes_of_states(rng_key, saved.restarts))
            return Trained(states, saved.params, saved.history, saved.stopped)
        if init_state is None:
            values, states = remembered_jit(make, rng_key, options=QUICK)(rng_key)
            self._check_initial(values)
            return Trained(states, {}, no_history(count, self._constraints), "")
        if isinstance(init_state, SavedState):
            shapes = self._shapes_of_states(rng_key, 1)
            one = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), shapes)
            init_state = init_state.fill(one)
        self._check_state(init_state)
        free, optim_state = init_state.optim_state
        init_state = init_state._replace(optim_state=(free, forget_the_last_search(optim_state)))
        states = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], init_state)
        return Trained(states, {}, no_history(1, self._constraints), "")

    def _result(
        self,
        setup: Setup,
        now: Trained,
        initial_losses: np.ndarray | None,
        keep: bool,
        stable: bool,
        fault: ModelError | None,
        args: Any,
        kwargs: Any,
    ) -> SVIRunResult:
        """Of the best restart; `fault` is what is invalid where the restarts have ended."""
        history = now.history
        ends = ranked(history.losses, now.params if keep else None, stable)
        best = ends.best
        state, params = pick((now.states, dict(now.params)), best)
        losses = history.losses[best].copy()  # not a view of those of all restarts
        finite = np.isfinite(losses)
        if not finite.any() or not (stable or finite.all()):
            _, key = jax.random.split(state.rng_key)
            step = int(np.argmin(finite))
            raise not_finite(
                self.model, self.guide, self.get_params(state), key, step, args, kwargs
            )
        if fault is not None:
            warnings.warn(
                f"where SVI has ended: {fault} The losses of this run mean nothing.",
                InvalidParameterWarning,
                stacklevel=3,
            )
        elif setup.has_cuts:
            self._check_cuts(params, state.rng_key, args, kwargs)
        restarts, use = None, {}
        if len(history.losses) > 1:
            restarts = ends
            use = component_use(
                self.model, setup.guide, params, state.rng_key, args, kwargs, setup.paths[0]
            )
            warn_if_stuck(restarts)
            warn_if_empty(use)
        norms = {name: norm[best].copy() for name, norm in history.gradient_norms.items()}
        evaluations = int(history.evaluations[best])
        return SVIRunResult(
            params, state, losses, norms, now.stopped, evaluations, restarts, initial_losses, use
        )

    def _check_cuts(self, params: Mapping[str, Any], key: Any, args: Any, kwargs: Any) -> None:
        """At what the guide says now."""
        model, guide = (seeded(fn, params, key) for fn in (self.model, self.guide))
        trace = record(guide, args, kwargs)
        drawn = [m for m in trace.values() if m["type"] == "sample" and not m["is_observed"]]
        draws = {m["name"]: jnp.asarray(m["value"])[None] for m in drawn}
        check_cuts(know(model, args, kwargs), draws)


@contextmanager
def _source(batches: Iterable[Any] | None, skip: int) -> Iterator[tuple[Any, Iterator[Any] | None]]:
    """The first batch (none: an empty tuple), and an iterator of all that are still to come."""
    if batches is None:
        yield (), None
        return
    with prefetched(batches, skip=skip) as reader:
        first = next(reader, None)
        if first is None:
            raise ValueError(
                f"SVI.run: batches has none left after the {skip} that the checkpoint has seen; give the same "
                "ones again, from the first."
            )

        def from_first() -> Iterator[Any]:
            yield first
            yield from reader

        yield first, from_first()


def _leaves(init_state: Any) -> Any:
    """What a state to begin from consists of, however it is held."""
    if init_state is None:
        return None
    return (
        dict(init_state.leaves)
        if isinstance(init_state, SavedState)
        else storage.flatten(init_state)
    )


def _check_run(
    num_steps: Any,
    num_restarts: Any,
    select: str,
    init_state: Any,
    init_params: Any,
    tolerance: Any,
    every: Any,
) -> None:
    for name, value in (("num_steps", num_steps), ("num_restarts", num_restarts), ("every", every)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"SVI.run: {name} must be an integer >= 1, not {value!r}.")
    if select not in SELECTIONS:
        raise ValueError(f"SVI.run: select must be one of {SELECTIONS}, not {select!r}.")
    is_number = isinstance(tolerance, int | float | np.number)
    if tolerance is not None and not (is_number and 0 <= tolerance < np.inf):
        raise ValueError(f"SVI.run: tolerance must be a number of nats >= 0, not {tolerance!r}.")
    if init_state is not None and not isinstance(init_state, SVIState | SavedState):
        raise TypeError(
            f"SVI.run: init_state must be the state of a result, result.state, not {type(init_state).__name__}."
        )
    if init_state is not None and num_restarts > 1:
        raise ValueError("SVI.run: init_state goes on from one state; leave num_restarts out.")
    if init_state is not None and init_params is not None:
        raise ValueError("SVI.run: init_state has the parameters; leave init_params out.")


def _float() -> Any:
    return jnp.result_type(float)
