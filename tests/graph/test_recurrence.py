"""What the steps of a scan are found to depend on, and what is refused because it never ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import marginax as mx
import marginax.distributions as dist
from marginax.graph.recurrence import Recurrence

YS = jnp.array([0.5, -1.0, 2.0, 0.1, 0.7])


def coin(name: str, p: Any) -> Any:
    return mx.sample(name, dist.Bernoulli(p))


def recurrence_of(model: Callable[..., Any], **params: Any) -> Recurrence:
    prepared = mx.marginalize(model).prepare(params, (), {})
    (found,) = prepared.graph.captured.recurrences
    return found


def variables_of(model: Callable[..., Any], **params: Any) -> dict[str, tuple[str, ...]]:
    graph = mx.marginalize(model).prepare(params, (), {}).graph
    return {str(n): tuple(map(str, place.variables)) for n, place in graph.places.items()}


def test_the_first_step_is_apart_from_those_that_are_alike():
    def model() -> None:
        def step(z: Any, y: Any) -> Any:
            z = coin("z", 0.2 + 0.6 * z)
            mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)
            return z, None

        z, _ = mx.scan(step, coin("start", 0.5), YS)
        mx.sample("end", dist.Normal(1.0 * z, 1.0), obs=0.0)

    assert variables_of(model) == {
        "start": ("start",),
        "z[0]": ("start", "z[0]"),
        "z": ("z[t-1]", "z[t]"),
        "y[0]": ("z[0]",),
        "y": ("z[t]",),
        "end": ("z[4]",),
    }
    found = recurrence_of(model)
    assert (found.heads, found.length, dict(found.memory)) == (1, 4, {"z": 1})
    assert found.recurrent == frozenset()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_order_is_inferred_from_what_is_carried(order: int):
    def model() -> None:
        def step(past: Any, _: Any) -> Any:
            z = coin("z", 0.2 + 0.1 * past[0])
            return (*past[1:], z), None

        mx.scan(step, (0,) * order, None, length=8)

    found = recurrence_of(model)
    assert (found.heads, dict(found.memory)) == (order, {"z": order})


def test_what_is_not_carried_is_not_remembered():
    def model() -> None:
        def step(t: Any, _: Any) -> Any:
            coin("z", 0.1 + 0.01 * t)
            return t + 1, None

        mx.scan(step, 0, None, length=8)

    found = recurrence_of(model)
    assert (found.heads, dict(found.memory)) == (0, {})
    assert found.recurrent == {0}  # the counter


def test_a_recurrent_value_is_computed_with_all_that_it_needs():
    def model() -> None:
        def step(carry: Any, y: Any) -> Any:
            z, level, last = carry
            z = coin("z", 0.2 + 0.6 * z)
            mx.sample("y", dist.Normal(level + z, 1.0), obs=y)
            return (z, 0.9 * level + last, y), None

        mx.scan(step, (0, 0.0, 0.0), YS)

    assert recurrence_of(model).recurrent == {1, 2}


def test_a_short_series_is_all_heads():
    def model() -> None:
        mx.scan(lambda past, _: ((past[1], coin("z", 0.2 + 0.1 * past[0])), None), (0, 0), None, 2)

    found = recurrence_of(model)
    assert (found.heads, found.length) == (2, 0)


# --- what never ends -----------------------------------------------------------------------------


def refused(model: Callable[..., Any], match: str) -> None:
    with pytest.raises(mx.ModelError, match=match):
        mx.marginalize(model).log_density({})


def test_a_count_of_all_before_never_forgets():
    def model() -> None:
        def step(carry: Any, y: Any) -> Any:
            z = coin("z", 0.2 + 0.6 * carry["z"])
            count = carry["count"] + z
            mx.sample("y", dist.Normal(0.1 * count, 1.0), obs=y)
            return {"z": z, "count": count}, None

        mx.scan(step, {"z": 0, "count": 0}, YS)

    refused(model, r"site 'z'.*carry\['count'\] never forgets")


def test_a_value_kept_where_a_mask_says_so_never_forgets():
    def model() -> None:
        def step(z: Any, keep: Any) -> Any:
            return jnp.where(keep, z, coin("z", 0.2 + 0.6 * z)), None

        mx.scan(step, 0, jnp.array([False, True, False]))

    refused(model, "site 'z'.*in carry never forgets.*fall back on a constant")


def test_a_vector_of_past_values_is_one_value():
    """It could be taken apart, but is not yet: the message says what to write."""

    def model() -> None:
        def step(past: Any, _: Any) -> Any:
            z = coin("z", 0.2 + 0.1 * past[0])
            return jnp.append(past[1:], z), None

        mx.scan(step, jnp.zeros(2, int), None, length=4)

    refused(model, r"Carry only the last values.*\(z, z_before\)")


def test_values_of_all_steps_outside_of_the_scan_are_refused():
    def model() -> None:
        def step(z: Any, _: Any) -> Any:
            z = coin("z", 0.2 + 0.6 * z)
            return z, z

        _, zs = mx.scan(step, 0, None, length=5)
        with mx.plate("time", 5):
            mx.sample("y", dist.Normal(1.0 * zs, 1.0), obs=YS)

    refused(
        model, "site 'y': it stands outside of the scan that states 'z'.*in the body of the scan"
    )


def test_a_function_of_all_steps_is_refused():
    def model() -> None:
        def step(z: Any, _: Any) -> Any:
            z = coin("z", 0.2 + 0.6 * z)
            return z, 2.0 * z

        _, zs = mx.scan(step, 0, None, length=5)
        mx.sample("y", dist.Normal(jnp.sum(zs), 1.0), obs=0.0)

    refused(model, "site 'y': it stands outside of the scan that states 'z'")


def test_a_scan_over_all_steps_of_another_is_refused():
    def model() -> None:
        def first(z: Any, _: Any) -> Any:
            z = coin("z", 0.2 + 0.6 * z)
            return z, 1.0 * z

        def second(w: Any, z: Any) -> Any:
            return coin("w", 0.2 + 0.3 * w + 0.3 * z), None

        _, zs = mx.scan(first, 0, None, length=5)
        mx.scan(second, 0, zs)

    refused(model, "scan that states 'w' depends on 'z' at all steps of another")


@pytest.mark.parametrize("loop", ["map", "carry", "scan"])
def test_a_loop_over_the_values_of_all_steps_is_refused(loop: str):
    """The values come out of the scan as they are, and must not be taken for the scan's own."""

    def model() -> None:
        def step(z: Any, _: Any) -> Any:
            z = mx.sample("z", dist.Categorical(jnp.full((3, 3), 1 / 3)[z]))
            return z, z

        _, zs = mx.scan(step, 0, None, length=5)
        if loop == "map":
            means = jax.lax.map(lambda z: 2.0 * z, zs)
            with mx.plate("time", 5):
                mx.sample("y", dist.Normal(means, 1.0), obs=YS)
        elif loop == "carry":
            last, _ = jax.lax.scan(lambda c, z: (z, None), 0, zs, reverse=True)
            mx.sample("y", dist.Normal(1.0 * last, 1.0), obs=0.3)
        else:

            def second(before: Any, now: Any) -> Any:
                z, y = now
                mx.sample("y", dist.Normal(1.0 * z - before, 1.0), obs=y)
                return z, None

            mx.scan(second, 0, (zs, YS))

    refused(model, "site 'y': it stands outside of the scan that states 'z'")


