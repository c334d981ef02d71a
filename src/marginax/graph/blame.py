"""Find the latent value that a model uses where Python needs one number, and say what to write.

A latent value is abstract while a model is traced: it has a shape and a type but no number. What
JAX says when a model asks for the number (`if z:`, `int(z)`, `jnp.zeros(z)`, `list[z]`) names no
site. The site is found by experiment: the one that alone, all others being numbers, makes it fail.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from marginax.errors import ModelError
from marginax.graph.known_data import NEEDS_A_NUMBER

_ABOUT_A_NUMBER = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)

_HERE = str(Path(__file__).parents[1])
_LIBRARIES = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")})


def blame(
    run: Callable[[dict[str, Any]], Any],
    examples: Mapping[str, Any],
    is_summed_out: Callable[[str], bool],
    error: Exception,
) -> ModelError | None:
    """The error to raise instead, or None if no latent value is to blame.

    Parameters
    ----------
    run : callable
        Runs the model with the given latent values.
    examples : mapping of arrays
        A number for each latent value.
    is_summed_out : callable
        Whether a latent value, by name, is to be summed out.
    error : Exception
        What went wrong.
    """
    name = first_at_fault(run, examples)
    return None if name is None else ModelError(_message(name, is_summed_out(name), error))


def first_at_fault(run: Callable[[dict[str, Any]], Any], examples: Mapping[str, Any]) -> str | None:
    """The first value that alone, all others being numbers, makes a run fail when it is traced."""
    if _fails(run, examples):
        return None
    return next((name for name in examples if _fails(run, examples, name)), None)


def _fails(
    run: Callable[[dict[str, Any]], Any], examples: Mapping[str, Any], traced: str | None = None
) -> bool:
    def attempt(values: dict[str, Any]) -> None:
        run({**examples, **values})

    try:
        with jax.ensure_compile_time_eval():
            jax.eval_shape(attempt, {} if traced is None else {traced: examples[traced]})
    except NEEDS_A_NUMBER:  # the failure is the experiment's result
        return True
    return False


def unnamed(error: Exception) -> ModelError | None:
    """The error to raise where no site alone is to blame, by the line; None if it is about something else."""
    is_about_a_number = isinstance(error, _ABOUT_A_NUMBER) or "Tracer" in str(error)
    if not is_about_a_number:
        return None
    return ModelError(
        f"the model needs one number{_where(error)}, for something that follows from a latent value (or, in a scan, "
        f"from what is carried or from a step's data). {_advice(error)}"
    )


def _message(name: str, is_summed_out: bool, error: Exception) -> str:
    what = "summed out over all its values at once" if is_summed_out else "traced"
    return (
        f"site '{name}': the model uses its value where Python needs one number (an `if`, `int()`, a "
        "loop bound, a shape, the index of a list or of a NumPy array, a boolean index)"
        f"{_where(error)}, but the variable is {what}. {_advice(error)}"
    )


def _advice(error: Exception) -> str:
    if isinstance(error, jax.errors.NonConcreteBooleanIndexError):
        write = (
            "How many elements `x[condition]` has would depend on the value. Keep them all and make those count that "
            "are meant: jnp.sum(jnp.where(condition, x, 0.0)), or handlers.mask(mask=condition) around a site."
        )
    else:
        write = (
            "Write jnp.where(condition, a, b) for an `if`, jnp.asarray(table)[z] for a choice among "
            "values, and take shapes from constants."
        )
    return f"{write} JAX says: {str(error).splitlines()[0]}"


def _where(error: Exception) -> str:
    """The line of the model that the error comes from: the last that is neither ours nor a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((_HERE, *_LIBRARIES))]
    if not own or not own[-1].line:
        return ""
    return f" at {os.path.basename(own[-1].filename)}, line {own[-1].lineno}, `{own[-1].line}`"
