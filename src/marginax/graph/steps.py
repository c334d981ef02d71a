"""Evaluate a scan whose steps have discrete variables: all steps that are alike at once.

Time is an axis with a name, like those of the variables (`evaluate`): what is scanned over enters
the body with that axis, and whatever does not depend on it is computed once for all steps. A table
of transitions that is the same at every step is one table.

For that, what is carried into every step must be known beforehand. There are two kinds:

- *Recurrent* values (a counter, a continuous state, the last observation) depend on no variable of the
  steps. They are computed step by step, by a loop over the parts of the body that they need.
- All others are made of the last few steps: of the variables ``z[t-1]``, ``z[t-2]``, ... as tables over
  their values, and of what was scanned over then. They are what the body makes of the step before, which is
  evaluated with that step's names. There are at least as many heads as such a value reaches back, so the
  step before was made by the body, too.

The heads (`recurrence`) are evaluated one by one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from marginax.elimination.axes import At, Axis, Back
from marginax.graph.recurrence import Recurrence
from marginax.jaxpr.axis_flow import shape_of
from marginax.jaxpr.enumerated import Enumerated, broadcast, materialise
from marginax.jaxpr.equations import called_consts, called_jaxpr
from marginax.jaxpr.evaluate import Evaluation


@dataclass(frozen=True)
class SteppedValue:
    """A value that each step of a scan makes, evaluated over its variables."""

    heads: tuple[Enumerated, ...]
    rest: Enumerated | None
    """Of the steps that are alike; with the time axis among its variables unless all are the same."""
    recurrence: Recurrence

    @property
    def parts(self) -> list[Enumerated]:
        """Heads, then the rest."""
        return [*self.heads, *([] if self.rest is None else [self.rest])]


def evaluate_scan(
    recurrence: Recurrence,
    arguments: Sequence[Enumerated],
    wanted: Sequence[bool],
    evaluation: Evaluation,
) -> list[Any]:
    """The outputs of a scan: what is carried in the end, and what each step makes.

    Parameters
    ----------
    recurrence : Recurrence
        The scan.
    arguments : sequence of Enumerated
        The inputs of its equation.
    wanted : sequence of bool
        For each output whether anything needs it.
    evaluation : Evaluation
        What the scan is part of. In its order of variables the time axis is the first of its scan.

    Returns
    -------
    list of Enumerated, SteppedValue, or None where it is not wanted
    """
    return _Scan(recurrence, arguments, evaluation).outputs(wanted)


class _Scan:
    def __init__(
        self,
        recurrence: Recurrence,
        arguments: Sequence[Enumerated],
        evaluation: Evaluation,
    ) -> None:
        self.recurrence = recurrence
        self.evaluation = evaluation
        self.order = evaluation.order
        n = recurrence.n_consts
        self.body = called_jaxpr(recurrence.eqn)
        self.body_consts = called_consts(recurrence.eqn)
        self.consts = list(arguments[:n])
        self.init = list(arguments[n : n + recurrence.n_carry])
        scanned = arguments[n + recurrence.n_carry :]
        self.scanned = [_turned(value) if recurrence.series.reverse else value for value in scanned]
        self.first_scanned = n + recurrence.n_carry
        self.states = self._recurrent_states() if recurrence.recurrent else {}

    def outputs(self, wanted: Sequence[bool]) -> list[Any]:
        recurrence, n_carry = self.recurrence, self.recurrence.n_carry
        carry, heads = self.init, []
        made = [i for i in range(n_carry, len(wanted)) if wanted[i]]
        for t in range(recurrence.heads):
            results = self._body([*range(n_carry), *made], carry, self._inputs_at(t))
            carry, values = results[:n_carry], results[n_carry:]
            heads.append(dict(zip(made, values, strict=True)))
        rest: dict[int, Enumerated] = {}
        if recurrence.length:
            needed = self._carried_inputs(made)
            before = self._carried_before(0, needed)
            found = self._body(made, before, self._inputs_back(0))
            rest = dict(zip(made, found, strict=True))
            final = [c for c in range(n_carry) if wanted[c]]
            carry = self._carried_at(recurrence.series.length, set(final))
        outputs: list[Any] = [carry[c] if wanted[c] else None for c in range(n_carry)]
        for i in range(n_carry, len(wanted)):
            if not wanted[i]:
                outputs.append(None)
                continue
            value = SteppedValue(tuple(h[i] for h in heads), rest.get(i), recurrence)
            shape = shape_of(self.body.outvars[i])
            stepped = i in recurrence.stepped
            outputs.append(value if stepped else collapse(value, shape, self.order))
        return outputs

    def _body(
        self,
        wanted: Sequence[int],
        carry: Sequence[Any],
        scanned: Sequence[Any],
        evaluation: Evaluation | None = None,
    ) -> list[Enumerated]:
        """Outputs of the body."""
        if not wanted:
            return []
        inputs = [*self.consts, *carry, *scanned]
        return (evaluation or self.evaluation).run(self.body, self.body_consts, inputs, wanted)

    def _carried_inputs(self, outputs: Sequence[int]) -> set[int]:
        """What of the carried values some outputs of the body need."""
        n = self.recurrence.n_consts
        read = {i - n for o in outputs for i in self.recurrence.reads[o]}
        return {c for c in read if 0 <= c < self.recurrence.n_carry}

    def _inputs_at(self, t: int) -> list[Enumerated]:
        """What one step scans over."""
        return [
            self._of_variable(i, At(variable, t)) if variable else _slice(value, t)
            for i, value, variable in self._scanned()
        ]

    def _inputs_back(self, lag: int) -> list[Enumerated]:
        """What the steps that are alike scanned over some steps back, with the time axis."""
        first, total = self.recurrence.heads, self.recurrence.series.length
        return [
            self._of_variable(i, Back(variable, lag))
            if variable
            else _window(value, first - lag, total - lag, self.recurrence.time)
            for i, value, variable in self._scanned()
        ]

    def _scanned(self) -> list[tuple[int, Enumerated, str | None]]:
        variables = self.recurrence.variables
        return [
            (i, value, variables.get(self.first_scanned + i))
            for i, value in enumerate(self.scanned)
        ]

    def _of_variable(self, i: int, name: Axis) -> Enumerated:
        """A variable of one step, over its support."""
        return Enumerated(self.scanned[i].array[0], (name,), _without_first(self.scanned[i]))

    def _carried_before(self, lag: int, needed: set[int]) -> list[Any]:
        """What is carried into the steps that are alike, seen from some steps later."""
        recurrence = self.recurrence
        carried: list[Any] = [None] * recurrence.n_carry
        first, total = recurrence.heads - lag, recurrence.series.length - lag
        for c in needed & recurrence.recurrent:
            carried[c] = _window(self.states[c], first, total, recurrence.time)
        made = sorted(needed - recurrence.recurrent)
        if made:
            before = self._carried_before(lag + 1, self._carried_inputs(made))
            found = self._body(made, before, self._inputs_back(lag + 1))
            for c, value in zip(made, found, strict=True):
                carried[c] = value
        return carried

    def _carried_at(self, t: int, needed: set[int]) -> list[Any]:
        """What is carried into one step, or out of the last."""
        recurrence = self.recurrence
        if t == 0:
            return self.init
        carried: list[Any] = [None] * recurrence.n_carry
        for c in needed & recurrence.recurrent:
            carried[c] = _slice(self.states[c], t)
        made = sorted(needed - recurrence.recurrent)
        if made:
            before = self._carried_at(t - 1, self._carried_inputs(made))
            found = self._body(made, before, self._inputs_at(t - 1))
            for c, value in zip(made, found, strict=True):
                carried[c] = value
        return carried

    def _recurrent_states(self) -> dict[int, Enumerated]:
        """The recurrent values before every step and after the last."""
        recurrence = self.recurrence
        chosen = sorted(recurrence.recurrent)
        read = sorted({i for c in chosen for i in recurrence.reads[c]})
        n_consts, first = recurrence.n_consts, self.first_scanned
        scanned = [i - first for i in read if i >= first]
        shapes = [shape_of(self.body.invars[n_consts + c]) for c in chosen]
        parts = [self.init[c] for c in chosen]
        parts += [self.consts[i] for i in read if i < n_consts]
        parts += [self.scanned[i] for i in scanned]
        names = sorted({v for p in parts for v in p.variables}, key=self.order.__getitem__)
        sizes = _sizes(parts)

        def full(value: Enumerated, shape: Sequence[int]) -> Any:
            """With all the axes, so that a loop may carry it."""
            return _spread(value, shape, names, sizes)

        def element(value: Enumerated, t: Any) -> Enumerated:
            if 0 in value.constant:
                return _slice(value, 0)
            array = jax.lax.dynamic_index_in_dim(jnp.asarray(value.array), t, 0, keepdims=False)
            return Enumerated(array, value.variables, _without_first(value))

        def step(carry: list[Any], t: Any) -> tuple[list[Any], list[Any]]:
            carried: list[Any] = [None] * recurrence.n_carry
            for c, array in zip(chosen, carry, strict=True):
                carried[c] = Enumerated(array, tuple(names))
            inputs: list[Any] = [None] * len(self.scanned)
            for i in scanned:
                inputs[i] = element(self.scanned[i], t)
            inside = Evaluation(self.order, self.evaluation.visit)
            after = self._body(chosen, carried, inputs, inside)
            dtypes = [array.dtype for array in carry]
            made = [
                full(value, shape).astype(dtype)
                for value, shape, dtype in zip(after, shapes, dtypes, strict=True)
            ]
            return made, carry

        begin = [full(self.init[c], shape) for c, shape in zip(chosen, shapes, strict=True)]
        end, before = jax.lax.scan(step, begin, jnp.arange(recurrence.series.length))
        return {
            c: Enumerated(jnp.concatenate([b, e[None]]), tuple(names))
            for c, b, e in zip(chosen, before, end, strict=True)
        }


def collapse(value: SteppedValue, shape: Sequence[int], order: Mapping[Any, int]) -> Enumerated:
    """A value of every step as one array, with the steps on its first axis.

    Parameters
    ----------
    value : SteppedValue
        It depends on no variable of the steps.
    shape : sequence of int
        Of the value of one step.
    order : mapping from name to int
        Of axes of variables.
    """
    recurrence = value.recurrence
    parts, time = value.parts, recurrence.time
    names = sorted({v for p in parts for v in p.variables if v != time}, key=order.__getitem__)
    sizes = _sizes(parts)
    arrays = [_spread(head, shape, names, sizes)[None] for head in value.heads]
    if value.rest is not None:
        rest = _spread(value.rest, shape, [time, *names], sizes | {time: recurrence.length})
        arrays.append(jnp.moveaxis(rest, len(shape), 0))
    array = jnp.concatenate(arrays)
    return Enumerated(array[::-1] if recurrence.series.reverse else array, tuple(names))


def stepped(value: Enumerated, shape: Sequence[int], recurrence: Recurrence) -> SteppedValue:
    """The other way round: a series as a value that each step makes.

    Parameters
    ----------
    value : Enumerated
        With the steps on its first axis.
    shape : sequence of int
        Of the series.
    recurrence : Recurrence
        The scan.
    """
    value = materialise(value, shape, value.constant & {0})
    value = _turned(value) if recurrence.series.reverse else value
    heads = tuple(_slice(value, t) for t in range(recurrence.heads))
    rest = _window(value, recurrence.heads, recurrence.series.length, recurrence.time)
    return SteppedValue(heads, rest if recurrence.length else None, recurrence)


def _window(value: Enumerated, start: int, stop: int, time: Axis) -> Enumerated:
    """Some steps of a series, the time axis as a variable's."""
    if 0 in value.constant:
        return _slice(value, 0)
    n_own = value.ndim_own
    axes = (*range(1, n_own), 0, *range(n_own, np.ndim(value.array)))
    if isinstance(value.array, np.ndarray):
        array = value.array[start:stop].transpose(axes)
    else:
        array = lax.transpose(lax.slice_in_dim(value.array, start, stop), axes)
    return Enumerated(array, (time, *value.variables), _without_first(value))


