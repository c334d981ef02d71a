"""The service under load: requests a second, latency, and what becomes of it when it is sent nonsense.

    python benchmarks/serve.py [--seconds 60] [--connections 4] [--model FILE]

A mixture of three components in two columns is fitted, with 1,000 posterior draws, and served in a process of its own.
This process asks it, over several connections that are kept open. Both share the machine: requests are written once,
and answers are looked at no more than needed, so that it is the service that is measured. Every answer is an average
over the 1,000 draws. Afterwards 1,000 requests are malformed or oversized: each must be refused with a 4xx and words,
and the service must be alive. Exit status 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 1000
NONSENSE = 1000
READY_SECONDS = 180
OUT_OF_TIME = 30.0


class Connection:
    """One that is kept open; as little work for an answer as can be."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=OUT_OF_TIME)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self.socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        _, _, after = head.lower().partition(b"content-length:")
        length = int(after.split(b"\r\n", 1)[0])
        parts, have = [body], len(body)
        while have < length:
            parts.append(self._more())
            have += len(parts[-1])
        return int(head[9:12]), b"".join(parts)

    def _more(self) -> bytes:
        part = self.socket.recv(1 << 18)
        if not part:
            raise ConnectionError("the service closed the connection")
        return part

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def request(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", *headers]
    if not any(line.startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"content-length: {len(body)}")
    if not any(line.startswith("content-type") for line in headers):
        lines.append("content-type: application/json")
    return "\r\n".join([*lines, "", ""]).encode() + body


def table(rows: int, seed: int) -> np.ndarray:
    """Three clusters in two columns."""
    rng = np.random.default_rng(seed)
    centres = np.array([[2.0, 52.0], [4.3, 80.0], [3.2, 96.0]])
    which = rng.choice(3, rows, p=[0.3, 0.45, 0.25])
    return centres[which] + rng.normal(size=(rows, 2)) * [0.25, 5.0]


def fitted(folder: Path) -> Path:
    """A model file."""
    from marginax.mixture import GaussianMixture, save

    X = table(240, seed=0)
    start = time.perf_counter()
    mixture = GaussianMixture(
        3, method="nuts", n_draws=250, n_warmup=300, n_chains=4, random_state=0
    ).fit(X)
    save(folder / "clusters.mx", mixture, X)
    print(f"fitted in {time.perf_counter() - start:.0f} s")
    return folder / "clusters.mx"


def started(path: Path) -> tuple[subprocess.Popen[str], int]:
    """The service in a process of its own, and its port."""
    code = f"from marginax.serve import serve; serve({str(path)!r}, port=0)"
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if "http://" not in line:
        raise RuntimeError(f"the service did not start: {line!r}")
    print(f"ready in {time.perf_counter() - start:.0f} s")
    return process, int(line.split("http://", 1)[1].split("/", 1)[0].rsplit(":", 1)[1])


def load(port: int, requests: list[bytes], seconds: float, connections: int) -> dict[str, Any]:
    """Ask over several connections for some seconds."""
    taken: list[list[float]] = [[] for _ in range(connections)]
    wrong: Counter[str] = Counter()
    end = time.perf_counter() + seconds

    def ask(number: int) -> None:
        own, count = taken[number], number
        try:
            with closing(Connection(port)) as connection:
                while (begin := time.perf_counter()) < end:
                    status, body = connection.ask(requests[count % len(requests)])
                    own.append(time.perf_counter() - begin)
                    count += connections
                    if status != 200:
                        wrong[f"{status} {body[:80]!r}"] += 1
        except Exception as error:
            wrong[repr(error)] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(connections)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = time.perf_counter() - begin
    every = np.concatenate([np.asarray(own) for own in taken])
    p50, p99 = np.percentile(every, [50, 99]) * 1e3
    return {"rate": len(every) / total, "p50": p50, "p99": p99, "wrong": wrong, "count": len(every)}


def nonsense(count: int) -> Iterator[tuple[str, bytes]]:
    """Requests that must be refused: what is wrong with each, and its bytes."""
    rng = np.random.default_rng(1)
    good = json.dumps({"rows": table(20, 1).tolist()}).encode()
    large = b'{"rows": [' + b"[1.0, 2.0]," * 500_000 + b"[1, 2]]}"
    for number in range(count):
        kind = number % 10
        if kind == 0:
            cut = int(rng.integers(1, len(good) - 1))
            yield "cut off", request("/predict", good[:cut])
        elif kind == 1:
            body = bytearray(good)
            body[int(rng.integers(len(body)))] = 0xFF
            yield "not UTF-8", request("/predict_proba", bytes(body))
        elif kind == 2:
            yield "random bytes", request("/predict", rng.bytes(200))
        elif kind == 3:
            cell = ["NaN", "1e999", '"5.1"', "true", "[1]", "{}", "9" * 400][number // 10 % 7]
            yield "no number", request("/predict_proba", f'{{"rows": [[{cell}, 2.0]]}}'.encode())
        elif kind == 4:
            row = [1.0] * int(rng.choice([0, 1, 3, 50]))
            yield "wrong length", request("/predict", json.dumps({"rows": [row]}).encode())
        elif kind == 5:
            yield "unknown column", request("/predict", b'{"rows": [{"colour": 1}]}')
        elif kind == 6:
            yield "nested too deep", request("/predict", b"[" * int(rng.integers(1, 100_000)))
        elif kind == 7:
            yield (
                "too many rows",
                request("/predict", b'{"rows": [' + b"[1,2]," * 10_001 + b"[1,2]]}"),
            )
        elif kind == 8 and number % 100 == 8:
            yield "oversized", request("/predict", large)
        elif kind == 8:
            yield "oversized by its header", request("/predict", b"", "content-length: 99999999999")
        else:
            yield "no JSON type", request("/predict", good, "content-type: text/plain")


def refused(port: int) -> Counter[str]:
    """What was not refused as it should be, of much nonsense."""
    wrong: Counter[str] = Counter()
    connection = Connection(port)
    for kind, sent in nonsense(NONSENSE):
        try:
            status, body = connection.ask(sent)
        except OSError as error:
            status, body = 0, repr(error).encode()
        if not 400 <= status < 500 or b'"msg"' not in body:
            wrong[f"{kind}: {status} {body[:80]!r}"] += 1
        if status in (0, 408, 413):  # after these the service closes the connection
            connection.close()
            connection = Connection(port)
    connection.close()
    return wrong


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description="The service under load.")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load in all")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--model", type=Path, help="a model file of two columns of numbers")
    given = parser.parse_args()
    process = None
    wrong: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            process, port = started(given.model or fitted(Path(folder)))
            points, many = table(500, 2).tolist(), table(ROWS, 3).tolist()
            single = [request("/predict_proba", json.dumps({"rows": [p]}).encode()) for p in points]
            holes = [
                request("/predict_proba", json.dumps({"rows": [[None, p[1]]]}).encode())
                for p in points
            ]
            batch = [request("/predict_proba", json.dumps({"rows": many}).encode())]
            health = [request("/healthz", b"", method="GET")]
            jobs = {
                "single point": (single, 0.4),
                "single point, a cell missing": (holes, 0.15),
                f"{ROWS:,} points": (batch, 0.35),
                "/healthz (nothing computed)": (health, 0.1),
            }
            print(f"\n{'':30}  {'requests/s':>10}  {'p50 ms':>8}  {'p99 ms':>8}  {'requests':>8}")
            for name, (requests, share) in jobs.items():
                found = load(port, requests, share * given.seconds, given.connections)
                print(
                    f"{name:30}  {found['rate']:10.0f}  {found['p50']:8.2f}  {found['p99']:8.2f}  {found['count']:8,}"
                )
                wrong += found["wrong"]
            begin = time.perf_counter()
            wrong += refused(port)
            print(
                f"\n{NONSENSE:,} malformed or oversized requests in {time.perf_counter() - begin:.1f} s"
            )
            with closing(Connection(port)) as connection:
                for sent in (health[0], single[0]):
                    status, _ = connection.ask(sent)
                    if status != 200:
                        wrong[f"afterwards: {status}"] += 1
        finally:
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
    for what, count in wrong.items():
        print(f"WRONG, {count} times: {what}")
    print("no errors" if not wrong else f"{wrong.total()} errors")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
