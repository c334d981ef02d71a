"""NumPyro as an independent oracle: a model, written once, runs in both libraries.

A test passes a function of the library (`marginax` or `numpyro`) that builds and records a model.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpyro

import marginax as mx

Trace = dict[str, dict[str, Any]]


def in_both(run: Callable[[Any], Any]) -> tuple[Any, Any]:
    """What Marginax makes of it, and what NumPyro does."""
    return run(mx), run(numpyro)


def assert_same_trace(
    record: Callable[[Any], Trace], ignore_values_of: Collection[str] = ()
) -> Trace:
    """Both libraries record the same sites; returns what Marginax recorded."""
    ours, theirs = in_both(record)
    assert list(ours) == list(theirs)
    for name, site in ours.items():
        expected = theirs[name]
        assert site["type"] == expected["type"]
        assert site.get("is_observed") == expected.get("is_observed")
        assert site.get("infer") == expected.get("infer")
        # NumPyro begins a plate's scale with 1, that of other sites with None.
        assert (site.get("scale") or 1.0) == (expected.get("scale") or 1.0)
        frames = [(frame.name, frame.dim, frame.size) for frame in site["cond_indep_stack"]]
        assert frames == [tuple(frame) for frame in expected["cond_indep_stack"]]
        assert np.shape(site["value"]) == np.shape(expected["value"])
        if name in ignore_values_of:
            continue
        np.testing.assert_array_equal(site["value"], expected["value"])
        if site["type"] == "sample":
            np.testing.assert_array_equal(
                site["fn"].log_prob(site["value"]), expected["fn"].log_prob(expected["value"])
            )
    return ours
