"""Ten Gaussians with full covariances in eight dimensions, 100,000 points: Marginax and scikit-learn.

Both have the same number of starts. scikit-learn runs EM from each (`GaussianMixture` with its defaults, but more
iterations allowed). Marginax maximises the same likelihood on minibatches: first all starts at once, then the best of
them for longer. Whole jobs are timed, compilation included, in a fresh process each, in turn; the log-likelihood is
computed by SciPy for both.

    python benchmarks/gaussian_mixture.py [--runs N] [--restarts N] [--points N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

K, D = 10, 8
ROUGH = {"steps": 800, "rows": 300, "rate": 0.05}
FINE = {"steps": 4000, "rows": 2000, "rate": 0.02}


def points(n: int, seed: int) -> np.ndarray:
    """Overlapping clusters of different sizes and shapes."""
    rng = np.random.default_rng(seed)
    means = 2.0 * rng.normal(size=(K, D))
    factors = 0.4 * rng.normal(size=(K, D, D)) + 0.7 * np.eye(D)
    z = rng.choice(K, n, p=rng.dirichlet(5 * np.ones(K)))
    noise = rng.normal(size=(n, D))
    return (means[z] + np.einsum("nij,nj->ni", factors[z], noise)).astype(np.float32)


def scikit(x: np.ndarray, restarts: int) -> tuple[float, Any]:
    from sklearn.mixture import GaussianMixture

    start = time.perf_counter()
    mixture = GaussianMixture(K, n_init=restarts, max_iter=1000, random_state=0)
    mixture.fit(x)
    seconds = time.perf_counter() - start
    return seconds, (mixture.weights_, mixture.means_, mixture.covariances_)


def marginax(x: Any, restarts: int) -> tuple[float, Any]:
    import jax
    import jax.numpy as jnp
    import optax

    import marginax as mx
    import marginax.distributions as dist
    from marginax.infer import SVI, TraceEnum_ELBO, init_to_kmeans_plusplus, init_to_value
    from marginax.infer.autoguide import AutoDelta

    n = len(x)

    def model(x: Any, rows: int | None = None) -> None:
        """With flat priors, as scikit-learn has none."""
        weights = mx.sample("weights", dist.Dirichlet(jnp.ones(K)))
        with mx.plate("components", K):
            flat = dist.ImproperUniform(dist.constraints.real_vector, (), (D,))
            locs = mx.sample("locs", flat)
            cholesky = dist.constraints.lower_cholesky
            trils = mx.sample("trils", dist.ImproperUniform(cholesky, (), (D, D)))
        with mx.plate("data", n, subsample_size=rows) as rows_:
            z = mx.sample("z", dist.Categorical(weights))
            near = dist.MultivariateNormal(locs[z], scale_tril=trils[z])
            mx.sample("x", near, obs=x if rows is None else x[rows_])

    start = time.perf_counter()
    x = jnp.asarray(x)
    wide = np.linalg.cholesky(np.cov(np.asarray(x[:10_000]).T))
    begin = {"weights": np.ones(K) / K, "trils": np.tile(wide, (K, 1, 1))}
    some = x[jax.random.choice(jax.random.key(1), n, (2_000,), replace=False)]
    begin_at = init_to_kmeans_plusplus(values={"locs": some}, fallback=init_to_value(values=begin))
    guide = AutoDelta(model, init_loc_fn=begin_at)

    def train(steps: int, rows: int, rate: float, **options: Any) -> Any:
        optim = optax.adam(optax.cosine_decay_schedule(rate, steps), b2=0.99)
        svi = SVI(model, guide, optim, TraceEnum_ELBO())
        return svi.run(jax.random.key(0), steps, x, rows, progress_bar=False, **options)

    best = train(**ROUGH, num_restarts=restarts).params
    found = guide.median(train(**FINE, init_params=best).params)
    seconds = time.perf_counter() - start
    covariances = found["trils"] @ jnp.swapaxes(found["trils"], 1, 2)
    return seconds, [np.asarray(v, float) for v in (found["weights"], found["locs"], covariances)]


def score(x: np.ndarray, weights: Any, means: Any, covariances: Any) -> float:
    """Average log-likelihood, by SciPy in double precision."""
    from scipy.stats import multivariate_normal

    parts = [
        np.log(w) + multivariate_normal(m, c).logpdf(x)
        for w, m, c in zip(weights, means, covariances, strict=True)
    ]
    return float(np.logaddexp.reduce(parts, axis=0).mean())


CONTESTANTS = {"Marginax": marginax, "scikit-learn": scikit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        x = points(options.points, options.seed)
        seconds, fitted = CONTESTANTS[options.contestant](x, options.restarts)
        print(json.dumps({"seconds": seconds, "score": score(x, *fitted)}))
        return
    print(f"{options.points:,} points, {options.restarts} starts, {options.runs} data sets")
    print(f"{'':24}{'seconds (median)':>18}   log-likelihood a point, each data set")
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for seed in range(options.runs):
        for name, found in results.items():
            command = [sys.executable, __file__, "--contestant", name, "--seed", str(seed)]
            command += ["--points", str(options.points), "--restarts", str(options.restarts)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    for name, found in results.items():
        seconds = statistics.median(r["seconds"] for r in found)
        scores = ", ".join(f"{r['score']:.4f}" for r in found)
        print(f"{name:24}{seconds:>16.1f} s   {scores}")


if __name__ == "__main__":
    main()
