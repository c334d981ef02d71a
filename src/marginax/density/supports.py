"""The values that a discrete latent variable is summed over.

Three sources, in this order:

1. what the site says, ``infer={"support": (low, high)}``: the whole numbers from low to high;
2. what the distribution says of itself (NumPyro's ``enumerate_support``);
3. the bounds of its support, where they are numbers now, or follow from what is known.

A variable has *one* list of values for all elements of its plates. Where the elements' own supports
differ (a `Binomial` with an array of counts) the list is their envelope, and values that an element
cannot have are impossible there (see `log_prob.py`). A vector of independent components
(`.to_event`) has every combination of their values. Where a site's range cuts an infinite support,
that is remembered, so that the mass beyond the cut can be estimated.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import constraints

from marginax.arrays.narrowing import check_narrowing
from marginax.density.distribution_layers import distribution_name, unwrapped
from marginax.density.true_supports import AnyOf, Zero, support_of
from marginax.errors import ModelError, NotKnownError
from marginax.jaxpr.concrete import is_concrete
from marginax.language.stack import Message

LARGEST_PRODUCT = 4096
"""Combinations of the components of one vector; more of them belong into a plate."""

LARGEST_LOOP = 2**20
"""Joint values of variables that a loop states and one site needs, beyond which nobody should be advised to try."""

_MULTINOMIAL = type(constraints.multinomial(1))

NOT_KNOWN = (jax.errors.JAXTypeError, jax.errors.UnexpectedTracerError)


@dataclass(frozen=True)
class Support:
    """The values to sum over."""

    values: np.ndarray
    """Shape ``(K, *event_shape)``."""
    cut_below: bool = False
    """Whether the distribution allows values below the smallest one here."""
    cut_above: bool = False
    """Whether it allows values above the largest one here."""


def traced_bounds(bounds: Any) -> list[Any]:
    """Those of `bounds_of` a site that are traced, though they may follow from what is known."""
    return [leaf for leaf in jax.tree.leaves(bounds) if isinstance(leaf, Tracer)]


def bounds_of(msg: Message) -> tuple[Any, Any]:
    """The constraint of one component, and the range that the site states."""
    return support_of(unwrapped(msg["fn"])), msg["infer"].get("support")


def _looked_up(bounds: Any, numbers: Sequence[Any]) -> Any:
    """The same with numbers in place of those traced bounds that could be looked up."""
    given = iter(numbers)

    def number(leaf: Any) -> Any:
        found = next(given, None) if isinstance(leaf, Tracer) else None
        return leaf if found is None else found

    return jax.tree.map(number, bounds)


def find_support(
    msg: Message, bounds: Any, numbers: Sequence[Any] | None = None
) -> tuple[Support | None, str]:
    """The values that a latent discrete site is summed over, or why there are none.

    Parameters
    ----------
    msg : dict
        The site's message.
    bounds
        What `bounds_of` said of it while it was traced.
    numbers : sequence of array or None, optional
        For each of its `traced_bounds` the number, if it is known; without, they are not looked up yet.

    Returns
    -------
    Support or None, str
        None with the reason why the site is not summed out.

    Raises
    ------
    ModelError
        For a support without values, or a range that the site states wrongly.
    """
    name, fn, infer = msg["name"], msg["fn"], msg["infer"]
    kind = distribution_name(fn)
    if "enumerate" in infer and infer["enumerate"] is None:
        return None, "its site says infer={'enumerate': None}"
    constraint, stated = _looked_up(bounds, numbers or ())
    if numbers is None and not is_concrete(stated):
        return None, "the range that its site states is not looked up yet"
    stated = _stated_range(name, stated)
    base = unwrapped(fn)
    components = tuple(fn.event_shape[: fn.event_dim - base.event_dim])
    found, reason = _of_component(name, base, constraint, kind, stated, is_traced=numbers is None)
    if found is None:
        return None, reason
    if len(found.values) == 0:
        raise ModelError(
            f"{kind} has an empty support (no categories); is the number of components zero?",
            site=name,
        )
    if not components:
        return found, ""
    count = math.prod(components)
    if count * math.log(len(found.values)) > math.log(LARGEST_PRODUCT) + 1e-9:
        return None, (
            f"its {count} components have {len(found.values)}**{count} values together, more than "
            f"{LARGEST_PRODUCT:,}; write a plate around it instead of .to_event()"
            f"{all_at_once(name, count, found.values)}"
        )
    combinations = itertools.product(found.values, repeat=count)
    values = np.array(list(combinations)).reshape((-1, *components, *found.values.shape[1:]))
    return Support(values, found.cut_below, found.cut_above), ""


def all_at_once(name: str, count: int, values: np.ndarray | None) -> str:
    """What to write where another site needs all elements of a variable: what a loop of sites can still sum."""
    each = len(values) if values is not None else 0
    if each < 2 or count * math.log(each) > math.log(LARGEST_LOOP):
        return ""
    return (
        "; or, where another site needs all of them at once, state one site each in a Python loop, "
        f"`{name} = jnp.stack([mx.sample(f'{name}{{j}}', ...) for j in range({count})])`: the sum then has "
        f"{each}**{count} = {each**count:,} terms"
    )


def _stated_range(name: str, stated: Any) -> tuple[int, int] | None:
    if stated is None:
        return None
    advice = (
        f"site '{name}': infer={{'support': ...}} must be (low, high), the smallest and the largest "
        f"whole number to sum over, known when the model is traced, not {stated!r}."
    )
    try:
        low, high = (operator.index(bound) for bound in stated)
    except (TypeError, ValueError):
        raise (ModelError if is_concrete(stated) else NotKnownError)(advice) from None
    if low > high:
        raise ModelError(advice)
    return low, high


def _of_component(
    name: str,
    base: Any,
    constraint: Any,
    kind: str,
    stated: tuple[int, int] | None,
    is_traced: bool,
) -> tuple[Support | None, str]:
    low, high = bounds(constraint)
    if stated is not None:
        if base.event_dim > 0 or not _is_integer(constraint):
            raise ModelError(
                f"infer={{'support': ...}} is a range of whole numbers, which {kind} does not have; leave it "
                "out.",
                site=name,
            )
        if (low is not None and stated[1] < low) or (high is not None and stated[0] > high):
            raise ModelError(
                f"infer={{'support': {stated}}} has no value that {kind} can take, which is from {low} to "
                f"{high}.",
                site=name,
            )
        first = stated[0] if low is None else max(low, stated[0])
        last = stated[1] if high is None else min(high, stated[1])
        check_narrowing(f"site '{name}': its range of values", np.array([first, last]))
        # A bound that is not known now may lie outside of the range.
        cut_below = low is None or first > low
        return Support(np.arange(first, last + 1), cut_below, high is None or last < high), ""
    # Once bounds are looked up, the trace that the distribution belongs to may be over: only they count then.
    if is_traced and base.has_enumerate_support and not isinstance(constraint, AnyOf):
        try:
            with jax.ensure_compile_time_eval():
                values = np.asarray(base.enumerate_support(expand=False))
            return Support(values.reshape((len(values), *base.event_shape))), ""
        except (NotImplementedError, *NOT_KNOWN):
            pass  # it cannot say; its bounds may
    if isinstance(constraint, _MULTINOMIAL):
        return _compositions(constraint, base.event_shape[0], kind)
    if low is not None and high is not None:
        check_narrowing(f"site '{name}': its range of values", np.array([low, high]))
        return Support(np.arange(low, high + 1)), ""
    if _is_bounded(constraint):
        return None, _not_known(kind)
    if _is_integer(constraint):
        return None, (
            f"{kind} has infinitely many values. State a range that holds nearly all of them, "
            "infer={'support': (0, 100)}"
        )
    return None, f"{kind} has no finite support"


def bounds(constraint: Any) -> tuple[int | None, int | None]:
    """The smallest and the largest whole number of a constraint, over all elements.

    None where there is no bound, or where it is not known now.
    """
    if constraint is constraints.boolean:
        return 0, 1
    if isinstance(constraint, AnyOf):
        lows, highs = zip(*map(bounds, constraint.parts), strict=True)
        low = None if None in lows else min(lows)
        return low, None if None in highs else max(highs)
    if not _is_integer(constraint) and not isinstance(constraint, Zero):
        return None, None
    found: list[int | None] = []
    for attribute, extreme in (("lower_bound", np.min), ("upper_bound", np.max)):
        bound = getattr(constraint, attribute, None)
        known = bound is not None and is_concrete(bound) and np.size(bound) > 0
        found.append(int(extreme(np.asarray(bound))) if known else None)
    return found[0], found[1]


def _compositions(constraint: Any, size: int, kind: str) -> tuple[Support | None, str]:
    """The ways to share so many draws among categories, for each of the elements' numbers of draws."""
    if not is_concrete(constraint.upper_bound):
        return None, _not_known(kind)
    draws = [int(n) for n in np.unique(np.asarray(constraint.upper_bound))]
    count = sum(math.comb(n + size - 1, size - 1) for n in draws)
    if count > LARGEST_PRODUCT:
        return None, (
            f"{kind} has {count:,} values, more than {LARGEST_PRODUCT:,}; it is one Categorical for each "
            "of its draws, in a plate"
        )
    values = []
    for n in draws:  # categories are the gaps between bars among n stars
        for bars in itertools.combinations(range(n + size - 1), size - 1):
            ends = np.array([-1, *bars, n + size - 1])
            values.append(np.diff(ends) - 1)
    values.reverse()  # one draw then has its categories in their order
    return Support(np.array(values).reshape((-1, size))), ""


