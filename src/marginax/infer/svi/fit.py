"""A whole run of SVI, from what is known of guide and model to its result.

The pieces: what is found out (`setup`), where it begins (`starts`), what is minimised (`objective`), the
compiled loop (`programs`, `training`), checkpoints (`checkpoint`), and what has become of it (`outcome`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import optax

from marginax.errors import ModelError
from marginax.infer.batches import prefetched
from marginax.infer.running.fingerprint import program_fingerprint
from marginax.infer.running.progress import progress
from marginax.infer.svi.checkpoint import read_run, write_run
from marginax.infer.svi.checks import check_given
from marginax.infer.svi.convergence import criterion
from marginax.infer.svi.objective import Objective, constrain, searches_along_lines
from marginax.infer.svi.options import Options
from marginax.infer.svi.outcome import outcome
from marginax.infer.svi.programs import (
    first_losses,
    look_at_parameters,
    pick,
    traced,
    training_program,
    with_shapes,
)
from marginax.infer.svi.restarts import first_finite
from marginax.infer.svi.results import SVIRunResult
from marginax.infer.svi.setup import Setup, set_up
from marginax.infer.svi.starts import all_starts, saved_start
from marginax.infer.svi.training import Rules, SVIState, Trained, no_history, train


@dataclass(frozen=True)
class Task:
    """What `SVI` is made of."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    optim: optax.GradientTransformationExtraArgs
    loss: Any

    def set_up(self, batch: Any, args: Any, kwargs: Any, key: Any) -> Setup:
        """What is known of guide and model for batches like this one (an empty tuple where there are none)."""
        found: list[Setup] = []

        def look(batch: Any) -> None:
            args_of_all = arguments(batch, args, kwargs)
            found.append(set_up(self.model, self.guide, *args_of_all, key))

        with_shapes(look, batch)
        return found[0]

    def objectives(
        self,
        setup: Setup,
        first_batch: Any,
        states: SVIState,
        rng_key: Any,
        args: Any,
        kwargs: Any,
    ) -> Callable[[Any], Objective]:
        """From a batch to what is minimised, for batches like it.

        Parameters
        ----------
        setup : Setup
            For batches like the first.
        first_batch
            That one.
        states : SVIState
            Such as it will be minimised from.
        rng_key, args, kwargs
            Of the run.

        Warns
        -----
        UserWarning
            Once, from what is returned, where a loss of the user's own goes with a guide and a model whose parameters
            cannot be looked at.
        """
        unchecked: list[Exception] = []

        def trace(batch: Any) -> Objective:
            is_first = batch is first_batch
            same = setup if is_first else self.set_up(batch, args, kwargs, rng_key)
            is_told = bool(unchecked)

            def loss(free: Any, key: Any, batch: Any) -> Any:
                params = constrain(same.constraints, free)
                arguments_now = arguments(batch, args, kwargs)
                return same.loss(self.loss, params, key, *arguments_now, unchecked)

            objective = traced(loss, states, batch)
            if unchecked and not is_told:
                warnings.warn(
                    "SVI.run: nobody looks whether the parameters of distributions are valid, for TraceEnum_ELBO, "
                    f"which would, refuses the guide and model of this loss: {unchecked[0]} Parameters that are "
                    "out of range may then give a loss that means nothing.",
                    stacklevel=4,
                )
            return objective

        return trace


def fit(
    task: Task, rng_key: Any, args: Any, kwargs: Any, options: Options
) -> tuple[SVIRunResult, Setup]:
    """Run it, as `SVI.run` says.

    Parameters
    ----------
    task : Task
        What is fitted.
    rng_key : PRNG key
        For initial values and stochastic losses.
    args, kwargs
        Arguments of model and guide, arrays as JAX's.
    options : Options
        Checked.

    Returns
    -------
    SVIRunResult
        What has come out.
    Setup
        What is known of guide and model.
    """
    path = options.checkpoint
    saved = None if path is None else read_run(path)
    finished = saved is not None and saved.is_finished(options.num_steps)
    skip = 0 if saved is None or finished else saved.history.steps
    with _source(options.batches, skip) as (first_batch, source):
        about = {} if path is None else options.describe(rng_key, args, kwargs)
        if saved is not None:
            saved.check(about)
        first = arguments(first_batch, args, kwargs)
        setup = task.set_up(first_batch, args, kwargs, rng_key)
        if source is not None:
            setup.refuse_local_parameters()
        check_given(setup, options.init_params, options.num_restarts)
        if not setup.constraints:
            raise ModelError(
                "SVI.run: neither guide nor model has a parameter, so there is nothing to train. The bound itself "
                "is loss.loss(key, {}, model, guide, *args), and the exact answers are those of marginalize(model)."
            )
        if saved is None:
            begin = all_starts(setup, task.optim, rng_key, options, *first)
        else:
            begin = saved_start(setup, task.optim, rng_key, saved)
        trace = task.objectives(setup, first_batch, begin.states, rng_key, args, kwargs)
        objective = trace(first_batch)
        initial = None if saved is None else saved.initial_losses
        if saved is None and options.select == "initial" and options.num_restarts > 1:
            initial = first_losses(objective, begin.states, first_batch)
            chosen = pick(begin.states, first_finite(initial), as_batch=True)
            begin = replace(begin, states=chosen, history=no_history(1, setup.constraints))
        validity = look_at_parameters(objective, begin.states, first_batch)
        fault = validity(begin.states)
        if fault is not None:
            raise fault.found("where SVI begins")
        program, traced_program = training_program(
            trace,
            objective,
            task.optim,
            setup.constraints,
            options.stable_update,
            begin.states,
            first_batch,
        )
        if path is not None:
            about["program"] = program_fingerprint(traced_program)
        if saved is not None:
            saved.check(about)

        def save(now: Trained) -> None:
            if path is not None:
                write_run(path, about, now, initial)

        if saved is None:
            save(begin)  # what is wrong with the file shows now, not after the first steps
        now = begin
        if not finished:
            rules = _rules(options, objective, begin.states, in_batches=source is not None)
            with progress("SVI", options.num_steps, options.progress_bar) as bar:
                now = train(program, begin, rules, source, bar, save)
        last = arguments(now.batch or first_batch, args, kwargs)
    return outcome(setup, options, now, initial, validity(now.states), *last), setup


def arguments(batch: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The model's arguments, with those of a batch."""
    more, named = batch or ((), {})
    return (*args, *more), {**kwargs, **named}


def _rules(options: Options, objective: Objective, states: SVIState, in_batches: bool) -> Rules:
    is_noisy = in_batches or not objective.is_deterministic
    searches = searches_along_lines(states.optim_state[1])
    window, tolerance = criterion(options.tolerance, is_noisy, searches)
    return Rules(
        options.num_steps, window, tolerance, is_noisy, options.stable_update, options.every
    )


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
