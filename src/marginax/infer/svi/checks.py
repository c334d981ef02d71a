"""What a run of SVI is given: options, initial values and states are refused here where they make no sense."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpyro.distributions.transforms import biject_to

from marginax.density.validate import check_value
from marginax.errors import ModelError
from marginax.infer.svi.checkpoint import SavedState
from marginax.infer.svi.options import Options
from marginax.infer.svi.setup import Setup
from marginax.infer.svi.training import SVIState
from marginax.language.primitives import as_numbers

SELECTIONS = ("final", "initial")


def check_options(options: Options) -> None:
    """Refuse options of `SVI.run` that are none."""
    counts = {
        "num_steps": options.num_steps,
        "num_restarts": options.num_restarts,
        "every": options.every,
    }
    for name, value in counts.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"SVI.run: {name} must be an integer >= 1, not {value!r}.")
    if options.select not in SELECTIONS:
        raise ValueError(f"SVI.run: select must be one of {SELECTIONS}, not {options.select!r}.")
    tolerance, state = options.tolerance, options.init_state
    is_number = isinstance(tolerance, int | float | np.number)
    if tolerance is not None and not (is_number and 0 <= tolerance < np.inf):
        raise ValueError(f"SVI.run: tolerance must be a number of nats >= 0, not {tolerance!r}.")
    if state is None:
        return
    if not isinstance(state, SVIState | SavedState):
        raise TypeError(
            f"SVI.run: init_state must be the state of a result, result.state, not {type(state).__name__}."
        )
    if options.num_restarts > 1:
        raise ValueError("SVI.run: init_state goes on from one state; leave num_restarts out.")
    if options.init_params is not None:
        raise ValueError("SVI.run: init_state has the parameters; leave init_params out.")


def check_names(
    run: Callable[..., Any], given: Collection[str], functions: Collection[Callable[..., Any]]
) -> None:
    """Refuse an option of `SVI.run` with the name of an argument of model or guide, which it would not reach.

    Parameters
    ----------
    run : callable
        `SVI.run`.
    given : collection of str
        The arguments that SVI was made with.
    functions : collection of callable
        Model and guide.
    """
    options = inspect.signature(run).parameters.values()
    own = {p.name for p in options if p.kind is p.KEYWORD_ONLY}.difference(given)
    for fn in functions:
        try:
            names = inspect.signature(fn).parameters
        except (TypeError, ValueError):  # there are functions that do not tell
            continue
        for name in own & names.keys():
            raise ValueError(
                f"SVI.run: the model or guide has an argument '{name}', which is an option of SVI.run. Rename "
                f"it, or give it when SVI is made: SVI(model, guide, optim, loss, {name}=...)."
            )


def check_given(setup: Setup, init_params: Mapping[str, Any] | None, restarts: int = 1) -> None:
    """Refuse initial values that are none of these parameters'."""
    if init_params is not None and not isinstance(init_params, Mapping):
        raise TypeError(
            f"SVI: init_params must be a dictionary of values by parameter, not {type(init_params).__name__}."
        )
    for name, value in (init_params or {}).items():
        if name not in setup.constraints:
            known = ", ".join(repr(n) for n in setup.constraints) or "none"
            raise ModelError(
                f"init_params names '{name}', which is no parameter of guide or model; the "
                f"parameters are: {known}."
            )
        value = as_numbers(name, value)
        shape = setup.shapes[name]
        allowed = [shape] if restarts == 1 else [shape, (restarts, *shape)]
        if np.shape(value) not in allowed:
            raise ModelError(
                f"its value in init_params has shape {np.shape(value)}, but the parameter "
                f"has shape {' or, one for each restart, '.join(map(str, allowed))}.",
                site=name,
                kind="param",
            )
        check_value(name, setup.constraints[name], value, "its value in init_params")


def check_state(setup: Setup, state: SVIState) -> None:
    """Refuse a state that is none of these parameters'."""
    free = state.optim_state[0]
    if free.keys() != setup.constraints.keys():
        raise ModelError(
            f"SVI.run: init_state has the parameters {sorted(free)}, but guide and model have "
            f"{sorted(setup.constraints)}; it is from another guide or model."
        )
    for name, value in free.items():
        shape = tuple(biject_to(setup.constraints[name]).inverse_shape(setup.shapes[name]))
        if np.shape(value) != shape:
            raise ModelError(
                f"in init_state it has shape {np.shape(value)} (unconstrained), now it has shape "
                f"{shape}; the state is from a fit to other data or of another model.",
                site=name,
                kind="param",
            )


def check_initial(setup: Setup, values: Mapping[str, Any]) -> None:
    """Refuse parameters that begin outside of their constraints."""
    for name, value in values.items():
        check_value(name, setup.constraints[name], value, "its initial value")
