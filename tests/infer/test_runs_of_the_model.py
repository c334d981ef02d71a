"""How often inference runs a model: what it needs to know is found out once, at the start of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.errors import ModelError
from marginax.infer import (
    MCMC,
    NUTS,
    SVI,
    Predictive,
    TraceEnum_ELBO,
    init_to_feasible,
    minibatches,
)
from marginax.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)

DATA = jnp.array([0.0, 1.0, 0.5, 6.0, 5.5, 7.0])
KEY = jax.random.key(0)


AUTOMATIC = [
    AutoDelta,
    AutoNormal,
    AutoDiagonalNormal,
    AutoMultivariateNormal,
    AutoLowRankMultivariateNormal,
    AutoLaplaceApproximation,
]


class Counted:
    """A mixture that counts its runs."""

    def __init__(self, with_components: bool = True) -> None:
        self.runs = 0
        self.with_components = with_components

    def __call__(self, data: Any, size: int | None = None) -> None:
        self.runs += 1
        scale = mx.sample("scale", dist.LogNormal(0.0, 1.0))
        with mx.plate("components", 2):
            locs = mx.sample("locs", dist.Normal(0.0, 10.0))
        with mx.plate("data", size or len(data), len(data)):
            z = 0
            if self.with_components:
                z = mx.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
            mx.sample("x", dist.Normal(locs[z], scale), obs=data)


def by_hand(data: Any, size: int | None = None) -> None:
    loc = mx.param("loc", 0.0)
    mx.sample("scale", dist.LogNormal(loc, 0.1))
    with mx.plate("components", 2):
        mx.sample("locs", dist.Normal(mx.param("locs_at", jnp.array([0.0, 5.0])), 0.1))


def fit(model: Any, guide: Any, **options: Any) -> Any:
    svi = SVI(model, guide, optax.adam(0.01), TraceEnum_ELBO())
    return svi.run(KEY, 3, DATA, progress_bar=False, **options)


def first_parameter(guide: Any) -> dict[str, Any]:
    """Of a guide of a `Counted`, a value to begin with."""
    if isinstance(guide, AutoDelta):
        return {"locs_auto_loc": jnp.zeros(2)}
    if isinstance(guide, AutoNormal):
        return {"locs_auto_loc": jnp.zeros(2), "scale_auto_scale": jnp.ones(())}
    return {"auto_loc": jnp.zeros(3)}


def test_svi_runs_a_model_for_its_sites_and_its_loss():
    model = Counted()
    fit(model, by_hand)
    assert model.runs == 2


@pytest.mark.parametrize("kind", AUTOMATIC)
def test_an_automatic_guide_needs_no_run_of_its_own(kind: Any):
    model = Counted()
    fit(model, kind(model))
    assert model.runs == 2


@pytest.mark.parametrize("kind", AUTOMATIC)
def test_initial_values_that_are_given_take_no_run(kind: Any):
    model = Counted()
    fit(model, kind(model), init_params=first_parameter(kind(model)))
    assert model.runs == 2


@pytest.mark.filterwarnings("ignore:SVI.run")  # three steps are too few to agree
@pytest.mark.parametrize("kind", AUTOMATIC)
def test_all_restarts_begin_from_one_run(kind: Any):
    model = Counted(with_components=False)
    guide = kind(model, init_loc_fn=init_to_feasible)
    fit(model, guide, num_restarts=3)
    assert model.runs == 2


def test_restarts_need_one_run_more_for_the_use_of_components():
    model = Counted()
    fit(model, AutoDelta(model, init_loc_fn=init_to_feasible), num_restarts=2)
    assert model.runs == 3


def test_a_guide_inside_of_a_function_asks_the_same_record():
    model = Counted()
    auto = AutoDelta(model)
    fit(model, lambda data: auto(data))
    assert model.runs == 2


def test_elements_of_a_plate_that_are_absent_begin_in_a_run_of_their_own():
    runs = []

    def model() -> None:
        runs.append(None)
        with mx.plate("n", 6, subsample_size=2):
            mx.sample("x", dist.Normal(0.0, 1.0))

    svi = SVI(model, AutoNormal(model), optax.adam(0.01), TraceEnum_ELBO())
    svi.run(KEY, 3, progress_bar=False)
    assert len(runs) == 3


def test_a_checkpoint_costs_no_run(tmp_path: Path):
    model = Counted()
    fit(model, AutoDelta(model), checkpoint=tmp_path / "run.mx")
    assert model.runs == 2
    fit(model, AutoDelta(model), checkpoint=tmp_path / "run.mx")  # it is finished
    assert model.runs == 4


def test_batches_of_one_shape_share_what_is_known():
    model = Counted()
    svi = SVI(model, AutoNormal(model), optax.adam(0.01), TraceEnum_ELBO(), size=64)
    rows = np.linspace(-1.0, 1.0, 64, dtype=np.float32)
    svi.run(KEY, 8, batches=minibatches(rows, 16), progress_bar=False)
    assert model.runs == 2


def test_a_batch_of_another_shape_is_looked_at_and_traced():
    model = Counted()
    svi = SVI(model, by_hand, optax.adam(0.01), TraceEnum_ELBO(), size=64)
    rows = np.linspace(-1.0, 1.0, 64, dtype=np.float32)
    batches = [rows[:16], rows[16:32], rows[32:40], rows[40:48]]
    svi.run(KEY, 4, batches=batches, progress_bar=False)
    assert model.runs == 4


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the chains are too short
def test_mcmc_runs_a_model_for_its_density_and_its_starts():
    model = Counted()
    mcmc = MCMC(NUTS(model), num_warmup=3, num_samples=3, progress_bar=False)
    mcmc.run(KEY, DATA)
    assert model.runs == 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the chains are too short
def test_mcmc_that_knows_where_to_begin_needs_no_run_for_it(tmp_path: Path):
    model = Counted()

    def run(num_samples: int) -> None:
        mcmc = MCMC(NUTS(model), num_warmup=3, num_samples=num_samples, progress_bar=False)
        start = {"scale": jnp.zeros(()), "locs": jnp.array([0.0, 5.0])}
        mcmc.run(KEY, DATA, init_params=start, checkpoint=tmp_path / "chains")

    run(3)
    assert model.runs == 1
    run(6)  # it goes on
    assert model.runs == 2


def test_an_exact_answer_takes_one_run():
    runs = []

    def model(x: Any) -> None:
        runs.append(None)
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("x", dist.Normal(1.0 * z, 1.0), obs=x)

    MCMC(NUTS(model), num_warmup=0, num_samples=3, progress_bar=False).run(KEY, 0.5)
    assert len(runs) == 1


def test_predictive_runs_a_model_for_its_sites_and_its_draws():
    model = Counted()
    Predictive(model, num_samples=3)(KEY, DATA)
    assert model.runs == 2


def used_up() -> Callable[[Any], None]:
    """A model that states a site in its first run only."""
    names = iter(["a"])

    def model(x: Any) -> None:
        for name in names:
            mx.sample(name, dist.Normal(0.0, 1.0))
        loc = mx.sample("loc", dist.Normal(0.0, 1.0))
        mx.sample("x", dist.Normal(loc, 1.0), obs=x)

    return model


def stated_by_hand(model: Any) -> Any:
    def guide(x: Any) -> None:
        for name in ("a", "loc"):
            mx.sample(name, dist.Normal(mx.param(f"{name}_at", 0.0), 1.0))

    return guide


def chains(model: Any) -> None:
    MCMC(NUTS(model), num_warmup=1, num_samples=1, progress_bar=False).run(KEY, DATA)


@pytest.mark.parametrize(
    "run",
    [
        lambda model: fit(model, stated_by_hand(model)),
        lambda model: fit(model, AutoDelta(model)),
        chains,
        lambda model: Predictive(model, num_samples=2)(KEY, DATA),
    ],
    ids=["guide by hand", "automatic guide", "chains", "predictive"],
)
def test_a_model_that_changes_from_run_to_run_is_refused(run: Any):
    with pytest.raises(ModelError, match="'a': the first run of the model states it, the next"):
        run(used_up())
