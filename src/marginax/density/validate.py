"""Check the numbers that are already known while a model is traced.

Tracing sees observed data and constant parameters as they are. What is wrong with them can be said
then, with the site's name, instead of turning into a NaN later. Traced values pass unchecked; of
traced parameters `parameters` makes checks that run with the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from numpyro import validation_enabled
from numpyro.distributions import constraints

from marginax.arrays.narrowing import check_narrowing
from marginax.density.demands import (
    BOUNDS,
    SIMPLEX_TOLERANCE,
    bounds_hold,
    has_bounds,
    holds,
    is_log_odds,
)
from marginax.density.distribution_layers import (
    components,
    distribution_name,
    is_masked,
    mask_of,
    unwrapped,
)
from marginax.density.true_supports import AnyOf, Zero, support_of
from marginax.errors import ModelError
from marginax.jaxpr.concrete import is_concrete
from marginax.language.stack import Message, one_at_a_time


def is_fixed(constraint: Any) -> bool:
    """Whether a constraint is known now: it neither has traced bounds nor depends on other values."""
    dependent = isinstance(constraint, type(constraints.dependent))
    return not dependent and is_concrete(constraint)


def satisfies(constraint: Any, value: Any) -> bool:
    """Whether a concrete value lies in a concrete constraint, everywhere."""
    if constraint is constraints.simplex:
        array = np.asarray(value)
        off = np.abs(array.sum(-1) - 1) if array.shape[-1] else np.ones(1)
        return bool((array >= 0).all() and (off < SIMPLEX_TOLERANCE).all())
    with jax.ensure_compile_time_eval():
        return bool(np.all(constraint(value)))


@contextmanager
def numpyro_checks(on: bool) -> Iterator[None]:
    """Switch on or off what NumPyro checks: parameters (without a site's name) and values."""
    with one_at_a_time, validation_enabled(on):  # NumPyro's switch is one for all threads
        yield


def check_parameters(msg: Message) -> None:
    """Check the parameters of a sample site's distribution, before anything is drawn from it."""
    _check_distribution(msg["name"], unwrapped(msg["fn"]))


def _check_distribution(name: str, fn: Any) -> None:
    kind = distribution_name(fn)
    for parameter, constraint in fn.arg_constraints.items():
        value = vars(fn).get(parameter)
        if value is None:
            continue
        if 0 in getattr(value, "shape", ()):
            raise ModelError(
                f"the parameter '{parameter}' of {kind} is empty, shape {value.shape}; is the number of "
                "components zero?",
                site=name,
            )
        if not is_concrete(value) or not _is_numeric(value):
            continue
        check_narrowing(f"site '{name}': the parameter '{parameter}' of {kind}", value)
        if not getattr(constraint, "is_discrete", False) and np.isnan(np.asarray(value)).any():
            raise ModelError(f"the parameter '{parameter}' of {kind} has NaN.", site=name)
        # What is known is what somebody wrote: there even the edges are refused, but for logits.
        strict = is_fixed(constraint) and not is_log_odds(fn, parameter)
        valid = holds(fn, parameter, np.asarray(value))
        if (strict and not satisfies(constraint, value)) or not (valid is None or np.all(valid)):
            raise ModelError(
                f"the parameter '{parameter}' of {kind} is {_show(value)}, which is not "
                f"{demand(fn, parameter)}.",
                site=name,
            )
    if has_bounds(fn) and is_concrete((vars(fn)["low"], vars(fn)["high"])):
        low, high = np.asarray(vars(fn)["low"]), np.asarray(vars(fn)["high"])
        if not np.all(bounds_hold(fn, low, high)):
            raise ModelError(
                f"the parameters 'low' and 'high' of {kind} are {_show(low)} and {_show(high)}; 'high' is not "
                f"{BOUNDS}.",
                site=name,
            )
    for component in components(fn):  # a mixture's, say
        _check_distribution(name, component)


def check_observed(msg: Message) -> None:
    """Check the observed value of a sample site."""
    if not msg["is_observed"] or not is_concrete(msg["value"]):
        return
    name, value = msg["name"], np.asarray(msg["value"])
    if value.dtype.kind == "c":
        raise ModelError("the observed value is complex, but the site is real.", site=name)
    if not _is_numeric(value):
        return
    if is_masked(msg["fn"]):
        # It may hold anything where it is masked out; where that is not known now, anywhere.
        kept = mask_of(msg["fn"])
        if not is_concrete(kept) or value.shape != tuple(msg["fn"].shape()):
            return
        value = value[np.broadcast_to(np.asarray(kept), msg["fn"].batch_shape)]
    check_observed_numbers(name, value, support_of(msg["fn"]))


def check_observed_numbers(name: str, value: np.ndarray, support: Any) -> None:
    """Check observed numbers against the support of their distribution, if that is known."""
    if value.dtype.kind == "f" and np.isnan(value).any():
        where = np.argwhere(np.isnan(value))
        first = ", ".join(str(i) for i in where[0]) or "()"
        raise ModelError(
            f"the observed value has NaN in {len(where)} of {value.size} places, the first at index {first}.",
            site=name,
            advice=(
                "Drop those rows, or say that they are missing: obs_mask=~jnp.isnan(data), with the NaN replaced "
                "by any number in the support."
            ),
        )
    if support is None or not is_fixed(support):
        return
    if not satisfies(support, value):
        raise ModelError(
            f"the observed value {_show(value)} lies outside of the support of its distribution, which is "
            f"{describe(support)}.",
            site=name,
        )


def check_value(name: str, constraint: Any, value: Any, source: str) -> None:
    """Check a concrete value of a latent site or a parameter against its constraint.

    Parameters
    ----------
    name : str
        The site.
    constraint : constraint or None
        Where the value must lie; None if that is not known.
    value : array
        The value; a traced one passes unchecked.
    source : str
        Where the value came from, for the message: "the value in params", ...
    """
    if not is_concrete(value):
        return
    array = np.asarray(value)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ModelError(f"{source} has NaN: {_show(array)}.", site=name)
    known = constraint is not None and is_fixed(constraint)
    if known and array.size and not satisfies(constraint, array):
        raise ModelError(
            f"{source} is {_show(array)}, which is not {describe(constraint)}.", site=name
        )


def demand(fn: Any, parameter: str) -> str:
    """What `holds` demands of a parameter, in words."""
    constraint = fn.arg_constraints[parameter]
    if is_log_odds(fn, parameter):
        return "a number, and of several categories more than -inf for one"
    if isinstance(constraint, type(constraints.dependent)):
        return f"above {fn.event_shape[-1] - 1} and finite"  # of a Wishart distribution
    base = constraint
    while isinstance(base, type(constraints.independent(constraints.positive, 1))):
        base = base.base_constraint
    is_above = isinstance(base, type(constraints.greater_than(0.0)))
    return f"{describe(base)} and finite" if is_above else describe(constraint)


def _is_numeric(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "biuf"


def _show(value: Any) -> str:
    with np.printoptions(threshold=6, precision=4, edgeitems=2):
        return str(np.asarray(value))


def describe(constraint: Any) -> str:
    """A constraint in words."""
    while isinstance(constraint, type(constraints.independent(constraints.positive, 1))):
        if constraint is constraints.real_vector:
            break
        constraint = constraint.base_constraint
    if isinstance(constraint, AnyOf):
        return " or ".join(map(describe, constraint.parts))
    if isinstance(constraint, Zero):
        return "zero"
    words = {
        "Real": "a finite real number",
        "RealVector": "a vector of finite real numbers",
        "Positive": "positive",
        "Nonnegative": "zero or positive",
        "UnitInterval": "between 0 and 1",
        "Simplex": "a vector of probabilities that sum to one",
        "Boolean": "0 or 1",
        "IntegerNonnegative": "a whole number, zero or positive",
        "IntegerPositive": "a positive whole number",
        "PositiveDefinite": "a symmetric positive definite matrix",
        "LowerCholesky": "a lower triangular matrix with a positive diagonal",
        "CorrMatrix": "a correlation matrix",
        "CorrCholesky": "the Cholesky factor of a correlation matrix",
        "OrderedVector": "a vector of increasing numbers",
    }
    kind, bounds = type(constraint).__name__.lstrip("_"), _bounds(constraint)
    return words.get(kind, f"in {kind}({bounds})" if bounds else f"in {kind}")


def _bounds(constraint: Any) -> str:
    shown = []
    for key in ("lower_bound", "upper_bound"):
        if hasattr(constraint, key):
            shown.append(f"{key}={_show(getattr(constraint, key))}")
    return ", ".join(shown)