def test_a_scan_inside_of_a_jitted_function_is_refused():
    def model() -> None:
        def step(z: Any, _: Any) -> Any:
            return coin("z", 0.2 + 0.6 * z), None

        jax.jit(lambda: mx.scan(step, 0, None, length=4)[0])()

    with pytest.raises((mx.ModelError, jax.errors.UnexpectedTracerError)):
        mx.marginalize(model).log_density({})


def test_discrete_variables_in_a_scan_in_a_scan_are_refused():
    def inner(z: Any, _: Any) -> Any:
        return coin("z", 0.2 + 0.6 * z), None

    def outer(z: Any, _: Any) -> Any:
        return mx.scan(inner, z, None, length=2)[0], None

    refused(lambda: mx.scan(outer, 0, None, length=3), "site 'z'.*scan inside of another")


def test_elements_of_a_plate_that_mix_from_step_to_step_are_refused():
    def model() -> None:
        def step(z: Any, _: Any) -> Any:
            with mx.plate("n", 3):
                z = coin("z", 0.2 + 0.2 * z)
            return jnp.roll(z, 1), None

        mx.scan(step, jnp.zeros(3, int), None, length=4)

    refused(model, "site 'z': in the plate 'n'.*own element")


def test_chains_of_a_plate_that_drive_one_outside_are_exponential():
    def model() -> None:
        def step(carry: Any, _: Any) -> Any:
            w, z = carry
            w = coin("w", 0.2 + 0.6 * w)
            with mx.plate("n", 3):
                z = coin("z", 0.1 + 0.3 * w + 0.3 * z)
            return (w, z), None

        mx.scan(step, (0, jnp.zeros(3, int)), None, length=4)

    with pytest.raises(mx.IntractableError, match="exponential"):
        mx.marginalize(model).log_density({})


