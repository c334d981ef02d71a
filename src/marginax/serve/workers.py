"""Threads that compute, so many at once, apart from the loop that listens.

A thread cannot be stopped. When the time of a request is up its thread goes on, and so it must go on to count as
one of those that compute: were its place free at once, slow requests would pile up until the machine does nothing else.
A pool of threads keeps count by itself. What waits in front of it can be taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from marginax.serve.problems import Problem, fault

RETRY_SECONDS = 5


class Workers:
    """Computes functions, at most so many at once.

    Parameters
    ----------
    at_once : int
        How many.
    waiting_seconds : float
        How long others wait for their turn.
    """

    def __init__(self, at_once: int, waiting_seconds: float) -> None:
        self.at_once, self.waiting_seconds = at_once, waiting_seconds
        self._pool = self._threads()
        self._computed: set[Future[Any]] = set()

    @property
    def is_computing(self) -> bool:
        """Whether a thread is at work, or is about to be."""
        return any(not computed.done() for computed in self._computed)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns, or raises.

        Raises
        ------
        Problem
            503, when its turn did not come.
        """
        computed = self._pool.submit(function, *arguments)
        self._computed.add(computed)
        computed.add_done_callback(self._computed.discard)
        answer = asyncio.wrap_future(computed)
        try:
            done, _ = await asyncio.wait([answer], timeout=self.waiting_seconds)
            if not done and computed.cancel():
                message = "too much is being computed; try again in a moment."
                raise Problem(503, fault("request", message), retry_after=RETRY_SECONDS)
            return await answer
        finally:
            answer.cancel()  # whoever asked may have gone

    def close(self) -> None:
        """Take back what waits; what is being computed ends by itself. More may be computed afterwards."""
        before, self._pool = self._pool, self._threads()
        before.shutdown(wait=False, cancel_futures=True)

    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.at_once, thread_name_prefix="marginax-serve")
