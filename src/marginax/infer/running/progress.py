"""A progress bar for loops that are compiled once and called for a stretch of iterations at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """Where a long loop is; shows itself if asked to."""

    def __init__(self, total: int, display: Any = None, task: Any = None) -> None:
        self.total = total
        self._display = display
        self._task = task

    def advance(self, done: int, note: str) -> None:
        """Say how far the loop is."""
        if self._display is not None:
            self._display.update(self._task, completed=done, note=note)


@contextmanager
def progress(title: str, total: int, show: bool) -> Iterator[Bar]:
    """A bar for ``total`` iterations, on the standard error stream.

    Parameters
    ----------
    title : str
        What is running.
    total : int
        How many iterations it takes.
    show : bool
        Whether to show it.
    """
    if not show:
        yield Bar(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        yield Bar(total, display, display.add_task(title, total=total, note="compiling"))
