"""From a file to a running service, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
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
