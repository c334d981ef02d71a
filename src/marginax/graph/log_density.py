"""What a sample site states: its log density, where it stands, and whether its parameters are valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import jax.numpy as jnp

from marginax.density.distribution_layers import (
    distribution_name,
    is_masked,
    mask_of,
    without_masks,
)
from marginax.density.log_prob import log_prob
from marginax.density.parameters import Parameter, checks, validity
from marginax.errors import ModelError
from marginax.language import handlers
from marginax.language.plates import CondIndepStackFrame
from marginax.language.scan import Series
from marginax.language.stack import Message


@dataclass(frozen=True)
class LogDensity:
    """One log density of a traced program: an array, and where it stands."""

    array: Any
    plates: tuple[CondIndepStackFrame, ...] = ()
    scales: tuple[Any, ...] = ()
    """Values of the scale handlers around it, outermost first."""
    is_masked: bool = False
    is_discrete: bool = False
    site: str = ""
    """The site whose log density it is, where that is not the factor's name."""
    series: tuple[Series, ...] = ()
    """The scans that it is stated in, each of which has an axis, the outermost the first."""
    validity: Mapping[Parameter, Any] = field(default_factory=dict)
    """By traced parameter of its distribution, whether it is valid."""
    unmasked: Any = None
    """What the array would be without masks, of a discrete latent site that has some."""
    kept: Any = None
    """Where no mask switches it off, of the same shape."""


def log_density_of(msg: Message) -> LogDensity:
    """The log density of a sample site that has run."""
    if "given_steps" in msg["infer"]:
        raise ModelError(
            f"a value is given for its first {msg['infer']['given_steps']} steps only. That serves to run the "
            "model beyond them (Predictive); a density needs them all, or fewer steps in the scan.",
            site=msg["name"],
        )
    unmasked = kept = None
    try:
        if is_masked(msg["fn"]) and msg["fn"].is_discrete and not msg["is_observed"]:
            unmasked = log_prob(cast(Message, {**msg, "fn": without_masks(msg["fn"])}))
            kept = jnp.broadcast_to(mask_of(msg["fn"]), jnp.shape(unmasked))
            array = jnp.where(kept, unmasked, 0.0)
        else:
            array = log_prob(msg)
    except NotImplementedError as error:
        raise ModelError(
            f"the log density of {distribution_name(msg['fn'])} cannot be computed: something that it is made "
            "of (a censored or truncated distribution needs the cdf) is missing in "
            f"NumPyro{f', which says: {error}' if str(error) else ''}.",
            site=msg["name"],
            advice="Write a distribution that has it, or state the log density yourself with mx.factor.",
        ) from error
    return LogDensity(
        array,
        tuple(sorted(msg["cond_indep_stack"], key=lambda frame: frame.dim)),
        tuple(msg["scale_handlers"]),
        is_masked(msg["fn"]),
        msg["fn"].is_discrete,
        validity=validity(checks(msg["fn"])),
        unmasked=unmasked,
        kept=kept,
    )


class density_trace(handlers.trace):
    """Records with every sample site its log density, as ``"density"``, computed where it is stated."""

    def postprocess_message(self, msg: Message) -> None:
        if msg["type"] == "sample" and "density" not in msg:
            msg["density"] = log_density_of(msg)
        elif msg["type"] == "sample":  # of a scan, where those of its steps were put together
            names = ("array", "validity", "series", "unmasked", "kept")
            whole = {key: cast(dict[str, Any], msg)[key] for key in names}
            msg["density"] = replace(msg["density"], **whole)
        super().postprocess_message(msg)

    def differing(self, msg: Message) -> dict[str, Any]:
        kept = {"value": msg["value"]}
        if msg["type"] == "sample":
            differing = ("array", "validity", "unmasked", "kept")
            kept |= {key: getattr(msg["density"], key) for key in differing}
        return kept
