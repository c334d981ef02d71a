"""Over a real socket: what is no HTTP, who is too slow, and how a server ends."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from asking import running

from marginax.serve import Limits, connections
from marginax.serve.limits import Limited
from marginax.serve.server import LARGEST_HEAD, listening

LARGE = b"x" * 20_000_000


async def small(scope: Any, receive: Any, send: Any) -> None:
    """Answers with a few bytes, or with many."""
    assert scope["type"] == "http"
    await receive()
    body = LARGE if scope["path"] == "/large" else scope["path"].encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[int, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "HEAD_SECONDS", 0.4)
        patch.setattr(connections, "READING_SECONDS", 0.4)
        limits = Limits(body_bytes=1000, body_seconds=0.4)
        with running(Limited(small, limits)) as found:
            yield found


@pytest.fixture
def port(served: Any) -> int:
    return served[0]


def connected(port: int) -> closing[socket.socket]:
    return closing(socket.create_connection(("127.0.0.1", port), timeout=10))


def all_of(connection: socket.socket) -> bytes:
    """Until the server closes."""
    found = b""
    try:
        while part := connection.recv(1 << 16):
            found += part
    except ConnectionResetError:
        pass
    return found


def one_of(connection: socket.socket) -> bytes:
    """One answer; its head and body may come apart."""
    found = b""
    while not found.endswith(b"\r\n\r\n/"):
        part = connection.recv(1 << 16)
        assert part, found
        found += part
    return found


def refused(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"connection: close" in head.lower()
    assert json.loads(body)["detail"][0]["msg"]


GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n"

NO_HTTP = {
    "a word": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "another protocol": b"GET / ICY/1.0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"host: localhost\r\n\r\n",
    "a header without a name": GET + b": 5\r\n\r\n",
    "a blank before the colon": GET + b"a : 5\r\n\r\n",
    "a zero byte": GET + b"a: \0\r\n\r\n",
    "lengths that differ": GET + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "a length that is none": GET + b"content-length: five\r\n\r\nhello",
    "a negative length": GET + b"content-length: -5\r\n\r\nhello",
    "an unknown encoding": GET + b"transfer-encoding: gzip\r\n\r\nhello",
    "a head without end": GET + b"a: " + b"x" * 2 * LARGEST_HEAD,
    "many headers": GET + b"".join(b"a%d: 1\r\n" % n for n in range(5000)),
    "a long path": b"GET /" + b"x" * 2 * LARGEST_HEAD,
}


@pytest.mark.parametrize("what", NO_HTTP)
def test_what_is_no_http(port: int, what: str):
    with connected(port) as connection:
        connection.sendall(NO_HTTP[what])
        answer = all_of(connection)
        refused(answer, 400)


def test_a_piece_that_is_no_piece(port: int):
    with connected(port) as connection:
        connection.sendall(GET + b"transfer-encoding: chunked\r\n\r\nfive\r\nhello\r\n")
        refused(all_of(connection), 400)


@pytest.mark.parametrize("begun", [b"", b"G", GET])
def test_a_request_that_does_not_come(port: int, begun: bytes):
    begin = time.monotonic()
    with connected(port) as connection:
        connection.sendall(begun)
        refused(all_of(connection), 408)
    assert 0.3 < time.monotonic() - begin < 5


def test_a_head_that_drips(port: int):
    begin = time.monotonic()
    with connected(port) as connection:
        try:
            for n in range(100):
                connection.sendall(GET[n % len(GET) : n % len(GET) + 1])
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert time.monotonic() - begin < 4


def test_the_second_request_of_a_connection_may_not_drip_either(port: int):
    with connected(port) as connection:
        connection.sendall(GET + b"\r\n")
        assert one_of(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(GET)
        refused(all_of(connection), 408)


def test_a_body_that_does_not_come(port: int):
    with connected(port) as connection:
        connection.sendall(GET + b"content-length: 50\r\n\r\nhello")
        refused(all_of(connection), 408)


@pytest.mark.parametrize("size", [1001, 7000, 500_000])
def test_a_body_that_is_too_large_is_refused_where_it_is_heard(port: int, size: int):
    """Also by someone who writes everything before they read."""
    for head, body in (
        (b"content-length: %d\r\n\r\n" % size, b"x" * size),
        (b"transfer-encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)),
    ):
        if size > 8000 and head.startswith(b"transfer"):
            continue
        with connected(port) as connection:
            connection.sendall(GET + head)
            if size <= 8000:
                connection.sendall(body)
            refused(all_of(connection), 413)


def test_an_answer_that_is_not_read(served: Any):
    port, server = served
    with connected(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
        end = time.monotonic() + 5
        while not server.server_state.connections:  # it has come
            assert time.monotonic() < end
            time.sleep(0.01)
        while server.server_state.connections:  # and is given up
            assert time.monotonic() < end
            time.sleep(0.05)


def test_an_answer_that_is_read_slowly_but_steadily_arrives(port: int):
    with connected(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        found = 0
        while part := connection.recv(1 << 20):
            found += len(part)
            time.sleep(0.05)  # in all for longer than nothing may be taken
        assert found > len(LARGE)


def test_an_answer_that_is_read_drop_by_drop_is_given_up(served: Any):
    port, server = served
    with connected(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(100)
        end = time.monotonic() + 5
        while server.server_state.connections:
            assert time.monotonic() < end
            assert connection.recv(100)
            time.sleep(0.05)


def test_requests_in_a_row_are_answered_in_a_row(port: int):
    with connected(port) as connection:
        asked = b"".join(b"GET /%d HTTP/1.1\r\nhost: localhost\r\n\r\n" % n for n in range(20))
        connection.sendall(asked[:-2] + b"connection: close\r\n\r\n")
        answer = all_of(connection)
        assert answer.count(b"HTTP/1.1 200") == 20
        assert answer.rstrip().endswith(b"/19")


def test_a_connection_lives_on_between_requests(port: int):
    with connected(port) as connection:
        for _ in range(3):
            connection.sendall(GET + b"\r\n")
            assert one_of(connection).startswith(b"HTTP/1.1 200")
            time.sleep(0.6)  # longer than a head may take, but there is none


def test_an_upgrade_is_no_request_for_a_socket(port: int):
    with connected(port) as connection:
        connection.sendall(
            GET + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n"
        )
        assert one_of(connection).startswith(b"HTTP/1.1 200")


def test_connections_that_say_nothing_do_not_keep_others_out(port: int):
    with ExitStack() as stack:
        for _ in range(220):
            stack.enter_context(connected(port))
        with connected(port) as connection:
            connection.sendall(GET + b"\r\n")
            assert one_of(connection).startswith(b"HTTP/1.1 200")


def test_after_all_that_it_answers(port: int):
    test_requests_in_a_row_are_answered_in_a_row(port)


def test_it_ends_while_connections_are_open():
    with running(small) as (port, _), connected(port) as connection:
        connection.sendall(GET + b"\r\n")
        assert one_of(connection).startswith(b"HTTP/1.1 200")
        begin = time.monotonic()
    assert time.monotonic() - begin < 5


def test_a_taken_port():
    with listening("127.0.0.1", 0) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"port {taken}"):
            listening("127.0.0.1", taken)


def test_the_second_part_of_an_answer_does_not_wait_for_the_first(
    port: int, monkeypatch: pytest.MonkeyPatch
):
    """Otherwise every answer may take the 40 ms after which a system acknowledges what it has."""
    seen = []
    before = connections.Connection.connection_made

    def noted(self: Any, transport: Any) -> None:
        before(self, transport)
        own = transport.get_extra_info("socket")
        seen.append(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(connections.Connection, "connection_made", noted)
    with connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert one_of(connection)
    assert len(seen) == 1
    assert seen[0] != 0
