"""Stochastic variational inference: `SVI`, what it returns, and how that is kept."""

from marginax.infer.svi.restarts import Restarts as Restarts
from marginax.infer.svi.results import SVIRunResult as SVIRunResult, load as load, save as save
from marginax.infer.svi.svi import SVI as SVI
from marginax.infer.svi.training import SVIState as SVIState
