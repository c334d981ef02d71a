"""Named arrays and a JSON header in one file, of which nothing is executed.

The file is a zip archive of NumPy's own ``.npy`` files (`numpy.load` reads it, too) and an ``about.json``,
which also lists every array's dtype and shape. No pickle is written or read. What the file says of
sizes is held against its own size before anything is allocated; entries are looked up by the names in
the list and never unpacked into a folder; every byte of content has a checksum.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marginax.storage.atomic import replacing

FORMAT = "marginax arrays"
VERSION = 1
HEADER = "about.json"
NPY_MAGIC = b"\x93NUMPY\1\0"

_DTYPES = {
    name: jnp.dtype(name)
    for name in (
        "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 "
        "complex128 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz int4 uint4"
    ).split()
}
_DAMAGE = (  # what `zipfile`, `json` and `numpy` raise on bytes that nobody wrote
    zipfile.BadZipFile,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class StorageError(ValueError):
    """A file does not hold what was asked of it: damaged, not ours, too new, or of another structure."""


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write arrays and a header into one file, replacing what was there in a single step.

    Parameters
    ----------
    path : path
        The file; its folder exists. Several writers of one file do not disturb each other; the last
        one stays.
    arrays : mapping from str to array
        Booleans and numbers of any shape and precision; they come back bit for bit.
    about : mapping
        What else there is to say, as JSON has it: strings, finite numbers, booleans, None, lists and
        mappings from strings (a tuple comes back as a list).

    Raises
    ------
    TypeError, ValueError
        For an array that is not of numbers, or a header that is not JSON; nothing is written then.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import jax.numpy as jnp
    >>> from marginax import storage
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.npz"
    >>> storage.write(path, {"locs": jnp.array([1.0, 2.0])}, {"step": 10})
    >>> arrays, about = storage.read(path)
    >>> arrays["locs"].tolist(), about
    ([1.0, 2.0], {'step': 10})
    """
    ready = {name: as_storable(name, array) for name, array in arrays.items()}
    table = {n: {"dtype": a.dtype.name, "shape": a.shape} for n, a in ready.items()}
    header = {"format": FORMAT, "version": VERSION, "arrays": table, "about": dict(about)}
    try:
        text = json.dumps(header, allow_nan=False, indent=1)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"storage.write: the header is not JSON: {error}. Put arrays among the arrays, and numbers "
            "that are not finite too."
        ) from error
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(HEADER), text)
        for name, array in ready.items():
            entry = zipfile.ZipInfo(_entry(name))  # without the time: same content, same bytes
            with archive.open(entry, "w", force_zip64=True) as stream:
                plain = array.view(_dtype_in_file(array.dtype))
                np.lib.format.write_array(stream, plain, allow_pickle=False)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the header of a file that `write` has written.

    Parameters
    ----------
    path : path
        The file. It may come from anyone: nothing in it is executed, nothing is written anywhere, and
        no more memory is taken than twice the length of the file.

    Returns
    -------
    dict of numpy arrays, dict

    Raises
    ------
    FileNotFoundError
        When there is none.
    StorageError
        When it is damaged, was not written by `write`, or was written by a newer version.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with zipfile.ZipFile(file) as archive:
                return _contents(archive, size)
        except StorageError as error:
            raise StorageError(f"{os.fspath(path)}: {error}") from error
        except _DAMAGE as error:
            raise StorageError(
                f"{os.fspath(path)}: the file is damaged, or no file of Marginax: {error}"
            ) from error


def as_storable(name: str, array: Any) -> np.ndarray:
    """An array as a NumPy array of this machine's byte order; a TypeError if it is not of numbers."""
    if not isinstance(name, str) or "\0" in name:
        raise TypeError(f"storage: an array's name must be a string without NUL, not {name!r}.")
    if is_key(array):
        raise TypeError(
            f"storage: {name!r} is a typed random key; storage.flatten makes it an array."
        )
    array = np.asarray(array, order="C")
    known = _DTYPES.get(array.dtype.name)
    if known is None:
        raise TypeError(
            f"storage: {name!r} is of {array.dtype}; only booleans and numbers are stored."
        )
    return array.astype(known, copy=False)


def is_key(leaf: Any) -> bool:
    """Whether it is an array of typed random keys, or stands for one."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _entry(name: str) -> str:
    return f"{name}.npy"


def _dtype_in_file(dtype: np.dtype) -> np.dtype:
    """The npy format knows NumPy's own dtypes; of others, like bfloat16, the bytes are stored."""
    return dtype if dtype.isbuiltin == 1 else np.dtype(f"V{dtype.itemsize}")


def _contents(archive: zipfile.ZipFile, size: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    entries = archive.infolist()
    if HEADER not in archive.namelist():
        raise StorageError(f"this is no file of Marginax: there is no {HEADER} in it.")
    plain = [e.compress_type == zipfile.ZIP_STORED for e in entries]
    if not all(plain) or any(e.file_size != e.compress_size for e in entries):
        raise StorageError("an entry is compressed, which storage.write does not do.")
    if sum(entry.file_size for entry in entries) > size:
        raise StorageError("its entries claim to be larger than the file is.")
    header = json.loads(archive.read(HEADER))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise StorageError(f"this is no file of Marginax: its {HEADER} says nothing of the kind.")
    version, table, about = (header.get(k) for k in ("version", "arrays", "about"))
    if isinstance(version, int) and version > VERSION:
        raise StorageError(
            f"it has format version {version}, and this Marginax reads versions up to {VERSION}; "
            "read it with a newer one."
        )
    if version != VERSION or not isinstance(table, dict) or not isinstance(about, dict):
        raise StorageError(f"its {HEADER} is not complete.")
    expected = sorted([HEADER, *map(_entry, table)])
    if sorted(archive.namelist()) != expected:
        raise StorageError(f"it has other entries than its {HEADER} lists.")
    return {n: _array(n, archive.read(_entry(n)), e) for n, e in table.items()}, about


def _array(name: str, content: bytes, entry: Any) -> np.ndarray:
    """Parse an ``.npy`` file by what the table says; its own header is for other readers."""
    shape: Any = entry["shape"]
    dtype = _DTYPES[entry["dtype"]]
    if not all(type(length) is int and length >= 0 for length in shape):
        raise StorageError(f"array {name!r} is listed with the shape {shape!r}.")
    magic, header_length = struct.unpack_from("<8sH", content)
    begin = struct.calcsize("<8sH") + header_length
    if magic != NPY_MAGIC or len(content) - begin != math.prod(shape) * dtype.itemsize:
        raise StorageError(f"array {name!r} is listed as {entry!r}, which its content is not.")
    return np.frombuffer(content, np.uint8, offset=begin).copy().view(dtype).reshape(shape)
