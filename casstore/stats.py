"""What snapshots take: how long their disks are, what of it is in use, and what it costs to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from casstore.catalog import Catalog
from casstore.digest import Digest


@dataclass(frozen=True, slots=True)
class Usage:
    """What one or several snapshots take, in bytes. Of several, what they share is stored, and counted, once."""

    logical: int
    """Apparent bytes of the disks."""
    allocated: int
    """Bytes in extents of the disks."""
    stored: int
    """Bytes of all blobs that they need: packs, maps, configs and manifests."""
    unique: int
    """Bytes of the blobs that a single snapshot of the store needs."""
    packed: int
    """Bytes of the packs."""
    plain: int
    """Plain bytes of all chunks in the packs."""

    @property
    def shared(self) -> int:
        """Bytes of the blobs that several snapshots of the store need."""
        return self.stored - self.unique

    @property
    def dedup(self) -> float | None:
        """How often a stored plain byte is used: allocated to plain. None where nothing is stored.

        Below 1 where packs hold chunks of other snapshots too.
        """
        return _factor(self.allocated, self.plain)

    @property
    def compression(self) -> float | None:
        """Plain bytes to bytes of the packs; deltas count as compression."""
        return _factor(self.plain, self.packed)

    @property
    def reduction(self) -> float | None:
        """Allocated bytes to all stored bytes: what casstore saves in all."""
        return _factor(self.allocated, self.stored)


@dataclass(frozen=True, slots=True)
class SnapshotStats:
    """What one snapshot takes."""

    digest: Digest
    names: tuple[str, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What snapshots take, newest first, and all of them together."""

    snapshots: tuple[SnapshotStats, ...]
    total: Usage


def stats(catalog: Catalog, digests: Sequence[Digest] | None) -> StoreStats:
    """Of all snapshots, or of those with these digests."""
    entries = catalog.entries(digests)
    snapshots = tuple(
        SnapshotStats(
            entry.digest,
            entry.names,
            Usage(
                logical=entry.manifest.upper.size_bytes,
                allocated=entry.allocated,
                stored=entry.stored,
                unique=entry.unique,
                packed=entry.packed,
                plain=entry.plain,
            ),
        )
        for entry in entries
    )
    stored, packed, plain = catalog.stored_once(digests)
    total = Usage(
        logical=sum(each.usage.logical for each in snapshots),
        allocated=sum(each.usage.allocated for each in snapshots),
        stored=stored,
        unique=sum(each.usage.unique for each in snapshots),
        packed=packed,
        plain=plain,
    )
    return StoreStats(snapshots, total)


def _factor(more: int, less: int) -> float | None:
    return more / less if less else None
