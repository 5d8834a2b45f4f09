"""A treemap: boxes whose areas are in proportion to bytes, as square as can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from casstore.report.figures import share, size
from casstore.report.markup import Markup, cut, element, join, percent

_HEIGHT = 340  # pixels
_NARROW, _WIDE = 320, 680  # pixels: what a phone has, and the least of what is wider (style.py)
_LETTER = 7.2  # pixels that a letter takes, on average at most
_RATIO = 1.8  # of width to height, between that of a phone and that of a desk


@dataclass(frozen=True, slots=True)
class Part:
    """What a box stands for; `kind` is how it is drawn, and which others it is drawn beside."""

    name: str
    bytes: int
    kind: str


@dataclass(frozen=True, slots=True)
class Box:
    """A place, in shares of the whole from 0 to 1."""

    x: float
    y: float
    width: float
    height: float


def squarify(values: Sequence[int], whole: Box, ratio: float = 1.0) -> list[Box]:
    """A box for each value, all more than 0 and the largest first; `ratio` is how much wider than high `whole` is.

    Values are laid in rows along the shorter side of what is left; a row takes another value as long as that makes its
    worst box no longer.
    """
    boxes: list[Box] = []
    left = Box(whole.x * ratio, whole.y, whole.width * ratio, whole.height)
    scale = left.width * left.height / sum(values) if values else 0.0
    at = 0
    while at < len(values):
        side = min(left.width, left.height)
        end, total = at + 1, values[at] * scale
        while end < len(values):
            more = total + values[end] * scale
            if _worst(values[at] * scale, values[end] * scale, more, side) > _worst(
                values[at] * scale, values[end - 1] * scale, total, side
            ):
                break
            end, total = end + 1, more
        thick = total / side
        along = 0.0
        for value in values[at:end]:
            length = value * scale / thick
            if left.width >= left.height:
                boxes.append(Box(left.x / ratio, left.y + along, thick / ratio, length))
            else:
                boxes.append(Box((left.x + along) / ratio, left.y, length / ratio, thick))
            along += length
        if left.width >= left.height:
            left = Box(left.x + thick, left.y, max(left.width - thick, 1e-12), left.height)
        else:
            left = Box(left.x, left.y + thick, left.width, max(left.height - thick, 1e-12))
        at = end
    return boxes


def _worst(largest: float, smallest: float, total: float, side: float) -> float:
    """How much longer than wide the longest box of a row is."""
    return max(side * side * largest / (total * total), total * total / (side * side * smallest))


def layout(groups: Sequence[Sequence[Part]]) -> list[tuple[Part, Box]]:
    """A box for each part, those of a group beside each other; parts and groups are the largest first."""
    frames = squarify([sum(part.bytes for part in group) for group in groups], Box(0, 0, 1, 1), _RATIO)
    placed: list[tuple[Part, Box]] = []
    for group, frame in zip(groups, frames, strict=True):
        boxes = squarify([part.bytes for part in group], frame, _RATIO)
        placed += zip(group, boxes, strict=True)
    return placed


def treemap(groups: Sequence[Sequence[Part]]) -> Markup:
    """The drawing; each part is more than 0."""
    placed = layout(groups)
    whole = sum(part.bytes for part, _ in placed)
    return element(
        "svg",
        [_drawn(part, box, whole) for part, box in placed],
        class_="chart treemap",
        role="img",
        aria_label=treemap_text([part for part, _ in placed]),
        width="100%",
        height=_HEIGHT,
    )


def treemap_text(parts: Sequence[Part]) -> str:
    """The drawing in a sentence."""
    whole = sum(part.bytes for part in parts)
    largest = sorted(parts, key=lambda part: -part.bytes)[:5]
    named = ", ".join(f"{part.name} {size(part.bytes)} {part.kind}" for part in largest)
    return f"Boxes in proportion to bytes, {size(whole)} in all. The largest: {named}."


def _drawn(part: Part, box: Box, whole: int) -> Markup:
    said = f"{part.name}: {size(part.bytes)} {part.kind}, {share(part.bytes, whole)}"
    return element(
        "svg",
        element("rect", element("title", said), width="100%", height="100%", class_=part.kind),
        list(_labels(part, box)),
        x=percent(box.x),
        y=percent(box.y),
        width=percent(box.width),
        height=percent(box.height),
        data_bytes=part.bytes,
    )


def _labels(part: Part, box: Box) -> Iterator[Markup]:
    """What there is room for on a phone, and what on a desk, if that is more."""
    narrow, wide = (_lines(part, box.width * width, box.height * _HEIGHT) for width in (_NARROW, _WIDE))
    if narrow == wide:
        yield _text(narrow, None)
    else:
        yield _text(narrow, "narrow")
        yield _text(wide, "wide")


def _lines(part: Part, width: float, height: float) -> list[str]:
    room = int((width - 12) / _LETTER)
    name = part.name if len(part.name) <= room else cut(part.name, room) if room >= 5 else ""
    figures = [f"{size(part.bytes)} {part.kind}", size(part.bytes)]
    figure = next((each for each in figures if height >= 42 and len(each) <= room), None)
    lines = [name, figure] if figure else [name]
    return lines if name and height >= 22 else []


def _text(lines: Sequence[str], class_: str | None) -> Markup:
    return join([element("text", line, x="6", y=16 + 17 * at, class_=class_) for at, line in enumerate(lines)])
