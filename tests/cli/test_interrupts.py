"""Ctrl-C ends a job wherever it arrives, with status 130 and without a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

# What is raised in a destructor goes nowhere, as in JAX's callback of the garbage collector.
LOST = """
import sys, time
from marginax.cli.interrupts import Interrupts

class Deaf:
    def __del__(self):
        raise KeyboardInterrupt

try:
    with Interrupts():
        Deaf()
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(7)
"""

# What notes that it was asked to stop returns in good order.
NOTED = """
import signal, sys
from marginax.cli.interrupts import Interrupts
from marginax.infer.running.interruption import interruptible

with Interrupts() as interrupts:
    interrupts.stop_if_asked()
    with interruptible() as asked:
        signal.raise_signal(signal.SIGINT)
    try:
        interrupts.stop_if_asked()
    except KeyboardInterrupt:
        sys.exit(7)
"""


def started(*arguments: Any) -> subprocess.Popen[str]:
    # Popen, not a shell's &, which would have interrupts ignored.
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.parametrize("program", [LOST, NOTED], ids=["lost", "noted"])
def test_an_interrupt_that_nobody_raised_is_raised(program: str):
    process = started("-c", program)
    _, said = process.communicate(timeout=50)
    assert process.returncode == 7, said
    assert said == ""


@pytest.mark.parametrize("seconds", [0.5, pytest.param(6.0, marks=pytest.mark.slow)])
def test_a_fit_that_is_interrupted_is_none(seconds: float, tmp_path: Path):
    rng = np.random.default_rng(0)
    pd.DataFrame({"a": rng.normal(size=500)}).to_csv(tmp_path / "data.csv", index=False)
    command = ["fit", tmp_path / "data.csv", "-k", "2..3", "-o", tmp_path / "model.mx"]
    process = started("-m", "marginax.cli", *command, "--method", "nuts", "--draws", 10**6)
    assert process.stderr is not None
    begun = process.stderr.readline()
    assert "fitting 2 components" in begun
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "stopped." in said
    assert "Traceback" not in said
    assert "fitting 3" not in said
    assert not (tmp_path / "model.mx").exists()
