"""Marginax: probabilistic models whose discrete variables are summed out exactly."""

import importlib
from typing import Any

from marginax import distributions, handlers, infer, optim, testing
from marginax.arrays.narrowing import PrecisionWarning
from marginax.blocks.devices import devices
from marginax.blocks.on_disk import RowsOnDisk, rows_on_disk
from marginax.density.parameters import InvalidParameterWarning
from marginax.elimination.contract import ScaleError
from marginax.elimination.planner import IntractableError
from marginax.errors import ModelError
from marginax.graph.sites import ManySitesWarning
from marginax.jaxpr.program_cache import cache_programs
from marginax.language.plates import plate, plate_stack
from marginax.language.primitives import (
    deterministic,
    factor,
    param,
    prng_key,
    sample,
    subsample,
)
from marginax.language.scan import markov, scan
from marginax.marginal.cuts import TruncationWarning
from marginax.marginal.facade import Marginal, marginalize
from marginax.numpyro_models import from_numpyro

__version__ = "0.1.0"

__all__ = [
    "IntractableError",
    "InvalidParameterWarning",
    "ManySitesWarning",
    "Marginal",
    "ModelError",
    "PrecisionWarning",
    "RowsOnDisk",
    "ScaleError",
    "TruncationWarning",
    "__version__",
    "cache_programs",
    "deterministic",
    "devices",
    "distributions",
    "factor",
    "from_numpyro",
    "handlers",
    "infer",
    "marginalize",
    "markov",
    "optim",
    "param",
    "plate",
    "plate_stack",
    "prng_key",
    "rows_on_disk",
    "sample",
    "scan",
    "subsample",
    "testing",
]


def __dir__() -> list[str]:
    """What is for users; the other folders that it is made of are not."""
    return [*__all__, "mixture"]


def __getattr__(name: str) -> Any:
    if name == "mixture":  # it needs scikit-learn, which takes as long to import as all the rest
        return importlib.import_module("marginax.mixture")
    raise AttributeError(f"module 'marginax' has no attribute '{name}'")
