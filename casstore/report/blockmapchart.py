"""Where two disks differ: a field of cells, each the same number of bytes, in the order of the disk."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from casstore.report.markup import Markup, element, percent

ACROSS, DOWN = 64, 16
CELLS = ACROSS * DOWN
KINDS = ("changed", "added", "removed", "same", "hole")
"""What a cell can be, and how it is told apart without colours: stripes, dots, crosses, plain, empty."""
_SIZE = 14  # pixels, downwards


def patterns() -> Markup:
    """What the cells are filled with; once in a page."""
    return element(
        "svg",
        element(
            "defs",
            _pattern("changed", "M-1 5L5 -1M-1 9L9 -1M3 9L9 3"),
            _pattern("added", "M2 2h2v2h-2zM6 6h2v2h-2z"),
            _pattern("removed", "M0 0L8 8M8 0L0 8"),
        ),
        width="0",
        height="0",
        class_="patterns",
        aria_hidden="true",
        focusable="false",
    )


def _pattern(kind: str, path: str) -> Markup:
    return element(
        "pattern",
        element("rect", width="8", height="8", class_=kind),
        element("path", d=path, class_="over"),
        id=f"is-{kind}",
        width="8",
        height="8",
        patternUnits="userSpaceOnUse",
    )


def block_map_chart(cells: Sequence[str], said: str) -> Markup:
    """The drawing; each cell is one of KINDS, and `said` is what it shows, in a sentence."""
    down = -(-len(cells) // ACROSS)
    drawn = []
    for row in range(down):
        at = 0
        for kind, run in groupby(cells[row * ACROSS : (row + 1) * ACROSS]):
            length = len(list(run))
            if kind != "hole":
                drawn.append(_cells(kind, at, row, length))
            at += length
    frame = element("rect", x="0", y="0", width="100%", height=down * _SIZE, class_="hole")
    return element(
        "svg", frame, drawn, class_="chart blocks", role="img", aria_label=said, width="100%", height=down * _SIZE
    )


def _cells(kind: str, at: int, row: int, length: int) -> Markup:
    return element(
        "rect",
        x=percent(at / ACROSS),
        y=row * _SIZE,
        width=percent(length / ACROSS),
        height=_SIZE - 1,
        **_filled(kind),
    )


def _filled(kind: str) -> dict[str, str]:
    """The attributes that fill a rectangle."""
    return {"class_": kind} if kind not in {"changed", "added", "removed"} else {"fill": f"url(#is-{kind})"}


def swatch(kind: str) -> Markup:
    """A cell for the legend."""
    return element(
        "svg",
        element("rect", x="1", y="1", width="20", height="14", **_filled(kind)),
        element("rect", x="1", y="1", width="20", height="14", class_="sample"),
        width="22",
        height="16",
        aria_hidden="true",
        focusable="false",
        class_="swatch",
    )
