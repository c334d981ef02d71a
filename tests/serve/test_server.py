"""From a file to a running service, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from marginax.mixture import save
from marginax.serve import serve
from marginax.storage import StorageError


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        serve(tmp_path / "nothing.mx", port=0)


def test_a_file_that_is_damaged(tmp_path: Path):
    path = tmp_path / "damaged.mx"
    path.write_bytes(b"nonsense" * 100)
    with pytest.raises(StorageError, match="damaged.mx"):
        serve(path, port=0)


@pytest.mark.parametrize("host", ["not a host", "192.0.2.1", "::2"])
def test_an_address_that_is_not_ours(tmp_path: Path, host: str):
    with pytest.raises(OSError, match="cannot listen"):
        serve(tmp_path / "model.mx", host=host, port=0)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_the_command(gaussian: Any, tmp_path: Path, number: int, status: int):
    path = tmp_path / "clusters.mx"
    save(path, gaussian)
    with subprocess.Popen(
        [sys.executable, "-m", "marginax.cli", "serve", str(path), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("Serving clusters at http://127.0.0.1:"), process.stderr.read()
        address = line.split(" at ")[1].split()[0]
        with httpx.Client(base_url=address) as client:
            answer = client.post("/predict", json={"rows": [[2.0, 50.0]]})
            assert answer.json()["component"] == [1]
            assert client.get("/", headers={"host": "evil.example"}).status_code == 400
            assert client.get("/model").json()["picture"]["points"] == []
            process.send_signal(number)  # while a connection is open
            assert process.wait(20) == status
        assert "Traceback" not in process.stderr.read()


SERVICE = """
import sys, time
import marginax.serve.server as server
from marginax.serve.service import Service
from marginax.storage import StorageError

predict = Service.predict

def slow(self, body):
    print("begun", flush=True)
    time.sleep(float(sys.argv[2]))
    return predict(self, body)

Service.predict = slow
server.GRACE_SECONDS = 2
server.serve(sys.argv[1], port=0, sizes=(1,))
print("returned", flush=True)
"""


@contextmanager
def service(gaussian: Any, folder: Path, seconds: float) -> Iterator[tuple[Any, int]]:
    """A process that serves, and takes so many seconds for an answer; and its port."""
    path = folder / "clusters.mx"
    save(path, gaussian)
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(path), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            yield process, int(line.split(" at ")[1].split()[0].rstrip("/").rpartition(":")[2])
        finally:
            process.kill()


def ask(port: int) -> socket.socket:
    """A connection that has asked, and waits."""
    body = json.dumps({"rows": [[2.0, 50.0]]}).encode()
    asked = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    asked.sendall(head.encode() + b"\r\n\r\n" + body)
    return asked


def heard(asked: socket.socket) -> bytes:
    found = b""
    while part := asked.recv(65536):
        found += part
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "signals", "answer", "status", "after"),
    [
        (1.0, 1, b"HTTP/1.1 200", 0, "returned\n"),
        (60.0, 1, b"HTTP/1.1 503", -signal.SIGTERM, ""),  # its thread cannot be stopped
        (60.0, 2, b"", -signal.SIGTERM, ""),
    ],
)
def test_a_service_that_is_told_to_end_answers_what_it_has_begun(
    gaussian: Any,
    tmp_path: Path,
    seconds: float,
    signals: int,
    answer: bytes,
    status: int,
    after: str,
):
    with service(gaussian, tmp_path, seconds) as (process, port):
        idle = socket.create_connection(("127.0.0.1", port), timeout=30)
        asked = ask(port)
        assert process.stdout.readline() == "begun\n"
        begun = time.monotonic()
        for _ in range(signals):
            process.terminate()
            time.sleep(0.5)
        if signals == 1:
            with pytest.raises(ConnectionError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
        try:
            found = heard(asked)
        except ConnectionError:
            found = b""
        assert found.startswith(answer)
        assert process.wait(20) == status
        assert time.monotonic() - begun < 15
        assert process.stdout.read() == after
        assert "Traceback" not in process.stderr.read()
        idle.close()
        asked.close()
