"""What was compiled is remembered, as long as there is room for it.

A program that XLA compiled for the CPU takes 50 to 200 *memory maps*, pieces of address space that the system keeps
a list of. Linux allows a process 65,530 of them (``vm.max_map_count``), whatever memory it has. The process that asks
for one more while XLA compiles is ended on the spot, with a segmentation fault: after some 300 large programs that are
all still alive. So everything that remembers programs does it here, and when half of the maps are taken each store
forgets the half that was used longest ago. Where that is not enough, what JAX itself remembers goes too
(`jax.clear_caches`); it compiles again what is still in use.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import jax

MOST_REMEMBERED = 256
"""Programs in a store."""

OURS_GO_ABOVE = 0.5
ALL_GO_ABOVE = 0.75
"""Shares of the maps that the system allows."""

LOOK_EVERY = 8
"""Programs; to count the maps takes up to 30 ms."""

MAPS = Path("/proc/self/maps")
LIMIT = Path("/proc/sys/vm/max_map_count")

Program = TypeVar("Program")

_stores: weakref.WeakSet[Remembered] = weakref.WeakSet()


class Remembered(Generic[Program]):
    """Programs by what they follow from; those that were used longest ago are forgotten first."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._programs: OrderedDict[Hashable, Program] = OrderedDict()
        self._added = 0
        self._lock = threading.Lock()
        _stores.add(self)

    def __iter__(self) -> Iterator[Hashable]:
        """The keys, those used longest ago first."""
        with self._lock:
            return iter(list(self._programs))

    def find(self, key: Hashable) -> Program | None:
        """The program of this key, if there is one."""
        with self._lock:
            found = self._programs.get(key)
            if found is not None:
                self._programs.move_to_end(key)
            return found

    def add(self, key: Hashable, program: Program) -> Program:
        """Remember a program; if another thread was faster, the result is its program."""
        with self._lock:
            program = self._programs.setdefault(key, program)
            self._programs.move_to_end(key)
            if len(self._programs) > self._most:
                self._programs.popitem(last=False)
            self._added += 1
            is_time_to_look = self._added % LOOK_EVERY == 0
        if is_time_to_look:
            make_room()
        return program

    def forget(self) -> None:
        """The half that was used longest ago."""
        with self._lock:
            for _ in range((len(self._programs) + 1) // 2):
                self._programs.popitem(last=False)


def make_room() -> None:
    """Forget programs if the process has nearly as many memory maps as it may have."""
    if share_taken() <= OURS_GO_ABOVE:
        return
    for store in list(_stores):
        store.forget()
    gc.collect()  # functions that JAX compiled are part of cycles
    if share_taken() > ALL_GO_ABOVE:
        jax.clear_caches()
        gc.collect()


def share_taken() -> float:
    """How many of the memory maps that the system allows there are; 0 where it does not say."""
    try:
        limit = int(LIMIT.read_text())
        with MAPS.open("rb") as lines:
            return sum(1 for _ in lines) / limit
    except OSError:  # not Linux
        return 0.0