def _not_known(kind: str) -> str:
    return (
        f"the support of {kind} depends on a value that is not known while tracing. Pass that value "
        "as a number from outside of jax.jit (close over it), or state a range that holds it, "
        "infer={'support': (0, 50)}"
    )


def _is_integer(constraint: Any) -> bool:
    if isinstance(constraint, AnyOf):
        return all(isinstance(part, Zero) or _is_integer(part) for part in constraint.parts)
    return isinstance(
        constraint,
        type(constraints.integer_interval(0, 1)) | type(constraints.integer_greater_than(0)),
    )


def _is_bounded(constraint: Any) -> bool:
    if isinstance(constraint, AnyOf):
        return all(isinstance(part, Zero) or _is_bounded(part) for part in constraint.parts)
    return isinstance(constraint, type(constraints.integer_interval(0, 1)))


def beyond_the_cut(values: np.ndarray, cut: tuple[bool, bool], weights: Any) -> Any:
    """An estimate of the probability that lies beyond where a support is cut.

    Towards a cut, probabilities are taken to go on falling by the ratio of the last two, as a
    geometric series (those of a Poisson fall faster, so this is too large rather than too small).

    Parameters
    ----------
    values : array, shape (K, *event_shape)
        The values that are summed over.
    cut : (bool, bool)
        Whether there are more of them below, and above.
    weights : array, shape (*batch, K)
        Their posterior probabilities.

    Returns
    -------
    array, shape (*batch)
        1 where probabilities do not fall towards the cut at all.
    """
    cut_below, cut_above = cut
    values = values.reshape(len(values), -1)
    total = jnp.zeros(weights.shape[:-1], weights.dtype)
    for is_cut, distance in (
        (cut_above, (values.max() - values).min(axis=1)),
        (cut_below, (values - values.min()).min(axis=1)),
    ):
        if not is_cut:
            continue
        last = jnp.sum(jnp.where(distance == 0, weights, 0), -1)
        before = jnp.sum(jnp.where(distance == 1, weights, 0), -1)
        falls = last < before
        ratio = jnp.where(falls, last, 0) / jnp.where(falls, before, 1)
        total = total + jnp.where(falls, last * ratio / (1 - ratio), jnp.where(last > 0, 1.0, 0.0))
    return jnp.minimum(total, 1)
