"""Ask an application without a server: through httpx, or by hand where httpx would not send such a thing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from marginax.serve.server import Announced, configuration, listening

JSON = {"content-type": "application/json"}
HOST = "http://localhost"


def ask(app: Any, method: str, path: str, **options: Any) -> httpx.Response:
    """One request."""
    return ask_all(app, [(method, path, options)])[0]


def ask_all(app: Any, requests: Any) -> list[httpx.Response]:
    """Several requests at once."""

    async def everything() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=HOST, timeout=60) as client:
            asked = [client.request(method, path, **options) for method, path, options in requests]
            return await asyncio.gather(*asked)

    return asyncio.run(everything())


def post(app: Any, path: str, body: Any) -> Any:
    """What is answered to JSON, or to bytes that pretend to be JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(app, "POST", path, content=content, headers=JSON)


def faults(response: httpx.Response) -> list[Any]:
    """Of a refusal; each has a place and words."""
    detail = response.json()["detail"]
    assert detail
    assert all(one["field"] and len(one["msg"]) > 8 for one in detail), detail
    return detail


async def by_hand(
    app: Any, headers: Any, messages: Any, path: str = "/", method: str = "POST"
) -> Any:
    """Status and body for messages as a server passes them on; a number among them is seconds of silence."""
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    coming, sent = iter(messages), []

    async def receive() -> Any:
        for message in coming:
            if not isinstance(message, int | float):
                return message
            await asyncio.sleep(message)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return (sent[0]["status"], body) if sent else (None, body)


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    """A piece of a body."""
    return {"type": "http.request", "body": body, "more_body": more}


@contextmanager
def running(app: Any) -> Iterator[tuple[int, Any]]:
    """A server in a thread, and its port."""
    with listening("127.0.0.1", 0) as listener:
        server = Announced(configuration(app), "ready")
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1], server
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
