"""Tables that are filled up: what is added says nothing."""

from typing import Any

import jax
import numpy as np
import pytest

from marginax import marginalize
from marginax.mixture import GaussianMixture, HiddenMarkov
from marginax.mixture.learned import kept_of
from marginax.mixture.padding import PER_DOUBLING, filled_up, size_of


def test_sizes_are_few_and_not_much_larger():
    counts = np.arange(1, 5000)
    sizes = np.array([size_of(int(count)) for count in counts])
    assert (sizes >= counts).all()
    assert (sizes < (1 + 1 / PER_DOUBLING) * counts + 1).all()
    assert all(size_of(int(size)) == size for size in sizes)
    assert len(set(sizes)) <= 13 * PER_DOUBLING
    assert size_of(272) == size_of(258)


@pytest.mark.parametrize("model", [GaussianMixture(2), HiddenMarkov(2, components="normal")])
@pytest.mark.parametrize("with_holes", [False, True])
def test_rows_that_fill_a_table_up_say_nothing(model: Any, with_holes: bool):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(37, 2))
    if with_holes:
        X[rng.random(X.shape) < 0.3] = np.nan
        X[0] = 0.0
    cells = model._read(X, learn=True)
    model._learn(*kept_of(cells, model.column_names_))
    design, rows = model.learned_.design, model.learned_.rows(cells)
    more = filled_up(rows)
    assert len(more.cells) == 40
    with jax.enable_x64(True):
        values = {}
        for n, (site, parameter) in enumerate(design.priors.items()):
            own = () if site in design.outer else (2,)
            drawn = parameter.prior.sample(jax.random.key(n), own)
            values[site] = np.asarray(drawn, np.float64)
        density = jax.value_and_grad(marginalize(design.model).log_density)
        (before, slopes), (after, others) = (
            jax.jit(lambda values, rows=rows: density(values, rows))(values)
            for rows in (rows, more)
        )
    np.testing.assert_allclose(after, before, rtol=1e-10)
    for site, slope in slopes.items():
        np.testing.assert_allclose(others[site], slope, rtol=1e-8, atol=1e-8, err_msg=site)
