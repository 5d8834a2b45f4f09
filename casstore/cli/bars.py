"""Progress as bars on a terminal: one for all, and below it one for each of the few parts that move right now."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from casstore.cli import render
from casstore.cli.progress import Display, Rate, State
from casstore.cli.render import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from casstore.progress import Part

_ROWS = 4
"""Parts that get a bar of their own; the others are counted."""
_LABEL = 24
"""Characters of a part's name that are shown."""
_ALL_FIT = 76
"""Columns that a terminal needs for all that is told; where they are fewer, rate and time left are not."""


class Bars(Display):
    """Phase, share, bytes, rate and time left. They vanish at the end.

    rich is imported when the first second has passed, which most commands never see.
    """

    patience: ClassVar[float] = 1.0
    interval: ClassVar[float] = 0.1
    pulse: ClassVar[float] = 0.1
    _bars: Progress | None = None
    _phase = ""
    _all: TaskID
    _rows: dict[str, TaskID]
    _rates: dict[TaskID, Rate]

    def say(self, kind: str, text: str) -> None:
        """Write a message, warning or error, above the bars."""
        bars = self._bars
        if bars is None:
            super().say(kind, text)
            return
        from rich.text import Text

        style = {"warning": "yellow", "error": "bold red"}.get(kind, "")
        head = "" if kind == "message" else f"{kind}: "
        bars.console.print(Text.assemble((head, style), printable(text)), soft_wrap=True)

    def _show(self, state: State) -> None:
        if self._bars is None:
            self._bars, self._rows, self._rates = _make(), {}, {}
            self._all = self._bars.add_task(state.phase, moved="", rate="", left="")
        if self._phase not in {"", state.phase}:
            self._bars.reset(self._all)
            self._rates.clear()
        self._phase = state.phase
        shown = self._choose(state.parts)
        for name in [name for name in self._rows if name not in shown]:
            self._rates.pop(self._rows[name], None)
            self._bars.remove_task(self._rows.pop(name))
        for name, part in shown.items():
            if name not in self._rows:
                self._rows[name] = self._bars.add_task(_label(name), moved="", rate="", left="")
            self._move(self._bars, self._rows[name], part.done, part.total)
        more = len(state.parts) - len(shown)
        label = f"{state.phase} (+{more} more)" if more else state.phase
        self._bars.update(self._all, description=label)
        self._move(self._bars, self._all, state.done, state.total)
        self._bars.start()  # once; not before there is something to show

    def _move(self, bars: Progress, bar: TaskID, done: int, total: int | None) -> None:
        rate = self._rates.setdefault(bar, Rate())(self._clock(), done)
        moved = render.size(done) + (f" of {render.size(total)}" if total else "")
        left = f"{render.duration((total - done) / rate)} left" if total and rate >= 1 and total > done else ""
        speed = f"{render.size(round(rate))}/s"
        bars.update(bar, completed=done, total=total, moved=moved, rate=speed, left=left)

    def _choose(self, parts: tuple[Part, ...]) -> dict[str, Part]:
        """Those that have a row keep it while they move; new ones come after them."""
        by_name = {part.name: part for part in parts}
        names = dict.fromkeys([*self._rows, *by_name])
        return {name: by_name[name] for name in [name for name in names if name in by_name][:_ROWS]}

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def _label(name: str) -> str:
    text = printable(name)
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 3]}..."


def _make() -> Progress:
    # Slow to import, and only ever needed here.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False, force_terminal=True)
    is_narrow = console.width < _ALL_FIT
    fields = ("moved",) if is_narrow else ("moved", "rate", "left")
    return Progress(
        TextColumn("{task.description}" if is_narrow else f"{{task.description:>{_LABEL}}}", markup=False),
        BarColumn(bar_width=None if is_narrow else 40),
        *(TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in fields),
        console=console,
        transient=True,
        expand=is_narrow,
    )
