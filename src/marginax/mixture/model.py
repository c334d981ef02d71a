"""The models of tables: a mixture of rows, and a hidden Markov model of rows, whatever their families.

Both are ordinary Marginax models. A row is one observation, however many columns and families it has (`Row`), so that
what is asked of a row (its density, its component, its leave-one-out weight) is asked of one site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import distributions as dist
from numpyro.distributions import constraints

from marginax.language.handlers.statements import mask
from marginax.language.plates import plate
from marginax.language.primitives import sample
from marginax.language.scan import scan
from marginax.mixture.columns import Columns
from marginax.mixture.family import Family, Parameter

COMPONENT = "component"
ROW = "row"
WEIGHTS, INITIAL, TRANSITIONS = "weights", "initial", "transitions"
VERY_LONG = 2**30
"""Steps after which a chain has forgotten where it began."""


@dataclass(frozen=True, eq=False)
class Group:
    """Some columns of a table, and their family; equal only to itself, which JAX asks of what is no array."""

    name: str
    """Goes before the names of the parameters; empty where there is only one group."""
    family: Family
    where: tuple[int, ...]
    """Which columns of the table."""
    columns: Columns
    parameters: Mapping[str, Parameter]
    """The family's, with their default priors."""

    def site(self, parameter: str) -> str:
        """The site of a parameter."""
        return f"{self.name}.{parameter}" if self.name else parameter


class Rows(NamedTuple):
    """A table as the models take it."""

    cells: Any
    """Shape (rows, columns). Where a cell is missing it holds some value that its family allows."""
    observed: Any = None
    """Shape (rows, columns): true where a cell has a value; None where all have."""
    patterns: Any = None
    """Shape (patterns, columns): the combinations of cells that occur."""
    pattern: Any = None
    """Shape (rows,): which of them a row has."""
    begins: Any = None
    """Shape (rows,): true where a series begins; for hidden Markov models."""
    is_real: Any = None
    """Shape (rows,): false where a row only fills the table up, and says nothing; None where all are real."""
    tilts: Any = None
    """Shape (rows, components): added to the log density of a row in each component. By zeros there the derivative of
    the log density is the probability of each component for each row."""

    def some(self, count: int) -> Rows:
        """So many rows, or all if there are not more, by chance but always the same; not in order, as a mixture's."""
        number = len(self.cells)
        if count >= number:
            return self
        which = np.sort(np.random.default_rng(0).choice(number, count, replace=False))
        parts = (self.cells, self.observed, self.pattern)
        cells, observed, pattern = (None if part is None else part[which] for part in parts)
        return Rows(cells, observed, self.patterns, pattern)


