"""What the measurements look like: tables for the terminal and for the documentation's page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support import disks

Columns = Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of texts under their heads."""

    title: str
    head: Columns
    rows: Sequence[Columns]

    def text(self) -> str:
        """For a terminal: columns aligned, the first to the left."""
        widths = [max(len(row[column]) for row in [self.head, *self.rows]) for column in range(len(self.head))]
        lines = [self.title]
        for row in [self.head, ["-" * width for width in widths], *self.rows]:
            first, *others = zip(row, widths, strict=True)
            cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, ""])

    def markdown(self) -> str:
        """For the documentation."""
        return f"{self.title}:\n\n{grid(self.head, self.rows)}"


def grid(head: Columns, rows: Iterable[Columns]) -> str:
    """A table in Markdown: the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def say(text: str) -> None:
    """Tell the user at once."""
    print(text, flush=True)


def machine_text(machine: Mapping[str, Any]) -> str:
    """What something was measured on, as `page.circumstances` has it."""
    return f"{machine['cores']} cores of {machine['processor']}, {machine['memory']} of memory, {machine['kernel']}"


def seconds(count: float) -> str:
    """With a unit, three digits or so."""
    return f"{count:.2f} s" if count < 100 else f"{count:.0f} s"


def megabytes(count: float) -> str:
    """Bytes as MB, three digits or so."""
    return f"{count / 1e6:.2f} MB" if count < 10e6 else f"{count / 1e6:.0f} MB"


def mebibytes(count: float) -> str:
    """Bytes as whole MiB."""
    return f"{count / disks.MIB:.0f} MiB"
