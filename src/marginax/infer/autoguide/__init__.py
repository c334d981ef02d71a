"""Guides made from a model: approximations of its continuous latent sites.

The discrete sites need no guide: they are summed out of the model exactly.
"""

from marginax.infer.autoguide.base import AutoGuide as AutoGuide
from marginax.infer.autoguide.delta import AutoDelta as AutoDelta
from marginax.infer.autoguide.guide_list import AutoGuideList as AutoGuideList
from marginax.infer.autoguide.joint import AutoContinuous as AutoContinuous
from marginax.infer.autoguide.laplace import AutoLaplaceApproximation as AutoLaplaceApproximation
from marginax.infer.autoguide.multivariate import (
    AutoDiagonalNormal as AutoDiagonalNormal,
    AutoLowRankMultivariateNormal as AutoLowRankMultivariateNormal,
    AutoMultivariateNormal as AutoMultivariateNormal,
)
from marginax.infer.autoguide.normal import AutoNormal as AutoNormal
