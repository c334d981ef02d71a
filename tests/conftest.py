"""The tests compile thousands of programs, more than a process may hold (`marginax.jaxpr.remembered`).

None is kept on disk, so that nothing in the user's home has a part in what is tested.
"""

import os
from collections.abc import Iterator

import pytest

from marginax.jaxpr.remembered import make_room

os.environ["MARGINAX_CACHE_DIR"] = "off"


@pytest.fixture(autouse=True, scope="module")
def room_for_programs() -> Iterator[None]:
    """JAX remembers the programs of a module's own functions too."""
    yield
    make_room()
