"""Plates: dimensions along which everything is conditionally independent.

A plate widens the distributions inside it to its size and writes a frame on their messages. That
frame, by *name*, is all that marginalisation needs: `elimination` multiplies over a plate only
after what varies inside it was summed out. The dimension is kept, as in NumPyro, because the
user's arrays are laid out by it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from marginax.errors import ModelError, NotKnownError
from marginax.language.stack import Message, Messenger, apply_stack, statement


class CondIndepStackFrame(NamedTuple):
    """A plate as one site sees it."""

    name: str
    dim: int
    """Position in the site's batch shape, counted from the right: -1, -2, ..."""
    size: int
    """Elements present: the subsample's size where there is one."""
    full_size: int
    """Elements that the plate stands for."""
    block_size: int | None = None
    """Elements to evaluate at once, where the plate says it."""


def _draw_indices(size: int, subsample_size: int, rng_key: Any = None) -> Array:
    """A subset, every one equally likely."""
    # Measured on two cores: a shuffle takes 0.3 to 0.7 us for each element (55 ms for 100,000), choosing one
    # by one 0.4 ns times the square of how many are chosen (0.14 ms for 500, 9 ms for 5,000). Elsewhere
    # than on a CPU each of its steps, one after the other, would be a launch.
    if jax.default_backend() == "cpu" and subsample_size**2 < 700 * size:
        return _chosen_one_by_one(size, subsample_size, rng_key)
    return jax.random.choice(rng_key, size, (subsample_size,), replace=False)


def _chosen_one_by_one(size: int, subsample_size: int, rng_key: Any) -> Array:
    """Floyd's algorithm (Bentley and Floyd, 1987, "A sample of brilliance"): no element twice.

    For each of the last ``subsample_size`` numbers j one element of 0, ..., j is drawn; if it was chosen
    before, j itself is taken, which cannot have been.
    """
    last = jnp.arange(size - subsample_size, size)
    draws = jax.random.randint(rng_key, (subsample_size,), 0, last + 1)

    def choose(chosen: Array, i: Array) -> tuple[Array, None]:
        index = jnp.where(jnp.any(chosen == draws[i]), last[i], draws[i])
        return chosen.at[i].set(index), None

    nothing = jnp.full(subsample_size, -1, draws.dtype)
    return jax.lax.scan(choose, nothing, jnp.arange(subsample_size))[0]


