"""Progress on a terminal, for what takes longer than two seconds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PATIENCE = 2.0
"""Seconds before anything is shown."""


class Stage(Protocol):
    """Called when a stage of a job begins, or with ``done`` of ``total`` while it runs."""

    def __call__(self, description: str, done: float | None = None, total: float | None = None) -> None: ...


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Stage]:
    """A bar on the standard error, after two seconds; nothing with ``quiet`` or where no terminal is.

    >>> with progress(quiet=True) as stage:
    ...     stage("reading")
    ...     stage("fitting", 3, 10)
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda description, done=None, total=None: None
        return
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True)
    task = bar.add_task("", total=None)
    lock, over = threading.Lock(), threading.Event()

    def begin() -> None:
        with lock:
            if not over.is_set():
                bar.start()

    timer = threading.Timer(PATIENCE, begin)
    timer.daemon = True
    timer.start()
    try:
        yield lambda description, done=None, total=None: bar.update(task, description=description, completed=done or 0, total=total)
    finally:
        timer.cancel()
        with lock:
            over.set()
            if bar.live.is_started:
                bar.stop()
