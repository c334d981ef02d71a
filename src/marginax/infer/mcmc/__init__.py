"""Markov chain Monte Carlo on the marginal posterior: NUTS and HMC, whose kernels are BlackJAX's."""

from marginax.infer.mcmc.kernels import HMC as HMC, NUTS as NUTS
from marginax.infer.mcmc.mcmc import MCMC as MCMC