@dataclass(frozen=True)
class Design:
    """What is modelled: everything of an estimator that its model needs."""

    components: int
    groups: tuple[Group, ...]
    priors: Mapping[str, Parameter]
    """Of every site."""
    is_chain: bool = False
    """Whether rows follow each other in a hidden Markov chain."""
    room: int = 0
    """For how many components its programs are made; 0: for those that there are. See `room`."""
    is_there: Any = None
    """Shape (components,): which of them are there; None: all."""

    @property
    def outer(self) -> tuple[str, ...]:
        """The parameters that say which component; the others describe components."""
        return tuple(s for s in (WEIGHTS, INITIAL, TRANSITIONS) if s in self.priors)

    @property
    def model(self) -> Callable[[Rows], None]:
        """The Marginax model, a function of `Rows`."""
        return self._chain if self.is_chain else self._mixture

    def _mixture(self, rows: Rows) -> None:
        weights = sample(WEIGHTS, self.priors[WEIGHTS].prior)
        draw_row = self._components(rows)
        with plate("rows", len(rows.cells)):
            component = sample(COMPONENT, dist.Categorical(weights))
            draw_row(component, rows)

    def _chain(self, rows: Rows) -> None:
        count = self.components
        initial = sample(INITIAL, self.priors[INITIAL].prior)
        transitions = sample(TRANSITIONS, self.priors[TRANSITIONS].prior)
        # One more row, from which the first step of a series draws its state.
        table = jnp.concatenate([transitions, initial[None]])
        draw_row = self._components(rows)

        def step(state: Any, now: Rows) -> tuple[Any, None]:
            before = jnp.where(now.begins, count, state)
            state = sample(COMPONENT, dist.Categorical(table[before]))
            draw_row(state, now)
            return state, None

        along = rows._replace(patterns=None)
        scan(step, count, along)

    def _components(self, rows: Rows) -> Callable[[Any, Rows], None]:
        """State the parameters; returns a function that states rows of given components."""
        patterns = rows.patterns
        shared = {s: sample(s, p.prior) for s, p in self.priors.items() if self._is_shared(s)}
        # Those that are not there have no prior, for it would draw them somewhere.
        has_prior = nullcontext() if self.is_there is None else mask(mask=self.is_there)
        with plate("components", self.components), has_prior:
            own = {s: sample(s, p.prior) for s, p in self.priors.items() if self._is_own(s)}
        everything = own | {
            s: jnp.broadcast_to(v, (self.components, *jnp.shape(v))) for s, v in shared.items()
        }
        prepared = []
        for group in self.groups:
            values = {n: everything[group.site(n)] for n in group.parameters}
            own_patterns = None if patterns is None else patterns[:, np.asarray(group.where)]
            prepared.append(group.family.prepare(values, own_patterns))

        def draw_row(component: Any, now: Rows) -> None:
            pattern = 0 if now.pattern is None else now.pattern
            values = tuple(
                group.family.of(of_components, component, pattern)
                for group, of_components in zip(self.groups, prepared, strict=True)
            )
            batch = jnp.shape(component)
            tilt = None
            if now.tilts is not None:
                tilt = jnp.take_along_axis(now.tilts, component[..., None], -1)[..., 0]
            row = Row(self.groups, values, now.observed, batch, now.is_real, tilt)
            sample(ROW, row, obs=now.cells)

        return draw_row

    def _is_shared(self, site: str) -> bool:
        return site not in self.outer and self.priors[site].is_shared

    def _is_own(self, site: str) -> bool:
        return site not in self.outer and not self.priors[site].is_shared


def in_the_long_run(transitions: np.ndarray) -> np.ndarray:
    """The share of each state of chains, shape (..., states), wherever they begin."""
    found = np.linalg.matrix_power(transitions, VERY_LONG).mean(-2)
    return found / found.sum(-1, keepdims=True)


class Row(dist.Distribution):
    """A row of a table, given the parameters of its component.

    Parameters
    ----------
    groups : tuple of Group
        The columns' families.
    values : tuple of mapping
        For each group what its family's `of` gave.
    observed : bool array, shape (*batch, columns), optional
        Which cells are there.
    batch : tuple of int
        The batch shape.
    is_real : bool array, shape (*batch,), optional
        False: the row says nothing.
    tilt : array, shape (*batch,), optional
        Added to the log density.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    # A table is checked, with words, before the model sees it.
    support: Any = constraints.real_vector
    pytree_data_fields = ("values", "observed", "is_real", "tilt")
    pytree_aux_fields = ("groups",)

    def __init__(
        self,
        groups: tuple[Group, ...],
        values: tuple[Mapping[str, Any], ...],
        observed: Any,
        batch: tuple[int, ...],
        is_real: Any = None,
        tilt: Any = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.groups, self.values, self.observed = groups, values, observed
        self.is_real, self.tilt = is_real, tilt
        columns = sum(len(group.where) for group in groups)
        super().__init__(batch, (columns,), validate_args=validate_args)

    def log_prob(self, value: Any) -> Array:
        total: Any = 0.0
        for group, values in zip(self.groups, self.values, strict=True):
            where = np.asarray(group.where)
            observed = None if self.observed is None else self.observed[..., where]
            total += group.family.log_prob(values, value[..., where], observed)
        if self.tilt is not None:
            total += self.tilt
        return total if self.is_real is None else jnp.where(self.is_real, total, 0.0)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        keys = jax.random.split(key, len(self.groups))
        drawn = [
            group.family.draw(k, values, sample_shape)
            for group, values, k in zip(self.groups, self.values, keys, strict=True)
        ]
        order = np.argsort(np.concatenate([group.where for group in self.groups]))
        return jnp.concatenate(drawn, -1)[..., order]
