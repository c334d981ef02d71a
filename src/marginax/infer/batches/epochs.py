"""Minibatches: an order of the rows for every epoch, found without reading them.

A random order of all rows would read a row here and a row there, which a disk does slowly. So an
epoch shuffles twice: consecutive rows form blocks of about a mebibyte, the blocks are put in random
order, and then the rows within a *window* of 64 MiB of them. Only blocks are read, and only one window
is in memory. The order is a pure function of seed and epoch, and windows hold whole batches, so that
batch 7 of epoch 3 is found by arithmetic: a run that was killed goes on there, and what came before
need not be read again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from marginax.arrays.masked import refuse_masked
from marginax.infer.batches.arguments import is_arrow

BLOCK_BYTES = 2**20
WINDOW_BYTES = 2**26


def minibatches(
    data: Any, batch_size: int, *, seed: int = 0, shuffle: bool = True, drop_last: bool = False
) -> Minibatches:
    """Batches of rows, in another order in every epoch.

    Parameters
    ----------
    data : array, or tuple, list or dict of arrays, or pyarrow.Table
        The rows, along the first axis; all arrays have equally many. Anything with ``shape``,
        ``dtype`` and slices serves: `numpy.load(..., mmap_mode="r")`, an HDF5 data set.
    batch_size : int
        Rows of a batch.
    seed : int
        Of the order.
    shuffle : bool
        Whether the order is random. Data of at most 64 MiB are in uniformly random order. Larger ones
        are cut into blocks of consecutive rows, about 1 MiB each; the order of the blocks is uniformly
        random, and so is that of the rows within every 64 MiB of the blocks so ordered. If the rows
        are sorted by something that matters, shuffle them once on disk.
    drop_last : bool
        Leave out the last batch of an epoch if it is smaller than the others. (A program is compiled
        for every size of a batch.)

    Returns
    -------
    Minibatches
        Every ``iter()`` of it is the next epoch; ``epoch(i)`` is the i-th, ``len()`` its batches. A batch
        has the structure of the data.

    Raises
    ------
    TypeError, ValueError
        For data that have no rows, or not equally many; for a batch size that is none.

    Examples
    --------
    >>> import numpy as np
    >>> from marginax.infer.batches import minibatches
    >>> batches = minibatches({"x": np.arange(6), "y": np.arange(6) ** 2}, 4, shuffle=False)
    >>> for batch in batches:
    ...     print(batch["x"], batch["y"])
    [0 1 2 3] [0 1 4 9]
    [4 5] [16 25]
    """
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"minibatches: {name} must be an integer >= {least}, not {value!r}.")
    if is_arrow(data):
        if not hasattr(type(data), "from_batches"):
            raise TypeError("minibatches: pass a pyarrow.Table: pa.Table.from_batches([batch]).")
        num_rows, size = data.num_rows, data.nbytes
    else:
        num_rows, size = _measure(data)
    if num_rows < (batch_size if drop_last else 1):
        raise ValueError(
            f"minibatches: the data have {num_rows} rows, which make no batch of {batch_size}."
        )
    row_bytes = max(size // num_rows, 1)
    return Minibatches(data, int(batch_size), int(seed), shuffle, drop_last, num_rows, row_bytes)


@dataclass(frozen=True, eq=False)
class Minibatches:
    """What `minibatches` returns."""

    data: Any
    batch_size: int
    seed: int
    shuffle: bool
    drop_last: bool
    num_rows: int
    row_bytes: int
    _epochs: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def __len__(self) -> int:
        whole, rest = divmod(self.num_rows, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        return self.epoch(next(self._epochs))

    def description(self) -> dict[str, Any]:
        """What tells these batches from others, but for the numbers in the data."""
        types = [str(getattr(leaf, "dtype", type(leaf))) for leaf in jax.tree.leaves(self.data)]
        return {
            "rows": self.num_rows,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "types": types,
        }

    def epoch(self, number: int, first: int = 0) -> Iterator[Any]:
        """The batches of one epoch.

        Parameters
        ----------
        number : int
            Which epoch, from 0.
        first : int
            The batch to begin with; those before are not read.
        """
        per_window = max(WINDOW_BYTES // (self.row_bytes * self.batch_size), 1)
        if not self.shuffle:
            per_window = 1
        for window in range(first // per_window, -(-len(self) // per_window)):
            begin = window * per_window
            rows = self._window(number, window, per_window * self.batch_size)
            for batch in range(max(begin, first), min(begin + per_window, len(self))):
                start = (batch - begin) * self.batch_size
                yield rows(slice(start, start + self.batch_size))

    def _window(self, epoch: int, window: int, size: int) -> Callable[[slice], Any]:
        """Read a window; returns a function from a slice of its shuffled rows to these rows."""
        start, stop = window * size, min((window + 1) * size, self.num_rows)
        if not self.shuffle:
            return lambda part: _read(self.data, [(start, stop)])
        rows = _read(self.data, self._pieces(epoch, start, stop))
        # The window's number comes third and is never 0: [s, e] and [s, e, 0] seed the same numbers.
        order = np.random.default_rng([self.seed, epoch, window + 1]).permutation(stop - start)
        return lambda part: _take(rows, order[part])

    def _pieces(self, epoch: int, start: int, stop: int) -> list[tuple[int, int]]:
        """Where the rows lie that are at [start, stop) when the blocks are in random order."""
        block = max(BLOCK_BYTES // self.row_bytes, 1)
        begins = np.arange(0, self.num_rows, block)
        begins = np.random.default_rng([self.seed, epoch]).permutation(begins)
        ends = np.cumsum(np.minimum(block, self.num_rows - begins))  # in the new order
        pieces = []
        for i in range(int(np.searchsorted(ends, start, side="right")), len(ends)):
            before = int(ends[i - 1]) if i else 0
            if before >= stop:
                break
            offset = int(begins[i]) - before
            pieces.append((offset + max(start, before), offset + min(stop, int(ends[i]))))
        return pieces


def _measure(data: Any) -> tuple[int, int]:
    """Rows and bytes of the arrays."""
    leaves = jax.tree.leaves(data)
    for leaf in leaves:
        if not getattr(leaf, "shape", ()) or not hasattr(leaf, "dtype"):
            raise TypeError(
                "minibatches: the data must be an array, a tuple or dict of arrays, or a pyarrow.Table; "
                f"a {type(leaf).__name__} has no rows. Of a data frame, pass a dict of its columns: "
                "{name: frame[name].to_numpy() for name in frame.columns}."
            )
    lengths = {leaf.shape[0] for leaf in leaves}
    if len(lengths) != 1:
        raise ValueError(
            f"minibatches: the arrays must have equally many rows, not {sorted(lengths) or 'none'}."
        )
    return lengths.pop(), sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def _read(data: Any, pieces: list[tuple[int, int]]) -> Any:
    """The rows of some ranges, in this order, in memory."""
    if is_arrow(data):
        parts = [data.slice(start, stop - start) for start, stop in pieces]
        batches = [batch for part in parts for batch in part.to_batches()]
        return type(data).from_batches(batches, schema=data.schema)

    def read(array: Any) -> np.ndarray:
        parts = [array[start:stop] for start, stop in pieces]
        refuse_masked("minibatches: an array of the data", parts)
        parts = [np.asarray(part) for part in parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return jax.tree.map(read, data)


def _take(window: Any, indices: np.ndarray) -> Any:
    if is_arrow(window):
        return window.take(indices)
    return jax.tree.map(lambda array: array[indices], window)
