"""A run of MCMC that is killed ends with the draws of the uninterrupted one; what is stored is all there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from damages import DAMAGES, damage

import marginax as mx
import marginax.distributions as dist
import marginax.infer.mcmc.checkpoint as checkpoint
import marginax.infer.mcmc.draws as draws_module
import marginax.infer.mcmc.run as run_module
import marginax.infer.mcmc.sampling as sampling
from marginax import storage
from marginax.infer import MCMC, NUTS, init_to_value

# Warm-up is short, for it is not what is tested.
pytestmark = pytest.mark.filterwarnings("ignore:.*after warm-up diverged")

KEY = jax.random.key(3)
DATA = np.array([-0.5, 0.2, 3.1, 2.7], np.float32)


def mixture(x: Any) -> None:
    weight = mx.sample("weight", dist.Beta(2.0, 2.0))
    locs = mx.sample("locs", dist.Normal(jnp.array([0.0, 3.0]), 1.0).to_event(1))
    mx.deterministic("gap/of", locs[1] - locs[0])
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Bernoulli(weight))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch):
    """So that a short run has many of them."""
    monkeypatch.setattr(draws_module, "MOST_ROWS", 16)


def run(
    folder: Path | None = None,
    samples: int = 100,
    data: Any = DATA,
    key: Any = KEY,
    kernel: Any = None,
    start: Any = None,
    **options: Any,
) -> MCMC:
    options = {"num_warmup": 40, "num_chains": 2, "thinning": 2, "progress_bar": False} | options
    mcmc = MCMC(NUTS(mixture, **(kernel or {})), num_samples=samples, **options)
    mcmc.run(key, data, init_params=start, checkpoint=folder, checkpoint_seconds=0.0)
    return mcmc


def assert_identical(a: MCMC, b: MCMC) -> None:
    """Bit for bit, in draws, reports and where the chains are."""
    for ours, theirs in (
        (a.get_samples(True), b.get_samples(True)),
        (a.get_extra_fields(True), b.get_extra_fields(True)),
        (storage.flatten(a.last_state), storage.flatten(b.last_state)),
    ):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


class Killed(BaseException):
    """What a test raises in place of a signal."""


@pytest.fixture(scope="module")
def whole() -> MCMC:
    return run()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[MCMC, Path]:
    """A run, and what it has left on disk; to be copied before it is changed."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws_module, "MOST_ROWS", 16)
        return run(folder), folder


@pytest.fixture
def copied(finished: tuple[MCMC, Path], tmp_path: Path) -> Path:
    """The same folder, to be harmed."""
    return Path(shutil.copytree(finished[1], tmp_path / "copied"))


def killed_at_write(number: int, monkeypatch: pytest.MonkeyPatch, folder: Path, **options: Any):
    """A run that dies as it is about to write where it stands for the n-th time."""
    written, write = [], run_module.write_run

    def dying(*args: Any) -> None:
        if len(written) == number:
            raise Killed
        written.append(write(*args))

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_run", dying)
        with pytest.raises(Killed):
            run(folder, **options)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that dies in its warm-up; to be copied."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws_module, "MOST_ROWS", 16)
        killed_at_write(2, patch, folder)
    return folder


