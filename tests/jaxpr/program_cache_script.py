"""One process with compiled programs in a folder: how many it took from there, and what they answer.

With ``damage``, each file is damaged in turn and everything asked again.
"""

import json
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import marginax as mx
from marginax.jaxpr.compiled import QUICK, remembered_jit

folder, factor, *others = Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]

found = {"hits": 0, "warnings": []}


def count(event: str, **_: object) -> None:
    found["hits"] += event == "/jax/compilation_cache/cache_hits"


def wave(x: jax.Array) -> jax.Array:
    return jnp.sin(x) @ x.T + jnp.cumsum(x).sum()


def called_back(x: jax.Array) -> jax.Array:
    """The same program in every process, but for the Python function that it calls."""
    return jax.pure_callback(lambda value: np.asarray(value) * np.float32(factor), x, x) + 1


def answers() -> list[float]:
    x = jnp.linspace(0.0, 1.0, 12).reshape(3, 4)
    plain = remembered_jit(wave, x)(x)
    quick = remembered_jit(wave, x, options=QUICK)(x)
    expected = np.sin(np.asarray(x)) @ np.asarray(x).T + np.cumsum(np.asarray(x)).sum()
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    np.testing.assert_allclose(quick, expected, rtol=1e-5)
    return jax.jit(called_back)(jnp.arange(3.0)).tolist()


def again() -> list[float]:
    """As in a new process."""
    jax.clear_caches()
    return answers()


jax.monitoring.register_event_listener(count)
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    assert mx.cache_programs(folder) == folder
    assert mx.cache_programs() == folder
    found["answers"] = answers()
    found["first hits"] = found["hits"]
    assert not heard, [str(one.message) for one in heard]
    if "damage" in others:
        before = found["hits"]
        assert again() == found["answers"]
        assert not heard, [str(one.message) for one in heard]
        found["hits again"] = found["hits"] - before
        whole = {path: path.read_bytes() for path in folder.iterdir()}
        flip = [
            data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 64]) for data in whole.values()
        ]
        for path, data, flipped in zip(whole, whole.values(), flip, strict=True):
            damages = (flipped + data[len(flipped) :], data[:-1], data[: len(data) // 2], b"")
            path.write_bytes(damages[len(found["warnings"]) % len(damages)])
            heard.clear()
            assert again() == found["answers"]
            found["warnings"].append([str(one.message) for one in heard])
            path.write_bytes(data)
print(json.dumps(found))
