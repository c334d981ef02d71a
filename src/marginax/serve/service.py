"""From the body of a request to the body of its answer: read, checked, computed, written, in one go in one thread."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic_core import to_json

from marginax import __version__
from marginax.serve.answers import Answers
from marginax.serve.columns import CATEGORY, COUNT, Table, columns_of
from marginax.serve.limits import Limits
from marginax.serve.picture import Picture
from marginax.serve.problems import Problem, fault
from marginax.serve.schemas import LARGEST_SEED, read, rows_model, sample_model


class Service:
    """A fitted estimator that takes and gives JSON.

    Parameters
    ----------
    estimator : GaussianMixture, MixtureModel or HiddenMarkov
        Fitted.
    name : str
        Of the model, for people.
    limits : Limits
        Of requests.
    sizes : sequence of int, optional
        Numbers of rows to compile for.
    """

    def __init__(
        self, estimator: Any, name: str, limits: Limits, sizes: Sequence[int] | None = None
    ) -> None:
        self.name, self.estimator = name, estimator
        self.columns = columns_of(estimator)
        self.answers = Answers(estimator, sizes)
        self.answers.warm_up()
        if self.answers.is_series:
            limits = replace(limits, rows=min(limits.rows, self.answers.sizes[-1]))
        self.limits = limits
        self.rows_body, self.sample_body = (
            rows_model(self.columns, limits.rows),
            sample_model(limits.rows),
        )
        self.picture = Picture(self.answers, self.columns)
        self.served = 0
        """Requests that were answered."""
        self._table = Table(self.columns)

    def predict(self, body: bytes) -> bytes:
        """Components and their probabilities."""
        cells = self._cells(body)
        probabilities = self.answers.membership(cells).probabilities
        component = self.answers.components(cells, probabilities)
        probability = np.take_along_axis(probabilities, component[:, None], 1)[:, 0]
        return to_json({"component": component.tolist(), "probability": probability.tolist()})

    def predict_proba(self, body: bytes) -> bytes:
        """Probabilities of all components, how sure they are, and densities."""
        found = self.answers.membership(self._cells(body))
        return to_json(
            {
                "probabilities": found.probabilities.tolist(),
                "std": found.spread.tolist() if self.answers.draws > 1 else None,
                "log_density": found.log_density.tolist(),
            }
        )

    def sample(self, body: bytes) -> bytes:
        """New rows."""
        asked: Any = read(self.sample_body, body)
        seed = secrets.randbelow(LARGEST_SEED + 1) if asked.seed is None else asked.seed
        cells, component = self.answers.sample(asked.count, seed)
        columns = [self._as_told(j, values) for j, values in enumerate(cells.T)]
        rows = list(zip(*columns, strict=True))
        return to_json({"rows": rows, "component": component.tolist(), "seed": seed})

    def health(self) -> dict[str, Any]:
        """That it is there, and what it is."""
        return {
            "status": "ok",
            "model": self.name,
            "version": __version__,
            "estimator": type(self.estimator).__name__,
            "components": self.estimator.n_components,
            "columns": [column.name for column in self.columns],
            "requests": self.served,
        }

    def model(self, x: int | None, y: int | None) -> bytes:
        """What a page needs to show the mixture, along one column or two."""
        if x is None:
            x, default = self.picture.default()
            y = default if y is None else y
        for name, which in (("x", x), ("y", y)):
            if which is not None and which >= len(self.columns):
                raise Problem(
                    422, fault(name, f"columns are numbered from 0 to {len(self.columns) - 1}.")
                )
        if y is not None and CATEGORY in (self.columns[x].kind, self.columns[y].kind):
            message = "two columns are shown of numbers only; ask for x alone, without y."
            raise Problem(422, fault("y", message))
        return to_json(self._facts() | {"picture": self.picture.of(x, y)})

    def _facts(self) -> dict[str, Any]:
        limits = self.limits
        return {
            "name": self.name,
            "estimator": type(self.estimator).__name__,
            "version": __version__,
            "method": self.estimator.method,
            "draws": self.answers.draws,
            "is_series": self.answers.is_series,
            "rows": self.estimator.n_rows_,
            "weights": self.picture.weights.tolist(),
            "columns": [
                {
                    "name": column.name,
                    "kind": column.kind,
                    "family": column.family,
                    "wants": column.wants,
                    "categories": column.categories,
                }
                for column in self.columns
            ],
            "limits": {"rows": limits.rows, "body_bytes": limits.body_bytes},
        }

    def _cells(self, body: bytes) -> np.ndarray:
        asked: Any = read(self.rows_body, body)
        return self._table.cells(asked.rows)

    def _as_told(self, number: int, values: np.ndarray) -> list[Any]:
        """A column in words and numbers."""
        column = self.columns[number]
        if column.categories is not None:
            return [column.categories[int(code)] for code in values]
        whole = values.astype(np.int64) if column.kind == COUNT else values
        return whole.tolist()
