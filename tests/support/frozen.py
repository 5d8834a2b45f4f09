"""Makes a store to freeze: `python -m tests.support.frozen DIR`, with an empty or missing DIR.

It holds what a history leaves: deltas, several packs, small packs merged into one, labels and parents, a manifest that
refers to a snapshot, and a removed name in the trash. What is derived or local (catalog, locks, cache) is left out.
DIR/expected.json says what later versions must find.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from pathlib import Path
from unittest import mock

from casstore import Snapshot, Store, locality, spec
from casstore.oci import Descriptor
from casstore.streams import BytesSource
from tests.support.disks import KIB, Text

STEPS = 6
FEW = 3
"""Small packs that a snapshot lists before they are merged; the real number would take a hundred files here."""


def _disk(rng: random.Random) -> bytearray:
    return bytearray(Text(rng).take(160 * KIB) + bytes(300 * KIB) + rng.randbytes(24 * KIB) + b"end")


def _edit(disk: bytearray, rng: random.Random, step: int) -> None:
    for _ in range(3):  # in place: deltas
        at = rng.randrange(150 * KIB)
        disk[at : at + 16] = rng.randbytes(16)
    disk += Text(rng).take(8 * KIB) + b"%d" % step  # and at the end: new chunks


def _attach(store: Store, name: str) -> None:
    """A manifest that refers to the snapshot, as a signature does."""
    subject = store.open_snapshot(name).root
    note = Descriptor.of(b"checked by hand", "text/plain")
    empty = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json")
    document = {
        "schemaVersion": 2,
        "mediaType": spec.MEDIA_MANIFEST,
        "artifactType": "application/vnd.example.note.v1",
        "config": empty.to_dict(),
        "layers": [note.to_dict()],
        "subject": subject.to_dict(),
    }
    raw = json.dumps(document).encode()
    with store.transaction(force=True) as change:
        change.push(note, BytesSource(b"checked by hand"))
        change.push(empty, BytesSource(b"{}"))
        change.attach(Descriptor.of(raw, spec.MEDIA_MANIFEST), subject, BytesSource(raw))
        change.tag(subject, name)


def make(root: Path) -> None:
    """Make the store in `root`."""
    rng = random.Random("frozen")
    disk = _disk(rng)
    file = root.with_name(f"{root.name}.disk")
    expected = {}
    with Store.init(root, share=True) as store, mock.patch.object(locality, "MOST_SMALL", FEW):
        for step in range(STEPS):
            file.write_bytes(disk)
            name = f"step-{step}"
            builder = Snapshot.builder(file).name(name).label("step", str(step)).record_integrity("sha256")
            if step:
                builder.parent(f"step-{step - 1}")
            made = builder.create(store)
            expected[name] = {
                "digest": str(made.digest),
                "disk_sha256": hashlib.sha256(disk).hexdigest(),
                "id": str(made.id),
                "packs": len(made.artifact_manifest.packs),
                "size_bytes": len(disk),
            }
            _edit(disk, rng, step)
        _attach(store, "step-2")
        store.tag("step-1", "removed")
        store.remove("removed")
    file.unlink()
    for name in ("lock", "gate.lock", "refs.lock", "catalog.sqlite"):
        (root / name).unlink()
    for name in ("tmp", "cache"):
        shutil.rmtree(root / name)
    (root / "expected.json").write_text(json.dumps(expected, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
