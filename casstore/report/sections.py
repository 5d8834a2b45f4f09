"""The sections of the page, in their order: each a title, a sentence or two, a drawing, and its figures as a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from casstore.growth import Node
from casstore.report.barchart import Bars, bar_chart
from casstore.report.blockmapchart import KINDS, block_map_chart, swatch
from casstore.report.figures import count, mark_text, moment, share, size
from casstore.report.gather import Contents, Pair
from casstore.report.growthchart import Point, growth_chart
from casstore.report.lineagechart import lineage_chart
from casstore.report.markup import Content, element, join
from casstore.report.tables import (
    SNAPSHOTS,
    bytes_cell,
    factor_cell,
    figures_of_a_chart,
    name_of,
    parent_of,
    scrolling,
    snapshot_rows,
    table,
)
from casstore.report.treemap import Part, treemap

MOST = 1000
"""Snapshots that are drawn and listed, the newest; the figures on top are those of all."""
_BARS, _BOXES = 20, 300
_VISIBLE = 2000  # what is less than one in so many of all bytes has no box of its own

_MEANING = {
    "changed": "changed: data in both, not the same",
    "added": "added: a hole before",
    "removed": "removed: a hole now",
    "same": "the same",
    "hole": "a hole in both",
}


Section = tuple[str, str, Content]
"""An id, a title, and what stands below it."""


def sections_of(contents: Contents) -> list[Section]:
    """Those for which there is something to show; without snapshots none."""
    return [section for make in _PARTS if (section := make(contents))] if contents.forest else []


def _growth(contents: Contents) -> Section | None:
    nodes = list(contents.forest.nodes.values())
    timed = [node for node in nodes if node.created is not None]
    if not timed:
        return None
    stored = copies = 0
    points: list[Point] = []
    rows: list[Sequence[Content]] = []
    for node in nodes:  # those without a time come first, and count from the first time on
        stored, copies = stored + node.new, copies + node.allocated
        if node.created is not None:
            points.append(Point(node.created, stored, copies))
            cells = (element("td", moment(node.created)), bytes_cell(node.new, "+"), bytes_cell(stored))
            rows.append((name_of(node), *cells, bytes_cell(copies)))
    unknown = len(nodes) - len(timed)
    text = "What the store takes after each snapshot, beside what a copy of each disk's allocated bytes would take."
    if unknown:
        text += f" {count(unknown, 'snapshot')} without a readable time counted from the start."
    head = ("Snapshot", "Created (UTC)", "#New", "#Stored", "#Whole copies")
    return (
        "growth",
        "Growth",
        (
            element("p", text),
            element("figure", growth_chart(points), figures_of_a_chart("Growth", head, rows[-MOST:])),
        ),
    )


def _factors(contents: Contents) -> Section:
    newest = list(islice(contents.forest.newest_first(), _BARS))
    rows = [
        Bars(name_of(node), contents.dedup.get(str(node.digest)), contents.compression.get(str(node.digest)))
        for node in newest
    ]
    which = (
        f"The newest {_BARS} snapshots; the others are in the table of snapshots. "
        if len(contents.forest) > _BARS
        else ""
    )
    text = (
        f"{which}Dedup is allocated bytes to those that a snapshot's packs hold: below 1 where they also hold what"
        " others use. Compression is what packs make of these; a delta counts as compression."
    )
    cells = [(row.name, factor_cell(row.dedup), factor_cell(row.compression)) for row in rows]
    return (
        "factors",
        "Dedup and compression",
        (
            element("p", text),
            element(
                "figure",
                bar_chart(rows),
                figures_of_a_chart("Dedup and compression", ("Snapshot", "#Dedup", "#Compression"), cells),
                class_="tall",
            ),
        ),
    )


def _space(contents: Contents) -> Section | None:
    total = contents.total
    if not total.stored:
        return None
    groups = [_parts(contents, kind) for kind in ("shared", "unique")]
    groups = sorted((group for group in groups if group), key=lambda group: -sum(part.bytes for part in group))
    rows = [
        (
            part.name,
            element("td", part.kind),
            bytes_cell(part.bytes),
            element("td", share(part.bytes, total.stored), class_="number"),
        )
        for group in groups
        for part in group
    ]
    legend = [
        element("li", swatch("unique"), element("span", f"unique: one snapshot alone needs it, {size(total.unique)}")),
        element("li", swatch("shared"), element("span", f"shared: several need it, {size(total.shared)}")),
    ]
    text = (
        "Stored bytes, each once, in the box of the oldest snapshot that needs them. Areas are in proportion to bytes."
        " To remove a snapshot frees what is unique to it."
    )
    return (
        "space",
        "Where the space is",
        (
            element("p", text),
            element(
                "figure",
                treemap(groups),
                element("ul", legend, class_="legend"),
                figures_of_a_chart("Where the space is", ("Snapshot", "Kind", "#Stored", "#Share"), rows),
            ),
        ),
    )


def _parts(contents: Contents, kind: str) -> list[Part]:
    """The parts of one kind, the largest first; the small ones are one."""
    values = [
        (node.unique if kind == "unique" else node.new - node.unique, name_of(node))
        for node in contents.forest.nodes.values()
    ]
    values = sorted(value for value in values if value[0] > 0)[::-1]
    large = [value for value in values[:_BOXES] if value[0] * _VISIBLE > contents.total.stored]
    parts = [Part(name, most, kind) for most, name in large]
    rest = values[len(large) :]
    parts.append(Part(count(len(rest), "other"), sum(each for each, _ in rest), kind))
    return sorted((part for part in parts if part.bytes > 0), key=lambda part: -part.bytes)


def _lineage(contents: Contents) -> Section:
    forest = contents.forest
    drawn = forest
    text = (
        "Each snapshot below the one it came from, the oldest on top, with what its blobs take that its parent has not."
    )
    if len(forest) > MOST:
        drawn = forest.newest(MOST)
        text += f" Only the newest {MOST:,} are drawn."
    rows = list(drawn.rows())
    cells = [
        (name_of(row.node), element("td", parent_of(row.node, forest)), bytes_cell(row.node.added, "+"))
        for row in rows
        if row.node is not None
    ]
    return (
        "lineage",
        "Lineage",
        (
            element("p", text),
            element(
                "figure",
                scrolling("Drawing of the lineage", lineage_chart(rows)),
                figures_of_a_chart("Lineage", ("Snapshot", "Parent", "#Added"), cells),
                class_="tall",
            ),
        ),
    )


def _blocks(contents: Contents) -> Section:
    pair = contents.pair
    if pair is None:
        return "blocks", "What changed", element("p", contents.no_pair)
    values = {
        "changed": pair.changed,
        "added": pair.added,
        "removed": pair.removed,
        "same": pair.same,
        "hole": pair.hole,
    }
    legend = [element("li", swatch(kind), element("span", f"{_MEANING[kind]}, {size(values[kind])}")) for kind in KINDS]
    rows = [
        (_MEANING[kind], bytes_cell(values[kind]), element("td", share(values[kind], pair.size), class_="number"))
        for kind in KINDS
    ]
    return (
        "blocks",
        "What changed",
        (
            element("p", element("strong", f"From {pair.names[0]} to {pair.names[1]}.")),
            element("p", _compared(pair)),
            element(
                "figure",
                block_map_chart(pair.cells, _compared_in_short(pair)),
                element("ul", legend, class_="legend"),
                figures_of_a_chart("What changed", ("Bytes of the disk", "#Bytes", "#Share"), rows),
            ),
        ),
    )


def _compared(pair: Pair) -> str:
    both, only_a, only_b = pair.chunks
    return (
        f"The disk from its first byte to its last, {mark_text(pair.cell)} a cell; one in which anything changed shows"
        f" that. {count(both, 'chunk')} are in both, {only_a:,} only in {pair.names[0]} and {only_b:,} only in"
        f" {pair.names[1]}, whose blobs take {size(pair.new_stored)} that {pair.names[0]} has not."
    )


def _compared_in_short(pair: Pair) -> str:
    return (
        f"Block map of {pair.names[1]} against {pair.names[0]}: of {size(pair.size)}, {size(pair.changed)} changed,"
        f" {size(pair.added)} added and {size(pair.removed)} removed."
    )


def _snapshots(contents: Contents) -> Section:
    forest = contents.forest
    nodes: list[Node] = list(islice(forest.newest_first(), MOST))
    rows = snapshot_rows(nodes, forest, contents.dedup, contents.compression)
    text = "Newest first." if len(nodes) == len(forest) else f"The newest {MOST:,} of {count(len(forest), 'snapshot')}."
    return (
        "snapshots",
        "Snapshots",
        join(
            element("p", text),
            scrolling("Table of the snapshots", table(SNAPSHOTS, rows, class_="sortable", aria_labelledby="snapshots")),
        ),
    )


_PARTS = (_growth, _factors, _space, _lineage, _blocks, _snapshots)
