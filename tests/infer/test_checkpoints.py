"""A run that is killed ends where the uninterrupted one does; what is saved is what was fitted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax import storage
from marginax.infer import (
    SVI,
    SVIRunResult,
    TraceEnum_ELBO,
    init_to_uniform,
    load,
    minibatches,
    save,
)
from marginax.infer.autoguide import AutoDelta, AutoNormal

KEY = jax.random.key(0)
DATA = np.array([-0.5, 0.0, 0.4, 4.0, 5.0, 5.5], np.float32)


def mixture(x: Any) -> None:
    locs = mx.sample("locs", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Bernoulli(0.4))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)


def narrow(x: Any) -> None:
    """The same sites, another density."""
    locs = mx.sample("locs", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    with mx.plate("data", len(x)):
        z = mx.sample("z", dist.Bernoulli(0.4))
        mx.sample("x", dist.Normal(locs[z], 0.9), obs=x)


def make_svi(optim: Any = None) -> SVI:
    guide = AutoNormal(mixture, init_loc_fn=init_to_uniform)
    return SVI(mixture, guide, optim or optax.adam(0.05), TraceEnum_ELBO())


def fit(steps: int, path: Path | None = None, **options: Any) -> SVIRunResult:
    options = {"every": 20, "checkpoint": path, "progress_bar": False} | options
    return make_svi().run(options.pop("key", KEY), steps, options.pop("data", DATA), **options)


def assert_identical(a: SVIRunResult, b: SVIRunResult) -> None:
    """Bit for bit, in all that a result holds."""
    ours, theirs = (storage.flatten([r.params, r.losses, r.gradient_norms]) for r in (a, b))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    ours, theirs = (
        r.state.leaves if hasattr(r.state, "leaves") else storage.flatten(r.state) for r in (a, b)
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert (a.stopped, a.evaluations) == (b.stopped, b.evaluations)


class Killed(BaseException):
    """What a test raises in place of a signal."""


@pytest.fixture(scope="module")
def whole() -> SVIRunResult:
    return fit(100)


def killed_at_write(number: int, monkeypatch: pytest.MonkeyPatch, path: Path, **options: Any):
    """A run that dies as it is about to write its checkpoint for the n-th time."""
    written, write = [], storage.write

    def dying(*args: Any) -> None:
        if len(written) == number:
            raise Killed
        written.append(write(*args))

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", dying)
        with pytest.raises(Killed):
            fit(100, path, **options)


@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_killed_run_goes_on_to_the_result_of_the_whole_one(
    number: int, whole: SVIRunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "run.ckpt"
    killed_at_write(number, monkeypatch, path)
    assert path.exists() == (number > 0)  # the first time before the first step
    assert_identical(fit(100, path), whole)


def test_an_old_style_key_serves_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    key = jax.random.PRNGKey(0)
    killed_at_write(1, monkeypatch, tmp_path / "run.ckpt", key=key)
    assert_identical(fit(100, tmp_path / "run.ckpt", key=key), fit(100, key=key))


def test_a_run_with_restarts_goes_on_with_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options: dict[str, Any] = {"num_restarts": 3, "keep_restarts": True}
    expected = fit(100, **options)
    killed_at_write(2, monkeypatch, tmp_path / "run.ckpt", **options)
    resumed = fit(100, tmp_path / "run.ckpt", **options)
    assert_identical(resumed, expected)
    assert resumed.restarts is not None
    assert expected.restarts is not None
    np.testing.assert_array_equal(resumed.restarts.losses, expected.restarts.losses)


def test_a_run_that_chose_its_start_remembers_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options: dict[str, Any] = {"num_restarts": 4, "select": "initial"}
    expected = fit(100, **options)
    killed_at_write(1, monkeypatch, tmp_path / "run.ckpt", **options)
    resumed = fit(100, tmp_path / "run.ckpt", **options)
    assert_identical(resumed, expected)
    np.testing.assert_array_equal(resumed.initial_losses, expected.initial_losses)


def test_a_run_over_batches_goes_on_with_the_batch_that_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def model(x: Any) -> None:
        loc = mx.sample("loc", dist.Normal(0.0, 10.0))
        with mx.plate("data", 6, subsample_size=len(x)):
            mx.sample("x", dist.Normal(loc, 1.0), obs=x)

    svi = SVI(
        model, AutoDelta(model, init_loc_fn=init_to_uniform), optax.sgd(0.01), TraceEnum_ELBO()
    )

    def run(path: Path | None) -> SVIRunResult:
        batches = minibatches(DATA, 2)
        options: dict[str, Any] = {"every": 10, "progress_bar": False, "checkpoint": path}
        return svi.run(KEY, 50, batches=batches, **options)

    written, write = [], storage.write

    def dying(*args: Any) -> None:
        if len(written) == 2:
            raise Killed
        written.append(write(*args))

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", dying)
        with pytest.raises(Killed):
            run(tmp_path / "run.ckpt")
    assert_identical(run(tmp_path / "run.ckpt"), run(None))


def test_a_finished_run_is_read_and_a_longer_one_goes_on_from_it(
    whole: SVIRunResult, tmp_path: Path
):
    path = tmp_path / "run.ckpt"
    assert_identical(fit(60, path), fit(60))
    assert_identical(fit(100, path), whole)
    assert_identical(fit(100, path), whole)


def test_a_converged_run_is_not_begun_again(tmp_path: Path):
    svi = SVI(mixture, AutoDelta(mixture, init_loc_fn=init_to_uniform), "lbfgs", TraceEnum_ELBO())
    options: dict[str, Any] = {"checkpoint": tmp_path / "run.ckpt", "progress_bar": False}
    first = svi.run(KEY, 500, DATA, **options)
    assert first.stopped == "converged"
    assert_identical(svi.run(KEY, 500, DATA, **options), first)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"key": jax.random.key(1)}, "key"),
        ({"data": DATA + 1}, "data"),
        ({"num_restarts": 2}, "restarts"),
        ({"stable_update": True}, "stable_update"),
        ({"tolerance": 0.5}, "tolerance"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(options: Any, what: str, tmp_path: Path):
    path = tmp_path / "run.ckpt"
    fit(20, path)
    with pytest.raises(mx.ModelError, match=f"another run: its {what} was.*Remove it"):
        fit(20, path, **options)


def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path):
    path = tmp_path / "run.ckpt"
    fit(20, path)
    guide = make_svi().guide
    others = {
        "step size": SVI(mixture, guide, optax.adam(0.06), TraceEnum_ELBO()),
        "particles": SVI(mixture, guide, optax.adam(0.05), TraceEnum_ELBO(num_particles=2)),
        "model": SVI(narrow, guide, optax.adam(0.05), TraceEnum_ELBO()),
    }
    for svi in others.values():
        with pytest.raises(mx.ModelError, match="another run: its program was"):
            svi.run(KEY, 40, DATA, checkpoint=path, progress_bar=False)
    with pytest.raises(storage.StorageError, match="optimiser"):
        make_svi(optax.sgd(0.1)).run(KEY, 40, DATA, checkpoint=path, progress_bar=False)


def test_a_checkpoint_of_other_batches_or_another_beginning_is_refused(tmp_path: Path):
    svi = SVI(
        mixture, AutoDelta(mixture, init_loc_fn=init_to_uniform), optax.sgd(0.01), TraceEnum_ELBO()
    )
    options: dict[str, Any] = {"checkpoint": tmp_path / "run.ckpt", "progress_bar": False}
    svi.run(KEY, 4, batches=minibatches(DATA, 6), **options)
    with pytest.raises(mx.ModelError, match="its batches was"):
        svi.run(KEY, 8, batches=minibatches(DATA, 6, seed=1), **options)
    start = {"locs_auto_loc": np.zeros(2)}
    with pytest.raises(mx.ModelError, match="its beginning was"):
        svi.run(KEY, 8, batches=minibatches(DATA, 6), init_params=start, **options)


def test_fewer_steps_than_were_taken_are_refused(tmp_path: Path):
    fit(20, tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match="has 20 steps already"):
        fit(10, tmp_path / "run.ckpt")


def test_arguments_that_cannot_be_told_from_others_are_refused(tmp_path: Path):
    def model(x: Any, settings: Any) -> None:
        mixture(x)

    svi = SVI(
        model, AutoDelta(model, init_loc_fn=init_to_uniform), optax.sgd(0.01), TraceEnum_ELBO()
    )
    with pytest.raises(TypeError, match="checkpoint.*is a object"):
        svi.run(KEY, 4, DATA, object(), checkpoint=tmp_path / "run.ckpt", progress_bar=False)


def test_a_folder_that_is_not_there_shows_before_the_first_step(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        fit(10**9, tmp_path / "nowhere" / "run.ckpt")


def test_constrained_parameters_of_a_finished_run_are_read_as_they_were(tmp_path: Path):
    def model() -> None:
        corr = mx.param("corr", jnp.eye(4), constraint=dist.constraints.corr_cholesky)
        mx.factor("f", -jnp.sum((corr - 0.3) ** 2))

    svi = SVI(model, lambda: None, optax.adam(0.1), TraceEnum_ELBO())
    options: dict[str, Any] = {"checkpoint": tmp_path / "run.ckpt", "progress_bar": False}
    first = svi.run(KEY, 30, **options)
    np.testing.assert_array_equal(svi.run(KEY, 30, **options).params["corr"], first.params["corr"])


def test_a_damaged_checkpoint_and_a_file_of_another_kind_are_errors(tmp_path: Path):
    path = tmp_path / "run.ckpt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(storage.StorageError, match=r"run\.ckpt"):
        fit(20, path)
    save(path, fit(20))
    with pytest.raises(storage.StorageError, match="svi result"):
        fit(20, path)


SCRIPT = """
import sys
import numpy as np
import jax, optax
from test_checkpoints import DATA, KEY, make_svi
result = make_svi().run(KEY, 40_000, DATA, checkpoint=sys.argv[1], every=2000, progress_bar=False)
np.savez(sys.argv[2], losses=result.losses, **{k: np.asarray(v) for k, v in result.params.items()})
"""


def run_and_kill(folder: Path, kills: int) -> Any:
    """Run the script, killing it at random moments after it began to write; what it ends with."""
    rng = np.random.default_rng(kills)
    checkpoint, out = folder / "run.ckpt", folder / "out.npz"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    killed = 0
    while not out.exists():
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, checkpoint, out], env=environment)
        if killed < kills:
            before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            while process.poll() is None and (
                not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before
            ):
                time.sleep(0.002)
            time.sleep(rng.uniform(0.0, 0.05))
            process.send_signal(signal.SIGKILL)
            killed += 1
            assert process.wait(timeout=120) == -signal.SIGKILL  # it had not ended by itself
        assert process.wait(timeout=300) in (0, -signal.SIGKILL)
    return np.load(out)


def test_a_run_that_is_killed_for_good_ends_bit_for_bit_where_the_whole_one_does(tmp_path: Path):
    (tmp_path / "killed").mkdir()
    killed = run_and_kill(tmp_path / "killed", kills=1)
    whole = make_svi().run(KEY, 40_000, DATA, progress_bar=False)
    np.testing.assert_array_equal(killed["losses"], whole.losses)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(killed[name], value)


@pytest.mark.slow
def test_ten_kills_leave_ten_identical_results(tmp_path: Path):
    results = []
    for i in range(10):
        (tmp_path / str(i)).mkdir()
        results.append(run_and_kill(tmp_path / str(i), kills=1 + i % 3))
    for other in results[1:]:
        for name in results[0].files:
            np.testing.assert_array_equal(other[name], results[0][name])


# -- fitted results


def test_a_saved_result_is_what_was_fitted(tmp_path: Path):
    for options in ({}, {"num_restarts": 3, "keep_restarts": True}):
        result = fit(30, **options)
        save(tmp_path / "fit.mx", result)
        loaded = load(tmp_path / "fit.mx")
        assert_identical(loaded, result)
        for name, value in result.component_use.items():
            np.testing.assert_array_equal(loaded.component_use[name], value)
        if result.restarts is not None:
            assert loaded.restarts is not None
            assert str(loaded.restarts) == str(result.restarts)
            assert loaded.restarts.params is not None


def test_a_run_goes_on_from_a_loaded_state(whole: SVIRunResult, tmp_path: Path):
    save(tmp_path / "fit.mx", fit(40))
    loaded = load(tmp_path / "fit.mx")
    rest = fit(60, init_state=loaded.state)
    np.testing.assert_array_equal(np.concatenate([loaded.losses, rest.losses]), whole.losses)
    save(tmp_path / "again.mx", loaded)
    assert_identical(load(tmp_path / "again.mx"), loaded)


def test_a_guide_reads_loaded_parameters(tmp_path: Path):
    result = fit(30)
    save(tmp_path / "fit.mx", result)
    fresh = AutoNormal(mixture)
    loaded = load(tmp_path / "fit.mx")
    expected = make_svi().guide.median(result.params, DATA)  # pyright: ignore
    np.testing.assert_array_equal(fresh.median(loaded.params, DATA)["locs"], expected["locs"])


def test_a_file_that_holds_something_else_is_an_error(tmp_path: Path):
    storage.write(tmp_path / "other", {"x": jnp.ones(2)}, {"kind": "photograph"})
    with pytest.raises(storage.StorageError, match="photograph"):
        load(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