def _sizes(values: Sequence[Enumerated]) -> dict[Hashable, int]:
    """Numbers of values of all variables that these are evaluated over."""
    return {name: size for value in values for name, size in value.sizes.items()}


def _spread(
    value: Enumerated,
    shape: Sequence[int],
    names: Sequence[Hashable],
    sizes: Mapping[Hashable, int],
) -> Any:
    """The array with all its own axes and an axis for each of the names, at full size."""
    value = materialise(value, shape, value.constant)
    dims = [*range(len(shape)), *(len(shape) + names.index(v) for v in value.variables)]
    full = (*shape, *(sizes[v] for v in names))
    return jnp.asarray(broadcast(value.array, full, dims))


def _slice(value: Enumerated, t: int) -> Enumerated:
    """One element of a series."""
    t = 0 if 0 in value.constant else t
    if isinstance(value.array, np.ndarray):
        array = np.asarray(value.array[t])
    else:
        array = lax.index_in_dim(value.array, t, keepdims=False)
    return Enumerated(array, value.variables, _without_first(value))


def _without_first(value: Enumerated) -> frozenset[int]:
    return frozenset(axis - 1 for axis in value.constant if axis > 0)


def _turned(value: Enumerated) -> Enumerated:
    """A series from its end to its beginning."""
    if 0 in value.constant:
        return value
    known = isinstance(value.array, np.ndarray)
    array = value.array[::-1] if known else lax.rev(value.array, (0,))
    return Enumerated(array, value.variables, value.constant)
