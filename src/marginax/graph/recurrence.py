"""Which steps of a scan depend on which: the dependence analysis, applied to what is carried.

At one step a carried value depends on variables outside of the scan, and on those of earlier steps.
From the body's own dependences it follows what the next step's carried values depend on: the same,
one step further back, and the variables of this step. Repeated, that settles (after at most as many
steps as there are carried values), or it goes back further and further: then something carried
never forgets, and there is no exact sum short of one over all series.

Until it settles the steps are *heads*, each with a structure of its own: what the first of them is
given may depend on variables outside of the scan. From then on every step is alike, and one stands
for all.

A variable of step t is called ``z[t]`` in its own step and ``z[t-1]``, ``z[t-2]``, ... in those
after it. Of heads, and after the end, steps have their numbers: ``z[0]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jax.extend import core as jex_core

from marginax.elimination.axes import At, Axis, Back, Part, Role, sorted_axes
from marginax.errors import ModelError
from marginax.jaxpr.dependence import own_dependences, scan_parts, through
from marginax.jaxpr.equations import Equation, called_jaxpr, equations_of
from marginax.language.scan import Series

Scope = frozenset[Axis]
"""What something depends on; in a scan, its variables some steps back, and those outside of it."""

NOTHING: Scope = frozenset()


@dataclass(frozen=True)
class Stepped:
    """What a value of each step depends on."""

    heads: tuple[Scope, ...]
    rest: Scope

    @property
    def axes(self) -> Scope:
        return self.rest.union(*self.heads)


@dataclass(frozen=True)
class Mixed:
    """What depends on variables of all steps at once, which nothing may that counts."""

    variables: Scope


@dataclass(frozen=True)
class Recurrence:
    """How the steps of one scan hang together."""

    eqn: jex_core.JaxprEqn
    series: Series
    n_consts: int
    n_carry: int
    variables: Mapping[int, str]
    """By input of the body, the variable of the step that it is."""
    reads: tuple[frozenset[int], ...]
    """For each output of the body, the inputs that it depends on."""
    recurrent: frozenset[int]
    """What is carried and depends on no variable of the steps: it is computed step by step, before all else."""
    heads: int
    memory: Mapping[Axis, int]
    """How many steps back each variable matters; those that matter at all."""
    stepped: frozenset[int]
    """The outputs of the body that depend on variables of the steps."""

    @property
    def time(self) -> Axis:
        """Its time axis."""
        return Part(self.series.name, Role.ALIKE)

    @property
    def length(self) -> int:
        """Steps that are alike."""
        return self.series.length - self.heads

    def alike(self, variable: str) -> list[Axis]:
        """A variable in the steps that are alike, and in those before that matter to them, the earliest first."""
        return [Back(variable, lag) for lag in range(self.memory.get(variable, 0), -1, -1)]

    def single(self, variable: str) -> list[Axis]:
        """A variable at the heads and at the end."""
        total = self.series.length
        ends = range(max(total - self.memory.get(variable, 0), self.heads), total)
        return [At(variable, t) for t in (*range(self.heads), *ends)]


@dataclass(frozen=True)
class Scopes:
    """What every output of a program depends on, and the scans in it whose steps have variables."""

    outputs: tuple[Scope | Stepped | Mixed, ...]
    recurrences: tuple[Recurrence, ...]


def scopes_of(
    jaxpr: jex_core.Jaxpr, series: Mapping[int, tuple[str, Series]], names: Mapping[int, str]
) -> Scopes:
    """Follow names through a program.

    Parameters
    ----------
    jaxpr : Jaxpr
        The program.
    series : mapping
        By position of an input, the variable that it is, one for each step of a scan.
    names : mapping
        By position of an input, the variable that it is, of all others.

    Returns
    -------
    Scopes

    Raises
    ------
    ModelError
        When something carried never forgets.
    """
    known: dict[jex_core.Var, Scope | Stepped | Mixed] = {
        jaxpr.invars[i]: frozenset[Axis]([name]) for i, name in names.items()
    }
    of_steps = {jaxpr.invars[i]: variable for i, variable in series.items()}
    recurrences = []

    def read(atom: jex_core.Var | jex_core.Literal) -> Scope | Stepped | Mixed:
        if isinstance(atom, jex_core.Literal):
            return NOTHING
        if atom in of_steps:
            return Mixed(frozenset[Axis]([of_steps[atom][0]]))
        return known.get(atom, NOTHING)

    stated: set[str] = set()
    for equation in equations_of(jaxpr):
        eqn = equation.eqn
        arguments = [read(atom) for atom in eqn.invars]
        # The first loop over a variable's series is the scan that states it; others come after, and read it.
        found = {
            i: of_steps[atom]
            for i, atom in enumerate(eqn.invars)
            if not isinstance(atom, jex_core.Literal)
            and atom in of_steps
            and of_steps[atom][0] not in stated
        }
        if eqn.primitive.name == "scan" and found:
            stated |= {name for name, _ in found.values()}
            recurrence, outputs = _of_scan(eqn, arguments, found)
            recurrences.append(recurrence)
            known.update(zip(eqn.outvars, outputs, strict=True))
        elif any(isinstance(a, Stepped | Mixed) for a in arguments):
            everything = _stated(NOTHING.union(*map(_axes, arguments)))
            known.update(dict.fromkeys(eqn.outvars, Mixed(everything)))
        elif any(arguments):
            plain = [a if isinstance(a, frozenset) else NOTHING for a in arguments]
            known.update(zip(eqn.outvars, _through(equation, plain), strict=True))
    return Scopes(tuple(read(atom) for atom in jaxpr.outvars), tuple(recurrences))


def _through(equation: Equation, arguments: Sequence[Scope]) -> list[Scope]:
    """The variables that each output of an equation depends on, from those of its inputs."""
    if equation.called is not None:
        reads = own_dependences(equation.called)
        return [NOTHING.union(*(arguments[i] for i in out)) for out in reads]
    return [frozenset(f) for f in through(equation, [dict.fromkeys(a, ()) for a in arguments])]


def _axes(scope: Scope | Stepped | Mixed) -> Scope:
    """The variables that it depends on, those of a scan as in the plan."""
    if isinstance(scope, Mixed):
        return scope.variables
    return scope.axes if isinstance(scope, Stepped) else scope


def _stated(axes: Scope) -> Scope:
    """The variables as the model states them."""
    return frozenset(a.variable if isinstance(a, At | Back) else a for a in axes)


def _of_scan(
    eqn: jex_core.JaxprEqn,
    arguments: Sequence[Scope | Stepped | Mixed],
    found: Mapping[int, tuple[str, Series]],
) -> tuple[Recurrence, list[Scope | Stepped | Mixed]]:
    body = called_jaxpr(eqn)
    n_consts, n_carry = scan_parts(eqn)
    frame = next(series for _, series in found.values())
    variables = {i: name for i, (name, _) in found.items()}
    reads = tuple(map(frozenset, own_dependences(body)))
    for i, argument in enumerate(arguments):
        if i not in variables and isinstance(argument, Stepped | Mixed):
            names = ", ".join(f"'{v}'" for v in sorted_axes(_stated(_axes(argument))))
            mine = ", ".join(f"'{v}'" for v in variables.values())
            raise ModelError(
                f"the scan that states {mine} depends on {names} at all steps of another scan.",
                advice="Pass on what that one carries in the end, or state both in one body.",
            )

    def outside(i: int) -> Scope:
        argument = arguments[i]
        assert isinstance(argument, frozenset)
        return argument

    def output(number: int, carried: Sequence[Scope]) -> Scope:
        parts = [
            frozenset[Axis]([Back(variables[i], 0)])
            if i in variables
            else carried[i - n_consts]
            if n_consts <= i < n_consts + n_carry
            else outside(i)
            for i in reads[number]
        ]
        return NOTHING.union(*parts)

    history = [[outside(n_consts + c) for c in range(n_carry)]]
    while True:
        carried = history[-1]
        after = [_shifted(output(c, carried)) for c in range(n_carry)]
        if after == carried:
            break
        for c, scope in enumerate(after):
            forgotten = [x.variable for x in _lagged(scope) if x.lag > n_carry]
            if forgotten:
                raise _never_forgets(frame, c, forgotten[0])
        if len(history) > n_carry + 1:  # values outside are handed round: each may be anywhere
            after = [a | b for a, b in zip(after, carried, strict=True)]
        history.append(after)
    heads = min(len(history) - 1, frame.length)
    steady = history[-1]
    memory: dict[Axis, int] = {}
    for scope in steady:
        for x in _lagged(scope):
            memory[x.variable] = max(x.lag, memory.get(x.variable, 0))
    if heads == frame.length:
        memory = {}
    recurrence = Recurrence(
        eqn,
        frame,
        n_consts,
        n_carry,
        variables,
        reads,
        frozenset(c for c in range(n_carry) if not _lagged(steady[c])),
        heads,
        memory,
        frozenset(
            o
            for o in range(n_carry, len(reads))
            if any(_lagged(output(o, carried)) for carried in history)
        ),
    )
    last = history[heads]
    outputs: list[Scope | Stepped | Mixed] = [_at(frame.length, scope) for scope in last]
    for o in range(n_carry, len(reads)):
        steps = Stepped(
            tuple(_at(t, output(o, history[t])) for t in range(heads)),
            output(o, steady) if recurrence.length else NOTHING,
        )
        outputs.append(steps if o in recurrence.stepped else steps.axes)
    return recurrence, outputs


def _at(step: int, scope: Scope) -> Scope:
    """The same seen at a step that has a number."""
    return frozenset(At(x.variable, step - x.lag) if isinstance(x, Back) else x for x in scope)


def _lagged(scope: Scope) -> list[Back]:
    return [x for x in sorted_axes(scope) if isinstance(x, Back)]


def _shifted(scope: Scope) -> Scope:
    """The same seen one step later."""
    return frozenset(Back(x.variable, x.lag + 1) if isinstance(x, Back) else x for x in scope)


def _never_forgets(series: Series, carry: int, variable: Axis) -> ModelError:
    known = carry < len(series.carried)
    what = series.carried[carry] if known else f"value number {carry}"
    return ModelError(
        f"what is carried in {what} never forgets it: it depends on the values of '{variable}' at all steps "
        "before, so that the exact sum is over all series. Carry only the last values, `return z, None` or "
        "`return (z, z_before), None` (each by itself: what is carried in one array counts as one value), or "
        "make what is needed (a duration, a count) part of a larger discrete state. A carry that is kept "
        "where a step does not count, `jnp.where(counts, z, z_before)`, never forgets either: fall back on a "
        "constant, `jnp.where(counts, z, start)`, if the steps that do not count come first.",
        site=str(variable),
    )
