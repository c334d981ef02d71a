"""Rare values are drawn as often as they should be, wherever they stand."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marginax.elimination.rare import CELL_BITS, FINE_BITS, draw_index, index_at

CASES = {
    "rare first": [1e-9, 0.3, 0.7],
    "rare in the middle": [0.3, 1e-9, 0.7],
    "rare last": [0.25, 0.75, 1e-12],
    "rare beside rarer": [1e-9, 1.0, 1e-12],
    "common": [0.2, 0.5, 0.3],
    "thirds": [1 / 3, 1 / 3, 1 / 3],
    "several remainders": [0.1, 0.1, 0.7, 0.1, 0.0],
    "certain": [0.0, 1.0, 0.0],
    "one": [1.0],
}


def frequencies(weights: np.ndarray) -> np.ndarray:
    """How often each index comes: over all that the two random numbers can be, on a fine grid.

    The cells that are shared come first; those after them hold one value each.
    """
    steps = 2**20
    rest = np.delete(weights * 2.0**CELL_BITS % 1, weights.argmax())
    shared = int(np.ceil(rest.sum()))
    ends = np.cumsum(np.delete(np.floor(weights * 2.0**CELL_BITS), weights.argmax())) + shared
    parts = [shared, *ends, 2**CELL_BITS]
    total = np.zeros(len(weights))

    def indices(cell: np.ndarray, fine: np.ndarray) -> np.ndarray:
        table = jnp.broadcast_to(jnp.asarray(weights, jnp.float32), (len(cell), len(weights)))
        args = (jnp.asarray(cell, jnp.uint32)[:, None], jnp.asarray(fine, jnp.uint32)[:, None])
        return np.asarray(index_at(table, 1, *args))

    for cell in range(shared):
        fine = np.arange(steps, dtype=np.uint64) * 2 ** (FINE_BITS - 20) + 2 ** (FINE_BITS - 21)
        found = indices(np.full(steps, cell), fine)
        total += np.bincount(found, minlength=len(weights)) / steps
    for low, high in itertools.pairwise(parts):
        if low < high:
            first, last = indices(np.array([low, high - 1]), np.array([0, 2**FINE_BITS - 1]))
            assert first == last
            total[first] += high - low
    return total / 2.0**CELL_BITS


@pytest.mark.parametrize("weights", CASES.values(), ids=CASES)
def test_every_value_comes_as_often_as_its_probability_says(weights: Sequence[float]) -> None:
    probabilities = np.asarray(weights, np.float32).astype(float)
    found = frequencies(probabilities)
    # To the grid of the test, and for the likeliest to the rounding of all the others.
    np.testing.assert_allclose(found, probabilities, rtol=1e-6, atol=2.0**-CELL_BITS / 2**19)


@pytest.mark.parametrize("is_double", [False, True], ids=["float32", "float64"])
def test_what_is_too_rare_to_be_seen_is_not_drawn_at_the_ends_of_the_random_numbers(
    is_double: bool,
) -> None:
    with jax.enable_x64(is_double):
        ends = jnp.array([0, 1, 2**FINE_BITS - 1], jnp.uint32)[:, None]
        cells = jnp.array([[0], [1], [2**CELL_BITS - 1]], jnp.uint32)
        for table in ([1e-30, 1.0], [1.0, 1e-30], [0.0, 1.0], [1.0, 0.0]):
            weights = jnp.broadcast_to(jnp.asarray(table, jnp.result_type(float)), (3, 2))
            for cell in cells:
                index = index_at(weights, 1, jnp.broadcast_to(cell, (3, 1)), ends)
                np.testing.assert_array_equal(index, int(np.argmax(table)))


def test_draws_along_any_axis_have_their_probabilities() -> None:
    table = jnp.array([0.5, 0.125, 0.375])
    shape = (100, 3, 200)
    weights = jnp.broadcast_to(table[:, None], shape)
    drawn = draw_index(jax.random.key(0), weights, 1)
    assert drawn.shape == (100, 200)
    np.testing.assert_array_equal(drawn, draw_index(jax.random.key(0), weights.swapaxes(1, 2), -1))
    counts = np.bincount(np.ravel(drawn), minlength=3)
    expected = 20_000 * np.asarray(table)
    assert ((counts - expected) ** 2 / expected).sum() < 18.4  # chi-square, 1e-4
