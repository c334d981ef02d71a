"""The effect handlers: each changes what a model's statements mean, one idea apiece.

Names, signatures and meanings are NumPyro's. All of them wrap a function, ``handler(model, ...)``,
and most also serve in a ``with`` statement.
"""

from marginax.language.handlers.recording import Trace as Trace, trace as trace
from marginax.language.handlers.seeding import as_key as as_key, seed as seed
from marginax.language.handlers.statements import (
    block as block,
    infer_config as infer_config,
    mask as mask,
    scale as scale,
    scope as scope,
)
from marginax.language.handlers.values import (
    condition as condition,
    do as do,
    lift as lift,
    replay as replay,
    substitute as substitute,
    uncondition as uncondition,
)
from marginax.language.stack import Messenger as Messenger
