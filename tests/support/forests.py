"""Forests of snapshots that no store holds: what the catalog would say of them, invented."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from casstore.digest import Digest
from casstore.growth import Forest, grow
from casstore.manifest import SCRATCH, ImageRef, Manifest, SnapshotFormat, UpperLayer
from casstore.queries import Entry, Step
from casstore.report.gather import Contents
from casstore.spec import KIB, MIB
from casstore.stats import Usage

START = datetime(2026, 1, 1, tzinfo=UTC)


def digest_of(number: int) -> Digest:
    """The digest of a snapshot that has this number."""
    return Digest.of(b"snapshot %d" % number)


def entry(
    number: int,
    *,
    parent: str | None = None,
    created: str | None = None,
    labels: Mapping[str, str] | None = None,
    image: ImageRef = SCRATCH,
) -> Entry:
    """A snapshot `n<number>`, made so many hours after START, that stores so many KiB of its own."""
    manifest = Manifest(
        format=SnapshotFormat.RAW,
        fstype="ext4",
        image=image,
        parent=parent,
        created_at=created or (START + timedelta(hours=number)).isoformat(),
        labels=labels or {},
        upper=UpperLayer(file="disk.raw", size_bytes=64 * MIB),
        source_sandbox=None,
    )
    return Entry(
        digest=digest_of(number),
        names=(f"n{number}",),
        manifest=manifest,
        allocated=8 * MIB,
        stored=MIB + number * KIB,
        unique=number * KIB,
        packed=MIB,
        plain=3 * MIB,
        children=0,
    )


def forest_of(parents: Sequence[int | None], *, labels: Mapping[str, str] | None = None) -> Forest:
    """Snapshots 0, 1, ...; each is the child of the one whose number stands in its place."""
    entries: list[Entry] = []
    steps: dict[Digest, Step] = {}
    for number, parent in enumerate(parents):
        made = entry(number, parent=None if parent is None else str(entries[parent].id), labels=labels)
        entries.append(made)
        above = None if parent is None else digest_of(parent)
        steps[made.digest] = Step(above, added=made.stored if above is None else made.unique, new=made.unique)
    return grow(entries, steps)


def random_parents(count: int, seed: int) -> list[int | None]:
    """A history with branches: most snapshots come from one of the last few."""
    rng = random.Random(seed)
    return [
        None if number == 0 or rng.random() < 0.02 else rng.randrange(max(0, number - 6), number)
        for number in range(count)
    ]


def contents_of(forest: Forest) -> Contents:
    """What a report would tell of it, without a pair."""
    nodes = forest.nodes.values()
    total = Usage(
        logical=sum(node.size for node in nodes),
        allocated=sum(node.allocated for node in nodes),
        stored=sum(node.new for node in nodes),
        unique=sum(node.unique for node in nodes),
        packed=MIB,
        plain=3 * MIB,
    )
    factors = {str(node.digest): 1.5 for node in nodes}
    return Contents(forest, total, dict(factors), dict(factors), None, "No pair.")
