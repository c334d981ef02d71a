"""Whether a file is still the one that was written: digests, for files whose own format does not tell.

Files of `marginax.storage.files` carry a checksum for every entry. What other formats keep for us (the chunks of a
Zarr array) is held against digests that stand in such a file. That also notices what a checksum inside of each file
cannot: one that is gone, an older one, or two that have changed places.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from marginax.storage.files import StorageError

DIGEST_SIZE = 16
"""Bytes of a digest."""


def file_digest(path: Path) -> bytes:
    """A digest of all that is in a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_SIZE)).digest()


def check_file(path: Path, digest: bytes, advice: str) -> None:
    """Raise a StorageError, which names it, if a file is gone or is not what was written.

    Parameters
    ----------
    path : Path
        The file.
    digest : bytes
        What `file_digest` gave when it was written.
    advice : str
        What to do, a whole sentence.
    """
    try:
        found = file_digest(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise StorageError(f"{path}: this file is gone. {advice}") from error
    if found != digest:
        raise StorageError(f"{path}: this file is damaged: it is not what was written. {advice}")
