"""What each output depends on, and along which axes: expected by hand, and checked by numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax import lax
from jax.scipy.special import logsumexp, xlogy
from random_programs import STEP, Step, program

from marginax.jaxpr.dependence import Dependence, dependences

TABLE = jnp.log(jnp.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.25, 0.5, 0.25]]))
LOCS = jnp.array([-1.0, 0.5, 2.0])
MATRICES = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3)) + 4 * np.eye(3), float)
COLUMNS = jnp.array([0, 1, 2, 0])
DATA = jnp.array([0.3, -1.2, 0.7, 2.2])
N = 4


def depends(fn: Callable[..., Any], **inputs: Any) -> list[Dependence]:
    """Of each output of a function on its named inputs."""
    closed = jax.make_jaxpr(lambda *xs: fn(*xs))(*inputs.values())
    paths = [{name: tuple(range(np.ndim(x)))} for name, x in inputs.items()]
    return dependences(closed.jaxpr, paths)


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.int32)


@jax.custom_jvp
def smooth_step(x: Any) -> Any:
    return jnp.where(x > 0, 1.0, 0.0)


smooth_step.defjvp(lambda primals, tangents: (smooth_step(*primals), tangents[0]))


@jax.custom_vjp
def half(x: Any) -> Any:
    return x / 2


half.defvjp(lambda x: (x / 2, None), lambda _, g: (g / 2,))


@jax.jit
def jitted(x: Any, y: Any) -> Any:
    return LOCS[x] * y


def loop(z: Any) -> Any:
    return lax.fori_loop(0, 3, lambda i, total: total + LOCS[z] * i, jnp.zeros(N))


def branches(z: Any) -> Any:
    return lax.cond(DATA[0] > 0, lambda x: LOCS[x], lambda x: 2.0 * x, z)


def scanned(z: Any) -> Any:
    return lax.scan(lambda c, x: (c + x * LOCS[z], c * LOCS[z]), jnp.zeros(N), DATA)[1]


# Programs of z, shape (N,), in a plate: element i of the output depends on z[i] alone.
POINTWISE: dict[str, Callable[[Any], Any]] = {
    "T[z]": lambda z: LOCS[z],
    "data given T[z]": lambda z: -0.5 * (DATA - LOCS[z]) ** 2,
    "T[z, 1]": lambda z: TABLE[z, 1],
    "T[:, z][0]": lambda z: TABLE[:, z][0],
    "row and reduction": lambda z: logsumexp(TABLE[z], axis=-1),
    "T[z], own column": lambda z: jnp.take_along_axis(TABLE[z], COLUMNS[:, None], -1)[:, 0],
    "T[z, own column]": lambda z: TABLE[z, COLUMNS],
    "T[z, z]": lambda z: TABLE[z, z],
    "take": lambda z: jnp.take(LOCS, z),
    "where": lambda z: jnp.where(z == 1, DATA, -DATA),
    "where on a constant": lambda z: jnp.where(DATA > 0, LOCS[z], 0.0),
    "one hot and dot": lambda z: jax.nn.one_hot(z, 3) @ LOCS,
    "vstack": lambda z: jnp.vstack([LOCS[z], DATA])[0],
    "stack and sum": lambda z: jnp.stack([LOCS[z], DATA], -1).sum(-1),
    "stacked and taken apart": lambda z: jnp.unstack(jnp.stack([z, z + 1]))[1],
    "tiled beside": lambda z: jnp.tile(LOCS[z][:, None], (1, 3))[:, 2],
    "integer arithmetic": lambda z: (2 * z + 1) % 3 - z**2,
    "boolean arithmetic": lambda z: ((z == 1) | (z == 2)) & ~(z == 0),
    "comparison with every value": lambda z: (z[:, None] == jnp.arange(3)).any(-1),
    "and back": lambda z: LOCS[z][:, None][:, 0],
    "transposed and back": lambda z: TABLE[z].T.T[:, 0],
    "reshaped and back": lambda z: TABLE[z].reshape(N, 3, 1).reshape(N, 3)[:, 2],
    "padded beside": lambda z: jnp.pad(TABLE[z], ((0, 0), (1, 1)))[:, 0],
    "sorted beside": lambda z: jnp.sort(TABLE[z], -1)[:, 0],
    "accumulated beside": lambda z: jnp.cumsum(TABLE[z], -1)[:, -1],
    "split beside": lambda z: jnp.split(TABLE[z], 3, -1)[1][:, 0],
    "matrix of each": lambda z: lax.linalg.cholesky(jnp.eye(2) * (2.0 + LOCS[z])[:, None, None])[
        :, 0, 0
    ],
    "linear system of each": lambda z: lax.linalg.triangular_solve(
        jnp.broadcast_to(jnp.eye(2), (N, 2, 2)),
        TABLE[z][:, :2, None],
        left_side=True,
        lower=True,
    )[:, 0, 0],
    "one system, a column of each": lambda z: lax.linalg.triangular_solve(
        jnp.array([[2.0, 0.0], [1.0, 3.0]]), TABLE[z].T[:2], left_side=True, lower=True
    )[1],
    "determinant of each": lambda z: jnp.linalg.slogdet(MATRICES[z])[1],
    "inverse of each": lambda z: jnp.linalg.inv(MATRICES[z])[:, 0, 1],
    "solution of each": lambda z: jnp.linalg.solve(MATRICES[z], TABLE[z][..., None])[:, 0, 0],
    "eigenvalues of each": lambda z: jnp.linalg.eigvalsh(MATRICES[z])[:, 0],
    "written into an array": lambda z: jnp.zeros((N, 2)).at[:, 0].set(LOCS[z]).sum(1),
    "batched product": lambda z: jnp.einsum("nij,nj->ni", TABLE[:, :, None][z], TABLE[z][:, :1])[
        :, 0
    ],
    "vmapped": lambda z: jax.vmap(lambda i, x: TABLE[i] @ LOCS + x)(z, DATA),
    "jitted": lambda z: jitted(z, DATA),
    "custom jvp": lambda z: smooth_step(LOCS[z]),
    "custom vjp": lambda z: half(LOCS[z]),
    "xlogy": lambda z: xlogy(z, DATA**2),
    "checkpoint": lambda z: jax.checkpoint(lambda x: LOCS[x] + DATA)(z),
    "cond": branches,
    "fori loop": loop,
    "stop gradient": lambda z: lax.stop_gradient(LOCS[z]),
    "a constant added by a scatter": lambda z: LOCS[z] + jnp.zeros(N).at[0].set(1.0),
}

# Programs that mix the elements of the plate, and the primitive to blame.
MIXING: dict[str, tuple[Callable[[Any], Any], str]] = {
    "cumsum": (lambda z: jnp.cumsum(z), "cumsum"),
    "reversed": (lambda z: z[::-1], "rev"),
    "sum": (lambda z: DATA + z.sum(), "reduce_sum"),
    "mean by product": (lambda z: jnp.ones((N, N)) @ LOCS[z], "dot_general"),
    "previous element": (lambda z: LOCS[jnp.concatenate([z[:1], z[:-1]])], "slice"),
    "rolled": (lambda z: jnp.roll(z, 1), "slice"),
    "sorted": (lambda z: jnp.sort(z), "sort"),
    "permuted": (lambda z: z[jnp.array([1, 0, 3, 2])], "gather"),
    "counted": (lambda z: jnp.bincount(z, length=N), "scatter-add"),
    "softmaxed": (lambda z: jax.nn.softmax(LOCS[z]), "reduce_max"),
    "max": (lambda z: z - z.max(), "reduce_max"),
    "first": (lambda z: DATA + z[0], "slice"),
    "tiled": (lambda z: jnp.tile(z, 2)[1 : N + 1], "tile"),
    "taken apart": (lambda z: jnp.stack(jnp.split(z, N)[::-1])[:, 0], "split"),
    "joined": (lambda z: jnp.concatenate([z, z])[1 : N + 1], "concatenate"),
    "reshaped": (lambda z: z.reshape(2, 2).T.reshape(4), "reshape"),
    "padded": (lambda z: jnp.pad(z, (1, 0))[:N], "pad"),
    "with its own transpose": (lambda z: (z[:, None] * z).sum(0), "mul"),
    "scanned over": (lambda z: lax.scan(lambda c, x: (c + x, c), 0, z)[1], "scan"),
    "decides a loop": (
        lambda z: lax.while_loop(lambda c: c[0] < z.sum(), lambda c: c + 1.0, DATA),
        "reduce_sum",
    ),
    "decides a branch": (
        lambda z: lax.cond(z[0] > 0, lambda: DATA, lambda: -DATA),
        "slice",
    ),
    "fourier": (lambda z: jnp.fft.fft(LOCS[z]).real, "fft"),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_a_pointwise_program_runs_along_the_plate(name: str) -> None:
    (found,) = depends(POINTWISE[name], z=values(N))
    assert found == {"z": (0,)}


@pytest.mark.parametrize("name", MIXING)
def test_a_program_that_mixes_elements_is_caught_and_named(name: str) -> None:
    fn, primitive = MIXING[name]
    (found,) = depends(fn, z=values(N))
    assert found == {"z": (primitive,)}


@pytest.mark.parametrize("name", [*POINTWISE, *MIXING])
def test_numbers_confirm_the_analysis(name: str) -> None:
    """Changing z[i] changes nothing but element i, or the analysis has said that elements mix."""
    fn = jax.jit(POINTWISE[name] if name in POINTWISE else MIXING[name][0])
    z = values(N)
    mixes = False
    before = np.asarray(fn(z))
    for i in range(N):
        for value in range(3):
            after = np.asarray(fn(np.where(np.arange(N) == i, value, z).astype(np.int32)))
            mixes |= not np.array_equal(np.delete(before, i), np.delete(after, i))
    assert mixes == (name in MIXING)


@pytest.mark.parametrize("name", ["T[a][b]", "T[a, b]", "where", "matrix", "nested gathers"])
def test_scalars_outside_plates(name: str) -> None:
    fn = {
        "T[a][b]": lambda a, b: TABLE[a][b],
        "T[a, b]": lambda a, b: TABLE[a, b],
        "where": lambda a, b: jnp.where(a == 1, LOCS[b], 0.0),
        "matrix": lambda a, b: (TABLE * a) @ (LOCS + b),
        "nested gathers": lambda a, b: LOCS[(a + b) % 3],
    }[name]
    (found,) = depends(fn, a=values(), b=values())
    assert found == {"a": (), "b": ()}


def test_an_output_depends_on_nothing_that_it_does_not_use() -> None:
    def program(a: Any, b: Any, c: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            first, second = carry
            return (first + a, second + x), (second, first)

        (first, second), (seconds, firsts) = lax.scan(body, (0.0, 0.0), DATA * b)
        return first, second, seconds, firsts, jnp.zeros_like(c), c * 0.0

    inputs = {"a": 1.0, "b": 2.0, "c": 3.0}
    assert depends(program, **inputs) == [
        {"a": ()},
        {"b": ()},
        {"b": ()},
        {"a": ()},
        {},
        {"c": ()},
    ]


def test_what_is_carried_around_a_loop_gathers_dependences_until_nothing_changes() -> None:
    def program(a: Any, b: Any, c: Any) -> Any:
        # c reaches the third carry after two steps, through the second.
        def body(_: Any, carry: Any) -> Any:
            first, second, _ = carry
            return a, first + b, second

        return lax.fori_loop(0, 4, body, (c, 0.0, 0.0))

    first, second, third = depends(program, a=1.0, b=1.0, c=1.0)
    assert first == {"a": (), "c": ()}
    assert second == {"a": (), "b": (), "c": ()}
    assert third == {"a": (), "b": (), "c": ()}


def test_a_scanned_axis_comes_back_in_front() -> None:
    """A loop over time inside a plate: z has shape (time, N), and time is scanned over."""

    def program(z: Any, w: Any) -> Any:
        return lax.scan(lambda c, x: (c, LOCS[x] + w), jnp.zeros(N), z)[1]

    (found,) = depends(program, z=values(5, N), w=values(N))
    assert found == {"z": ("scan", 1), "w": (1,)}


def test_a_branch_that_a_variable_decides_depends_on_it() -> None:
    (found,) = depends(
        lambda z, x: lax.cond(z == 1, lambda y: y * DATA, lambda y: DATA, x), z=values(), x=1.0
    )
    assert found == {"z": (), "x": ()}


def test_a_loop_that_a_variable_bounds_depends_on_it() -> None:
    (found,) = depends(lambda z: lax.fori_loop(0, z, lambda i, c: c + DATA, DATA), z=values())
    assert found == {"z": ()}


def test_two_plates_keep_their_axes_through_broadcasting() -> None:
    """One variable lives in the rows, one in the columns, one in both."""
    (found,) = depends(
        lambda z, w, v: LOCS[z][:, None] * LOCS[w] + TABLE[v, z[:, None]],
        z=values(3),
        w=values(4),
        v=values(3, 4),
    )
    assert found == {"z": (0,), "w": (1,), "v": (0, 1)}


def test_an_axis_that_arrives_elsewhere_is_not_confused() -> None:
    (found,) = depends(lambda v: LOCS[v].T, v=values(3, 3))
    assert found == {"v": (1, 0)}
    (found,) = depends(lambda v: v + v.T, v=values(3, 3))
    assert found == {"v": ("add", "add")}


SHAPES = st.lists(st.sampled_from([(), (2,), (3,), (2, 3), (3, 3)]), min_size=1, max_size=2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SHAPES, st.lists(STEP, min_size=1, max_size=7))
def test_random_programs_depend_on_nothing_else(
    shapes: list[tuple[int, ...]], steps: list[Step]
) -> None:
    """Change one slice of one input: outputs change at most where the analysis allows it."""
    inputs = {f"z{i}": values(*shape, seed=i) for i, shape in enumerate(shapes)}
    found = depends(program(steps), **inputs)
    run = jax.jit(lambda given: program(steps)(*given.values()))
    before = run(inputs)
    for name, z in inputs.items():
        for axis, i in [(a, i) for a in range(z.ndim) for i in range(z.shape[a])] or [(None, 0)]:
            slab = (slice(None),) * (axis or 0) + (i,) if axis is not None else ()
            changed = z.copy()
            changed[slab] = (z[slab] + 1) % 3
            after = run(inputs | {name: changed})
            for dependence, x, y in zip(found, before, after, strict=True):
                if name not in dependence:
                    np.testing.assert_array_equal(x, y)
                elif axis is not None and not isinstance(dependence[name][axis], str):
                    out = int(dependence[name][axis])
                    np.testing.assert_array_equal(np.delete(x, i, out), np.delete(y, i, out))
