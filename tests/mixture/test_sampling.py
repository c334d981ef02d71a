"""The posterior: the covariance that is known beforehand, and draws that have it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to
from scipy import stats

from marginax import marginalize
from marginax.mixture import GaussianMixture, HiddenMarkov, MixtureModel
from marginax.mixture.sampling import covariance_at, inside


def table(rows: int) -> np.ndarray:
    """Two clusters far apart, thin in one direction, and a count; ten rows here, twenty there."""
    rng = np.random.default_rng(0)
    which = np.arange(rows) // 10 % 3 > 0
    x = 10.0 * which + rng.normal(size=rows)
    return np.column_stack([x, 2 * x + 0.1 * rng.normal(size=rows), rng.poisson(3 + 20 * which)])


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (GaussianMixture(2, random_state=0), [0, 1]),
        (GaussianMixture(2, covariance_type="tied", random_state=0), [0, 1]),
        (
            MixtureModel(
                2, components=[("a", "normal", [0]), ("b", "poisson", [1])], random_state=0
            ),
            [0, 2],
        ),
        (HiddenMarkov(2, components="normal", n_init=2, random_state=0), [0]),
    ],
    ids=["full", "tied", "mixed", "chain"],
)
def test_with_many_rows_the_posteriors_covariance_is_known_beforehand(
    model: Any, columns: list[int]
):
    """Draws from that normal distribution have the posterior's density but for a constant."""
    X = table(3000)[:, columns]
    series = [25] * 120 if model._is_chain else None
    fitted = model.fit(X, lengths=series) if series else model.fit(X)
    design = fitted.learned_.design
    bijections = {s: biject_to(p.prior.support) for s, p in design.priors.items()}
    with jax.enable_x64(True):
        rows = jax.tree.map(jnp.asarray, fitted.learned_.rows(X, series))
        free = {s: bijections[s].inv(v) for s, v in inside(fitted.fit_.point, design).items()}
        found = covariance_at(design, rows, free, sorted(free))
        centre, unravel = ravel_pytree({s: free[s] for s in sorted(free)})
        moved = np.random.default_rng(0).multivariate_normal(centre, found, size=200)

        def log_density(flat: Any) -> Any:
            position = unravel(flat)
            values = {s: bijections[s](v) for s, v in position.items()}
            volumes = [
                jnp.sum(bijections[s].log_abs_det_jacobian(v, values[s]))
                for s, v in position.items()
            ]
            return marginalize(design.model).log_density(values, rows) + sum(volumes)

        exact = np.asarray(jax.jit(jax.vmap(log_density))(jnp.asarray(moved)))
    covariance: Any = found
    normal = stats.multivariate_normal.logpdf(moved, np.asarray(centre), covariance)
    # A slope is left, for the mode of unconstrained numbers is a little beside that of the parameters.
    away = np.column_stack([np.ones(len(moved)), moved - np.asarray(centre)])
    slope = np.linalg.lstsq(away, exact - normal, rcond=None)[0]
    assert np.std(exact - normal - away @ slope) < 0.3


@pytest.mark.slow
def test_thin_components_are_sampled_in_few_steps():
    X = table(1500)[:, :2]
    fitted = GaussianMixture(
        2, method="nuts", n_draws=200, n_warmup=100, n_chains=2, random_state=0
    ).fit(X)
    assert fitted.warnings_ == ()
    means = fitted.posterior_["means"]
    for k, row in enumerate(fitted.predict(X) == k for k in range(2)):
        # With so many rows: those of the component's mean.
        error = X[row].std(0) / np.sqrt(row.sum())
        np.testing.assert_allclose(means[:, k].std(0), error, rtol=0.25)
        assert (np.abs(means[:, k].mean(0) - X[row].mean(0)) < error).all()


def test_a_variational_posterior_of_thin_components_has_their_spread():
    X = table(1500)[:, :2]
    fitted = GaussianMixture(2, method="vi", n_draws=2000, random_state=0).fit(X)
    means = fitted.posterior_["means"]
    for k, row in enumerate(fitted.predict(X) == k for k in range(2)):
        error = X[row].std(0) / np.sqrt(row.sum())
        np.testing.assert_allclose(means[:, k].std(0), error, rtol=0.15)
        assert (np.abs(means[:, k].mean(0) - X[row].mean(0)) < 0.5 * error).all()
