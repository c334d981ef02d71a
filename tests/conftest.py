"""The tests compile thousands of programs, more than a process may hold (`marginax.jaxpr.remembered`).

None is kept in the user's home, so that nothing there has a part in what is tested. Python looks for garbage rarely:
tracing makes objects by the hundred thousand, and to look through them after each 700 takes a tenth of the time.
"""

import gc
import os
from collections.abc import Iterator

import pytest

from marginax.jaxpr.remembered import make_room

os.environ["MARGINAX_CACHE_DIR"] = "off"
gc.freeze()
gc.set_threshold(100_000)


@pytest.fixture(autouse=True, scope="module")
def room_for_programs() -> Iterator[None]:
    """JAX remembers the programs of a module's own functions too."""
    yield
    make_room()
