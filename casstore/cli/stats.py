"""stats: what snapshots take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from casstore.cli import render
from casstore.cli.options import json_option, quiet_option, selector, verb
from casstore.cli.session import Session

if TYPE_CHECKING:
    from casstore.stats import StoreStats, Usage

_HEAD = ("NAME", "LOGICAL", "ALLOCATED", "STORED", "UNIQUE", "SHARED", "DEDUP", "COMPRESSION", "IN ALL")


@verb(
    "stats",
    examples="""
    casstore stats
    casstore df base after-pip
    casstore stats --json""",
)
@selector("snapshots", nargs=-1, required=False)
@json_option
@quiet_option
@click.pass_obj
def stats(session: Session, snapshots: tuple[str, ...]) -> None:
    """Show what snapshots take: all of them, or those that are named.

    LOGICAL is the length of the disk, ALLOCATED what of it is in use. STORED is what its blobs take: UNIQUE is needed
    by no other snapshot, SHARED by others too: of two with the same content both have next to nothing that is unique.
    DEDUP is allocated bytes to those that the packs hold, below 1 where packs also hold what this snapshot does not
    use; COMPRESSION is what packs make of these, and IN ALL allocated to stored. In the last line, what several
    snapshots share counts once.
    """
    with session.open_store() as store:
        found = store.stats(snapshots or None)
    if session.as_json:
        session.emit_document(**_document(found))
    elif not found.snapshots:
        session.say("No snapshots.")
    else:
        rows = [_row(", ".join(each.names), each.usage) for each in found.snapshots]
        rows.append(_row(f"({render.count(len(found.snapshots), 'snapshot')})", found.total))
        head, *lines = render.table(_HEAD, rows)
        session.emit(click.style(head, bold=True))
        session.emit("\n".join(lines))


def _row(name: str, usage: Usage) -> Sequence[str]:
    sizes = (usage.logical, usage.allocated, usage.stored, usage.unique, usage.shared)
    factors = (usage.dedup, usage.compression, usage.reduction)
    return (name, *map(render.size, sizes), *("-" if each is None else f"{each:.2f}x" for each in factors))


def _document(found: StoreStats) -> dict[str, Any]:
    return {
        "snapshots": [
            {"digest": str(each.digest), "names": list(each.names), **_usage_document(each.usage)}
            for each in found.snapshots
        ],
        "total": {"snapshots": len(found.snapshots), **_usage_document(found.total)},
    }


def _usage_document(usage: Usage) -> dict[str, Any]:
    return {
        "logical_bytes": usage.logical,
        "allocated_bytes": usage.allocated,
        "stored_bytes": usage.stored,
        "unique_bytes": usage.unique,
        "shared_bytes": usage.shared,
        "pack_bytes": usage.packed,
        "plain_bytes": usage.plain,
        "dedup_factor": usage.dedup,
        "compression_factor": usage.compression,
        "reduction_factor": usage.reduction,
    }
