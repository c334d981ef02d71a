"""L-BFGS of many starts at once: known minima, each start by itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from marginax.mixture.climbing import Evaluation, at_the_bottom, climbed

MOST = 200


def climb(loss: Any, places: np.ndarray, until: int = MOST, state: Any = None) -> Any:
    """Where the starts end."""

    def evaluate(place: Any) -> Evaluation:
        value, slope = jax.vmap(jax.value_and_grad(loss))(place)
        return Evaluation(value, slope, value[:, None], place)

    begin = jnp.asarray(places)
    nothing = jnp.full(len(places), jnp.inf)
    here = Evaluation(nothing, jnp.zeros_like(begin), nothing[:, None], begin)
    state = at_the_bottom(begin, here, MOST) if state is None else state
    return jax.jit(lambda state, until: climbed(evaluate, state, 1e-10, until))(state, until)


def rosenbrock(x: Any) -> Any:
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_all_starts_come_down_a_crooked_valley():
    with jax.enable_x64(True):
        places = np.random.default_rng(0).uniform(-1, 2, size=(3, 2))
        found = climb(rosenbrock, places)
        assert found.is_over.all()
        for place, start in zip(found.place, places, strict=True):
            theirs: Any = optimize.minimize(optimize.rosen, start, jac=optimize.rosen_der)
            np.testing.assert_allclose(place, theirs.x, atol=1e-4)
        losses = np.asarray(found.losses)[:, : int(found.number)]
        assert (np.diff(losses) <= 1e-10).all()
        assert (np.asarray(found.evaluations) <= int(found.number)).all()


def test_stretches_lead_where_one_long_way_leads():
    with jax.enable_x64(True):
        places = np.array([[-1.2, 1.0], [0.0, 0.5]])
        whole = climb(rosenbrock, places)
        half = climb(rosenbrock, places, 7)
        assert int(half.number) == 7
        rest = climb(rosenbrock, places, MOST, half)
        np.testing.assert_array_equal(rest.place, whole.place)
        np.testing.assert_array_equal(rest.losses, whole.losses)


def test_a_start_without_a_loss_stays_and_holds_no_other_up():
    def loss(x: Any) -> Any:
        return jnp.sum((x - 3.0) ** 2) + jnp.log(x[0])

    with jax.enable_x64(True):
        found = climb(loss, np.array([[2.0, 1.0], [-1.0, 1.0]]))
        assert found.is_over.all()
        assert np.isfinite(found.here.value[0])
        assert not np.isfinite(found.here.value[1])
        # 2 (x - 3) + 1 / x is zero.
        np.testing.assert_allclose(found.place[0], [(6 + 28**0.5) / 4, 3.0], atol=1e-5)
        np.testing.assert_array_equal(found.place[1], [-1.0, 1.0])
