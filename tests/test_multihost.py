"""Several processes that share the rows give what one gives, and one that dies takes the others with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "multihost.py"
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}


def command(out: Path, processes: int, devices: int = 1, *more: str) -> list[str]:
    numbers = ["--processes", str(processes), "--devices", str(devices), "--rows", "8000"]
    return [sys.executable, str(SCRIPT), *numbers, "--out", str(out), *more]


def run(out: Path, processes: int, devices: int = 1, *more: str) -> None:
    done = subprocess.run(
        command(out, processes, devices, *more), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def results(out: Path, process: int) -> dict[str, np.ndarray]:
    with np.load(out / f"process-{process}.npz") as found:
        return dict(found)


def check_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_all_processes_get_the_fit_and_the_draws_of_one_bit_for_bit(
    tmp_path: Path, processes: int
) -> None:
    run(tmp_path / "several", processes)
    run(tmp_path / "one", 1, processes)
    expected = results(tmp_path / "one", 0)
    assert expected["locs"].shape == (200, 3)
    np.testing.assert_allclose(np.sort(expected["locs_auto_loc"]), [-4, 0, 5], atol=0.15)
    for process in range(processes):
        check_same(results(tmp_path / "several", process), expected)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_and_the_run_goes_on_from_its_checkpoint(
    tmp_path: Path,
) -> None:
    more = ("--steps", "3000")
    interrupted, whole = tmp_path / "interrupted", tmp_path / "whole"
    launched = subprocess.Popen(
        command(interrupted, 2, 1, *more), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    checkpoint = interrupted / "fit.mx"
    deadline = time.monotonic() + 120
    while not checkpoint.exists():
        assert time.monotonic() < deadline
        assert launched.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = launched.communicate(timeout=60)
    assert launched.returncode == 1
    assert "process 1 of 2 was killed by signal 9; the others were ended" in errors
    assert str(checkpoint) in errors
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not (interrupted / "process-0.npz").exists()
    run(interrupted, 2, 1, *more)
    run(whole, 2, 1, *more)
    check_same(results(interrupted, 0), results(whole, 0))
