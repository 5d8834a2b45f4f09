"""The tables of the page: each chart has one with its figures, and all snapshots are in the last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from casstore.growth import Forest, Node, absent_text
from casstore.report.figures import count, factor, moment, size
from casstore.report.markup import Content, Markup, cut, element, join, number

_LABELS = 200  # characters of all labels of a snapshot that are shown
_NAMES = 200


def bytes_cell(value: int, sign: str = "") -> Markup:
    """A size, and the exact number for programs and for sorting."""
    return element("td", element("data", f"{sign}{size(value)}", value=value), class_="number")


def factor_cell(value: float | None) -> Markup:
    """A factor; what has none sorts before all others."""
    shown = element("data", factor(value), value="-1" if value is None else f"{value:.4f}")
    return element("td", shown, class_="number")


def time_cell(node: Node) -> Markup:
    """When a snapshot was made; what cannot be read, as it is, sorts before all others."""
    time = node.created
    if time is None:
        return element("td", element("data", cut(node.manifest.created_at, 40), value="0"))
    return element("td", element("data", moment(time), value=number(time.timestamp())))


def name_of(node: Node) -> str:
    """All names of a snapshot, or its digest."""
    return cut(", ".join(node.names), _NAMES) or node.digest.short


def figures_of_a_chart(what: str, head: Sequence[str], rows: Iterable[Sequence[Content]]) -> Markup:
    """A table that is folded in; the first column are names, the cells of the others are given."""
    return element(
        "details", element("summary", f"{what} as a table"), scrolling(f"{what} as a table", table(head, rows))
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Content]], **attributes: object) -> Markup:
    """A table; heads that start with `#` are those of columns of numbers."""
    cells = [
        element("th", title.removeprefix("#"), scope="col", class_="number" if title.startswith("#") else None)
        for title in head
    ]
    body = [element("tr", element("th", first, scope="row"), rest) for first, *rest in rows]
    return element("table", element("thead", element("tr", cells)), element("tbody", body), **attributes)


def scrolling(label: str, *content: Content) -> Markup:
    """A box that scrolls by itself where there is no room, also with the keyboard."""
    return element("div", *content, class_="scroll", role="region", tabindex="0", aria_label=label)


SNAPSHOTS = (
    *("Snapshot", "Created (UTC)", "#Size", "#Allocated", "#Stored", "#Unique", "#Added", "#Dedup", "#Compression"),
    *("Parent", "Image", "Labels", "Digest"),
)


def snapshot_rows(
    nodes: Iterable[Node], forest: Forest, dedup: dict[str, float | None], compression: dict[str, float | None]
) -> Iterable[Sequence[Content]]:
    """The rows of the table of all snapshots."""
    for node in nodes:
        yield (
            name_of(node),
            time_cell(node),
            *(bytes_cell(value) for value in (node.size, node.allocated, node.stored, node.unique)),
            bytes_cell(node.added, "+"),
            factor_cell(dedup.get(str(node.digest))),
            factor_cell(compression.get(str(node.digest))),
            element("td", parent_of(node, forest)),
            element("td", element("bdi", cut(node.manifest.image.ref, 120)), class_="long"),
            element("td", element("bdi", _labels(node)), class_="long"),
            element("td", element("code", node.digest.short)),
        )


def parent_of(node: Node, forest: Forest) -> str:
    """What to call its parent."""
    if node.parent is not None:
        return name_of(forest.nodes[node.parent])
    return "-" if node.missing is None else absent_text(node.missing)


def _labels(node: Node) -> Content:
    labels = [f"{key}={value}" for key, value in node.manifest.labels.items()]
    shown: list[str] = []
    for label in labels:
        if sum(map(len, shown)) + len(label) > _LABELS and shown:
            break
        shown.append(cut(label, _LABELS))
    more = len(labels) - len(shown)
    return join(", ".join(shown) or "-", f", and {count(more, 'more label')}" if more else "")
