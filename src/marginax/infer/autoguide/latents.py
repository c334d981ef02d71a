"""What an automatic guide knows of a continuous latent site, and of its unconstrained scale.

A site's value lives in its support; a normal distribution lives on the whole real line. The bijection
from one to the other belongs to the support (`biject_to`). It may change the shape: a probability vector
of three has two free numbers, a Cholesky factor of a correlation matrix has those below its diagonal.
So beside the site's own shape there is a free one, and how many of its dimensions are the event's.

Both are shapes for *all* elements of the plates around, also where the model sees a subsample of them:
parameters of a guide are kept for every element.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to

from marginax.errors import ModelError
from marginax.graph.sites import Site
from marginax.language.plates import CondIndepStackFrame, plate

# NumPyro's constraints on each part of an event by itself; it exports the objects, not their classes.
_WRAPPERS: Any = (
    type(constraints.independent(constraints.positive, 1)),
    type(constraints.real_vector),
)


@dataclass(frozen=True)
class LatentSite:
    """A continuous latent site. Nothing in it is an array of the model's, so it may be kept."""

    name: str
    shape: tuple[int, ...]
    """Of its value, for all elements of its plates."""
    event_dim: int
    constraint: Any
    plates: tuple[CondIndepStackFrame, ...]

    @staticmethod
    def of(site: Site) -> LatentSite:
        """What guides need of a site.

        Raises
        ------
        ModelError
            When no normal distribution can be moved into its support.
        """
        _check_support(site)
        shape = list(site.shape)
        for frame in site.plates:
            shape[frame.dim - site.event_dim] = frame.full_size
        return LatentSite(site.name, tuple(shape), site.event_dim, site.constraint, site.plates)

    @property
    def transform(self) -> Any:
        """The bijection from the unconstrained scale to the support."""
        return biject_to(self.constraint)

    @property
    def free_shape(self) -> tuple[int, ...]:
        """The shape on the unconstrained scale."""
        return tuple(self.transform.inverse_shape(self.shape))

    @property
    def free_event_dim(self) -> int:
        """How many dimensions of the free shape are the event's."""
        return self.event_dim + len(self.free_shape) - len(self.shape)

    @property
    def subsampled(self) -> str | None:
        """The first subsampled plate around it."""
        return next((f.name for f in self.plates if f.size != f.full_size), None)

    def normal(self, loc: Any, scale: Any) -> dist.Distribution:
        """Independent normals on the unconstrained scale, moved into the support."""
        normal = dist.Normal(loc, scale).to_event(self.free_event_dim)
        if _base(self.constraint) is constraints.real:
            return normal
        return dist.TransformedDistribution(normal, self.transform)

    def normal_quantiles(self, loc: Any, scale: Any, quantiles: Array) -> Array:
        """Quantiles of normals on the unconstrained scale, in the support; those asked for lead.

        Where the bijection acts on each number by itself they are the quantiles of its value; where
        it mixes them (a probability vector) they are the images of the quantiles.
        """

        def image(q: Array) -> Array:
            q = jnp.reshape(q, jnp.shape(q) + (1,) * jnp.ndim(loc))
            return self.transform(dist.Normal(loc, scale).icdf(q))

        each = biject_to(_base(self.constraint))
        if each.domain.event_dim or each.codomain.event_dim:
            return image(quantiles)
        # A decreasing one (into what lies below a bound) turns quantiles around.
        rises = self.transform(jnp.add(loc, scale)) >= self.transform(jnp.subtract(loc, scale))
        return jnp.where(rises, image(quantiles), image(1 - quantiles))


def _base(constraint: Any) -> Any:
    """The constraint on each part of an event whose parts are constrained by themselves."""
    base: Any = constraint
    while isinstance(base, _WRAPPERS):
        base = base.base_constraint
    return base


def _check_support(site: Site) -> None:
    if site.constraint is None:
        raise ModelError(
            f"the support of its {site.distribution} depends on other values, so no automatic guide can keep "
            "its parameters inside it.",
            site=site.name,
            advice="Write the site as a fixed support that is then moved and stretched.",
        )
    try:
        biject_to(site.constraint)
    except NotImplementedError:
        raise ModelError(
            f"no bijection from the real line into the support of its {site.distribution} ({site.constraint}) "
            "is known, so no automatic guide fits it. Register one with "
            "numpyro.distributions.transforms.biject_to.register, or write the guide by hand.",
            site=site.name,
        ) from None
    for frame in site.plates:
        axis = frame.dim - site.event_dim
        for bound in jax.tree.leaves(site.constraint):
            if frame.size != frame.full_size and np.ndim(bound) >= -axis and bound.shape[axis] > 1:
                raise ModelError(
                    f"its {site.distribution} has bounds for the {frame.size} elements of the subsampled "
                    f"plate '{frame.name}' that are present, and the guide needs those of all "
                    f"{frame.full_size}.",
                    site=site.name,
                    advice="Write the site as a fixed support that is then moved and stretched.",
                )


@contextmanager
def in_plates(site: LatentSite, made: dict[str, plate]) -> Iterator[None]:
    """Inside the plates of a site. Each is made once in a run of a guide, so that its subsample is one.

    Parameters
    ----------
    site : LatentSite
        The site.
    made : dict of plate
        Those of this run so far; new ones are added.
    """
    with ExitStack() as stack:
        for f in site.plates:
            if f.name not in made:
                made[f.name] = plate(f.name, f.full_size, f.size, f.dim)
            stack.enter_context(made[f.name])
        yield
