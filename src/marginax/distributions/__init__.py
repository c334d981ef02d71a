"""Distributions, constraints and transforms: NumPyro's own, under this library's name, and one more."""

from numpyro.distributions import *  # noqa: F403
from numpyro.distributions import (
    __all__ as _numpyro_names,
    constraints as constraints,
    transforms as transforms,
)
from numpyro.distributions.transforms import biject_to as biject_to

from marginax.distributions.one_hot import OneHotCategorical as OneHotCategorical

__all__ = [*_numpyro_names, "OneHotCategorical"]
