"""Replace a file in one step: at any moment it is the old one or the new one, whoever is killed when.

A file that is overwritten in place is broken from its first byte written to its last. So the new
content goes into another file of the same folder first, is forced onto the disk (`fsync`), and only
then takes the name over, which file systems do in one step; forcing the folder onto the disk makes the
new name survive a power cut. A writer that is told to end (SIGTERM) removes its unfinished file before it
does. One that is killed leaves it behind, under a name that nobody reads. It holds a lock on that file for
as long as it lives, so the next writer can tell what was abandoned and removes it.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

if sys.platform != "win32":
    import fcntl


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write the new content into; when the block ends well, it becomes the one at the path.

    Parameters
    ----------
    path : path
        The file, which may exist; its folder does. A symbolic link stays one, and who may read and write the file
        stays as it is. What is no ordinary file (a pipe, a terminal) has nothing to be kept, and is written to.
    """
    before = _status(path)
    if before is not None and not stat.S_ISREG(before.st_mode):
        with open(path, "wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    if before is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    _remove_abandoned(target)
    with ExitStack() as stack:
        unfinished, file = _begin(target, stack)
        stack.enter_context(_removed_when_told_to_end(unfinished))
        if before is not None:
            os.chmod(unfinished, stat.S_IMODE(before.st_mode))
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:  # a full disk does not say which file
            if error.errno is not None and error.filename is None:
                error.filename = str(target)
            raise
        if sys.platform == "win32":
            file.close()  # an open file keeps its name there
        os.replace(unfinished, target)
    _sync_folder(target.parent)


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Make a text the content of a file, in one step; what UTF-8 cannot write becomes a question mark."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", errors="replace"))


def _status(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class _Removal:
    """What a process does that is told to end while a file is unfinished: remove it, then what it did before."""

    unfinished: Path
    before: Any

    def __call__(self, number: int, frame: Any) -> None:
        self.unfinished.unlink(missing_ok=True)
        signal.signal(number, self.before)
        signal.raise_signal(number)


@contextmanager
def _removed_when_told_to_end(unfinished: Path) -> Iterator[None]:
    """Where SIGTERM would end the process as it stands. Whoever handles it otherwise goes on, or unwinds."""
    before = signal.getsignal(signal.SIGTERM)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not (before is signal.SIG_DFL or isinstance(before, _Removal)):
        yield
        return
    signal.signal(signal.SIGTERM, _Removal(unfinished, before))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
