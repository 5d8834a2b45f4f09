"""tree: how snapshots came one from another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from casstore.cli import render
from casstore.cli.options import complete_names, json_option, label_filters, quiet_option, verb
from casstore.cli.session import Session

if TYPE_CHECKING:
    from casstore.growth import Forest, Node, Row

_HEAD = ("NAME", "DIGEST", "CREATED (UTC)", "ADDED", "SIZE")
_LINES = ("│ ", "├─", "● ", "○ ")
_ASCII = ("| ", "|-", "* ", "o ")


@verb(
    "tree",
    examples="""
    casstore tree
    casstore tree after-pip
    casstore tree --label team=search
    casstore tree --json""",
)
@click.argument("snapshot", required=False, shell_complete=complete_names)
@click.option("--label", "labels", multiple=True, metavar="K[=V]", help="Only those with this label; several: all.")
@click.option("--ascii", "plain", is_flag=True, help="Draw with ASCII characters, as where UTF-8 cannot be shown.")
@json_option
@quiet_option
@click.pass_obj
def tree(session: Session, snapshot: str | None, labels: tuple[str, ...], plain: bool) -> None:
    """Show which snapshot came from which, the oldest on top; of all, or what one comes from and what comes from it.

    ADDED is what the blobs take that the parent has not, SIZE the disk's length. Each branch has a column; the longest
    goes on in the column of its parent. A parent that is not here is drawn as a circle. With --label what the snapshots
    come from is shown, too.
    """
    wanted = dict(label_filters(labels))
    with session.open_store() as store:
        forest, problems = store.tree(snapshot), store.problems()
    if wanted:
        forest = forest.only([node.digest for node in forest.nodes.values() if node.manifest.has_labels(wanted)])
    if session.as_json:
        session.emit_document(snapshots=_documents(forest))
    elif not forest:
        session.say("No snapshots.")
    else:
        head, *lines = _table(forest.rows(), _LINES if not plain and render.can_show("".join(_LINES)) else _ASCII)
        session.emit(click.style(head, bold=True))
        session.emit("\n".join(lines))
    for problem in problems:
        session.warn(f"snapshot {problem.name}: {problem.problem}")


def _table(rows: Iterable[Row], marks: tuple[str, str, str, str]) -> Iterator[str]:
    """The lines, head first; an empty one between two lineages."""
    from casstore.growth import absent_text

    cells: list[tuple[str, ...]] = []
    for row in rows:
        if row.above is None and cells:
            cells.append(("",) * len(_HEAD))
        drawn = _mark(row, marks)
        if row.node is None:
            cells.append((f"{drawn}{absent_text(row.missing)}", *("",) * (len(_HEAD) - 1)))
            continue
        node = row.node
        added = f"+{render.size(node.added)}"
        name = ", ".join(node.names)
        cells.append((drawn + name, node.digest.short, render.created(node.manifest), added, render.size(node.size)))
    return render.table(_HEAD, cells)


def _mark(row: Row, marks: tuple[str, str, str, str]) -> str:
    passing, branch, here, absent = marks
    lines = passing * (row.lane - row.branches) + branch * row.branches
    return lines + (absent if row.node is None else here)


def _documents(forest: Forest) -> list[dict[str, Any]]:
    """The snapshots, each after its parent."""
    return [_document(row.node, forest) for row in forest.rows() if row.node is not None]


def _document(node: Node, forest: Forest) -> dict[str, Any]:
    return {
        "digest": str(node.digest),
        "id": str(node.id),
        "names": list(node.names),
        "parent": node.manifest.parent,
        "parent_digest": None if node.parent is None else str(node.parent),
        "children": [str(child) for child in forest.children(node.digest)],
        "created_at": node.manifest.created_at,
        "labels": dict(node.manifest.labels),
        "size_bytes": node.size,
        "allocated_bytes": node.allocated,
        "stored_bytes": node.stored,
        "unique_bytes": node.unique,
        "added_bytes": node.added,
        "new_bytes": node.new,
    }
