"""Models small enough to be summed by brute force, of every structure that is promised to work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import xlogy
from numpyro.distributions import constraints

import marginax as mx
import marginax.distributions as dist
from marginax.testing import BruteForce, brute_force

RNG = np.random.default_rng(0)


def simplex(*shape: int) -> np.ndarray:
    return RNG.dirichlet(np.ones(shape[-1]), size=shape[:-1])


P2, P3, T22, T23, T33, T333 = (
    simplex(2),
    simplex(3),
    simplex(2, 2),
    simplex(2, 3),
    simplex(3, 3),
    simplex(3, 3, 3),
)
LOCS = np.array([-1.0, 0.5, 2.0])
DATA = np.array([0.3, -1.2, 0.7, 2.2])
ROOTS = np.tril(RNG.normal(size=(3, 2, 2))) + 2 * np.eye(2)


class OneHot(dist.Distribution):
    """A one-hot vector: a discrete variable whose values are vectors."""

    arg_constraints = {"probs": constraints.simplex}  # noqa: RUF012
    support: Any = constraints.multinomial(1)
    has_enumerate_support = True

    def __init__(self, probs: Any) -> None:
        self.probs = probs
        super().__init__(jnp.shape(probs)[:-1], jnp.shape(probs)[-1:])

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        shape = sample_shape + self.batch_shape
        drawn = jax.random.categorical(key, jnp.log(self.probs), shape=shape)
        return jax.nn.one_hot(drawn, self.event_shape[0], dtype=int)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return jnp.log(jnp.sum(self.probs * value, -1))

    def enumerate_support(self, expand: bool = True) -> Any:
        count = self.event_shape[0]
        return jnp.eye(count, dtype=int).reshape(count, *(1,) * len(self.batch_shape), count)


# --- scenarios -----------------------------------------------------------------------------------


def real(x: Any) -> Any:
    """A constant in the precision at hand.

    A fresh array each time: JAX remembers the precision in which it first met a NumPy array.
    """
    return jnp.asarray(np.array(x, jnp.result_type(float)))


def mixture() -> None:
    weights = mx.sample("weights", dist.Dirichlet(jnp.ones(3)))
    scale = mx.sample("scale", dist.LogNormal(0.0, 2.0))
    with mx.plate("components", 3):
        locs = mx.sample("locs", dist.Normal(0.0, 10.0))
    with mx.plate("data", 4):
        z = mx.sample("z", dist.Categorical(weights))
        mx.sample("obs", dist.Normal(locs[z], scale), obs=real(DATA))


def one_cause_of_many() -> None:
    """A global variable with children in a plate, one of them discrete."""
    shift = mx.sample("shift", dist.Normal(0.0, 1.0))
    w = mx.sample("w", dist.Categorical(real(P2)))
    with mx.plate("data", 4):
        z = mx.sample("z", dist.Categorical(real(T23)[w]))
        mx.sample("x", dist.Normal(real(LOCS)[z] + shift * w, 1.0), obs=real(DATA))
        mx.sample("y", dist.Bernoulli(0.2 + 0.5 * w), obs=np.array([0, 1, 1, 0]))


def chain() -> None:
    stay = mx.sample("stay", dist.Beta(2.0, 2.0))
    transition = jnp.full((3, 3), (1 - stay) / 2) + (1.5 * stay - 0.5) * jnp.eye(3)
    z = mx.sample("z_0", dist.Categorical(real(P3)))
    for t in range(1, 6):
        z = mx.sample(f"z_{t}", dist.Categorical(transition[z]))
        mx.sample(f"x_{t}", dist.Normal(real(LOCS)[z], 1.0), obs=real(DATA[t % 4]))


def loop() -> None:
    coupling = mx.sample("coupling", dist.Normal(0.0, 1.0))
    z = [mx.sample(f"z_{i}", dist.Bernoulli(0.3 + 0.1 * i)) for i in range(4)]
    for i in range(4):
        mx.factor(f"edge_{i}", coupling * (2 * z[i] - 1) * (2 * z[(i + 1) % 4] - 1))


def tree() -> None:
    root = mx.sample("root", dist.Categorical(real(P3)))
    for side in "lr":
        child = mx.sample(side, dist.Categorical(real(T33)[root]))
        for leaf in "lr":
            z = mx.sample(side + leaf, dist.Bernoulli(real(P3)[child]))
            mx.sample(f"x_{side}{leaf}", dist.Normal(2.0 * z, 1.0), obs=real(DATA[0]))


def nested_plates() -> None:
    shift = mx.sample("shift", dist.Normal(0.0, 1.0))
    a = mx.sample("a", dist.Bernoulli(0.4))
    with mx.plate("A", 2, dim=-3):
        b = mx.sample("b", dist.Bernoulli(0.3 + 0.3 * a))
        with mx.plate("B", 2, dim=-2):
            c = mx.sample("c", dist.Bernoulli(0.2 + 0.5 * b))
            with mx.plate("C", 2, dim=-1):
                d = mx.sample("d", dist.Bernoulli(0.1 + 0.6 * c))
                x = np.linspace(-1, 2, 8).reshape(2, 2, 2)
                mx.sample("x", dist.Normal(1.0 * d + shift * b, 1.0), obs=real(x))


def several_plates() -> None:
    w = mx.sample("w", dist.Categorical(real(P3)))
    with mx.plate("A", 2):
        x = mx.sample("x", dist.Categorical(real(T33)[w]))
        mx.sample("ox", dist.Normal(real(LOCS)[x], 1.0), obs=real(DATA[:2]))
    with mx.plate("B", 3):
        y = mx.sample("y", dist.Bernoulli(0.2 + 0.2 * w))
        mx.sample("oy", dist.Normal(1.0 * y, 1.0), obs=real(DATA[:3]))


def rows_of_a_table() -> None:
    """The rows have a type, the columns none; the cells know the type of their row."""
    with mx.plate("rows", 3, dim=-2):
        z = mx.sample("z", dist.Categorical(real(P3)))
        with mx.plate("columns", 4, dim=-1):
            mx.sample("x", dist.Normal(real(LOCS)[z], 1.0), obs=real(np.tile(DATA, (3, 1))))


def index_in_turn() -> None:
    a = mx.sample("a", dist.Categorical(real(P3)))
    b = mx.sample("b", dist.Categorical(real(T33)[a]))
    mx.sample("c", dist.Categorical(real(T333)[a][b]))
    mx.sample("x", dist.Normal(real(T33)[a][b], 0.1), obs=0.3)


def index_at_once() -> None:
    a = mx.sample("a", dist.Categorical(real(P3)))
    b = mx.sample("b", dist.Categorical(real(T33)[a, :]))
    mx.sample("c", dist.Categorical(real(T333)[a, b]))
    mx.sample("x", dist.Normal(real(T33)[a, b], 0.1), obs=0.3)


def numpy_on_values() -> None:
    """What a NumPy user does with numbers, done with enumerated ones."""
    slope = mx.sample("slope", dist.Normal(0.0, 1.0))
    a = mx.sample("a", dist.Categorical(real(P3)))
    b = mx.sample("b", dist.Bernoulli(0.4))
    with mx.plate("data", 4):
        z = mx.sample("z", dist.Categorical(real(P3)))
        both = jnp.vstack([jnp.where(z == 1, slope, 0.5 * real(DATA)), jnp.full(4, 1.0 * b)])
        mean = jnp.dot(jnp.array([0.3, -0.7]), both)
        mean = mean + jnp.take(real(LOCS), (2 * z + a) % 3)
        mean = (
            mean
            + jnp.where((z > 0) & ~(z == a), 1.0, -1.0)
            + (z[:, None] == jnp.arange(3)) @ real(LOCS)
        )
        spread = jnp.clip(z // 2 + b, 1, 2) + jnp.minimum(a, 1)
        mx.sample("x", dist.Normal(mean, spread), obs=real(DATA))
    matrix = jnp.stack([jnp.array([1.0, a]), jnp.array([b, 2.0])])
    mx.sample("y", dist.Normal((matrix @ matrix.T).sum(), 3.0), obs=4.0)
    mask = jnp.arange(3) <= a
    mx.sample("v", dist.Normal(jnp.sum(jnp.where(mask, real(LOCS), 0.0)), 1.0), obs=0.4)


def vectors_as_values() -> None:
    z = mx.sample("z", OneHot(real(P3)))
    with mx.plate("data", 3):
        w = mx.sample("w", OneHot(z @ real(T33)))
        mx.sample("x", dist.Normal(w @ real(LOCS), 1.0), obs=real(DATA[:3]))


def kinds_of_supports() -> None:
    p = mx.sample("p", dist.Beta(1.0, 1.0))
    u = mx.sample("u", dist.DiscreteUniform(-1, 2))
    n = mx.sample("n", dist.Binomial(3, p))
    f = mx.sample("f", dist.Bernoulli(logits=0.5 * u))
    with mx.plate("data", 2):
        k = mx.sample("k", dist.Binomial(2, jnp.clip(0.1 + 0.2 * n, 0.0, 1.0)))
        mx.sample("x", dist.Normal(1.0 * k + u * f, 1.0), obs=real(DATA[:2]))


def continuous_between() -> None:
    """A continuous latent variable that depends on a discrete one, and one that depends on it."""
    z = mx.sample("z", dist.Bernoulli(0.3))
    effect = mx.sample("effect", dist.Normal(3.0 * z, 1.0))
    with mx.plate("data", 3):
        w = mx.sample("w", dist.Bernoulli(jax.nn.sigmoid(effect)))
        local = mx.sample("local", dist.Gamma(1.0 + w, 1.0))
        mx.sample("x", dist.Normal(local, 1.0), obs=real(DATA[:3]))


def with_deterministic() -> None:
    a = mx.sample("a", dist.Categorical(real(P3)))
    b = mx.deterministic("b", (a + 1) % 3)
    with mx.plate("data", 2):
        z = mx.sample("z", dist.Bernoulli(real(P3)[b]))
        mean = mx.deterministic("mean", real(LOCS)[b] * z)
        mx.sample("x", dist.Normal(mean, 1.0), obs=real(DATA[:2]))
    mx.deterministic("nothing to do with it", jnp.ones(3))


def shared_by_observations() -> None:
    with mx.plate("people", 3):
        z = mx.sample("z", dist.Categorical(real(P3)))
        mx.sample("height", dist.Normal(real(LOCS)[z], 1.0), obs=real(DATA[:3]))
        mx.sample("count", dist.Poisson(jnp.exp(real(LOCS))[z]), obs=np.array([0, 3, 1]))
        mx.sample("likes", dist.Bernoulli(real(P3)[z]), obs=np.array([0, 1, 1]))
        with mx.plate("answers", 2, dim=-2):
            mx.sample("answer", dist.Categorical(real(T33)[z]), obs=np.array([[0, 1, 2]] * 2))


def with_factors() -> None:
    strength = mx.sample("strength", dist.Normal(0.0, 1.0))
    a = mx.sample("a", dist.Categorical(real(P3)))
    mx.factor("number", -1.5)
    mx.factor("on a", strength * a)
    with mx.plate("data", 3):
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.factor("on both", -((z - a) ** 2) * real(DATA[:3]))


def masked() -> None:
    """Observed and latent elements switched off, by arrays and by constants."""
    keep = np.array([True, False, True])
    with mx.plate("data", 3):
        with mx.handlers.mask(mask=keep):
            z = mx.sample("z", dist.Categorical(real(P3)))
        with mx.handlers.mask(mask=~keep):
            mx.sample("x", dist.Normal(real(LOCS)[z], 1.0), obs=real(DATA[:3]))
        mx.sample("y", dist.Normal(1.0 * z, 1.0), obs=real(DATA[:3]))
    with mx.handlers.mask(mask=False):
        a = mx.sample("a", dist.Bernoulli(0.2))
        mx.sample("gone", dist.Normal(0.0, 1.0), obs=1.0)
    mx.sample("b", dist.Bernoulli(0.3 + 0.4 * a))


def masked_by_a_variable() -> None:
    """Whether z exists is itself uncertain."""
    exists = mx.sample("exists", dist.Bernoulli(0.4))
    with mx.handlers.mask(mask=exists == 1):
        z = mx.sample("z", dist.Categorical(real(P3)))
        mx.sample("x", dist.Normal(real(LOCS)[z], 1.0), obs=0.3)


def missing_values() -> None:
    answers, given = np.array([0, 2, 1, 0]), np.array([True, False, True, False])
    with mx.plate("data", 4):
        z = mx.sample("z", dist.Bernoulli(0.3))
        c = mx.sample("c", dist.Categorical(real(T23)[z]), obs=answers, obs_mask=given)
        mx.sample("x", dist.Normal(real(LOCS)[c], 1.0), obs=real(DATA))


def single_values_and_elements() -> None:
    with mx.plate("one", 1):
        z = mx.sample("z", dist.Categorical(real(P2)))
        mx.sample("x", dist.Normal(1.0 * z + z.sum() + z[::-1], 1.0), obs=real(DATA[:1]))
    k = mx.sample("k", dist.Categorical(jnp.ones(1)))
    with mx.plate("data", 2):
        w = mx.sample("w", dist.Categorical(jnp.ones(1)))
        mx.sample("y", dist.Normal(1.0 * w + k, 1.0), obs=real(DATA[:2]))


def nothing_discrete() -> None:
    loc = mx.sample("loc", dist.Normal(0.0, 1.0))
    with mx.plate("data", 4):
        mx.sample("x", dist.Normal(loc, 1.0), obs=real(DATA))


def only_discrete() -> None:
    a = mx.sample("a", dist.Categorical(real(P3)))
    with mx.plate("data", 2):
        mx.sample("b", dist.Categorical(real(T33)[a]))
    mx.sample("lonely", dist.DiscreteUniform(0, 2))


def loops_and_branches() -> None:
    rate = mx.sample("rate", dist.Gamma(2.0, 2.0))
    a = mx.sample("a", dist.Categorical(real(P3)))
    b = mx.sample("b", dist.Bernoulli(0.6))
    first = lax.cond(b == 1, lambda: rate * a, lambda: -rate)
    total, _ = lax.scan(lambda c, x: (0.5 * c + x * a, c), first, real(DATA))
    with mx.plate("data", 3):
        z = mx.sample("z", dist.Bernoulli(0.5))
        looped = lax.fori_loop(0, 3, lambda i, c: c + i * z, jnp.zeros(3))
        mean = total + rate * looped + jax.checkpoint(jnp.sin)(1.0 * z)
        mx.sample("x", dist.Normal(mean, 1.0), obs=real(DATA[:3]))


def loops_bounded_by_variables() -> None:
    """JAX has no reverse derivative of these, so there is no parameter; marginals need none."""
    a = mx.sample("a", dist.Categorical(real(P3)))
    b = mx.sample("b", dist.Bernoulli(0.6))
    total = lax.fori_loop(0, a, lambda i, c: c + 1 / (i + 1.0), 0.0)
    steps = lax.while_loop(lambda c: c < 2 + a, lambda c: c * 1.5, 1.0 + b)
    mx.sample("x", dist.Normal(total, steps), obs=1.2)


def functions_with_their_own_derivative() -> None:
    p = mx.sample("p", dist.Beta(1.0, 1.0))
    with mx.plate("data", 3):
        z = mx.sample("z", dist.Categorical(real(P3)))
        mx.factor("xlogy", xlogy(1.0 * z, p) + jax.nn.relu(real(LOCS)[z] * p))
        mx.factor("softmax", jax.nn.log_softmax(jnp.outer(z, real(LOCS)) * p, axis=-1)[:, 1])
        mx.sample("n", dist.Binomial(4, p), obs=np.array([0, 4, 2]))


def correlated_observations() -> None:
    """A covariance matrix for each value of the variable, and one for all of them."""
    with mx.plate("data", 3):
        z = mx.sample("z", dist.Categorical(real(P3)))
        shift = mx.sample("shift", dist.Normal(0.0, 1.0))
        locs = real(LOCS)[z][:, None] + jnp.stack([shift, 0 * shift], -1)
        covariance = real(ROOTS @ ROOTS.swapaxes(1, 2))[z]
        pairs = real(np.stack([DATA[:3]] * 2, -1))
        mx.sample("x", dist.MultivariateNormal(locs, covariance), obs=pairs)
        shared = dist.MultivariateNormal(locs, real(ROOTS[0] @ ROOTS[0].T))
        with mx.handlers.mask(mask=np.array([True, False, True])):
            mx.sample("y", shared, obs=pairs)
        precision = real(np.eye(2)) * (1.0 + z)[:, None, None]
        mx.sample("w", dist.MultivariateNormal(locs, precision_matrix=precision), obs=pairs)


def impossible_values() -> None:
    zeros = jnp.log(jnp.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.3, 0.0, 0.7]]))
    strength = mx.sample("strength", dist.Normal(0.0, 1.0))
    a = mx.sample("a", dist.Categorical(jnp.array([0.5, 0.0, 0.5])))
    b = mx.sample("b", dist.Categorical(logits=zeros[a]))
    with mx.plate("data", 2):
        z = mx.sample("z", dist.Categorical(logits=zeros[b]))
        mx.factor("never", jnp.where(z == 1, -jnp.inf, strength * z))


def four_plates_deep() -> None:
    """The innermost variable depends on those of all plates around it."""
    shift = mx.sample("shift", dist.Normal(0.0, 1.0))
    with mx.plate("A", 2, dim=-4):
        a = mx.sample("a", dist.Bernoulli(0.3))
        with mx.plate("B", 1, dim=-3):
            b = mx.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
            with mx.plate("C", 2, dim=-2):
                c = mx.sample("c", dist.Bernoulli(0.4))
                with mx.plate("D", 2, dim=-1):
                    d = mx.sample("d", dist.Bernoulli(0.1 + 0.2 * a + 0.3 * b + 0.3 * c))
                    x = np.linspace(-1, 2, 8).reshape(2, 1, 2, 2)
                    mx.sample("x", dist.Normal(1.0 * d + shift * a, 1.0), obs=real(x))


def a_plate_entered_twice() -> None:
    data = mx.plate("data", 3)
    with data:
        z = mx.sample("z", dist.Categorical(real(P3)))
    w = mx.sample("w", dist.Bernoulli(0.3))
    with data:
        mx.sample("x", dist.Normal(real(LOCS)[z] + w, 1.0), obs=real(DATA[:3]))


def counts_of_different_size() -> None:
    """Each element has a support of its own; the list of values is their envelope."""
    p = mx.sample("p", dist.Beta(1.0, 1.0))
    with mx.plate("data", 3):
        n = mx.sample("n", dist.Binomial(np.array([0, 2, 3]), p))
        m = mx.sample("m", dist.BetaBinomial(1.0 + p, 2.0, np.array([1, 0, 2])))
        u = mx.sample("u", dist.DiscreteUniform(np.array([0, 1, -1]), np.array([1, 1, 0])))
        mx.sample("x", dist.Normal(1.0 * n - m + u, 1.0), obs=real(DATA[:3]))


def infinite_counts_in_a_range() -> None:
    rate = mx.sample("rate", dist.Gamma(2.0, 1.0))
    n = mx.sample("n", dist.Poisson(rate), infer={"support": (0, 9)})
    g = mx.sample("g", dist.Geometric(0.4), infer={"support": (0, 8)})
    mx.sample("x", dist.Binomial(n, 0.4), obs=2)
    z = mx.sample(
        "z",
        dist.ZeroInflatedPoisson(0.3, 0.5 * rate),
        infer={"support": (0, 7), "enumerate": "parallel"},
    )
    mx.sample("y", dist.Normal(1.0 * z + g, 1.0), obs=0.7)


def vectors_of_components() -> None:
    p = mx.sample("p", dist.Beta(1.0, 1.0))
    bits = mx.sample("bits", dist.Bernoulli(p * jnp.array([1.0, 0.5, 0.3])).to_event(1))
    with mx.plate("data", 2):
        three: Any = dist.Categorical(real(T33))
        pair = mx.sample("pair", three.expand([2, 3]).to_event(1))
        mean = pair[:, 0] * bits[0] - pair[:, 2] + bits.sum()
        mx.sample("x", dist.Normal(mean, 1.0), obs=real(DATA[:2]))


def one_hot_vectors() -> None:
    w = mx.sample("w", dist.OneHotCategorical(real(P3)))
    with mx.plate("data", 2):
        z = mx.sample("z", dist.OneHotCategorical(logits=jnp.log(real(T33)[jnp.argmax(w)])))
        mx.sample("x", dist.Normal(z @ real(LOCS), 1.0), obs=real(DATA[:2]))


def point_masses() -> None:
    """Latent sites with one possible value, of integers and of real numbers, discrete ones before them."""
    a = mx.sample("a", dist.Categorical(real(P3)))
    b = mx.sample("b", dist.Delta(2 * a + 1))
    with mx.plate("data", 2):
        c = mx.sample("c", dist.Delta(real(LOCS)[a] * b, log_density=0.5))
        mx.sample("x", dist.Normal(c, 1.0), obs=real(DATA[:2]))


def families_of_mixtures() -> None:
    """Discrete distributions that are made of others."""
    p = mx.sample("p", dist.Beta(1.0, 1.0))
    parts = dist.Bernoulli(jnp.stack([p, 0.8 * p]))
    k = mx.sample("k", dist.MixtureSameFamily(dist.Categorical(real(P2)), parts))
    z = mx.sample("z", dist.ZeroInflatedDistribution(dist.Binomial(2, p), gate=0.3))
    mx.sample("x", dist.Normal(1.0 * k + z, 1.0), obs=1.7)


def edges_of_parameters() -> None:
    """Probabilities of exactly zero and one, a rate of exactly zero."""
    rate = mx.sample("rate", dist.Gamma(2.0, 1.0))
    a = mx.sample("a", dist.Bernoulli(0.4))
    b = mx.sample("b", dist.Bernoulli(1.0 * a))
    n = mx.sample("n", dist.Binomial(2, 1.0 * b))
    with mx.plate("data", 3):
        z = mx.sample("z", dist.Bernoulli(0.5))
        mx.sample("count", dist.Poisson(rate * z), obs=np.array([0, 3, 0]))
        mx.sample("x", dist.Normal(2.0 * n, 1.0), obs=real(DATA[:3]))


@dataclass(frozen=True)
class Scenario:
    model: Callable[[], Any]
    params: dict[str, Any] = field(default_factory=dict)


SCENARIOS: dict[str, Scenario] = {
    s.model.__name__: s
    for s in (
        Scenario(mixture, {"weights": P3, "scale": 0.8, "locs": LOCS}),
        Scenario(one_cause_of_many, {"shift": 0.4}),
        Scenario(chain, {"stay": 0.7}),
        Scenario(loop, {"coupling": 0.6}),
        Scenario(tree),
        Scenario(nested_plates, {"shift": -0.7}),
        Scenario(several_plates),
        Scenario(rows_of_a_table),
        Scenario(index_in_turn),
        Scenario(index_at_once),
        Scenario(numpy_on_values, {"slope": 0.9}),
        Scenario(vectors_as_values),
        Scenario(kinds_of_supports, {"p": 0.3}),
        Scenario(continuous_between, {"effect": 1.1, "local": np.array([0.5, 1.5, 2.5])}),
        Scenario(with_deterministic),
        Scenario(shared_by_observations),
        Scenario(with_factors, {"strength": 0.5}),
        Scenario(masked),
        Scenario(masked_by_a_variable),
        Scenario(missing_values),
        Scenario(single_values_and_elements),
        Scenario(nothing_discrete, {"loc": 0.2}),
        Scenario(only_discrete),
        Scenario(loops_and_branches, {"rate": 0.8}),
        Scenario(loops_bounded_by_variables),
        Scenario(functions_with_their_own_derivative, {"p": 0.4}),
        Scenario(correlated_observations, {"shift": np.array([0.1, -0.2, 0.3])}),
        Scenario(impossible_values, {"strength": 0.3}),
        Scenario(four_plates_deep, {"shift": 0.4}),
        Scenario(a_plate_entered_twice),
        Scenario(counts_of_different_size, {"p": 0.3}),
        Scenario(infinite_counts_in_a_range, {"rate": 1.2}),
        Scenario(vectors_of_components, {"p": 0.6}),
        Scenario(one_hot_vectors),
        Scenario(point_masses),
        Scenario(families_of_mixtures, {"p": 0.3}),
        Scenario(edges_of_parameters, {"rate": 1.5}),
    )
}

DISCRETE = [name for name in SCENARIOS if name != "nothing_discrete"]


@cache
def oracle(name: str) -> BruteForce:
    scenario = SCENARIOS[name]
    return brute_force(scenario.model, scenario.params)
