"""Evidence lower bounds: the losses of `SVI`."""

from marginax.infer.elbo.losses import (
    Trace_ELBO as Trace_ELBO,
    TraceEnum_ELBO as TraceEnum_ELBO,
    TraceGraph_ELBO as TraceGraph_ELBO,
    TraceMeanField_ELBO as TraceMeanField_ELBO,
)
