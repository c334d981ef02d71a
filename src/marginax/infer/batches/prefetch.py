"""Read batches in one background thread while the device computes on those before.

The thread is a queue of a few futures. An exception of the reader is raised where its batch would have
come, with its traceback; who leaves early cancels what has not begun.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.infer.batches.arguments import Arguments, as_arguments, is_table
from marginax.infer.batches.epochs import Minibatches


@contextmanager
def prefetched(
    batches: Iterable[Any], *, skip: int = 0, ahead: int = 2
) -> Iterator[Iterator[Arguments]]:
    """Read batches in the background, on the device before they are asked for.

    Parameters
    ----------
    batches : iterable
        Of batches (see `as_arguments`). What can be iterated again, such as `minibatches` or a list, begins
        again when it ends (minibatches with the next epoch, the first being epoch 0); an iterator, such
        as a generator, ends the stream.
    skip : int
        How many batches to pass over, to go on where a run stopped. Minibatches and sequences jump
        there; others are read, but not converted.
    ahead : int
        How many batches are held ready. So many more than were used are taken from an iterator.

    Yields
    ------
    iterator of (args, kwargs)
        With JAX arrays; what is no array stays what it is. An exception of the reader is raised where
        its batch would have come. Leaving the context waits for the one read that is going on.

    Raises
    ------
    TypeError, ValueError
        For a single array or table instead of batches; when there is no batch.

    Examples
    --------
    >>> import numpy as np
    >>> from marginax.infer.batches import minibatches, prefetched
    >>> batches = minibatches(np.arange(4.0), 2, shuffle=False)
    >>> with prefetched(batches, skip=1) as stream:
    ...     for _, ((x,), _) in zip(range(2), stream):
    ...         print(x)
    [2. 3.]
    [0. 1.]
    """
    for name, value, least in (("skip", skip, 0), ("ahead", ahead, 1)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, not {value!r}.")
    source = _stream(batches, int(skip))
    # JAX's options may have been set by a `with` statement: then they are set in this thread only.
    double, device = jnp.result_type(float) == np.float64, next(iter(jax.device_put(0).devices()))

    def read() -> Arguments | None:
        for batch in itertools.islice(source, 1):
            with jax.enable_x64(double), jax.default_device(device):
                return jax.tree.map(_on_device, as_arguments(batch))
        return None

    reader = ThreadPoolExecutor(1, "marginax-batches")
    waiting: deque[Future[Arguments | None]] = deque(reader.submit(read) for _ in range(ahead))

    def stream() -> Iterator[Arguments]:
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(reader.submit(read))
            yield batch

    try:
        yield stream()
    finally:
        reader.shutdown(wait=True, cancel_futures=True)


def _stream(batches: Iterable[Any], skip: int) -> Iterator[Any]:
    """All batches from the one after the skipped; what is wrong with the whole is said at once."""
    if isinstance(batches, np.ndarray | jax.Array | Mapping | str) or is_table(batches):
        raise TypeError(
            f"batches must be an iterable of batches, and this is one {type(batches).__name__}: pass "
            "minibatches(data, batch_size)."
        )
    if isinstance(batches, Minibatches):
        epoch, first = divmod(skip, len(batches))
        later = (batches.epoch(i) for i in itertools.count(epoch + 1))
        return itertools.chain(batches.epoch(epoch, first), itertools.chain.from_iterable(later))
    if isinstance(batches, Sequence) and batches:
        return (batches[i % len(batches)] for i in itertools.count(skip))
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be an iterable of batches, not {type(batches).__name__}.")
    return _skipping(_repeated(batches), skip)


def _repeated(batches: Iterable[Any]) -> Iterator[Any]:
    for times in itertools.count():
        iterator, count = iter(batches), 0
        for batch in iterator:
            count += 1
            yield batch
        if not count:
            when = "when iterated again" if times else "at all"
            raise ValueError(
                f"batches gave no batch {when}; pass a list, or a generator to end with it."
            )
        if iterator is batches:
            return


def _skipping(batches: Iterator[Any], skip: int) -> Iterator[Any]:
    skipped = sum(1 for _ in itertools.islice(batches, skip))
    if skipped < skip:
        raise ValueError(
            f"batches ended after {skipped}, before the {skip} to skip were passed over."
        )
    yield from batches


def _on_device(leaf: Any) -> Any:
    # First copied by NumPy: the transfer may read the memory later, or go on using it, while whoever
    # made the batch fills it with the next.
    return jax.device_put(np.array(leaf)) if isinstance(leaf, np.ndarray) else leaf
