"""Draws a disk in a terminal, a character per cell: what is a hole, what is the same, and what changed how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from casstore.cli import render

if TYPE_CHECKING:
    from casstore.comparing.blockmap import Cell

_KINDS: Final = ("changed", "added", "removed")
_COLORS: Final = {"hole": None, "same": None, "changed": "yellow", "added": "green", "removed": "red"}


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters for cells, all of them different, so that they can be told apart without colours. Of what differs
    there are two: for cells of which less than half does, and for the others.
    """

    hole: str
    same: str
    changed: str
    added: str
    removed: str

    def all(self) -> str:
        """Every character."""
        return self.hole + self.same + self.changed + self.added + self.removed


UNICODE: Final = Marks(hole="·", same="░", changed="▒█", added="△▲", removed="▽▼")
ASCII: Final = Marks(hole=".", same=":", changed="cC", added="aA", removed="rR")


def marks_for_output() -> Marks:
    """Those that the standard output can show."""
    return UNICODE if render.can_show(UNICODE.all()) else ASCII


def draw(cells: Sequence[Cell], *, width: int, marks: Marks) -> Iterator[str]:
    """The lines of a map of `width` characters a line, with colours, and below it what they mean."""
    for start in range(0, len(cells), width):
        yield _line([_mark(cell, marks) for cell in cells[start : start + width]])
    if cells:
        yield f"each cell is {render.size(cells[0].length)}; {legend(marks)}"
        yield "of two characters the first is for less than half of a cell"


def legend(marks: Marks) -> str:
    """What the characters mean."""
    pairs = [f"{_styled(marks.hole, 'hole')} hole", f"{_styled(marks.same, 'same')} the same"]
    pairs += [f"{_styled(getattr(marks, kind), kind)} {kind}" for kind in _KINDS]
    return ", ".join(pairs)


def _mark(cell: Cell, marks: Marks) -> tuple[str, str]:
    """The character for a cell, and its kind."""
    characters: str = getattr(marks, cell.kind)
    return (characters[2 * cell.differing >= cell.length] if cell.differing else characters), cell.kind


def _line(marked: Sequence[tuple[str, str]]) -> str:
    """Characters with colours, each of which is set once for neighbours of a kind."""
    parts: list[tuple[str, str]] = []
    for char, kind in marked:
        if parts and parts[-1][1] == kind:
            parts[-1] = (parts[-1][0] + char, kind)
        else:
            parts.append((char, kind))
    return "".join(_styled(text, kind) for text, kind in parts)


def _styled(text: str, kind: str) -> str:
    color = _COLORS[kind]
    return click.style(text, fg=color) if color else text
