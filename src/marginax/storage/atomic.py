"""Replace a file in one step: at any moment it is the old one or the new one, whoever is killed when.

A file that is overwritten in place is broken from its first byte written to its last. So the new
content goes into another file of the same folder first, is forced onto the disk (`fsync`), and only
then takes the name over, which file systems do in one step; forcing the folder onto the disk makes the
new name survive a power cut. A writer that is killed leaves its unfinished file behind, under a name
that nobody reads. It holds a lock on that file for as long as it lives, so the next writer can tell
what was abandoned and removes it.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write the new content into; when the block ends well, it becomes the one at the path.

    Parameters
    ----------
    path : path
        The file, which may exist; its folder does. A symbolic link stays one.
    """
    target = Path(os.path.realpath(path))
    _remove_abandoned(target)
    with ExitStack() as stack:
        unfinished, file = _begin(target, stack)
        yield file
        file.flush()
        os.fsync(file.fileno())
        if sys.platform == "win32":
            file.close()  # an open file keeps its name there
        os.replace(unfinished, target)
    _sync_folder(target.parent)


def _begin(target: Path, stack: ExitStack) -> tuple[Path, BinaryIO]:
    """A new file beside the target, locked for as long as it is open; the stack closes and removes it."""
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(8)}.unfinished")
        stack.callback(path.unlink, missing_ok=True)
        file = stack.enter_context(path.open("x+b"))
        # Between the two lines another writer may have found the file unlocked and removed it.
        if _lock(file, wait=True) and path.exists():
            return path, file


def _remove_abandoned(target: Path) -> None:
    for path in target.parent.iterdir():
        if path.name.startswith(f".{target.name}.") and path.name.endswith(".unfinished"):
            try:
                with open(path, "r+b") as file:
                    if _lock(file, wait=False):
                        path.unlink(missing_ok=True)
            except OSError:  # finished meanwhile, or another user's: none of our business
                continue


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Whether this process now is the only one that has the file's lock; it falls with the process.

    Where there are no such locks, a writer goes on without, and nothing is known to be abandoned.
    """
    if sys.platform == "win32":
        return wait
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return wait
    return True


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