class plate(Messenger):
    """A set of conditionally independent elements.

    Parameters
    ----------
    name : str
        The plate's name.
    size : int
        How many elements there are; at least one.
    subsample_size : int, optional
        Use a random subset of that many elements. The log density of what is inside is scaled by
        ``size / subsample_size``, after the discrete variables inside were summed out.
    dim : int, optional
        Which batch dimension, counted from the right (-1, -2, ...). The rightmost free one when
        nothing is said.
    block_size : int, optional
        How many elements are evaluated at once. The results are the same, to rounding; memory is that of one
        block. Chosen by the size of the processor's cache when nothing is said, where that pays.

    Returns
    -------
    int array, shape (subsample_size,)
        On entering: the indices of the elements present.

    Raises
    ------
    ModelError
        When the size is not a positive integer, the dimension is taken, a subsample is asked for
        outside of a seed, or a distribution inside has a batch shape that does not fit.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> with mx.handlers.seed(rng_seed=0), mx.plate("data", 5):
    ...     x = mx.sample("x", dist.Normal(0.0, 1.0))
    >>> x.shape
    (5,)
    """

    def __init__(
        self,
        name: str,
        size: int,
        subsample_size: int | None = None,
        dim: int | None = None,
        *,
        block_size: int | None = None,
    ) -> None:
        self.name = name
        self.size = _positive_int(name, "size", size)
        self.block_size = (
            None if block_size is None else _positive_int(name, "block_size", block_size)
        )
        if subsample_size is None:
            subsample_size = self.size
        subsample_size = _positive_int(name, "subsample_size", subsample_size)
        if subsample_size > self.size:
            raise ModelError(
                f"subsample_size {subsample_size} is larger than its size {self.size}.",
                site=name,
                kind="plate",
            )
        if dim is not None and dim >= 0:
            raise ModelError(
                f"dim must be negative (-1 is rightmost), not {dim}.",
                site=name,
                kind="plate",
            )
        self._indices, frames = self._choose(subsample_size)
        self.subsample_size = int(self._indices.shape[0])
        taken = {frame.dim for frame in frames}
        if dim is None:
            dim = -1
            while dim in taken:
                dim -= 1
        elif dim in taken:
            other = next(frame.name for frame in frames if frame.dim == dim)
            raise ModelError(
                f"dim={dim} is taken by the plate '{other}' around it; choose "
                "another, or leave dim out.",
                site=name,
                kind="plate",
            )
        self.dim = dim
        super().__init__(None)

    def _choose(self, subsample_size: int) -> tuple[Array, list[CondIndepStackFrame]]:
        """Which elements are present (others may replay or substitute that), and the plates around."""
        whole = subsample_size == self.size
        msg = statement(
            "plate",
            self.name,
            _draw_indices if whole else self._draw_or_explain,
            args=(self.size, subsample_size),
            kwargs={"rng_key": None},
            value=jnp.arange(self.size) if whole else None,
        )
        apply_stack(msg)
        indices = jnp.asarray(msg["value"])
        if indices.ndim != 1 or not jnp.issubdtype(indices.dtype, jnp.integer):
            raise ModelError(
                f"the indices given for it must be a vector of integers, not "
                f"{indices.dtype} of shape {indices.shape}.",
                site=self.name,
                kind="plate",
            )
        return indices, msg["cond_indep_stack"]

    def _draw_or_explain(self, size: int, subsample_size: int, rng_key: Any = None) -> Array:
        if rng_key is None:
            raise ModelError(
                f"drawing {subsample_size} of {size} elements needs a random key.",
                site=self.name,
                kind="plate",
                advice=(
                    "Run the model under handlers.seed (SVI does), or substitute the indices: "
                    f"handlers.substitute(model, data={{'{self.name}': indices}}). NUTS and exact queries want "
                    "the whole plate: leave subsample_size out."
                ),
            )
        return _draw_indices(size, subsample_size, rng_key)

    def __enter__(self) -> Array:
        super().__enter__()
        return self._indices

    @property
    def frame(self) -> CondIndepStackFrame:
        return CondIndepStackFrame(
            self.name, self.dim, self.subsample_size, self.size, self.block_size
        )

    def process_message(self, msg: Message) -> None:
        if msg["type"] not in ("param", "sample", "plate", "deterministic"):
            return
        if self.name in msg.get("infer", {}).get("block_plates", ()):
            return
        if msg["type"] == "plate" and msg["name"] == self.name:
            raise ModelError(
                f"plate '{self.name}' is stated inside itself; give the inner plate a name of its own."
            )
        for frame in msg["cond_indep_stack"]:
            if frame.name == self.name:
                raise ModelError(
                    f"plate '{self.name}' is entered inside itself, around '{msg['name']}'; give "
                    "the inner plate a name of its own."
                )
            if frame.dim == self.dim:
                raise ModelError(
                    f"plate '{self.name}' and plate '{frame.name}' around '{msg['name']}' are both "
                    f"at dim={self.dim}, because they were made before either was entered; write "
                    "`with plate(...), plate(...):`, or give them dim=-1 and dim=-2."
                )
        msg["cond_indep_stack"].append(self.frame)
        if msg["type"] == "sample":
            self._widen(msg)
        if msg["type"] != "deterministic" and self.subsample_size < self.size:
            factor = self.size / self.subsample_size
            msg["scale"] = factor if msg["scale"] is None else msg["scale"] * factor

    def _widen(self, msg: Message) -> None:
        fn = msg["fn"]
        batch_shape = tuple(msg["kwargs"].pop("sample_shape", ())) + tuple(fn.batch_shape)
        msg["kwargs"]["sample_shape"] = ()
        if len(batch_shape) >= -self.dim and batch_shape[self.dim] not in (1, self.subsample_size):
            raise ModelError(
                f"its distribution has batch shape {batch_shape}, which does not fit the plate '{self.name}' "
                f"of size {self.subsample_size} (dim {self.dim}).",
                site=msg["name"],
                advice=(
                    "Give the plate the size of that dimension, index the parameters by the plate's elements, or "
                    "make the dimension part of the event with .to_event(1)."
                ),
            )
        padded = [1] * max(-self.dim - len(batch_shape), 0) + list(batch_shape)
        padded[self.dim] = self.subsample_size
        msg["fn"] = fn.expand(tuple(padded))

    def postprocess_message(self, msg: Message) -> None:
        if msg["type"] not in ("subsample", "param"):
            return
        event_dim = msg["kwargs"].get("event_dim")
        if event_dim is None:
            return
        axis = self.dim - event_dim
        shape = jnp.shape(msg["value"])
        what = "subsample(data)" if msg["name"] is None else f"param '{msg['name']}'"
        if len(shape) < -axis or shape[axis] == 1:
            return
        if shape[axis] != self.size:
            raise ModelError(
                f"plate '{self.name}' of size {self.size}: {what} has shape {shape}, but its "
                f"dimension {axis} should be the plate's (event_dim={event_dim}); give it the size "
                f"{self.size} or 1 there, or another event_dim."
            )
        if self.subsample_size < self.size:
            msg["value"] = jnp.take(jnp.asarray(msg["value"]), self._indices, axis=axis)


def _positive_int(name: str, what: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise (NotKnownError if isinstance(value, Tracer) else ModelError)(
            f"plate '{name}': its {what} must be a whole number known when the model is traced, "
            f"not {value!r}."
        ) from None
    if number < 1:
        raise ModelError(
            f"its {what} is {number}; a plate needs at least one element. Is the "
            "data (or the number of components) empty?",
            site=name,
            kind="plate",
        )
    return number


@contextmanager
def plate_stack(prefix: str, sizes: Sequence[int], rightmost_dim: int = -1) -> Iterator[None]:
    """Nested plates for the dimensions of an array, the last size rightmost.

    Parameters
    ----------
    prefix : str
        The plates are named ``prefix_0`` (rightmost), ``prefix_1``, ...
    sizes : sequence of int
        Their sizes, leftmost first.
    rightmost_dim : int
        The dimension of the last one.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> with mx.handlers.seed(rng_seed=0), mx.plate_stack("grid", [2, 3]):
    ...     x = mx.sample("x", dist.Normal(0.0, 1.0))
    >>> x.shape
    (2, 3)
    """
    if rightmost_dim >= 0:
        raise ModelError(f"plate_stack '{prefix}': rightmost_dim must be negative.")
    with ExitStack() as stack:
        for i, size in enumerate(reversed(sizes)):
            stack.enter_context(plate(f"{prefix}_{i}", size, dim=rightmost_dim - i))
        yield
