"""The tests compile thousands of programs, more than a process may hold (`marginax.remembered`)."""

from collections.abc import Iterator

import pytest

from marginax.remembered import make_room


@pytest.fixture(autouse=True, scope="module")
def room_for_programs() -> Iterator[None]:
    """JAX remembers the programs of a module's own functions too."""
    yield
    make_room()
