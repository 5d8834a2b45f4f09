"""Factors of several snapshots as bars, in panels side by side: dedup and compression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from casstore.report.figures import factor, factor_marks
from casstore.report.markup import Markup, cut, element, join, percent

_ROW, _TOP = 46, 44  # pixels
_LETTERS = 40  # of a name
_PANELS = ((0.0, 0.48), (0.52, 0.48))  # where each starts, and how wide it is
_BARS = 0.74  # of a panel's width; the rest is for figures


@dataclass(frozen=True, slots=True)
class Bars:
    """The bars of a snapshot; None where there is nothing to divide by."""

    name: str
    dedup: float | None
    compression: float | None


def bar_chart(rows: Sequence[Bars]) -> Markup:
    """The chart: a name, and below it a bar in each panel."""
    height = _TOP + _ROW * len(rows)
    panels = (
        ("Dedup", "dedup", [row.dedup for row in rows]),
        ("Compression", "compression", [row.compression for row in rows]),
    )
    return element(
        "svg",
        [
            _panel(start, width, height, title, class_, values)
            for (start, width), (title, class_, values) in zip(_PANELS, panels, strict=True)
        ],
        [
            element("text", cut(row.name, _LETTERS), x="0", y=_TOP + _ROW * at + 14, class_="over")
            for at, row in enumerate(rows)
        ],
        class_="chart",
        role="img",
        aria_label=bar_text(rows),
        width="100%",
        height=height,
    )


def bar_text(rows: Sequence[Bars]) -> str:
    """The chart in a sentence."""
    parts = []
    for title, values in (("dedup", [row.dedup for row in rows]), ("compression", [row.compression for row in rows])):
        known = [value for value in values if value is not None]
        if known:
            parts.append(f"{title} from {factor(min(known))} to {factor(max(known))}")
    return f"Bars of {len(rows)} snapshots: {', '.join(parts) or 'no factors'}."


def _panel(start: float, width: float, height: int, title: str, class_: str, values: Sequence[float | None]) -> Markup:
    marks = factor_marks(max((value for value in values if value is not None), default=1.0))
    scale = width * _BARS / marks[-1]
    drawn = [element("text", title, x=percent(start), y=14, class_="head")]
    for mark in marks:
        x = percent(start + mark * scale)
        inner = "mark wide" if mark not in {marks[0], marks[-1]} else "mark"
        if mark:
            drawn.append(element("line", x1=x, x2=x, y1=_TOP - 8, y2=height, class_="grid"))
        anchor = "middle" if mark else "start"
        drawn.append(element("text", f"{mark:g}x", x=x, y=_TOP - 13, text_anchor=anchor, class_=inner))
    for at, value in enumerate(values):
        y = _TOP + _ROW * at + 20
        end = start + (value or 0.0) * scale
        if value:
            drawn.append(element("rect", x=percent(start), y=y, width=percent(value * scale), height=14, class_=class_))
        drawn.append(
            element("svg", element("text", factor(value), x=6, y=12), x=percent(end), y=y, width="26%", height=18)
        )
    return join(drawn)
