"""`config_enumerate`: say for a whole model how its discrete sites are to be enumerated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marginax.language import handlers
from marginax.language.stack import Message


def config_enumerate(
    fn: Callable[..., Any] | None = None, default: str | None = "parallel"
) -> Callable[..., Any]:
    """Set ``infer["enumerate"]`` of every discrete latent site that does not say it itself.

    Optional: latent sites with a finite support are summed out when nothing is said.

    Parameters
    ----------
    fn : callable, optional
        The model or guide; without it, a decorator.
    default : {"parallel", "sequential", None}
        None leaves the sites as they are instead of summing them out.

    Returns
    -------
    callable

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> @mx.infer.config_enumerate
    ... def model():
    ...     return mx.sample("z", dist.Bernoulli(0.5))
    """
    if default not in ("parallel", "sequential", None):
        raise ValueError(
            f"config_enumerate: default must be 'parallel', 'sequential' or None, not {default!r}."
        )

    def options(site: Message) -> dict[str, Any]:
        latent = not site["is_observed"] and site["fn"].is_discrete
        if latent and "enumerate" not in site["infer"]:
            return {"enumerate": default}
        return {}

    def wrap(fn: Callable[..., Any]) -> Callable[..., Any]:
        return handlers.infer_config(fn, config_fn=options)

    return wrap if fn is None else wrap(fn)
