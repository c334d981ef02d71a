"""Data larger than memory: batches of them, in an order that can be resumed, read in the background."""

from marginax.infer.batches.arguments import (
    Arguments as Arguments,
    as_arguments as as_arguments,
    rows as rows,
)
from marginax.infer.batches.epochs import Minibatches as Minibatches, minibatches as minibatches
from marginax.infer.batches.prefetch import prefetched as prefetched
