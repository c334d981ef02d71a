"""Where a run of SVI begins: the states of all restarts, new, given, or read from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from numpyro.distributions.transforms import biject_to

from marginax.infer.svi.checkpoint import SavedRun, SavedState
from marginax.infer.svi.checks import check_initial, check_state
from marginax.infer.svi.given import record, seeded
from marginax.infer.svi.objective import forget_the_last_search
from marginax.infer.svi.options import Options
from marginax.infer.svi.setup import Setup
from marginax.infer.svi.training import SVIState, Trained, no_history
from marginax.jaxpr.compiled import QUICK, remembered_jit
from marginax.language import handlers

Optimiser = optax.GradientTransformationExtraArgs


def new_start(
    setup: Setup,
    optim: Optimiser,
    rng_key: Any,
    init_params: Mapping[str, Any] | None,
    args: Any,
    kwargs: Any,
) -> tuple[dict[str, Array], SVIState]:
    """The parameters as guide and model state them, and the state before the first step.

    Parameters
    ----------
    setup : Setup
        What is known of guide and model.
    optim : optax.GradientTransformationExtraArgs
        The optimiser.
    rng_key : PRNG key
        For random initial values, and for the steps after.
    init_params : mapping, optional
        Constrained values of some parameters, instead of their own.
    args, kwargs
        Arguments of model and guide.
    """
    rng_key, guide_key, model_key = jax.random.split(rng_key, 3)
    params = {}
    for both in setup.paths:
        fixed = {**(init_params or {}), **both.path.chosen}
        trace = record(seeded(setup.guide, fixed, guide_key), args, kwargs)
        if any(site.kind == "param" for site in both.in_model.values()):
            replayed = handlers.replay(seeded(setup.model, fixed, model_key), trace=trace)
            trace = record(replayed, args, kwargs) | trace
        for name, msg in trace.items():
            if msg["type"] == "param":
                params.setdefault(name, jnp.asarray(msg["value"], _float()))
    values = {name: params[name] for name in setup.constraints}
    free = {name: biject_to(setup.constraints[name]).inv(v) for name, v in values.items()}
    return values, _state_at(optim, free, rng_key)


def _state_at(optim: Optimiser, free: dict[str, Array], rng_key: Any) -> SVIState:
    """Before the first step, at unconstrained parameters."""
    # A weakly typed number would be a strong one after the first steps, and all compiled twice.
    optim_state = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), optim.init(free))
    return SVIState((free, optim_state), None, rng_key)


def _shapes_of_states(setup: Setup, optim: Optimiser, rng_key: Any, count: int) -> SVIState:
    """What the states of so many restarts are made of."""
    shapes = {n: biject_to(setup.constraints[n]).inverse_shape(s) for n, s in setup.shapes.items()}
    free = {n: jax.ShapeDtypeStruct((count, *shape), _float()) for n, shape in shapes.items()}
    keys = jax.eval_shape(lambda key: jax.random.split(key, count), rng_key)
    return jax.eval_shape(jax.vmap(partial(_state_at, optim)), free, keys)


def all_starts(
    setup: Setup, optim: Optimiser, rng_key: Any, options: Options, args: Any, kwargs: Any
) -> Trained:
    """The states of all restarts before the first step.

    Parameters
    ----------
    setup, optim, rng_key, args, kwargs
        See `new_start`.
    options : Options
        Those of the run.

    Raises
    ------
    ModelError
        When a parameter begins outside of its constraint, or a given state is that of something else.
    """
    if options.init_state is not None:
        return _start_at(setup, optim, rng_key, options.init_state)
    count = options.num_restarts
    given = {name: jnp.asarray(value) for name, value in (options.init_params or {}).items()}
    one_each = {n: 0 if v.ndim > len(setup.shapes[n]) else None for n, v in given.items()}

    def begin(key: Any, given: Any) -> tuple[dict[str, Array], SVIState]:
        return new_start(setup, optim, key, given, args, kwargs)

    def make(key: Any) -> tuple[dict[str, Array], SVIState]:
        return jax.vmap(begin, (0, one_each))(jax.random.split(key, count), given)

    values, states = remembered_jit(make, rng_key, options=QUICK)(rng_key)
    check_initial(setup, values)
    return Trained(states, {}, no_history(count, setup.constraints), "")


def _start_at(
    setup: Setup, optim: Optimiser, rng_key: Any, state: SVIState | SavedState
) -> Trained:
    """A state that is given, as the only restart."""
    if isinstance(state, SavedState):
        shapes = _shapes_of_states(setup, optim, rng_key, 1)
        one = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), shapes)
        filled: SVIState = state.fill(one)
        state = filled
    check_state(setup, state)
    free, optim_state = state.optim_state
    fresh = state._replace(optim_state=(free, forget_the_last_search(optim_state)))
    states = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], fresh)
    return Trained(states, {}, no_history(1, setup.constraints), "")


def saved_start(setup: Setup, optim: Optimiser, rng_key: Any, saved: SavedRun) -> Trained:
    """Where a checkpoint stands."""
    states = saved.state.fill(_shapes_of_states(setup, optim, rng_key, saved.restarts))
    return Trained(states, saved.params, saved.history, saved.stopped)


def _float() -> Any:
    return jnp.result_type(float)
