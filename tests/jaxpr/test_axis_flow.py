"""The axis table against numbers.

Each program below is run on two sets of inputs, A and B, and every equation in it is looked at alone:

- *locality*: put the slice j of B into A along a mapped input axis; only the slice j of the
  outputs may change;
- *late broadcast*: let the inputs repeat themselves along everything that becomes one output axis;
  evaluated at size one there, the equation gives what it gives at full size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core as jex_core
from jax.extend.core import primitives
from jax.scipy.special import xlogy

from marginax.jaxpr.axis_flow import ELEMENTWISE, RULES, AxisFlow, axis_flow, shape_of
from marginax.jaxpr.enumerated import Enumerated, materialise
from marginax.jaxpr.evaluate import evaluate

Draw = Callable[[np.random.Generator], Any]
"""Makes one input."""

Program = tuple[Callable[..., Any], tuple[Draw, ...]]


def positive(*shape: int) -> Draw:
    """Numbers in (0.1, 0.9): inside the domain of every function below."""
    return lambda rng: rng.uniform(0.1, 0.9, shape).astype(np.float32)


def above_one(*shape: int) -> Draw:
    return lambda rng: rng.uniform(1.1, 3.0, shape).astype(np.float32)


def signed(*shape: int) -> Draw:
    return lambda rng: rng.normal(size=shape).astype(np.float32)


def integers(high: int, *shape: int) -> Draw:
    return lambda rng: rng.integers(0, high, shape).astype(np.int32)


def booleans(*shape: int) -> Draw:
    return lambda rng: rng.random(shape) < 0.5


def complexes(*shape: int) -> Draw:
    return lambda rng: (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def spd(count: int, size: int) -> Draw:
    def make(rng: np.random.Generator) -> Any:
        root = rng.normal(size=(count, size, size))
        return (root @ root.swapaxes(-1, -2) + size * np.eye(size)).astype(np.float32)

    return make


def triangular(count: int, size: int) -> Draw:
    return lambda rng: np.tril(rng.uniform(1.0, 2.0, (count, size, size))).astype(np.float32)


S = (2, 3)
PROGRAMS: dict[str, Program] = {
    **{
        name: (getattr(lax, name), (positive(*S),))
        for name in """
            abs acos asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma erf
            erf_inv erfc exp exp2 expm1 floor is_finite lgamma log log1p logistic neg round rsqrt
            sign sin sinh sqrt square stop_gradient tan tanh
        """.split()
    },
    **{
        name: (getattr(lax, name), (positive(*S), positive(*S)))
        for name in """
            add sub mul div rem max min pow atan2 nextafter eq ne lt le gt ge igamma igammac
            igamma_grad_a random_gamma_grad
        """.split()
    },
    **{
        name: (getattr(lax, name), (integers(8, *S), integers(8, *S)))
        for name in """
            bitwise_and bitwise_or bitwise_xor shift_left shift_right_arithmetic shift_right_logical
        """.split()
    },
    "copy": (jnp.copy, (positive(*S),)),
    "acosh": (lax.acosh, (above_one(*S),)),
    "zeta": (lax.zeta, (above_one(*S), above_one(*S))),
    "polygamma": (lambda x: lax.polygamma(jnp.ones_like(x), x), (above_one(*S),)),
    "betainc": (lax.betainc, (positive(*S), positive(*S), positive(*S))),
    "integer_pow": (lambda x: lax.integer_pow(x, 3), (positive(*S),)),
    "clz": (lax.clz, (integers(8, *S),)),
    "mulhi": (lax.mulhi, (integers(8, *S), integers(8, *S))),
    "population_count": (lax.population_count, (integers(8, *S),)),
    "not": (lax.bitwise_not, (integers(8, *S),)),
    "convert": (lambda x: lax.convert_element_type(x, jnp.float32), (integers(8, *S),)),
    "reduce_precision": (lambda x: lax.reduce_precision(x, 8, 7), (positive(*S),)),
    "conj": (lax.conj, (complexes(*S),)),
    "real": (lax.real, (complexes(*S),)),
    "imag": (lax.imag, (complexes(*S),)),
    "name": (lambda x: checkpoint_name(x, "x"), (positive(*S),)),
    "add_any": (lambda x, y: primitives.add_jaxvals_p.bind(x, y), (positive(*S), positive(*S))),
    "total orders": (
        lambda x, y: (
            primitives.eq_to_p.bind(x, y),
            primitives.le_to_p.bind(x, y),
            primitives.lt_to_p.bind(x, y),
        ),
        (signed(*S), signed(*S)),
    ),
    "clamp": (lambda x: lax.clamp(0.3, x, 0.6), (positive(*S),)),
    "clamp by arrays": (lax.clamp, (positive(*S), positive(*S), positive(*S))),
    "where": (jnp.where, (booleans(*S), positive(*S), positive(*S))),
    "where, scalar condition": (
        lambda c, x, y: lax.select_n(c[0], x, y),
        (booleans(1), positive(*S), positive(*S)),
    ),
    "where, size-one operands": (jnp.where, (booleans(2, 1), positive(1, 3), positive(*S))),
    "add, size-one operand": (lambda x, y: x + y, (positive(2, 1), positive(*S))),
    "add, lower rank": (lambda x, y: x + y, (positive(3), positive(*S))),
    "broadcast to a new leading axis": (lambda x: jnp.broadcast_to(x, (4, 2, 3)), (signed(*S),)),
    "broadcast to a new inner axis": (
        lambda x: jnp.broadcast_to(x[:, None], (2, 4, 3)),
        (signed(*S),),
    ),
    "broadcast of size one": (lambda x: jnp.broadcast_to(x, (2, 3)), (signed(2, 1),)),
    "expand": (lambda x: x[:, None, :, None], (signed(*S),)),
    "squeeze": (lambda x: jnp.squeeze(x, (0, 2)), (signed(1, 2, 1, 3),)),
    "squeeze from the back": (lambda x: lax.squeeze(x, (-1,)), (signed(2, 1),)),
    "ravel": (lambda x: x.reshape(-1), (signed(*S),)),
    "reshape splits the last axis": (lambda x: x.reshape(2, 2, 3), (signed(2, 6),)),
    "reshape joins the last axes": (lambda x: x.reshape(2, 6), (signed(2, 2, 3),)),
    "reshape joins the first axes": (lambda x: x.reshape(6, 4), (signed(2, 3, 4),)),
    "reshape that looks like a transpose": (lambda x: x.reshape(3, 2), (signed(2, 3),)),
    "reshape of a square": (lambda x: x.reshape(2, 2, 2), (signed(4, 2),)),
    "reshape around size one": (lambda x: x.reshape(2, 1, 3), (signed(1, 2, 3),)),
    "transpose": (lambda x: jnp.transpose(x, (2, 0, 1)), (signed(2, 3, 4),)),
    "slice": (lambda x: x[:, 1:3], (signed(2, 4),)),
    "slice with a stride": (lambda x: x[:, ::2], (signed(2, 4),)),
    "slice of everything backwards": (lambda x: x[:, ::-1], (signed(2, 4),)),
    "one row": (lambda x: x[1], (signed(2, 4),)),
    "dynamic slice": (
        lambda x, i: lax.dynamic_slice(x, (0, i[0]), (2, 2)),
        (signed(2, 4), integers(3, 1)),
    ),
    "dynamic index": (lambda x, i: x[i[0]], (signed(2, 4), integers(2, 1))),
    "dynamic index, last axis": (lambda x, i: x[:, i[0]], (signed(2, 4), integers(4, 1))),
    "pad": (lambda x, v: lax.pad(x, v[0], ((0, 0, 0), (1, 2, 1))), (signed(*S), signed(1))),
    "pad inwards": (lambda x: jnp.pad(x, ((1, 1), (0, 0))), (signed(*S),)),
    "concatenate": (lambda x, y: jnp.concatenate([x, y], 1), (signed(2, 3), signed(2, 1))),
    "vstack": (lambda x, y: jnp.vstack([x, y]), (signed(3), signed(3))),
    "stack": (lambda x, y: jnp.stack([x, y], -1), (signed(*S), signed(*S))),
    "unstack": (lambda x: jnp.unstack(x, axis=1), (signed(2, 3, 4),)),
    "tile": (lambda x: jnp.tile(x, (1, 2)), (signed(2, 3),)),
    "tile of size one": (lambda x: jnp.tile(x, (3, 2)), (signed(2, 1),)),
    "split": (lambda x: lax.split(x, (1, 2), axis=1), (signed(2, 3),)),
    "rev": (lambda x: lax.rev(x, (1,)), (signed(*S),)),
    "sort": (lambda x: lax.sort(x, dimension=1), (signed(*S),)),
    "argsort": (lambda x: jnp.argsort(x, axis=0), (signed(*S),)),
    "cumulative": (
        lambda x: (
            *(lax.cumsum(x, 1), lax.cumprod(x, 0), lax.cummax(x, 1), lax.cummin(x, 0)),
            lax.cumlogsumexp(x, 1),
        ),
        (signed(*S),),
    ),
    "reductions": (
        lambda x: (x.sum(1), x.prod(0), x.max((0, 2)), x.min(-1), x.sum()),
        (signed(2, 3, 4),),
    ),
    "boolean reductions": (
        lambda x, i: (x.all(0), x.any(1), lax.reduce_xor(i, (0,))),
        (booleans(*S), integers(8, *S)),
    ),
    "argmax": (lambda x: (jnp.argmax(x, 0), jnp.argmin(x, 1)), (signed(*S),)),
    "T[z]": (lambda t, z: t[z], (signed(4), integers(4, *S))),
    "T[z, :]": (lambda t, z: t[z, :], (signed(4, 5), integers(4, *S))),
    "T[:, z]": (lambda t, z: t[:, z], (signed(5, 4), integers(4, *S))),
    "T[a, b]": (lambda t, a, b: t[a, b], (signed(4, 5), integers(4, *S), integers(5, *S))),
    "T[a][..., b]": (lambda t, a, b: t[a][..., b], (signed(4, 5), integers(4, 2), integers(5, 3))),
    "T[a, :, b]": (lambda t, a, b: t[a, :, b], (signed(4, 2, 5), integers(4, 3), integers(5, 3))),
    "take": (lambda t, z: jnp.take(t, z, axis=1), (signed(5, 4), integers(4, *S))),
    "take, clipped": (
        lambda t, z: jnp.take(t, z, axis=0, mode="clip"),
        (signed(4), integers(6, 3)),
    ),
    "take_along_axis": (
        lambda t, z: jnp.take_along_axis(t, z, axis=-1),
        (signed(2, 3, 4), integers(4, 2, 3, 1)),
    ),
    "take_along_axis over size one": (
        lambda t, z: jnp.take_along_axis(t, z, axis=-1),
        (signed(1, 1, 4), integers(4, 2, 3, 1)),
    ),
    "take_along_axis, first axis": (
        lambda t, z: jnp.take_along_axis(t, z, axis=0),
        (signed(4, 3), integers(4, 2, 3)),
    ),
    "own row": (lambda t, z: t[jnp.arange(3), z], (signed(3, 4), integers(4, 3))),
    "batched index": (
        lambda t, z: jax.vmap(lambda r, i: r[i])(t, z),
        (signed(3, 4), integers(4, 3)),
    ),
    "batched row": (
        lambda t, z: jax.vmap(lambda r, i: r[i])(t, z),
        (signed(3, 4, 2), integers(4, 3)),
    ),
    "batched slice": (
        lambda t, z: jax.vmap(lambda r, i: lax.dynamic_slice(r, (i,), (2,)))(t, z),
        (signed(3, 4), integers(3, 3)),
    ),
    "matrix product": (lambda x, y: x @ y, (signed(2, 3), signed(3, 4))),
    "batched product": (lambda x, y: x @ y, (signed(5, 2, 3), signed(5, 3, 4))),
    "matrix vector": (lambda x, y: x @ y, (signed(2, 3), signed(3))),
    "einsum, two batch axes": (
        lambda x, y: jnp.einsum("abij,bajk->abik", x, y),
        (signed(2, 3, 2, 2), signed(3, 2, 2, 2)),
    ),
    "outer product": (lambda x, y: jnp.einsum("i,j->ij", x, y), (signed(2), signed(3))),
    "set a column": (lambda x, u: x.at[:, 1].set(u), (signed(2, 3), signed(2))),
    "set a row": (lambda x, u: x.at[1].set(u), (signed(2, 3), signed(3))),
    "set everything": (lambda x, u: x.at[:].set(u), (signed(2, 3), signed(2, 3))),
    "set a part": (lambda x, u: x.at[:, 1:3].set(u), (signed(2, 4), signed(2, 2))),
    "set by an index": (
        lambda x, u, i: x.at[:, i].set(u),
        (signed(2, 4), signed(2, 3), integers(4, 3)),
    ),
    "accumulate by an index": (
        lambda x, u, i: (
            *(x.at[i].add(u), x.at[i].multiply(u), x.at[i].min(u), x.at[i].max(u)),
            x.at[i, :1].add(u[:, :1]),
        ),
        (signed(4, 2), signed(3, 2), integers(4, 3)),
    ),
    "batched set": (
        lambda x, u, i: jax.vmap(lambda r, v, j: r.at[j].set(v))(x, u, i),
        (signed(3, 4, 2), signed(3, 2), integers(4, 3)),
    ),
    "update a slice": (
        lambda x, u, i: lax.dynamic_update_slice(x, u, (0, i[0])),
        (signed(2, 4), signed(2, 2), integers(3, 1)),
    ),
    "factorisations": (
        lambda a: (
            *(lax.linalg.lu(a), lax.linalg.eigh(a), lax.linalg.svd(a), jnp.linalg.qr(a)),
            lax.linalg.lu_pivots_to_permutation(lax.linalg.lu(a)[1], 3),
        ),
        (spd(2, 3),),
    ),
    "householder product": (lax.linalg.householder_product, (signed(2, 3, 3), positive(2, 3))),
    "cholesky": (lax.linalg.cholesky, (spd(2, 3),)),
    "triangular solve": (
        lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True, lower=True),
        (triangular(2, 3), signed(2, 3, 4)),
    ),
    "triangular solve from the right": (
        lambda a, b: lax.linalg.triangular_solve(a, b, lower=True),
        (triangular(2, 3), signed(2, 4, 3)),
    ),
    "xlogy": (xlogy, (positive(*S), positive(*S))),
    "softmax": (lambda x: jax.nn.softmax(x, axis=-1), (signed(*S),)),
}


def equations(
    fn: Callable[..., Any], *runs: tuple[Any, ...]
) -> Iterator[tuple[Any, list[list[Any]]]]:
    """Every equation of a function, with its inputs in each run; calls are looked into."""
    closed = jax.make_jaxpr(fn)(*runs[0])
    yield from _inside(closed.jaxpr, closed.consts, [list(run) for run in runs])


def _inside(jaxpr: Any, consts: list[Any], runs: list[list[Any]]) -> Iterator[tuple[Any, Any]]:
    known = [dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *r], strict=True)) for r in runs]
    for eqn in jaxpr.eqns:
        values = [[v.val if hasattr(v, "val") else k[v] for v in eqn.invars] for k in known]
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if eqn.primitive.name in ("jit", "pjit", "custom_jvp_call"):
            yield from _inside(inner.jaxpr, inner.consts, values)
            outputs = [jex_core.jaxpr_as_fun(inner)(*v) for v in values]
        else:
            yield eqn, values
            outputs = [_outputs(eqn, v) for v in values]
        for names, out in zip(known, outputs, strict=True):
            names.update(zip(eqn.outvars, out, strict=True))


def _outputs(eqn: Any, values: list[Any]) -> list[Any]:
    bound = eqn.primitive.bind(*map(jnp.asarray, values), **eqn.params)
    return list(bound) if eqn.primitive.multiple_results else [bound]


def two_runs(make: tuple[Draw, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    one, other = np.random.default_rng(0), np.random.default_rng(1)
    return tuple(m(one) for m in make), tuple(m(other) for m in make)


def flows(name: str) -> Iterator[tuple[Any, AxisFlow, list[Any], list[Any]]]:
    fn, make = PROGRAMS[name]
    for eqn, (a, b) in equations(fn, *two_runs(make)):
        flow = axis_flow(eqn)
        if flow is not None:
            yield eqn, flow, a, b


def without(array: Any, index: int, axis: int) -> np.ndarray:
    return np.delete(np.asarray(array), index, axis)


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_output_element_depends_on_its_own_input_elements_alone(name: str) -> None:
    for eqn, flow, ours, theirs in flows(name):
        before = _outputs(eqn, ours)
        for i, axes in enumerate(flow.maps):
            shape = shape_of(eqn.invars[i])
            assert len(axes) == len(shape), eqn
            for a, o in enumerate(axes):
                if o is None:
                    continue
                assert all(shape[a] in (1, out.shape[o]) for out in before), eqn
                for j in range(shape[a]) if shape[a] > 1 else ():
                    changed = np.array(ours[i])
                    at_j = (slice(None),) * a + (j,)
                    changed[at_j] = np.asarray(theirs[i])[at_j]
                    after = _outputs(eqn, [*ours[:i], changed, *ours[i + 1 :]])
                    for x, y in zip(before, after, strict=True):
                        # Iterative functions stop when all elements are good: rounding may differ.
                        x, y = without(x, j, o), without(y, j, o)
                        np.testing.assert_allclose(x, y, rtol=1e-6, err_msg=str(eqn))


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_repeats_along_an_axis_is_computed_once_and_is_the_same(name: str) -> None:
    for eqn, flow, ours, _ in flows(name):
        shape = shape_of(eqn.outvars[0])
        reached = {o for axes in flow.maps for o in axes if o is not None}
        for o in range(len(shape)):
            if shape[o] == 1:
                continue
            small, full = [], []
            for value, axes in zip(ours, flow.maps, strict=True):
                array, constant = np.asarray(value), frozenset[int]()
                for a, into in enumerate(axes):
                    if into == o and array.shape[a] != 1:
                        constant |= {a}
                once = array[
                    tuple(slice(0, 1) if a in constant else slice(None) for a in range(array.ndim))
                ]
                small.append(Enumerated(once, (), constant))
                full.append(np.broadcast_to(once, array.shape))
            single = jax.make_jaxpr(lambda *xs, eqn=eqn: eqn.primitive.bind(*xs, **eqn.params))(
                *full
            )
            outputs = evaluate(single.jaxpr, single.consts, small, {})
            for out, plain in zip(outputs, _outputs(eqn, full), strict=True):
                once = o in (reached | flow.new_axes) - flow.varying
                assert (o in out.constant) == once, f"axis {o} of {eqn}"
                whole = materialise(out, plain.shape, out.constant)
                np.testing.assert_allclose(whole.array, plain, rtol=1e-6, err_msg=str(eqn))


def test_every_primitive_in_the_table_is_exercised() -> None:
    def names(jaxpr: Any) -> set[str]:
        inner = [eqn.params.get("jaxpr", eqn.params.get("call_jaxpr")) for eqn in jaxpr.eqns]
        found = {eqn.primitive.name for eqn in jaxpr.eqns}
        return found.union(*(names(closed.jaxpr) for closed in inner if closed is not None))

    seen = set[str]()
    for fn, make in PROGRAMS.values():
        seen |= names(jax.make_jaxpr(fn)(*two_runs(make)[0]).jaxpr)
    # Names that this version of JAX has no primitive for are there for other versions.
    assert (ELEMENTWISE | RULES.keys()) - seen <= {"copy_p", "random_gamma_grad"}


def expect(name: str, primitive: str) -> AxisFlow:
    (found,) = [flow for eqn, flow, _, _ in flows(name) if eqn.primitive.name == primitive]
    return found


def test_a_gather_runs_along_its_indices_and_along_whole_operand_axes() -> None:
    assert expect("T[z]", "gather").maps == ((None,), (0, 1, None))
    assert expect("T[z, :]", "gather").maps == ((None, 2), (0, 1, None))
    assert expect("T[:, z]", "gather").maps == ((0, None), (1, 2, None))
    assert expect("batched index", "gather").maps == ((0, None), (0, None))
    assert expect("batched row", "gather").maps == ((0, None, 2), (0, None))
    assert expect("batched slice", "gather").maps == ((0, None), (0, None))


def test_a_reshape_keeps_the_axes_that_stay_where_they_are() -> None:
    assert expect("reshape joins the first axes", "reshape").maps == ((None, None, 1),)
    assert expect("reshape splits the last axis", "reshape").maps == ((0, None),)
    assert expect("reshape that looks like a transpose", "reshape").maps == ((None, None),)
    assert expect("reshape around size one", "reshape").maps == ((None, 0, 2),)


def test_a_scatter_runs_along_its_operand_and_along_whole_windows() -> None:
    assert expect("set a column", "scatter").maps == ((0, 1), (None,), (0,))
    assert expect("set a part", "scatter").maps == ((0, 1), (None,), (0, None))
    assert expect("set by an index", "scatter").maps == ((0, 1), (None, None), (0, None))
    assert expect("batched set", "scatter").maps[0] == (0, 1, 2)


def test_a_triangular_solve_is_one_for_each_column() -> None:
    columns = expect("triangular solve", "triangular_solve")
    assert columns.maps == ((0, None, None), (0, None, 2))
    rows = expect("triangular solve from the right", "triangular_solve")
    assert rows.maps == ((0, None, None), (0, 1, None))


def test_a_product_runs_along_batch_and_free_axes_but_not_along_what_it_sums() -> None:
    assert expect("batched product", "dot_general").maps == ((0, 1, None), (0, None, 2))
    assert expect("matrix vector", "dot_general").maps == ((0, None), (None,))


def test_an_unknown_primitive_has_no_flow() -> None:
    ((eqn, _),) = [
        (eqn, v)
        for eqn, v in equations(lambda x: jnp.fft.fft(x), (np.ones((2, 3), np.complex64),))
        if eqn.primitive.name == "fft"
    ]
    assert axis_flow(eqn) is None


def test_an_equation_without_outputs_has_no_flow() -> None:
    jaxpr = jax.make_jaxpr(lambda x: jax.debug.callback(lambda _: None, x))(jnp.ones(2))
    assert axis_flow(jaxpr.jaxpr.eqns[-1]) is None
