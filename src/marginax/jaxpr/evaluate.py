"""Evaluate a jaxpr over the supports of discrete variables, each value only over its own.

This is `jax.vmap` made selective. A discrete variable enters as its whole support, on a last axis
that carries the variable's name; from there every equation is mapped over exactly the variables
that its inputs depend on. A log-prob that depends on nothing discrete is computed once, one that
depends on `z` is computed for each value of `z`, and only a factor of both `z` and `w` pays for
their product.

The second economy is *late broadcast*. While one value is enumerated in a plate of a million
elements, all elements hold that same value; an array that repeats itself along an axis is kept at
size one there (`Enumerated.constant`), and equations are bound at that size as long as the axis-flow
table allows it. So `locs[assignment]` gathers K numbers, not N x K, and its derivative scatters K.

The third is to compute nothing twice. A model written as a Python loop looks up the same table at every site and takes
the same logarithm of it; evaluated over supports these are one array under different names. What has been computed
from the same arrays is therefore used again, with the variables renamed (`Evaluation`), and what is small and known
while tracing is computed at once (`folding`).

Enumeration axes stand last because reductions over the last axis are the fast ones: a mixture's
log density then has the layout that a specialist would choose, points in rows and components in
columns (measured: twice as fast as the other way round for ten components).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax import lax
from jax.extend import core as jex_core

from marginax.jaxpr.axis_flow import ELEMENTWISE, AxisFlow, dtype_of
from marginax.jaxpr.enumerated import Enumerated, common_shape, mapped, materialise, over, spread
from marginax.jaxpr.equations import INLINED, Equation, equations_of
from marginax.jaxpr.folding import (
    LARGEST,
    fold,
    fold_gather,
    is_known,
    known,
    operand,
    with_variables,
)
from marginax.jaxpr.indexing import gather_as_renaming, slice_as_renaming
from marginax.jaxpr.shared_operand import shared_axes, with_shared

Rule = Callable[["Evaluation", jex_core.JaxprEqn, list["Enumerated"], list[bool]], list[Any] | None]


def evaluate(
    jaxpr: jex_core.Jaxpr,
    consts: Sequence[Any],
    inputs: Sequence[Enumerated],
    order: Mapping[Any, int],
    wanted: Sequence[int] | None = None,
    visit: Callable[[int], None] = lambda size: None,
    rule: Rule | None = None,
) -> list[Any]:
    """Evaluate a jaxpr on enumerated inputs.

    Parameters
    ----------
    jaxpr : Jaxpr
        What to evaluate.
    consts : sequence of arrays
        The values of its constants.
    inputs : sequence of Enumerated
        The values of its inputs.
    order : mapping from variable name to int
        The order in which the variables' axes stand.
    wanted : sequence of int, optional
        Positions of the outputs to evaluate; all of them when nothing is said.
    visit : callable, optional
        Called with the bytes of each array as it is made.
    rule : callable, optional
        For the evaluation and each equation, with its arguments and which of its outputs are needed, their
        values; None where it has none, and the equation is evaluated as any other.

    Returns
    -------
    list of Enumerated
        The outputs.
    """
    return Evaluation(order, visit).run(jaxpr, consts, inputs, wanted, rule)


class Evaluation:
    """The evaluation of one or more jaxprs, which remembers what it has computed.

    It belongs to one trace of JAX: in a loop's body another one is needed.
    """

    def __init__(
        self, order: Mapping[Any, int], visit: Callable[[int], None] = lambda size: None
    ) -> None:
        self.order = order
        self.visit = visit
        self._found: dict[Any, tuple[list[Enumerated], tuple[Hashable, ...], list[Enumerated]]] = {}
        """By what was done to which arrays: the results, for which variables, and the arrays, kept alive."""
        self._equal: dict[Any, Any] = {}
        """One known array of each content, so that equal ones are the same."""

    def run(
        self,
        jaxpr: jex_core.Jaxpr,
        consts: Sequence[Any],
        inputs: Sequence[Enumerated],
        wanted: Sequence[int] | None = None,
        rule: Rule | None = None,
    ) -> list[Any]:
        """Evaluate a jaxpr, see `evaluate`."""
        outvars = jaxpr.outvars if wanted is None else [jaxpr.outvars[i] for i in wanted]
        values: dict[jex_core.Var, Any] = dict(zip(jaxpr.invars, inputs, strict=True))
        values.update(zip(jaxpr.constvars, map(Enumerated, consts), strict=True))

        equations, needed = _needed(jaxpr, outvars)
        for equation in equations:
            eqn = equation.eqn
            arguments = [
                Enumerated(self._one(number))
                if isinstance(atom, jex_core.Literal)
                else values[atom]
                for atom, number in zip(eqn.invars, equation.literals, strict=True)
            ]
            outputs = None
            if rule is not None:
                outputs = rule(self, eqn, arguments, [v in needed for v in eqn.outvars])
            if outputs is None:
                outputs = self._once(equation, arguments, jaxpr.debug_info)
            values.update(zip(eqn.outvars, outputs, strict=True))
        return [
            Enumerated(np.asarray(atom.val, dtype_of(atom))[()])
            if isinstance(atom, jex_core.Literal)
            else values[atom]
            for atom in outvars
        ]

    def _one(self, array: Any) -> Any:
        """A known array, or another one of the same content that came before."""
        if isinstance(array, np.ndarray | np.generic) and array.size <= LARGEST:
            content = (type(array), array.dtype, array.shape, array.tobytes())
            return self._equal.setdefault(content, array)
        return array

    def _once(
        self, equation: Equation, arguments: list[Enumerated], debug_info: Any
    ) -> list[Enumerated]:
        """The outputs of an equation, looked up if it was evaluated on the same arrays before."""
        variables = self._variables(arguments)
        if equation.signature is None:
            return self._outputs(equation, arguments, variables, debug_info)
        place = {v: i for i, v in enumerate(variables)}
        key = (
            equation.signature,
            *((id(a.array), *(place[v] for v in a.variables), a.constant) for a in arguments),
        )
        found = self._found.get(key)
        if found is None:
            outputs = self._outputs(equation, arguments, variables, debug_info)
            self._found[key] = outputs, variables, arguments
            return outputs
        outputs, named, _ = found
        if named == variables:
            return outputs
        new = dict(zip(named, variables, strict=True))
        return [
            Enumerated(o.array, tuple(new[v] for v in o.variables), o.constant) for o in outputs
        ]

    def _variables(self, arguments: Sequence[Enumerated]) -> tuple[Hashable, ...]:
        """All variables that some values depend on, in order."""
        different = {a.variables for a in arguments}
        different.discard(())
        if len(different) <= 1:
            return next(iter(different), ())
        return tuple(sorted({v for names in different for v in names}, key=self.order.__getitem__))

    def _outputs(
        self,
        equation: Equation,
        arguments: list[Enumerated],
        variables: tuple[Hashable, ...],
        debug_info: Any,
    ) -> list[Enumerated]:
        called = equation.called
        # A derivative of its own matters to no value that is known.
        if called is not None and (
            equation.name in INLINED or all(is_known(a.array) for a in arguments)
        ):
            return self.run(called, equation.called_consts, arguments)
        outputs = self._bound(equation, arguments, variables, debug_info)
        for output in outputs:
            self.visit(np.size(output.array) * dtype_of(equation.eqn.outvars[0]).itemsize)
        return outputs

    def _bound(
        self,
        equation: Equation,
        arguments: list[Enumerated],
        variables: tuple[Hashable, ...],
        debug_info: Any,
    ) -> list[Enumerated]:
        eqn, name, flow = equation.eqn, equation.name, equation.flow
        if name in ("gather", "dynamic_slice"):
            renamed = self._renamed(equation, arguments)
            if renamed is not None:
                return [renamed]
        constant, params, out_shape = frozenset[int](), eqn.params, equation.out_shape
        if flow is not None:
            constant = _constant_outputs(equation, flow, arguments)
            if constant:
                out_shape = tuple(1 if o in constant else n for o, n in enumerate(out_shape))
                if flow.resize is not None:
                    params = params | flow.resize(out_shape)
        shared = None
        if any(argument.constant for argument in arguments):
            shared = shared_axes(eqn, [argument.constant for argument in arguments])
            arguments = [
                materialise(
                    argument,
                    equation.shapes[i],
                    argument.constant - _staying(i, flow, constant, shared),
                )
                for i, argument in enumerate(arguments)
            ]
        if shared is not None:
            outputs = [mapped(with_shared(eqn, shared), arguments, variables)]
        elif flow is None:
            outputs = mapped(as_function(eqn, debug_info), arguments, variables)
        else:
            outputs = self._of_known_flow(equation, params, out_shape, arguments, variables)
        return [Enumerated(self._one(output), variables, constant) for output in outputs]

    def _of_known_flow(
        self,
        equation: Equation,
        params: Mapping[str, Any],
        out_shape: Sequence[int],
        arguments: list[Enumerated],
        variables: tuple[Hashable, ...],
    ) -> Sequence[Any]:
        name, primitive = equation.name, equation.eqn.primitive
        sizes = {v: n for a in arguments for v, n in a.sizes.items()}
        along = tuple(sizes[v] for v in variables)
        dtype = dtype_of(equation.eqn.outvars[0])
        is_small = int(np.prod((*out_shape, *along))) <= LARGEST
        are_known = is_small and all(is_known(argument.array) for argument in arguments)
        if are_known:
            arguments = [Enumerated(known(a.array), a.variables, a.constant) for a in arguments]
        if name in ELEMENTWISE:
            if are_known:
                arrays = [over(a, variables, len(out_shape)) for a in arguments]
                folded = fold(name, params, arrays, dtype)
                if folded is not None:
                    return [folded]
            full = np.broadcast_shapes(
                *(common_shape(a, variables, len(out_shape)) for a in arguments)
            )
            # A scalar beside arrays is allowed to stay one.
            operands = [
                spread(a, variables, full) if np.ndim(a.array) or not out_shape else a.array
                for a in arguments
            ]
            return [primitive.bind(*map(operand, operands), **params)]
        if name == "gather" and are_known:
            array, index = (over(a, variables, a.ndim_own) for a in arguments)
            folded = fold_gather(params, array, index, out_shape, len(variables))
            if folded is not None:
                return [folded]
        complete = with_variables(name, params, along)
        if complete is None:
            found = mapped(partial(primitive.bind, **params), arguments, variables)
            return found if primitive.multiple_results else [found]
        arrays = [
            a.array
            if a.variables == variables
            else spread(a, variables, (*np.shape(a.array)[: a.ndim_own], *along))
            for a in arguments
        ]
        folded = fold(name, complete, arrays, dtype) if are_known else None
        return [primitive.bind(*map(operand, arrays), **complete)] if folded is None else [folded]

    def _renamed(self, equation: Equation, arguments: Sequence[Enumerated]) -> Enumerated | None:
        """Of an indexing by whole supports: the operand, with axes renamed."""
        table, *indices = arguments
        places = [known(index.array) for index in indices]
        if any(set(table.variables) & set(index.variables) for index in indices):
            return None
        n_own, out_shape, params = table.ndim_own, equation.out_shape, equation.eqn.params
        shape = np.shape(table.array)[:n_own]
        if equation.name == "gather":
            if places[0] is None:
                return None
            axis_of = gather_as_renaming(params, shape, places[0], indices[0].variables)
            source = _sources(params, n_own, len(out_shape))
        else:
            named = [index.variables for index in indices]
            axis_of = slice_as_renaming(params["slice_sizes"], shape, places, named)
            gone = set() if axis_of is None else {*axis_of.values()}
            source = [None if a in gone else a for a in range(n_own)]
        if axis_of is None:
            return None
        axis_of = axis_of | {v: n_own + i for i, v in enumerate(table.variables)}
        variables = tuple(sorted(axis_of, key=self.order.__getitem__))
        order = [*(a for a in source if a is not None), *(axis_of[v] for v in variables)]
        array, here = table.array, known(table.array)
        new = [o for o, a in enumerate(source) if a is None]
        if here is not None:
            array = self._one(np.expand_dims(here.transpose(order), new))
        else:
            if order != list(range(len(order))):
                array = lax.transpose(array, order)
            array = lax.expand_dims(array, new) if new else array
        constant = {
            o
            for o, a in enumerate(source)
            if out_shape[o] > 1 and (a is None or a in table.constant)
        }
        return Enumerated(array, variables, frozenset(constant))


def _needed(
    jaxpr: jex_core.Jaxpr, outvars: Sequence[jex_core.Var | jex_core.Literal]
) -> tuple[list[Equation], set[jex_core.Var]]:
    """The equations that the outputs need, in order, and all that is needed of them.

    A model computes much that no density uses.
    """
    wanted = {atom for atom in outvars if not isinstance(atom, jex_core.Literal)}
    kept = []
    for equation in reversed(equations_of(jaxpr)):
        eqn = equation.eqn
        if eqn.effects or any(var in wanted for var in eqn.outvars):
            kept.append(equation)
            wanted.update(a for a in eqn.invars if not isinstance(a, jex_core.Literal))
    return kept[::-1], wanted


def _sources(params: Mapping[str, Any], n_own: int, rank: int) -> list[int | None]:
    """For each axis of a gather's result the axis of the operand that it is, if it is one."""
    numbers = params["dimension_numbers"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    offsets = iter([a for a in range(n_own) if a not in gone])
    batch = iter(range(rank))  # the index's own axes, in order
    batching = dict(
        zip(numbers.start_indices_batching_dims, numbers.operand_batching_dims, strict=True)
    )
    return [
        next(offsets) if o in numbers.offset_dims else batching.get(next(batch))
        for o in range(rank)
    ]


def _staying(
    i: int, flow: AxisFlow | None, constant: frozenset[int], shared: Any
) -> frozenset[int]:
    """The axes along which an argument may stay at size one."""
    stays = frozenset() if shared is None else shared[i]
    if flow is None or not constant:
        return stays
    return stays | {a for a, o in enumerate(flow.maps[i]) if o is not None and o in constant}


def as_function(eqn: jex_core.JaxprEqn, debug_info: Any) -> Callable[..., list[Any]]:
    """An equation as a function of its inputs, also where it calls other functions.

    How such primitives are bound differs between versions of JAX; a jaxpr of one equation does not.
    """
    atoms = eqn.invars
    variables = list(dict.fromkeys(a for a in atoms if not isinstance(a, jex_core.Literal)))
    about = debug_info.with_unknown_names()
    single = jex_core.Jaxpr((), variables, eqn.outvars, [eqn], eqn.effects, about)
    function = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(single, ()))

    def call(*arrays: Any) -> list[Any]:
        values = {
            atom: array
            for atom, array in zip(atoms, arrays, strict=True)
            if not isinstance(atom, jex_core.Literal)
        }
        return function(*(values[v] for v in variables))

    return call


def _constant_outputs(
    equation: Equation, flow: AxisFlow, arguments: Sequence[Enumerated]
) -> frozenset[int]:
    """Output axes along which the result surely repeats itself, and that may be kept at size one."""
    out_shape = equation.out_shape
    if not flow.new_axes and not any(argument.constant for argument in arguments):
        return frozenset()
    sources: dict[int, list[bool]] = {o: [] for o in range(len(out_shape))}
    for argument, axes in zip(arguments, flow.maps, strict=True):
        for a, o in enumerate(axes):
            if o is not None:
                sources[o].append(a in argument.constant)
    return frozenset(
        o
        for o, constant in sources.items()
        if out_shape[o] > 1
        and o not in flow.varying
        and (o in flow.new_axes or (constant and all(constant)))
    )
