"""How far long work is, on stderr: bars on a terminal, lines elsewhere, JSON for programs, or nothing.

Events come from worker threads, thousands a second, and each must cost next to nothing: it is only remembered, and
every so often what is remembered goes further. A thread of the display's own sees to that too, so that work that waits
is seen to be alive. Work that is over soon shows nothing, except in JSON.

What is said meanwhile (a warning) passes through the display too, for a bar has to make room for it.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import click

from casstore.cli.render import duration, line, printable, size

if TYPE_CHECKING:
    from casstore.progress import Part, ProgressEvent

KINDS = ("auto", "bar", "plain", "json", "none")
_STYLES: dict[str, Any] = {"debug": {"dim": True}, "warning": {"fg": "yellow"}, "error": {"fg": "red", "bold": True}}


@dataclass(frozen=True, slots=True)
class State:
    """How far a phase is, in bytes; `parts` are those that have begun and not ended."""

    phase: str
    done: int
    total: int | None
    parts: tuple[Part, ...]


class Rate:
    """Bytes per second over the last seconds, so that it is 0 soon after nothing moves any more."""

    _SPAN = 5.0

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def __call__(self, now: float, done: int) -> float:
        """The rate, when `done` bytes are done `now`."""
        samples = self._samples
        if samples and done < samples[-1][1]:  # it begins anew
            samples.clear()
        samples.append((now, done))
        while len(samples) > 1 and now - samples[1][0] >= self._SPAN:
            samples.popleft()
        then, before = samples[0]
        return (done - before) / (now - then) if now > then else 0.0


class Silent:
    """Shows no progress; says what there is to say."""

    def __call__(self, event: ProgressEvent) -> None:
        """Take an event of the library."""

    def say(self, kind: str, text: str) -> None:
        """Write a message, warning or error."""
        head = "" if kind == "message" else click.style(f"{kind}: ", **_STYLES[kind])
        click.echo(head + printable(text), err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End."""


class Objects(Silent):
    """Shows no progress; says what there is to say as JSON, an object a line (schemas/cli-progress.schema.json)."""

    def say(self, kind: str, text: str) -> None:
        """Write a message, warning or error."""
        click.echo(line(event=kind, message=text), err=True)


class Display(Silent, ABC):
    """Remembers events, and now and then shows where things stand. `expected` is the total of a phase without one."""

    patience: ClassVar[float]
    """Seconds of work before anything is shown."""
    interval: ClassVar[float]
    """Seconds between two updates."""
    pulse: ClassVar[float]
    """Seconds after which the same is shown again."""

    def __init__(
        self, expected: int | None = None, clock: Callable[[], float] = time.monotonic, *, alive: bool = True
    ) -> None:
        """Without `alive` nothing is shown but when an event comes, or `tick` is called."""
        self._expected, self._clock, self._alive = expected, clock, alive
        self._begun = clock()
        """When the phase began."""
        self._next = self._begun + self.patience
        self._lock = threading.Lock()
        self._parts: dict[str, Part] = {}
        self._last: ProgressEvent | None = None
        self._shown: ProgressEvent | None = None
        self._repeat = 0.0
        """When it is shown again."""
        self._closed = False
        self._over = threading.Event()

    def __call__(self, event: ProgressEvent) -> None:
        """Take an event of the library."""
        part = event.part
        with self._lock:
            if self._last is not None and event.phase != self._last.phase:
                self._end_phase()
            if part is not None:
                if part.done < part.total:
                    self._parts[part.name] = part
                else:
                    self._parts.pop(part.name, None)
            self._last = event
            if self._clock() >= self._next:
                self._update(event)

    def tick(self) -> None:
        """Show what is due without any event: what came too soon after the last update, or again what nothing moves."""
        with self._lock:
            now = self._clock()
            if self._last is not None and now >= self._next and (self._last is not self._shown or now >= self._repeat):
                self._update(self._last)

    def _update(self, event: ProgressEvent) -> None:
        self._try(lambda: self._show(self._state(event)))
        self._shown, now = event, self._clock()
        self._next, self._repeat = now + self.interval, now + self.pulse

    def __enter__(self) -> Self:
        if self._alive:
            threading.Thread(target=self._live, name="progress", daemon=True).start()
        return self

    def _live(self) -> None:
        while not self._over.wait(max(self._next - self._clock(), self.interval / 2)):
            self.tick()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with self._lock:
            self._try(self._close)
            self._closed = True

    def _try(self, show: Callable[[], None]) -> None:
        """A terminal or pipe that has gone away is no reason to give up the work itself."""
        try:
            if not self._closed:
                show()
        except OSError:
            self._closed = True

    def _end_phase(self) -> None:
        self._parts.clear()
        self._begun = self._clock()

    def _state(self, event: ProgressEvent) -> State:
        total = self._expected if event.total is None else event.total
        return State(event.phase, event.done, total, tuple(self._parts.values()))

    @abstractmethod
    def _show(self, state: State) -> None:
        """Show where things stand. One call at a time."""

    def _close(self) -> None:
        """Take away what is shown."""


class Lines(Display):
    """A line now and then: for logs. `pushing: 12.0 MiB of 64.0 MiB (18 %), 3.0 MiB/s, 17.3 s left`."""

    patience: ClassVar[float] = 3.0
    interval: ClassVar[float] = 5.0
    pulse: ClassVar[float] = 5.0
    _before: tuple[str, float, int] = ("", 0.0, 0)

    def _show(self, state: State) -> None:
        now = self._clock()
        phase, then, done = self._before
        if phase != state.phase or done > state.done:
            then, done = self._begun, 0
        rate = (state.done - done) / max(now - then, 1e-3)
        self._before = (state.phase, now, state.done)
        words = size(state.done)
        if state.total:
            words += f" of {size(state.total)} ({100 * state.done // state.total} %)"
        words += f", {size(round(rate))}/s"
        if state.total and rate >= 1 and state.total > state.done:
            words += f", {duration((state.total - state.done) / rate)} left"
        self.say("message", f"{state.phase}: {words}")


class JsonLines(Objects, Display):
    """One JSON object a line, for programs. The last state of every phase is written, however short the work was."""

    patience: ClassVar[float] = 0.0
    interval: ClassVar[float] = 0.5
    pulse: ClassVar[float] = 5.0
    _written: State | None = None

    def _end_phase(self) -> None:
        self._try(self._close)
        super()._end_phase()

    def _show(self, state: State) -> None:
        self._written = state
        parts = [{"name": part.name, "done_bytes": part.done, "total_bytes": part.total} for part in state.parts]
        text = line(event="progress", phase=state.phase, done_bytes=state.done, total_bytes=state.total, parts=parts)
        click.echo(text, err=True)

    def _close(self) -> None:
        if self._last is not None and (state := self._state(self._last)) != self._written:
            self._show(state)
