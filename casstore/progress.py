"""How long work tells how far it is: events to a callable; the library itself shows nothing.

The callable is also how work is cancelled: what it raises ends the work, at that step, and comes out of the call once
all that was begun is cleared away: staged files, leases and locks. Nothing is half there: names are as they were, or
the work was done already. What it raises should be no Exception, which work on many things may take for the failure of
one of them; `Cancellation` raises `Cancelled`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """One of several things that move at the same time, as a blob: `done` of `total` bytes, and over when all are."""

    name: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """`done` of `total` bytes of one phase ("reading", "pushing", ...); `total` is None while it is unknown.

    `part` is what this step moved, where there are parts.
    """

    phase: str
    done: int
    total: int | None
    part: Part | None = None


Progress = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """Tell nobody."""


class Cancelled(BaseException):
    """The work was cancelled, by `Cancellation`. No Exception, so that nothing on the way takes it for a failure."""


class Cancellation:
    """A Progress that lets any thread cancel the work that it is given to. Thread-safe; for one call or for several.

    The work notices at its next step: while it computes these are milliseconds apart, and while a registry is silent
    it is looked five times a second.
    """

    def __init__(self, progress: Progress = silent) -> None:
        """`progress` is told every step until then."""
        self._progress = progress
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Let the work end at its next step, and all that is begun with this later at its first one. Returns at once;
        the work has ended when the call that does it raises Cancelled, or returns, if it was done by then.
        """
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def check(self, phase: str) -> None:
        """For work of one's own between two calls.

        Raises:
            Cancelled: `cancel` was called; its text is the phase.
        """
        if self._cancelled.is_set():
            raise Cancelled(phase)

    def __call__(self, event: ProgressEvent) -> None:
        """Take an event.

        Raises:
            Cancelled: `cancel` was called.
        """
        self.check(event.phase)
        self._progress(event)


class Meter:
    """Adds up one phase's bytes from any number of threads and reports each step, one at a time."""

    def __init__(
        self, progress: Progress, phase: str, total: int | None, *, lock: threading.Lock | None = None
    ) -> None:
        """`lock` is that of another meter with the same progress."""
        self._progress, self._phase, self._total = progress, phase, total
        self._done = 0
        self._lock = lock or threading.Lock()
        self.tick()

    def aside(self, phase: str, total: int | None) -> Meter:
        """A meter of another phase, which goes on meanwhile, or before this one begins."""
        return Meter(self._progress, phase, total, lock=self._lock)

    def tick(self) -> None:
        """Tell the last step again: the work waits, and goes on."""
        self.add(0)

    def add(self, count: int, part: Part | None = None) -> None:
        """`count` more bytes are done, of `part`; negative where work must be done again."""
        with self._lock:
            self._done += count
            self._progress(ProgressEvent(self._phase, self._done, self._total, part))