def test_a_python_if_on_a_carried_variable_is_explained():
    def model() -> None:
        def step(z: Any, _: Any) -> Any:
            return coin("z", 0.3 if z else 0.6), None

        mx.scan(step, 0, None, length=4)

    refused(model, "one number")


# --- names that are printed like those of the plan ------------------------------------------------


def hidden_markov(ys: Any, first: Any = 0) -> Any:
    def step(z: Any, y: Any) -> Any:
        z = coin("z", 0.2 + 0.6 * z)
        mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=y)
        return z, None

    return mx.scan(step, first, ys)[0]


def log_hidden_markov(ys: Any, first: int = 0, weight: Callable[..., float] = lambda z: 0.0) -> Any:
    """The sum over all series, one after the other; of what weighs each of them, its logarithm."""
    total = []
    for z in itertools.product((0, 1), repeat=len(ys)):
        p = 0.2 + 0.6 * np.array([first, *z[:-1]])
        chosen = np.where(z, p, 1 - p)
        total.append(np.log(chosen).sum() + norm.logpdf(ys, z, 1.0).sum() + weight(z))
    return logsumexp(total)


@pytest.mark.parametrize("name", ["z[0]", "z[t]", "z[t-1]", "z[3]", "steps of z"])
def test_a_site_may_be_called_like_a_step(name: str):
    found = mx.marginalize(lambda: hidden_markov(YS, coin(name, 0.3))).log_density({})
    each = [np.log(p) + log_hidden_markov(YS, first) for first, p in enumerate((0.7, 0.3))]
    np.testing.assert_allclose(found, logsumexp(each), rtol=1e-5)


def test_an_observation_may_be_called_like_a_step():
    def model() -> None:
        mx.sample("y[0]", dist.Normal(0.0, 1.0), obs=0.3)
        hidden_markov(YS)

    m = mx.marginalize(model)
    expected = norm.logpdf(0.3) + log_hidden_markov(YS)
    np.testing.assert_allclose(m.log_density({}), expected, rtol=1e-5)
    assert {n: v.shape for n, v in m.pointwise({}).items()} == {"y[0]": (), "y": (5,)}


@pytest.mark.parametrize("name", ["steps of z", "steps of z (whole)", "steps of w (whole)"])
def test_a_plate_may_be_called_like_the_steps_of_a_scan(name: str):
    def model() -> None:
        with mx.plate(name, 3):
            loud = coin("loud", 0.3)
            mx.sample("x", dist.Normal(1.0 * loud, 1.0), obs=jnp.array([0.3, -0.2, 0.9]))
        hidden_markov(YS)

        def step(carry: Any, y: Any) -> Any:
            mx.sample("w", dist.Normal(0.0, 1.0), obs=y)
            return carry, None

        mx.scan(step, 0, YS[:4])

    each = [np.log(p) + norm.logpdf([0.3, -0.2, 0.9], k) for k, p in ((0, 0.7), (1, 0.3))]
    expected = logsumexp(each, axis=0).sum() + log_hidden_markov(YS) + norm.logpdf(YS[:4]).sum()
    np.testing.assert_allclose(mx.marginalize(model).log_density({}), expected, rtol=1e-5)


