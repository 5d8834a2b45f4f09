"""Which snapshot came from which: a row each, parents above, a column for each branch."""

from __future__ import annotations

from collections.abc import Sequence

from casstore.growth import Node, Row, absent_text
from casstore.report.figures import count, moment, size
from casstore.report.markup import Markup, cut, element, join, number

_ROW, _LANE, _LEFT = 26, 16, 8  # pixels
_GAP = 14  # between two lineages
_BEND = 8
_NARROW, _WIDE = 20, 44  # letters of a name


def lineage_chart(rows: Sequence[Row]) -> Markup:
    """The drawing, of at least one row."""
    places: list[tuple[int, int]] = []
    for row in rows:
        down = places[-1][1] + _ROW + _GAP * (row.above is None) if places else _ROW // 2
        places.append((_LEFT + _LANE * row.lane, down))
    links = [_link(places[row.above], place) for row, place in zip(rows, places, strict=True) if row.above is not None]
    return element(
        "svg",
        element("path", d="".join(links), class_="link"),
        [_mark(row, *place) for row, place in zip(rows, places, strict=True)],
        class_="chart lineage",
        role="img",
        aria_label=lineage_text(rows),
        width="100%",
        height=places[-1][1] + _ROW // 2,
    )


def lineage_text(rows: Sequence[Row]) -> str:
    """The drawing in a sentence."""
    snapshots = sum(row.node is not None for row in rows)
    lineages = sum(row.above is None for row in rows)
    branches = sum(row.branches for row in rows)
    ends = "1 branch" if branches == 1 else f"{branches} branches"
    return (
        f"{count(snapshots, 'snapshot')} in {count(lineages, 'lineage')} with {ends}; the parent of each is in the"
        " table of snapshots."
    )


def _link(above: tuple[int, int], below: tuple[int, int]) -> str:
    (from_x, from_y), (x, y) = above, below
    if x == from_x:
        return f"M{x} {from_y}V{y}"
    return f"M{from_x} {from_y}V{y - _BEND}q0 {_BEND} {_BEND} {_BEND}H{x}"


def _mark(row: Row, x: int, y: int) -> Markup:
    left, base = number(x + 12), y + 4
    if row.node is None:
        return join(
            element("circle", cx=x, cy=y, r=5, class_="missing"),
            element("text", absent_text(row.missing), x=left, y=base, class_="mark"),
        )
    node = row.node
    return join(
        element("circle", cx=x, cy=y, r=5),
        _name(node, left, base, row.lane),
        element("text", _time(node), x="80%", y=base, text_anchor="end", class_="mark wide"),
        element("text", f"+{size(node.added)}", x="100%", y=base, text_anchor="end", class_="figure"),
    )


def _name(node: Node, x: str, y: int, lane: int) -> Markup:
    name = ", ".join(node.names)
    short, long = cut(name, max(6, _NARROW - 2 * lane)), cut(name, _WIDE)
    if short == long:
        return element("text", name, x=x, y=y)
    return join(element("text", short, x=x, y=y, class_="narrow"), element("text", long, x=x, y=y, class_="wide"))


def _time(node: Node) -> str:
    return "" if node.created is None else moment(node.created)
