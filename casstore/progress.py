"""How long work tells how far it is: events to a callable; the library itself shows nothing."""

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


class Meter:
    """Adds up one phase's bytes from any number of threads and reports each step."""

    def __init__(self, progress: Progress, phase: str, total: int | None) -> None:
        self._progress, self._phase, self._total = progress, phase, total
        self._done = 0
        self._lock = threading.Lock()
        progress(ProgressEvent(phase, 0, total))

    def aside(self, phase: str, total: int | None) -> Meter:
        """A meter of another phase, which goes on meanwhile, or before this one begins."""
        return Meter(self._progress, phase, total)

    def add(self, count: int, part: Part | None = None) -> None:
        """`count` more bytes are done, of `part`; negative where work must be done again."""
        with self._lock:
            self._done += count
            self._progress(ProgressEvent(self._phase, self._done, self._total, part))
