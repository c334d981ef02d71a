"""Distributions, constraints and transforms: NumPyro's, under this library's name, and a few of our own."""

from numpyro.distributions import *  # noqa: F403
from numpyro.distributions import (
    __all__ as _numpyro_names,
    constraints as constraints,
    transforms as transforms,
)
from numpyro.distributions.transforms import biject_to as biject_to

from marginax.distributions.negative_binomial import (
    HurdleNegativeBinomial2 as HurdleNegativeBinomial2,
    NegativeBinomial2 as NegativeBinomial2,
    ZeroInflatedNegativeBinomial2 as ZeroInflatedNegativeBinomial2,
)
from marginax.distributions.one_hot import OneHotCategorical as OneHotCategorical
from marginax.distributions.zero_inflated import (
    ZeroInflatedDistribution as ZeroInflatedDistribution,
)

__all__ = [*_numpyro_names, "OneHotCategorical"]
