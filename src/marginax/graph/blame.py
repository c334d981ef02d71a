"""Find the latent value that a model uses where Python needs one number, and say what to write.

A latent value is abstract while a model is traced: it has a shape and a type but no number. What
JAX says when a model asks for the number (`if z:`, `int(z)`, `jnp.zeros(z)`, `list[z]`) names no
site. The site is found by experiment: the one that alone, all others being numbers, makes it fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from marginax.graph.known_data import NEEDS_A_NUMBER
from marginax.language.errors import ModelError


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


def _message(name: str, is_summed_out: bool, error: Exception) -> str:
    what = "summed out over all its values at once" if is_summed_out else "traced"
    return (
        f"site '{name}': the model uses its value where Python needs one number (an `if`, `int()`, a "
        f"loop bound, a shape, the index of a list or of a NumPy array), but the variable is {what}. "
        "Write jnp.where(condition, a, b) for an `if`, jnp.asarray(table)[z] for a choice among "
        f"values, and take shapes from constants. JAX says: {str(error).splitlines()[0]}"
    )
