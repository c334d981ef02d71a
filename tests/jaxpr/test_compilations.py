"""What is compiled is noted where, and only where, someone takes notes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

from marginax.jaxpr.compilations import Compilations

Heard = list[tuple[str, float]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What JAX tells a listener of ours."""
    found: Heard = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        found.append((event.rpartition("/")[-1], duration_secs))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def fresh() -> Callable[[Any], Any]:
    """A function that JAX has never compiled."""
    return jax.jit(lambda x: x * 3 + 1)


X = np.ones(3, np.float32)


def test_programs_and_their_seconds_are_those_that_jax_tells(heard: Heard) -> None:
    compilations = Compilations()
    with compilations.noted():
        fresh()(X)
        fresh()(X)
    steps = ("jaxpr_to_mlir_module_duration", "backend_compile_duration")
    assert compilations.programs == 2
    assert compilations.seconds == pytest.approx(sum(s for e, s in heard if e in steps))


def test_a_program_is_noted_once_for_each_shape() -> None:
    compilations, fn = Compilations(), fresh()
    with compilations.noted():
        fn(X)
        fn(X + 1)
        assert compilations.programs == 1
        fn(X[:2])
    assert compilations.programs == 2


def test_what_is_compiled_before_and_after_is_not_noted() -> None:
    compilations = Compilations()
    fresh()(X)
    with compilations.noted():
        pass
    fresh()(X)
    assert (compilations.programs, compilations.seconds) == (0, 0)


def test_notes_inside_of_others_are_apart_also_after_an_error() -> None:
    outer, inner = Compilations(), Compilations()

    def fail() -> None:
        with inner.noted():
            fresh()(X)
            fresh()(X)
            raise ZeroDivisionError

    with outer.noted():
        with pytest.raises(ZeroDivisionError):
            fail()
        fresh()(X)
    assert (outer.programs, inner.programs) == (1, 2)


def test_what_another_thread_compiles_is_not_noted() -> None:
    compilations = Compilations()
    thread = threading.Thread(target=lambda: fresh()(X))
    with compilations.noted():
        thread.start()
        thread.join()
    assert compilations.programs == 0
