"""``serve``: a model file becomes a running service."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from marginax.mixture.model_files import load
from marginax.serve.app import make_app
from marginax.serve.connections import Connection
from marginax.serve.limits import Limits

LOOPBACK = ("127.0.0.1", "localhost", "::1")
WAITING_CONNECTIONS = 200
"""That have not been accepted yet."""
LARGEST_HEAD = 16 * 1024
IDLE_SECONDS = 15
GRACE_SECONDS = 8
"""For what is being answered when the service is told to stop; whoever told it often kills it after ten."""


def serve(
    path: str | os.PathLike[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    limits: Limits | None = None,
    sizes: Sequence[int] | None = None,
    hosts: Sequence[str] | None = None,
) -> None:
    """Serve a model file over HTTP until Ctrl-C or SIGTERM.

    Then no new request is taken, and those that have begun are answered: within eight seconds, or else that the service
    stops. After SIGTERM the function returns, after Ctrl-C it raises `KeyboardInterrupt`. A second signal ends the
    process at once; so does SIGTERM itself at the end if something is still being computed for an answer that was
    given up, as a thread cannot be stopped.

    Parameters
    ----------
    path : path
        What `marginax.mixture.save` has written.
    host : str
        Address to listen on. There is no authentication: by default only this machine reaches the service.
    port : int
        0: any that is free; the address is printed.
    limits, sizes, hosts
        As of `make_app`; on this machine alone, ``hosts`` are its names.

    Raises
    ------
    FileNotFoundError
    marginax.storage.StorageError
        When the file is damaged, or holds something else.
    OSError
        When the address cannot be listened on.
    """
    name = Path(path).stem
    is_local = host in LOOPBACK
    # Before anything that takes time: is the address free?
    with listening(host, port) as listener:
        estimator = load(path)
        _say(f"Compiling {name}: {type(estimator).__name__}, {estimator.n_components} components.")
        if not is_local:
            _say(
                f"Warning: there is no authentication, and whoever reaches {host} can ask this model, and see up to "
                "1,000 rows of the table if that is in the file."
            )
        if is_local and hosts is None:
            hosts = ("127.0.0.1", "localhost", "[::1]")
        app = make_app(estimator, name=name, limits=limits, sizes=sizes, hosts=hosts)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}/"
        server = Announced(configuration(app), f"Serving {name} at {address} (Ctrl-C stops it)")
        server.run([listener])
        if server.is_terminated and app.state.workers.is_computing:
            _end_by(signal.SIGTERM)


def listening(host: str, port: int) -> socket.socket:
    """A socket at an address; nobody is answered yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=WAITING_CONNECTIONS)
    except OSError as error:
        message = f"cannot listen at {host}, port {port}: {error.strerror or error}"
        raise OSError(error.errno, message) from error


def configuration(app: Any) -> uvicorn.Config:
    """How uvicorn runs an application: quietly, and with limits."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


class Announced(uvicorn.Server):
    """Says when it is ready, and returns when it is told to end."""

    def __init__(self, config: uvicorn.Config, announcement: str) -> None:
        super().__init__(config)
        self.announcement = announcement
        self.is_terminated = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Uvicorn's, which raises each signal once more when all is answered; SIGTERM has had its way then."""
        if self.should_exit:
            _end_by(sig)
        if sig == signal.SIGTERM:
            self.is_terminated = self.should_exit = True
        else:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.announcement, flush=True)


def _end_by(number: int) -> None:
    """End the process as a signal does that nobody handles."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
