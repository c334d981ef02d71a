"""Moments of rows that belong to components in part: what families begin from.

A row that k-means has given to a component belongs to it and to no other; in the middle of expectation-maximisation it
belongs to each with a probability. Missing cells are left out of the moments of their column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from marginax.mixture.columns import SMALL, TINY, Columns, prior_width

SHARE = 1e-6
"""Rows of the whole table's kind that every component has beside its own, so that an empty one has moments too."""


class Members(NamedTuple):
    """Rows, and which components they belong to."""

    cells: Any
    """Shape (rows, columns); some allowed value where a cell is missing."""
    present: Any
    """Shape (rows, columns): one where there is a cell, zero where it is missing."""
    shares: Any
    """Shape (rows, components): how much of each row belongs to each component."""

    def of(self, where: Any) -> Members:
        """With these columns alone."""
        return self._replace(cells=self.cells[:, where], present=self.present[:, where])

    def changed(self, change: Callable[[Any], Any]) -> Members:
        """With a function of the cells in their place."""
        return self._replace(cells=change(self.cells))

    @property
    def numbers(self) -> Array:
        """How many cells there are, shape (components, columns)."""
        return jnp.swapaxes(self.shares, 0, 1) @ self.present

    def total(self) -> Array:
        """The sum of the cells, shape (components, columns)."""
        return jnp.swapaxes(self.shares, 0, 1) @ (self.cells * self.present)

    def everyone(self) -> Array:
        """The mean of each column, whoever the cells belong to, shape (columns,)."""
        return jnp.sum(self.cells * self.present, 0) / jnp.maximum(jnp.sum(self.present, 0), 1.0)

    def mean(self) -> Array:
        """The mean of the cells, shape (components, columns)."""
        return (self.total() + SHARE * self.everyone()) / (self.numbers + SHARE)

    def squares(self) -> Array:
        """The sum of squared distances from the mean, shape (components, columns)."""
        middle = self.everyone()
        near = self.changed(lambda cells: cells - middle)
        squared = near.changed(lambda cells: cells**2).total()
        return jnp.maximum(squared - near.numbers * near.mean() ** 2, 0.0)

    def variance(self, columns: Columns) -> Array:
        """The variance, shape (components, columns), with one more row of what the prior expects; never zero."""
        around = columns.spread**2 * prior_width(columns)
        return (self.squares() + around) / (self.numbers + 1)

    def covariance(self, columns: Columns) -> Array:
        """The covariance, shape (components, columns, columns), with one more row of what the prior expects."""
        around = jnp.diag(jnp.asarray(columns.spread**2 * prior_width(columns)))

        def of_one(own: tuple[Array, Array, Array, Array]) -> Array:
            share, mean, squares, number = own
            away = (self.cells - mean) * self.present
            scatter = (away * share[:, None]).T @ away
            # What is missing has the variance of what is there.
            missing = jnp.sum(share) - number
            scatter += jnp.diag(missing * squares / jnp.maximum(number, SMALL))
            return (scatter + around) / (jnp.sum(share) + 1)

        return jax.lax.map(
            of_one,
            (jnp.swapaxes(self.shares, 0, 1), self.mean(), self.squares(), self.numbers),
        )

    def positive_mean(self, columns: Columns) -> Array:
        """The mean, with one more row, of the column's mean; of numbers from 0 never zero."""
        return (self.total() + jnp.maximum(columns.centre, SMALL)) / (self.numbers + 1)

    def median(self) -> Array:
        """Shape (components, columns)."""
        order = jnp.argsort(self.cells, 0)
        cells = jnp.take_along_axis(self.cells, order, 0)
        present = jnp.take_along_axis(self.present, order, 0)

        def of_one(share: Array) -> Array:
            below = jnp.cumsum((share[order] + TINY) * present, 0)
            middle = jnp.argmax(below >= below[-1] / 2, 0)
            return jnp.take_along_axis(cells, middle[None], 0)[0]

        return jax.lax.map(of_one, jnp.swapaxes(self.shares, 0, 1))
