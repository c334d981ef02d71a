"""The effect handlers, under one name: ``marginax.handlers``."""

from marginax.language.handlers import (
    Messenger as Messenger,
    block as block,
    condition as condition,
    do as do,
    infer_config as infer_config,
    lift as lift,
    mask as mask,
    replay as replay,
    scale as scale,
    scope as scope,
    seed as seed,
    substitute as substitute,
    trace as trace,
    uncondition as uncondition,
)
