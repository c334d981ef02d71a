"""Values for the latent sites of a model while only its statements are wanted: drawn, or where they begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from numpyro.distributions import ImproperUniform

from marginax.density.distribution_layers import unwrapped
from marginax.density.validate import check_parameters
from marginax.language import handlers
from marginax.language.stack import Message, is_point_mass

Start = Callable[[Message], Any]
"""From a continuous latent site, with a random key, to the value that it begins at; None: it is drawn."""


class Draft(handlers.seed):
    """A seed that remembers which latent sites had no value.

    Parameters
    ----------
    fn : callable
        The model.
    key : PRNG key
        For what is drawn.
    start : callable, optional
        Where continuous sites begin; without, they are drawn.
    yes : bool array, shape ()
        True, which nobody knows who traces: a value that it enters is no number.
    """

    def __init__(
        self, fn: Callable[..., Any], key: Any, start: Start | None = None, yes: Any = True
    ) -> None:
        super().__init__(fn, rng_seed=key)
        self.start = start
        self.yes = yes
        self.free: set[str] = set()
        self.point_masses: set[str] = set()
        self.started: dict[str, None] = {}

    def process_message(self, msg: Message) -> None:
        is_open = msg["type"] == "sample" and msg["value"] is None
        if msg["type"] == "sample":
            check_parameters(msg)
        super().process_message(msg)
        if not is_open:
            return
        fn = msg["fn"]
        is_point = is_point_mass(fn)
        (self.point_masses if is_point else self.free).add(msg["name"])
        value = None
        if self.start is not None and not (is_point or fn.is_discrete or is_subsampled(msg)):
            value = self.start(msg)
        if value is not None:
            self.started[msg["name"]] = None
        elif isinstance(unwrapped(fn), ImproperUniform):
            # It cannot be drawn from; its shape is all that is wanted here.
            value = fn.support.feasible_like(jnp.zeros(fn.shape()))
        if value is not None:
            msg["value"] = jnp.where(self.yes, value, 0.0)


def is_subsampled(site: Any) -> bool:
    """Whether a message is of a site of which only some elements are present."""
    return any(frame.size != frame.full_size for frame in site["cond_indep_stack"])
