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

from marginax.errors import ModelError
from marginax.jaxpr.dependence import own_dependences, scan_parts, through
from marginax.jaxpr.equations import Equation, called_jaxpr, equations_of
from marginax.language.scan import Series

Lagged = tuple[str, int]
"""A variable of a scan, and how many steps back."""

Scope = frozenset[str | Lagged]
"""What something depends on: variables outside by name, those of the scan with their lag."""

NOTHING: frozenset[str] = frozenset()


def at(variable: str, step: int) -> str:
    """The name of a variable at a step that has a number."""
    return f"{variable}[{step}]"


def back(variable: str, lag: int) -> str:
    """The name of a variable some steps back from the step that stands for all."""
    return f"{variable}[t-{lag}]" if lag else f"{variable}[t]"


@dataclass(frozen=True)
class Stepped:
    """The names that a value of each step depends on."""

    heads: tuple[frozenset[str], ...]
    rest: frozenset[str]

    @property
    def names(self) -> frozenset[str]:
        return self.rest.union(*self.heads)


@dataclass(frozen=True)
class Mixed:
    """What depends on variables of all steps at once, which nothing may that counts."""

    variables: frozenset[str]


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
    memory: Mapping[str, int]
    """How many steps back each variable matters; those that matter at all."""
    stepped: frozenset[int]
    """The outputs of the body that depend on variables of the steps."""

    @property
    def time(self) -> str:
        """The name of its time axis."""
        return self.series.name

    @property
    def length(self) -> int:
        """Steps that are alike."""
        return self.series.length - self.heads

    def names(self, variable: str) -> list[str]:
        """All names of a variable in the steps that are alike, the earliest first."""
        return [back(variable, lag) for lag in range(self.memory.get(variable, 0), -1, -1)]

    def single(self, variable: str) -> list[str]:
        """The names of a variable at the heads and at the end."""
        total = self.series.length
        ends = range(max(total - self.memory.get(variable, 0), self.heads), total)
        return [at(variable, t) for t in (*range(self.heads), *ends)]


@dataclass(frozen=True)
class Scopes:
    """What every output of a program depends on, and the scans in it whose steps have variables."""

    outputs: tuple[frozenset[str] | Stepped | Mixed, ...]
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
    known: dict[jex_core.Var, frozenset[str] | Stepped | Mixed] = {
        jaxpr.invars[i]: frozenset([name]) for i, name in names.items()
    }
    of_steps = {jaxpr.invars[i]: variable for i, variable in series.items()}
    recurrences = []

    def read(atom: jex_core.Var | jex_core.Literal) -> frozenset[str] | Stepped | Mixed:
        if isinstance(atom, jex_core.Literal):
            return NOTHING
        if atom in of_steps:
            return Mixed(frozenset([of_steps[atom][0]]))
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
            recurrence, outputs = _of_scan(eqn, arguments, found, recurrences)
            recurrences.append(recurrence)
            known.update(zip(eqn.outvars, outputs, strict=True))
        elif any(isinstance(a, Stepped | Mixed) for a in arguments):
            everything = _stated(frozenset[str]().union(*map(_variables, arguments)), recurrences)
            known.update(dict.fromkeys(eqn.outvars, Mixed(everything)))
        elif any(arguments):
            plain = [a if isinstance(a, frozenset) else NOTHING for a in arguments]
            known.update(zip(eqn.outvars, _through(equation, plain), strict=True))
    return Scopes(tuple(read(atom) for atom in jaxpr.outvars), tuple(recurrences))


