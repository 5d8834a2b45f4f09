"""A progress bar on a terminal, for work that lasts; nothing at all elsewhere.

Events come from worker threads, thousands a second, and each must cost next to nothing: only every tenth of a second
one goes further. rich is imported when the first second has passed, which most commands never see.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from casstore.progress import ProgressEvent

_PATIENCE = 1.0
"""Seconds of work before a bar appears."""
_INTERVAL = 0.1
"""Seconds between two updates."""


class Silent:
    """Shows nothing."""

    def __call__(self, event: ProgressEvent) -> None:
        """Take an event of the library."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""


class Bar(Silent):
    """A bar on stderr: phase, share, bytes, rate and time left. It vanishes at the end.

    `expected` is the total of a phase that does not know its own.
    """

    def __init__(self, expected: int | None = None) -> None:
        self._expected = expected
        self._next = time.monotonic() + _PATIENCE
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._phase = ""
        self._closed = False

    def __call__(self, event: ProgressEvent) -> None:
        """Take an event of the library."""
        now = time.monotonic()
        if now < self._next and (event.phase == self._phase or self._bar is None):
            return
        with self._lock:
            if not self._closed:
                self._next = now + _INTERVAL
                self._show(event)

    def _show(self, event: ProgressEvent) -> None:
        if self._bar is None:
            self._bar = _make()
            self._bar.start()
        total = self._expected if event.total is None else event.total
        if self._task is None or event.phase != self._phase:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._phase = event.phase
            self._task = self._bar.add_task(event.phase, total=total)
        self._bar.update(self._task, completed=event.done, total=total)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            if self._bar is not None:
                self._bar.stop()


def _make() -> Progress:
    # Slow to import, and only ever needed here.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
