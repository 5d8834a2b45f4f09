"""What is stored, over time, beside what whole copies would take: two lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from casstore.report.figures import mark_text, size, size_marks, time_marks
from casstore.report.markup import Markup, element, join, number, percent

_TOP, _HEIGHT, _BOTTOM = 24, 240, 24  # pixels
_WIDE = 1000  # units of the lines' own width
_APART = 17  # pixels between two labels


@dataclass(frozen=True, slots=True)
class Point:
    """What there was after a snapshot was made, in bytes."""

    time: datetime
    stored: int
    copies: int


def growth_chart(points: Sequence[Point]) -> Markup:
    """The chart; `points` are in the order of time, at least one. It is as wide as its place, and its text is not
    scaled: across it is measured in shares, and downwards in pixels.
    """
    first, last = points[0].time, points[-1].time
    span = max((last - first).total_seconds(), 1.0)
    start, length = first.timestamp() - span * 0.02, span * 1.06
    margin = min(timedelta(seconds=span * 0.04), datetime.max.replace(tzinfo=UTC) - last)
    marks = size_marks(max(points[-1].stored, points[-1].copies))
    bottom = _TOP + _HEIGHT

    def across(time: datetime) -> float:
        return (time.timestamp() - start) / length

    def down(count: int) -> float:
        return bottom - _HEIGHT * count / marks[-1]

    def steps(values: Iterable[tuple[datetime, int]]) -> str:
        words = [f"M0 {bottom}"]
        words += [f"H{number(across(time) * _WIDE)}V{number(down(count))}" for time, count in values]
        return "".join([*words, f"H{_WIDE}"])

    stored = steps((point.time, point.stored) for point in points)
    copies = steps((point.time, point.copies) for point in points)
    lines = element(
        "svg",
        element("path", d=f"{stored}V{bottom}Z", class_="area"),
        element("path", d=copies, class_="line copies"),
        element("path", d=stored, class_="line stored"),
        viewBox=f"0 0 {_WIDE} {bottom + _BOTTOM}",
        preserveAspectRatio="none",
        width="100%",
        height=bottom + _BOTTOM,
    )
    return element(
        "svg",
        [_size_mark(mark, down(mark)) for mark in marks],
        lines,
        [_time_mark(across(time), text) for time, text in time_marks(first, last + margin)],
        _labels(points[-1], down),
        class_="chart",
        role="img",
        aria_label=growth_text(points),
        width="100%",
        height=bottom + _BOTTOM,
    )


def growth_text(points: Sequence[Point]) -> str:
    """The chart in a sentence."""
    last = points[-1]
    return (
        f"Two rising lines from {points[0].time:%Y-%m-%d} to {last.time:%Y-%m-%d}: {size(last.stored)} stored at the"
        f" end; whole copies would take {size(last.copies)}."
    )


def _size_mark(mark: int, y: float) -> Markup:
    line = element("line", x1="0", x2="100%", y1=y, y2=y, class_="axis" if mark == 0 else "grid")
    return join(line, element("text", mark_text(mark), x="0", y=y - 4, class_="mark") if mark else "")


def _time_mark(x: float, text: str) -> Markup:
    anchor = "start" if x < 0.1 else "end" if x > 0.9 else "middle"
    bottom = _TOP + _HEIGHT
    tick = element("line", x1=percent(x), x2=percent(x), y1=bottom, y2=bottom + 5, class_="axis")
    return join(tick, element("text", text, x=percent(x), y=bottom + 19, text_anchor=anchor, class_="mark"))


def _labels(last: Point, down: Callable[[int], float]) -> Markup:
    """Direct labels at the ends of the lines: left above each there is room, as both only rise."""
    copies_y, stored_y = down(last.copies) - 6, down(last.stored) - 6
    if abs(copies_y - stored_y) < _APART:  # the lower one goes below its line
        if last.copies >= last.stored:
            stored_y = down(last.stored) + _APART
        else:
            copies_y = down(last.copies) + _APART
    ends = (
        (f"whole copies {size(last.copies)}", copies_y, "copies"),
        (f"stored {size(last.stored)}", stored_y, "stored"),
    )
    return join(
        [element("text", text, x="100%", y=y, text_anchor="end", class_=f"{class_} over") for text, y, class_ in ends]
    )
