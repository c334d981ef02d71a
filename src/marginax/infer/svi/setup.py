"""What a run of SVI knows of its model and guide, found out at its start: their sites, and the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jax import Array
from numpyro.distributions import constraints

from marginax.elimination.planner import IntractableError
from marginax.errors import ModelError
from marginax.graph.same_sites import refuse_changes
from marginax.graph.sites import seen_in
from marginax.infer.elbo.bound import Validity
from marginax.infer.elbo.losses import ELBO, TraceEnum_ELBO
from marginax.infer.elbo.pairing import BothPath, both_paths
from marginax.infer.known import AnyParameters, Knowing, Stated
from marginax.language import handlers


@dataclass(frozen=True)
class Setup:
    """Guide and model, with arguments of some shapes."""

    model: Callable[..., Any]
    guide: Knowing
    paths: tuple[BothPath, ...]
    constraints: Mapping[str, Any]
    """Of all parameters, by name."""
    shapes: Mapping[str, tuple[int, ...]]
    stated: tuple[Stated, ...]

    @property
    def has_cuts(self) -> bool:
        """Whether a site of guide or model states a range for an infinite support."""
        return any(
            any(site.cut)
            for both in self.paths
            for site in (*both.path.sites.values(), *both.in_model.values())
        )

    def loss(
        self,
        loss: Any,
        params: Mapping[str, Any],
        key: Any,
        args: Any,
        kwargs: Any,
        unchecked: list[Exception],
    ) -> tuple[Array, list[Validity]]:
        """The loss, and which parameters of distributions are valid, of guide and model on each path.

        A loss that is finite does not show it: probabilities that do not add up to one are normalised in a
        compiled program. `TraceEnum_ELBO` looks for it in a loss of the user's own, too. Such a loss may go with a
        guide and a model that this one refuses: then nothing is said of parameters, and why is added to
        ``unchecked``.
        """
        model, guide = (handlers.substitute(fn, data=params) for fn in (self.model, self.guide))
        if getattr(loss.loss, "__func__", None) is ELBO.loss:
            return loss.look(key, model, guide, args, kwargs, self.paths)
        value = loss.loss(key, params, self.model, self.guide, *args, **kwargs)
        try:
            return value, TraceEnum_ELBO().look(key, model, guide, args, kwargs, self.paths)[1]
        except (IntractableError, ModelError) as error:
            unchecked.append(error)
            return value, []

    def refuse_local_parameters(self) -> None:
        """With batches, which elements of a plate are present is not known."""
        for param in self.stated:
            event_dim, shape = param.event_dim, param.shape
            for frame in param.plates if event_dim is not None else ():
                axis = frame.dim - (event_dim or 0)
                if frame.size < frame.full_size and len(shape) >= -axis and shape[axis] > 1:
                    raise ModelError(
                        f"each element of the subsampled plate '{frame.name}' has its "
                        "own, but batches do not say which elements they are.",
                        site=param.name,
                        kind="param",
                        advice=(
                            f"Make it a function of the data, or subsample in the model: plate('{frame.name}', "
                            "size, subsample_size) and data[indices]."
                        ),
                    )


def set_up_surely(
    model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any, key: Any
) -> Setup:
    """Like `set_up`, where nobody compares later: all is run twice, and must state the same each time."""
    first, again = (set_up(model, guide, args, kwargs, key) for _ in range(2))
    for one, other in zip(first.paths, again.paths, strict=False):
        refuse_changes(seen_in(one.path.sites), seen_in(other.path.sites))
        refuse_changes(seen_in(one.in_model), seen_in(other.in_model))
    return first


def set_up(
    model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any, key: Any
) -> Setup:
    """Run guide and model abstractly, on each of the guide's paths.

    Parameters
    ----------
    model, guide : callable
        As SVI has them.
    args, kwargs
        Arguments of both.
    key : PRNG key
        One like those for initial values.
    """
    looking = Knowing(guide, [], later=key)
    paths = tuple(
        both_paths(
            AnyParameters(model, looking.stated),
            AnyParameters(looking, looking.stated),
            args,
            kwargs,
            lambda: looking.know(model, args, kwargs).sites,
        )
    )
    constrained: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for both in paths:
        for name, site in (dict(both.path.sites) | dict(both.in_model)).items():
            if site.kind == "param":
                constrained.setdefault(name, site.constraint or constraints.real)
                shapes.setdefault(name, site.shape)
    known = Knowing(guide, looking.found)
    return Setup(model, known, paths, constrained, shapes, tuple(looking.stated))