@pytest.mark.parametrize("number", [0, 3, 8])
def test_a_killed_run_goes_on_to_the_draws_of_the_whole_one(
    number: int, whole: MCMC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In warm-up (3), and when chunks are on disk that no checkpoint counts yet (8)."""
    killed_at_write(number, monkeypatch, tmp_path)
    assert (tmp_path / "state").exists() == (number > 0)
    assert (tmp_path / "draws.zarr").exists() == (number > 0)
    assert_identical(run(tmp_path), whole)


def test_draws_are_on_disk_for_other_programs(whole: MCMC, finished: tuple[MCMC, Path]):
    mcmc, folder = finished
    assert_identical(mcmc, whole)
    stored: Any = zarr.open_group(str(folder / "draws.zarr"), mode="r")
    locs = stored["samples/locs"]
    assert locs.shape == (2, 50, 2)
    assert locs.chunks == (2, 16, 2)
    np.testing.assert_array_equal(locs[:], whole.get_samples(True)["locs"])
    fields = {name: array[:] for name, array in stored["sample_stats"].arrays()}
    assert fields.keys() == whole.get_extra_fields().keys()
    assert fields["diverging"].dtype == bool


@pytest.mark.slow
def test_a_finished_run_is_read_back_and_goes_on_if_more_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(tmp_path, samples=60)

    def never(*args: Any) -> None:
        raise AssertionError("an iteration was run again")

    with monkeypatch.context() as patch:
        patch.setattr(draws_module.DrawStore, "append", never)
        assert run(tmp_path, samples=60).get_samples()["weight"].shape == (60,)
    assert_identical(run(tmp_path), run())
    with pytest.raises(ValueError, match="has 140 iterations already, more than the 60 asked for"):
        run(tmp_path, samples=20)
    assert_identical(run(tmp_path), run())


def test_fewer_draws_than_there_are_is_refused_and_takes_none_away(tmp_path: Path):
    """Also while all of them wait for their chunk."""
    before = run(tmp_path, samples=20)
    with pytest.raises(ValueError, match="more than the 50 asked for"):
        run(tmp_path, samples=10)
    stored: Any = zarr.open_group(str(tmp_path / "draws.zarr"), mode="r")
    np.testing.assert_array_equal(stored["samples/locs"][:], before.get_samples(True)["locs"])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"data": DATA + 1}, "program and data"),
        ({"key": jax.random.key(4)}, "key"),
        ({"num_warmup": 41}, "num_warmup"),
        ({"num_chains": 3}, "num_chains"),
        ({"thinning": 1}, "thinning"),
        ({"kernel": {"target_accept_prob": 0.9}}, "program and data"),
        ({"kernel": {"step_size": 0.5}}, "beginning"),
        ({"kernel": {"init_strategy": init_to_value(values={"weight": 0.4})}}, "beginning"),
        ({"start": {"weight": np.zeros(()), "locs": np.zeros(2)}}, "beginning"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    change: Any, what: str, killed: Path, tmp_path: Path
):
    folder = Path(shutil.copytree(killed, tmp_path / "copied"))
    with pytest.raises(mx.ModelError, match=f"another run: its {what} was"):
        run(folder, **change)


def read_back(folder: Path) -> dict[str, np.ndarray]:
    """The draws that a checkpoint counts, without running anything; those that wait as they are."""
    saved = checkpoint.read_run(folder)
    if saved is None:
        return {}
    disk = draws_module.OnDisk(folder / "draws.zarr", 2, 50, saved.chunk, saved.written)
    stored = draws_module.Stored(disk, saved.flushed)
    return stored.samples() | stored.fields() | {"pending": saved.pending, **saved.leaves}


def test_damage_is_an_error_that_names_the_file_or_does_no_harm(
    whole: MCMC, finished: tuple[MCMC, Path], tmp_path: Path
):
    """Also where what is found is itself as it was written: gone, exchanged, of an earlier moment, of another run."""
    good, copy = finished[1], tmp_path / "copy"
    expected = read_back(good)
    assert set(whole.get_samples()) < set(expected)
    assert (good / "draws.zarr/sample_stats/diverging/c/0/1").exists()  # though all are False
    rng = np.random.default_rng(0)
    kinds, refused = dict.fromkeys(DAMAGES, 0), 0
    for number in range(250):
        shutil.copytree(good, copy)
        kind = list(DAMAGES)[number % len(DAMAGES)]
        harmed = damage(copy, kind, rng)
        try:
            found = read_back(copy)
        except storage.StorageError as error:
            kinds[kind] += any(str(file) in str(error) for file in harmed)
            refused += 1
        else:
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                assert found[name].tobytes() == value.tobytes(), (kind, harmed, name)
            if number % 50 == 0:  # and the whole run, with the draws that wait
                assert_identical(run(copy), whole)
        shutil.rmtree(copy)
    assert sum(kinds.values()) == refused
    assert min(kinds.values()) > 10


def test_damage_while_it_runs_is_an_error(tmp_path: Path):
    mcmc = run(tmp_path)
    mcmc.get_samples()
    for chunk in ("c/0/1/0", "c/0/3/0"):  # a complete one, and the last
        file = tmp_path / "draws.zarr/samples/locs" / chunk
        content = file.read_bytes()
        for change in (file.unlink, lambda file=file: file.write_bytes(b"")):
            change()
            with pytest.raises(storage.StorageError, match=f"{file}: this file is"):
                mcmc.get_samples()
            file.write_bytes(content)
        mcmc.get_samples()


def test_draws_without_their_state_are_not_thrown_away(copied: Path):
    (copied / "state").unlink()
    with pytest.raises(storage.StorageError, match="state: this file is gone"):
        run(copied)
    assert (copied / "draws.zarr/samples/locs/c/0/0/0").exists()


def test_other_programs_do_not_take_a_lost_or_damaged_chunk_for_draws(copied: Path):
    file = copied / "draws.zarr/samples/locs/c/0/1/0"
    content = bytearray(file.read_bytes())
    locs: Any = zarr.open_group(str(copied / "draws.zarr"), mode="r")["samples/locs"]
    for bit in range(0, 8 * len(content), 97):
        damaged = content.copy()
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with pytest.raises((RuntimeError, ValueError)):
            locs[:]
    file.unlink()
    assert np.isnan(locs[:, 16:32]).all()


def interrupt_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during the n-th call of the compiled block."""
    calls, after = [], sampling._after

    def interrupted(*args: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            signal.raise_signal(signal.SIGINT)
        return after(*args)

    monkeypatch.setattr(sampling, "_after", interrupted)


def test_ctrl_c_keeps_the_draws_so_far_and_the_run_can_go_on(
    whole: MCMC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "QUICK", 0.0)  # one iteration a call
        interrupt_at(40 + 21, patch)
        mcmc = run(tmp_path)
    count = mcmc.get_samples(True)["weight"].shape[1]
    assert count == 10
    assert f"interrupted after {count} of 50 draws" in capsys.readouterr().err
    for name, draws in mcmc.get_samples(True).items():
        np.testing.assert_array_equal(draws, whole.get_samples(True)[name][:, :count])
    assert_identical(run(tmp_path), whole)


def test_ctrl_c_before_there_is_a_draw_is_a_keyboard_interrupt(monkeypatch: pytest.MonkeyPatch):
    interrupt_at(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt, match="before there was a draw"):
        run()


def test_ctrl_c_in_the_last_call_changes_nothing(whole: MCMC, monkeypatch: pytest.MonkeyPatch):
    # As many calls in both runs, however long they take.
    monkeypatch.setattr(sampling, "QUICK", np.inf)
    with monkeypatch.context() as patch:
        calls, after = [], sampling._after
        patch.setattr(sampling, "_after", lambda *a: calls.append(None) or after(*a))
        run()
    interrupt_at(len(calls), monkeypatch)
    assert_identical(run(), whole)


SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
import marginax as mx, marginax.distributions as dist
import marginax.infer.mcmc.draws as draws
import marginax.infer.mcmc.sampling as sampling

draws.MOST_ROWS = 16
sampling.QUICK = 0.0  # short calls: many moments to be killed at

def mixture(x):
    weight = mx.sample("weight", dist.Beta(2.0, 2.0))
    locs = mx.sample("locs", dist.Normal(jnp.array([0.0, 3.0]), 1.0).to_event(1))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Bernoulli(weight))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)

