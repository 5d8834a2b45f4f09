"""Where a new snapshot goes, and what is told of it when it is there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from casstore.cli import render
from casstore.cli.damage import REPAIR
from casstore.cli.env import expand_home
from casstore.cli.session import Session
from casstore.names import is_path

if TYPE_CHECKING:
    from casstore.binding import Created
    from casstore.config import SnapshotDestination
    from casstore.secrets import Scan
    from casstore.snapshot import Snapshot


_TOLD = 20  # findings that people are told of, each on its line


def parse_destination(text: str) -> SnapshotDestination:
    """A name, or a path: what has a "/" in it, or starts with "." or "~".

    Raises:
        click.UsageError: neither.
    """
    from casstore.config import SnapshotDestination

    if not text:
        raise click.UsageError("destination must not be empty")
    if is_path(text):
        return SnapshotDestination(path=expand_home(text))
    return SnapshotDestination(name=text)


def tell_created(session: Session, snapshot: Snapshot, seconds: float) -> None:
    """Digest and path on stdout, what it cost on stderr; or one JSON document."""
    if session.as_json:
        session.emit_document(**created_document(snapshot, seconds))
        return
    say_created(session, snapshot, seconds)


def say_created(session: Session, snapshot: Snapshot, seconds: float) -> None:
    """Digest and path on stdout, what it cost on stderr."""
    cost = snapshot.cost
    session.emit(str(snapshot.digest))
    if not session.quiet:
        session.emit(render.printable(snapshot.path))
    if cost is not None:
        for pack in cost.damaged:
            session.say(
                f"warning: pack {pack} of the store is damaged; what this snapshot needs of it was stored again;"
                f" {REPAIR}"
            )
        if cost.secrets is not None:
            _tell_secrets(session, cost.secrets)
        stats = cost.stats
        ratio = f" ({stats.new_plain / cost.added:.1f} : 1)" if stats.new_plain > cost.added else ""
        what = os.path.basename(snapshot.path)
        if cost.unchanged_since is not None:
            session.say(
                f"kept {what}: unchanged since {cost.unchanged_since}: nothing read, {render.duration(seconds)}"
            )
            return
        session.say(
            f"kept {what}: {render.size(stats.allocated)} allocated, {render.size(stats.new_plain)} new,"
            f" {render.size(cost.added)} stored{ratio}, {render.duration(seconds)}"
        )


def _tell_secrets(session: Session, found: Scan) -> None:
    for finding in found.findings[:_TOLD]:
        session.warn(f"{finding.text} on the disk looks like credentials ({finding.pattern})")
    more = len(found.findings) + found.more - _TOLD
    if more > 0:
        session.warn(f"{render.count(more, 'more finding')} like these on the disk; --json tells up to 1000")
    if not found.findings and found.not_scanned is None:
        session.say(f"no credentials found: looked at {render.count(found.names, 'name')}, read {found.files} of them")
    if found.not_scanned is not None:
        session.warn(f"not scanned for credentials, or not wholly: {found.not_scanned}")


def _secrets_document(found: Scan | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {
        "findings": [{"path": finding.text, "pattern": finding.pattern} for finding in found.findings],
        "more": found.more,
        "names": found.names,
        "files": found.files,
        "not_scanned": found.not_scanned,
    }


def created_document(snapshot: Snapshot, seconds: float) -> dict[str, object]:
    """The same as a JSON object."""
    cost: Created | None = snapshot.cost
    stats = cost.stats if cost is not None else None
    return {
        "digest": str(snapshot.digest),
        "id": str(snapshot.id),
        "name": snapshot.names[0],
        "path": snapshot.path,
        "size_bytes": snapshot.size_bytes,
        "allocated_bytes": stats.allocated if stats else 0,
        "chunks": stats.chunks if stats else 0,
        "new_chunks": stats.new_chunks if stats else 0,
        "delta_chunks": stats.deltas if stats else 0,
        "new_bytes": stats.new_plain if stats else 0,
        "stored_bytes": cost.added if cost else 0,
        "copied_bytes": stats.copied if stats else 0,
        "unchanged_since": cost.unchanged_since if cost else None,
        "secrets": _secrets_document(cost.secrets if cost else None),
        "seconds": round(seconds, 3),
    }
