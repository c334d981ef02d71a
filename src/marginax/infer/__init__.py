"""Inference: variational, MCMC, and exact queries of discrete sites.

The samplers and what they import are loaded when first asked for, so that ``import marginax`` costs
little more than JAX itself.
"""

import importlib
from typing import TYPE_CHECKING, Any

from marginax.infer import autoguide as autoguide
from marginax.infer.batches import minibatches as minibatches
from marginax.infer.elbo import (
    Trace_ELBO as Trace_ELBO,
    TraceEnum_ELBO as TraceEnum_ELBO,
    TraceGraph_ELBO as TraceGraph_ELBO,
    TraceMeanField_ELBO as TraceMeanField_ELBO,
)
from marginax.infer.posterior.config import config_enumerate as config_enumerate
from marginax.infer.posterior.densities import (
    log_density as log_density,
    log_likelihood as log_likelihood,
)
from marginax.infer.posterior.discrete import infer_discrete as infer_discrete
from marginax.infer.posterior.predictive import Predictive as Predictive
from marginax.infer.start import initialization as initialization
from marginax.infer.start.initial_points import (
    init_to_kmeans_plusplus as init_to_kmeans_plusplus,
    init_to_random_points as init_to_random_points,
)
from marginax.infer.start.initialization import (
    init_to_feasible as init_to_feasible,
    init_to_mean as init_to_mean,
    init_to_median as init_to_median,
    init_to_sample as init_to_sample,
    init_to_uniform as init_to_uniform,
    init_to_value as init_to_value,
)
from marginax.infer.svi import (
    SVI as SVI,
    Restarts as Restarts,
    SVIRunResult as SVIRunResult,
    SVIState as SVIState,
    load as load,
    save as save,
)

if TYPE_CHECKING:
    from marginax.infer.draws.arviz_data import to_arviz as to_arviz
    from marginax.infer.draws.label_switching import Relabelled as Relabelled, relabel as relabel
    from marginax.infer.mcmc import HMC as HMC, MCMC as MCMC, NUTS as NUTS

_LATE = {  # they load BlackJAX, or are not needed by most
    "HMC": "marginax.infer.mcmc",
    "MCMC": "marginax.infer.mcmc",
    "NUTS": "marginax.infer.mcmc",
    "Relabelled": "marginax.infer.draws.label_switching",
    "relabel": "marginax.infer.draws.label_switching",
    "to_arviz": "marginax.infer.draws.arviz_data",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module 'marginax.infer' has no attribute '{name}'")
