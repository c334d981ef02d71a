"""Rows that stay on disk: an array of which each block reads its own part.

To a model they are an array like any other. In its jaxpr they are one step without inputs, whose rows can be read
anywhere, as those of `iota` can be counted from anywhere; what is wanted of it along its rows is read block by
block, by a callback. Wanted as a whole it is refused: that is what it is there to avoid.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.core import ShapedArray
from jax.extend import core as jex_core

from marginax.arrays.masked import refuse_masked
from marginax.arrays.narrowing import check_narrowing

READ = "rows_on_disk"
_read_p = jex_core.Primitive(READ)
_numbers = itertools.count()


class RowsOnDisk:
    """An array on disk, as an argument of a model; made by `rows_on_disk`."""

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, read: Callable[[int, int], np.ndarray], about: str
    ) -> None:
        self.shape = shape
        self.dtype = jax.dtypes.canonicalize_dtype(dtype)
        self.about = about
        """What tells it from others: where it is, how large, and how old."""
        self._read = read
        self._number = next(_numbers)

    is_read_lazily = True
    """A model sees an array, see `read_lazily`."""
    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: int(np.prod(self.shape)))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"rows_on_disk_{self._number}"  # programs that print alike must read alike

    def __jax_array__(self) -> Array:
        return _read_p.bind(source=self)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError("rows on disk are not read as a whole; use jax.numpy, inside of a model.")

    def read(self, start: int, count: int) -> np.ndarray:
        """Some consecutive rows, in memory."""
        rows = np.asarray(self._read(int(start), count))
        check_narrowing(f"rows on disk ({self.about})", rows)
        return np.ascontiguousarray(rows, self.dtype)

    def traced_rows(self, start: Any, count: int) -> Array:
        """The same as a step of a compiled program."""
        result = jax.ShapeDtypeStruct((count, *self.shape[1:]), self.dtype)
        return jax.pure_callback(_Rows(self, count), result, start)


@dataclass(frozen=True)
class _Rows:
    """What a compiled program calls to read so many rows."""

    source: RowsOnDisk
    count: int

    @property
    def told_apart_by(self) -> str:
        """Programs are the same again if they read the same rows, see `marginax.jaxpr.same_program`."""
        return f"{self.count} rows of {self.source.about}"

    def __call__(self, start: Any) -> np.ndarray:
        return self.source.read(start, self.count)


@_read_p.def_abstract_eval
def _(*, source: RowsOnDisk) -> ShapedArray:
    return ShapedArray(source.shape, source.dtype)


@_read_p.def_impl
def _(*, source: RowsOnDisk) -> Array:
    raise TypeError(
        f"rows on disk ({source.about}) were needed outside of a compiled evaluation in blocks. Log densities, "
        "posteriors, SVI and NUTS read them; for anything else pass some of the rows."
    )


def rows_on_disk(source: Any, column: str | None = None) -> RowsOnDisk:
    """Rows that are read from disk a block at a time, whenever they are needed.

    Parameters
    ----------
    source : path, or array
        A ``.npy`` file, a Parquet file, or anything with ``shape``, ``dtype`` and slices of rows, such as
        `numpy.memmap` or a Zarr array. It must not change while it is used.
    column : str, optional
        Of a Parquet file, which column.

    Returns
    -------
    RowsOnDisk
        An argument for a model, in which its rows belong to a plate. The whole is never in memory.

    Raises
    ------
    ValueError
        When it has no rows; for a Parquet file without a column of that name, or with missing values.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model(x):
    ...     with mx.plate("data", len(x)):
    ...         z = mx.sample("z", dist.Bernoulli(0.5))
    ...         mx.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "x.npy"
    ...     np.save(file, np.arange(8.0))
    ...     round(float(mx.marginalize(model).log_density({}, mx.rows_on_disk(file))), 3)
    -57.122
    """
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        status = os.stat(path)
        about = f"{path}, {status.st_size} bytes, {status.st_mtime_ns}"
        if path.endswith((".parquet", ".pq")):
            return _of_parquet(path, column, about)
        source = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        about = f"{type(source).__name__} {getattr(source, 'filename', '') or id(source)}"
    refuse_masked("rows_on_disk: its source", source)
    shape = tuple(getattr(source, "shape", ()))
    if column is not None:
        raise ValueError(
            "rows_on_disk: column= is for Parquet files; of an array there is but one."
        )
    if not shape or not shape[0]:
        raise ValueError(f"rows_on_disk: {about} has no rows; its shape is {shape}.")
    return RowsOnDisk(shape, source.dtype, lambda start, n: source[start : start + n], about)


def _of_parquet(path: str, column: str | None, about: str) -> RowsOnDisk:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    names = file.schema_arrow.names
    if column not in names:
        known = ", ".join(map(repr, names))
        raise ValueError(f"rows_on_disk: {path} has the columns {known}; say which by column=.")
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    ends = np.cumsum([group.num_rows for group in groups])
    if not len(ends) or not ends[-1]:
        raise ValueError(f"rows_on_disk: {path} has no rows.")
    dtype = file.schema_arrow.field(column).type.to_pandas_dtype()
    if np.dtype(dtype).kind not in "biuf":
        raise ValueError(f"rows_on_disk: the column '{column}' of {path} holds no numbers.")
    last: dict[int, np.ndarray] = {}  # the group that was read last: blocks come in order

    def group(number: int) -> np.ndarray:
        if number not in last:
            values = file.read_row_group(number, [column]).column(column)
            if values.null_count:
                raise ValueError(
                    f"rows_on_disk: the column '{column}' of {path} has missing values; fill them in, and keep which "
                    "they were in a column of its own, for obs_mask."
                )
            last.clear()
            last[number] = values.to_numpy()
        return last[number]

    def read(start: int, count: int) -> np.ndarray:
        parts, stop = [], start + count
        for i in range(int(np.searchsorted(ends, start, side="right")), len(ends)):
            begin = int(ends[i]) - groups[i].num_rows
            if begin >= stop:
                break
            parts.append(group(i)[max(start - begin, 0) : stop - begin])
        return np.concatenate(parts)

    return RowsOnDisk((int(ends[-1]),), dtype, read, about)