folder = sys.argv[1]
x = jnp.array([-0.5, 0.2, 3.1, 2.7])
mcmc = mx.infer.MCMC(mx.infer.NUTS(mixture), num_warmup=100, num_samples=400, num_chains=2,
                     progress_bar=False)
mcmc.run(jax.random.key(0), x, checkpoint=folder, checkpoint_seconds=0.0)
arrays = mcmc.get_samples(True) | mcmc.get_extra_fields(True)
np.savez(folder + "/result.npz", **{name: np.asarray(value) for name, value in arrays.items()})
"""


def finish(folder: Path, kills: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Run the script to its end, however often it is killed with SIGKILL at random moments on the way."""
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    folder.mkdir()
    while True:
        process = subprocess.Popen(command)
        if kills and (folder / "state").exists():
            begun = (folder / "state").stat().st_mtime_ns
            while (folder / "state").stat().st_mtime_ns == begun and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.5))
        elif kills:
            while not (folder / "state").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.5))
        if kills and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills -= 1
            continue
        assert process.wait() == 0
        with np.load(folder / "result.npz") as result:
            return dict(result)


@pytest.mark.slow
def test_ten_runs_killed_at_random_moments_end_with_the_same_draws(tmp_path: Path):
    rng = np.random.default_rng(0)
    expected = finish(tmp_path / "whole", 0, rng)
    for number in range(10):
        found = finish(tmp_path / str(number), 1 + number % 3, rng)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
