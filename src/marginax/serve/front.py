"""What every answer has, and who may ask.

A service on one's own machine has no password, and need not: nobody else reaches it. But a page from elsewhere,
open in the same browser, does. Two things keep it out. The browser itself, as long as bodies are JSON and no answer
says that others may read it. And the name under which the service is asked: a page at evil.example whose name is
suddenly said to belong to 127.0.0.1 ("DNS rebinding") still asks for evil.example, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from marginax.serve.limits import Receive, Send, refuse
from marginax.serve.problems import Problem, fault

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]*)(:[0-9]*)?", re.ASCII)
"""An address of IPv6 or a name, and perhaps a port (RFC 9110, section 7.2)."""
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Front:
    """ASGI middleware: headers for every answer, names of hosts, how many requests were answered.

    Parameters
    ----------
    app : ASGI application
    counter : object
        Its attribute ``served`` is counted up.
    hosts : sequence of str, optional
        Names under which the service may be asked, without the port; None: any.
    """

    def __init__(self, app: Any, counter: Any, hosts: Sequence[str] | None = None) -> None:
        self.app, self.counter = app, counter
        self.hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.counter.served += 1
                message = message | {"headers": [*message["headers"], *HEADERS]}
            await send(message)

        asked = host_of(scope["headers"])
        if self.hosts is None or asked in self.hosts:
            await self.app(scope, receive, with_headers)
        else:
            message = (
                f"this service is not {asked!r}; it is asked as {', '.join(sorted(self.hosts))}."
            )
            await refuse(with_headers, Problem(400, fault("host", message)))


def host_of(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The name in the header ``Host``, without the port; all of it where it is not a name and a port."""
    value = next((value for name, value in headers if name == b"host"), b"")
    text = value.decode("latin-1").strip().lower()
    match = HOST.fullmatch(text)
    return match["name"] if match else text
