"""Contraction against sums written out by hand with NumPy: plates, powers, kept variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marginax.elimination.axes import Axis
from marginax.elimination.contract import Contracted, ScaleError, contract
from marginax.elimination.factor import Factor, Scale
from marginax.elimination.plan import term_of
from marginax.elimination.planner import IntractableError, make_plan
from marginax.elimination.semiring import MAX, SUM, Semiring

RNG = np.random.default_rng(0)
TOLERANCE = 32 * float(np.finfo(np.float32).eps)
A, B = 3, 4  # sizes of the plates


def logsumexp(x: Any, axis: int | None = None) -> Any:
    return np.log(np.sum(np.exp(x), axis=axis))


@pytest.fixture(autouse=True)
def _same_tables_in_any_order() -> None:
    global RNG
    RNG = np.random.default_rng(0)


def table(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def factor(name: str, variables: str, plates: str, array: Any, *scales: Scale) -> Factor:
    """A factor; its array has the variables in front, as a table is read."""
    behind = range(len(variables), len(variables) + len(plates))
    plates_first = jnp.transpose(jnp.asarray(array), (*behind, *range(len(variables))))
    return Factor(name, tuple(plates), tuple(variables), plates_first, scales)


def run(
    factors: Sequence[Factor],
    sizes: Mapping[Any, int],
    home: Mapping[str, str] | None = None,
    *,
    keep: str = "",
    semiring: Semiring = SUM,
    plate_scales: Mapping[Any, float] | None = None,
    variable_scales: Mapping[Any, tuple[Scale, ...]] | None = None,
) -> Contracted:
    plate_sizes: dict[Axis, int] = {"A": A, "B": B}
    terms = [term_of(f) for f in factors]
    where: dict[Axis, frozenset[Axis]] = {v: frozenset((home or {}).get(v, "")) for v in sizes}
    plan = make_plan(terms, sizes, plate_sizes, where, keep)
    return contract(plan, factors, semiring, plate_sizes, plate_scales, variable_scales)


def total(*args: Any, **kwargs: Any) -> Any:
    result = run(*args, **kwargs)
    assert result.kept == ()
    return result.log_total


X, Y, XY = table(2), table(3), table(2, 3)


def test_no_factors_are_a_sum_of_one() -> None:
    assert total([], {}) == 0.0


def test_numbers_are_added_up() -> None:
    np.testing.assert_allclose(
        total([factor("a", "", "", 1.5), factor("b", "", "", -2.0)], {}), -0.5
    )


def test_two_variables_and_the_factor_that_joins_them() -> None:
    factors = [factor("x", "x", "", X), factor("y", "y", "", Y), factor("xy", "xy", "", XY)]
    joint = X[:, None] + Y + XY
    sizes = {"x": 2, "y": 3}
    np.testing.assert_allclose(total(factors, sizes), logsumexp(joint), rtol=TOLERANCE)
    np.testing.assert_allclose(total(factors, sizes, semiring=MAX), joint.max(), rtol=TOLERANCE)


def test_axes_are_found_by_name_in_whatever_order_they_stand() -> None:
    straight = [factor("x", "x", "", X), factor("xy", "xy", "", XY)]
    turned = [factor("x", "x", "", X), factor("xy", "yx", "", XY.T)]
    sizes = {"x": 2, "y": 3}
    np.testing.assert_allclose(total(turned, sizes), total(straight, sizes), rtol=TOLERANCE)


Z = table(2, A)


def test_a_plate_multiplies_after_its_variable_is_summed_out() -> None:
    out = total([factor("z", "z", "A", Z)], {"z": 2}, {"z": "A"})
    np.testing.assert_allclose(out, logsumexp(Z, axis=0).sum(), rtol=TOLERANCE)


def test_a_factor_that_repeats_itself_along_its_plate_counts_for_each_element() -> None:
    once, data = table(2, 1), table(2, A)
    out = total([factor("z", "z", "A", once), factor("x", "z", "A", data)], {"z": 2}, {"z": "A"})
    np.testing.assert_allclose(out, logsumexp(once + data, axis=0).sum(), rtol=TOLERANCE)
    alone = total([factor("z", "z", "A", once)], {"z": 2}, {"z": "A"})
    np.testing.assert_allclose(alone, A * logsumexp(once), rtol=TOLERANCE)


def test_a_global_variable_joins_the_product_over_the_plate() -> None:
    data = table(2, A, B)
    out = total([factor("x", "x", "", X), factor("d", "x", "AB", data)], {"x": 2})
    np.testing.assert_allclose(out, logsumexp(X + data.sum((1, 2))), rtol=TOLERANCE)


def test_nested_plates_by_hand() -> None:
    """Of x, z in A, and w in A and B."""
    z, w, data = table(2, 2, A), table(3, 2, A, B), table(3, A, B)
    factors = [
        factor("x", "x", "", X),
        factor("z", "zx", "A", z),
        factor("w", "wz", "AB", w),
        factor("d", "w", "AB", data),
    ]
    inner = logsumexp(w + data[:, None], axis=0).sum(-1)  # z, A
    middle = logsumexp(z + inner[:, None], axis=0).sum(-1)  # x
    out = total(factors, {"x": 2, "z": 2, "w": 3}, {"z": "A", "w": "AB"})
    np.testing.assert_allclose(out, logsumexp(X + middle), rtol=TOLERANCE)


def test_plates_in_any_order_of_axes() -> None:
    data = table(2, A, B)
    straight = [factor("x", "x", "A", Z), factor("d", "x", "AB", data)]
    turned = [factor("x", "x", "A", Z), factor("d", "x", "BA", data.swapaxes(1, 2))]
    np.testing.assert_allclose(
        total(turned, {"x": 2}, {"x": "A"}), total(straight, {"x": 2}, {"x": "A"}), rtol=TOLERANCE
    )


# --- scales of plates ----------------------------------------------------------------------------


def test_a_plate_s_scale_multiplies_after_the_sum() -> None:
    out = total([factor("z", "z", "A", Z)], {"z": 2}, {"z": "A"}, plate_scales={"A": 5.0})
    np.testing.assert_allclose(out, 5.0 * logsumexp(Z, axis=0).sum(), rtol=TOLERANCE)


def test_a_plate_s_scale_acts_inside_of_a_global_sum() -> None:
    data = table(2, A)
    out = total(
        [factor("x", "x", "", X), factor("d", "x", "A", data)], {"x": 2}, plate_scales={"A": 5.0}
    )
    np.testing.assert_allclose(out, logsumexp(X + 5.0 * data.sum(1)), rtol=TOLERANCE)


def test_scales_of_nested_plates_each_act_where_their_plate_ends() -> None:
    data = table(2, A, B)
    out = total(
        [factor("z", "z", "A", Z), factor("d", "z", "AB", data)],
        {"z": 2},
        {"z": "A"},
        plate_scales={"A": 2.0, "B": 3.0},
    )
    expected = 2.0 * logsumexp(Z + 3.0 * data.sum(2), axis=0).sum()
    np.testing.assert_allclose(out, expected, rtol=TOLERANCE)


def test_a_plate_s_scale_counts_for_what_repeats_itself_too() -> None:
    once = table(2, 1)
    out = total([factor("z", "z", "A", once)], {"z": 2}, {"z": "A"}, plate_scales={"A": 2.0})
    np.testing.assert_allclose(out, 2.0 * A * logsumexp(once), rtol=TOLERANCE)


# --- scales of handlers --------------------------------------------------------------------------

TWO, THREE = Scale("two", 2.0), Scale("three", 3.0)


def test_a_scale_is_a_power_of_the_result() -> None:
    out = total(
        [factor("x", "x", "", X, TWO), factor("d", "x", "", X + 1, TWO)],
        {"x": 2},
        variable_scales={"x": (TWO,)},
    )
    np.testing.assert_allclose(out, 2.0 * logsumexp(2 * X + 1), rtol=TOLERANCE)


def test_a_scale_on_a_factor_alone_acts_before_the_sum() -> None:
    """As it must: the variable lives outside, and its sum is not to be raised to a power."""
    out = total([factor("x", "x", "", X), factor("d", "x", "", X + 1, TWO)], {"x": 2})
    np.testing.assert_allclose(out, logsumexp(X + 2.0 * (X + 1)), rtol=TOLERANCE)


def test_nested_scales_each_act_where_their_variable_ends() -> None:
    """Of y inside both scales, x inside the outer one."""
    factors = [
        factor("x", "x", "", X, TWO),
        factor("y", "yx", "", XY.T, TWO, THREE),
        factor("d", "y", "", Y, TWO, THREE),
    ]
    out = total(factors, {"x": 2, "y": 3}, variable_scales={"x": (TWO,), "y": (TWO, THREE)})
    inner = 3.0 * logsumexp(XY + Y, axis=1)
    np.testing.assert_allclose(out, 2.0 * logsumexp(X + inner), rtol=TOLERANCE)


def test_what_stands_in_more_scales_is_summed_out_first_whatever_the_sizes() -> None:
    """A chain g, z, y, each in one scale more; summing out g first would be cheapest."""
    for sizes in ((2, 3, 4), (4, 3, 2), (3, 2, 4)):
        g, z, y = (table(n) for n in sizes)
        gz, zy = table(*sizes[:2]), table(*sizes[1:])
        factors = [
            factor("g", "g", "", g),
            factor("z", "gz", "", gz, TWO),
            factor("seen", "z", "", z, TWO),
            factor("y", "zy", "", zy, TWO, THREE),
            factor("seen too", "y", "", y, TWO, THREE),
        ]
        scales = {"z": (TWO,), "y": (TWO, THREE)}
        out = total(factors, dict(zip("gzy", sizes, strict=True)), variable_scales=scales)
        innermost = 3.0 * logsumexp(zy + y, axis=1)
        expected = logsumexp(g + 2.0 * logsumexp(gz + z + innermost, axis=1))
        np.testing.assert_allclose(out, expected, rtol=TOLERANCE)


def test_a_scale_that_a_plate_opens_too_early_is_refused() -> None:
    """Of g in the plate, z in a scale outside of it: every g would have to come after z."""
    factors = [
        factor("g", "g", "A", table(2, A)),
        factor("z", "z", "", Z[:, 0], TWO),
        factor("obs", "gz", "A", table(2, 2, A), TWO),
    ]
    with pytest.raises(IntractableError, match="'z' stands in a scale and 'g' outside of it"):
        total(factors, {"g": 2, "z": 2}, {"g": "A"}, variable_scales={"z": (TWO,)})


def test_scales_that_nothing_is_summed_in_multiply() -> None:
    out = total([factor("d", "", "", 1.5, TWO, THREE)], {})
    np.testing.assert_allclose(out, 9.0)


def test_a_scale_around_a_plate() -> None:
    data = table(2, A, B)
    out = total(
        [factor("z", "z", "A", Z, TWO), factor("d", "z", "AB", data, TWO, THREE)],
        {"z": 2},
        {"z": "A"},
        variable_scales={"z": (TWO,)},
        plate_scales={"B": 5.0},
    )
    expected = 2.0 * logsumexp(Z + 3.0 * 5.0 * data.sum(2), axis=0).sum()
    np.testing.assert_allclose(out, expected, rtol=TOLERANCE)


def test_a_scale_that_varies_along_a_plate_is_applied_where_that_plate_ends() -> None:
    along = np.array([1.0, 2.0, 3.0], np.float32)
    varying = Scale("varying", jnp.asarray(along), ("A",))
    data = table(2, A, B)
    out = total(
        [factor("z", "z", "A", Z, varying), factor("d", "z", "AB", data, varying)],
        {"z": 2},
        {"z": "A"},
        variable_scales={"z": (varying,)},
    )
    expected = (along * logsumexp(Z + data.sum(2), axis=0)).sum()
    np.testing.assert_allclose(out, expected, rtol=TOLERANCE)


def test_a_constant_scale_around_one_that_varies() -> None:
    along = np.array([1.0, 2.0, 3.0], np.float32)
    varying = Scale("varying", jnp.asarray(along), ("A",))
    out = total(
        [
            factor("x", "x", "", X, TWO),
            factor("z", "zx", "A", table(2, 2, A) * 0 + Z[:, None], TWO, varying),
        ],
        {"x": 2, "z": 2},
        {"z": "A"},
        variable_scales={"x": (TWO,), "z": (TWO, varying)},
    )
    inside = (along * logsumexp(Z, axis=0)).sum()
    np.testing.assert_allclose(out, 2.0 * logsumexp(X + inside), rtol=TOLERANCE)


def test_a_variable_inside_a_scale_that_its_factor_is_outside_of_is_refused() -> None:
    factors = [factor("x", "x", "", X, TWO), factor("obs", "x", "", X)]
    with pytest.raises(
        ScaleError, match=r"'x' is summed out inside a scale of two, but 'obs'.*no scale"
    ):
        total(factors, {"x": 2}, variable_scales={"x": (TWO,)})


def test_a_factor_in_another_scale_than_its_variable_is_refused() -> None:
    factors = [factor("x", "x", "", X, TWO), factor("obs", "x", "", X, THREE)]
    with pytest.raises(ScaleError, match=r"scale of two, but 'obs'.*stands in three"):
        total(factors, {"x": 2}, variable_scales={"x": (TWO,)})


def test_two_variables_of_one_factor_in_different_scales_are_refused() -> None:
    factors = [
        factor("x", "x", "", X, TWO),
        factor("y", "y", "", Y, THREE),
        factor("xy", "xy", "", XY, TWO),
    ]
    with pytest.raises(ScaleError, match="'y' is summed out inside a scale of three"):
        total(factors, {"x": 2, "y": 3}, variable_scales={"x": (TWO,), "y": (THREE,)})


# --- kept variables and gradients ------------------------------------------------------------------


def test_kept_variables_are_left_with_their_plates_and_scales() -> None:
    result = run(
        [
            factor("x", "x", "", X, TWO),
            factor("z", "zx", "A", table(2, 2, A), TWO),
            factor("y", "yx", "", XY.T, TWO),
        ],
        {"x": 2, "z": 2, "y": 3},
        {"z": "A"},
        keep="xz",
        variable_scales={"x": (TWO,), "z": (TWO,), "y": (TWO,)},
    )
    assert result.log_total == 0.0
    assert sorted((f.variables, f.plates) for f in result.kept) == [
        (("x",), ()),
        (("x",), ()),
        (("z", "x"), ("A",)),
    ]
    assert all(f.scales == (TWO,) for f in result.kept)
    from_y = next(f for f in result.kept if str(f.name).startswith("f"))
    np.testing.assert_allclose(from_y.array, logsumexp(XY, axis=1), rtol=TOLERANCE)


def test_the_gradient_is_the_marginal_also_beyond_plates() -> None:
    """Of x and z in A, against the table of all assignments of one element."""
    joint = X[:, None] + XY

    def log_total(tilt: Any) -> Any:
        factors = [
            factor("x", "x", "", X),
            factor("z", "xz", "A", np.repeat(XY[..., None], A, -1)),
            factor("tilt", "z", "A", tilt),
        ]
        return total(factors, {"x": 2, "z": 3}, {"z": "A"})

    gradient = jax.grad(log_total)(jnp.zeros((3, A)))
    weight = np.exp(X + A * logsumexp(XY, axis=1))
    weight /= weight.sum()
    given_x = np.exp(joint - logsumexp(joint, axis=1)[:, None])
    expected = (weight[:, None] * given_x).sum(0)
    np.testing.assert_allclose(gradient, np.repeat(expected[:, None], A, 1), rtol=TOLERANCE)


def test_impossible_values_leave_no_trace_in_the_gradient() -> None:
    some = X.copy()
    some[0] = -np.inf
    value, gradient = jax.value_and_grad(
        lambda x: total([factor("x", "x", "", x), factor("y", "xy", "", XY)], {"x": 2, "y": 3})
    )(jnp.asarray(some))
    np.testing.assert_allclose(value, some[1] + logsumexp(XY[1]), rtol=TOLERANCE)
    np.testing.assert_array_equal(gradient, [0, 1])
