"""What `SVI.run` returns, and how it is kept in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

import marginax.storage as storage
from marginax.infer.svi.checkpoint import SavedState
from marginax.infer.svi.restarts import Restarts

KIND = "svi result"


class SVIRunResult(NamedTuple):
    """What `SVI.run` returns."""

    params: dict[str, Array]
    """The parameters by name, constrained."""
    state: Any
    """Where to go on from, with ``init_state=``."""
    losses: np.ndarray
    """The loss before each step, shape (steps,)."""
    gradient_norms: dict[str, np.ndarray]
    """For each parameter the norm of its (unconstrained) gradient at each step, shape (steps,)."""
    stopped: str = "num_steps"
    """Why the run ended: "num_steps", "converged", "interrupted" or "no more batches"."""
    evaluations: int = 0
    """How often the loss and its gradient were evaluated; more than the steps where lines are searched."""
    restarts: Restarts | None = None
    """What all restarts did, if several were trained. ``print(result.restarts)`` says it in words."""
    initial_losses: np.ndarray | None = None
    """The first losses of all starts, shape (num_restarts,), where the best was selected by them."""
    component_use: Mapping[str, np.ndarray] = MappingProxyType({})
    """With several restarts: for each categorical variable in a plate or scan that the guide leaves out, the
    expected number of elements in each of its values given what the guide draws, shape (number of values,)."""


def save(path: str | os.PathLike[str], result: SVIRunResult) -> None:
    """Write a fitted result into a file: arrays and JSON, no pickle; replaced in one step.

    Parameters
    ----------
    path : path
        The file.
    result : SVIRunResult
        What `SVI.run` returned.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import jax
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     mx.sample("x", dist.Normal(3.0, 1.0))
    >>> guide = mx.infer.autoguide.AutoDelta(model)
    >>> svi = mx.infer.SVI(model, guide, "lbfgs", mx.infer.TraceEnum_ELBO())
    >>> result = svi.run(jax.random.key(0), 50, progress_bar=False)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "fit.mx"
    >>> mx.infer.save(path, result)
    >>> round(float(mx.infer.load(path).params["x_auto_loc"]), 3)
    3.0
    """
    if not isinstance(result, SVIRunResult):
        raise TypeError(
            f"save: the second argument must be what SVI.run returned, not {type(result).__name__}."
        )
    state = result.state
    leaves = state.leaves if isinstance(state, SavedState) else storage.flatten(state)
    arrays = storage.prefixed("state:", leaves) | storage.prefixed("params:", result.params)
    arrays |= storage.prefixed("norms:", result.gradient_norms) | {"losses": result.losses}
    arrays |= storage.prefixed("use:", result.component_use)
    if result.restarts is not None:
        arrays |= {"restarts": result.restarts.losses, "final": result.restarts.final}
        arrays |= {"order": result.restarts.order, "reached best": result.restarts.reached_best}
        arrays |= storage.prefixed("restarts:", result.restarts.params or {})
    if result.initial_losses is not None:
        arrays["initial losses"] = result.initial_losses
    about = {"kind": KIND, "stopped": result.stopped, "evaluations": result.evaluations}
    storage.write(path, arrays, about)


def load(path: str | os.PathLike[str]) -> SVIRunResult:
    """Read a result that `save` has written.

    Parameters
    ----------
    path : path
        The file; it may come from anyone, for nothing in it is executed.

    Returns
    -------
    SVIRunResult
        Its ``state`` is a `SavedState`: it serves as ``init_state=`` of `SVI.run` with the same model, guide and
        optimiser. Its parameters are ``params``.

    Raises
    ------
    FileNotFoundError
        When there is none.
    StorageError
        When it is damaged, or holds something else.
    """
    arrays, about = storage.read(path)
    if about.get("kind") != KIND:
        raise storage.StorageError(
            f"{os.fspath(path)}: it holds '{about.get('kind')}', not '{KIND}'."
        )
    try:
        return _result(arrays, about)
    except KeyError as error:
        raise storage.StorageError(f"{os.fspath(path)}: it lacks its {error}.") from error


def _result(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> SVIRunResult:
    restarts = None
    if "restarts" in arrays:
        restarts = Restarts(
            losses=arrays["restarts"],
            final=arrays["final"],
            order=arrays["order"],
            reached_best=arrays["reached best"],
            params=storage.group("restarts:", arrays) or None,
        )
    return SVIRunResult(
        params={
            name: jnp.asarray(value) for name, value in storage.group("params:", arrays).items()
        },
        state=SavedState(storage.group("state:", arrays)),
        losses=arrays["losses"],
        gradient_norms=storage.group("norms:", arrays),
        stopped=about["stopped"],
        evaluations=about["evaluations"],
        restarts=restarts,
        initial_losses=arrays.get("initial losses"),
        component_use=storage.group("use:", arrays),
    )
