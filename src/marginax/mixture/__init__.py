"""Mixtures and hidden Markov models of tables, without writing a model; scikit-learn's conventions."""

from marginax.mixture.families import (
    Bernoulli as Bernoulli,
    Beta as Beta,
    Categorical as Categorical,
    Gamma as Gamma,
    LogNormal as LogNormal,
    NegativeBinomial as NegativeBinomial,
    Normal as Normal,
    Poisson as Poisson,
    StudentT as StudentT,
)
from marginax.mixture.family import Family as Family
from marginax.mixture.gaussian import Gaussian as Gaussian
from marginax.mixture.gaussian_mixture import GaussianMixture as GaussianMixture
from marginax.mixture.hidden_markov import HiddenMarkov as HiddenMarkov
from marginax.mixture.mixture_model import MixtureModel as MixtureModel
from marginax.mixture.model_files import load as load, save as save
from marginax.mixture.selection import Selection as Selection, select as select
