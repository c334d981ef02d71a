"""Large plates spread over devices: the same results, and errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import marginax as mx

SCRIPT = Path(__file__).with_name("devices_script.py")


@pytest.mark.slow
def test_three_devices_give_what_one_gives_also_of_rows_that_cannot_be_shared_equally() -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("devices") == 3
    spread = {name: found.pop(name) for name in list(found) if name.endswith("spread")}
    assert spread["10 rows are spread"]
    assert len(found) == 8
    # Sums of up to a hundred terms of order ten, in double precision.
    assert max(found.values()) < 100 * 100 * np.finfo(float).eps, found


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_count_that_is_none_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="the count must be a positive integer"):
        mx.devices(count)


def test_more_devices_than_there_are_are_refused_with_what_to_do() -> None:
    there = len(jax.devices())  # from here on their number is fixed
    with pytest.raises(ValueError, match=f"but JAX has {there} .*at the start of the program"):
        mx.devices(there + 1)


def test_rows_that_cannot_be_shared_equally_are_not_sharded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices = mx.devices(1)
    np.testing.assert_array_equal(devices.shard(np.arange(5.0)), np.arange(5.0))
    monkeypatch.setattr(type(devices), "local_count", 2)
    with pytest.raises(ValueError, match="5 rows cannot be shared equally by 2 devices"):
        devices.shard(np.arange(5.0))
