"""`marginalize`: the facade over sites, capture, plan and contract.

Every query is the same three lines: build the factor graph, plan, contract in a semiring. The
marginal, the mode and a draw are derivatives of the log total with respect to zeros added to the
variables' own factors (see `elimination.semiring`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marginax.elimination.contract import contract
from marginax.elimination.factor import Factor
from marginax.elimination.plan import Plan, Term, make_plan
from marginax.elimination.semiring import MAX, SUM, Semiring, sample_semiring
from marginax.explanation import Explanation, explanation
from marginax.graph.factors import Evaluated, FactorGraph, LogDensity, factor_graph, log_density_of
from marginax.graph.sites import Site, as_jax_arrays, collect_sites
from marginax.graph.validate import check_value, is_concrete
from marginax.language import handlers
from marginax.language.errors import ModelError
from marginax.language.primitives import as_numbers
from marginax.language.stack import Message, isolated
from marginax.static_jit import call_compiled

Params = Mapping[str, Any]


def marginalize(model: Callable[..., Any], *, memory_limit: int | None = None) -> Marginal:
    """Sum the discrete latent variables out of a model, exactly.

    Parameters
    ----------
    model : callable
        A model: a function of its data that states `sample` sites. Every latent site with a finite
        support is summed out, unless it says ``infer={"enumerate": None}``.
    memory_limit : int, optional
        Bytes that the largest array of an evaluation may take; a model that needs more is refused
        before anything is allocated. Half of the device's memory when nothing is said.

    Returns
    -------
    Marginal
        Its methods are pure functions of parameters and data: use `jax.jit`, `jax.grad`, `jax.vmap` on them.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(data):
    ...     locs = mx.sample("locs", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    ...     with mx.plate("data", len(data)):
    ...         z = mx.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
    ...         mx.sample("obs", dist.Normal(locs[z], 1.0), obs=data)
    >>> m = mx.marginalize(model)
    >>> data = jnp.array([0.0, 1.0, 10.0])
    >>> m.posterior({"locs": jnp.array([0.5, 10.0])}, data)["z"].round(2)
    Array([[1., 0.],
           [1., 0.],
           [0., 1.]], dtype=float32)
    """
    if not callable(model):
        raise TypeError(f"marginalize: the model must be a function, not {type(model).__name__}.")
    return Marginal(model, memory_limit)


@dataclass(frozen=True)
class Prepared:
    """A model's graph and plan, and the values of what is not summed out."""

    graph: FactorGraph
    plan: Plan
    values: Mapping[str, Any]
    sites: Mapping[str, Site]
    peak_bytes: int

    def evaluate(self) -> Evaluated:
        return self.graph.evaluate(self.values)

    def log_total(
        self,
        semiring: Semiring,
        evaluated: Evaluated,
        tilts: Mapping[str, Array] | None = None,
        scaled: bool = True,
    ) -> Array:
        """The log of the sum over all variables, with ``tilts`` added to their own factors."""
        graph = self.graph
        extra = [
            Factor(
                f"tilt of {name}",
                tuple(frame.name for frame in graph.variables[name].plates),
                (name,),
                tilt,
                evaluated.variable_scales.get(name, ()),
            )
            for name, tilt in (tilts or {}).items()
        ]
        plan = self.plan
        if extra:
            terms = [Term(f.name, f.variables, frozenset(f.plates)) for f in extra]
            plan = _plan(graph, terms)
        return contract(
            plan,
            [*evaluated.factors, *extra],
            semiring,
            graph.plate_sizes,
            graph.plate_scales if scaled else {},
            evaluated.variable_scales,
        ).log_total

    def weights(self, semiring: Semiring) -> tuple[dict[str, Array], Array]:
        """For each variable its weights over its values, shape (*plates, K); and the log total."""
        evaluated = self.evaluate()
        dtype = jnp.result_type(*[factor.array.dtype for factor in evaluated.factors])
        zeros = {
            name: jnp.zeros((*(f.size for f in site.plates), self.graph.sizes[name]), dtype)
            for name, site in self.graph.variables.items()
        }
        total, gradient = jax.value_and_grad(
            lambda tilts: self.log_total(semiring, evaluated, tilts)
        )(zeros)
        # A scale multiplies the logarithm and with it the gradient: take it out again.
        return {name: g / jnp.sum(g, -1, keepdims=True) for name, g in gradient.items()}, total


def prepare(
    program: Callable[[dict[str, Any]], tuple[dict[str, LogDensity], dict[str, Any]]],
    sites: Mapping[str, Site],
    values: Mapping[str, Any],
    memory_limit: int | None = None,
) -> Prepared:
    """Graph and plan of a traced program, refused if it would not fit into memory.

    Parameters
    ----------
    program : callable
        From latent values to log densities and recorded values.
    sites : mapping of Site
        The model's sites.
    values : mapping of arrays
        Values for latent sites and parameters; free sites without one are summed out.
    memory_limit : int, optional
        In bytes, for the largest array.
    """
    latents = {name: site for name, site in sites.items() if site.is_free or name in values}
    enumerated = frozenset(name for name in latents if name not in values)
    graph = factor_graph(program, latents, enumerated)
    plan = _plan(graph)
    largest = max(plan.largest, graph.largest_factor())
    prepared = Prepared(
        graph, plan, values, sites, largest * np.dtype(jnp.result_type(float)).itemsize
    )
    limit = default_memory_limit() if memory_limit is None else memory_limit
    if prepared.peak_bytes > limit:
        table = explanation(graph, plan, sites, prepared.peak_bytes)
        raise ModelError(
            f"summing out this model needs an array of {prepared.peak_bytes:,} bytes, more than the limit of "
            f"{limit:,}. Split variables into smaller ones, put independent ones into a plate, or "
            f"raise memory_limit= of marginalize.\n\n{table}"
        )
    return prepared


def _plan(graph: FactorGraph, extra: list[Term] | None = None) -> Plan:
    return make_plan([*graph.terms(), *(extra or [])], graph.sizes, graph.plate_sizes, graph.home)


def default_memory_limit() -> int:
    """Half of the device's memory, in bytes; half of the machine's where the device does not tell."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] // 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(frozen=True)
class Marginal:
    """A model whose discrete latent variables are summed out; made by `marginalize`.

    In every method ``params`` maps the names of the other latent sites (and `param` sites) to
    constrained values, each of its site's shape. Entries for deterministic sites are ignored, and
    an entry for a discrete site fixes that site instead of summing it out.

    Every method raises `ModelError` for a model, data or parameters that make no sense, naming the
    site, and `IntractableError` where the plates make an exact sum exponential.
    """

    model: Callable[..., Any]
    memory_limit: int | None = None

    def log_density(self, params: Params, *args: Any, **kwargs: Any) -> Array:
        """Log density of parameters and data, with the discrete variables summed out.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.

        Returns
        -------
        array, shape ()
            ``log sum_z p(params, z, data)``, with the scales of plates and handlers applied.

        Examples
        --------
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def coin(p):
        ...     z = mx.sample("z", dist.Bernoulli(p))
        ...     mx.sample("x", dist.Normal(1.0 * z, 1.0), obs=1.0)
        >>> round(float(mx.marginalize(coin).log_density({}, 1.0)), 4)
        -0.9189
        """
        value = self._query(_log_density, None, params, args, kwargs)
        if is_concrete(value) and math.isnan(value):
            raise self._fault(params, args, kwargs)
        return value

    def posterior(self, params: Params, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Exact marginal probabilities of every discrete variable, given parameters and data.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.

        Returns
        -------
        dict of array, shape (*batch_shape, K)
            By site name; the last axis runs over the values of the variable's support.
            NaN where the data are impossible, if that shows only inside `jax.jit`.

        Examples
        --------
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def coin():
        ...     z = mx.sample("z", dist.Bernoulli(0.5))
        ...     mx.sample("x", dist.Bernoulli(0.25 + 0.5 * z), obs=1.0)
        >>> mx.marginalize(coin).posterior({})["z"].round(2)
        Array([0.25, 0.75], dtype=float32)
        """
        weights, total = self._query(_posterior, None, params, args, kwargs)
        self._refuse_impossible(total, params, args, kwargs)
        return weights

    def mode(self, params: Params, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """The jointly most probable values of all discrete variables, given parameters and data.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.

        Returns
        -------
        dict of array, each of its site's shape
            The joint maximum, which need not be the maximum of each marginal. Of several equal maxima one
            consistent assignment is returned.

        Examples
        --------
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def coin():
        ...     z = mx.sample("z", dist.Bernoulli(0.5))
        ...     mx.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=1.0)
        >>> int(mx.marginalize(coin).mode({})["z"])
        1
        """
        values, total = self._query(mode_query, None, params, args, kwargs)
        self._refuse_impossible(total, params, args, kwargs)
        return values

    def draw(self, key: Any, params: Params, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """One exact draw from the joint posterior of all discrete variables.

        Parameters
        ----------
        key : PRNG key or int
            Use `jax.vmap` over keys for many draws.
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.

        Returns
        -------
        dict of array, each of its site's shape

        Examples
        --------
        >>> import jax
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def coin():
        ...     mx.sample("z", dist.Bernoulli(1.0))
        >>> int(mx.marginalize(coin).draw(jax.random.key(0), {})["z"])
        1
        """
        values, total = self._query(draw_query, handlers.as_key(key), params, args, kwargs)
        self._refuse_impossible(total, params, args, kwargs)
        return values

    def explain(self, *args: Any, show: bool = True, **kwargs: Any) -> Explanation:
        """Print what is summed out, in which order, and what that costs. Computes nothing.

        Parameters
        ----------
        *args, **kwargs
            The model's arguments; arrays or `jax.ShapeDtypeStruct`.
        show : bool
            Whether to print.

        Returns
        -------
        Explanation
            The same as an object.

        Examples
        --------
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def coin():
        ...     z = mx.sample("z", dist.Bernoulli(0.5))
        ...     mx.sample("x", dist.Normal(1.0 * z, 1.0), obs=1.0)
        >>> mx.marginalize(coin).explain(show=False).plan.order
        ('z',)
        """
        made: list[Explanation] = []
        leaves, structure = jax.tree.flatten((args, kwargs))
        abstract = {i: x for i, x in enumerate(leaves) if isinstance(x, jax.ShapeDtypeStruct)}

        def run(arrays: dict[int, Any]) -> None:
            whole = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
            args, kwargs = jax.tree.unflatten(structure, whole)
            sites = collect_sites(self.model, *args, **kwargs)
            values = {
                name: jnp.zeros(site.shape, site.dtype)
                for name, site in sites.items()
                if site.is_free and site.support is None
            }
            prepared = prepare(
                partial(run_model, self.model, args, kwargs), sites, values, memory_limit=2**62
            )
            made.append(explanation(prepared.graph, prepared.plan, sites, prepared.peak_bytes))

        jax.eval_shape(run, abstract)
        if show:
            print(made[0])
        return made[0]

    def prepare(self, params: Params, args: Any, kwargs: Any) -> Prepared:
        """The factor graph, plan and values of one call; for building other queries on."""
        sites = collect_sites(self.model, *args, **kwargs)
        values = check_params(sites, params)
        return prepare(
            partial(run_model, self.model, args, kwargs), sites, values, self.memory_limit
        )

    def _query(self, query: Any, key: Any, params: Params, args: Any, kwargs: Any) -> Any:
        if not isinstance(params, Mapping):
            raise TypeError(
                f"params must be a dictionary of values by site name, not {type(params).__name__}; "
                "the model's own arguments come after it."
            )
        if not is_concrete((key, dict(params), args, kwargs)):
            return query(self, key, params, args, kwargs)
        # Check the data and the parameters while they can be seen.
        values = check_params(collect_sites(self.model, *args, **kwargs), params)
        arrays = {name: jnp.asarray(value) for name, value in values.items()}
        return call_compiled(query, self, key, arrays, args, kwargs)

    def _refuse_impossible(self, total: Any, params: Params, args: Any, kwargs: Any) -> None:
        if is_concrete(total) and not math.isfinite(total):
            raise self._fault(params, args, kwargs)

    def _fault(self, params: Params, args: Any, kwargs: Any) -> ModelError:
        return diagnose(self.prepare(params, args, kwargs))


def run_model(
    model: Callable[..., Any], args: Any, kwargs: Any, values: dict[str, Any]
) -> tuple[dict[str, LogDensity], dict[str, Any]]:
    """Run a model with the given latent values; its log densities and deterministic values."""
    fixed = handlers.substitute(model, data=values)
    args, kwargs = as_jax_arrays((args, kwargs))
    with isolated():
        return split_trace(handlers.trace(fixed).get_trace(*args, **kwargs))


def split_trace(
    trace: Mapping[str, Message],
) -> tuple[dict[str, LogDensity], dict[str, Any]]:
    """The log densities and the deterministic values of a recorded run."""
    densities = {n: log_density_of(m) for n, m in trace.items() if m["type"] == "sample"}
    recorded = {n: m["value"] for n, m in trace.items() if m["type"] == "deterministic"}
    return densities, recorded


def check_params(sites: Mapping[str, Site], params: Params) -> dict[str, Any]:
    """The entries of ``params`` that give a site its value, checked.

    Raises
    ------
    ModelError
        For an unknown or observed name, a missing or misshapen value, or one outside its support.
    """
    values: dict[str, Any] = {}
    for name, value in params.items():
        site = sites.get(name)
        if site is None or site.kind == "plate":
            known = ", ".join(repr(n) for n, s in sites.items() if s.is_free or s.kind == "param")
            raise ModelError(
                f"params names '{name}', which the model has no site for; it has {known}."
            )
        if site.kind == "deterministic":
            continue
        if site.is_observed:
            raise ModelError(f"site '{name}': params gives it a value, but it is observed.")
        value = as_numbers(name, value)
        if jnp.iscomplexobj(value) and not jnp.issubdtype(site.dtype, jnp.complexfloating):
            raise ModelError(
                f"site '{name}': its value in params is complex, but the site is real."
            )
        if jnp.shape(value) != site.shape:
            raise ModelError(
                f"site '{name}': its value in params has shape {jnp.shape(value)}, but the site has "
                f"shape {site.shape}. For a batch of draws use jax.vmap over params."
            )
        check_value(name, site.constraint, value, "its value in params")
        values[name] = value
    for name, site in sites.items():
        if not site.is_free or name in values or site.support is not None:
            continue
        why = f" ({site.not_enumerated_because})" if site.not_enumerated_because else ""
        raise ModelError(
            f"site '{name}': it is a latent {site.distribution} that is not summed out{why}, so it needs a value "
            f"of shape {site.shape} in params."
        )
    return values


def _log_density(m: Marginal, key: Any, params: Params, args: Any, kwargs: Any) -> Array:
    prepared = m.prepare(params, args, kwargs)
    return prepared.log_total(SUM, prepared.evaluate())


def _posterior(m: Marginal, key: Any, params: Params, args: Any, kwargs: Any) -> Any:
    prepared = m.prepare(params, args, kwargs)
    weights, total = prepared.weights(SUM)
    variables = prepared.graph.variables
    return {
        name: weight.reshape((*_batch(variables[name]), weight.shape[-1]))
        for name, weight in weights.items()
    }, total


def mode_query(m: Marginal, key: Any, params: Params, args: Any, kwargs: Any) -> Any:
    return _chosen(m.prepare(params, args, kwargs), MAX)


def draw_query(m: Marginal, key: Any, params: Params, args: Any, kwargs: Any) -> Any:
    return _chosen(m.prepare(params, args, kwargs), sample_semiring(key))


def _chosen(prepared: Prepared, semiring: Semiring) -> tuple[dict[str, Array], Array]:
    """The values that one-hot weights point at."""
    weights, total = prepared.weights(semiring)
    values = {}
    for name, weight in weights.items():
        site = prepared.graph.variables[name]
        support = jnp.asarray(site.support, site.dtype)
        values[name] = support[jnp.argmax(weight, -1)].reshape(site.shape)
    return values, total


def _batch(site: Site) -> tuple[int, ...]:
    return site.shape[: len(site.shape) - site.event_dim]


def diagnose(prepared: Prepared) -> ModelError:
    """Which site makes the density NaN or impossible, as an error to raise."""
    evaluated = prepared.evaluate()
    for factor in evaluated.factors:
        array = np.asarray(factor.array)
        variable_axes = tuple(range(len(factor.plates), array.ndim))
        best = array.max(axis=variable_axes) if variable_axes else array
        bad, what = np.isnan(best), "NaN"
        if not bad.any():
            bad, what = np.isneginf(best), "-inf: an impossible value"
        if bad.any():
            where = f" in {int(bad.sum())} of {bad.size} plate elements, the first at index " + (
                ", ".join(str(i) for i in np.argwhere(bad)[0])
            )
            parents = prepared.graph.parents(factor.name)
            given = ", ".join(f"'{p}'" for p in parents if p != factor.name) or "constants only"
            return ModelError(
                f"site '{factor.name}': its log density is {what}{where if bad.ndim else ''}. It "
                f"depends on {given}; check those values and the data."
            )
    return ModelError(
        "the log density is not finite although every site allows some value of its own: no joint "
        "assignment of the discrete variables is possible with these parameters and data. Check the "
        "zeros (-inf) in the tables that link them."
    )
