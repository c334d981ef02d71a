"""`explain`: what a model costs, told before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import marginax as mx
import marginax.distributions as dist
import marginax.marginal.explained as explained
from marginax.errors import ModelError
from marginax.marginal.explanation import Spent


def model(data: Any, components: int = 3) -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(components)))
    w = mx.sample("w", dist.Bernoulli(0.3))
    with mx.plate("data", len(data)):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("count", dist.Poisson(2.0))
        mx.sample("x", dist.Normal(1.0 * z + w, 1.0), obs=data)


def test_the_graph_in_fields() -> None:
    e = mx.marginalize(model).explain(np.zeros(7), show=False)
    assert {v.name: (v.distribution, v.size, v.plates, v.parents) for v in e.variables} == {
        "w": ("Bernoulli", 2, (), ()),
        "z": ("Categorical", 3, ("data",), ("weights",)),
    }
    factors = {f.name: f for f in e.factors}
    assert factors["x"].variables == ("w", "z")
    assert factors["x"].is_observed
    assert factors["weights"].variables == ()
    assert e.plates == {"data": 7}
    assert e.plan.order == ("z", "w")
    assert e.flops == e.plan.flops > 0
    assert e.peak_bytes == 7 * 3 * 2 * 4
    assert e.not_marginalized == {
        "weights": "Dirichlet is continuous",
        "count": "Poisson has infinitely many values. State a range that holds nearly all of them, "
        "infer={'support': (0, 100)}",
    }


def test_the_table_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    e = mx.marginalize(model).explain(np.zeros(7))
    printed = capsys.readouterr().out
    assert printed.strip() == str(e).strip()
    for words in (
        "Summed out",
        "z         Categorical   3       data    weights",
        "sum out z in data",
        "multiply",
        "largest array 168 B",
        "Poisson has infinitely many values",
    ):
        assert words in printed


def test_it_is_silent_when_asked() -> None:
    mx.marginalize(model).explain(np.zeros(7), show=False)


def test_shapes_are_enough_and_nothing_is_computed() -> None:
    """A hundred billion rows, of which there is not one."""
    rows = jax.ShapeDtypeStruct((10**11,), jnp.float32)
    e = mx.marginalize(model).explain(rows, components=5, show=False)
    assert e.plates == {"data": 10**11}
    assert e.peak_bytes == 10**11 * 5 * 2 * 4
    assert "TiB" in str(e)


def test_shapes_and_values_may_be_mixed() -> None:
    data = jax.ShapeDtypeStruct((4,), jnp.float32)
    sizes = {v.name: v.size for v in mx.marginalize(model).explain(data, 4, show=False).variables}
    assert sizes == {"w": 2, "z": 4}


def test_nothing_to_sum_out_is_told() -> None:
    m = mx.marginalize(lambda: mx.sample("x", dist.Normal(0.0, 1.0), obs=1.0))
    assert "nothing to eliminate" in str(m.explain(show=False))


def test_what_is_refused_is_refused_here_too() -> None:
    def crossed() -> None:
        rows, columns = mx.plate("rows", 3, dim=-2), mx.plate("columns", 2, dim=-1)
        with rows:
            x = mx.sample("x", dist.Bernoulli(0.5))
        with columns:
            y = mx.sample("y", dist.Bernoulli(0.5))
        with rows, columns:
            mx.sample("cell", dist.Normal(1.0 * x + y, 1.0), obs=np.zeros((3, 2)))

    with pytest.raises(mx.IntractableError, match="'cell'"):
        mx.marginalize(crossed).explain(show=False)


def test_what_does_not_fit_into_memory_can_still_be_explained() -> None:
    def joined() -> None:
        z = [mx.sample(f"z_{i}", dist.Categorical(jnp.ones(20) / 20)) for i in range(12)]
        mx.sample("x", dist.Normal(1.0 * sum(z), 1.0), obs=3.0)

    assert mx.marginalize(joined, memory_limit=1).explain(show=False).plan.largest == 20**12


def test_a_series_is_one_step_and_those_that_stand_apart() -> None:
    def hidden_markov(ys: Any) -> None:
        stay = mx.sample("stay", dist.Beta(2.0, 2.0))

        def step(z: Any, y: Any) -> Any:
            z = mx.sample("z", dist.Bernoulli(jnp.where(z == 1, stay, 1 - stay)))
            mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)
            return z, None

        mx.scan(step, mx.sample("start", dist.Bernoulli(0.5)), ys)

    e = mx.marginalize(hidden_markov).explain(np.zeros(100), show=False)
    parents = {f.name: f.parents for f in e.factors}
    assert parents == {
        "stay": ("stay",),
        "start": ("start",),
        "z[0]": ("stay", "start"),
        "y[0]": ("z[0]",),
        "z": ("stay", "z[t-1]"),
        "y": ("z[t]",),
    }
    assert e.series == {"steps of z": 100}
    words = " ".join(str(e).split())
    assert "steps of z 100 1 99" in words
    assert "for 99 steps of z" in words


def test_what_feeds_a_factor_along_a_plate() -> None:
    def model(x: Any) -> None:
        with mx.plate("data", len(x)):
            shift = mx.sample("shift", dist.Normal(0.0, 1.0))
            z = mx.sample("z", dist.Bernoulli(0.5))
            centred = x - jnp.cumsum(x)
            mx.sample("x", dist.Normal(z + shift, 1.0), obs=centred)

    e = mx.marginalize(model).explain(jnp.arange(5.0), show=False)
    by_site = {axis.factor: axis for axis in e.plate_axes}
    assert by_site["x"].fed_by == ("'shift', axis 0", "'z', axis 0", "data of shape (5,), axis 0")
    assert by_site["x"].mixed_by == ("cumsum",)
    assert by_site["shift"].mixed_by == ()
    assert "mixed by cumsum" in str(e)


def test_blocks_are_told() -> None:
    rows = jax.ShapeDtypeStruct((10**6,), jnp.float32)
    e = mx.marginalize(model).explain(rows, components=10, show=False)
    (block,) = e.blocks.values()
    assert 10**6 % block == 0
    assert e.peak_bytes <= 2**20 * 4
    assert f"{block:,}" in str(e)
    assert not mx.marginalize(model).explain(np.zeros(7), show=False).blocks


@contextmanager
def compile_times() -> Iterator[list[tuple[str, float]]]:
    """What JAX tells of lowering and compiling."""
    steps = ("jaxpr_to_mlir_module_duration", "backend_compile_duration")
    found: list[tuple[str, float]] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        name = event.rpartition("/")[-1]
        if name in steps:
            found.append((name, duration_secs))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def unusual(data: Any) -> None:
    """A model that no other test has, so that nothing of it is compiled."""
    with mx.plate("data", len(data)):
        z = mx.sample("z", dist.Categorical(jnp.array([0.125, 0.375, 0.5])))
        mx.sample("x", dist.Normal(jnp.cosh(1.0 * z), 1.75), obs=data)


def spent(m: mx.Marginal, *args: Any) -> Spent:
    found = m.explain(*args, show=False).spent
    assert found is not None
    return found


def test_what_queries_have_compiled_is_told_with_its_time() -> None:
    m = mx.marginalize(unusual)
    x = np.arange(11.0)
    assert spent(m, x).programs == spent(m, x).compiling == 0
    with compile_times() as told:
        m.log_density({}, x)
    compiled = [seconds for name, seconds in told if name == "backend_compile_duration"]
    assert compiled
    for _ in range(2):  # the second query finds the program
        assert spent(m, x).programs == len(compiled)
        assert spent(m, x).compiling == pytest.approx(sum(seconds for _, seconds in told))
        m.log_density({}, x + 1)
    m.posterior({}, x)
    assert spent(m, x).programs > len(compiled)


def test_what_is_compiled_elsewhere_is_not_told() -> None:
    m = mx.marginalize(unusual)
    x = np.arange(12.0)
    mx.marginalize(unusual).log_density({}, x)
    jax.jit(lambda x: x * 1.75)(x)
    m.log_density({}, x)  # compiled already
    assert spent(m, x).programs == 0


def test_the_time_of_the_run_and_of_the_plan_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(explained, "perf_counter", lambda: now[0])
    prepare_record = explained.prepare_record

    def plan(*args: Any) -> Any:
        now[0] += 3.0
        return prepare_record(*args)

    monkeypatch.setattr(explained, "prepare_record", plan)

    def slow(data: Any) -> None:
        now[0] += 20.0
        unusual(data)

    found = mx.marginalize(slow).explain(np.arange(4.0), show=False)
    assert found.spent == Spent(tracing=20.0, planning=3.0, compiling=0.0, programs=0)
    assert str(found).endswith(
        "\n\nSpent\n  20.00 s running and tracing the model, 3.00 s planning, nothing compiled yet"
    )


@pytest.mark.parametrize(("programs", "words"), [(1, "1 program"), (1200, "1,200 programs")])
def test_programs_are_counted_in_words(programs: int, words: str) -> None:
    assert str(Spent(1.0, 0.001, 0.25, programs)) == (
        f"1.00 s running and tracing the model, 0.00 s planning, 0.25 s compiling {words}"
    )


def test_explanations_of_the_same_are_equal_whatever_they_took() -> None:
    m = mx.marginalize(unusual)
    first, second = (m.explain(np.zeros(7), show=False) for _ in range(2))
    assert first.spent != second.spent
    assert first == second


def test_what_is_refused_says_nothing_of_the_time() -> None:
    with pytest.raises(ModelError, match="Summed out") as refused:
        mx.marginalize(unusual, memory_limit=4).log_density({}, np.zeros(7))
    assert "Spent" not in str(refused.value)
