"""A model that does not state the same at every run is refused by whatever runs it more than once.

A query runs it once, so that nothing can differ.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.graph.same_sites import Seen, refuse_changes
from marginax.graph.sites import collect_sites
from marginax.infer import MCMC, NUTS, SVI, Predictive, TraceEnum_ELBO
from marginax.infer.autoguide import AutoDelta, AutoNormal

KEY = jax.random.key(0)


def model(rows: Any) -> None:
    loc = mx.sample("loc", dist.Normal(0.0, 1.0))
    z = mx.sample("z", dist.Bernoulli(0.5))
    for i, row in enumerate(rows):
        mx.sample(f"x{i}", dist.Normal(loc + z, 1.0), obs=row)


def by_hand(*args: Any) -> None:
    mx.sample("loc", dist.Normal(mx.param("at", 0.0), 1.0))


def svi(fn: Callable[..., Any], guide: Any = AutoDelta) -> SVI:
    return SVI(fn, guide(fn), optax.adam(0.1), TraceEnum_ELBO())


PARAMS = {"loc": 0.1}

# What runs a model, given the model and its arguments: once ...
QUERIES: dict[str, Callable[..., Any]] = {
    "log_density": lambda fn, *args: mx.marginalize(fn).log_density(PARAMS, *args),
    "jit": lambda fn, *args: jax.jit(lambda p: mx.marginalize(fn).log_density(p, *args))(PARAMS),
    "draw": lambda fn, *args: mx.marginalize(fn).draw(KEY, PARAMS, *args),
    "explain": lambda fn, *args: mx.marginalize(fn).explain(*args, show=False),
    "supports": lambda fn, *args: mx.marginalize(fn).supports(*args),
}

# ... or more than once.
CONSUMERS: dict[str, Callable[..., Any]] = {
    "SVI": lambda fn, *args: svi(fn).run(KEY, 2, *args, progress_bar=False),
    "guide": lambda fn, *args: svi(fn, AutoNormal).init(KEY, *args),
    "guide by hand": lambda fn, *args: svi(fn, lambda fn: by_hand).init(KEY, *args),
    "MCMC": lambda fn, *args: MCMC(NUTS(fn), num_warmup=2, num_samples=2, progress_bar=False).run(
        KEY, *args
    ),
    "Predictive": lambda fn, *args: Predictive(fn, num_samples=2)(KEY, *args),
    "infer_discrete": lambda fn, *args: mx.handlers.seed(
        mx.infer.infer_discrete(mx.handlers.substitute(fn, data=PARAMS), rng_key=KEY), KEY
    )(*args),
    "log_likelihood": lambda fn, *args: mx.infer.log_likelihood(
        fn, {"loc": np.zeros(2, np.float32)}, *args
    ),
}


@pytest.mark.parametrize(
    "ask", [*QUERIES.values(), *CONSUMERS.values()], ids=[*QUERIES, *CONSUMERS]
)
def test_an_iterator_is_refused_as_an_argument(ask: Any):
    with pytest.raises(mx.ModelError, match=r"argument 1 is a generator.*list\(rows\)"):
        ask(model, (row for row in [1.0, 2.0]))


def test_a_query_uses_up_what_a_model_reads_once():
    rows, again = iter([1.0, 2.0]), iter([1.0, 2.0])
    m = mx.marginalize(model)
    expected = float(m.log_density(PARAMS, [1.0, 2.0]))
    assert float(mx.marginalize(lambda: model(rows)).log_density(PARAMS)) == expected
    assert next(rows, None) is None
    alone = mx.marginalize(lambda: model([next(again)]))
    assert float(alone.log_density(PARAMS)) == float(m.log_density(PARAMS, [1.0]))
    assert float(alone.log_density(PARAMS)) == float(m.log_density(PARAMS, [2.0]))


@pytest.mark.parametrize("ask", CONSUMERS.values(), ids=CONSUMERS)
def test_what_a_model_uses_up_is_noticed(ask: Any):
    rows = iter([1.0, 2.0])
    with pytest.raises(mx.ModelError, match=r"'x0': the first run .* list\(rows\)"):
        ask(lambda: model(rows))


def test_the_argument_is_named():
    rows = {"good": [1.0], "bad": map(float, "12")}
    with pytest.raises(mx.ModelError, match=r"argument 'rows'\['bad'\] is a map"):
        mx.marginalize(model).log_density(PARAMS, rows=rows)


def numbered() -> Iterator[int]:
    yield from range(100)


def changing(change: Callable[[int], None]) -> Callable[[], None]:
    """A model that is told how often it ran."""
    runs = numbered()
    return lambda: change(next(runs))


CHANGES: dict[str, tuple[str, Callable[[int], Any]]] = {
    "comes": (
        "'b': the first run of the model does not",
        lambda n: [obs(name) for name in "ab"[: 1 + n]],
    ),
    "order": ("'b': it stands where", lambda n: [obs(name) for name in ("ab", "ba")[n % 2]]),
    "shape": ("'a': its shape", lambda n: obs("a", np.zeros(2 + n, np.float32))),
    "distribution": (
        "'a': its distribution differs .* Normal .* Cauchy",
        lambda n: obs("a", fn=dist.Normal(0.0, 1.0) if n % 2 == 0 else dist.Cauchy(0.0, 1.0)),
    ),
    "observed": (
        "'a': its being observed",
        lambda n: mx.sample("a", dist.Bernoulli(0.5), obs=1 if n % 2 else None),
    ),
    "value": ("'a': its value", lambda n: obs("a", float(n))),
    "parameter": ("'a': its value, or a parameter", lambda n: obs("a", fn=dist.Normal(n, 1.0))),
    "kind": (
        "'a': its kind",
        lambda n: obs("a") if n % 2 == 0 else mx.deterministic("a", 1.0),
    ),
}


def obs(name: str, value: Any = 1.0, fn: Any = None) -> None:
    mx.sample(name, fn or dist.Normal(0.0, 1.0).expand(np.shape(value)).to_event(), obs=value)


@pytest.mark.parametrize(("message", "change"), CHANGES.values(), ids=CHANGES)
def test_whatever_of_a_site_changes_is_named(message: str, change: Callable[[int], Any]):
    with pytest.raises(mx.ModelError, match=message):
        collect_sites(changing(change))


def test_a_popped_list_and_numpys_random_numbers_are_noticed():
    rows = [1.0, 2.0, 3.0]
    with pytest.raises(mx.ModelError, match="'x': its value"):
        collect_sites(lambda: obs("x", rows.pop()))
    rng = np.random.default_rng(0)
    with pytest.raises(mx.ModelError, match="'x': its value"):
        collect_sites(lambda: obs("x", rng.normal()))


def test_nan_is_the_same_as_nan():
    one, other = (Seen("sample", (), True, "Normal", (), (np.float32(np.nan),)) for _ in "ab")
    refuse_changes({"x": one}, {"x": other})
