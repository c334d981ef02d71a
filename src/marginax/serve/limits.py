"""How much, and how long: what a request may ask for, enforced around the whole application.

The body is read here, before the application sees the request, for three reasons. Bytes are counted as they come,
whatever a header has promised. The time for them is measured apart from the time for the answer, so that someone who
sends a byte a second holds no thread. And someone who sends too much is listened to a little longer before they hear
why nothing comes of it: a connection that is closed while they write would break, and the answer be lost.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio

from marginax.serve.problems import Problem, as_json, fault

RETRY_SECONDS = 1
PATIENCE = 8
"""So many times what is allowed is read, and dropped, before the connection is closed."""

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and all together."""

    body_bytes: int = 4 * 2**20
    """The largest body."""
    rows: int = 10_000
    """The most rows in one request, and the most samples; of a series no more than it is compiled for."""
    body_seconds: float = 10.0
    """For the body to arrive."""
    request_seconds: float = 60.0
    """For the answer, after that."""
    at_once: int = field(default_factory=lambda: os.cpu_count() or 1)
    """How many requests are computed at once, by default as many as there are processors; the others wait."""
    waiting_seconds: float = 20.0
    """How long they wait at most."""
    requests: int = 200
    """How many requests may arrive, wait and be computed at the same time; more are refused."""


class Limited:
    """ASGI middleware: a body within limits, an answer in time.

    Parameters
    ----------
    app : ASGI application
    limits : Limits
    """

    def __init__(self, app: Any, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self._in_hand = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self._in_hand >= self.limits.requests:
            message = f"{self._in_hand} requests are in hand already; try again in a moment."
            problem = Problem(503, fault("request", message), retry_after=RETRY_SECONDS)
            await refuse(send, problem)
        else:
            self._in_hand += 1
            has_begun = False

            async def noted(message: Any) -> None:
                nonlocal has_begun
                has_begun = True
                await send(message)

            try:
                await self._within(scope, receive, noted)
            except asyncio.CancelledError:
                # The service was told to stop, and has waited for this long enough.
                if not has_begun:
                    message = (
                        "the service stops, and this was not answered in time; ask again later."
                    )
                    problem = Problem(503, fault("request", message), retry_after=RETRY_SECONDS)
                    await refuse(send, problem)
            finally:
                self._in_hand -= 1

    async def _within(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            body = await self._body(scope["headers"], receive)
        except Problem as problem:
            await refuse(send, problem)
            return
        if body is not None:  # otherwise they have gone
            await self._answer(scope, body, receive, send)

    async def _body(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes | None:
        declared = declared_length(headers)
        most = self.limits.body_bytes
        is_too_large = declared > most
        too_large = Problem(
            413, fault("body", f"it is too large; it may have {most:,} bytes. Send it in parts.")
        )
        if is_too_large and (declared > PATIENCE * most or awaits_permission(headers)):
            raise too_large
        parts, count = [], 0
        with anyio.move_on_after(self.limits.body_seconds) as time:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                part = message.get("body", b"")
                count += len(part)
                is_too_large = is_too_large or count > most
                if is_too_large:
                    parts.clear()
                else:
                    parts.append(part)
                if not message.get("more_body", False) or count > PATIENCE * most:
                    break
        if is_too_large:
            raise too_large
        if time.cancelled_caught:
            seconds = self.limits.body_seconds
            raise Problem(408, fault("body", f"it did not arrive within {seconds:g} seconds."))
        return b"".join(parts)

    async def _answer(self, scope: Any, body: bytes, receive: Receive, send: Send) -> None:
        is_read = has_begun = False

        async def replay() -> Any:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def noted(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        with anyio.move_on_after(self.limits.request_seconds) as time:
            await self.app(scope, replay, noted)
        if time.cancelled_caught and not has_begun:
            seconds = self.limits.request_seconds
            message = f"it took longer than {seconds:g} seconds; ask for fewer rows at once."
            await refuse(send, Problem(503, fault("request", message)))


def declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The content-length, 0 where there is none.

    Raises
    ------
    Problem
        When it is no number, or there are several that differ.
    """
    given = {value.strip() for name, value in headers if name == b"content-length"}
    if not given:
        return 0
    text = given.pop()
    if given or not text.isdigit() or len(text) > 18:
        raise Problem(400, fault("content-length", "it must be one whole number."))
    return int(text)


def awaits_permission(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether whoever asks has not begun to send (``Expect: 100-continue``)."""
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers)


async def refuse(send: Send, problem: Problem) -> None:
    """Answer with a problem, and close the connection."""
    body = as_json(problem.faults)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *((name.encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    start = {"type": "http.response.start", "status": problem.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
