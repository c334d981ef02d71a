"""What a run of an algorithm knows of its model: found out once, at its start, and handed to all of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from marginax.graph.sites import Site, as_jax_arrays, collect_sites_once
from marginax.prepared import Prepared, prepare_model


@dataclass(frozen=True)
class KnownModel:
    """A model with its arguments, and its sites."""

    model: Callable[..., Any]
    args: Any
    kwargs: Any
    sites: Mapping[str, Site]

    def prepare(self, values: Mapping[str, Any]) -> Prepared:
        """Its graph and plan, given values that fit its sites; free sites without one are summed out."""
        return prepare_model(self.model, self.sites, values, self.args, self.kwargs)

    @property
    def continuous(self) -> dict[str, Site]:
        """The latent sites that have no value and are not discrete."""
        return {n: s for n, s in self.sites.items() if s.is_free and not s.is_discrete}

    @property
    def has_cuts(self) -> bool:
        """Whether a site states a range for an infinite support."""
        return any(any(site.cut) for site in self.sites.values())


def know(model: Callable[..., Any], args: Any, kwargs: Any) -> KnownModel:
    """Run a model abstractly for its sites; whoever runs it next compares (`refuse_changes`).

    Parameters
    ----------
    model : callable
        The model, under whatever handlers fix some of its values.
    args, kwargs
        Its arguments.

    Raises
    ------
    ModelError
        For a model that is wrong in itself, whatever the parameters.
    """
    args, kwargs = as_jax_arrays((args, kwargs))
    return KnownModel(model, args, kwargs, collect_sites_once(model, *args, **kwargs))
