"""Creating a snapshot: in a store, with what it may be based on, or in a directory of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from casstore.catalog import Entry
from casstore.config import SnapshotConfig
from casstore.derived import Derived
from casstore.durable import Durability
from casstore.errors import UsageError
from casstore.lineage import choose_base
from casstore.names import parse_name
from casstore.progress import Progress
from casstore.secrets import search
from casstore.storedir import StoreDirectory

if TYPE_CHECKING:
    from casstore.binding import Created, Destination
    from casstore.capture import CaptureOptions
    from casstore.create import Earlier
    from casstore.sources import Sighting, Sources
    from casstore.transaction import Transaction


def _nothing() -> None:
    """What a disk has to confirm."""


def create_in_store(
    directory: StoreDirectory,
    derived: Derived,
    config: SnapshotConfig,
    *,
    parent: Entry | None,
    options: CaptureOptions | None,
    progress: Progress,
    confirm: Callable[[], None] = _nothing,
) -> Created:
    """Capture a disk and give it its name; durable when this returns. What `confirm` raises, when all is captured, ends
    it without a name.

    Raises:
        As Store.create.
    """
    from casstore.capture import CaptureOptions
    from casstore.create import build
    from casstore.scan import sample
    from casstore.sources import Sighting, SourceRecord, Sources
    from casstore.transaction import Transaction

    catalog, options = derived.catalog, options or CaptureOptions()
    with config.disk.open() as source:
        name = parse_name(config.destination.name or "")
        if not config.force:
            directory.refs.require_free(name)  # before the work, not only after it
        sources = Sources(os.path.join(directory.path, "cache"))
        seen = None if config.disk.path is None else Sighting.of(source, config.disk.path)
        directory.require_writable()
        with Transaction(directory, catalog, force=config.force, workers=options.workers) as change:
            description = config.description(None if parent is None else str(parent.id))
            earlier = _unchanged(change, derived, seen, sources) if config.trust_mtime and seen is not None else None
            base = None
            if earlier is None:
                source.clone_into(change.scratch)
                last = None if seen is None else sources.last(seen.path)
                digest = choose_base(
                    catalog,
                    parent=None if parent is None else parent.digest,
                    same_source=None if last is None else last.artifact,
                    image=config.image,
                    sample=lambda: sample(source),
                )
                base = None if digest is None else change.reuse(digest)
            # After the clone was made: what is looked at is what is captured.
            secrets = search(source, config.scan_secrets)
            created = build(source, change, description, options=options, earlier=earlier, base=base, progress=progress)
            confirm()
            change.commit(name, created.root)
    if seen is not None:
        sources.remember(SourceRecord(seen, created.root.digest))
    return replace(created, secrets=secrets)


def create_at_path(
    config: SnapshotConfig,
    parent_id: str | None,
    *,
    durability: Durability,
    options: CaptureOptions | None,
    progress: Progress,
    confirm: Callable[[], None] = _nothing,
) -> tuple[Created, str]:
    """Capture a disk into a directory of its own, an OCI layout; returns its tag, too. For `confirm` see above.

    Raises:
        As Store.create.
    """
    from casstore.capture import CaptureOptions
    from casstore.create import PATH_TAG, build
    from casstore.create import create_at_path as make

    path = config.destination.path
    if path is None:
        raise UsageError("snapshot destination: expected a path, got a name")
    with config.disk.open() as source:

        def capture_into(destination: Destination, scratch: str) -> Created:
            source.clone_into(scratch)
            description = config.description(parent_id)
            secrets = search(source, config.scan_secrets)
            made = build(source, destination, description, options=options or CaptureOptions(), progress=progress)
            confirm()
            return replace(made, secrets=secrets)

        return make(path, capture_into, force=config.force, durability=durability), PATH_TAG


def _unchanged(change: Transaction, derived: Derived, seen: Sighting, sources: Sources) -> Earlier | None:
    """The newest snapshot of a source, if the source has not changed since, and the store still has all of it."""
    from casstore.create import Earlier

    record = sources.last(seen.path)
    if record is None or not seen.same_content_as(record.seen):
        return None
    derived.catch_up()
    entries = derived.catalog.entries([record.artifact])
    artifact = change.reuse(record.artifact) if entries else None
    if artifact is None or artifact.config.upper.size_bytes != seen.stamp.size:
        return None
    return Earlier(entries[0].names[0], artifact)
