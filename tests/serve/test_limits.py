"""Too much, too slow, too many: refused with words, and nothing is left hanging."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import anyio
import pytest
from asking import ask, by_hand, part

from marginax.serve import Limits
from marginax.serve.front import HEADERS, Front, host_of
from marginax.serve.limits import PATIENCE, Limited
from marginax.serve.problems import Problem
from marginax.serve.workers import Workers

FEW = Limits(body_bytes=100, body_seconds=0.2, request_seconds=0.3)


async def echo(_: Any, receive: Any, send: Any) -> None:
    """Answers with the body, after as many seconds as it says."""
    body = (await receive())["body"]
    if body.startswith(b"sleep"):
        await anyio.sleep(float(body[5:]))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def limited(headers: Any, *messages: Any) -> tuple[int | None, Any]:
    """Status and words of what comes through the middleware."""
    status, body = asyncio.run(by_hand(Limited(echo, FEW), headers, messages))
    is_refusal = status is not None and status != 200
    return status, json.loads(body)["detail"][0] if is_refusal else body


def length(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", value) for value in values]


def test_a_body_comes_through_in_one_piece():
    assert limited(length(b"5"), part(b"hello")) == (200, b"hello")
    assert limited([], part(b"he", True), part(b"", True), part(b"llo")) == (200, b"hello")
    assert limited(length(b"100"), part(b"x" * 100)) == (200, b"x" * 100)


@pytest.mark.parametrize(
    "messages",
    [
        (part(b"x" * 101),),
        (part(b"x" * 60, True), part(b"x" * 60)),
        (*[part(b"x", True)] * 150, part(b"")),
        (part(b"x" * 50, True),) * 10_000,
    ],
)
def test_bytes_are_counted_whatever_the_header_says(messages: Any):
    for headers in ([], length(b"7")):
        status, fault = limited(headers, *messages)
        assert (status, fault["field"]) == (413, "body")
        assert "100 bytes" in fault["msg"]


def test_what_a_header_promises_is_believed():
    assert limited(length(b"101"), part(b"x" * 101))[0] == 413
    # Nothing of it is read when it is far too much, or has not been sent yet.
    assert limited(length(str(PATIENCE * 100 + 1).encode()), 10, part(b""))[0] == 413
    assert limited([*length(b"101"), (b"expect", b"100-continue")], 10, part(b""))[0] == 413


@pytest.mark.parametrize(
    "values",
    [(b"5", b"6"), (b"-5",), (b"+5",), (b"5.0",), (b"",), (b"five",), (b"5,5",), (b"9" * 30,)],
)
def test_a_length_that_is_none(values: Any):
    status, fault = limited(length(*values), part(b"hello"))
    assert (status, fault["field"]) == (400, "content-length")


def test_the_same_length_twice():
    assert limited(length(b"5", b"5"), part(b"hello")) == (200, b"hello")


def test_a_body_that_does_not_arrive():
    begin = time.monotonic()
    status, fault = limited(length(b"50"), part(b"x", True), 5, part(b"x" * 49))
    assert (status, fault["field"]) == (408, "body")
    # Nor does it help to send a little now and then.
    dripping = [message for _ in range(100) for message in (0.05, part(b"x", True))]
    assert limited(length(b"99"), *dripping)[0] == 408
    assert time.monotonic() - begin < 3


def test_whoever_leaves_is_not_answered():
    assert limited(length(b"50"), part(b"x", True)) == (None, b"")


def test_an_answer_that_takes_too_long():
    status, fault = limited([], part(b"sleep 5"))
    assert (status, fault["field"]) == (503, "request")
    assert limited([], part(b"sleep 0.01")) == (200, b"sleep 0.01")


def test_what_has_begun_is_not_answered_twice():
    async def slow(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep(5)

    status, body = asyncio.run(by_hand(Limited(slow, FEW), [], [part(b"")]))
    assert (status, body) == (200, b"")


def test_more_requests_than_there_is_room_for_are_refused_and_told_when_to_come_back():
    limited = Limited(echo, Limits(requests=2))

    async def asked(body: bytes) -> tuple[dict[str, str], Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            return part(body)

        async def send(message: Any) -> None:
            sent.append(message)

        await limited({"type": "http", "headers": []}, receive, send)
        start = sent[0]
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return {"status": start["status"], **headers}, sent[1]["body"]

    async def everything() -> Any:
        together = await asyncio.gather(*(asked(b"sleep 0.1") for _ in range(4)))
        return together, await asked(b"later")

    together, later = asyncio.run(everything())
    assert [start["status"] for start, _ in together] == [200, 200, 503, 503]
    start, body = together[-1]
    assert start["retry-after"] == "1"
    assert start["content-type"] == "application/json"
    assert json.loads(body)["detail"][0]["field"] == "request"
    assert later == ({"status": 200}, b"later")


def test_so_many_are_computed_at_once_and_the_others_wait():
    running, most, lock = 0, 0, threading.Lock()

    def compute(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return number

    async def everything() -> list[int]:
        workers = Workers(2, 10.0)
        return await asyncio.gather(*(workers.run(compute, number) for number in range(10)))

    assert asyncio.run(everything()) == list(range(10))
    assert most == 2


def test_who_waits_too_long_is_told():
    release = threading.Event()

    async def everything() -> None:
        workers = Workers(1, 0.1)
        first = asyncio.create_task(workers.run(release.wait, 20))
        await asyncio.sleep(0.02)
        with pytest.raises(Problem, match="try again") as refused:
            await workers.run(int)
        assert refused.value.status == 503
        assert refused.value.headers == {"retry-after": "5"}
        # One whose time is up counts until it is done.
        first.cancel()
        with pytest.raises(Problem, match="try again"):
            await workers.run(int)
        release.set()
        assert await workers.run(int, "7") == 7
        workers.close()

    asyncio.run(everything())


def test_errors_of_a_computation_arrive():
    async def fails() -> None:
        await Workers(1, 1.0).run(int, "seven")

    with pytest.raises(ValueError, match="seven"):
        asyncio.run(fails())


@pytest.mark.parametrize(
    ("header", "host"),
    [
        (b"localhost:8000", "localhost"),
        (b"LOCALHOST", "localhost"),
        (b"127.0.0.1", "127.0.0.1"),
        (b"[::1]:8000", "[::1]"),
        # What is no name and port is no name that one could be asked as.
        (b"[::1]evil.example", "[::1]evil.example"),
        (b"[::1]:80evil.example", "[::1]:80evil.example"),
        (b"localhost:evil.example", "localhost:evil.example"),
        (b"localhost:80@evil.example", "localhost:80@evil.example"),
        (b"evil.example/[::1]", "evil.example/[::1]"),
        (b"localhost\xb2", "localhost\xb2"),
        (b"[::1]", "[::1]"),
        (b"[::1", "[::1"),
        (b"", ""),
        (b"\xff:1", "ÿ:1"),
    ],
)
def test_the_name_of_a_host(header: bytes, host: str):
    assert host_of([(b"host", header)]) == host


def test_another_host_is_refused():
    counter: Any = type("Counter", (), {"served": 0})()
    front = Front(echo, counter, ["localhost", "[::1]"])
    for header, expected in (
        (b"localhost:80", 200),
        (b"[::1]:80", 200),
        (b"[::1]evil.example", 400),
        (b"evil.example", 400),
    ):
        status, body = asyncio.run(by_hand(front, [(b"host", header)], [part(b"hello")]))
        assert status == expected
    assert b"evil.example" in body
    assert asyncio.run(by_hand(front, [], [part(b"hello")]))[0] == 400
    assert counter.served == 5
    assert (
        asyncio.run(by_hand(Front(echo, counter), [(b"host", b"any.where")], [part(b"")]))[0] == 200
    )


def test_every_answer_has_its_headers(app: Any):
    for path in ("/", "/page/main.js", "/healthz", "/nothing", "/predict"):
        headers = ask(app, "GET", path).headers
        for name, value in HEADERS:
            assert headers[name.decode()] == value.decode()
        assert "access-control-allow-origin" not in headers
