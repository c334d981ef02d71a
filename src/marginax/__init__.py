"""Marginax: probabilistic models whose discrete variables are summed out exactly."""

from marginax import handlers as handlers, infer as infer, optim as optim, testing as testing
from marginax.arrays.narrowing import PrecisionWarning as PrecisionWarning
from marginax.blocks.devices import devices as devices
from marginax.blocks.on_disk import RowsOnDisk as RowsOnDisk, rows_on_disk as rows_on_disk
from marginax.density.parameters import InvalidParameterWarning as InvalidParameterWarning
from marginax.elimination.contract import ScaleError as ScaleError
from marginax.elimination.planner import IntractableError as IntractableError
from marginax.errors import ModelError as ModelError
from marginax.graph.sites import ManySitesWarning as ManySitesWarning
from marginax.jaxpr.program_cache import cache_programs as cache_programs
from marginax.language.plates import plate as plate, plate_stack as plate_stack
from marginax.language.primitives import (
    deterministic as deterministic,
    factor as factor,
    param as param,
    prng_key as prng_key,
    sample as sample,
    subsample as subsample,
)
from marginax.language.scan import markov as markov, scan as scan
from marginax.marginal.facade import (
    Marginal as Marginal,
    TruncationWarning as TruncationWarning,
    marginalize as marginalize,
)
from marginax.numpyro_models import from_numpyro as from_numpyro

__version__ = "0.1.0"