def _through(equation: Equation, arguments: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """The names that each output of an equation depends on, from those of its inputs."""
    if equation.called is not None:
        reads = own_dependences(equation.called)
        return [NOTHING.union(*(arguments[i] for i in out)) for out in reads]
    return [frozenset(f) for f in through(equation, [dict.fromkeys(a, ()) for a in arguments])]


def _variables(scope: frozenset[str] | Stepped | Mixed) -> frozenset[str]:
    """The names of variables that it depends on, those of a scan as in the plan."""
    if isinstance(scope, Mixed):
        return scope.variables
    return scope.names if isinstance(scope, Stepped) else scope


def _stated(names: frozenset[str], recurrences: Sequence[Recurrence]) -> frozenset[str]:
    """The variables as the model states them."""
    stated = {
        name: v
        for r in recurrences
        for v in r.variables.values()
        for name in (*r.single(v), *r.names(v))
    }
    return frozenset(stated.get(name, name) for name in names)


def _of_scan(
    eqn: jex_core.JaxprEqn,
    arguments: Sequence[frozenset[str] | Stepped | Mixed],
    found: Mapping[int, tuple[str, Series]],
    earlier: Sequence[Recurrence],
) -> tuple[Recurrence, list[frozenset[str] | Stepped | Mixed]]:
    body = called_jaxpr(eqn)
    n_consts, n_carry = scan_parts(eqn)
    frame = next(series for _, series in found.values())
    variables = {i: name for i, (name, _) in found.items()}
    reads = tuple(map(frozenset, own_dependences(body)))
    for i, argument in enumerate(arguments):
        if i not in variables and isinstance(argument, Stepped | Mixed):
            names = ", ".join(f"'{v}'" for v in sorted(_stated(_variables(argument), earlier)))
            mine = ", ".join(f"'{v}'" for v in variables.values())
            raise ModelError(
                f"the scan that states {mine} depends on {names} at all steps of another scan. Pass on what that "
                "one carries in the end, or state both in one body."
            )

    def outside(i: int) -> Scope:
        argument = arguments[i]
        assert isinstance(argument, frozenset)
        return frozenset[str | Lagged](argument)

    def output(number: int, carried: Sequence[Scope]) -> Scope:
        parts = [
            frozenset[str | Lagged]([(variables[i], 0)])
            if i in variables
            else carried[i - n_consts]
            if n_consts <= i < n_consts + n_carry
            else outside(i)
            for i in reads[number]
        ]
        return frozenset[str | Lagged]().union(*parts)

    history = [[outside(n_consts + c) for c in range(n_carry)]]
    while True:
        carried = history[-1]
        after = [_shifted(output(c, carried)) for c in range(n_carry)]
        if after == carried:
            break
        for c, scope in enumerate(after):
            forgotten = [v for v, lag in _lagged(scope) if lag > n_carry]
            if forgotten:
                raise _never_forgets(frame, c, forgotten[0])
        if len(history) > n_carry + 1:  # values outside are handed round: each may be anywhere
            after = [a | b for a, b in zip(after, carried, strict=True)]
        history.append(after)
    heads = min(len(history) - 1, frame.length)
    steady = history[-1]
    memory: dict[str, int] = {}
    for scope in steady:
        for variable, lag in _lagged(scope):
            memory[variable] = max(lag, memory.get(variable, 0))
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
    outputs: list[frozenset[str] | Stepped | Mixed] = [
        frozenset(_single(x, frame.length) for x in scope) for scope in last
    ]
    for o in range(n_carry, len(reads)):
        steps = Stepped(
            tuple(frozenset(_single(x, t) for x in output(o, history[t])) for t in range(heads)),
            frozenset(x if isinstance(x, str) else back(*x) for x in output(o, steady))
            if recurrence.length
            else NOTHING,
        )
        outputs.append(steps if o in recurrence.stepped else steps.names)
    return recurrence, outputs


def _single(x: str | Lagged, step: int) -> str:
    return x if isinstance(x, str) else at(x[0], step - x[1])


def _lagged(scope: Scope) -> list[Lagged]:
    return sorted(x for x in scope if not isinstance(x, str))


def _shifted(scope: Scope) -> Scope:
    return frozenset(x if isinstance(x, str) else (x[0], x[1] + 1) for x in scope)


def _never_forgets(series: Series, carry: int, variable: str) -> ModelError:
    known = carry < len(series.carried)
    what = series.carried[carry] if known else f"value number {carry}"
    return ModelError(
        f"site '{variable}': what is carried in {what} never forgets it: it depends on the values of '{variable}' at "
        "all steps before, so that the exact sum is over all series. Carry only the last values, `return z, None` or "
        "`return (z, z_before), None` (each by itself: what is carried in one array counts as one value), or make "
        "what is needed (a duration, a count) part of a larger discrete state. A carry that is kept where a step does "
        "not count, `jnp.where(counts, z, z_before)`, never forgets either: fall back on a constant, "
        "`jnp.where(counts, z, start)`, if the steps that do not count come first."
    )
