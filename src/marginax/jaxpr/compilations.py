"""What is compiled while something runs, and how long that takes.

JAX tells its listeners (`jax.monitoring`) of each program that it compiles, in the thread that compiles it. So one
listener serves all: it hands what it hears to whoever takes notes in that thread, or to nobody. Nothing is told of a
program that is compiled already, so that its call costs nothing more. Who clears JAX's listeners
(`jax.monitoring.clear_event_listeners`) clears this one: then nothing more is noted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILED = "/jax/core/compile/backend_compile_duration"
"""JAX's names of the two steps from a jaxpr to a program. They follow each other, so their times add up; the time of
tracing would not: one trace is part of another."""


class Compilations:
    """Programs that were compiled while they were noted.

    Examples
    --------
    >>> import jax
    >>> compilations = Compilations()
    >>> with compilations.noted():
    ...     _ = jax.jit(lambda x: x + 1)(1.0)
    >>> compilations.programs
    1
    """

    def __init__(self) -> None:
        self._told: list[tuple[str, float]] = []  # to append is safe among threads

    @property
    def programs(self) -> int:
        """How many they are, the small ones among them that JAX compiles for a single operation."""
        return sum(event == COMPILED for event, _ in list(self._told))

    @property
    def seconds(self) -> float:
        """What they took, or what it took to find them in JAX's cache on disk."""
        return sum(seconds for _, seconds in list(self._told))

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what this thread compiles inside of the ``with``."""
        before, _here.told = _here.told, self._told
        try:
            yield
        finally:
            _here.told = before


class _Here(threading.local):
    """Where this thread takes its notes."""

    told: list[tuple[str, float]] | None = None


_here = _Here()


def _hear(event: str, duration_secs: float, **_: Any) -> None:
    if _here.told is not None and event in (LOWERED, COMPILED):
        _here.told.append((event, duration_secs))


jax.monitoring.register_event_duration_secs_listener(_hear)
