"""Ctrl-C stops a job wherever it arrives.

Python turns the signal into a `KeyboardInterrupt` at whatever it is just doing, and that may be a callback of the
garbage collector (JAX has one) or a destructor, whose exceptions go nowhere: the interrupt would be lost, and the
job would go on. So a lost one is sent once more, a moment later. And what notes that it was asked to stop (as
`marginax.infer` does, to keep the draws it has) may return in good order: each signal is written into a pipe, whoever
handles it, and a job asks there before it goes on.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from types import TracebackType
from typing import Any

AGAIN_SECONDS = 0.05


class Interrupts:
    """The interrupts of a job, inside of a ``with``."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._pipe = -1

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is not threading.main_thread():
            return self  # Python delivers no signals there
        self._pipe, end = os.pipe()
        self._stack.callback(os.close, self._pipe)
        self._stack.callback(os.close, end)
        os.set_blocking(self._pipe, False)
        os.set_blocking(end, False)
        before = signal.set_wakeup_fd(end, warn_on_full_buffer=False)
        self._stack.callback(signal.set_wakeup_fd, before)
        self._stack.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = _sent_again(sys.unraisablehook)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stack.close()

    def stop_if_asked(self) -> None:
        """Raise `KeyboardInterrupt` if there was a Ctrl-C that nobody has raised it for."""
        if self._pipe < 0:
            return
        try:
            noted = os.read(self._pipe, 2**16)
        except BlockingIOError:  # nothing was written
            return
        if signal.SIGINT in noted:
            raise KeyboardInterrupt


def _sent_again(before: Any) -> Any:
    """A hook for exceptions that Python ignores."""

    def hook(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        again = threading.Timer(AGAIN_SECONDS, _interrupt)
        again.daemon = True
        again.start()

    return hook


def _interrupt() -> None:
    """Interrupt the main thread, also where it waits for the system."""
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
