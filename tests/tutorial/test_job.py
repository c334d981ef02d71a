"""The steps of the tutorial's job, each on numbers that are known; `test_cli` runs the whole."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

import marginax as mx
from marginax.infer import SVIRunResult, SVIState
from marginax.infer.autoguide import AutoDelta
from marginax.language.stack import statement
from marginax.tutorial import steps
from marginax.tutorial.figures import draw_all
from marginax.tutorial.job import _plain
from marginax.tutorial.mixture import DATA, model, plausible_start
from marginax.tutorial.report import mode_sentence, write_report
from marginax.tutorial.steps import MODES, Explored, Fit, Guided, Served, serve

ESTIMATES = {
    "weights": np.array([0.375, 0.625], np.float32),
    "locs": np.array([0.499, 10.984], np.float32),
    "scale": np.array(0.651, np.float32),
}


def fitted(estimates: dict[str, np.ndarray]) -> Fit:
    """A fit, without the training."""
    params = {f"{name}_auto_loc": jnp.asarray(value) for name, value in estimates.items()}
    losses = np.geomspace(25.0, 17.4, 200)
    norms = {name: np.geomspace(10.0, 0.1, 200) for name in params}
    result = SVIRunResult(params, SVIState(None, None, None), losses, norms)
    return Fit(AutoDelta(model, init_loc_fn=plausible_start), result, estimates, 25.0, 17.4)


SWAPPED = {
    "weights": ESTIMATES["weights"][::-1].copy(),
    "locs": ESTIMATES["locs"][::-1].copy(),
    "scale": ESTIMATES["scale"],
}


@pytest.fixture(scope="module")
def served() -> Served:
    return serve(fitted(ESTIMATES), seed=0)


def test_the_start_is_plausible():
    key = jax.random.key(0)

    def site(name: str) -> Any:
        return statement("sample", name, kwargs={"rng_key": key})

    np.testing.assert_allclose(plausible_start(site("weights")), [0.5, 0.5])
    scale = float(plausible_start(site("scale")))
    assert scale == pytest.approx(np.sqrt(np.var([0, 1, 10, 11, 12], ddof=1) / 2))
    locs = np.asarray(plausible_start(site("locs")))
    assert set(locs.tolist()) <= {0.0, 1.0, 10.0, 11.0, 12.0}
    assert len(set(locs.tolist())) == 2
    with pytest.raises(ValueError, match="other"):
        plausible_start(site("other"))


def test_serving_classifies_the_data_and_a_grid(served: Served):
    assert served.assignment.tolist() == [0, 0, 1, 1, 1]
    assert served.random_assignment.tolist() == [0, 0, 1, 1, 1]
    assert served.grid_assignment.shape == (180,)
    np.testing.assert_array_equal(served.grid_assignment, served.boundary < steps.GRID)


def test_the_boundary_is_where_the_memberships_are_even(served: Served):
    at = mx.marginalize(model).posterior(ESTIMATES, jnp.array([served.boundary]))["assignment"]
    np.testing.assert_allclose(at, [[0.5, 0.5]], atol=1e-3)
    assert served.zoom.shape == served.zoom_assignment.shape == (100,)
    assert (np.diff(served.zoom_membership) > 0).all()
    # Across the boundary the draws are of both kinds, less certain the nearer.
    assert set(served.zoom_assignment.tolist()) == {0, 1}


def test_serving_does_not_care_how_the_components_are_numbered(served: Served):
    swapped = serve(fitted(SWAPPED), seed=0)
    assert swapped.assignment.tolist() == [1, 1, 0, 0, 0]
    assert swapped.boundary == pytest.approx(served.boundary, abs=1e-4)


LOW_FIRST, HIGH_FIRST = [0.5, 11.0], [11.0, 0.5]
WIDE = [7.0, -30.0]


def explored(locs: Any, scale: Any, weights: Any = None) -> Explored:
    """Draws, made up, in the modes in which they are."""
    locs, scale = np.asarray(locs, float), np.asarray(scale, float)
    weights = np.full(locs.shape, 0.5) if weights is None else np.asarray(weights, float)
    draws = {"weights": weights, "scale": scale, "locs": locs}
    modes = steps._modes(draws)
    shares = {mode: float(np.mean(modes == mode)) for mode in MODES}
    row = {"mean": 1.0, "std": 0.5, "5.0%": 0.1, "95.0%": 2.0, "ess_bulk": 9.0, "r_hat": None}
    return Explored(draws, modes, shares, np.array([0.5, 11.0]), 1.2, 0, {"scale": row})


def test_a_draw_is_in_the_mode_that_its_own_memberships_tell():
    here = explored(
        [LOW_FIRST, HIGH_FIRST, WIDE, [5.0, 6.0]],
        [0.8, 0.8, 5.0, 3.0],
        [[0.4, 0.6], [0.6, 0.4], [0.99, 0.01], [0.5, 0.5]],
    )
    assert here.mode_of_draw.tolist() == ["low first", "high first", "one cluster", "in between"]
    assert here.shares == dict.fromkeys(MODES, 0.25)


@pytest.mark.parametrize(
    ("locs", "scale", "said"),
    [
        ([LOW_FIRST] * 4, [0.8] * 4, "one of the two mirror-image modes."),
        ([LOW_FIRST, HIGH_FIRST], [0.8] * 2, "visited both mirror-image modes."),
        ([WIDE] * 2, [5.0] * 2, "never found two clusters, and spent 100.0% of its draws"),
        ([LOW_FIRST, WIDE], [0.8, 5.0], "one of the two mirror-image modes, and spent 50.0%"),
    ],
)
def test_the_modes_that_a_chain_visited_in_words(locs: Any, scale: Any, said: str):
    weights = [[0.99, 0.01] if here == WIDE else [0.4, 0.6] for here in locs]
    assert said in mode_sentence(explored(locs, scale, weights))


def test_numbers_that_json_does_not_know_become_null():
    value = {
        "array": jnp.array([1.0, jnp.nan]),
        "scalar": np.float32(0.5),
        "nested": {"tuple": (1, float("inf")), "text": "as it is", 3: True},
    }
    plain = _plain(value)
    assert plain == {
        "array": [1.0, None],
        "scalar": 0.5,
        "nested": {"tuple": [1, None], "text": "as it is", "3": True},
    }
    json.dumps(plain, allow_nan=False)


def test_figures_and_report_of_a_chain_without_two_clusters(tmp_path: Path):
    fit = fitted(SWAPPED)
    served = serve(fit, seed=0)
    guided = Guided(fit.result, served.membership, 18.2)
    chain = explored(
        np.tile(WIDE, (250, 1)), np.linspace(4.0, 6.0, 250), np.tile([0.99, 0.01], (250, 1))
    )
    figures = draw_all(tmp_path, fit, served, guided, chain)
    for name, caption in figures:
        assert (imread(tmp_path / name)[..., :3] < 0.99).any()
        assert caption.endswith(".")
    results = _plain(
        {
            "data": DATA,
            "map": SWAPPED | {"loss": 17.4, "initial_loss": 25.0},
            "assignment": served.assignment,
            "membership": served.membership,
            "random_assignment": served.random_assignment,
            "boundary": served.boundary,
            "guide": {"loss": 18.2, "assignment_probs": guided.probs},
            "nuts": {"divergences": 0, "summary": chain.summary},
            "timings": {"map": 1.0},
        }
    )
    page = write_report(tmp_path, results, chain, "a < b & c", figures).read_text()
    assert "a &lt; b &amp; c" in page
    assert "never found two clusters" in page
    assert page.count("<figure>") == len(figures) == 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_training_finds_the_reference_from_every_seed(seed: int):
    fit = steps.train(seed)
    assert fit.initial_loss == pytest.approx(25.67, abs=0.01)
    assert fit.loss == pytest.approx(17.443, abs=0.01)
    order = np.argsort(fit.estimates["locs"])
    for name in ("weights", "locs"):
        np.testing.assert_allclose(fit.estimates[name][order], ESTIMATES[name], atol=0.01)
    assert float(fit.estimates["scale"]) == pytest.approx(0.651, abs=0.01)
