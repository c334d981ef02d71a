"""Distributions, constraints and transforms: NumPyro's own, under this library's name."""

from numpyro.distributions import *  # noqa: F403
from numpyro.distributions import (
    __all__ as __all__,
    constraints as constraints,
    transforms as transforms,
)
from numpyro.distributions.transforms import biject_to as biject_to
