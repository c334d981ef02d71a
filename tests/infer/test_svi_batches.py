"""Data that come in batches, runs that are interrupted, and losses that are not finite."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.infer import SVI, TraceEnum_ELBO, init_to_value, minibatches
from marginax.infer.autoguide import AutoDelta
from marginax.infer.running.interruption import interruptible

KEY = jax.random.key(0)
ROWS = 400
RNG = np.random.default_rng(0)
X = np.where(RNG.random(ROWS) < 0.3, RNG.normal(-3, 1, ROWS), RNG.normal(2, 1, ROWS)).astype("f4")
START = init_to_value(values={"locs": np.array([-1.0, 1.0]), "weight": 0.5})


def mixture(x: Any, rows: int = ROWS) -> None:
    """With its rows, or with a batch of them."""
    weight = mx.sample("weight", dist.Beta(1.0, 1.0))
    locs = mx.sample("locs", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    with mx.plate("data", rows, subsample_size=len(x)):
        z = mx.sample("z", dist.Bernoulli(weight))
        mx.sample("x", dist.Normal(locs[z], 1.0), obs=x)


def svi_of(model: Any = mixture, optim: Any = None) -> SVI:
    optim = optim or optax.adam(0.05)
    return SVI(model, AutoDelta(model, init_loc_fn=START), optim, TraceEnum_ELBO())


def fit(steps: int, *args: Any, model: Any = mixture, optim: Any = None, **options: Any) -> Any:
    return svi_of(model, optim).run(KEY, steps, *args, progress_bar=False, **options)


PIECES = np.split(X, 8)


@pytest.fixture(scope="module")
def by_hand() -> tuple[np.ndarray, Any]:
    """Adam on the loss of one piece after the other: three rounds of losses, and the parameters after the first."""
    svi = svi_of()
    state, losses, params = svi.init(jax.random.split(KEY, 1)[0], PIECES[0]), [], None
    update = jax.jit(svi.update)
    for batch in PIECES * 3:
        state, loss = update(state, jnp.asarray(batch))
        losses.append(float(loss))
        if len(losses) == len(PIECES):
            params = svi.get_params(state)
    return np.array(losses), params


def test_each_step_sees_one_batch(by_hand: Any):
    losses, params = by_hand
    result = fit(8, batches=PIECES)
    np.testing.assert_allclose(result.losses, losses[:8], rtol=1e-5)
    for name, value in params.items():
        np.testing.assert_allclose(result.params[name], value, rtol=1e-5)


def test_a_list_begins_again_and_a_generator_ends_the_run(by_hand: Any):
    losses = by_hand[0][:16]
    result = fit(16, batches=PIECES)
    assert result.stopped == "num_steps"
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5)
    ended = fit(16, batches=iter(PIECES))
    assert ended.stopped == "no more batches"
    np.testing.assert_allclose(ended.losses, losses[:8], rtol=1e-5)


def test_a_memory_map_is_read_in_minibatches(tmp_path: Path):
    file = np.memmap(tmp_path / "x", np.float32, "w+", shape=(ROWS,))
    file[:] = X
    decay = optax.adam(optax.exponential_decay(0.1, 1, 0.995))
    result = fit(1200, batches=minibatches(file, 50), optim=decay)
    whole = fit(2000, X, optim=optax.adam(0.05))
    for name, value in whole.params.items():
        # The step size at the end, 0.1 * 0.995**1200 = 2e-4, leaves little noise.
        np.testing.assert_allclose(result.params[name], value, atol=0.05)


def test_record_batches_become_keyword_arguments(by_hand: Any):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"x": X})
    result = fit(8, batches=table.to_batches(max_chunksize=50))
    np.testing.assert_allclose(result.losses, by_hand[0][:8], rtol=1e-5)


def test_a_smaller_last_batch_and_plain_values_are_fine():
    batches = [
        {"x": X[:150], "rows": 400},
        {"x": X[150:300], "rows": 400},
        {"x": X[300:], "rows": 400},
    ]
    result = fit(6, batches=batches)
    assert np.isfinite(result.losses).all()
    plain = fit(6, batches=[X[:150], X[150:300], X[300:]])
    np.testing.assert_array_equal(result.losses, plain.losses)


def test_restarts_share_the_batches(by_hand: Any):
    result = fit(8, batches=PIECES, num_restarts=2, keep_restarts=True)
    for losses in result.restarts.losses:
        np.testing.assert_allclose(losses, by_hand[0][:8], rtol=1e-5)


def test_what_is_no_array_and_no_plain_value_is_refused():
    with pytest.raises(TypeError, match="of a batch is a set"):
        fit(3, batches=[(X[:50], {1, 2})])


def test_the_bar_shows_the_throughput(capfd: pytest.CaptureFixture[str]):
    svi_of().run(KEY, 8, batches=PIECES)
    assert "rows/s" in capfd.readouterr().err


def test_an_array_is_no_iterable_of_batches():
    with pytest.raises(TypeError, match=r"minibatches\(data, batch_size\)"):
        fit(8, batches=X)


def test_a_parameter_for_each_element_of_a_batched_plate_is_refused():
    def model(x: Any) -> None:
        with mx.plate("data", ROWS, subsample_size=len(x)):
            loc = mx.sample("loc", dist.Normal(0.0, 1.0))
            mx.sample("x", dist.Normal(loc, 1.0), obs=x)

    def local(x: Any) -> None:
        with mx.plate("data", ROWS, subsample_size=len(x)):
            loc = mx.param("loc_of_row", jnp.zeros(ROWS), event_dim=0)
            mx.sample("loc", dist.Delta(loc))

    svi = SVI(model, local, optax.sgd(0.1), TraceEnum_ELBO())
    with pytest.raises(mx.ModelError, match="'loc_of_row'.*plate 'data'.*which elements"):
        svi.run(KEY, 3, batches=PIECES, progress_bar=False)


def test_an_error_of_the_reader_arrives_and_leaves_no_thread_behind():
    def broken() -> Iterator[Any]:
        yield X[:50]
        raise OSError("the disk is gone")

    before = threading.active_count()
    with pytest.raises(OSError, match="the disk is gone"):
        fit(8, batches=broken())
    assert threading.active_count() == before


def test_a_bad_row_in_a_later_batch_is_found_with_its_value():
    bad = PIECES[3].copy()
    bad[7] = np.nan
    batches = [*PIECES[:3], bad, *PIECES[4:]]
    message = r"not finite at step 3: site 'x': the observed value has NaN.*index 7"
    with pytest.raises(mx.ModelError, match=message):
        fit(8, batches=batches)


# -- Ctrl-C


@pytest.fixture
def listening() -> Iterator[None]:
    """In the background, where tests may run, a process begins with its ears closed."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupting(after: int) -> Iterator[Any]:
    """Batches, with a Ctrl-C while one of them is read."""
    for i in range(1000):
        if i == after:
            os.kill(os.getpid(), signal.SIGINT)
        yield PIECES[i % 8]