def test_a_scan_may_begin_where_another_ended():
    """What it observes depends, at its first step, on a variable of the other one."""

    def model() -> None:
        def step(before: Any, x: Any) -> Any:
            w = coin("w", 0.3 + 0.3 * before)
            mx.sample("x", dist.Normal(1.0 * w + 0.7 * before, 1.0), obs=x)
            return w, None

        mx.scan(step, hidden_markov(YS[:4]), YS[:2])

    def after(z: tuple[int, ...]) -> float:
        total = []
        for w in itertools.product((0, 1), repeat=2):
            before = np.array([z[-1], w[0]])
            p = 0.3 + 0.3 * before
            seen = norm.logpdf(YS[:2], np.array(w) + 0.7 * before)
            total.append(np.log(np.where(w, p, 1 - p)).sum() + seen.sum())
        return float(logsumexp(total))

    expected = log_hidden_markov(YS[:4], 0, after)
    np.testing.assert_allclose(mx.marginalize(model).log_density({}), expected, rtol=1e-5)


# --- continuous models ---------------------------------------------------------------------------


def test_a_scan_without_discrete_variables_is_an_ordinary_one():
    def model(ys: Any) -> None:
        def step(x: Any, y: Any) -> Any:
            x = mx.sample("x", dist.Normal(0.8 * x, 1.0))
            mx.sample("y", dist.Normal(x, 0.5), obs=y)
            return x, None

        mx.scan(step, 0.0, ys)

    x = np.array([0.1, -0.3, 0.8, 0.2, 0.0])
    before = 0.8 * np.array([0.0, *x[:-1]])
    expected = dist.Normal(before, 1.0).log_prob(x).sum() + dist.Normal(x, 0.5).log_prob(YS).sum()
    m = mx.marginalize(model)
    np.testing.assert_allclose(m.log_density({"x": jnp.asarray(x)}, YS), expected, rtol=1e-6)
    assert m.pointwise({"x": jnp.asarray(x)}, YS)["y"].shape == (5,)


def test_a_variable_outside_of_a_continuous_scan():
    """A random walk whose noise depends on a variable: the scan is evaluated for each of its values."""

    def model(ys: Any) -> None:
        loud = coin("loud", 0.3)

        def step(level: Any, y: Any) -> Any:
            mx.sample("y", dist.Normal(0.5 * level, 1.0 + 2.0 * loud), obs=y)
            return y, None

        mx.scan(step, 0.0, ys)

    before = 0.5 * jnp.array([0.0, *YS[:-1]])
    each = [dist.Normal(before, 1.0 + 2.0 * k).log_prob(YS).sum() for k in (0, 1)]
    expected = jnp.logaddexp(jnp.log(0.7) + each[0], jnp.log(0.3) + each[1])
    np.testing.assert_allclose(mx.marginalize(model).log_density({}, YS), expected, rtol=1e-6)


def test_observations_that_depend_on_a_variable_outside_are_one_for_each_step():
    """Whether or not the scan has variables of its own."""

    def model(ys: Any, with_states: bool) -> None:
        loud = coin("loud", 0.3)

        def step(z: Any, y: Any) -> Any:
            mx.sample("y", dist.Normal(0.0, 1.0 + 2.0 * loud), obs=y)
            return coin("z", 0.2 + 0.6 * z) if with_states else z, None

        mx.scan(step, 0, ys)

    scales = jnp.array([1.0, 3.0])
    each = dist.Normal(0.0, scales).log_prob(YS[:, None])  # (steps, values)
    total = jax.nn.logsumexp(jnp.log(jnp.array([0.7, 0.3])) + each.sum(0))
    for with_states in (False, True):
        m = mx.marginalize(model)
        np.testing.assert_allclose(m.log_density({}, YS, with_states), total, rtol=1e-6)
        found = m.pointwise({}, YS, with_states)["y"]
        others = each.sum(0) - each
        without = jax.nn.logsumexp(jnp.log(jnp.array([0.7, 0.3])) + others, axis=1)
        np.testing.assert_allclose(found, total - without, rtol=1e-5)


def test_observed_data_of_a_scan_are_checked():
    def model(ys: Any) -> None:
        mx.scan(lambda c, y: (c, mx.sample("y", dist.Poisson(2.0), obs=y)), None, ys)

    m = mx.marginalize(model)
    with pytest.raises(mx.ModelError, match="site 'y'.*NaN"):
        m.log_density({}, jnp.array([1.0, jnp.nan]))
    with pytest.raises(mx.ModelError, match="site 'y'.*outside of the support"):
        m.log_density({}, jnp.array([1.0, -2.0]))
