"""Several devices: which of them large plates are spread over.

Inside of ``with mx.devices(...)`` every large plate is spread: each device has its share of the rows, in
blocks as ever, and what all rows must know is added up over the devices. The shares are gathered and added in
the order of the devices, so that all have the same bits, and the same as any other set of processes with as
many devices.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

ROWS = "rows"
"""The name of the mesh's axis."""

_current: ContextVar[tuple[devices, ...]] = ContextVar("marginax devices", default=())


class devices:
    """Spread large plates over several devices.

    Parameters
    ----------
    count : int, optional
        How many devices; all that there are when nothing is said. Before anything was computed, so many cores of
        a CPU are made devices; afterwards their number is fixed.

    Returns
    -------
    devices
        A context manager. What is evaluated inside of it is spread over the devices: log densities,
        gradients, posteriors, SVI and NUTS. Results are the same, to rounding.

    Raises
    ------
    ValueError
        When there are not so many devices.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(x):
    ...     with mx.plate("data", len(x)):
    ...         z = mx.sample("z", dist.Bernoulli(0.5))
    ...         mx.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> with mx.devices() as all_of_them:
    ...     x = all_of_them.shard(jnp.arange(8.0))
    ...     round(float(mx.marginalize(model).log_density({}, x)), 3)
    -57.122
    """

    def __init__(self, count: int | None = None) -> None:
        if count is not None and (
            isinstance(count, bool) or not isinstance(count, int) or count < 1
        ):
            raise ValueError(f"devices: the count must be a positive integer, not {count!r}.")
        if count is not None and not jax.distributed.is_initialized():
            _make_cores_devices(count)
        found = jax.devices()
        if count is not None and count > len(found):
            raise ValueError(
                f"devices: {count} were asked for, but JAX has {len(found)} ({found[0].platform}). The cores of a "
                f"CPU are made devices before anything is computed: call mx.devices({count}) at the start of the "
                f"program, or set the environment variable JAX_NUM_CPU_DEVICES={count}."
            )
        chosen = found[:count]
        if len({device.process_index for device in chosen}) < jax.process_count():
            raise ValueError(
                f"devices: the first {count} devices belong to some of the {jax.process_count()} processes only, and "
                "all of them compute together; ask for all devices, mx.devices()."
            )
        self.mesh = Mesh(np.array(chosen), (ROWS,))

    @property
    def count(self) -> int:
        """How many there are."""
        return self.mesh.size

    @property
    def local_count(self) -> int:
        """How many of them belong to this process."""
        owners = [device.process_index for device in self.mesh.devices.flat]
        return owners.count(jax.process_index())

    def __enter__(self) -> devices:
        _current.set((*_current.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _current.set(_current.get()[:-1])

    def shard(self, rows: Any, axis: int = 0) -> Array:
        """Give each device its share of the rows of an array, once, and not again at every call.

        Parameters
        ----------
        rows : array
            All rows; if there are several processes, those of this one, in the order of the processes.
        axis : int
            Where the rows are.

        Returns
        -------
        array
            All rows of all processes.

        Raises
        ------
        ValueError
            When the devices cannot have equally many.
        """
        array = np.asarray(rows)
        if array.shape[axis] % self.local_count:
            raise ValueError(
                f"devices.shard: {array.shape[axis]} rows cannot be shared equally by {self.local_count} devices; pass "
                "the array as it is (it is cut at every call), or leave some rows out."
            )
        sharding = NamedSharding(self.mesh, PartitionSpec(*[None] * axis, ROWS))
        return jax.make_array_from_process_local_data(sharding, array)


def current_mesh() -> Mesh | None:
    """The mesh that large plates are spread over, if there is one."""
    found = _current.get()
    return found[-1].mesh if found and found[-1].count > 1 else None


def _make_cores_devices(count: int) -> None:
    try:
        if count > jax.config.jax_num_cpu_devices:  # pyright: ignore[reportAttributeAccessIssue]
            jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        return  # something was computed, and their number is fixed
