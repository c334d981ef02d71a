"""From a model to factors with named axes: sites, capture, and the axis-flow analysis."""
