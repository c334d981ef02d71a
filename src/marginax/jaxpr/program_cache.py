"""Compiled programs are kept on disk, so that the next process need not compile them again.

JAX does this itself (its persistent compilation cache), once it is told where. A program is found by all that it
depends on: its operations, the compiler's options and version, and the processor with its features, so that
machines of different kinds may share a folder. zlib, which JAX compresses entries with, checks them, and one that is
damaged is compiled again. (Where the package zstandard is installed JAX takes that, which checks much less.)

The commands and the service do it by themselves, Python programs when they ask for it: a library does not write into
somebody's home unasked.

Ours is the bound. JAX has one (`jax_compilation_cache_max_size`), but then looks at every entry each time that it
writes one: 30 ms where there are 500, 430 ms where there are 8,000, for programs that compile in ten. Here the
folder is cut once, when a process begins, and the programs that were used longest ago go.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import jax
import platformdirs
from jax.experimental.compilation_cache.compilation_cache import reset_cache

MOST_BYTES = 256 * 2**20
LEAST_FREE_BYTES = 64 * 2**20
"""On the disk; with less, nothing is kept."""
VARIABLE = "MARGINAX_CACHE_DIR"
OFF = ("", "off", "0")


def cache_programs(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Keep compiled programs on disk from now on, for this process and later ones.

    Call it before the first computation. The ``marginax`` commands, with them the service, do it by themselves.
    Nothing is kept where the environment variable ``MARGINAX_CACHE_DIR`` is ``off``, unless a folder is given.

    Parameters
    ----------
    folder : path, optional
        Where. Whoever can write there can make your programs run any code. By default the folder that JAX was given
        (``JAX_COMPILATION_CACHE_DIR``), in which nothing is deleted; else the one that ``MARGINAX_CACHE_DIR`` names;
        else one in the user's cache directory. The last two, and one that is given here, are cut to 256 MiB.

    Returns
    -------
    path or None
        The folder; None if nothing is kept. If that is because it cannot be written to, there is a `RuntimeWarning`.
    """
    try:
        return keep_programs(folder)
    except OSError as error:
        warnings.warn(not_kept(error), RuntimeWarning, stacklevel=2)
        return None


def keep_programs(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """As `cache_programs`, but a folder that cannot be used is an `OSError`."""
    before = of_jax()
    if folder is None and before is not None:
        return before
    found = chosen(os.environ) if folder is None else Path(folder)
    if found is None:
        return None
    _prepare(found)
    cut(found, MOST_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(found))
    # Reading a small program takes a millisecond, compiling it ten or more.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    reset_cache()  # else JAX stays with the folder that it used before
    return found


def of_jax() -> Path | None:
    """The folder that JAX uses already."""
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    return None if folder is None else Path(folder)


def not_kept(error: OSError) -> str:
    """The error in words."""
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"compiled programs are not kept for the next time: {where}{error.strerror or error} "
        f"(name another folder with {VARIABLE}, or none with {VARIABLE}=off)"
    )


def ignore_faults() -> None:
    """Inside `warnings.catch_warnings`: leave out what JAX says of entries that cannot be read or written.

    The program is compiled then, and that is all.
    """
    warnings.filterwarnings(
        "ignore", "Error (reading|writing) persistent compilation cache entry", UserWarning
    )


def chosen(environment: Mapping[str, str]) -> Path | None:
    """The folder that an environment asks for, that of the user if it says nothing, or None for none."""
    asked = environment.get(VARIABLE)
    if asked is None:
        return of_user()
    return None if asked in OFF else Path(asked)


def of_user() -> Path | None:
    """The folder in the user's cache directory."""
    found = platformdirs.user_cache_path("marginax", appauthor=False) / "programs"
    return found if found.is_absolute() else None  # a user without a home


def cut(folder: Path, most_bytes: int) -> None:
    """Delete the programs that were used longest ago, until the others fit."""
    entries = []
    for entry in os.scandir(folder):
        if entry.name.endswith("-cache"):
            try:
                entries.append((entry.stat(), entry.path))
            except FileNotFoundError:  # another process has just deleted it
                continue
    entries.sort(key=lambda one: max(one[0].st_atime, one[0].st_mtime))
    surplus = sum(status.st_size for status, _ in entries) - most_bytes
    for status, path in entries:
        if surplus <= 0:
            break
        Path(path).unlink(missing_ok=True)
        surplus -= status.st_size


def _prepare(folder: Path) -> None:
    """There is such a folder, and something can be written into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    if shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
