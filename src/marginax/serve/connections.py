"""Connections that are given up when whoever is at the other end is too slow.

Uvicorn waits without end for the head of a request, and for someone to read an answer. Both cost only a
connection, but there are only so many of these: a few thousand that never say a word would leave none for others.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11

# Uvicorn has no public place for a clock on a connection; of its protocol these are the parts that are private to it.
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from marginax.serve.problems import as_json, fault

HEAD_SECONDS = 10.0
"""From the first byte of a request (at first: from the connection) until its head is there."""
READING_SECONDS = 20.0
LEAST_READ = 2**16
"""Bytes of an answer that must be taken in that time; then there is as much time for more."""


class Connection(H11Protocol):
    """Uvicorn's, with two clocks."""

    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Head and body of an answer are two writes; the second must not wait until the first is acknowledged. (asyncio
        # sets this only for sockets that were made with the protocol's number.)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._start(HEAD_SECONDS, self._no_head)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            if self._clock is None and self.conn.trailing_data[0]:
                self._start(HEAD_SECONDS, self._no_head)
        elif not self.flow.write_paused:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop()
        self._expect_reading()

    def resume_writing(self) -> None:
        self._stop()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._stop()
        self._expect_reading()  # of the end of an answer

    def _expect_reading(self) -> None:
        """Give up where next to nothing of an answer is taken; a large one may take long in all."""
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            self._clock = None
            if left - self.transport.get_write_buffer_size() >= LEAST_READ:
                self._expect_reading()
            else:
                self.transport.abort()

        self._start(READING_SECONDS, look)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is answered like everything else."""
        self._refuse(400, msg)

    def _no_head(self) -> None:
        self._clock = None
        if not self.transport.is_closing():
            self._refuse(408, f"no request came within {HEAD_SECONDS:g} seconds.")

    def _refuse(self, status: int, message: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = as_json([fault("request", message)])
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            start = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _start(self, seconds: float, then: Any) -> None:
        self._clock = self.loop.call_later(seconds, then)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
