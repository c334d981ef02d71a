"""What a fitted mixture says of rows, compiled once for a few sizes of tables.

A table is padded to the next size, and a long one is cut into pieces, so that however many rows come there
are few programs; a server compiles them before the first request. Averages over posterior draws are taken in
one pass, which needs the memory of one draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marginax.jaxpr.compiled import QUICK
from marginax.language import handlers
from marginax.marginal.facade import marginalize
from marginax.mixture.kinds import compiled
from marginax.mixture.learned import with_patterns
from marginax.mixture.model import COMPONENT, ROW, Design, Rows
from marginax.mixture.padding import numbers_of_patterns, padded as padded_to
from marginax.mixture.room import filled, tilts

SIZES = (1, 8, 64, 512, 4096)
SMALL = 5 * 10**6
"""Numbers of a program; one that handles fewer takes longer to optimise than to run."""
AT_ONCE = 512
"""Rows times draws: of few rows so many draws are taken in one go, for a loop around almost nothing is mostly loop."""


class Membership(NamedTuple):
    """What is said of rows."""

    probabilities: np.ndarray
    """Shape (rows, components): of each component, averaged over the posterior draws."""
    spread: np.ndarray
    """Shape (rows, components): the standard deviation of that probability over the draws."""
    log_density: np.ndarray
    """Shape (rows,): of the row, averaged over the draws; in a chain, given all rows of its series before."""


class Predictor:
    """Answers questions about rows, for one set of posterior draws.

    Parameters
    ----------
    design : Design
        The model.
    draws : mapping of array, shape (draws, *site_shape)
        Parameters.
    sizes : tuple of int
        Numbers of rows to compile for, in order.
    """

    def __init__(
        self, design: Design, draws: Mapping[str, np.ndarray], sizes: tuple[int, ...] = SIZES
    ) -> None:
        self.design = design
        self.draws = filled(design, draws)
        with jax.enable_x64(True):  # they are put there once, not with every question
            self._on_device = jax.device_put(self.draws)
        self.sizes = sizes
        number, components = len(next(iter(self.draws.values()))), design.components
        columns = sum(len(group.where) for group in design.groups)
        options = QUICK if number * components * columns * max(sizes) < SMALL else {}
        self._average = compiled(_average, design, options)
        self._each = compiled(_each, design, options)
        self._states = compiled(_states, design, options)
        self._generated = compiled(_generated, design, options)

    def membership(self, rows: Rows) -> Membership:
        """Probabilities of the components, how sure they are, and densities.

        Parameters
        ----------
        rows : Rows
            Checked, standardised, missing cells filled.
        """
        if len(rows.cells) == 0:
            none = np.zeros((0, self.design.components))
            return Membership(none, none, np.zeros(0))
        pieces = [self._piece(piece) for piece in self._pieces(rows)]
        return Membership(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))

    def log_densities(self, rows: Rows) -> np.ndarray:
        """The log density of each row at each draw, in a chain given those before, shape (draws, rows)."""
        found = []
        with jax.enable_x64(True):
            for piece in self._pieces(rows):
                densities = self._each(self._on_device, self._padded(piece))
                found.append(np.asarray(densities)[:, : len(piece.cells)])
        return np.concatenate(found, axis=1)

    def components(self, rows: Rows, probabilities: np.ndarray) -> np.ndarray:
        """The component of each row, shape (rows,): the most probable; in a chain at one draw, the best path."""
        return self.path(rows) if self.gives_paths else probabilities.argmax(1)

    @property
    def gives_paths(self) -> bool:
        """Whether rows are assigned together: in a chain, at one draw of the parameters."""
        return self.design.is_chain and len(next(iter(self.draws.values()))) == 1

    def path(self, rows: Rows) -> np.ndarray:
        """Of a chain the most probable states taken together (Viterbi), at the first draw, shape (rows,)."""
        if len(rows.cells) == 0:
            return np.zeros(0, int)
        first = {name: value[0] for name, value in self.draws.items()}
        with jax.enable_x64(True):
            found = self._states(first, self._padded(rows))
        return np.asarray(found)[: len(rows.cells)]

    def sample(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """New rows, shape (count, columns), and their components, shape (count,).

        Each row has a posterior draw of its own; a series has one for all its steps.
        """
        number = len(next(iter(self.draws.values())))
        pick = np.random.default_rng(seed)
        most = count if self.design.is_chain else self.sizes[-1]
        found = []
        for piece, first in enumerate(range(0, count, most)):
            size = min(most, count - first)
            padded = self._size(size)
            which = pick.integers(number, size=None if self.design.is_chain else padded)
            values = {name: v[which] for name, v in self.draws.items()}
            begins = np.arange(padded) == 0
            with jax.enable_x64(True):
                seeds = np.asarray([seed, piece], np.uint32)
                rows, component = self._generated(begins, seeds, values)
            found.append((np.asarray(rows)[:size], np.asarray(component)[:size]))
        rows, component = map(np.concatenate, zip(*found, strict=True))
        return rows, component

    def compile(self) -> None:
        """Compile for every size, with and without missing cells, so that no later question waits."""
        columns = sum(len(group.where) for group in self.design.groups)
        for size in self.sizes:
            begins = np.arange(size) == 0 if self.design.is_chain else None
            full = Rows(np.ones((size, columns)) * self._anything(), begins=begins)
            holes = with_patterns(full, np.ones((size, columns), bool))
            numbers = numbers_of_patterns(size, columns)
            kinds = [
                holes._replace(patterns=np.ones((number, columns), bool)) for number in numbers
            ]
            for rows in (full, *kinds):
                self.membership(rows)
                if self.gives_paths:
                    self.path(rows)
            self.sample(size, 0)

    def _anything(self) -> np.ndarray:
        """A row that all families allow."""
        row = np.zeros(sum(len(group.where) for group in self.design.groups))
        for group in self.design.groups:
            for value in (0.0, 1.0, 0.5):
                if group.family.allows(np.array([value]))[0]:
                    row[list(group.where)] = value
                    break
        return row

    def _pieces(self, rows: Rows) -> list[Rows]:
        most, count = self.sizes[-1], len(rows.cells)
        if self.design.is_chain or count <= most:
            return [rows]
        pieces = []
        for first in range(0, count, most):
            piece = Rows(rows.cells[first : first + most])
            if rows.observed is not None:  # a piece has patterns of its own, and fewer
                piece = with_patterns(piece, rows.observed[first : first + most])
            pieces.append(piece)
        return pieces

    def _size(self, count: int) -> int:
        """What a number of rows is rounded up to."""
        return next((s for s in self.sizes if s >= count), 1 << (count - 1).bit_length())

    def _padded(self, rows: Rows) -> Rows:
        return padded_to(rows, self._size(len(rows.cells)))

    def _piece(self, rows: Rows) -> tuple[np.ndarray, ...]:
        with jax.enable_x64(True):
            found = self._average(self._on_device, self._padded(rows))
        shares, spread, density = (np.asarray(part)[: len(rows.cells)] for part in found)
        return shares[:, : self.design.components], spread[:, : self.design.components], density


# Functions of a design, and of arrays.


def _of_rows(design: Design, values: Any, rows: Rows) -> tuple[Any, Any]:
    """At one draw the probability of each component for each row, and the log density of each row, see `Membership`.

    The densities add up to that of the table, whose derivative by the tilts are the probabilities.
    """
    marginal = marginalize(design.model)
    ask = marginal.one_step_ahead if design.is_chain else marginal.pointwise

    def densities(added: Any) -> Any:
        return ask(values, rows._replace(tilts=added))[ROW]

    found, pull = jax.vjp(densities, tilts(design, rows))
    (shares,) = pull(jnp.ones_like(found))
    # Where no component has a density there are no probabilities; in a chain rows hang together.
    is_known = jnp.isfinite(found)
    is_known = is_known.all() if design.is_chain else is_known[:, None]
    return jnp.where(is_known, shares, jnp.nan), found


def _each(design: Design, draws: Any, rows: Rows) -> Any:
    """The log density of each row at each draw."""
    return jax.lax.map(lambda values: _of_rows(design, values, rows)[1], draws)


def _states(design: Design, values: Any, rows: Rows) -> Any:
    """The most probable states together."""
    return marginalize(design.model).mode(values, rows)[COMPONENT]


def _generated(design: Design, begins: Any, seeds: Any, values: Any) -> tuple[Any, Any]:
    """New rows and their components; of a chain ``begins`` says where series begin, of a mixture how many there are."""
    columns = sum(len(group.where) for group in design.groups)
    key = jax.random.fold_in(jax.random.key(seeds[0]), seeds[1])

    def generate(key: Any, values: Any, rows: Rows) -> tuple[Any, Any]:
        free = handlers.uncondition(handlers.substitute(design.model, data=values))
        trace = handlers.trace(handlers.seed(free, key)).get_trace(rows)
        return trace[ROW]["value"], trace[COMPONENT]["value"]

    if design.is_chain:
        return generate(key, values, Rows(jnp.zeros((len(begins), columns)), begins=begins))
    one = Rows(jnp.zeros((1, columns)))
    each = jax.vmap(lambda key, values: generate(key, values, one))
    rows, component = each(jax.random.split(key, len(begins)), values)
    return rows[:, 0], component[:, 0]


def _average(design: Design, draws: Any, rows: Rows) -> tuple[Any, ...]:
    """Mean and spread of the probabilities over the draws, and log densities of the rows."""
    number = len(next(iter(draws.values())))

    def one(values: Any) -> tuple[Any, Any]:
        shares, density = _of_rows(design, values, rows)
        return shares, _of_all_before(density, rows.begins) if design.is_chain else density

    def step(carry: Any, some: Any) -> tuple[Any, None]:
        """Mean and squares of two sets of draws become those of both (Chan, Golub and LeVeque, 1979)."""
        count, mean, squares, log_sum = carry
        found, density = jax.vmap(one)(some)
        more = len(density)
        total, own = count + more, found.mean(0)
        off = own - mean
        mean = mean + off * (more / total)
        squares = squares + ((found - own) ** 2).sum(0) + off**2 * (count * more / total)
        log_sum = jnp.logaddexp(log_sum, jax.nn.logsumexp(density, 0))
        return (total, mean, squares, log_sum), None

    size = len(rows.cells)
    block = min(max(AT_ONCE // size, 1), number)
    whole = number // block * block
    blocks = {n: v[:whole].reshape(-1, block, *v.shape[1:]) for n, v in draws.items()}
    zeros = jnp.zeros((size, design.components))
    carry = 0.0, zeros, zeros, jnp.full(size, -jnp.inf)
    carry, _ = jax.lax.scan(step, carry, blocks)
    if whole < number:
        carry, _ = step(carry, {n: v[whole:] for n, v in draws.items()})
    _, mean, squares, log_sum = carry
    density = log_sum - jnp.log(number)
    if design.is_chain:
        before = jnp.where(rows.begins, 0.0, jnp.roll(density, 1))
        density = density - before
    return mean, jnp.sqrt(squares / number), density


def _of_all_before(density: Any, begins: Any) -> Any:
    """Log densities of rows given those before, shape (rows,), summed from the beginning of each series.

    Draws of the parameters weigh as much as what a series has been so far is likely under them: averaged over the
    posterior are therefore these, and their ratio is the density of a row given those before.
    """
    total = jnp.cumsum(density)
    first = jax.lax.cummax(jnp.where(begins, jnp.arange(len(density)), 0))
    return total - total[first] + density[first]
