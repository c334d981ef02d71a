"""What SVI minimises, traced once: a function of the unconstrained parameters and a random key.

Traced, it can be asked whether the key matters at all (`dependences`). With point estimates and exact
sums it does not: the objective is deterministic, so that line searches are allowed and convergence can be
told from the loss itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.extend import core as jex_core
from numpyro.distributions.transforms import biject_to

from marginax.errors import ModelError
from marginax.jaxpr.compiled import hoisted
from marginax.jaxpr.dependence import dependences

Free = dict[str, Array]
"""Unconstrained parameters by name."""


@dataclass(frozen=True)
class Objective:
    """A traced loss."""

    loss: Callable[[Free, Any, Any], Array]
    """From unconstrained parameters, a random key and a batch of data (or none) to the loss, shape ()."""
    validity: Callable[[Free, Any, Any], Any]
    """From the same to which parameters of distributions are valid."""
    is_deterministic: bool
    """Whether the key makes no difference."""
    numbers: int
    """How many it reads beside its arguments: those of the data."""


def constrain(constraints: Mapping[str, Any], free: Mapping[str, Array]) -> dict[str, Array]:
    """Unconstrained parameters as they are meant."""
    return {name: biject_to(constraints[name])(value) for name, value in free.items()}


def make_objective(loss: Callable[[Free, Any, Any], tuple[Array, Any]], *example: Any) -> Objective:
    """Trace a loss.

    Parameters
    ----------
    loss : callable
        Of unconstrained parameters, a random key and a batch; also which parameters are valid.
    *example
        Such arguments, or their shapes.
    """
    whole, shapes = jax.make_jaxpr(loss, return_shape=True)(*example)
    structure = jax.tree.structure(shapes[1])
    alone, rest = without_others(whole, slice(1)), without_others(whole, slice(1, None))

    def value(*arguments: Any) -> Array:
        return jex_core.jaxpr_as_fun(alone)(*jax.tree.leaves(arguments))[0]

    def validity(*arguments: Any) -> Any:
        found = jex_core.jaxpr_as_fun(rest)(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(structure, found)

    traced = hoisted(value, *example)
    sizes = [len(jax.tree.leaves(argument)) for argument in example]
    of_key = range(sizes[0], sizes[0] + sizes[1])
    variables = traced.jaxpr.invars
    paths = [
        {"key": tuple(range(len(v.aval.shape)))} if i in of_key else {}  # pyright: ignore
        for i, v in enumerate(variables)
    ]
    (found,) = dependences(traced.jaxpr, paths)
    numbers = sum(np.size(array) for array in traced.consts)
    return Objective(traced.call, validity, "key" not in found, numbers)


def without_others(program: jex_core.ClosedJaxpr, which: slice) -> jex_core.ClosedJaxpr:
    """The part of a program that some of its outputs need."""
    whole = program.jaxpr
    outvars = whole.outvars[which]
    needed = {atom for atom in outvars if isinstance(atom, jex_core.Var)}
    steps = []
    for eqn in reversed(whole.eqns):
        if eqn.effects or not needed.isdisjoint(eqn.outvars):
            steps.append(eqn)
            needed.update(atom for atom in eqn.invars if isinstance(atom, jex_core.Var))
    kept = [(v, c) for v, c in zip(whole.constvars, program.consts, strict=True) if v in needed]
    about = whole.debug_info.with_unknown_names()
    part = jex_core.Jaxpr(
        [v for v, _ in kept], whole.invars, outvars, steps[::-1], whole.effects, about
    )
    return jex_core.ClosedJaxpr(part, [c for _, c in kept])


def searches_along_lines(optim_state: Any) -> bool:
    """Whether an optimiser evaluates the objective by itself, at several points of a line."""
    kinds = (optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState)
    nodes = jax.tree.leaves(optim_state, is_leaf=lambda node: isinstance(node, kinds))
    return any(isinstance(node, kinds) for node in nodes)


def check_line_search(optim_state: Any, objective: Objective, in_batches: bool) -> None:
    """Refuse to search along lines of an objective that changes from one evaluation to the next."""
    if not searches_along_lines(optim_state) or (objective.is_deterministic and not in_batches):
        return
    why = (
        "the data come in batches"
        if in_batches
        else "the guide or a subsampled plate draws at random"
    )
    raise ModelError(
        "SVI: this optimiser searches along lines, for which the objective must be the same at every "
        f"evaluation, but {why}.",
        advice=(
            "Take AutoDelta and the whole data, or an optimiser that bears noise, such as optax.adam(0.01)."
        ),
    )


def forget_the_last_search(optim_state: Any) -> Any:
    """The state without the loss and gradient that it may hold: the data may be others now."""
    if not searches_along_lines(optim_state) or optax.tree.get(optim_state, "value") is None:
        return optim_state
    value = optax.tree.get(optim_state, "value")
    return optax.tree.set(optim_state, value=jnp.full_like(value, jnp.inf))


def gradient_step(
    optim: optax.GradientTransformationExtraArgs,
    loss: Callable[[Free], Array],
    free: Free,
    optim_state: Any,
    same_data: bool = False,
) -> tuple[Free, Any, Array, Free, Array]:
    """One step of an optimiser.

    Parameters
    ----------
    optim : optax.GradientTransformationExtraArgs
        The optimiser.
    loss : callable
        Of unconstrained parameters.
    free, optim_state
        Before the step.
    same_data : bool
        Whether the step before was one of the same loss, so that what its search found at its end, which is
        where this step begins, need not be evaluated again.

    Returns
    -------
    free, optim_state
        After it.
    loss, gradient
        Before it.
    evaluations : int array, shape ()
        How many times the loss and its gradient were evaluated.
    """
    evaluations = jnp.asarray(1)
    searches = searches_along_lines(optim_state)
    if searches and same_data and optax.tree.get(optim_state, "grad") is not None:
        value, gradient = optax.value_and_grad_from_state(loss)(free, state=optim_state)
        evaluations = jnp.where(jnp.isfinite(optax.tree.get(optim_state, "value")), 0, 1)
    else:
        value, gradient = jax.value_and_grad(loss)(free)
    updates, new_state = optim.update(
        gradient, optim_state, free, value=value, grad=gradient, value_fn=loss
    )
    if searches and (info := optax.tree.get(new_state, "info")) is not None:
        evaluations = evaluations + info.num_linesearch_steps
    return optax.apply_updates(free, updates), new_state, value, gradient, evaluations  # pyright: ignore
