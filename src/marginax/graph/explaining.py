"""Where Python asks a model for a number that is not known while it is traced: whose it is, and what to write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from marginax.arrays.arguments import argument_name
from marginax.errors import ModelError
from marginax.graph.blame import blame, first_at_fault, unnamed
from marginax.graph.draft import Draft
from marginax.graph.known_data import NEEDS_A_NUMBER
from marginax.language import handlers


@contextmanager
def explaining(
    model: Callable[..., Any], args: Any, kwargs: Any, given: Collection[str] = ()
) -> Iterator[None]:
    """Where a model that is run inside needs the number of a traced value, say whose it is, and what to write.

    Parameters
    ----------
    model : callable
        The model.
    args, kwargs
        Its arguments.
    given : collection of str
        The names of sites whose values are traced although the model has some.
    """
    try:
        yield
    except NEEDS_A_NUMBER as error:
        found = _blamed(model, args, kwargs, given, error) or unnamed(error)
        if found is None:
            raise
        raise found from error


def _blamed(
    model: Callable[..., Any], args: Any, kwargs: Any, given: Collection[str], error: Exception
) -> ModelError | None:
    """Run the model with numbers, to learn which of its latent values the error comes from."""
    leaves, structure = jax.tree.flatten_with_path((args, kwargs))
    traced = {
        argument_name(path, model): (i, np.ones(leaf.shape, leaf.dtype))
        for i, (path, leaf) in enumerate(leaves)
        if isinstance(leaf, Tracer)
    }

    def arguments(values: Mapping[str, Any]) -> Any:
        whole = [leaf for _, leaf in leaves]
        for name, (i, example) in traced.items():
            whole[i] = values.get(name, example)
        return jax.tree.unflatten(structure, whole)

    try:
        with jax.ensure_compile_time_eval():
            args, kwargs = arguments({})
            draft = Draft(model, jax.random.key(0))
            trace = handlers.trace(draft).get_trace(*args, **kwargs)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None  # it does not run with numbers either

    def run(values: dict[str, Any]) -> None:
        handlers.trace(handlers.substitute(model, data=values)).get_trace(*args, **kwargs)

    examples = {
        name: msg["value"]
        for name, msg in trace.items()
        if name in draft.free or (name in given and msg["type"] in ("sample", "param"))
    }

    def is_summed_out(name: str) -> bool:
        return name not in given and trace[name]["fn"].has_enumerate_support

    found = blame(run, examples, is_summed_out, error)
    if found is not None:
        return found

    def run_on(values: dict[str, Any]) -> None:
        args, kwargs = arguments(values)
        handlers.trace(Draft(model, jax.random.key(0))).get_trace(*args, **kwargs)

    name = first_at_fault(run_on, {name: example for name, (_, example) in traced.items()})
    if name is None:
        return None
    return ModelError(
        f"the model uses its argument {name} where Python needs numbers (a size, an `if`, `int()`, a boolean "
        "index), but they are not known while it is traced: they come in batches, or through a jax.jit of "
        "yours.",
        advice=(
            "Pass what it needs as an argument of its own, a Python number: model(y, num_classes=4). (In a call "
            f"without batches and outside of jax.jit data are known.) JAX says: {str(error).splitlines()[0]}"
        ),
    )