@pytest.mark.usefixtures("listening")
def test_an_interrupted_run_returns_what_there_is(by_hand: Any):
    result = fit(1000, batches=interrupting(10))
    assert result.stopped == "interrupted"
    assert 5 < len(result.losses) < 20  # batches are read ahead, and the signal comes between two
    np.testing.assert_allclose(result.losses, by_hand[0][: len(result.losses)], rtol=1e-5)
    rest = fit(3, batches=PIECES, init_state=result.state)
    assert np.isfinite(rest.losses).all()


@pytest.mark.usefixtures("listening")
def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path: Path):
    path = tmp_path / "run.ckpt"
    assert fit(40, batches=interrupting(10), checkpoint=path).stopped == "interrupted"
    np.testing.assert_array_equal(
        fit(40, batches=PIECES, checkpoint=path).losses, fit(40, batches=PIECES).losses
    )


@pytest.mark.usefixtures("listening")
def test_a_second_interruption_is_an_exception_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_process_that_ignores_interruptions_goes_on_ignoring_them():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible() as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert not interrupted()
    signal.signal(signal.SIGINT, before)


def test_in_other_threads_nothing_is_interrupted():
    seen = []

    def run() -> None:
        with interruptible() as interrupted:
            seen.append(interrupted())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]


# -- which site is not finite


def test_a_latent_that_leaves_the_support_of_its_likelihood_is_named_with_its_value():
    def model(x: Any) -> None:
        with mx.plate("groups", 2):
            loc = mx.sample("locs", dist.Normal(0.0, 10.0))
        with mx.plate("data", 3):
            mx.sample("x", dist.Exponential(jnp.sqrt(loc[jnp.array([0, 0, 1])])), obs=x)

    start = init_to_value(values={"locs": np.array([2.0, 0.05])})
    svi = SVI(model, AutoDelta(model, init_loc_fn=start), optax.sgd(1.0), TraceEnum_ELBO())
    with pytest.raises(
        mx.ModelError,
        match=r"site 'x': its log density in the model is nan at index.*at step \d.*value",
    ):
        svi.run(KEY, 50, jnp.array([1.0, 1.0, 30.0]), progress_bar=False)


def test_an_impossible_observation_under_a_sum_is_found():
    def model(x: Any) -> None:
        p = mx.param("p", 0.0)
        with mx.plate("data", 3):
            z = mx.sample("z", dist.Bernoulli(0.5))
            mx.factor("allowed", jnp.where((x > 2) & (p < 1), -jnp.inf, -0.1 * z))

    svi = SVI(model, lambda x: None, optax.sgd(0.1), TraceEnum_ELBO())
    with pytest.raises(
        mx.ModelError,
        match=r"'allowed': its log density in the model is -inf at index \(2,\) at step 0",
    ):
        svi.run(KEY, 5, jnp.array([0.0, 1.0, 3.0]), progress_bar=False)


def test_the_branch_of_the_guide_that_is_at_fault_is_found():
    def model() -> None:
        mx.sample("wide", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(0.0, 1.0))

    def guide() -> None:
        width = mx.param("width", 0.5)
        wide = mx.sample("wide", dist.Bernoulli(0.3), infer={"enumerate": "sequential"})
        mx.sample("x", dist.Normal(0.0, jnp.sqrt(width) if wide else 1.0))

    svi = SVI(model, guide, optax.sgd(-9.0), TraceEnum_ELBO())
    with pytest.raises(
        mx.ModelError, match="site 'x': its log density in the guide is nan at step"
    ):
        svi.run(KEY, 50, progress_bar=False)


def test_a_site_of_the_guide_is_found():
    def model() -> None:
        mx.sample("x", dist.Normal(0.0, 1.0))

    def guide() -> None:
        width = mx.param("width", 0.5)
        mx.sample("x", dist.Normal(0.0, jnp.sqrt(width)))

    svi = SVI(model, guide, optax.sgd(-3.0), TraceEnum_ELBO())
    with pytest.raises(
        mx.ModelError,
        match=r"site 'x': its log density in the guide is nan at step \d+, where its value",
    ):
        svi.run(KEY, 50, progress_bar=False)
