"""`marginalize`: the facade over sites, capture, plan and contract.

A query here is three steps: run the model once for its sites and program (`graph/record.py`), check the
parameters against the sites, ask for the answer (`answers.py`), which is compiled or found compiled. A batch of
parameters is mapped over, in memory that is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

import marginax.marginal.queries as queries
from marginax.density.parameters import invalid
from marginax.errors import ModelError
from marginax.graph.recognition import recognised
from marginax.graph.record import record_model
from marginax.graph.sites import collect_sites_once
from marginax.jaxpr.compilations import Compilations
from marginax.jaxpr.concrete import is_concrete
from marginax.language import handlers
from marginax.marginal.answers import (
    Call,
    answer,
    are_differentiated_numbers,
    compiled_answer,
    differentiable_answer,
)
from marginax.marginal.cuts import warn_of_cuts
from marginax.marginal.explained import explained
from marginax.marginal.explanation import Explanation
from marginax.marginal.filtering import filtered, one_step_ahead
from marginax.marginal.prepared import (
    Params,
    Prepared,
    check_params,
    default_memory_limit,
    diagnose,
    prepare_record,
)
from marginax.marginal.queries import Query


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
        Its methods are pure functions of parameters and data: use `jax.jit`, `jax.grad`, `jax.vmap`
        on them.

    Notes
    -----
    A model sees NumPy's arrays, columns of numbers (of pandas, polars, Arrow, whatever offers ``__array__``)
    and lists of numbers among its arguments as JAX arrays, here as in all else that takes a model. Missing
    values of a column are NaN; among whole numbers, booleans and in columns of dates there is none, so those
    are refused. Tuples, plain numbers, text and data frames stay what they are. What a model computes from such
    data may be a size or steer an ``if``: only latent values are abstract (and data in batches, or that
    come through a `jax.jit`).

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
class Marginal:
    """A model whose discrete latent variables are summed out; made by `marginalize`.

    In every method ``params`` maps the names of the other latent sites (and `param` sites) to
    constrained values, each of its site's shape. Entries for deterministic sites are ignored, and
    an entry for a discrete site fixes that site instead of summing it out.

    ``params`` may also be a batch of draws: then every value has the same leading dimensions before
    its site's shape (``(draws,)``, ``(chains, draws)``, ...), and so has every result. As many draws as
    fit into memory are evaluated at once, or ``batch_size=``.

    Methods are pure functions of parameters and data: use `jax.jit`, `jax.grad` and `jax.vmap` on
    them. Called on numbers they check the parameters and data, compile themselves, and refuse data
    that are impossible under the parameters; inside of `jax.jit`, where numbers are not known, the
    result is then NaN (of `mode` and `draw`: meaningless values, so ask for the density too). An
    element that a mask switches off adds nothing anywhere, and its draws are those of a forward run
    (`handlers.mask`).

    Every method raises `ModelError` for a model, data or parameters that make no sense, naming the
    site, and `IntractableError` where the plates make an exact sum exponential. Where a site states a
    range for an infinite support, and probability beyond it matters, there is a `TruncationWarning`.
    """

    model: Callable[..., Any]
    memory_limit: int | None = None
    _compilations: Compilations = field(
        default_factory=Compilations, init=False, repr=False, compare=False
    )
    """What its queries have compiled so far; the one thing that changes, and `explain` alone looks at it."""

    def log_density(
        self, params: Params, *args: Any, batch_size: int | None = None, **kwargs: Any
    ) -> Array:
        """Log density of parameters and data, with the discrete variables summed out.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.
        batch_size : int, optional
            How many draws of a batch are evaluated at once; as many as fit when nothing is said.

        Returns
        -------
        array, shape ()
            ``log sum_z p(params, z, data)``, with the scales of plates and handlers applied.

        Notes
        -----
        A parameter of a distribution that is invalid (a negative scale, weights that do not add up to
        one) is an error. Inside of `jax.jit`, where numbers are not known, the density is NaN then;
        of weights that do not add up to one it is that of the weights divided by their sum.

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
        value = self._ask(queries.log_density, None, params, args, kwargs, batch_size)
        if is_concrete(value) and np.isnan(value).any():
            raise self._fault(np.isnan(value), params, args, kwargs)
        return value

    def posterior(
        self, params: Params, *args: Any, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, Array]:
        """Exact marginal probabilities of every discrete variable, given parameters and data.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.
        batch_size : int, optional
            How many draws of a batch are evaluated at once; as many as fit when nothing is said.

        Returns
        -------
        dict of array, shape (*batch_shape, K)
            By site name; the last axis runs over the values of the variable's support.

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
        return self._possible(queries.posterior, None, params, args, kwargs, batch_size)

    def mode(
        self, params: Params, *args: Any, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, Array]:
        """The jointly most probable values of all discrete variables, given parameters and data.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.
        batch_size : int, optional
            How many draws of a batch are evaluated at once; as many as fit when nothing is said.

        Returns
        -------
        dict of array, each of its site's shape
            The joint maximum, which need not be the maximum of each marginal. Of several equal
            maxima one consistent assignment is returned. Beside the variables, the deterministic
            sites that depend on them.

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
        return self._possible(queries.mode, None, params, args, kwargs, batch_size)

    def draw(
        self, key: Any, params: Params, *args: Any, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, Array]:
        """One exact draw from the joint posterior of all discrete variables.

        Parameters
        ----------
        key : PRNG key or int
            Use `jax.vmap` over keys for many draws at the same parameters.
        params : mapping
            Values by site name; for each draw of a batch there is one of the variables.
        *args, **kwargs
            The model's arguments.
        batch_size : int, optional
            How many draws of a batch are evaluated at once; as many as fit when nothing is said.

        Returns
        -------
        dict of array, each of its site's shape
            Of the variables, and of the deterministic sites that depend on them: of one that is partly
            observed (``obs_mask``), what was seen and a draw of the rest.

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
        key = handlers.as_key(key)
        return self._possible(queries.draw, key, params, args, kwargs, batch_size)

    def pointwise(
        self, params: Params, *args: Any, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, Array]:
        """Log-likelihood of each observation, the discrete variables summed out.

        Of an observation that shares a discrete variable with others it is the density given those
        others, ``log p(x_i | params, x_others)``: just what leave-one-out importance weights
        (PSIS-LOO, Vehtari, Gelman and Gabry, 2017) need. Where it shares none, as in a mixture,
        that is the density of the observation alone, ``log sum_z p(z | params) p(x_i | z,
        params)``.

        In a `scan` the others are those of all steps, also the later ones. What is known before a step
        only, the density one step ahead, is `one_step_ahead`.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.
        batch_size : int, optional
            How many draws of a batch are evaluated at once; as many as fit when nothing is said.

        Returns
        -------
        dict of array, shape (*batch_shape)
            By observed site: a number for each plate element. Elements that belong to no plate are one
            observation, with size one there, if the site depends on a discrete variable. Scales (of
            subsamples, `handlers.scale`) are left out. NaN where the other observations are impossible; zero where a
            mask switches an element off, which observes nothing.

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def mixture(x):
        ...     with mx.plate("data", len(x)):
        ...         z = mx.sample("z", dist.Bernoulli(0.5))
        ...         mx.sample("x", dist.Normal(10.0 * z, 1.0), obs=x)
        >>> mx.marginalize(mixture).pointwise({}, jnp.array([0.0, 11.0]))["x"].round(2)
        Array([-1.61, -2.11], dtype=float32)
        """
        return self._ask(queries.pointwise, None, params, args, kwargs, batch_size)

    def one_step_ahead(
        self, params: Params, *args: Any, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, Array]:
        """Log density of each observation in a `scan` given what came before it.

        That is all steps before, the sites stated before it in its own step, and that step's other elements. Over a
        series of single observations these add up to the log-likelihood. They are what leave-future-out validation
        takes; leave-one-out takes `pointwise`.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.
        batch_size : int, optional
            How many draws of a batch are evaluated at once; as many as fit when nothing is said.

        Returns
        -------
        dict of array, shape (steps, *batch_shape)
            By observed site of a scan; not of those that depend on no variable of the scan but on one outside of it,
            which all steps share. As in `filtered`, what is stated outside of scans counts as known. Scales are left
            out; zero where a mask switches an element off.

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def model(y):
        ...     def step(z, y):
        ...         z = mx.sample("z", dist.Bernoulli(0.2 + 0.6 * z))
        ...         mx.sample("y", dist.Bernoulli(0.25 + 0.5 * z), obs=y)
        ...         return z, None
        ...     mx.scan(step, 0, y)
        >>> y = jnp.array([0.0, 1.0])
        >>> m = mx.marginalize(model)
        >>> (100 * m.one_step_ahead({}, y)["y"]).round().astype(int).tolist()
        [-43, -99]
        >>> int((100 * m.log_density({}, y)).round())  # they add up to it
        -142
        """
        return self._ask(one_step_ahead, None, params, args, kwargs, batch_size)

    def filtered(
        self, params: Params, *args: Any, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, Array]:
        """Probabilities of the discrete variables of every `scan`, given the steps up to their own.

        What `posterior` would say at each step, were the series to end there. Everything that is
        stated outside of scans counts as known from the beginning, unless it depends on what a scan
        carries in the end.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.
        batch_size : int, optional
            How many draws of a batch are evaluated at once; as many as fit when nothing is said.

        Returns
        -------
        dict of array, shape (steps, *batch_shape, K)
            By site name.

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def model(y):
        ...     def step(z, y):
        ...         z = mx.sample("z", dist.Bernoulli(0.2 + 0.6 * z))
        ...         mx.sample("y", dist.Bernoulli(0.25 + 0.5 * z), obs=y)
        ...         return z, None
        ...     mx.scan(step, 0, y)
        >>> found = mx.marginalize(model).filtered({}, jnp.array([0.0, 1.0]))
        >>> (100 * found["z"]).round().astype(int)
        Array([[92,  8],
               [51, 49]], dtype=int32)
        """
        return self._possible(filtered, None, params, args, kwargs, batch_size)

    def pairwise(
        self,
        first: str,
        second: str,
        params: Params,
        *args: Any,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Array:
        """Exact joint probabilities of two discrete variables, given parameters and data.

        Parameters
        ----------
        first, second : str
            Names of two variables that are summed out.
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.
        batch_size : int, optional
            How many draws of a batch are evaluated at once; as many as fit when nothing is said.

        Returns
        -------
        array, shape (*plates, K_first, K_second)
            The plates are those of either variable, leftmost dimension first.

        Raises
        ------
        IntractableError
            When the two live in different plates, so that every element of one meets every element
            of the other.

        Examples
        --------
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def coins():
        ...     a = mx.sample("a", dist.Bernoulli(0.5))
        ...     mx.sample("b", dist.Bernoulli(0.5 * a))
        >>> mx.marginalize(coins).pairwise("a", "b", {}).round(2)
        Array([[0.5 , 0.  ],
               [0.25, 0.25]], dtype=float32)
        """
        query = queries.Pairwise(first, second)
        return self._possible(query, None, params, args, kwargs, batch_size)

    def entropy(
        self, params: Params, *args: Any, batch_size: int | None = None, **kwargs: Any
    ) -> Array:
        """Entropy of the joint posterior of all discrete variables, in nats.

        Masked elements are left out: the entropy is less what they are expected to have given what they depend on.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.
        batch_size : int, optional
            How many draws of a batch are evaluated at once; as many as fit when nothing is said.

        Returns
        -------
        array, shape ()

        Examples
        --------
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def coin():
        ...     mx.sample("z", dist.Bernoulli(0.5))
        >>> round(float(mx.marginalize(coin).entropy({})), 4)  # log 2
        0.6931
        """
        return self._possible(queries.entropy, None, params, args, kwargs, batch_size)

    def beyond_cuts(
        self, params: Params, *args: Any, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, Array]:
        """Estimated posterior probability beyond the ranges that sites state for infinite supports.

        Parameters
        ----------
        params : mapping
            Values by site name.
        *args, **kwargs
            The model's arguments.
        batch_size : int, optional
            How many draws of a batch are evaluated at once; as many as fit when nothing is said.

        Returns
        -------
        dict of array, shape (*batch_shape)
            For every variable whose support is cut. From the last two probabilities, as if the rest
            were a geometric series; 1 where they do not fall, 0 where the element is masked.

        Examples
        --------
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def count():
        ...     mx.sample("n", dist.Poisson(2.0), infer={"support": (0, 20)})
        >>> bool(mx.marginalize(count).beyond_cuts({})["n"] < 1e-6)
        True
        """
        return self._ask(queries.beyond_cuts, None, params, args, kwargs, batch_size)

    def explain(self, *args: Any, show: bool = True, **kwargs: Any) -> Explanation:
        """Print what is summed out, in which order, what that costs, and what was spent. Computes nothing.

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

        Notes
        -----
        What was spent (`Explanation.spent`) is the time that this call took, and the time that the queries asked of
        this `Marginal` before have spent on compiling. A new `Marginal` of the same model finds its programs compiled.

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
        found = explained(self.model, args, kwargs, self._compilations)
        if show:
            print(found)
        return found

    def supports(self, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        """The values of every discrete variable, in the order in which `posterior` has them.

        Parameters
        ----------
        *args, **kwargs
            The model's arguments.

        Returns
        -------
        dict of array, shape (K, *event_shape)
            By site name.

        Examples
        --------
        >>> import marginax as mx
        >>> import marginax.distributions as dist
        >>> def change():
        ...     mx.sample("year", dist.DiscreteUniform(1851, 1854))
        >>> mx.marginalize(change).supports()["year"].tolist()
        [1851, 1852, 1853, 1854]
        """
        sites = collect_sites_once(self.model, *args, **kwargs)
        return {n: s.support for n, s in sites.items() if s.is_free and s.support is not None}

    def prepare(self, params: Params, args: Any, kwargs: Any) -> Prepared:
        """The factor graph, plan and values of one call; for building other queries on."""
        record = record_model(self.model, args, kwargs, params)
        values, batch = check_params(record.sites, params)
        if batch:
            raise ModelError("prepare: params must be one set of values, not a batch of draws.")
        return prepare_record(record, values, self.memory_limit)

    def _ask(
        self, query: Query, key: Any, params: Params, args: Any, kwargs: Any, batch_size: int | None
    ) -> Any:
        """Check the parameters and answer a query for each draw of their batch; note what that compiles."""
        if not isinstance(params, Mapping):
            raise TypeError(
                f"params must be a dictionary of values by site name, not {type(params).__name__}; "
                "the model's own arguments come after it."
            )
        with self._compilations.noted():
            record = recognised(self.model, args, kwargs, params)
            values, batch = check_params(record.sites, params)
            values = {name: jnp.asarray(value) for name, value in values.items()}
            limit = default_memory_limit() if self.memory_limit is None else self.memory_limit
            call = Call(record, tuple(values), batch, batch_size, limit)
            numbers = key, values, record.program.consts
            if not is_concrete(numbers):
                way = differentiable_answer if are_differentiated_numbers(numbers) else answer
                return way(call, query, key, values)
            result, validity = compiled_answer(call, queries.Checked(query), key, values)
            if not is_concrete(validity):  # a trace around has made it a part of its own program
                return result
            fault = invalid(validity)
            if fault is not None:
                raise fault
            if query is not queries.beyond_cuts and any(any(s.cut) for s in record.sites.values()):
                warn_of_cuts(compiled_answer(call, queries.beyond_cuts, key, values), record.sites)
            return result

    def _possible(
        self, query: Query, key: Any, params: Params, args: Any, kwargs: Any, batch_size: int | None
    ) -> Any:
        """The answer of a query that also returns the log total, refused where that is not finite."""
        result, total = self._ask(query, key, params, args, kwargs, batch_size)
        if is_concrete(total) and not np.isfinite(total).all():
            bad = ~np.isfinite(total)
            raise self._fault(bad, params, args, kwargs, of_variables=True)
        return result

    def _fault(
        self, bad: Any, params: Params, args: Any, kwargs: Any, of_variables: bool = False
    ) -> ModelError:
        """What is wrong with the first draw that is bad; or with what its variables depend on."""
        bad = np.asarray(bad)
        if not bad.ndim:
            prepared = self.prepare(params, args, kwargs)
            return diagnose(prepared, prepared.evaluate_for_variables() if of_variables else None)
        sites = record_model(self.model, args, kwargs, params).sites
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        values, _ = check_params(sites, params)
        one = {name: value[first] for name, value in values.items()}
        cause = self._fault(True, one, args, kwargs, of_variables)
        where = ", ".join(map(str, first))
        return ModelError(
            f"in {int(bad.sum())} of {bad.size} draws, the first at [{where}]: {cause}"
        )
